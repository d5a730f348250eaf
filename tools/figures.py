"""Draw the paper's figures from this project's models: python tools/figures.py structure

NAME is one of structure, signal-flow (drawings of the graph), dra, swap, crops, rsa (of a trained model) and trade-off
(of the tables). Each writes figures/NAME.png, the two drawings NAME.svg as well. An image is named by its data set and
name, Sample/chelsea, or by its path; a patch of it by x,y,width,height in HR pixels behind a colon:
Sample/chelsea:100,80,96,64.
"""
import argparse
import collections
import os
import sys

import matplotlib
import numpy as np
import scipy.cluster.vq

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
matplotlib.use("Agg")  # before pyplot: no display is needed
from matplotlib import pyplot

from model import MODELS, SCALES, drsan
from ops import tf
from tools import drawings
from tools.plot_training import COLORS
from tools.tables import FIGURES, PAPER_DATASETS, read_measured, read_published
from utils import (DATASETS, Pair, UserError, bicubic, find_checkpoint, find_dataset, luma, open_session, positive, read_pair,
                   restore_weights, run_main, save_image, score, to_uint8)

MARKERS = "osD^vP*"
DPI = 150
WIDTH = 1050  # pixels, 7 inches: 9 points are 12 pixels where a README shows the figure 700 pixels wide
STYLE = {"font.size": 9, "axes.titlesize": 9, "legend.fontsize": 8, "legend.frameon": False, "figure.dpi": DPI,
         "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "DRSAN"}  # the same SVG every time
DRAWINGS = ("structure", "signal-flow")

# dra, rsa: their tensors, dra[k - 1] of DRAG k and rsa[k - 1][n - 1] of its n-th DRSA
Network = collections.namedtuple("Network", "session lr sr dra rsa scale")
# box: (x, y, width, height) in HR pixels, or None for the whole image
Patch = collections.namedtuple("Patch", "name pair box")


# ---------------------------------------------------------------------------------------------------------- network

def open_network(model, scale, checkpoint, gpu):
    """DRSAN with the weights of `checkpoint` (None: the shipped ones) in a new graph. Raises UserError."""
    prefix = find_checkpoint(model, scale, checkpoint)
    tf.reset_default_graph()
    lr = tf.placeholder(tf.float32, [None, None, None, 3])
    sr = drsan(lr, model, scale)
    graph = tf.get_default_graph()
    drags = range(1, MODELS[model].drags + 1)
    dra = [graph.get_tensor_by_name("DRAN/DRAG%d/DRA:0" % k) for k in drags]
    rsa = [[op.outputs[0] for op in graph.get_operations()
            if op.type == "Sigmoid" and op.name.startswith("DRAN/DRAG%d/" % k)] for k in drags]
    session = open_session([gpu])
    restore_weights(session, prefix)
    return Network(session, lr, sr, dra, rsa, SCALES[scale])


def fetch(network, tensors, lr, dra=()):
    """The values of `tensors` for LR images, uint8 [N, H, W, 3]; dra: values in place of those of DRAG 1, 2, ..."""
    feed = dict(zip(network.dra, dra))
    feed[network.lr] = lr / np.float32(255)
    return network.session.run(tensors, feed)


def upscale(network, lr, dra=()):
    """SR of one LR image, both uint8 [H, W, 3]; dra: as in fetch()."""
    return to_uint8(255 * fetch(network, network.sr, lr[None], dra)[0])


# ---------------------------------------------------------------------------------------------------------- patches

def parse_patch(text, scale, data_dir):
    """The Patch that an argument names (see the top of this file). Raises UserError."""
    name, _, box = text.rpartition(":")
    if not name or not box.replace(",", "").isdigit():
        name, box = text, None
    dataset, _, stem = name.rpartition("/")
    if dataset in DATASETS:
        pairs = [pair for pair in find_dataset(dataset, scale, data_dir).pairs if pair.name == stem]
    else:
        pairs = [Pair(os.path.splitext(os.path.basename(name))[0], name, None)] * os.path.isfile(name)
    if not pairs:
        raise UserError("there is no image %s: expected a file, or a data set and a name as Sample/chelsea" % name)
    if box:
        box = tuple(map(int, filter(None, box.split(","))))
        if len(box) != 4 or 0 in box[2:]:
            raise UserError("%s: a patch is x,y,width,height in HR pixels" % text)
    return Patch(pairs[0].name, pairs[0], box)


def cut(image, box):
    """The part of [H, W, ...] in box. Raises UserError if it is not inside."""
    x, y, width, height = box
    if x + width > image.shape[1] or y + height > image.shape[0]:
        raise UserError("the patch %d,%d,%d,%d is not inside its image of %dx%d pixels" % (box + image.shape[1::-1]))
    return image[y:y + height, x:x + width]


def read_patch(patch, scale):
    """(LR, HR) of a patch alone, uint8, its box cut down to multiples of `scale`. Raises UserError."""
    lr, hr = read_pair(patch.pair, scale)
    if patch.box:
        small = tuple(value // scale for value in patch.box)
        if 0 in small[2:]:
            raise UserError("a patch of %dx%d pixels is too small" % patch.box[2:])
        lr, hr = cut(lr, small), cut(hr, tuple(value * scale for value in small))
    return lr, hr


# ------------------------------------------------------------------------------------------------------- drawn parts

def pixel_figure(height):
    """A figure of WIDTH x height pixels."""
    return pyplot.figure(figsize=(WIDTH / DPI, height / DPI))


def pixel_axes(figure, x, y, width, height):
    """An axis of width x height pixels whose upper left corner is x, y pixels from that of the figure."""
    total = figure.get_figheight() * DPI
    return figure.add_axes([x / WIDTH, 1 - (y + height) / total, width / WIDTH, height / total])


def magnified(shape, room):
    """(width, height) in pixels of an image [H, W, ...] in a column of `room` pixels: a multiple of its own, if any."""
    zoom = room // shape[1] if shape[1] <= room else float(room) / shape[1]
    return int(shape[1] * zoom), int(shape[0] * zoom)


def show(axis, image, title=None, **kwargs):
    """Show an image without ticks, its pixels as they are."""
    shown = axis.imshow(image, interpolation="nearest", **kwargs)
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)
    if title:
        axis.set_title(title, pad=3)
    return shown


def frame(axis, color):
    """A frame in `color` around the image of an axis."""
    for spine in axis.spines.values():
        spine.set(visible=True, color=color, linewidth=2)


def path_names(blocks):
    """The residual paths of a DRAG in the order of its DRA values, r_0^1, r_0^2, r_1^2, ..., as mathtext."""
    return ["$r_%d^%d$" % (i, n) for n in range(1, blocks + 1) for i in range(n)]


def save(figure, path, formats=("png",)):
    """Write `path` with each ending of `formats` under a temporary name, then rename it; returns the paths.

    Raises UserError.
    """
    paths = ["%s.%s" % (path, ending) for ending in formats]
    for target in paths:
        if target.endswith("png"):
            figure.canvas.draw()
            save_image(target, np.array(figure.canvas.buffer_rgba())[:, :, :3])
            continue
        try:
            figure.savefig(target + ".tmp", format=target[-3:], metadata={"Date": None})  # the same bytes every time
            os.replace(target + ".tmp", target)
        except OSError as error:
            raise UserError("cannot write %s: %s" % (target, error.strerror))
    pyplot.close(figure)
    return paths


# -------------------------------------------------------------------------------------------------------------- dra

def collect_patches(names, scale, data_dir, side):
    """All patches of side x side LR pixels on the grid of that width in the images of the data sets: (LR patches, uint8
    [N, side, side, 3], list of HR patches). Raises UserError."""
    lrs, hrs = [], []
    for name in names:
        for pair in find_dataset(name, scale, data_dir).pairs:
            lr, hr = read_pair(pair, scale)
            for y in range(0, lr.shape[0] - side + 1, side):
                for x in range(0, lr.shape[1] - side + 1, side):
                    lrs.append(lr[y:y + side, x:x + side])
                    hrs.append(hr[scale * y:scale * (y + side), scale * x:scale * (x + side)])
    if not lrs:
        raise UserError("no image of %s has a patch of %dx%d LR pixels" % (" ".join(names), side, side))
    return np.array(lrs), hrs


def dra_values(network, lrs, k):
    """The DRA values of DRAG k for each LR patch alone: [N, number of paths]."""
    return np.concatenate([fetch(network, network.dra[k - 1], lrs[i:i + 64])[:, 0, 0] for i in range(0, len(lrs), 64)])


def group_patches(values, groups, shown):
    """k-means of the DRA values, each standardised: for each cluster, the largest first, (indices of the `shown`
    patches nearest to its mean, number of patches in it).

    The first centre is the patch farthest from the mean of all, each further one the patch farthest from the centres so
    far: no chance is involved. Raises UserError if there are too few patches.
    """
    if len(values) < groups * shown:
        raise UserError("%d patches are too few for %d groups of %d" % (len(values), groups, shown))
    points = (values - values.mean(0)) / np.maximum(values.std(0), 1e-12)
    centers = [points[np.argmax((points ** 2).sum(1))]]
    while len(centers) < groups:
        distance = np.min([((points - center) ** 2).sum(1) for center in centers], axis=0)
        centers.append(points[np.argmax(distance)])
    centers, label = scipy.cluster.vq.kmeans2(points, np.array(centers), iter=100, minit="matrix")
    clusters = []
    for i in sorted(range(groups), key=lambda i: -np.sum(label == i)):
        members = np.flatnonzero(label == i)
        nearest = np.argsort(((points[members] - centers[i]) ** 2).sum(1), kind="mergesort")[:shown]
        clusters.append((members[nearest], len(members)))
    return clusters


def draw_dra(args):
    """DRA values of one DRAG for groups of patches: a min-max band and the mean of each group, and its patches."""
    network = open_network(args.model, args.scale, args.checkpoint, args.gpu)
    if not 1 <= args.drag <= len(network.dra):
        raise UserError("DRSAN-%s has no DRAG %d: choose from 1 to %d" % (args.model, args.drag, len(network.dra)))
    lrs, hrs = collect_patches(args.dataset, network.scale, args.data_dir, args.side)
    values = dra_values(network, lrs, args.drag)
    clusters = group_patches(values, args.groups, args.patches)

    side = magnified(hrs[0].shape, (WIDTH - 110) // args.patches - 6)[0]
    figure = pixel_figure(495 + args.groups * (side + 8))
    axis, x = pixel_axes(figure, 110, 35, 930, 370), np.arange(values.shape[1])
    for i, (members, size) in enumerate(clusters):
        color = COLORS[i % len(COLORS)]
        axis.fill_between(x, values[members].min(0), values[members].max(0), color=color, alpha=0.25, linewidth=0)
        axis.plot(x, values[members].mean(0), color=color, marker=MARKERS[i % len(MARKERS)], markersize=5,
                  label="group %d: %d of %d patches" % (i + 1, size, len(values)))
        for j, member in enumerate(members):
            thumbnail = pixel_axes(figure, 110 + j * (930 // args.patches), 490 + i * (side + 8), side, side)
            show(thumbnail, hrs[member])
            frame(thumbnail, color)
            if j == 0:
                thumbnail.set_ylabel("group %d" % (i + 1))
    axis.axhline(0, color="#808080", linewidth=0.8)
    axis.set_xticks(x)
    axis.set_xticklabels(path_names(MODELS[args.model].blocks))
    axis.set_ylabel("DRA value")
    axis.set_title("DRA of DRAG %d, DRSAN-%s %s: mean and min-max band of the patches below"
                   % (args.drag, args.model, args.scale))
    axis.legend(ncol=args.groups, loc="upper center", bbox_to_anchor=(0.5, -0.08), handlelength=1.5, columnspacing=1)
    return figure


# -------------------------------------------------------------------------------------------------------------- swap

def swap(network, lr, donors):
    """What the DRA values of donor patches do to an LR patch, all of them uint8 [H, W, 3] of any sizes.

    Returns (own SR, list of SR with the DRA values of each donor in all DRAGs, all float32 and not clipped; list of the
    DRA values of all DRAGs, first those of the patch itself, then of each donor).
    """
    values = [fetch(network, network.dra, image[None]) for image in [lr] + donors]
    outputs = [fetch(network, network.sr, lr[None], dra)[0] for dra in [()] + values[1:]]
    return outputs[0], outputs[1:], [np.concatenate([value.ravel() for value in dra]) for dra in values]


def draw_swap(args):
    """A patch with its own DRA values and with those of donor patches: SR, and the differences on Y."""
    network = open_network(args.model, args.scale, args.checkpoint, args.gpu)
    lr, hr = read_patch(parse_patch(args.patch, network.scale, args.data_dir), network.scale)
    donors = [read_patch(parse_patch(text, network.scale, args.data_dir), network.scale) for text in args.donors]
    own, swapped, values = swap(network, lr, [donor for donor, _ in donors])
    differences = [np.abs(luma(255 * sr) - luma(255 * own)) for sr in swapped]
    limit = max(1e-3, np.percentile(differences, 99.8))

    step = (WIDTH - 165) // (1 + len(donors))
    width, height = magnified(hr.shape, step - 8)
    tops = 30, 30 + height + 50, 30 + 2 * height + 2 * 50 + 5
    figure = pixel_figure(tops[2] + height + 30)

    def panel(i, j):  # in the i-th row and the j-th column
        return pixel_axes(figure, 95 + j * step, tops[i], width, height)

    show(panel(0, 0), hr, "HR")
    image = to_uint8(255 * own)
    show(panel(1, 0), image, "SR, own DRA\n%.2f dB / %.4f" % score(image, hr, network.scale))
    axis = panel(2, 0)
    for i, (sr, difference) in enumerate(zip(swapped, differences), 1):
        axes = panel(0, i)
        show(axes, donors[i - 1][1], "donor %d" % i)
        frame(axes, COLORS[i % len(COLORS)])
        image = to_uint8(255 * sr)
        show(panel(1, i), image, "DRA of donor %d\n%.2f dB / %.4f" % ((i,) + score(image, hr, network.scale)))
        title = "difference on Y\nmean %.2f, max %.1f" % (difference.mean(), difference.max())
        shown = show(panel(2, i), difference, title, cmap="cividis", vmin=0, vmax=limit)
        axis.plot(values[i] - values[0], color=COLORS[i % len(COLORS)], linewidth=1.2)
    axis.axhline(0, color="#808080", linewidth=0.8)
    axis.set_title("DRA, donor less own,\nof each DRAG", pad=3)
    axis.tick_params(labelsize=8)
    axis.locator_params(axis="y", nbins=5)
    paths = len(values[0]) // len(network.dra)
    axis.set_xticks([paths * k - 0.5 for k in range(len(network.dra) + 1)])
    axis.set_xticklabels([])
    for k in range(len(network.dra)):
        axis.annotate(str(k + 1), (paths * (k + 0.5) - 0.5, -0.03), xycoords=axis.get_xaxis_transform(), ha="center",
                      va="top", fontsize=8)
    place = shown.axes.get_position()
    bar = figure.colorbar(shown, cax=figure.add_axes([place.x1 + 0.01, place.y0, 0.012, place.height]))
    bar.ax.tick_params(labelsize=8)
    return figure


# ------------------------------------------------------------------------------------------------------------- crops

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


# --------------------------------------------------------------------------------------------------------------- rsa

def draw_rsa(args):
    """The attention maps of each DRSA for one image: the mean over the channels, and some channels of one DRSA."""
    network = open_network(args.model, args.scale, args.checkpoint, args.gpu)
    drags, blocks = len(network.rsa), len(network.rsa[0])
    drag, block = args.at
    if not (1 <= drag <= drags and 1 <= block <= blocks):
        raise UserError("DRSAN-%s has no DRSA %d.%d: DRAGs 1 to %d have DRSAs 1 to %d"
                        % (args.model, drag, block, drags, blocks))
    lr, _ = read_patch(parse_patch(args.patch, network.scale, args.data_dir), network.scale)
    maps = fetch(network, network.rsa, lr[None])
    at = maps[drag - 1][block - 1][0]
    channels = args.channels or choose_channels(at, 3)
    if not 0 <= min(channels) <= max(channels) < at.shape[2]:
        raise UserError("DRSAN-%s has the channels 0 to %d" % (args.model, at.shape[2] - 1))

    columns = max(blocks, 1 + len(channels))
    step = (WIDTH - 10) // columns
    width, height = magnified(lr.shape, step - 6)
    figure = pixel_figure(30 + (drags + 1) * (height + 32) + 5)

    def panel(i, j):  # in the i-th row and the j-th column
        return pixel_axes(figure, 10 + j * step, 58 + i * (height + 32), width, height)

    show(panel(0, 0), lr, "LR")
    for j, channel in enumerate(channels, 1):
        show_attention(panel(0, j), at[:, :, channel], "%d.%d, channel %d" % (drag, block, channel))
    for k in range(drags):
        for n in range(blocks):
            show_attention(panel(k + 1, n), maps[k][n][0].mean(2), "DRSA %d.%d" % (k + 1, n + 1))
    title = "RSA of DRSAN-%s %s: 0.5 is white, lower violet, higher orange, within \u00b1 the range in the title"
    figure.text(0.5, 0.995, title % (args.model, args.scale), ha="center", va="top")
    return figure


def choose_channels(attention, count):
    """The `count` channels of [H, W, C] that vary most over the image, by standard deviation, the first the most."""
    return [int(i) for i in np.argsort(-attention.std((0, 1)), kind="mergesort")[:count]]


def show_attention(axis, attention, title):
    """Show an attention map [H, W] around sigmoid(0) = 0.5, which is white, in its own range, stated in the title."""
    span = max(1e-6, np.percentile(np.abs(attention - 0.5), 99.5))
    show(axis, attention, "%s:  \u00b1%.2g" % (title, span), cmap="PuOr_r", vmin=0.5 - span, vmax=0.5 + span)


# --------------------------------------------------------------------------------------------------------- trade-off

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


# ----------------------------------------------------------------------------------------------------------- command

def draw_structure(args):
    """The network and one of its DRAGs."""
    return drawings.structure(args.model, args.scale)


def draw_signal_flow(args):
    """One DRSA with its DRM."""
    return drawings.signal_flow(args.model)


DRAW = collections.OrderedDict([
    ("structure", draw_structure), ("signal-flow", draw_signal_flow), ("dra", draw_dra), ("swap", draw_swap),
    ("trade-off", draw_trade_off), ("crops", draw_crops), ("rsa", draw_rsa)])


def draw(args):
    """Draw the figure that the arguments name, write it, and return the paths."""
    folder = os.path.dirname(args.output)
    try:
        os.makedirs(folder or ".", exist_ok=True)
    except OSError as error:
        raise UserError("cannot write %s: %s" % (args.output, error.strerror))
    with pyplot.rc_context(STYLE):
        return save(DRAW[args.name](args), args.output, ("png", "svg") if args.name in DRAWINGS else ("png",))


def drsa_number(text):
    """K.N, as 2.1, as a pair of integers."""
    drag, block = text.split(".")
    return int(drag), int(block)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="name", metavar="NAME")
    commands.required = True
    for name, function in DRAW.items():
        command = commands.add_parser(name, help=function.__doc__.splitlines()[0].rstrip("."))
        command.add_argument("--output", metavar="PATH", help="without an ending (default: figures/%s)" % name)
        if name != "trade-off":
            command.add_argument("--model", default="32s", choices=list(MODELS), help="default 32s")
        if name not in ("trade-off", "signal-flow"):
            command.add_argument("--scale", default="x2", choices=list(SCALES), help="default x2")
        if name in ("dra", "swap", "crops", "rsa"):
            command.add_argument("--checkpoint", metavar="PATH", help="prefix, .index or folder (default: shipped)")
            command.add_argument("--gpu", type=int, default=0, help="index of the GPU, -1 for the CPU (default 0)")
            command.add_argument("--data-dir", default="data", metavar="DIR", help="of the data sets (default data)")
        add_own_options(name, command.add_argument)
    args = parser.parse_args()
    args.output = args.output or os.path.join(FIGURES, args.name)
    if args.name == "crops" and args.paper and args.checkpoint:
        parser.error("--paper is of three scales: it takes the shipped checkpoints")
    return args


def add_own_options(name, add):
    """The options that only figure `name` has; add: add_argument of its parser."""
    if name == "dra":
        add("--drag", type=int, default=1, metavar="K", help="which DRAG (default 1)")
        add("--dataset", nargs="+", default=["Sample"], metavar="NAME", help="where patches are from (default Sample)")
        add("--side", type=positive(int), default=32, help="of a patch in LR pixels (default 32)")
        add("--groups", type=positive(int), default=3, help="clusters of patches (default 3)")
        add("--patches", type=positive(int), default=5, help="shown of each group, nearest to its mean (default 5)")
    elif name == "swap":
        add("--patch", default="Sample/astronaut:137,357,70,70", help="default %(default)s")
        add("--donors", nargs="+", metavar="PATCH", help="default: three of Sample", default=[
            "Sample/chelsea:40,200,70,70", "Sample/motorcycle_left:350,40,70,70", "Sample/rocket:565,60,70,70"])
    elif name == "crops":
        add("--crops", nargs="+", metavar="PATCH", help="default: three of Sample", default=[
            "Sample/astronaut:128,354,84,56", "Sample/motorcycle_left:545,300,84,56", "Sample/chelsea:115,80,84,56"])
        add("--paper", action="store_true", help="the paper's three images, at x2, x3 and x4")
    elif name == "rsa":
        add("--patch", default="Sample/motorcycle_left:114,160,150,100", help="default %(default)s")
        add("--at", type=drsa_number, default=(1, 1), metavar="K.N", help="DRSA whose channels are shown (default 1.1)")
        add("--channels", nargs="+", type=int, metavar="C", help="default: the three that vary most")
    elif name == "trade-off":
        add("--dataset", default="Set5", choices=PAPER_DATASETS, help="default Set5")


def main():
    for path in draw(parse_args()):
        print("wrote %s" % os.path.relpath(path))


if __name__ == "__main__":
    run_main(main)
