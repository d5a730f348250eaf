"""Execute an inference graph of TensorFlow in JAX: a table from operation types to functions, and nothing about DRSAN.

export_graph.py writes the graph; TensorFlow itself is not needed here.
"""
import functools
import json
import operator
from collections import namedtuple

from tools.command import UserError

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Node = namedtuple("Node", "name op inputs attributes")


# in the order of Graph's arguments: what a graph as JSON has beside its nodes
KEYS = "input", "output", "variables", "exact", "model", "scale", "factor", "init_from", "trained_before"


class Graph(object):
    """An inference graph: nodes in order of execution, names of input and output, the shapes of its variables by name, the names of
    the nodes that are always computed in float32, model and scale (and its factor), the checkpoint that the weights beside it are
    from, or None, and what trained those.

    One object equals itself alone, so that functions compiled for it can be kept.
    """

    def __init__(self, nodes, input, output, variables, exact, model, scale, factor, init_from, trained_before):
        self.nodes, self.input, self.output = nodes, input, output
        self.variables, self.exact = {name: tuple(shape) for name, shape in variables}, frozenset(exact)
        self.model, self.scale, self.factor = model, scale, factor
        self.init_from, self.trained_before = init_from, trained_before


def absolute(x):
    """|x|, whose gradient at 0 is 0 as TensorFlow's, where that of jnp.abs is 1."""
    return x * lax.stop_gradient(jnp.sign(x))


def _require(attributes, **expected):
    """Raise ValueError if an attribute that the function does not look at has another value than the one it assumes."""
    for key, value in expected.items():
        if attributes.get(key, value) != value:
            raise ValueError("%s = %r is not supported, only %r" % (key, attributes[key], value))


def _conv2d(attributes, x, kernel):
    _require(attributes, data_format="NHWC", strides=[1, 1, 1, 1], dilations=[1, 1, 1, 1])
    return lax.conv_general_dilated(x, kernel, window_strides=(1, 1), padding=attributes["padding"],
                                    dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _bias_add(attributes, x, bias):
    _require(attributes, data_format="NHWC")
    return x + bias


def _depth_to_space(attributes, x):
    _require(attributes, data_format="NHWC")
    (n, h, w, c), s = x.shape, attributes["block_size"]
    x = x.reshape(n, h, w, s, s, c // (s * s)).transpose(0, 1, 3, 2, 4, 5)  # [N, H, s, W, s, C / s^2]
    return x.reshape(n, s * h, s * w, c // (s * s))


def _mean(attributes, x, axes):
    return jnp.mean(x, axis=tuple(np.ravel(axes).tolist()), keepdims=attributes["keep_dims"])


def _plain(function):
    """The table's form of a function of tensors alone."""
    return lambda attributes, *inputs: function(*inputs)


OPERATIONS = {  # TensorFlow operation type -> function of (attributes, inputs): an array, or a list of several outputs
    "Abs": _plain(absolute),
    "Add": _plain(jnp.add),
    "AddN": _plain(lambda *inputs: functools.reduce(operator.add, inputs)),
    "AddV2": _plain(jnp.add),
    "BiasAdd": _bias_add,
    "ConcatV2": _plain(lambda *inputs: jnp.concatenate(inputs[:-1], int(inputs[-1]))),
    "Conv2D": _conv2d,
    "DepthToSpace": _depth_to_space,
    "Greater": _plain(jnp.greater),
    "GreaterEqual": _plain(jnp.greater_equal),
    "Maximum": _plain(lambda x, y: jnp.where(x >= y, x, y)),  # if both are equal, x has the gradient, as in TensorFlow
    "Mean": _mean,
    "Minimum": _plain(lambda x, y: jnp.where(x <= y, x, y)),
    "Mul": _plain(jnp.multiply),
    "Neg": _plain(jnp.negative),
    "Relu": _plain(jax.nn.relu),
    "Select": _plain(jnp.where),
    "SelectV2": _plain(jnp.where),
    "Sigmoid": _plain(jax.nn.sigmoid),
    "Split": lambda attributes, axis, x: jnp.split(x, attributes["num_split"], int(axis)),
    "Sub": _plain(jnp.subtract),
}
NOT_COMPUTED = "Const", "Identity", "Placeholder", "VariableV2"  # execute() only passes a value on


def read_graph(value):
    """Make a Graph of what export_graph.py wrote, read from JSON.

    Raises ValueError that names the first operation type that is not in the table.
    """
    nodes = [Node(node["name"], node["op"], tuple(node["inputs"]), node["attributes"]) for node in value["nodes"]]
    for node in nodes:
        if node.op not in OPERATIONS and node.op not in NOT_COMPUTED:
            raise ValueError("no JAX function for the operation type %s (of node %s): add it to OPERATIONS in "
                             "jax_graph.py" % (node.op, node.name))
    return Graph(nodes, *[value[key] for key in KEYS])


def load_graph(path):
    """Read a Graph from a file by export_graph.py. Raises UserError."""
    try:
        with open(path) as file:
            return read_graph(json.load(file))
    except (OSError, ValueError, KeyError) as error:
        raise UserError("cannot use the graph %s: %s: write it by export_graph.py" % (path, error))


def _as_float(value, dtype):
    return value.astype(dtype) if jnp.issubdtype(value.dtype, jnp.floating) else value


def execute(graph, variables, x, dtype=jnp.float32):
    """The output of a graph for the input x; can be traced, differentiated and compiled by JAX.

    variables: a dict from name to float32 array. With `dtype` bfloat16, feature maps are kept and convolutions computed
    in it, but for graph.exact; all other arithmetic is still float32, from float32 variables, and so is the result.
    """
    values = {graph.input: x}
    for node in graph.nodes:
        kept = jnp.float32 if node.name in graph.exact else dtype
        if node.op == "VariableV2":
            values[node.name] = variables[node.name]
        elif node.op == "Const":
            values[node.name] = np.asarray(node.attributes["value"]["value"], node.attributes["value"]["dtype"])
        elif node.op == "Identity":
            values[node.name] = values[node.inputs[0]]
        elif node.op != "Placeholder":
            operand = kept if node.op == "Conv2D" else jnp.float32
            outputs = OPERATIONS[node.op](node.attributes, *[_as_float(values[name], operand) for name in node.inputs])
            outputs = outputs if isinstance(outputs, list) else [outputs]
            for i, value in enumerate(outputs):
                values[node.name + (":%d" % i if i else "")] = _as_float(value, kept)
    return values[graph.output].astype(jnp.float32)
