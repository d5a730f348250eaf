"""tools/: the exported graph in JAX against TensorFlow, training with it, tiles, and the way back to a checkpoint."""
import functools
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

jax = pytest.importorskip("jax", reason="the tools that train with JAX need it: pip install jax (Python 3.11 or later)")
jax.config.update("jax_disable_most_optimizations", True)  # most of the time goes into compiling

from conftest import ROOT, golden_weight
from model import MODELS, SCALES, Variant, count_multi_adds, model_variables
from ops import tf
from tools import ship
from tools.checkpoints import checkpoint_config, checkpoint_prefix, training_history
from tools.command import UserError
from tools.data import pack_tiles
from tools.files import write_npz
from tools.gpu import export_graph as export_graph_module
from tools.gpu import import_weights, measure_jax, train_jax
from tools.gpu.export_graph import describe_graph, export_graph
from tools.gpu.jax_graph import execute, load_graph, read_graph
from tools.paper import tables
from tools.training.graph import build_training
from tools.training.recipes import OPTIMIZERS, Recipe, learning_rate, make_recipe
from utils import downscale

ALL = [(model, scale) for model in MODELS for scale in SCALES]


@pytest.fixture(scope="module", autouse=True)
def tiny_model():
    """Within this file there is a model `tiny`, for what compiles a training step; it has every block of the others."""
    MODELS["tiny"] = Variant(16, 1, 2)
    yield
    del MODELS["tiny"]


NO_MODEL = dict(model=None, scale=None, factor=None, init_from=None, trained_before=[])  # of a graph that is not DRSAN's
RECIPE = Recipe(1e-3, "cosine", 5, 200, 4, 8, 1, 0.99, "adam", 3, 10)


def load_golden(session):
    weights = {v.op.name: golden_weight(v.op.name, v.shape.as_list()) for v in model_variables()}
    import_weights.load_variables(session, weights)
    return weights


def load_random(session, random):
    """Weights as at the start of a training, but biases and slopes that are not zero."""
    weights = {}
    for variable in model_variables():
        shape = variable.shape.as_list()
        limit = np.sqrt(6 / (np.prod(shape[:2]) * sum(shape[2:]))) if len(shape) == 4 else 0.1
        weights[variable.op.name] = random.uniform(-limit, limit, shape).astype(np.float32)
    import_weights.load_variables(session, weights)
    return weights


@pytest.fixture
def random():
    return np.random.RandomState(0)


@pytest.fixture
def tf_graph():
    with tf.Graph().as_default() as graph:
        yield graph


@pytest.fixture
def session(tf_graph):
    with tf.Session() as session:
        yield session


def textures(count, height, width):
    """uint8 RGB images that a network can learn to sharpen: waves of random direction and wavelength."""
    random, images = np.random.RandomState(1), []
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    for _ in range(count):
        a, b, phase = random.uniform(-0.6, 0.6), random.uniform(-0.6, 0.6), random.uniform(0, 6)
        images.append(np.round(127.5 + 100 * np.sin(a * y + b * x + phase + 0.3 * c)).astype(np.uint8))
    return images


# ----------------------------------------------------------------------------------------------------------- graph

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
        lambda weights: train_jax.l1_loss(graph, weights, lr, hr, np.float32)))(weights)
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


# ----------------------------------------------------------------------------------------------------------- tiles

def save_images(folder, images):
    os.makedirs(str(folder))
    for i, image in enumerate(images):
        Image.fromarray(image).save(os.path.join(str(folder), "%d.png" % i))
    return str(folder)


@pytest.fixture
def run_tool(monkeypatch):
    """Call main() of a tool in this process, with these arguments of its command."""
    def run(module, *args):
        monkeypatch.setattr(sys, "argv", [module.__name__ + ".py"] + [str(arg) for arg in args])
        module.main()
    return run


