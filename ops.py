"""The building blocks of DRSAN, named as in the paper: RB, DRM, DRSA, and the layers below them.

Feature maps are float32 NHWC tensors; in convolving_in("bfloat16"), they are rounded to it where an RB begins, and float32 again in
the sum of DRSA. Every function that has variables creates them in the current variable scope, in the order of the published graphs (see
model.py for the names).

Below them are the operations of training: Muon's steps, and which steps are skipped. `from ops import tf` is how the project gets
TensorFlow, of either version (see tools/runtime.py).
"""
import contextlib
import threading

from tools.runtime import tf
from tools.training.recipes import MAX_LOSS, MOMENTUM, NORMS, UPDATE_RMS, orthogonalize
from tools.xla import call_compiled

import numpy as np


PRECISIONS = "float32", "bfloat16"  # of convolutions


class _Options(threading.local):
    """Those of convolving_in(), of each thread its own."""
    precision, compiled = "float32", False


_current = _Options()


@contextlib.contextmanager
def convolving_in(precision, compiled=False):
    """Within this context, networks are built whose blocks (RB, DRM, the fusion of a DRAG, and the upsampler) compute in one of
    PRECISIONS. Variables, the sums of DRSA and of the DRM's pooling, the sum with x0 and the first and last convolution are float32.

    compiled: PReLU and DRSA take one pass over memory each, by XLA (see tools/xla.py); what DRSA gives is then kept in the
    precision, too.
    """
    before = _current.precision, _current.compiled
    _current.precision, _current.compiled = precision, compiled
    try:
        yield
    finally:
        _current.precision, _current.compiled = before


def elementwise(function, *inputs):
    """function(*inputs), of element-wise operations on tensors, the first of the result's shape."""
    return call_compiled(function, *inputs) if _current.compiled else function(*inputs)


def rounded(x):
    """x in the precision of convolving_in(), by default float32."""
    return tf.cast(x, _current.precision)


def exact(x):
    """x in float32."""
    return tf.cast(x, tf.float32)


def conv2d(x, filters, size):
    """Convolution with bias, stride 1, zero padding that keeps the size: [N, H, W, C] -> [N, H, W, filters], in the type of x.

    The variables of the n-th call in a variable scope are conv2d_n/kernel [size, size, C, filters] and conv2d_n/bias,
    n counting from 0; the first has no number.
    """
    with tf.variable_scope(None, default_name="conv2d"):
        kernel = tf.get_variable("kernel", [size, size, int(x.shape[3]), filters],
                                 initializer=tf.glorot_uniform_initializer())
        bias = tf.get_variable("bias", [filters], initializer=tf.zeros_initializer())
        y = tf.nn.conv2d(x, tf.cast(kernel, x.dtype), [1, 1, 1, 1], "SAME")
        return tf.nn.bias_add(y, tf.cast(bias, x.dtype))


def prelu(x, name):
    """PReLU with one slope per channel, the variable `name`: x where x > 0, else slope * x."""
    return elementwise(_prelu, x, tf.get_variable(name, [int(x.shape[3])], initializer=tf.zeros_initializer()))


def _prelu(x, slope):
    return tf.where(x > 0, x, tf.cast(slope, x.dtype) * x)


def residual_block(x, names):
    """RB: PReLU, conv3x3, PReLU, conv3x3, without a skip; `names` are the names of the two slopes."""
    x = rounded(x)
    for name in names:
        x = conv2d(prelu(x, name), int(x.shape[3]), 3)
    return x


def drm(x, paths, name, dra_range=None):
    """DRM, the dynamic residual module: [N, H, W, C] -> DRA values r, a list of `paths` tensors of shape [N, 1, 1, 1].

    Global average pool of conv1x1(PReLU(conv1x1(x, 16)), paths); no softmax and no sigmoid, so r is unbounded. `name` is the
    name of the slope. dra_range: as in limit_dra(), or None: r as published.

    In the current name scope, `DRM:0` [N, H, W, paths] is what is pooled, `pooled:0` its means [N, 1, 1, paths], and `DRA:0`,
    of the same shape, all of r. sess.run() can fetch each and, through feed_dict, replace the last two.
    """
    x = tf.identity(exact(conv2d(prelu(conv2d(rounded(x), 16, 1), name), paths, 1)), name="DRM")
    dra = tf.identity(tf.reduce_mean(x, [1, 2], keepdims=True), name="pooled")
    if dra_range:
        dra = limit_dra(dra, *dra_range)
    return tf.split(tf.identity(dra, name="DRA"), paths, axis=3)


