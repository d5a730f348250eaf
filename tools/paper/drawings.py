"""The two drawings of figures.py: the structure of the network, and the signal flow of one DRSA with its DRM.

Names and counts come from model.py's table and from the graph that it builds.
"""
import collections

from model import MODELS, SCALES, drsan, model_variables
from ops import tf
from tools.plots import COLORS
from tools.weights import convolution_number

from matplotlib import pyplot

BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, BLACK = COLORS
FILL = {BLUE: "#d9eaf5", VERMILION: "#fbe5d6", GREEN: "#d9f0e8", PINK: "#f7e6ef", ORANGE: "#fcf1d6", BLACK: "#f2f2f2"}
SOURCES = [BLUE, VERMILION, GREEN, BLACK]  # of the residual paths that leave f_0, f_1, ...


def count_parts(model, scale):
    """The trainable values of each part of the graph, in order: {"x0": ..., "DRAG 1": ..., "before the skip": ...,
    "upsampler": ..., "output": ...}."""
    drags, blocks = MODELS[model].drags, MODELS[model].blocks
    per_drag = 2 * blocks + 3  # convolutions: two of the DRM, two of each RB, the closing one
    parts = collections.OrderedDict([("x0", 0)] + [("DRAG %d" % k, 0) for k in range(1, drags + 1)]
                                    + [("before the skip", 0), ("upsampler", 0), ("output", 0)])
    with tf.Graph().as_default():
        drsan(tf.placeholder(tf.float32, [1, None, None, 3]), model, scale)
        variables = [(variable.op.name.split("/")[1], variable.shape.num_elements()) for variable in model_variables()]
    last = max(convolution_number(name) for name, _ in variables if name.startswith("conv2d"))
    for name, count in variables:
        if name.startswith("conv_block"):  # a slope
            part = "DRAG " + name[len("conv_block"):].split("_")[0].replace("prelualpha", "")
        else:
            i = convolution_number(name)
            k = (i - 1) // per_drag + 1
            part = ("x0" if i == 0 else "DRAG %d" % k if k <= drags else "output" if i == last
                    else "before the skip" if i == drags * per_drag + 1 else "upsampler")
        parts[part] += count
    return parts


# ---------------------------------------------------------------------------------------------------------- strokes

def canvas(width, height):
    """A figure of width x height inches and its one axis, in which a unit is an inch and y points up."""
    figure = pyplot.figure(figsize=(width, height))
    axis = figure.add_axes([0, 0, 1, 1])
    axis.set(xlim=(0, width), ylim=(0, height))
    axis.axis("off")
    return figure, axis


def box(axis, x, y, width, height, text, color=BLACK, size=8):
    """A box centred at x, y."""
    axis.add_patch(pyplot.Rectangle((x - width / 2, y - height / 2), width, height, facecolor=FILL[color],
                                    edgecolor=color, linewidth=1, zorder=2))
    axis.text(x, y, text, ha="center", va="center", fontsize=size, zorder=3, linespacing=1.15)


def node(axis, x, y, sign):
    """A circle with the sign of an operation on feature maps."""
    axis.add_patch(pyplot.Circle((x, y), 0.11, facecolor="white", edgecolor=BLACK, linewidth=1, zorder=2))
    axis.text(x, y - 0.005, sign, ha="center", va="center", fontsize=9, zorder=3)


def path(axis, points, color=BLACK, head=True, style="-", width=1):
    """A line through the points, with an arrow head at its end."""
    xs, ys = zip(*points)
    stop = len(points) - 1 if head else len(points)
    axis.plot(xs[:stop], ys[:stop], color=color, linewidth=width, linestyle=style, zorder=1, solid_capstyle="butt")
    if head:
        axis.annotate("", points[-1], points[-2], zorder=1, arrowprops={
            "arrowstyle": "-|>", "color": color, "linewidth": width, "linestyle": style, "shrinkA": 0, "shrinkB": 0,
            "mutation_scale": 7})


def note(axis, x, y, text, color=BLACK, size=8, ha="center", va="center"):
    axis.text(x, y, text, color=color, fontsize=size, ha=ha, va=va, zorder=3, linespacing=1.25,
              bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})


# -------------------------------------------------------------------------------------------------------- structure

def structure(model, scale):
    """The network from LR to SR with the parameters of each part, and below it one DRAG with all its residual paths."""
    height = 3.95 + 0.24 * MODELS[model].blocks
    figure, axis = canvas(7, height)
    draw_network(axis, model, scale, height - 0.85)
    draw_drag(axis, model, height - 2.7)
    return figure


