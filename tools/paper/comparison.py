"""The figures that compare models: crops of images, and PSNR against multi-adds and parameters."""
import collections
import os

from model import SCALES
from tools.checkpoints import find_checkpoint
from tools.command import UserError
from tools.paper.attention import open_network, upscale
from tools.paper.canvas import DPI, WIDTH, cut, magnified, parse_patch, pixel_axes, pixel_figure, show
from tools.paper.results import FIGURES, read_measured, read_published
from tools.plots import COLORS
from utils import bicubic, read_pair, score

import numpy as np
from matplotlib import pyplot

# the paper's three images; its crops are not published as numbers, so that the boxes are ours
PAPER_CROPS = (("Urban100/img_067:450,150,84,56", "x2"), ("Urban100/img_049:225,270,84,56", "x3"),
               ("B100/148026:140,300,84,56", "x4"))


def crop_row(patch, model, scale, checkpoint, gpu):
    """The panels of one crop: [(name, whole image uint8, (PSNR, SSIM) of the whole image or None)] for HR, bicubic and
    ours; the image of ours is None where the model is not trained."""
    lr, hr = read_pair(patch.pair, SCALES[scale])
    upscaled = bicubic(lr, SCALES[scale])
    panels = [("HR", hr, None), ("bicubic", upscaled, score(upscaled, hr, SCALES[scale]))]
    try:
        find_checkpoint(model, scale, checkpoint)
    except UserError:
        if checkpoint:
            raise
        return panels + [("DRSAN-%s" % model, None, None)]
    sr = upscale(open_network(model, scale, checkpoint, gpu), lr)
    return panels + [("DRSAN-%s" % model, sr, score(sr, hr, SCALES[scale]))]


def draw_crops(args):
    """For each crop: the photograph with the crop marked, and the crop in HR, by bicubic and by our model; PSNR / SSIM
    are those of the whole photograph."""
    chosen = PAPER_CROPS if args.paper else [(text, args.scale) for text in args.crops]
    patches = [(parse_patch(text, SCALES[scale], args.data_dir), scale) for text, scale in chosen]
    if any(patch.box is None for patch, _ in patches):
        raise UserError("a crop needs a box: IMAGE:x,y,width,height")
    rows = [(patch, scale, crop_row(patch, args.model, scale, args.checkpoint, args.gpu)) for patch, scale in patches]
    tall = [magnified((patch.box[3], patch.box[2]), 276)[1] for patch, _, _ in rows]
    figure, top = pixel_figure(sum(tall) + 55 * len(rows) + 5), 0
    for (patch, scale, panels), height in zip(rows, tall):
        hr, (x, y, w, h) = panels[0][1], patch.box
        top += 50
        ratio = min(160.0 / hr.shape[1], height / hr.shape[0])
        axis = pixel_axes(figure, 10, top, int(hr.shape[1] * ratio), int(hr.shape[0] * ratio))
        show(axis, hr, "%s, %s" % (patch.name, scale)).set_interpolation("antialiased")
        axis.title.set(fontsize=8, ha="left", x=0)
        axis.add_patch(pyplot.Rectangle((x, y), w, h, fill=False, color=COLORS[4], linewidth=1.5))
        for j, (name, image, scores) in enumerate(panels):
            axis = pixel_axes(figure, 200 + 282 * j, top, *magnified((h, w), 276))
            if image is None:
                axis.text(w / 2, h / 2, "not trained", ha="center", va="center")
                show(axis, np.full((h, w, 3), 235, np.uint8), name)
            else:
                show(axis, cut(image, patch.box), name + ("\n%.2f dB / %.4f" % scores if scores else "\nPSNR / SSIM"))
        top += height + 5
    return figure


# kind: published, paper (its own models) or ours; params in M; multi_adds in G or None
Point = collections.namedtuple("Point", "name kind params multi_adds psnr")


def trade_off_points(measured, dataset):
    """{scale: list of Point} for a data set, from our Measured and the published tables."""
    points = collections.OrderedDict((scale, []) for scale in SCALES)
    for kind, rows in zip(("paper", "published"), read_published()):
        for row in rows:
            if row[dataset + "_psnr"]:
                multi_adds = float(row["multi_adds_G"]) if row["multi_adds_G"] else None
                points[row["scale"]].append(Point(row["model"], kind, float(row["params_M"]), multi_adds,
                                                  float(row[dataset + "_psnr"])))
    for row in measured:
        if row.dataset == dataset:
            points[row.scale].append(Point(row.model, "ours", row.parameters / 1e6, row.multi_adds_G, row.psnr))
    return points


def overlap(one, other):
    """The area that two boxes (x0, y0, x1, y1) have in common."""
    width, height = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    return max(0, width) * max(0, height)


