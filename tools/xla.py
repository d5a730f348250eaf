"""XLA, the compiler within TensorFlow 2, for parts of a graph that runs on a CPU."""
import functools

from tools.runtime import tf


def can_compile():
    """Whether this TensorFlow has XLA."""
    return not tf.__version__.startswith("1.")


def call_compiled(function, *inputs):
    """function(*inputs), element-wise operations on tensors: the result has the shape and, after a cast, the type of the first input,
    to which the others are broadcast.

    The function, and its gradient, are programs that XLA compiles when they run on a new shape, in some hundredths of a second, once for
    all calls of the function. What tf.function(jit_compile=True) does would be compiled for every call, of which DRSAN has 52.
    """
    @tf.custom_gradient
    def call(*inputs):
        result, = _run(_forward(function), inputs[0].shape, inputs)

        def gradients(gradient):
            gradient.set_shape(inputs[0].shape)
            wide = _run(_backward(function), inputs[0].shape, (gradient,) + inputs)
            return [_sum_to(one, of) for one, of in zip(wide, inputs)]
        return result, gradients
    return call(*[tf.convert_to_tensor(one) for one in inputs])


@functools.lru_cache(maxsize=None)
def _forward(function):
    """A function as a tf.function whose result has the type of its first input."""
    return tf.function(lambda *inputs: [tf.cast(function(*inputs), inputs[0].dtype)], autograph=False)


@functools.lru_cache(maxsize=None)
def _backward(function):
    """The tf.function of the gradient of a function's result and its inputs that gives the gradients of these, all of the result's shape:
    XLA sums them up far slower than TensorFlow does."""
    def gradients(gradient, *inputs):
        wide = [tf.broadcast_to(one, tf.shape(inputs[0])) for one in inputs]
        return tf.gradients(tf.cast(function(*wide), inputs[0].dtype), wide, gradient)
    return tf.function(gradients, autograph=False)


@functools.lru_cache(maxsize=1)
def _tracing_graph():
    """Where functions are traced: a tf.function has a program of its own for each graph, and each place in it, where it is called."""
    return tf.Graph()


def _run(traceable, shape, inputs):
    """The results, of a shape, of a tf.function of tensors, as one compiled operation."""
    with _tracing_graph().as_default():
        program = traceable.get_concrete_function(*[tf.TensorSpec(one.shape, one.dtype) for one in inputs])
    names, types = ["input%d" % i for i in range(len(inputs))], [one.dtype.as_datatype_enum for one in inputs]
    graph = tf.GraphDef()
    graph.library.function.extend([program.function_def])
    for name, type_ in zip(names, types):
        graph.node.add(name=name, op="Placeholder").attr["dtype"].type = type_
    call = graph.node.add(name="compiled", op="XlaLaunch", input=names)
    call.attr["function"].func.name = program.function_def.signature.name
    call.attr["Targs"].list.type.extend(types)
    call.attr["Tresults"].list.type.extend([one.dtype.as_datatype_enum for one in program.outputs])
    call.attr["Tconstants"].list.SetInParent()
    call.attr["Nresources"].i = 0
    results = tf.import_graph_def(graph, dict(zip(names, inputs)), ["compiled:%d" % i for i in range(len(program.outputs))])
    for result in results:
        result.set_shape(shape)
    return results


def _sum_to(gradient, tensor):
    """The sum of a gradient over the dimensions in which a tensor was broadcast, in its shape."""
    wide, sizes = gradient.shape.as_list(), tensor.shape.as_list()
    sizes = [1] * (len(wide) - len(sizes)) + sizes
    axes = [i for i in range(len(wide)) if sizes[i] == 1 != wide[i]]
    return tf.reshape(tf.reduce_sum(gradient, axes, keepdims=True), tf.shape(tensor)) if axes else gradient
