"""Draw the paper's figures from this project's models: python tools/paper/figures.py swap

NAME is one of dra, swap, rsa, crops (of a trained model) and trade-off (of the tables). Each writes
runs/figures/NAME.png or, with --update, figures/NAME.png. An image is named by its data set and name,
Sample/chelsea, or by its path; a patch of it by x,y,width,height in HR pixels behind a colon:
Sample/chelsea:100,80,96,64.
"""
import argparse
import collections
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from model import SCALES
from tools.command import positive, run_main
from tools.files import check_writable, short_path
from tools.network import choose_variant
from tools.options import add_checkpoint, add_data_dir, add_gpu
from tools.paper.attention import (DPI, WIDTH, crop, draw_dra, draw_rsa, draw_swap, fetch_sr, magnified,
                                   open_network, pixel_figure, read_photograph, show)
from tools.paper.results import FIGURES, MEASURED, read_published
from tools.plot_training import COLORS, save_figure
from utils import BENCHMARKS, bicubic, score

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox

STYLE = {"font.size": 9, "axes.titlesize": 9, "legend.fontsize": 8, "legend.frameon": False,
         "figure.dpi": DPI, "axes.spines.top": False, "axes.spines.right": False}
# the paper's three images; its crops are not published as numbers, so that the boxes are ours
PAPER_CROPS = (("Urban100/img_067:450,150,84,56", "x2"), ("Urban100/img_049:225,270,84,56", "x3"),
               ("B100/148026:140,300,84,56", "x4"))


# ------------------------------------------------------------------------------------------------------ crops

def draw_crops(args):
    """For each crop: the photograph with the crop marked, and the crop in HR, by bicubic and by our model;
    PSNR / SSIM are those of the whole photograph."""
    rows = []  # (title, HR, box, [(title, whole image)])
    for text, scale in PAPER_CROPS if args.paper else [(text, args.scale) for text in args.crops]:
        photograph, lr, hr, box = read_photograph(text, SCALES[scale], args.data_dir)
        with open_network(args.model, scale, args.checkpoint, args.gpu) as network:
            images = [("bicubic", bicubic(lr, network.factor)),
                      ("DRSAN-" + args.model, fetch_sr(network, lr))]
        rows.append(("%s, %s" % (photograph, scale), hr, box, [("HR\nPSNR / SSIM", hr)] + [
            ("%s\n%.2f dB / %.4f" % ((name,) + score(sr, hr, SCALES[scale])), sr) for name, sr in images]))
    sizes = [magnified((box[3], box[2]), 276) for _, _, box, _ in rows]
    figure, top = pixel_figure(sum(height for _, height in sizes) + 55 * len(rows) + 5), 0
    for (title, hr, box, panels), (width, height) in zip(rows, sizes):
        top += 50
        ratio = min(160.0 / hr.shape[1], height / hr.shape[0])
        place = 10, top, int(hr.shape[1] * ratio), int(hr.shape[0] * ratio)
        axis = show(figure, place, hr, title, interpolation="antialiased").axes
        axis.title.set(fontsize=8, ha="left", x=0)
        axis.add_patch(Rectangle(box[:2], *box[2:], fill=False, color=COLORS[4], linewidth=1.5))
        for j, (title, image) in enumerate(panels):
            show(figure, (200 + 282 * j, top, width, height), crop(image, box), title)
        top += height + 5
    return figure


# -------------------------------------------------------------------------------------------------- trade-off

# kind: published, paper (its own models) or ours; params in M; multi_adds in G or None
Point = collections.namedtuple("Point", "name kind params multi_adds psnr")
STYLES = collections.OrderedDict([  # in the order in which their names are placed
    ("ours", ("DRSAN, ours", dict(color=COLORS[1], marker="*", markersize=11, linestyle="none"))),
    ("paper", ("DRSAN, the paper's", dict(color=COLORS[0], marker="o", markersize=5, linewidth=1))),
    ("published", ("published methods", dict(color="#606060", marker=".", markersize=5, linestyle="none")))])


def trade_off_points(measured, dataset):
    """{scale: list of Point} for a data set, from our Measured and the published tables."""
    points = collections.OrderedDict((scale, []) for scale in SCALES)
    for kind, rows in zip(("paper", "published"), read_published()):
        for row in (row for row in rows if row[dataset + "_psnr"]):
            points[row["scale"]].append(Point(
                row["model"], kind, float(row["params_M"]), float(row["multi_adds_G"] or 0) or None,
                float(row[dataset + "_psnr"])))
    for row in (row for row in measured if row.dataset == dataset):
        points[row.scale].append(
            Point(row.model, "ours", row.parameters / 1e6, row.multi_adds_G, row.psnr))
    return points


