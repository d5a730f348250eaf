"""XLA, the compiler within TensorFlow 2, for parts of a graph that runs on a CPU."""
import functools

from tools.runtime import tf


def can_compile():
    """Whether this TensorFlow has XLA."""
    return not tf.__version__.startswith("1.")


@functools.lru_cache(maxsize=None)
def _traceable(function):
    """A function of tensors as a tf.function whose result has the type of its first input; always the same for a function, so that
    equal calls of it share one program."""
    return tf.function(lambda *inputs: tf.cast(function(*inputs), inputs[0].dtype), autograph=False)


def call_compiled(function, *inputs):
    """function(*inputs), a tensor of the shape and, after a cast, the type of the first input, by a program of its own.

    XLA compiles it when it runs on a new shape, in some hundredths of a second, once for all calls of the function. What
    tf.function(jit_compile=True) does would be compiled for every call in the graph, of which DRSAN has 52. Has no gradient.
    """
    inputs = [tf.convert_to_tensor(one) for one in inputs]
    program = _traceable(function).get_concrete_function(*[tf.TensorSpec(one.shape, one.dtype) for one in inputs]).function_def
    names, types = ["input%d" % i for i in range(len(inputs))], [one.dtype.as_datatype_enum for one in inputs]
    graph = tf.GraphDef()
    graph.library.function.extend([program])
    for name, type_ in zip(names, types):
        graph.node.add(name=name, op="Placeholder").attr["dtype"].type = type_
    call = graph.node.add(name="compiled", op="XlaLaunch", input=names)
    call.attr["function"].func.name = program.signature.name
    call.attr["Targs"].list.type.extend(types)
    call.attr["Tresults"].list.type.extend(types[:1])
    call.attr["Tconstants"].list.SetInParent()
    call.attr["Nresources"].i = 0
    result, = tf.import_graph_def(graph, dict(zip(names, inputs)), ["compiled:0"])
    result.set_shape(inputs[0].shape)
    return result
