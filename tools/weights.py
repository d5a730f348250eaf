"""What a network starts with, as NumPy arrays, for any framework.

These are initial weights, and weights of one scale or depth for another. How checkpoints are read and written
stands in checkpoints.py.
"""
import collections

from tools.command import UserError

import numpy as np

FIRST = "DRAN/conv2d/kernel"  # whose last dimension is the number of channels of the features


def resample_subpixels(value, shape, channels):
    """The kernel or bias of a sub-pixel convolution, [..., r r channels], for another factor r: `shape`.

    Each of its r x r sub-pixels is interpolated linearly between those of `value`; beyond, the outermost
    repeat.
    """
    old, new = (int(round((size // channels) ** 0.5)) for size in (value.shape[-1], shape[-1]))
    centers = [(np.arange(r) + 0.5) / r for r in (old, new)]
    weights = np.stack([np.interp(centers[1], centers[0], row) for row in np.eye(old)], 1)  # [new, old]
    value = value.reshape(value.shape[:-1] + (old, old, -1))
    value = np.einsum("ia,jb,...abc->...ijc", weights, weights, value)
    return value.reshape(value.shape[:-3] + (-1,))


def neutral_value(role, shape, channels):
    """The kernel of a new convolution that passes on what it gets, or None where there is none.

    The last of a DRAG, over the concatenated features [x, f_1, ...], has one that gives x; a second
    upsampling has bilinear interpolation by 2.
    """
    if role.part == "kernel" and role.stage == "upsampler":
        taps = np.array([[0.25, 0.75, 0], [0, 0.75, 0.25]])  # [sub-pixel, tap]
        return np.einsum("iy,jx,cd->yxcijd", taps, taps, np.eye(channels)).reshape(shape)
    if role.part == "kernel" and role.stage == "body" and shape[0] == 1 and shape[2] > shape[3] == channels:
        return np.eye(shape[2], channels).reshape(shape)
    return None


# part: kernel, bias or the name of a slope; stage: body, skip (the convolution before it), upsampler, output,
# or None for a slope; index: of a convolution in its stage
Role = collections.namedtuple("Role", "part stage index")


def convolution_number(layer):
    """The place of a convolution in order of creation, from its name: conv2d is 0, conv2d_46 is 46."""
    return int(layer[len("conv2d_"):] or 0)


def roles(names):
    """{name: Role} of DRSAN's variables among `names`: what a variable is for, whatever the depth and the
    scale make of the number in its name."""
    names = {name for name in names if name.startswith("DRAN/") and not name.endswith(
        ("/AdamOptimizer", "/AdamOptimizer_1", "/ExponentialMovingAverage"))}
    drags = sum(name.endswith("prelualpha") for name in names)
    per_drag = sum(name.startswith("DRAN/conv_block1_pReLU_") for name in names) + 3
    skip, last = 1 + drags * per_drag, sum(name.endswith("/kernel") for name in names) - 1
    found = {}
    for name in names:
        layer, _, part = name[len("DRAN/"):].partition("/")
        number = convolution_number(layer) if part else None
        if not part:
            found[name] = Role(layer, None, 0)  # a slope, whose name has the number of its DRAG
        elif number < skip:
            found[name] = Role(part, "body", number)
        elif number == skip:
            found[name] = Role(part, "skip", 0)
        elif number == last:
            found[name] = Role(part, "output", 0)
        else:
            found[name] = Role(part, "upsampler", number - skip - 1)
    return found


def transfer(source, own, origin):
    """({name: array} that a network starts with from one of another scale or depth, the names taken).

    source: {name: array}, and origin, where it is from, in words. own: {name: array}, the initial weights of
    the network. A variable is taken if it has the same Role and shape: x0, the DRAGs that both have, the
    convolution before the skip, and the output convolution. The upsampler of another scale is taken, too,
    with its sub-pixels interpolated. What is new stays as it was initialised, but where it can, it passes on
    what it gets (see neutral_value), so that training starts from an image and does not spoil what was taken.
    Raises UserError if nothing can be taken, as the features have another number of channels.
    """
    shape = own[FIRST].shape
    if FIRST not in source or source[FIRST].shape != shape:
        found = "has the shape %s" % list(source[FIRST].shape) if FIRST in source else "is missing"
        raise UserError("nothing can be taken from %s: its %s %s, and this model's has %s" % (
            origin, FIRST, found, list(shape)))
    by_role, own_roles = {role: name for name, role in roles(source).items()}, roles(own)
    values, taken = {}, []
    for name in own:
        role, shape = own_roles[name], own[name].shape
        value = source[by_role[role]] if role in by_role else None
        if value is not None and role.stage == "upsampler":
            value = resample_subpixels(value, shape, own[FIRST].shape[-1])
        if value is not None and value.shape == shape:
            taken.append(name)
        else:
            value = neutral_value(role, shape, own[FIRST].shape[-1])
        values[name] = (own[name] if value is None else value).astype(own[name].dtype)
    return values, taken


def describe_transfer(taken, own, origin):
    """In a line, what transfer() took, and which variables are new."""
    new = [name for name in own if name not in taken]
    left = ", %d not: %s" % (len(new), " ".join(new)) if new else ""
    return "%d variables taken from %s%s" % (len(taken), origin, left)


def initial_weights(shapes, seed):
    """{name: array} as an untrained network has them: kernels by Glorot's uniform distribution, all else 0.

    shapes: {name: shape}, in order. The law is that of the variables' initializers, the random numbers are
    not TensorFlow's.
    """
    random, weights = np.random.RandomState(seed), {}
    for name, shape in shapes.items():
        limit = (6 / (np.prod(shape[:-2]) * sum(shape[-2:]))) ** 0.5 if name.endswith("/kernel") else 0
        weights[name] = random.uniform(-limit, limit, shape).astype(np.float32)
    return weights