def test_packed_tiles_are_the_images(tmp_path, random, run_tool, capsys):
    images = [random.randint(256, size=(h, w, 3)).astype(np.uint8) for h, w in [(31, 24), (24, 36), (40, 40), (24, 24)]]
    source, parts = save_images(tmp_path / "source", images), str(tmp_path / "parts")
    run_tool(pack_tiles, source, parts, "--mebibytes", 0.025)
    lines = capsys.readouterr().out.splitlines()
    assert sorted(os.listdir(parts)) == ["part-%03d.tar" % i for i in range(len(lines))]
    assert len(os.listdir(parts)) > 1
    assert all(os.path.getsize(os.path.join(parts, part)) <= 0.025 * 2 ** 20 for part in os.listdir(parts))
    pairs = train_jax.load_pairs(parts, 3, 2)
    by_shape = {hr.shape: (lr, hr) for lr, hr in pairs}
    assert len(pairs) == 4
    for image in images:
        image = image[:image.shape[0] // 3 * 3, :image.shape[1] // 3 * 3]
        lr, hr = by_shape[image.shape]
        np.testing.assert_array_equal(hr, image)
        np.testing.assert_array_equal(lr, downscale(image, 3))


def test_packing_the_centre(tmp_path, random, run_tool):
    image = random.randint(256, size=(31, 20, 3)).astype(np.uint8)
    run_tool(pack_tiles, save_images(tmp_path / "in", [image]), tmp_path / "out", "--side", 24)
    (_, hr), = train_jax.load_pairs(str(tmp_path / "out"), 2, 1)
    np.testing.assert_array_equal(hr, image[3:27])


def test_damaged_parts_are_named(tmp_path):
    (tmp_path / "part-000.tar").write_bytes(b"x" * 1000)
    with pytest.raises(UserError, match="part-000.tar"):
        train_jax.load_pairs(str(tmp_path), 2, 1)
    with pytest.raises(UserError, match="no part-000.tar and no image in"):
        train_jax.load_pairs(str(tmp_path / "nowhere"), 2, 1)


@pytest.mark.parametrize("scale", [2, 3])
def test_batches_are_all_positions_and_turns(scale):
    """Tiles whose pixels say where they are: LR (tile, y, x), HR the same with the position within the LR pixel."""
    patch, pairs = 3, []
    for tile, (height, width) in enumerate([(5, 4), (3, 6), (2, 9)]):  # the last is too small
        lr = np.stack(np.broadcast_arrays(tile, *np.mgrid[:height, :width]), 2).astype(np.uint8)
        hr = np.stack(np.broadcast_arrays(tile, *np.mgrid[:scale * height, :scale * width]), 2).astype(np.uint8)
        pairs.append((lr, hr))
    tiles = train_jax.stack_tiles(pairs, patch)
    patches = train_jax.draw_patches(jax.random.key(0), tiles, 2000)
    lr, hr = [np.asarray(batch) for batch in train_jax.cut_patches(tiles, patches, patch, scale)]
    assert lr.dtype == hr.dtype == np.uint8
    assert lr.shape == (2000, 3, 3, 3) and hr.shape == (2000, 3 * scale, 3 * scale, 3)
    drawn = {}
    for lr_patch, hr_patch in zip(lr, hr):
        assert set(hr_patch[:, :, 0].ravel()) == set(lr_patch[:, :, 0].ravel()) == {lr_patch[0, 0, 0]}
        np.testing.assert_array_equal(hr_patch[scale // 2::scale, scale // 2::scale, 1:] // scale, lr_patch[:, :, 1:])
        tile, top, left = lr_patch.min((0, 1))
        down, right = lr_patch[2, 0] - lr_patch[0, 0], lr_patch[0, 2] - lr_patch[0, 0]
        assert lr_patch[:, :, 1].max() == top + 2 and lr_patch[:, :, 2].max() == left + 2
        np.testing.assert_array_equal(hr_patch.min((0, 1))[1:], [scale * top, scale * left])
        key = (tile, top, left) + tuple(down.astype(np.int8)[1:]) + tuple(right.astype(np.int8)[1:])
        drawn[key] = drawn.get(key, 0) + 1
    positions = {(0, y, x) for y in range(3) for x in range(2)} | {(1, 0, x) for x in range(4)}
    assert {key[:3] for key in drawn} == positions
    assert len({key[3:] for key in drawn}) == 8
    assert len(drawn) == 80 and max(drawn.values()) < 60  # 25 of each expected


def test_the_most_detailed_candidates_are_taken(random):
    pairs = [(downscale(hr, 2), hr) for hr in random.randint(256, size=(2, 30, 40, 3)).astype(np.uint8)]
    tiles = train_jax.stack_tiles(pairs, 5)
    key = jax.random.key(3)
    candidates = [np.asarray(values).reshape(6, 4) for values in train_jax.draw_patches(key, tiles, 24)]
    taken = np.array(train_jax.draw_detailed_patches(key, tiles, 6, 5, 4)).T
    for i in range(6):
        patches = [pairs[tile][0][y:y + 5, x:x + 5].astype(float) for tile, y, x, _ in zip(*[values[i] for values in candidates])]
        details = [np.abs(np.diff(one, axis=0)).mean() + np.abs(np.diff(one, axis=1)).mean() for one in patches]
        assert [values[i, np.argmax(details)] for values in candidates] == list(taken[i])


def test_tiles_that_are_all_too_small():
    with pytest.raises(UserError, match="no tile is as large as a patch of 9"):
        train_jax.stack_tiles([(np.zeros([8, 20, 3], np.uint8), np.zeros([16, 40, 3], np.uint8))], 9)


# -------------------------------------------------------------------------------------------------------- training

@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_three_steps_equal_tensorflow(session, optimizer):
    recipe = RECIPE._replace(optimizer=optimizer)
    graph = read_graph(export_graph("tiny", "x2"))
    tiles = train_jax.stack_tiles([(downscale(hr, 2), hr) for hr in textures(3, 40, 40)], RECIPE.patch)
    with tf.Graph().as_default(), tf.Session() as session:
        training = build_training("tiny", "x2", recipe)
        session.run(tf.global_variables_initializer())
        weights = load_golden(session)
        session.run([tf.assign(average, variable) for variable, average in zip(model_variables(), training.averages)])
        session.run(training.step.initializer, {training.step.initializer.inputs[1]: 5})
        state = dict(train_jax.new_state(weights, recipe, 7), Variable=np.int32(5))
        rates, expected_losses = np.array([learning_rate(RECIPE, i) for i in (5, 6, 7)], np.float32), []
        for i in (5, 6, 7):
            key = jax.random.fold_in(jax.random.wrap_key_data(state["random_key"]), i)
            patches = train_jax.draw_patches(key, tiles, RECIPE.batch)
            lr, hr = train_jax.cut_patches(tiles, patches, RECIPE.patch, 2)
            expected_losses.append(session.run([training.loss, training.train], {
                training.lr: np.asarray(lr), training.hr: np.asarray(hr), training.rate: rates[i - 5]})[0])
        expected = dict(zip([v.op.name for v in tf.global_variables()], session.run(tf.global_variables())))
    state, (losses, norms, skipped) = train_jax.run_steps(graph, recipe, "float32", state, tiles, rates)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    assert not np.any(skipped) and state.pop("skipped_in_a_row") == 0
    noted = expected.pop("gradient_norms")
    np.testing.assert_allclose(state.pop("gradient_norms"), noted, rtol=1e-4)
    np.testing.assert_allclose(norms, noted[-3:], rtol=1e-4)
    assert int(state["Variable"]) == expected.pop("Variable") == 8
    random_key = state.pop("random_key")
    np.testing.assert_array_equal(random_key, jax.random.key_data(jax.random.key(7)))
    average = [name for name in expected if name.endswith("/ExponentialMovingAverage")]
    assert len(average) == len(weights)
    assert set(expected) | {"Variable"} == set(state)
    for name in expected:
        scale = np.sum(rates) if name in weights or name in average else np.max(np.abs(expected[name]))
        assert np.max(np.abs(state[name] - expected[name])) <= 1e-3 * scale, name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_bad_step_changes_nothing_but_the_step(random, optimizer):
    """As in train.py; and after five in a row, nothing changes any more, so that the state is that of where training stops."""
    recipe = RECIPE._replace(optimizer=optimizer)
    weights = {"DRAN/conv2d/kernel": random.standard_normal((3, 3, 16, 16)).astype(np.float32)}
    good = {name: np.full_like(value, 0.01) for name, value in weights.items()}
    norm = float(np.sqrt(sum(np.sum(value ** 2) for value in good.values())))
    before, _, bad = train_jax.guarded_update(train_jax.new_state(weights, recipe, 0), good, 0.1, 1e-3, recipe)
    assert not bad and before["Variable"] == 1 and np.isinf(before["gradient_norms"][:-1]).all()
    np.testing.assert_allclose(before["gradient_norms"][-1], norm, rtol=1e-4)
    before["gradient_norms"] = np.float32([np.inf] * 50 + [norm] * 51)
    state = before
    for i, (factor, loss) in enumerate([(np.nan, 0.1), (1, np.inf), (1, 11), (10.1, 0.1)], 1):
        state, _, bad = train_jax.guarded_update(
            state, {name: factor * value for name, value in good.items()}, loss, 1e-3, recipe)
        assert bad and state["Variable"] == 1 + i and state["skipped_in_a_row"] == i
        for name in weights, before:
            for key in set(name) - {"Variable", "skipped_in_a_row", "gradient_norms"}:
                np.testing.assert_array_equal(state[key], before[key], key)
    np.testing.assert_allclose(state["gradient_norms"][-2:], [norm, 10.1 * norm], rtol=1e-4)  # finite ones are noted
    fifth, _, _ = train_jax.guarded_update(state, good, np.nan, 1e-3, recipe)
    frozen, _, _ = train_jax.guarded_update(fifth, good, 0.1, 1e-3, recipe)
    for name in frozen:
        np.testing.assert_array_equal(frozen[name], fifth[name], name)
    again, _, bad = train_jax.guarded_update(state, {name: 9.9 * value for name, value in good.items()}, 0.1, 1e-3, recipe)
    assert not bad and again["skipped_in_a_row"] == 0 and (again["DRAN/conv2d/kernel"] != weights["DRAN/conv2d/kernel"]).all()


def test_costs_are_those_of_the_convolutions(session, random):
    """Forward, by weights and by features: three times the multiplications, but no gradient of the LR image."""
    graph = read_graph(export_graph("48s", "x3"))
    weights = load_random(session, random)
    forward = 2 * 2 * count_multi_adds("48s", "x3", 3 * 8, 3 * 8)
    costs = {name: measure_jax.convolution_costs(graph, weights, name, 2, 8) for name in ("float32", "bfloat16")}
    assert costs["float32"][0] == 3 * forward - 2 * 2 * 8 * 8 * 3 * 3 * 3 * 48
    assert costs["float32"][0] == costs["bfloat16"][0]
    assert costs["float32"][1] == 2 * costs["bfloat16"][1] > 0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Paths of a tiny graph and of a folder of tiles."""
    folder = tmp_path_factory.mktemp("tiny")
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(3)
        description = export_graph("tiny", "x2")
        session.run(tf.global_variables_initializer())
        write_npz(str(folder / "tiny_x2.npz"), {v.op.name: session.run(v) for v in model_variables()})
    (folder / "tiny_x2.json").write_text(json.dumps(description))
    save_images(folder / "tiles", textures(6, 48, 40))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "cache")
    yield folder
    del os.environ["JAX_COMPILATION_CACHE_DIR"]


WITHOUT_TENSORFLOW = """import runpy, sys
sys.modules.update(tensorflow=None, skimage=None)  # their import fails
sys.argv = sys.argv[1:]
sys.path[0] = %r
runpy.run_path(sys.argv[0], run_name="__main__")""" % os.path.join(ROOT, "tools", "gpu")


def start(arguments):
    """train_jax.py as a process of its own, in which TensorFlow and scikit-image are missing."""
    return subprocess.Popen([sys.executable, "-c", WITHOUT_TENSORFLOW, os.path.join(ROOT, "tools", "gpu", "train_jax.py")]
                            + [str(argument) for argument in arguments],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)


def train(arguments):
    """What train_jax.py prints, in a process of its own."""
    process = start(arguments)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def options(tiny, run, **changes):
    values = dict(graph=tiny / "tiny_x2.json", data=tiny / "tiles", valid=tiny / "tiles", run=run, recipe="fast",
                  warmup=5, steps=200, batch=4, patch=8, dispatch=20, valid_every=100, save_minutes=0)
    values.update(changes)
    return [text for key, value in values.items() for text in ("--" + key.replace("_", "-"), value)]


def read_log(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tiny):
    """The folder of an uninterrupted run and what it printed."""
    return tiny / "run", train(options(tiny, tiny / "run"))


def test_training_lowers_the_loss(trained):
    run, out = trained
    log = read_log(run)
    assert [record["step"] for record in log] == list(range(20, 201, 20))
    losses = [record["loss"] for record in log]
    assert losses[-1] < 0.3 * losses[0]
    assert [record["step"] for record in log if "psnr" in record] == [100, 200]
    assert log[-1]["psnr"] > log[4]["psnr"] + 0.5
    assert set(log[0]) >= {"step", "loss", "rate", "images_per_second", "data_wait", "time"}
    assert "step     200/200  loss %.5f" % losses[-1] in out
    assert out.splitlines()[-1] == "done: %s" % (run / "state.npz")


def test_killed_and_resumed_equals_uninterrupted(tiny, trained):
    run, arguments = tiny / "killed", options(tiny, tiny / "killed")
    process = start(arguments)
    for line in process.stdout:
        if line.startswith("step      40/200"):
            process.kill()
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    with open(str(run / "log.jsonl"), "a") as file:  # of steps that the state has not, the last line torn
        file.write('{"psnr": 99.0, "step": 1000}\n{"loss": 0.1, "st')
    out = train(arguments)
    assert out.startswith("resumed at step ") and int(out.split()[3].rstrip(",")) in range(20, 200, 20)
    assert "best validation PSNR 99" not in out
    measured = [[{key: record.get(key) for key in ("step", "loss", "psnr")} for record in read_log(folder)]
                for folder in (run, trained[0])]
    assert measured[0] == measured[1]
    state, config, _ = train_jax.load_state(str(run / "state.npz"))
    expected, expected_config, _ = train_jax.load_state(str(trained[0] / "state.npz"))
    assert config == expected_config and set(state) == set(expected)
    for name in expected:
        np.testing.assert_array_equal(state[name], expected[name], name)


def test_measuring(tiny, run_tool, capsys):
    run_tool(measure_jax, "--graph", tiny / "tiny_x2.json", "--precision", "float32", "--batch", 2, "--patch", 8,
             "--dispatch", 2, "--copy", 1, "--product", 64)
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row[:3] == ["tinyx2", "float32", "2"] and len(row) == 8
    assert float(row[5]) == pytest.approx(2 * float(row[4]), rel=1e-3)


def test_no_time_left_saves_the_state(tiny, tmp_path, run_tool, capsys, monkeypatch):
    monkeypatch.setattr(train_jax.signal, "signal", lambda number, handler: None)
    run_tool(train_jax, *(options(tiny, tmp_path / "run") + ["--minutes", 0]))
    assert capsys.readouterr().out.splitlines()[-1] == "stopped at step 0; the same command resumes"
    state, config, trained = train_jax.load_state(str(tmp_path / "run" / "state.npz"))
    with np.load(str(tiny / "tiny_x2.npz")) as weights:
        for name in weights:
            np.testing.assert_array_equal(state[name], weights[name])
    assert state["Variable"] == 0 and config["model"] == "tiny" and config["steps"] == 200 and trained["trained_seconds"] == 0


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    path = str(tmp_path / "state.npz")
    state = {"Variable": np.int32(1), "DRAN/a": np.float32([1, 2])}
    train_jax.save_state(path, state, {}, {})
    with pytest.raises(UserError, match="weights are not finite at step 2: lower --rate, in another --run; .*npz keeps the last"):
        train_jax.save_state(path, {"Variable": np.int32(2), "DRAN/a": np.float32([1, np.nan])}, {}, {})
    np.testing.assert_array_equal(train_jax.load_state(path)[0]["DRAN/a"], [1, 2])


def test_a_training_that_diverges_goes_on_from_its_last_good_weights(tiny, tmp_path, run_tool, monkeypatch, capsys):
    monkeypatch.setattr(train_jax.signal, "signal", lambda number, handler: None)
    arguments = options(tiny, tmp_path / "run", steps=60)
    run_tool(train_jax, *arguments + ["--minutes", 0])
    kept = train_jax.load_state(str(tmp_path / "run" / "state.npz"))[0]
    guarded = train_jax.guarded_update
    monkeypatch.setattr(train_jax, "guarded_update", lambda state, gradients, loss, rate, recipe: guarded(
        state, gradients, train_jax.jnp.where(state["Variable"] >= 24, np.nan, loss), rate, recipe))
    train_jax.run_steps.clear_cache()
    with pytest.raises(UserError, match="diverges at step 29, with a loss of .* the same command goes on with other patches"):
        run_tool(train_jax, *arguments)
    train_jax.run_steps.clear_cache()
    state = train_jax.load_state(str(tmp_path / "run" / "state.npz"))[0]
    assert state["Variable"] == 29 and set(state) == set(kept)
    assert any((state[name] != kept[name]).any() for name in train_jax.weight_names(kept))  # saved at step 20
    monkeypatch.setattr(train_jax, "guarded_update", guarded)
    run_tool(train_jax, *arguments)
    out = capsys.readouterr().out
    assert "resumed at step 29, " in out and out.splitlines()[-1].startswith("done: ")


def test_damaged_files_are_named(tiny, trained, tmp_path):
    for source, name, read in [(trained[0], "state.npz", train_jax.load_state), (tiny, "tiny_x2.npz", train_jax.read_weights)]:
        content = (source / name).read_bytes()
        for damaged in content[:1000], b"", content[:-2000]:
            (tmp_path / name).write_bytes(damaged)
            with pytest.raises(UserError, match="cannot read the .*%s: " % name):
                read(str(tmp_path / name))


@pytest.mark.parametrize("option", ["dispatch", "valid_every", "workers", "save_minutes", "minutes"])
def test_counts_and_times_are_checked(tiny, tmp_path, run_tool, capsys, option):
    with pytest.raises(SystemExit):
        run_tool(train_jax, *options(tiny, tmp_path, **{option: -1 if "minutes" in option else 0}))
    assert "argument --%s: invalid" % option.replace("_", "-") in capsys.readouterr().err


def test_other_options_do_not_resume(tiny, trained, run_tool):
    with pytest.raises(UserError, match="state.npz was started with batch = 4, not 5: give the same options, or"):
        run_tool(train_jax, *options(tiny, trained[0], batch=5))


def test_training_names_an_unknown_operation(tiny, tmp_path, run_tool):
    graph = json.loads((tiny / "tiny_x2.json").read_text())
    graph["nodes"][-1]["op"] = "Softplus"
    (tmp_path / "unknown.json").write_text(json.dumps(graph))
    with pytest.raises(UserError, match="cannot use the graph .*unknown.json: no JAX function .* Softplus"):
        run_tool(train_jax, *options(tiny, tmp_path / "run", graph=tmp_path / "unknown.json"))


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


def test_imported_weights_are_the_averages(trained, tmp_path, run_tool, tf_graph, capsys):
    run_tool(import_weights, trained[0] / "state.npz", tmp_path / "out")
    assert "tiny x2 after 200 steps" in capsys.readouterr().out
    reader = tf.train.NewCheckpointReader(checkpoint_prefix(str(tmp_path / "out")))
    state, _, _ = train_jax.load_state(str(trained[0] / "state.npz"))
    names = train_jax.weight_names(state)
    assert set(reader.get_variable_to_shape_map()) == set(names)
    for name in names:
        np.testing.assert_array_equal(reader.get_tensor(name), state[name + "/ExponentialMovingAverage"])
        assert not np.array_equal(reader.get_tensor(name), state[name])


def test_imported_weights_are_shipped_with_their_history(trained, tiny, tmp_path, run_tool, tf_graph):
    run_tool(import_weights, trained[0] / "state.npz", tmp_path / "out")
    with tf.Graph().as_default():
        prefix = ship.ship(str(tmp_path / "out"), str(tmp_path / "root"))
    assert prefix == str(tmp_path / "root" / "x2" / "tiny" / "DRSANtinyx2")
    assert (tmp_path / "root" / "x2" / "tiny" / "log.jsonl").read_bytes() == (trained[0] / "log.jsonl").read_bytes()
    config = checkpoint_config(prefix)
    expected = dict(make_recipe("fast", "tiny", "x2")._replace(warmup=5, steps=200, batch=4, patch=8)._asdict(),
                    recipe="fast", model="tiny", scale="x2", seed=0, precision="float32", init_from=None, trained_before=[],
                    trained_steps=200, framework="JAX %s" % jax.__version__, device="cpu",
                    data={"folder": str(tiny / "tiles"), "files": 6})
    assert {key: config[key] for key in config if key not in ("sha256", "trained_seconds")} == expected
    seconds = [record["time"] for record in read_log(trained[0])]
    assert 0 <= config["trained_seconds"] <= seconds[-1] - seconds[0] + 60
    assert "| x2/tiny | fast: muon, rate 0.001, cosine, batch 4, patch 8, best of 3, EMA 0.999, float32, decay 1 | - | 200 of 200 |" in (
        tables.to_checkpoints([], {("x2", "tiny"): prefix}))


def test_unequal_outputs_are_not_imported(trained, tmp_path, run_tool, monkeypatch, tf_graph):
    upscale = import_weights.upscale
    monkeypatch.setattr(import_weights, "upscale", lambda *args: upscale(*args) + 0.01)
    with pytest.raises(UserError, match="differ by"):
        run_tool(import_weights, trained[0] / "state.npz", tmp_path / "out")
    assert not (tmp_path / "out").exists()
