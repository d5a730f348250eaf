"""tools/gpu/: the exported graph in JAX against TensorFlow, and what it costs."""
import functools
import json

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="the tools that train with JAX need it: pip install jax (Python 3.11 or later)")
jax.config.update("jax_disable_most_optimizations", True)  # most of the time goes into compiling

from jax_tools import load_golden, load_random
from model import MODELS, SCALES, model_variables
from ops import tf
from tools.checkpoints import checkpoint_prefix, training_history
from tools.gpu import export_graph as export_graph_module, training
from tools.gpu.export_graph import describe_graph, export_graph
from tools.gpu.jax_graph import execute, load_graph, read_graph

pytestmark = pytest.mark.usefixtures("tiny_model")
ALL = [(model, scale) for model in MODELS for scale in SCALES]
NO_MODEL = dict(exact=[], model=None, scale=None, factor=None, init_from=None, trained_before=[])  # of a graph that is not DRSAN's


@pytest.mark.parametrize("model, scale", ALL)
def test_forward_equals_tensorflow(model, scale, session, random):
    graph = read_graph(json.loads(json.dumps(export_graph(model, scale))))
    weights = load_golden(session)
    assert {node.name for node in graph.nodes if node.op == "VariableV2"} == set(weights)
    for shape in [(2, 7, 5, 3)] + [(1, 4, 9, 3)] * (model == "48s"):
        x = random.rand(*shape).astype(np.float32)
        expected = session.run(graph.output + ":0", {graph.input + ":0": x})
        result = execute(graph, weights, x)
        assert result.shape == expected.shape == (shape[0], shape[1] * SCALES[scale], shape[2] * SCALES[scale], 3)
        assert np.max(np.abs(result - expected)) < 1e-5
        assert np.std(expected) > 1e-2


@pytest.mark.parametrize("model, scale", [("32s", "x4"), ("48s", "x3")])
def test_gradients_equal_tensorflow(model, scale, session, random):
    graph = read_graph(export_graph(model, scale))
    weights = load_random(session, random)
    lr = random.randint(256, size=(2, 6, 5, 3)).astype(np.uint8)
    hr = random.randint(256, size=(2, 6 * SCALES[scale], 5 * SCALES[scale], 3)).astype(np.uint8)
    output = session.graph.get_tensor_by_name(graph.output + ":0")
    loss = tf.reduce_mean(tf.abs(hr.astype(np.float32) / 255 - output))
    expected_loss, expected = session.run([loss, tf.gradients(loss, model_variables())],
                                          {graph.input + ":0": lr.astype(np.float32) / 255})
    value, gradients = jax.jit(jax.value_and_grad(
        lambda weights: training.l1_loss(graph, weights, lr, hr, np.float32)))(weights)
    assert abs(value - expected_loss) < 1e-5 * expected_loss
    for variable, gradient in zip(model_variables(), expected):
        difference = np.linalg.norm(gradients[variable.op.name] - gradient)
        assert difference < 1e-4 * np.linalg.norm(gradient), variable.op.name


@pytest.mark.parametrize("prelu", [
    lambda x, slope: tf.where(x > 0, x, slope * x),
    lambda x, slope: tf.nn.relu(x) - slope * tf.nn.relu(-x),
    lambda x, slope: tf.maximum(x, 0.) + slope * tf.minimum(x, 0.),
    lambda x, slope: tf.nn.relu(x) + slope * (x - tf.abs(x)) * 0.5,
], ids=["where", "relu", "maximum", "abs"])
def test_each_form_of_prelu(prelu, session):
    x = tf.placeholder(tf.float32, [None, None, None, 3], "x")
    slope = tf.get_variable("slope", [3], initializer=tf.constant_initializer([0.3, -0.2, 0.4]))
    y = tf.identity(prelu(x, slope), "y")
    graph = read_graph(dict(describe_graph(x, y), **NO_MODEL))
    values = np.array([-2, -0.5, 0, 1, 3, 0, 0.1, -0.1, 2], np.float32).reshape(1, 1, 3, 3)
    session.run(tf.global_variables_initializer())
    expected = session.run([y] + tf.gradients(y, [slope, x]), {x: values})
    variables = {"slope": np.array([0.3, -0.2, 0.4], np.float32)}
    gradients = jax.grad(lambda variables, x: execute(graph, variables, x).sum(), (0, 1))(variables, values)
    np.testing.assert_allclose(execute(graph, variables, values), expected[0], rtol=1e-6)
    np.testing.assert_allclose(gradients[0]["slope"], expected[1], rtol=1e-6)
    np.testing.assert_allclose(gradients[1], expected[2], rtol=1e-6)