def draw_network(axis, model, scale, y):
    """The row from LR to SR at height y."""
    channels, drags, _ = MODELS[model]
    parts = count_parts(model, scale)
    shown = list(range(1, drags + 1)) if drags <= 4 else [1, 2, None, drags]
    items = [("conv 3x3\n%d" % channels, "x0", BLACK)]
    items += [("DRAG\n%d" % k, "DRAG %d" % k, BLUE) if k else ("...", None, None) for k in shown]
    items += [("conv 3x3\n%d" % channels, "before the skip", BLACK), ("+", None, None),
              ("upsampler\nx%d" % SCALES[scale], "upsampler", GREEN), ("conv 3x3\n3", "output", BLACK)]
    note(axis, 3.5, y + 0.68, "DRSAN-%s %s: %s parameters, %d DRAGs, %d channels"
         % (model, scale, "{:,}".format(sum(parts.values())), drags, channels), size=10)
    x, width = 0.15, 0.57
    note(axis, x, y, "LR", size=9)
    previous, places = x + 0.12, []
    for text, part, color in items:
        half = 0.11 if text in ("+", "...") else width / 2
        x = previous + 0.15 + half
        if text == "+":
            node(axis, x, y, "+")
        elif part is None:
            note(axis, x, y, text)
        else:
            box(axis, x, y, width, 0.5, text, color, size=7)
            note(axis, x, y - 0.38, "{:,}".format(parts[part]), size=7)
        path(axis, [(previous, y), (x - half, y)])
        previous = x + half
        places.append(x)
    path(axis, [(previous, y), (previous + 0.15, y)])
    note(axis, previous + 0.25, y, "SR", size=9)
    start = places[0] + width / 2 + 0.05  # the global skip
    end = places[-3]
    path(axis, [(start, y), (start, y + 0.42), (end, y + 0.42), (end, y + 0.11)])


def draw_drag(axis, model, y):
    """One DRAG, its chain of RBs and DRSAs at height y; above it the concatenation, below it residual paths and DRM."""
    channels, _, blocks = MODELS[model]
    paths = blocks * (blocks + 1) // 2
    left, step = 0.35, 6.3 / blocks
    wide, gap = min(0.62, step * 0.38), min(0.19, 0.62 / blocks)      # of a DRSA, and between its residual paths
    outputs = [left + step * n - (0.06 if n else 0) for n in range(blocks + 1)]  # where f_0, f_1, ... can be taken
    drsas = [left + step * (n + 0.71) for n in range(blocks)]
    levels = [y - 0.55 - 0.24 * i for i in range(blocks)]             # of the lines on which f_0, f_1, ... travel
    middle, top = 3.4, y + 0.8
    note(axis, 0.05, y + 1.12, "One DRAG", size=10, ha="left")
    box(axis, middle, top, 6.65, 0.28, "concat $f_0$ ... $f_%d$ (%d channels), conv 1x1 to %d"
        % (blocks, (blocks + 1) * channels, channels))
    path(axis, [(middle, top + 0.14), (middle, top + 0.36)])
    path(axis, [(0.05, y), (left, y)], head=False)
    for n, x in enumerate(outputs):
        path(axis, [(x, y), (x, top - 0.14)])
        note(axis, x + 0.05, y + 0.42, "$f_%d$" % n, size=9, ha="left")
    for n, drsa in enumerate(drsas):
        rb = left + step * (n + 0.31)
        path(axis, [(outputs[n], y), (rb - step * 0.13, y)])
        box(axis, rb, y, step * 0.26, 0.4, "RB$_%d$" % (n + 1), ORANGE)
        path(axis, [(rb + step * 0.13, y), (drsa - wide / 2, y)])
        box(axis, drsa, y, wide, 0.4, "DRSA$_%d$" % (n + 1), VERMILION, size=7.5)
        path(axis, [(drsa + wide / 2, y), (outputs[n + 1], y)], head=False)
        for i in range(n + 1):  # the residual paths into this DRSA
            x = drsa + (i - n / 2.0) * gap
            path(axis, [(x, levels[i]), (x, y - 0.2)], SOURCES[i])
            axis.plot([x], [levels[i]], ".", color=SOURCES[i], markersize=4, zorder=2)
            note(axis, x, y - 0.37, "$r_%d^%d$" % (i, n + 1), SOURCES[i], size=7)
    for i, level in enumerate(levels):
        end = drsas[-1] + (i - (blocks - 1) / 2.0) * gap
        path(axis, [(outputs[i], y), (outputs[i], level), (end, level)], SOURCES[i], head=False)
        note(axis, outputs[i] + 0.1, level, "$f_%d$" % i, SOURCES[i], size=8, ha="left")
    bottom = levels[-1] - 0.38
    path(axis, [(left, levels[0]), (left, bottom), (left + 0.3, bottom)], SOURCES[0])
    box(axis, left + 3.02, bottom, 5.4, 0.34, "DRM: conv 1x1 to 16, PReLU, conv 1x1 to %d, global average pool  =  "
        "%d DRA values  $r_0^1, r_0^2, r_1^2,$ ..." % (paths, paths), PINK, size=7.5)
    note(axis, 0.1, bottom - 0.35, "RB: PReLU, conv 3x3, PReLU, conv 3x3.   DRSA$_n$ with $y$ = RB$_n$($f_{n-1}$):  "
         "$f_n = (y + \\Sigma_{i<n}\\, r_i^n f_i) \\cdot \\mathrm{sigmoid}(y)$", size=8, ha="left")


