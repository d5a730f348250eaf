"""Weights of one scale or depth for another, as NumPy arrays: what has the same role in both, and what a new part starts with."""
import numpy as np


def resample_subpixels(value, shape, channels):
    """The kernel or bias of a sub-pixel convolution, [..., r r channels], for another factor r: of this shape.

    Each of its r x r sub-pixels is interpolated linearly between those of `value`, the outermost repeated beyond.
    """
    old, new = (int(round((size // channels) ** 0.5)) for size in (value.shape[-1], shape[-1]))
    centers = [(np.arange(r) + 0.5) / r for r in (old, new)]
    weights = np.stack([np.interp(centers[1], centers[0], row) for row in np.eye(old)], 1)  # [new, old]
    value = value.reshape(value.shape[:-1] + (old, old, -1))
    value = np.einsum("ia,jb,...abc->...ijc", weights, weights, value)
    return value.reshape(value.shape[:-3] + (-1,))


def neutral_value(role, shape, channels):
    """The kernel of a new convolution that passes on what it gets, or None where there is none.

    The last of a DRAG, over the concatenated features [x, f_1, ...], has one that gives x; a second upsampling has bilinear
    interpolation by 2.
    """
    if role[:2] == ("kernel", "upsampler"):
        taps = np.array([[0.25, 0.75, 0], [0, 0.75, 0.25]])  # [sub-pixel, tap]
        return np.einsum("iy,jx,cd->yxcijd", taps, taps, np.eye(channels)).reshape(shape)
    if role[:2] == ("kernel", "body") and shape[0] == 1 and shape[2] > shape[3] == channels:
        return np.eye(shape[2], channels).reshape(shape)
    return None


def roles(names):
    """{name: role} of DRSAN's variables among `names`; a role does not depend on depth and scale as the name conv2d_46 does."""
    names = {name for name in names if name.startswith("DRAN/") and not name.endswith(
        ("/AdamOptimizer", "/AdamOptimizer_1", "/ExponentialMovingAverage"))}
    drags = sum(name.endswith("prelualpha") for name in names)
    per_drag = sum(name.startswith("DRAN/conv_block1_pReLU_") for name in names) + 3
    convolutions = sum(name.endswith("/kernel") for name in names)
    upsampler = 1 + drags * per_drag + 1
    roles = {}
    for name in names:
        layer, _, part = name[len("DRAN/"):].partition("/")
        if not part:
            roles[name] = name  # a slope, numbered by its DRAG
            continue
        i = int(layer[len("conv2d_"):] or 0)
        if i < upsampler - 1:
            roles[name] = (part, "body", i)
        elif i < upsampler:
            roles[name] = (part, "before the skip")
        elif i < convolutions - 1:
            roles[name] = (part, "upsampler", i - upsampler)
        else:
            roles[name] = (part, "output")
    return roles