def test_exact_nodes_are_float32_in_bfloat16(session, random):
    """The sum with x0 and the output have all bits of float32 of what goes into them; what lies between them has 8."""
    graph = read_graph(export_graph("tiny", "x2"))
    weights = load_random(session, random)
    x = random.rand(1, 6, 6, 3).astype(np.float32)
    by_op = {op: [node for node in graph.nodes if node.op == op] for op in ("AddV2", "BiasAdd", "Conv2D")}
    total, = by_op["AddV2"]
    assert graph.exact == {total.name, "DRAN/SR"} | {
        name for conv in (by_op["BiasAdd"][0], by_op["BiasAdd"][-3], by_op["BiasAdd"][-1]) for name in (conv.name, conv.inputs[0])}
    values = {}
    for name in (total.name, total.inputs[0], total.inputs[1], by_op["BiasAdd"][-2].name, by_op["BiasAdd"][1].name):
        graph.output = name
        values[name] = np.asarray(execute(graph, weights, x, jax.numpy.bfloat16))
    rounded = {name: (value == value.astype(jax.numpy.bfloat16).astype(np.float32)).mean() for name, value in values.items()}
    assert rounded[by_op["BiasAdd"][-2].name] == rounded[by_op["BiasAdd"][1].name] == 1  # the upsampler; the first in a DRAG
    assert max(rounded[name] for name in (total.name,) + total.inputs) < 0.05
    np.testing.assert_array_equal(values[total.name], values[total.inputs[0]] + values[total.inputs[1]])


def test_unknown_operation_is_named(session):
    x = tf.placeholder(tf.float32, [None, None, None, 3], "x")
    with pytest.raises(ValueError, match="operation type Softplus .of node softly"):
        read_graph(dict(describe_graph(x, tf.nn.softplus(x, name="softly")), **NO_MODEL))


def test_unknown_attribute_is_named(session):
    x = tf.placeholder(tf.float32, [None, None, None, 3], "x")
    y = tf.nn.conv2d(x, tf.ones([3, 3, 3, 3]), [1, 2, 2, 1], "SAME")
    description = dict(describe_graph(x, y), **NO_MODEL)
    description["nodes"] = [node for node in description["nodes"] if node["op"] in ("Placeholder", "Conv2D")]
    description["nodes"].insert(0, {"name": description["nodes"][-1]["inputs"][1], "op": "VariableV2", "inputs": [],
                                    "attributes": {}})
    graph = read_graph(description)
    with pytest.raises(ValueError, match="strides"):
        execute(graph, {graph.nodes[0].name: np.ones([3, 3, 3, 3], np.float32)}, np.ones([1, 4, 4, 3], np.float32))


def test_bfloat16_is_used_for_features_alone(session, random):
    graph = read_graph(export_graph("tiny", "x2"))
    weights = load_random(session, random)
    x = random.rand(2, 8, 8, 3).astype(np.float32)

    @functools.partial(jax.jit, static_argnums=1)
    def output_and_gradients(weights, dtype):
        y, back = jax.vjp(lambda weights: execute(graph, weights, x, dtype), weights)
        return y, back(y)[0]

    expected, expected_gradients = output_and_gradients(weights, jax.numpy.float32)
    result, gradients = output_and_gradients(weights, jax.numpy.bfloat16)
    assert result.dtype == np.float32
    assert 1e-4 < np.linalg.norm(result - expected) / np.linalg.norm(expected) < 2e-2
    for name, gradient in gradients.items():
        assert gradient.dtype == np.float32
        error = np.linalg.norm(gradient - expected_gradients[name]) / np.linalg.norm(expected_gradients[name])
        assert error < 0.05, name


def test_export_starts_from_another_scale(tmp_path, run_tool, tf_graph, capsys):
    run_tool(export_graph_module, "--scale", "x3", "--init-from", "checkpoints/x2/32s", "--out", tmp_path)
    assert "132 variables taken from checkpoints/x2/32s/DRSAN32sx2\n" in capsys.readouterr().out
    reader = tf.train.NewCheckpointReader(checkpoint_prefix("checkpoints/x2/32s"))
    graph = load_graph(str(tmp_path / "32s_x3.json"))
    assert graph.init_from == "checkpoints/x2/32s"
    assert graph.trained_before == training_history(checkpoint_prefix("checkpoints/x2/32s")) and len(graph.trained_before) > 1
    with np.load(str(tmp_path / "32s_x3.npz")) as values:
        assert sorted(values) == sorted(reader.get_variable_to_shape_map())
        for name in values:
            assert (values[name].shape == reader.get_tensor(name).shape) == (not name.startswith("DRAN/conv2d_46/"))
            if not name.startswith("DRAN/conv2d_46/"):
                np.testing.assert_array_equal(values[name], reader.get_tensor(name))
