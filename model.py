"""DRSAN, the dynamic residual self-attention network (K. Park, J. W. Soh, N. I. Cho, IEEE TMM 25, 2023).

Variables are named as in the authors' checkpoints: all in the scope DRAN, the convolutions conv2d, conv2d_1,
... in order of creation, the PReLU slopes conv_block{k}prelualpha (DRM of DRAG k, from 1) and
conv_block{k}_pReLU_{j}alpha (RBs).
"""
from collections import namedtuple

from ops import UPSAMPLING, conv2d, drm, drsa, learned_dra, residual_block, tf, upsampler
from tools.compute import to_compute_dtype, to_float32

Variant = namedtuple("Variant", "channels drags blocks")  # f, number of DRAGs K, residual blocks per DRAG N

MODELS = {
    "32s": Variant(32, 4, 4),
    "32m": Variant(32, 8, 4),
    "32l": Variant(32, 10, 4),  # the paper has it for x2 only
    "48s": Variant(48, 4, 3),
    "48m": Variant(48, 8, 3),
}
SCALES = {"x2": 2, "x3": 3, "x4": 4}
# what can be left out: DRA (plain sums), its dynamics (learned constants), RSA
ABLATIONS = ("dra", "dynamics", "rsa")


def drag(x, blocks, k, without=None, dra_range=None):
    """DRAG k, the dynamic residual attention group: [N, H, W, f] -> the same shape.

    It is `blocks` pairs of RB and DRSA. Block n has the residual paths from f_0 ... f_{n-1}; the DRM gives
    their r in this order: r_0^1, r_0^2, r_1^2, ... without: None, or one of ABLATIONS. dra_range: of this
    DRAG (see limit_dra), or None.
    """
    with tf.name_scope("DRAG%d" % k):
        paths = blocks * (blocks + 1) // 2
        if without == "dra":
            r = [1.0] * paths
        elif without == "dynamics":
            r = learned_dra(paths, "conv_block%dDRA" % k)
        else:
            r = drm(x, paths, "conv_block%dprelualpha" % k, dra_range)
        features = [x]
        for n in range(1, blocks + 1):
            slopes = ["conv_block%d_pReLU_%dalpha" % (k, j) for j in (2 * n - 1, 2 * n)]
            first = n * (n - 1) // 2
            y = residual_block(features[-1], slopes)
            features.append(drsa(y, features, r[first:first + n], attention=without != "rsa"))
        fused = conv2d(tf.concat([to_compute_dtype(feature) for feature in features], 3), int(x.shape[3]), 1)
        return tf.identity(fused, "features")


def drsan(lr, model, scale, without=None, dra_ranges=None):
    """Build DRSAN `model` (a key of MODELS) for `scale` (a key of SCALES) on LR images.

    lr: float32 RGB in [0, 1], [N, H, W, 3], any H and W, also unknown ones. Returns SR, [N, s H, s W, 3], not
    clipped. The DRA values of DRAG k are the tensor tensor_name(k, "DRA"),
    [N, 1, 1, N_blocks (N_blocks + 1) / 2], and its output is tensor_name(k, "features"): fetch them, or
    replace them through feed_dict.

    dra_ranges: for each DRAG what limit_dra() takes, or None: DRA is not bounded, as published.
    """
    channels, drags, blocks = MODELS[model]
    with tf.variable_scope("DRAN", reuse=tf.AUTO_REUSE, use_resource=False):
        x0 = x = conv2d(lr, channels, 3)               # [N, H, W, f]
        for k in range(1, drags + 1):
            x = drag(x, blocks, k, without, dra_ranges and dra_ranges[k - 1])  # [N, H, W, f]
        x = to_float32(conv2d(to_compute_dtype(x), channels, 3)) + x0  # [N, H, W, f]
        x = upsampler(x, SCALES[scale])                # [N, s H, s W, f]
        return tf.identity(conv2d(x, 3, 3), "SR")      # [N, s H, s W, 3]


def model_variables():
    """The trainable variables of DRSAN in the default graph, in order of creation: those of a checkpoint."""
    return tf.get_collection(tf.GraphKeys.TRAINABLE_VARIABLES, "DRAN/")


def tensor_name(k, name, scope=""):
    """The name of a tensor of DRAG k of the first DRSAN in a graph, or in a name scope, as "compiled/": of
    its DRA values, `DRA`, of what the DRM pools to them, `DRM`, and of its output, `features`."""
    return "%sDRAN/DRAG%d/%s:0" % (scope, k, name)


def dra_values():
    """The DRA values of all DRAGs of every DRSAN built so far in the default graph, in order of creation:
    tensors [N, 1, 1, paths]; [] if none has a DRA."""
    return [op.outputs[0] for op in tf.get_default_graph().get_operations() if op.name.endswith("/DRA")]


def count_parameters():
    """The number of trainable values of DRSAN in the default graph."""
    return sum(variable.shape.num_elements() for variable in model_variables())


def count_multi_adds(scale, height, width):
    """The multiplications of all convolutions of DRSAN in the default graph for an SR image of this size.

    For each convolution, its kernel's values times the positions of its output: of LR, of what a sub-pixel
    convolution before it has made, or of SR. Additions of biases, PReLU, DRA, RSA and pooling are not
    counted. The paper's own rule is not known; this one gives 0.4 to 0.8 % less.
    """
    factor = SCALES[scale]
    kernels = [variable.shape.num_elements() for variable in model_variables()
               if variable.op.name.endswith("/kernel")]
    sides = [1]  # of the output of the upsampler's convolutions, and of the last one, in sides of LR
    for step in UPSAMPLING[factor]:
        sides.append(sides[-1] * step)
    sides = [1] * (len(kernels) - len(sides)) + sides
    return sum(kernel * side ** 2 for kernel, side in zip(kernels, sides)) * height * width / factor ** 2
