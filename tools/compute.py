"""How the blocks of DRSAN are computed: in which precision, and which operations by XLA, a compiler."""
import contextlib
import functools
import threading

from tools.runtime import tf

PRECISIONS = "float32", "bfloat16"  # of convolutions


class _Options(threading.local):
    """Those of convolving_in(), of each thread its own."""
    precision, compiled = "float32", False


_current = _Options()


@contextlib.contextmanager
def convolving_in(precision, compiled=False):
    """Within this context, networks are built whose blocks compute in one of PRECISIONS: RB, DRM, the fusion
    of a DRAG, and the upsampler. Variables, the sums of DRSA and of the DRM's pooling, the sum with x0, and
    the first and the last convolution are float32.

    compiled: PReLU and DRSA take one pass over memory each, by XLA, in float32. What they give is rounded to
    the precision.
    """
    before = _current.precision, _current.compiled
    _current.precision, _current.compiled = precision, compiled
    try:
        yield
    finally:
        _current.precision, _current.compiled = before


def to_compute_dtype(x):
    """A tensor in the precision of convolving_in(), by default float32."""
    return tf.cast(x, _current.precision)


def to_float32(x):
    """A tensor in float32."""
    return tf.cast(x, tf.float32)


def elementwise(function, *inputs):
    """function(*inputs), of element-wise operations on tensors, the first of the result's shape."""
    return call_compiled(function, *inputs) if _current.compiled else function(*inputs)


# -------------------------------------------------------------------------------------------------------- XLA

def can_compile():
    """Whether this TensorFlow has XLA."""
    return not tf.__version__.startswith("1.")


def call_compiled(function, *inputs):
    """function(*inputs) of element-wise operations on tensors. The result has the shape of the first input,
    to which the others are broadcast, and, after a cast, its type.

    XLA compiles the function, and its gradient, when they run on a new shape, in some hundredths of a second,
    once for all calls of the function. tf.function(jit_compile=True) would be compiled for every call, of
    which DRSAN has 52.
    """
    @tf.custom_gradient
    def call(*inputs):
        result, = _run(_forward(function), inputs[0].shape, inputs)

        def gradients(gradient):
            gradient.set_shape(inputs[0].shape)
            wide = _run(_backward(function), inputs[0].shape, (gradient,) + inputs)
            return [_sum_to(*pair) for pair in zip(wide, inputs)]
        return result, gradients
    return call(*[tf.convert_to_tensor(value) for value in inputs])


@functools.lru_cache(maxsize=None)
def _forward(function):
    """A function as a tf.function whose result has the type of its first input."""
    def compute(*inputs):
        return [tf.cast(function(*[to_float32(value) for value in inputs]), inputs[0].dtype)]
    return tf.function(compute, autograph=False)


@functools.lru_cache(maxsize=None)
def _backward(function):
    """The tf.function of the gradients of a function's inputs, from the gradient of its result and the
    inputs. All have the shape of the result: XLA sums them up far slower than TensorFlow does."""
    def gradients(gradient, *inputs):
        wide = [tf.broadcast_to(to_float32(value), tf.shape(inputs[0])) for value in inputs]
        found = tf.gradients(function(*wide), wide, to_float32(gradient))
        return [tf.cast(value, like.dtype) for value, like in zip(found, inputs)]
    return tf.function(gradients, autograph=False)


@functools.lru_cache(maxsize=1)
def _tracing_graph():
    """Where functions are traced: a tf.function has a program for each graph in which it is called."""
    return tf.Graph()


def _run(traceable, shape, inputs):
    """The results, of a shape, of a tf.function of tensors, as one compiled operation."""
    with _tracing_graph().as_default():
        program = traceable.get_concrete_function(
            *[tf.TensorSpec(value.shape, value.dtype) for value in inputs])
    names = ["input%d" % i for i in range(len(inputs))]
    types = [value.dtype.as_datatype_enum for value in inputs]
    graph = tf.GraphDef()
    graph.library.function.extend([program.function_def])
    for name, type_ in zip(names, types):
        graph.node.add(name=name, op="Placeholder").attr["dtype"].type = type_
    call = graph.node.add(name="compiled", op="XlaLaunch", input=names)
    call.attr["function"].func.name = program.function_def.signature.name
    call.attr["Targs"].list.type.extend(types)
    call.attr["Tresults"].list.type.extend([value.dtype.as_datatype_enum for value in program.outputs])
    call.attr["Tconstants"].list.SetInParent()
    call.attr["Nresources"].i = 0
    results = tf.import_graph_def(
        graph, dict(zip(names, inputs)), ["compiled:%d" % i for i in range(len(program.outputs))])
    for result in results:
        result.set_shape(shape)
    return results


def _sum_to(gradient, tensor):
    """The sum of a gradient over the dimensions in which a tensor was broadcast, in its shape."""
    wide, sizes = gradient.shape.as_list(), tensor.shape.as_list()
    sizes = [1] * (len(wide) - len(sizes)) + sizes
    axes = [i for i in range(len(wide)) if sizes[i] == 1 != wide[i]]
    return tf.reshape(tf.reduce_sum(gradient, axes, keepdims=True), tf.shape(tensor)) if axes else gradient