def place_labels(axis, renderer, labels):
    """Write (text, x, y, color, angle) beside their points, each at the nearest place where it covers no
    other and no point; angle: of the first place that is tried, in eighths of pi."""
    axis.autoscale_view()  # or transData would be that of an empty axis
    points = axis.transData.transform([label[1:3] for label in labels])
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in points]
    for text, x, y, color, first in labels:
        for place in range(16 * 12):
            radius, angle = 8 + 4 * (place // 16), np.pi / 8 * (first + place % 16)
            written = axis.annotate(
                text, (x, y), (2 * radius * np.cos(angle), radius * np.sin(angle)), fontsize=7, color=color,
                textcoords="offset points", ha="center", va="center",
                arrowprops={"arrowstyle": "-", "color": "#b0b0b0", "linewidth": 0.6, "shrinkB": 4})
            written.update_positions(renderer)
            extent = Text.get_window_extent(written, renderer)  # without the line to the point
            inside = (axis.bbox.min <= extent.min).all() and (extent.max <= axis.bbox.max).all()
            if inside and not extent.count_overlaps(taken):
                break
            written.remove()
        taken.append(extent)


def draw_trade_off(args):
    """PSNR against parameters and against multi-adds, one row for each scale.

    The worst method lies far below the others, and is named at the lower edge.
    """
    points = trade_off_points(MEASURED.read(os.path.join(FIGURES, "our_table.csv")), args.dataset)
    figure = Figure(figsize=(WIDTH / DPI, 10.5))
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.subplots(3, 2, sharey="row", gridspec_kw={
        "left": 0.09, "right": 0.99, "bottom": 0.045, "top": 0.96, "wspace": 0.05, "hspace": 0.2})
    for row, (scale, methods) in zip(axes, points.items()):
        row[0].set_ylabel("PSNR of Y on %s, %s (dB)" % (args.dataset, scale))
        row[1].set_xscale("log")
        worst = min(methods, key=lambda point: point.psnr)
        methods.remove(worst)
        for axis, column, label in zip(row, ("params", "multi_adds"),
                                       ("parameters (M)", "multi-adds at 1280x720 (G)")):
            labels = []
            for kind, (name, style) in STYLES.items():
                shown = sorted((getattr(point, column), point.psnr, point.name) for point in methods
                               if point.kind == kind and getattr(point, column))
                axis.plot([x for x, _, _ in shown], [y for _, y, _ in shown], label=name, **style)
                labels += [(text, x, y, style["color"], 5 * (kind == "paper")) for x, y, text in shown]
            axis.text(0.02, 0.015, "\u2193 %s: %.2f at %g" % (worst.name, worst.psnr, getattr(worst, column)),
                      fontsize=7, color=STYLES["published"][1]["color"], transform=axis.transAxes)
            axis.margins(x=0.14, y=0.12)
            axis.grid(True, alpha=0.25)
            axis.set_xlabel(label)
            place_labels(axis, renderer, labels)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="upper center", ncol=3)
    return figure


# ---------------------------------------------------------------------------------------------------- command

def drsa_number(text):
    """K.N, as 2.1, as a pair of integers."""
    drag, block = text.split(".")
    return int(drag), int(block)


PATCH = dict(metavar="PATCH", help="default %(default)s")
PATCHES = dict(nargs="+", metavar="PATCH", help="default: three of Sample")
# {name: (function, {option: of argparse})}
DRAWINGS = collections.OrderedDict([
    ("dra", (draw_dra, {
        "--drag": dict(type=int, default=1, metavar="K", help="which DRAG (default 1)"),
        "--dataset": dict(nargs="+", default=["Sample"], metavar="NAME",
                          help="where patches are from (default Sample)"),
        "--side": dict(type=positive(int), default=32, help="of a patch in LR pixels (default 32)"),
        "--groups": dict(type=positive(int), default=3, help="clusters of patches (default 3)"),
        "--patches": dict(type=positive(int), default=5,
                          help="shown of each group, nearest to its mean (default 5)")})),
    ("swap", (draw_swap, {
        "--patch": dict(PATCH, default="Sample/astronaut:137,357,70,70"),
        "--donors": dict(PATCHES, default=["Sample/chelsea:40,200,70,70",
                                           "Sample/motorcycle_left:350,40,70,70",
                                           "Sample/rocket:565,60,70,70"])})),
    ("trade-off", (draw_trade_off, {
        "--dataset": dict(default="Set5", choices=BENCHMARKS, help="default Set5")})),
    ("crops", (draw_crops, {
        "--crops": dict(PATCHES, default=["Sample/astronaut:128,354,84,56",
                                          "Sample/motorcycle_left:545,300,84,56",
                                          "Sample/chelsea:115,80,84,56"]),
        "--paper": dict(action="store_true", help="the paper's three images, at x2, x3 and x4")})),
    ("rsa", (draw_rsa, {
        "--patch": dict(PATCH, default="Sample/motorcycle_left:114,160,150,100"),
        "--at": dict(type=drsa_number, default=(1, 1), metavar="K.N",
                     help="DRSA whose channels are shown (default 1.1)"),
        "--channels": dict(nargs="+", type=int, metavar="C", help="default: the three that vary most")}))])


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="name", metavar="NAME")
    commands.required = True
    for name, (function, options) in DRAWINGS.items():
        command = commands.add_parser(name, help=(function.__doc__ or "").split("\n")[0].rstrip("."))
        target = command.add_mutually_exclusive_group()
        target.add_argument("--output", default=os.path.join("runs", "figures", name), metavar="PATH",
                            help="without an ending (default: runs/figures/%s)" % name)
        target.add_argument("--update", dest="output", action="store_const",
                            const=os.path.join(FIGURES, name),
                            help="draw the project's own: figures/%s" % name)
        if name != "trade-off":
            add_checkpoint(command)
            add_gpu(command)
            add_data_dir(command)
        for option, settings in options.items():
            command.add_argument(option, **settings)
    args = parser.parse_args(argv)
    if args.name == "crops" and args.paper and args.checkpoint:
        parser.error("--paper is of three scales: it takes the shipped checkpoints")
    return args


def main(argv=None):
    args = parse_args(argv)
    path, draw = args.output + ".png", DRAWINGS[args.name][0]
    check_writable(files=[path])
    if args.name != "trade-off":
        args.model, args.scale = choose_variant(args.model, args.scale, args.checkpoint)
    with matplotlib.rc_context(STYLE):
        if args.name in ("trade-off", "crops"):
            figure = draw(args)
        else:
            with open_network(args.model, args.scale, args.checkpoint, args.gpu) as network:
                figure = draw(args, network)
        save_figure(figure, path)
    print("wrote %s" % short_path(path))


if __name__ == "__main__":
    run_main(main)
