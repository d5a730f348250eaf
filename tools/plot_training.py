"""Draw the curves of trainings: python tools/plot_training.py runs/32s_x2 checkpoints/x3/32s

Left the training loss, right the validation PSNR, both against the step, from the log.jsonl in each folder;
with --health, below them what shows early that a training diverges.
"""
import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from tools.command import UserError, run_main
from tools.files import check_writable, replacing
from tools.training.run import CURVES, HEALTH, read_curves

COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
          "#000000"]  # Okabe and Ito's, told apart by all


def save_figure(figure, path):
    """Write a Figure of matplotlib, all or nothing, in the format that the suffix says. Raises UserError."""
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=figure.dpi, format=os.path.splitext(path)[1][1:] or "png")
    except (OSError, ValueError) as error:
        raise UserError("cannot write %s: %s" % (path, error))


def plot(runs, output, health=False):
    """Draw the curves of `runs` to the image file `output`."""
    from matplotlib.figure import Figure
    curves, rows = [read_curves(run) for run in runs], [CURVES, HEALTH][:1 + health]
    figure = Figure(figsize=(10, 3.6 * len(rows)), dpi=120)
    grid = figure.add_gridspec(len(rows), 6)  # of two or three panels a row
    for row, names in enumerate(rows):
        for column, (key, name) in enumerate(names.items()):
            width = 6 // len(names)
            axis = figure.add_subplot(grid[row, column * width:(column + 1) * width])
            style = dict(marker="o", linewidth=1.5) if key == "psnr" else dict(linewidth=1)
            for i, run in enumerate(runs):
                axis.plot(*curves[i][key], color=COLORS[i % len(COLORS)], label=os.path.normpath(run),
                          markersize=3, **style)
            axis.set(title=name, xlabel="step",
                     yscale="log" if key in ("loss", "gradient_norm", "largest_dra") else "linear")
            axis.grid(True, alpha=0.3)
            axis.locator_params(axis="x", nbins=6)
            if names is CURVES:
                axis.legend(frameon=False)
    figure.tight_layout()
    save_figure(figure, output)


def main(argv=None):
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run or of shipped weights")
    parser.add_argument("--output", default=os.path.join("runs", "training.png"), metavar="FILE",
                        help="default runs/training.png")
    parser.add_argument("--health", action="store_true",
                        help="also draw the norm of the gradient, the largest |DRA| and the kernels' RMS")
    args = parser.parse_args(argv)
    check_writable(files=[args.output])
    plot(args.runs, args.output, args.health)
    print("wrote %s" % args.output)


if __name__ == "__main__":
    run_main(main)