def place_labels(axis, labels, obstacles, size=7):
    """Write (text, x, y, color, angle) beside their points, each where it covers the least of points, of the obstacles
    [N, 2] and of the labels placed before it; in the direction `angle` where nothing is in the way."""
    renderer = axis.figure.canvas.get_renderer()
    points = axis.transData.transform([label[1:3] for label in labels])
    inside = axis.get_window_extent(renderer)
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in points]
    taken += [(x - 2, y - 2, x + 2, y + 2) for x, y in axis.transData.transform(obstacles)]
    for (text, x, y, color, first), (px, py) in zip(labels, points):
        written = axis.annotate(text, (x, y), (x, y), fontsize=size, color=color, ha="center", va="center")
        extent = written.get_window_extent(renderer)
        width, height = extent.width / 2, 0.4 * extent.height
        best = None
        for radius in (12, 16, 24, 34, 46, 60, 80, 105):
            for angle in first + np.arange(0, 2 * np.pi, np.pi / 8):
                cx, cy = px + np.cos(angle) * (radius + width), py + np.sin(angle) * (radius + height)
                place = cx - width, cy - height, cx + width, cy + height
                outside = 4 * width * height - overlap(place, inside.extents)
                cost = radius + 3 * sum(overlap(place, other) for other in taken) + 100 * outside
                if best is None or cost < best[0] - 1e-6:
                    best = cost, place, (cx, cy), radius
        _, place, center, radius = best
        taken.append(place)
        written.set_position(axis.transData.inverted().transform(center))
        if radius > 20:
            axis.annotate("", (x, y), written.get_position(), arrowprops={
                "arrowstyle": "-", "color": "#a0a0a0", "linewidth": 0.6, "shrinkA": 6, "shrinkB": 2})


def draw_trade_off(args):
    """PSNR against parameters and against multi-adds, one row for each scale."""
    points = trade_off_points(read_measured(os.path.join(FIGURES, "our_table.csv")), args.dataset)
    figure, axes = pyplot.subplots(3, 2, figsize=(WIDTH / DPI, 10.5), sharey="row", gridspec_kw={
        "left": 0.09, "right": 0.99, "bottom": 0.045, "top": 0.96, "wspace": 0.05, "hspace": 0.2})
    for row, (scale, methods) in zip(axes, points.items()):
        row[0].set_ylabel("PSNR of Y on %s, %s (dB)" % (args.dataset, scale))
        row[1].set_xscale("log")
        row[0].set_ylim(psnr_range(methods))
        for axis, column in zip(row, ("params", "multi_adds")):
            draw_points(axis, [(getattr(point, column), point) for point in methods if getattr(point, column)])
            axis.set_xlabel({"params": "parameters (M)", "multi_adds": "multi-adds at 1280x720 (G)"}[column])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="upper center", ncol=3)
    return figure


def draw_points(axis, points):
    """One panel: (x, Point) with their names; one below the shown range is named at the lower edge, with its PSNR."""
    kinds = [("published", "published methods", dict(color="#606060", marker=".", markersize=5, linestyle="none")),
             ("paper", "DRSAN, the paper's", dict(color=COLORS[0], marker="o", markersize=5, linewidth=1)),
             ("ours", "DRSAN, ours", dict(color=COLORS[1], marker="*", markersize=11, linestyle="none"))]
    low = axis.get_ylim()[0]
    axis.margins(x=0.12)
    axis.grid(True, alpha=0.25)
    labels = []
    for kind, label, style in kinds:
        chosen = sorted((x, point.psnr, point.name) for x, point in points if point.kind == kind)
        line, = axis.plot([x for x, _, _ in chosen], [psnr for _, psnr, _ in chosen], label=label, **style)
        labels += [(name, x, psnr, style["color"], 0.625 * np.pi if kind == "paper" else 0) for x, psnr, name in chosen]
        if kind == "paper":
            curve = line
    axis.autoscale_view(scaley=False)
    for text, x, y, color, _ in labels:
        if y < low:
            edge = axis.get_xaxis_transform()
            axis.annotate("", (x, 0), (x, 0.06), edge, edge, arrowprops=dict(arrowstyle="->", color=color, shrinkA=0))
            axis.annotate("%s %.2f" % (text, y), (x, 0.015), (5, 0), edge, "offset points", fontsize=7, color=color)
    corners = axis.transData.transform(curve.get_xydata())
    along = np.concatenate([np.linspace(start, stop, 30) for start, stop in zip(corners, corners[1:])])
    shown = sorted((label for label in labels if label[2] >= low), key=lambda label: (label[3] == "#606060", -label[1]))
    place_labels(axis, shown, axis.transData.inverted().transform(along))


def psnr_range(points):
    """The shown range of PSNR: that of all points but the lowest of the published ones, if that lies alone."""
    published = sorted(point.psnr for point in points if point.kind == "published")
    second = min([published[1]] + [point.psnr for point in points if point.kind != "published"])
    high = max(point.psnr for point in points)
    low = second if second - published[0] > 0.3 * (high - second) else min(published[0], second)
    return low - 0.12 * (high - low), high + 0.16 * (high - low)
