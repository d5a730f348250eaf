"""The figures that look into a trained network (DRA values of patches, swapped DRA values, and RSA), and how
patches are named, read and shown in all figures."""
import os
import re

from model import MODELS, tensor_name
from tools.checkpoints import find_checkpoint
from tools.command import UserError
from tools.network import Network
from tools.plot_training import COLORS
from utils import DATASETS, Pair, find_dataset, luma, read_pair, score, to_uint8

import numpy as np
import scipy.cluster.vq
from matplotlib.figure import Figure

DPI = 150
WIDTH = 1050  # pixels, 7 inches: 9 points are 12 pixels where a README shows the figure 700 pixels wide
GRAY = "#808080"


# ----------------------------------------------------------------------------------------- patches and panels

def read_photograph(text, scale, data_dir):
    """(name, LR, HR, box) of the patch that an argument names (see figures.py): the whole images, uint8, and
    (x, y, width, height) in HR pixels, all of it if none is named. Raises UserError."""
    path, box = re.match(r"(.*?)(?::(\d+,\d+,\d+,\d+))?$", text).groups()
    dataset, name = os.path.split(path)
    pairs = [Pair(os.path.splitext(name)[0], path, None)] * os.path.isfile(path)
    if dataset in DATASETS:
        pairs = [pair for pair in find_dataset(dataset, scale, data_dir).pairs if pair.name == name]
    if not pairs:
        raise UserError("there is no image %s: expected a file, or a data set and a name as Sample/chelsea, "
                        "and for a patch of it :x,y,width,height" % path)
    lr, hr = read_pair(pairs[0], scale)
    x, y, width, height = box = tuple(map(int, box.split(","))) if box else (0, 0) + hr.shape[1::-1]
    if x + width > hr.shape[1] or y + height > hr.shape[0] or min(width, height) < scale:
        raise UserError("%s is not inside its image of %dx%d pixels, or smaller than %d" % (
            (text,) + hr.shape[1::-1] + (scale,)))
    return pairs[0].name, lr, hr, box


def crop(image, box):
    """The part of [H, W, ...] in box."""
    x, y, width, height = box
    return image[y:y + height, x:x + width]


