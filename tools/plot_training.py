"""Draw the curves of trainings: python tools/plot_training.py runs/32s_x2 checkpoints/x3/32s

Left the training loss, right the validation PSNR, both against the step, from the log.jsonl in each folder;
with --health, below them what shows early that a training diverges.
"""
import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from tools.command import run_main
from tools.files import check_writable
from tools.plots import COLORS, save_figure
from tools.training.history import CURVES, HEALTH, read_curves


def plot(runs, output, health=False):
    """Draw the curves of `runs` to the image file `output`."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure = pyplot.figure(figsize=(10, 7.2 if health else 3.6), dpi=120)
    rows = [CURVES, HEALTH] if health else [CURVES]
    curves = [read_curves(run) for run in runs]
    grid = figure.add_gridspec(len(rows), 6)  # of two or three panels a row
    for row, names in enumerate(rows):
        for column, (key, name) in enumerate(names.items()):
            width = 6 // len(names)
            axis = figure.add_subplot(grid[row, column * width:(column + 1) * width])
            for i, run in enumerate(runs):
                axis.plot(*curves[i][key], color=COLORS[i % len(COLORS)], label=os.path.normpath(run),
                          marker="o" if key == "psnr" else "", markersize=3,
                          linewidth=1.5 if key == "psnr" else 1)
            axis.set(title=name, xlabel="step",
                     yscale="log" if key in ("loss", "gradient_norm", "largest_dra") else "linear")
            axis.grid(True, alpha=0.3)
            axis.locator_params(axis="x", nbins=6)
            if names is CURVES:
                axis.legend(frameon=False)
    figure.tight_layout()
    save_figure(figure, output)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
