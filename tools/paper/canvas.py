"""What the figures share: their style, patches named on the command line, and axes in pixels."""
import collections
import os

from tools.command import UserError
from utils import DATASETS, Pair, find_dataset, read_pair

import matplotlib

matplotlib.use("Agg")  # before pyplot: no display is needed
from matplotlib import pyplot

DPI = 150
WIDTH = 1050  # pixels, 7 inches: 9 points are 12 pixels where a README shows the figure 700 pixels wide
STYLE = {"font.size": 9, "axes.titlesize": 9, "legend.fontsize": 8, "legend.frameon": False,
         "figure.dpi": DPI, "axes.spines.top": False, "axes.spines.right": False}
# box: (x, y, width, height) in HR pixels, or None for the whole image
Patch = collections.namedtuple("Patch", "name pair box")


def parse_patch(text, scale, data_dir):
    """The Patch that an argument names (see figures.py). Raises UserError."""
    name, _, box = text.rpartition(":")
    if not name or not box.replace(",", "").isdigit():
        name, box = text, None
    dataset, _, stem = name.rpartition("/")
    if dataset in DATASETS:
        pairs = [pair for pair in find_dataset(dataset, scale, data_dir).pairs if pair.name == stem]
    else:
        pairs = [Pair(os.path.splitext(os.path.basename(name))[0], name, None)] * os.path.isfile(name)
    if not pairs:
        raise UserError("there is no image %s: expected a file, or a data set and a name as Sample/chelsea" %
                        name)
    if box:
        box = tuple(map(int, filter(None, box.split(","))))
        if len(box) != 4 or 0 in box[2:]:
            raise UserError("%s: a patch is x,y,width,height in HR pixels" % text)
    return Patch(pairs[0].name, pairs[0], box)


def cut(image, box):
    """The part of [H, W, ...] in box. Raises UserError if it is not inside."""
    x, y, width, height = box
    if x + width > image.shape[1] or y + height > image.shape[0]:
        raise UserError("the patch %d,%d,%d,%d is not inside its image of %dx%d pixels" %
                        (box + image.shape[1::-1]))
    return image[y:y + height, x:x + width]


def read_patch(text, scale, data_dir):
    """(LR, HR) of the patch that an argument names, uint8, its box cut down to multiples of `scale`. Raises
    UserError."""
    patch = parse_patch(text, scale, data_dir)
    lr, hr = read_pair(patch.pair, scale)
    if patch.box:
        small = tuple(value // scale for value in patch.box)
        if 0 in small[2:]:
            raise UserError("a patch of %dx%d pixels is too small" % patch.box[2:])
        lr, hr = cut(lr, small), cut(hr, tuple(value * scale for value in small))
    return lr, hr


def pixel_figure(height):
    """A figure of WIDTH x height pixels."""
    return pyplot.figure(figsize=(WIDTH / DPI, height / DPI))


def pixel_axes(figure, x, y, width, height):
    """An axis of width x height pixels whose upper left corner is x, y pixels from that of the figure."""
    total = figure.get_figheight() * DPI
    return figure.add_axes([x / WIDTH, 1 - (y + height) / total, width / WIDTH, height / total])


def magnified(shape, room):
    """(width, height) in pixels of an image [H, W, ...] in a column of `room` pixels: a multiple of its own,
    if any."""
    zoom = room // shape[1] if shape[1] <= room else float(room) / shape[1]
    return int(shape[1] * zoom), int(shape[0] * zoom)


def show(axis, image, title=None, frame=None, **kwargs):
    """Show an image without ticks, its pixels as they are; frame: the color of a frame around it, or None."""
    shown = axis.imshow(image, interpolation="nearest", **kwargs)
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(visible=frame is not None, color=frame, linewidth=2)
    if title:
        axis.set_title(title, pad=3)
    return shown