def limit_dra(dra, low, high, detailed):
    """The DRA values r [N, 1, 1, paths] of the images whose r are all from `low` to `high`; `detailed` for the other images.

    low, high, detailed: lists of `paths` numbers (see tools/dra_range.py). In the current name scope, `limited:0` [N, 1, 1, 1]
    is whether r was replaced.
    """
    inside = tf.reduce_all(tf.logical_and(dra >= low, dra <= high), 3, keepdims=True)  # false for NaN, too
    limited = tf.logical_not(inside, name="limited")
    return tf.where(tf.tile(limited, [1, 1, 1, dra.shape[3]]), detailed + tf.zeros_like(dra), dra)


def learned_dra(paths, name):
    """What an ablation has in the place of drm(): r as the variable `name` [1, 1, 1, paths], the same for every image."""
    r = tf.get_variable(name, [1, 1, 1, paths], initializer=tf.zeros_initializer())
    return tf.split(tf.identity(r, name="DRA"), paths, axis=3)


def drsa(y, features, dra, attention=True):
    """DRSA: (y + sum_i r_i f_i) * sigmoid(y), where the sum is the dynamic residual attention (DRA) over the earlier
    features f_i with their r_i, and the sigmoid is the residual self-attention (RSA) of the block's output y.

    attention=False leaves out the sigmoid, for an ablation.
    """
    return elementwise(_drsa if attention else _dra, y, *(list(dra) + list(features)))


def _dra(y, *residuals):
    """y + sum_i r_i f_i; residuals: all r_i, then all f_i."""
    n = len(residuals) // 2
    return tf.add_n([exact(y)] + [r * exact(f) for r, f in zip(residuals[:n], residuals[n:])])


def _drsa(y, *residuals):
    y = exact(y)
    return _dra(y, *residuals) * tf.sigmoid(y)


UPSAMPLING = {2: [2], 3: [3], 4: [2, 2]}  # scale -> factors of the sub-pixel convolutions


def upsampler(x, scale):
    """Sub-pixel convolution [N, H, W, C] -> [N, scale H, scale W, C]: one step for x2 and x3, two of x2 for x4."""
    channels, x = int(x.shape[3]), rounded(x)
    for factor in UPSAMPLING[scale]:
        x = tf.depth_to_space(conv2d(x, channels * factor ** 2, 3), factor)
    return exact(x)


def muon_momentum(kernel):
    """The variable <kernel>/Muon."""
    with tf.colocate_with(kernel):
        return tf.Variable(tf.zeros(kernel.shape), trainable=False, name=kernel.op.name + "/Muon")


def muon_step(kernel, momentum, gradient, rate, decay):
    """The operation that updates a kernel W [kh, kw, in, out] by Muon with Nesterov's momentum and decoupled weight decay:
    W <- W - rate (O + decay W), where O is the orthogonal update (J. Liu et al., arXiv 2502.16982, equation 3)."""
    height, width, inputs, outputs = kernel.shape.as_list()
    rows, columns = height * width * inputs, outputs
    with tf.colocate_with(kernel):
        new = momentum.assign(MOMENTUM * momentum + (1 - MOMENTUM) * gradient)
        x = tf.reshape(MOMENTUM * new + (1 - MOMENTUM) * gradient, [rows, columns])
        x = x / (tf.norm(x) + 1e-12)
        tall = rows > columns
        x = orthogonalize(tf.transpose(x) if tall else x, lambda a, b, transpose: tf.matmul(a, b, transpose_b=transpose))
        x = (UPDATE_RMS * max(rows, columns) ** 0.5) * (tf.transpose(x) if tall else x)
        update = tf.reshape(x, kernel.shape)
        return kernel.assign_sub(rate * (update + decay * kernel if decay else update))


def is_bad(loss, norm, skip_above):
    """Whether a step is to be skipped, a boolean tensor: its loss or the norm of its gradient is not finite, or the norm is more than
    `skip_above` times (0: no limit) the median of the last NORMS finite ones, for which the limit waits until there are half as many.

    With a limit, the norms are the variable `gradient_norms`; evaluating the tensor adds this step's.
    """
    finite = tf.logical_and(loss < MAX_LOSS, tf.is_finite(norm))
    if not skip_above:
        return tf.logical_not(finite)
    norms = tf.Variable(tf.fill([NORMS], np.float32(np.inf)), trainable=False, name="gradient_norms")
    limit = skip_above * tf.nn.top_k(norms, NORMS // 2 + 1)[0][-1]
    bad = tf.logical_not(tf.logical_and(finite, norm <= limit))
    with tf.control_dependencies([bad]):
        noted = norms.assign(tf.where(finite, tf.concat([norms[1:], [norm]], 0), norms))
    with tf.control_dependencies([noted]):
        return tf.identity(bad)
