"""Draw the curves of trainings: python tools/plot_training.py runs/32s_x2 checkpoints/x3/32s --output figures/training.png

Left the training loss, right the validation PSNR, both against the step, from the log.jsonl in each folder.
"""
import argparse
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils import UserError, run_main  # noqa: E402

COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]  # Okabe and Ito's, told apart by all


def read_curves(run):
    """{"loss": (steps, values), "psnr": (steps, values)} of a run's log.jsonl. Raises UserError."""
    path = os.path.join(run, "log.jsonl")
    try:
        with open(path) as file:
            records = [json.loads(line) for line in file]
    except (OSError, ValueError) as error:
        raise UserError("cannot read %s: %s" % (path, error))
    curves = {}
    for key in "loss", "psnr":
        points = [(record["step"], record[key]) for record in records if key in record]
        curves[key] = tuple(zip(*points)) if points else ((), ())
    return curves


def plot(runs, output):
    """Draw the curves of `runs` to the image file `output`."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6))
    for i, run in enumerate(runs):
        curves, color = read_curves(run), COLORS[i % len(COLORS)]
        label = os.path.normpath(run)
        axes[0].plot(*curves["loss"], color=color, label=label, linewidth=1)
        axes[1].plot(*curves["psnr"], color=color, label=label, marker="o", markersize=3, linewidth=1.5)
    axes[0].set(title="Training loss (mean absolute error)", xlabel="step", yscale="log")
    axes[1].set(title="Validation PSNR of Y (dB)", xlabel="step")
    for axis in axes:
        axis.grid(True, alpha=0.3)
        axis.locator_params(axis="x", nbins=6)
        axis.legend(frameon=False)
    save_figure(figure, output)
    pyplot.close(figure)


def save_figure(figure, output):
    """Write a figure of matplotlib under a temporary name, then rename it to `output`. Raises UserError."""
    figure.tight_layout()
    temporary = output + ".tmp"
    try:
        os.makedirs(os.path.dirname(output) or ".", exist_ok=True)
        figure.savefig(temporary, dpi=120, format=os.path.splitext(output)[1][1:] or "png")
        os.replace(temporary, output)
    except (OSError, ValueError) as error:
        raise UserError("cannot write %s: %s" % (output, error))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run or of shipped weights")
    parser.add_argument("--output", default="figures/training.png", metavar="FILE", help="default figures/training.png")
    args = parser.parse_args()
    plot(args.runs, args.output)
    print("wrote %s" % args.output)


if __name__ == "__main__":
    run_main(main)
