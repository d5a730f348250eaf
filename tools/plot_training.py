"""Draw the curves of trainings: python tools/plot_training.py runs/32s_x2 checkpoints/x3/32s --output figures/training.png

Left the training loss, right the validation PSNR, both against the step, from the log.jsonl in each folder; with --health, below
them what shows early that a training diverges.
"""
import argparse
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils import UserError, replacing, run_main  # noqa: E402

COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]  # Okabe and Ito's, told apart by all


# keys of log.jsonl, and what they are called in the figure
CURVES = {"loss": "Training loss (mean absolute error)", "psnr": "Validation PSNR of Y (dB)"}
HEALTH = {"gradient_norm": "Norm of the gradient", "largest_dra": "Largest |DRA|", "kernel_rms": "RMS of the kernels"}


def read_curves(run):
    """{key: (steps, values)} of a run's log.jsonl for the keys of CURVES and HEALTH; the validation PSNR is that of the held-out
    photographs where there are any. Raises UserError."""
    path = os.path.join(run, "log.jsonl")
    try:
        with open(path) as file:
            records = [json.loads(line) for line in file]
    except (OSError, ValueError) as error:
        raise UserError("cannot read %s: %s" % (path, error))
    curves = {}
    held_out = any("psnr_held_out" in record for record in records)
    for key in list(CURVES) + list(HEALTH):
        source = "psnr_held_out" if key == "psnr" and held_out else key
        points = [(record["step"], record[source]) for record in records if source in record]
        curves[key] = tuple(zip(*points)) if points else ((), ())
    return curves


def plot(runs, output, health=False):
    """Draw the curves of `runs` to the image file `output`."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure = pyplot.figure(figsize=(10, 7.2 if health else 3.6))
    rows = [CURVES, HEALTH] if health else [CURVES]
    grid = figure.add_gridspec(len(rows), 6)  # of two or three panels a row
    for row, names in enumerate(rows):
        for column, (key, name) in enumerate(names.items()):
            width = 6 // len(names)
            axis = figure.add_subplot(grid[row, column * width:(column + 1) * width])
            for i, run in enumerate(runs):
                axis.plot(*read_curves(run)[key], color=COLORS[i % len(COLORS)], label=os.path.normpath(run),
                          marker="o" if key == "psnr" else "", markersize=3, linewidth=1.5 if key == "psnr" else 1)
            axis.set(title=name, xlabel="step", yscale="log" if key in ("loss", "gradient_norm", "largest_dra") else "linear")
            axis.grid(True, alpha=0.3)
            axis.locator_params(axis="x", nbins=6)
            if names is CURVES:
                axis.legend(frameon=False)
    save_figure(figure, output)
    pyplot.close(figure)


def save_figure(figure, output):
    """Write a figure of matplotlib, all or nothing. Raises UserError."""
    figure.tight_layout()
    try:
        os.makedirs(os.path.dirname(output) or ".", exist_ok=True)
        with replacing(output) as temporary:
            figure.savefig(temporary, dpi=120, format=os.path.splitext(output)[1][1:] or "png")
    except (OSError, ValueError) as error:
        raise UserError("cannot write %s: %s" % (output, error))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run or of shipped weights")
    parser.add_argument("--output", default="figures/training.png", metavar="FILE", help="default figures/training.png")
    parser.add_argument("--health", action="store_true", help="also draw the norm of the gradient, the largest |DRA| and the kernels' RMS")
    args = parser.parse_args()
    plot(args.runs, args.output, args.health)
    print("wrote %s" % args.output)


if __name__ == "__main__":
    run_main(main)