# ------------------------------------------------------------------------------------------------------ signal flow

def signal_flow(model):
    """One DRSA (the third of its DRAG) with its RB and the DRM of the DRAG, with the shapes of what flows."""
    channels, _, blocks = MODELS[model]
    paths, n = blocks * (blocks + 1) // 2, 3
    figure, axis = canvas(7, 4.1)
    note(axis, 3.5, 3.92, "Signal flow of DRSA$_%d$ in a DRAG of DRSAN-%s ($N$ = %d residual blocks, %d channels)"
         % (n, model, blocks, channels), size=10)
    y = 3.15                                                     # RB and RSA
    note(axis, 0.22, y, "$f_%d$" % (n - 1), SOURCES[n - 1], size=10)
    xs = [0.85, 1.62, 2.39, 3.16]
    for i, text in enumerate(["PReLU", "conv 3x3\n%d" % channels] * 2):
        path(axis, [((0.36 if i == 0 else xs[i - 1] + 0.31), y), (xs[i] - 0.31, y)])
        box(axis, xs[i], y, 0.62, 0.42, text, ORANGE)
    note(axis, 2.0, y + 0.36, "RB$_%d$" % n, size=9)
    plus, times = 4.1, 5.6
    path(axis, [(3.47, y), (plus, y), (plus, y)], head=False)
    note(axis, 3.78, y + 0.13, "$y$", size=10)
    path(axis, [(plus, y), (4.55, y)])
    box(axis, 4.9, y, 0.7, 0.42, "sigmoid", GREEN)
    path(axis, [(5.25, y), (times, y), (times, 2.36)])
    note(axis, 5.05, y + 0.36, "RSA  [H, W, %d]" % channels, size=8)
    middle = 2.25                                                # the sum and the product
    path(axis, [(plus, y), (plus, middle + 0.11)])
    node(axis, plus, middle, "+")
    path(axis, [(plus + 0.11, middle), (times - 0.11, middle)])
    note(axis, (plus + times) / 2, middle - 0.18, "$y + \\Sigma_i\\, r_i^%d f_i$" % n, size=8)
    node(axis, times, middle, "\u00d7")
    path(axis, [(times + 0.11, middle), (6.35, middle)])
    note(axis, 6.62, middle, "$f_%d$" % n, size=10)
    note(axis, 6.5, middle - 0.25, "[H, W, %d]" % channels, size=8)
    low = 0.55                                                   # the DRM
    for i in range(n):
        height, x = middle - 0.27 * (i - 1), 2.6 + 0.36 * i
        note(axis, 0.22, height, "$f_%d$" % i, SOURCES[i], size=10)
        path(axis, [(0.36, height), (x - 0.11, height)], SOURCES[i])
        node(axis, x, height, "\u00d7")
        sloped = [(x + 0.11, height), (3.75, height), (plus - 0.1, middle + (1 - i) * 0.05)]
        path(axis, sloped, SOURCES[i])
        path(axis, [(x, 1.1), (x, height - 0.11)], PINK)
        note(axis, x + 0.04, 1.42, "$r_%d^%d$" % (i, n), size=9)
    note(axis, 0.22, low, "$f_0$", SOURCES[0], size=10)
    xs = [0.95, 1.95, 2.95, 4.15]
    texts = ["conv 1x1\n16", "PReLU", "conv 1x1\n%d" % paths, "global\naverage pool"]
    for i, text in enumerate(texts):
        wide = 0.86 if i == 3 else 0.66
        path(axis, [((0.36 if i == 0 else xs[i - 1] + 0.33), low), (xs[i] - wide / 2, low)])
        box(axis, xs[i], low, wide, 0.42, text, PINK)
    path(axis, [(4.58, low), (5.0, low)])
    first = n * (n - 1) // 2
    box(axis, 5.95, low, 1.9, 0.42, "$r$: %d DRA values\n%d of them, %d to %d, for DRSA$_%d$"
        % (paths, n, first + 1, first + n, n), PINK, size=7.5)
    path(axis, [(5.95, low + 0.21), (5.95, 1.1), (2.6, 1.1)], PINK, head=False)
    note(axis, 1.45, low + 0.36, "DRM", size=9)
    note(axis, 5.0, 1.26, "one scalar per residual path", size=8)
    return figure
