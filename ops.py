"""The building blocks of DRSAN, named as in the paper: RB, DRM, DRSA, and the layers below them.

Feature maps are NHWC tensors. They are float32, but within tools.compute.convolving_in("bfloat16") from where
an RB begins to the sum of DRSA. A function that has variables creates them in the current variable scope, in
the order of the published graphs (model.py has the names). `from ops import tf` is how the project gets
TensorFlow, of either version.
"""
from tools.compute import convolution, elementwise, to_compute_dtype, to_float32
from tools.runtime import tf

UPSAMPLING = {2: [2], 3: [3], 4: [2, 2]}  # scale -> factors of the sub-pixel convolutions


def residual_block(x, names):
    """RB: PReLU, conv3x3, PReLU, conv3x3, without a skip; `names` are the names of the two slopes."""
    x = to_compute_dtype(x)
    for name in names:
        x = conv2d(prelu(x, name), int(x.shape[3]), 3)
    return x


def drm(x, paths, name, dra_range=None):
    """DRM, the dynamic residual module: [N, H, W, C] -> DRA values r, a list of `paths` tensors [N, 1, 1, 1].

    Global average pool of conv1x1(PReLU(conv1x1(x, 16)), paths). No softmax and no sigmoid: r is unbounded.
    `name` is the name of the slope. dra_range: as in limit_dra(), or None: r as published.

    In the current name scope, `DRM:0` [N, H, W, paths] is what is pooled, `pooled:0` [N, 1, 1, paths] its
    means, and `DRA:0`, of the same shape, all of r. sess.run() can fetch each and, through feed_dict, replace
    the last two.
    """
    x = conv2d(prelu(conv2d(to_compute_dtype(x), 16, 1), name), paths, 1)
    x = tf.identity(to_float32(x), name="DRM")
    dra = tf.identity(tf.reduce_mean(x, [1, 2], keepdims=True), name="pooled")
    if dra_range:
        dra = limit_dra(dra, *dra_range)
    return tf.split(tf.identity(dra, name="DRA"), paths, axis=3)


def limit_dra(dra, low, high):
    """The DRA values r [N, 1, 1, paths] of images whose r are all from `low` to `high`; 0 for the others.

    low, high: lists of `paths` numbers (see tools/gate.py). Without DRA, DRSA is RSA alone, which keeps
    brightness on hard textures better than any r of photographs. In the current name scope, `limited:0`
    [N, 1, 1, 1] is whether r was replaced.
    """
    inside = tf.reduce_all(tf.logical_and(dra >= low, dra <= high), 3, keepdims=True)  # false for NaN, too
    limited = tf.logical_not(inside, name="limited")
    return tf.where(tf.tile(limited, [1, 1, 1, dra.shape[3]]), tf.zeros_like(dra), dra)


def learned_dra(paths, name):
    """What an ablation has in the place of drm(): r as the variable `name`, [1, 1, 1, paths]."""
    r = tf.get_variable(name, [1, 1, 1, paths], initializer=tf.zeros_initializer())
    return tf.split(tf.identity(r, name="DRA"), paths, axis=3)


def drsa(y, features, dra, attention=True):
    """DRSA: (y + sum_i r_i f_i) * sigmoid(y).

    The sum is the dynamic residual attention (DRA) over the earlier features f_i with their r_i. The sigmoid
    is the residual self-attention (RSA) of the block's output y; attention=False leaves it out, for an
    ablation.
    """
    return elementwise(_drsa if attention else _dra, y, *(list(dra) + list(features)))


def _dra(y, *residuals):
    """y + sum_i r_i f_i; residuals: all r_i, then all f_i."""
    n = len(residuals) // 2
    return tf.add_n([to_float32(y)] + [r * to_float32(f) for r, f in zip(residuals[:n], residuals[n:])])


def _drsa(y, *residuals):
    y = to_float32(y)
    return _dra(y, *residuals) * tf.sigmoid(y)


def upsampler(x, scale):
    """Sub-pixel convolution [N, H, W, C] -> [N, scale H, scale W, C]: one step, or two of x2 for x4."""
    channels, x = int(x.shape[3]), to_compute_dtype(x)
    for factor in UPSAMPLING[scale]:
        x = tf.depth_to_space(conv2d(x, channels * factor ** 2, 3), factor)
    return to_float32(x)


def conv2d(x, filters, size):
    """Convolution with bias, stride 1, and zero padding: [N, H, W, C] -> [N, H, W, filters], in x's type.

    The variables of the n-th call in a variable scope are conv2d_n/kernel [size, size, C, filters] and
    conv2d_n/bias, n counting from 0; the first has no number.
    """
    with tf.variable_scope(None, default_name="conv2d"):
        kernel = tf.get_variable("kernel", [size, size, int(x.shape[3]), filters],
                                 initializer=tf.glorot_uniform_initializer())
        bias = tf.get_variable("bias", [filters], initializer=tf.zeros_initializer())
        return convolution(_conv2d, x, kernel, bias)


def _conv2d(x, kernel, bias):
    y = tf.nn.conv2d(x, tf.cast(kernel, x.dtype), [1, 1, 1, 1], "SAME")
    # TensorFlow sums the gradient of bias_add() in bfloat16, where a sum of ones ends at 256
    return tf.nn.bias_add(y, bias) if x.dtype == tf.float32 else y + tf.cast(bias, x.dtype)


def prelu(x, name):
    """PReLU with one slope per channel, the variable `name`: x where x > 0, else slope * x."""
    slope = tf.get_variable(name, [int(x.shape[3])], initializer=tf.zeros_initializer())
    return elementwise(_prelu, x, slope)


def _prelu(x, slope):
    return tf.where(x > 0, x, tf.cast(slope, x.dtype) * x)