def read_patch(text, scale, data_dir):
    """(LR, HR) of the patch that an argument names, uint8, its box cut down to multiples of `scale`. Raises
    UserError."""
    _, lr, hr, box = read_photograph(text, scale, data_dir)
    return crop(lr, [value // scale for value in box]), crop(hr, [value // scale * scale for value in box])


def pixel_figure(height):
    """A figure of WIDTH x height pixels."""
    return Figure(figsize=(WIDTH / DPI, height / DPI))


def pixel_axes(figure, x, y, width, height):
    """An axis of width x height pixels whose upper left corner is x, y pixels from that of the figure."""
    total = figure.get_figheight() * DPI
    return figure.add_axes([x / WIDTH, 1 - (y + height) / total, width / WIDTH, height / total])


def magnified(shape, room):
    """(width, height) in pixels of an image [H, W, ...] in a column of `room` pixels: a multiple of its own,
    if any."""
    zoom = room // shape[1] if shape[1] <= room else float(room) / shape[1]
    return int(shape[1] * zoom), int(shape[0] * zoom)


def show(figure, place, image, title="", frame=None, interpolation="nearest", **colors):
    """Show an image at a place, (x, y, width, height) of pixel_axes(), without ticks, its pixels as they are;
    frame: the color of a frame around it, or None."""
    axis = pixel_axes(figure, *place)
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, pad=3)
    for spine in axis.spines.values():
        spine.set(visible=frame is not None, color=frame, linewidth=2)
    return axis.imshow(image, interpolation=interpolation, **colors)


# ---------------------------------------------------------------------------------------------------- network

def open_network(model, scale, checkpoint, gpu):
    """A Network with the weights of `checkpoint` (None: the shipped ones), and as further attributes the
    tensors of its attention: dra[k - 1] of DRAG k, rsa[k - 1][n - 1] of its n-th DRSA. Raises UserError."""
    network = Network(model, scale, find_checkpoint(model, scale, checkpoint), gpu)
    graph, drags = network.session.graph, range(1, MODELS[model].drags + 1)
    network.dra = [graph.get_tensor_by_name(tensor_name(k, "DRA")) for k in drags]
    network.rsa = [[op.outputs[0] for op in graph.get_operations()
                    if op.type == "Sigmoid" and op.name.startswith("DRAN/DRAG%d/" % k)] for k in drags]
    return network


def fetch(network, tensors, lr, dra=()):
    """The values of `tensors` for LR images, uint8 [N, H, W, 3]; dra: values in place of those of DRAG 1, 2,
    ..."""
    feed = dict(zip(network.dra, dra))
    feed[network.lr] = lr / np.float32(255)
    return network.session.run(tensors, feed)


def fetch_sr(network, lr, dra=()):
    """SR of one LR image, both uint8 [H, W, 3]; dra: as in fetch()."""
    return to_uint8(255 * fetch(network, network.sr, lr[None], dra)[0])


# -------------------------------------------------------------------------------------------------------- DRA

def collect_patches(names, scale, data_dir, side):
    """All patches of side x side LR pixels on the grid of that width in the images of the data sets: (LR
    patches, uint8 [N, side, side, 3], list of HR patches). Raises UserError."""
    lrs, hrs = [], []
    for pair in (pair for name in names for pair in find_dataset(name, scale, data_dir).pairs):
        lr, hr = read_pair(pair, scale)
        for y in range(0, lr.shape[0] - side + 1, side):
            for x in range(0, lr.shape[1] - side + 1, side):
                lrs.append(lr[y:y + side, x:x + side])
                hrs.append(hr[scale * y:scale * (y + side), scale * x:scale * (x + side)])
    if not lrs:
        raise UserError("no image of %s has a patch of %dx%d LR pixels" % (" ".join(names), side, side))
    return np.array(lrs), hrs


def group_patches(values, groups, shown):
    """k-means of the DRA values, each standardised: for each cluster, the largest first, (indices of the
    `shown` patches nearest to its mean, number of patches in it).

    The first centre is the patch farthest from the mean of all, each further one the patch farthest from the
    centres so far: no chance is involved. Raises UserError if there are too few patches.
    """
    if len(values) < groups * shown:
        raise UserError("%d patches are too few for %d groups of %d" % (len(values), groups, shown))
    points = (values - values.mean(0)) / np.maximum(values.std(0), 1e-12)
    centers, distance = [], (points ** 2).sum(1)
    while len(centers) < groups:
        centers.append(points[np.argmax(distance)])
        distance = np.min([((points - center) ** 2).sum(1) for center in centers], axis=0)
    centers, label = scipy.cluster.vq.kmeans2(points, np.array(centers), iter=100, minit="matrix")
    clusters = []
    for i in sorted(range(groups), key=lambda i: -np.sum(label == i)):
        members = np.flatnonzero(label == i)
        nearest = np.argsort(((points[members] - centers[i]) ** 2).sum(1), kind="mergesort")[:shown]
        clusters.append((members[nearest], len(members)))
    return clusters


def draw_dra(args, network):
    """DRA values of one DRAG for groups of patches: a min-max band and the mean of each group, and its
    patches."""
    if not 1 <= args.drag <= len(network.dra):
        raise UserError("DRSAN-%s has no DRAG %d: choose from 1 to %d" %
                        (network.model, args.drag, len(network.dra)))
    lrs, hrs = collect_patches(args.dataset, network.factor, args.data_dir, args.side)
    values = np.concatenate([fetch(network, network.dra[args.drag - 1], lrs[i:i + 64])[:, 0, 0]
                             for i in range(0, len(lrs), 64)])  # [N, paths]
    side = magnified(hrs[0].shape, (WIDTH - 110) // args.patches - 6)[0]
    figure = pixel_figure(495 + args.groups * (side + 8))
    axis, x = pixel_axes(figure, 110, 35, 930, 370), np.arange(values.shape[1])
    for i, (members, size) in enumerate(group_patches(values, args.groups, args.patches)):
        color, shown = COLORS[i % len(COLORS)], values[members]
        axis.fill_between(x, shown.min(0), shown.max(0), color=color, alpha=0.25, linewidth=0)
        axis.plot(x, shown.mean(0), color=color, marker="osD^vP*"[i % 7], markersize=5,
                  label="group %d: %d of %d patches" % (i + 1, size, len(values)))
        for j, member in enumerate(members):
            place = 110 + j * (930 // args.patches), 490 + i * (side + 8), side, side
            thumbnail = show(figure, place, hrs[member], frame=color).axes
            thumbnail.set_ylabel("" if j else "group %d" % (i + 1))
    axis.axhline(0, color=GRAY, linewidth=0.8)
    blocks = MODELS[network.model].blocks
    axis.set(xticks=x, ylabel="DRA value", title="DRA of DRAG %d, DRSAN-%s %s: mean and min-max band of the "
             "patches below" % (args.drag, network.model, network.scale))
    axis.set_xticklabels(["$r_%d^%d$" % (i, n) for n in range(1, blocks + 1) for i in range(n)])
    axis.legend(ncol=args.groups, loc="upper center", bbox_to_anchor=(0.5, -0.08), handlelength=1.5,
                columnspacing=1)
    return figure


def swap(network, lr, donors):
    """What the DRA values of donor patches do to an LR patch, all of them uint8 [H, W, 3] of any sizes.

    Returns (list of SR, with its own DRA values and with those of each donor in all DRAGs, float32 and not
    clipped; list of these DRA values, of all DRAGs).
    """
    values = [fetch(network, network.dra, image[None]) for image in [lr] + donors]
    outputs = [fetch(network, network.sr, lr[None], dra)[0] for dra in [()] + values[1:]]
    return outputs, [np.concatenate([value.ravel() for value in dra]) for dra in values]


def draw_swap(args, network):
    """A patch with its own DRA values and with those of donor patches: SR, and the differences on Y."""
    patches = [read_patch(text, network.factor, args.data_dir) for text in [args.patch] + args.donors]
    (lr, hr), drags = patches[0], len(network.dra)
    outputs, values = swap(network, lr, [donor for donor, _ in patches[1:]])
    differences = [np.abs(luma(255 * sr) - luma(255 * outputs[0])) for sr in outputs]
    limit = max(1e-3, np.percentile(differences[1:], 99.8))

    step = (WIDTH - 165) // len(patches)
    width, height = magnified(hr.shape, step - 8)
    tops = 30, 30 + height + 50, 30 + 2 * height + 2 * 50 + 5
    figure = pixel_figure(tops[2] + height + 30)
    axis = pixel_axes(figure, 95, tops[2], width, height)
    for i, (sr, difference) in enumerate(zip(outputs, differences)):
        places = [(95 + i * step, top, width, height) for top in tops]
        color = COLORS[i % len(COLORS)] if i else None
        show(figure, places[0], patches[i][1], "donor %d" % i if i else "HR", color)
        image, name = to_uint8(255 * sr), "DRA of donor %d" % i if i else "SR, own DRA"
        show(figure, places[1], image, "%s\n%.2f dB / %.4f" % ((name,) + score(image, hr, network.factor)))
        if i:
            title = "difference on Y\nmean %.2f, max %.1f" % (difference.mean(), difference.max())
            shown = show(figure, places[2], difference, title, cmap="cividis", vmin=0, vmax=limit)
            axis.plot(values[i] - values[0], color=color, linewidth=1.2)
    axis.axhline(0, color=GRAY, linewidth=0.8)
    axis.set_title("DRA, donor less own,\nof each DRAG", pad=3)
    axis.tick_params(labelsize=8)
    axis.locator_params(axis="y", nbins=5)
    paths = len(values[0]) // drags
    axis.set_xticks([paths * k - 0.5 for k in range(drags + 1)])
    axis.set_xticklabels([])
    for k in range(drags):
        axis.text(paths * (k + 0.5) - 0.5, -0.03, str(k + 1), ha="center", va="top", fontsize=8,
                  transform=axis.get_xaxis_transform())
    place = shown.axes.get_position()
    bar = figure.colorbar(shown, cax=figure.add_axes([place.x1 + 0.01, place.y0, 0.012, place.height]))
    bar.ax.tick_params(labelsize=8)
    return figure


# -------------------------------------------------------------------------------------------------------- RSA

def choose_channels(attention, count):
    """The `count` channels of [H, W, C] that vary most over the image, by standard deviation, the first the
    most."""
    return [int(i) for i in np.argsort(-attention.std((0, 1)), kind="mergesort")[:count]]


def draw_rsa(args, network):
    """The attention maps of each DRSA for one image: the mean over the channels, and some channels of one
    DRSA."""
    drags, blocks, (drag, block) = len(network.rsa), len(network.rsa[0]), args.at
    if not (1 <= drag <= drags and 1 <= block <= blocks):
        raise UserError("DRSAN-%s has no DRSA %d.%d: DRAGs 1 to %d have DRSAs 1 to %d"
                        % (network.model, drag, block, drags, blocks))
    lr, _ = read_patch(args.patch, network.factor, args.data_dir)
    maps = [[rsa[0] for rsa in group] for group in fetch(network, network.rsa, lr[None])]
    at = maps[drag - 1][block - 1]
    channels = args.channels or choose_channels(at, 3)
    if not 0 <= min(channels) <= max(channels) < at.shape[2]:
        raise UserError("DRSAN-%s has the channels 0 to %d" % (network.model, at.shape[2] - 1))
    # (row, column, title, map)
    panels = [(0, j, "%d.%d, channel %d" % (drag, block, c), at[:, :, c]) for j, c in enumerate(channels, 1)]
    panels += [(k, n, "DRSA %d.%d" % (k, n + 1), rsa.mean(2))
               for k, group in enumerate(maps, 1) for n, rsa in enumerate(group)]
    step = (WIDTH - 10) // max(blocks, 1 + len(channels))
    width, height = magnified(lr.shape, step - 6)
    figure = pixel_figure(30 + (drags + 1) * (height + 32) + 5)
    show(figure, (10, 58, width, height), lr, "LR")
    for row, column, title, values in panels:
        span = max(1e-6, np.percentile(np.abs(values - 0.5), 99.5))  # sigmoid(0) = 0.5 is white
        show(figure, (10 + column * step, 58 + row * (height + 32), width, height), values,
             "%s:  \u00b1%.2g" % (title, span), cmap="PuOr_r", vmin=0.5 - span, vmax=0.5 + span)
    figure.text(0.5, 0.995, "RSA of DRSAN-%s %s: 0.5 is white, lower violet, higher orange, within \u00b1 "
                "the range in the title" % (network.model, network.scale), ha="center", va="top")
    return figure
