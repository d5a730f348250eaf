"""The building blocks of DRSAN, named as in the paper: RB, DRM, DRSA, and the layers below them.

Feature maps are float32 NHWC tensors. Every function that has variables creates them in the current variable scope, in
the order of the published graphs (see model.py for the names).

This is also the one place that picks the TensorFlow API: `from ops import tf` is TensorFlow 1.x, or its graph-mode API
within TensorFlow 2.x.
"""
import contextlib
import ctypes
import os
import sys
import tempfile


@contextlib.contextmanager
def quiet_stderr():
    """Drop what is written to the file descriptor of stderr: libraries in C and C++, as TensorFlow on import, write
    lines there that no setting turns off. An exception still says what it says."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as dropped:
        os.dup2(dropped.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def _keep_freed_memory():
    """Let both allocators of TensorFlow 1.8 (jemalloc, and glibc within Eigen) keep what is freed. By default they give it
    back to the system after every operation, and half of the time on a CPU goes to page faults."""
    M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt:
        mallopt(M_TRIM_THRESHOLD, 2 ** 31 - 1)
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_ARENA_MAX, 1)


class _NotImported(object):
    """Stands for TensorFlow where it cannot be imported: what needs none, as recipes, images and metrics, can be used all
    the same, and the first use of TensorFlow raises the error of its import."""

    def __init__(self, error):
        self.error = error

    def __getattr__(self, name):
        raise self.error


os.environ.setdefault("JEMALLOC_MALLOC_CONF", "lg_dirty_mult:-1")  # read on import, by TensorFlow 1.8 alone
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # read on import; by default, TensorFlow 2 has them on AVX-512 CPUs alone
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors come as exceptions; 0 shows all that the C++ runtime logs
try:
    with quiet_stderr():
        import tensorflow as tf
        if hasattr(tf, "compat") and hasattr(tf.compat, "v1"):
            tf = tf.compat.v1
            tf.logging.set_verbosity(tf.logging.ERROR)
            tf.disable_v2_behavior()
        else:
            _keep_freed_memory()
    tf.logging.set_verbosity(tf.logging.ERROR)
except ImportError as error:
    tf = _NotImported(error)


def conv2d(x, filters, size):
    """Convolution with bias, stride 1, zero padding that keeps the size: [N, H, W, C] -> [N, H, W, filters].

    The variables of the n-th call in a variable scope are conv2d_n/kernel [size, size, C, filters] and conv2d_n/bias,
    n counting from 0; the first has no number. Where a custom getter of the variable scope gives the kernel another type,
    the products are computed in that type; bias and output keep the type of x.
    """
    with tf.variable_scope(None, default_name="conv2d"):
        kernel = tf.get_variable("kernel", [size, size, int(x.shape[3]), filters],
                                 initializer=tf.glorot_uniform_initializer())
        bias = tf.get_variable("bias", [filters], initializer=tf.zeros_initializer())
        y = tf.nn.conv2d(tf.cast(x, kernel.dtype), kernel, [1, 1, 1, 1], "SAME")
        return tf.nn.bias_add(tf.cast(y, x.dtype), bias)


def prelu(x, name):
    """PReLU with one slope per channel, the variable `name`: x where x > 0, else slope * x."""
    slope = tf.get_variable(name, [int(x.shape[3])], initializer=tf.zeros_initializer())
    return tf.where(x > 0, x, slope * x)


def residual_block(x, names):
    """RB: PReLU, conv3x3, PReLU, conv3x3, without a skip; `names` are the names of the two slopes."""
    for name in names:
        x = conv2d(prelu(x, name), int(x.shape[3]), 3)
    return x


def drm(x, paths, name):
    """DRM, the dynamic residual module: [N, H, W, C] -> DRA values r, a list of `paths` tensors of shape [N, 1, 1, 1].

    Global average pool of conv1x1(PReLU(conv1x1(x, 16)), paths); no softmax and no sigmoid, so r is unbounded. `name` is
    the name of the slope. In the current name scope, `DRM:0` of shape [N, H, W, paths] is what is pooled, and all of r
    is one tensor, `DRA:0` of shape [N, 1, 1, paths], which sess.run() can fetch and, through feed_dict, replace.
    """
    x = tf.identity(conv2d(prelu(conv2d(x, 16, 1), name), paths, 1), name="DRM")
    dra = tf.identity(tf.reduce_mean(x, [1, 2], keepdims=True), name="DRA")
    return tf.split(dra, paths, axis=3)


def learned_dra(paths, name):
    """What an ablation has in the place of drm(): r as the variable `name` [1, 1, 1, paths], the same for every image."""
    r = tf.get_variable(name, [1, 1, 1, paths], initializer=tf.zeros_initializer())
    return tf.split(tf.identity(r, name="DRA"), paths, axis=3)


def drsa(y, features, dra, attention=True):
    """DRSA: (y + sum_i r_i f_i) * sigmoid(y), where the sum is the dynamic residual attention (DRA) over the earlier
    features f_i with their r_i, and the sigmoid is the residual self-attention (RSA) of the block's output y.

    attention=False leaves out the sigmoid, for an ablation.
    """
    residual = tf.add_n([y] + [r * f for r, f in zip(dra, features)])
    return residual * tf.sigmoid(y) if attention else residual


def upsampler(x, scale):
    """Sub-pixel convolution [N, H, W, C] -> [N, scale H, scale W, C]: one step for x2 and x3, two of x2 for x4."""
    channels = int(x.shape[3])
    for factor in {2: [2], 3: [3], 4: [2, 2]}[scale]:
        x = tf.depth_to_space(conv2d(x, channels * factor ** 2, 3), factor)
    return x
