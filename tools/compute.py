"""How the blocks of DRSAN are computed: in which precision, and which operations by XLA, a compiler."""
import contextlib
import functools
import threading

from tools.command import notice_once
from tools.runtime import tf

PRECISIONS = "float32", "bfloat16"  # of convolutions


class _Options(threading.local):
    """Those of convolving_in(), of each thread its own."""
    precision, compiled, convolutions = "float32", False, False


_current = _Options()


@contextlib.contextmanager
def convolving_in(precision, compiled=False, convolutions=False):
    """Within this context, networks are built whose blocks compute in one of PRECISIONS: RB, DRM, the fusion
    of a DRAG, and the upsampler. Variables, the sums of DRSA and of the DRM's pooling, the sum with x0, and
    the first and the last convolution are float32.

    compiled: PReLU and DRSA take one pass over memory each, by XLA, in float32. What they give is rounded to
    the precision. convolutions: XLA computes those in float32, too; for inference alone.
    """
    before = _current.precision, _current.compiled, _current.convolutions
    _current.precision, _current.compiled, _current.convolutions = precision, compiled, convolutions
    try:
        yield
    finally:
        _current.precision, _current.compiled, _current.convolutions = before


def to_compute_dtype(x):
    """A tensor in the precision of convolving_in(), by default float32."""
    return tf.cast(x, _current.precision)


def to_float32(x):
    """A tensor in float32."""
    return tf.cast(x, tf.float32)


def elementwise(function, *inputs):
    """function(*inputs), of element-wise operations on tensors, the first of the result's shape."""
    return call_compiled(function, *inputs) if _current.compiled else function(*inputs)


def convolution(function, x, kernel, bias):
    """function(x, kernel, bias), a convolution: [N, H, W, C] -> [N, H, W, filters] (see convolving_in)."""
    if not _current.convolutions or x.dtype != tf.float32:
        return function(x, kernel, bias)
    result = _forward(function)(*[tf.convert_to_tensor(value) for value in (x, kernel, bias)])
    result.set_shape(x.shape[:3].concatenate(kernel.shape[3:]))
    return result


# -------------------------------------------------------------------------------------------------------- XLA

def can_compile():
    """Whether this TensorFlow has XLA, but for TensorFlow 1, which has it in part."""
    if tf.__version__.startswith("1."):
        return False
    built = tf.test.is_built_with_xla()
    if not built:
        notice_once("this TensorFlow is built without XLA: the network takes longer")
    return built


def call_compiled(function, *inputs):
    """function(*inputs) of element-wise operations on tensors, computed in float32. The result has the shape
    of the first input, to which the others are broadcast, and, rounded, its type.

    XLA compiles the function, and its gradient, when they run on a new shape, in some hundredths of a second,
    once for all calls in a graph.
    """
    @tf.custom_gradient
    def call(*inputs):
        def gradients(gradient):
            found = _backward(function)(gradient, *inputs)
            return [_sum_to(value, like, inputs[0].shape) for value, like in zip(found, inputs)]
        return _shaped(_forward(function)(*inputs), inputs[0]), gradients
    return call(*[tf.convert_to_tensor(value) for value in inputs])


@functools.lru_cache(maxsize=None)
def _forward(function):
    """A function compiled."""
    def compute(*inputs):
        return tf.cast(function(*[to_float32(value) for value in inputs]), inputs[0].dtype)
    return tf.function(compute, autograph=False, jit_compile=True)


@functools.lru_cache(maxsize=None)
def _backward(function):
    """The compiled gradients of a function's inputs, from the gradient of its result and the inputs, of which
    those of inputs that are broadcast are summed up as far as _sum_partly() does."""
    def gradients(gradient, *inputs):
        wide = [tf.broadcast_to(to_float32(value), tf.shape(inputs[0])) for value in inputs]
        found = tf.gradients(function(*wide), wide, to_float32(gradient))
        return [tf.cast(_sum_partly(value, like.shape), like.dtype) for value, like in zip(found, inputs)]
    return tf.function(gradients, autograph=False, jit_compile=True)


def _sum_partly(value, shape):
    """The gradient [N, H, W, C] of an input of this shape: summed up where the input has one number a channel
    or for all; where it has one an image, over the channels alone, as XLA is slow in the sum over pixels."""
    if len(shape) < 4:
        rows = tf.reshape(value, [-1] + shape.as_list())
        return tf.tensordot(tf.ones(tf.shape(rows)[:1]), rows, 1)  # faster than reduce_sum()
    return tf.reduce_sum(value, 3, keepdims=True) if shape[3] == 1 else value


def _shaped(result, like):
    """A result of a compiled function, which does not know its shape."""
    result.set_shape(like.shape)
    return result


def _sum_to(gradient, tensor, shape):
    """The gradient of a tensor from what _backward() makes of that of a result of this shape: the sum over
    the dimensions in which the tensor was broadcast."""
    if len(tensor.shape) < 4:
        return _shaped(gradient, tensor)
    gradient.set_shape(shape[:3].concatenate(tensor.shape[3:]))
    wide, sizes = gradient.shape.as_list(), tensor.shape.as_list()
    axes = [i for i in range(3) if sizes[i] == 1 != wide[i]]
    return tf.reduce_sum(gradient, axes, keepdims=True) if axes else gradient
