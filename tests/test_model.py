"""The network: equal to the published graphs in variables, outputs and size."""
import csv
import os

from conftest import GOLDEN, ROOT, golden_contract, golden_image, golden_weight
from model import MODELS, SCALES, count_multi_adds, count_parameters, drsan, model_variables
from ops import tf
from tools.checkpoints import load_values
from tools.paper.results import costs
from tools.training.recipes import initial_weights

import numpy as np
import pytest

PARAMETERS = {  # x2, x3, x4
    "32s": (368427, 414667, 405419),
    "32m": (688851, 735091, 725843),
    "32l": (849063, 895303, 886055),
    "48s": (647195, 751115, 730331),
    "48m": (1187827, 1291747, 1270963),
}


def build_golden(model, scale):
    lr = tf.placeholder(tf.float32, [None, None, None, 3])
    sr = drsan(lr, model, scale)
    session = tf.Session()
    variables = model_variables()
    load_values(session, variables, [
        golden_weight(variable.op.name, variable.shape.as_list()) for variable in variables])
    return lr, sr, session


@pytest.mark.parametrize("name", ["32s_x2", "48s_x3", "32m_x4", "32l_x2"])
def test_equals_published_graph(name):
    lr, sr, session = build_golden(*name.split("_"))
    variables = [[variable.op.name, variable.shape.as_list()] for variable in model_variables()]
    assert variables == golden_contract(name)
    golden = np.load(os.path.join(GOLDEN, name + ".npz"))
    for key, image in ("y_9x7", golden_image(9, 7)), ("y_16x16", golden_image(16, 16)):
        np.testing.assert_allclose(session.run(sr, {lr: image}), golden[key], rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", list(MODELS))
def test_parameters(model):
    assert [costs(model, scale)[0] for scale in SCALES] == list(PARAMETERS[model])


def test_multi_adds_within_one_percent_of_the_paper():
    with open(os.path.join(ROOT, "figures", "paper_table.csv")) as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 13
    for row in rows:
        assert costs(row["model"], row["scale"])[1] == pytest.approx(float(row["multi_adds_G"]), rel=0.01)


@pytest.mark.parametrize("model, scale", [("48s", "x2"), ("32s", "x3"), ("48m", "x4")])
def test_multi_adds_counted_a_second_time(model, scale):
    """In a graph whose convolutions know their sizes."""
    with tf.Graph().as_default() as counted:
        drsan(tf.placeholder(tf.float32, [1, 8, 8, 3]), model, scale)
    count = sum(op.inputs[1].shape.num_elements() * op.outputs[0].shape[1:3].num_elements()
                for op in counted.get_operations() if op.type == "Conv2D")
    expected = count * 720 * 1280 / (8 * SCALES[scale]) ** 2
    assert 1e9 * costs(model, scale)[1] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("without, parameters, expected", [
    (None, 368427, 84.90), ("dra", 365571, 84.28), ("dynamics", 365611, 84.28), ("rsa", 368427, 84.90)])
def test_costs_of_ablations(without, parameters, expected):
    drsan(tf.placeholder(tf.float32, [1, None, None, 3]), "32s", "x2", without)
    assert count_parameters() == parameters
    assert count_multi_adds("x2", 720, 1280) / 1e9 == pytest.approx(expected, abs=0.005)
    assert count_multi_adds("x2", 360, 640) == count_multi_adds("x2", 720, 1280) / 4


def numpy_drsan(weights, image, model, scale, without=None):
    """DRSAN written a second time, in float64 NumPy and from the paper's equations; returns SR and the r of
    each DRAG.

    without: r is 1 (dra), the next weights (dynamics), or the sigmoid is left out (rsa).
    """
    channels, drags, blocks = MODELS[model]
    weights = iter(weights)  # values in order of creation

    def conv(x, slope=None):
        if slope is not None:
            x = np.maximum(x, 0) + slope * np.minimum(x, 0)
        kernel, bias = next(weights), next(weights)
        size = len(kernel)
        x = np.pad(x, [(0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0)], "constant")
        height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
        return bias + sum(x[:, i:i + height, j:j + width].dot(kernel[i, j])
                          for i in range(size) for j in range(size))

    def shuffle(x, s):
        n, height, width, depth = x.shape
        x = x.reshape(n, height, width, s, s, depth // s ** 2).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(n, height * s, width * s, depth // s ** 2)

    x0 = x = conv(image)
    dra = []
    for _ in range(drags):
        if without == "dra":
            r = np.ones((len(x), blocks * (blocks + 1) // 2))
        elif without == "dynamics":
            r = np.repeat(next(weights).reshape(1, -1), len(x), axis=0)
        else:
            hidden = conv(x)
            r = conv(hidden, next(weights)).mean(axis=(1, 2))
        dra.append(r)
        f, path = [x], 0
        for n in range(1, blocks + 1):
            y = conv(f[-1], next(weights))
            y = conv(y, next(weights))
            total = y
            for i in range(n):
                total = total + r[:, path].reshape(-1, 1, 1, 1) * f[i]
                path += 1
            f.append(total if without == "rsa" else total / (1 + np.exp(-y)))
        x = conv(np.concatenate(f, axis=3))
    x = conv(x) + x0
    for s in {"x2": [2], "x3": [3], "x4": [2, 2]}[scale]:
        x = shuffle(conv(x), s)
    return conv(x), dra


@pytest.mark.parametrize("model, scale, without, gain", [
    ("32s", "x4", None, 1.5), ("48s", "x3", None, 1.5), ("48s", "x2", "dra", 0.5),
    ("48s", "x2", "dynamics", 0.5), ("48s", "x2", "rsa", 0.5)])
def test_equals_numpy_at_random_weights(model, scale, without, gain):
    """Unlike the golden weights, these make the output depend on every r, which is replaced by name."""
    lr = tf.placeholder(tf.float32, [None, None, None, 3])
    sr = drsan(lr, model, scale, without)
    assert None not in tf.gradients(sr, model_variables())
    random = np.random.RandomState(1)
    weights = [random.randn(*variable.shape.as_list()) * (
        np.sqrt(gain / np.prod(variable.shape.as_list()[:-1])) if len(variable.shape) == 4 else 0.3)
        for variable in model_variables()]
    images = random.rand(2, 7, 6, 3)
    expected, expected_dra = numpy_drsan(weights, images, model, scale, without)
    with tf.Session() as session:
        load_values(session, model_variables(), weights)
        result = session.run(sr, {lr: images})
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
        if not without:
            names = ["DRAN/DRAG%d/DRA:0" % k for k in range(1, MODELS[model].drags + 1)]
            dra = session.run(names, {lr: images})
            for ours, theirs in zip(dra, expected_dra):
                np.testing.assert_allclose(ours[:, 0, 0], theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())
            replaced = session.run(sr, {lr: images, names[0]: dra[0] + 0.1})
            assert np.abs(replaced - result).max() > 0.01 * np.abs(expected).max()
    assert np.std(expected) > 0.01


def test_initial_values_are_the_published_ones():
    """Of TensorFlow's initializers, and of those for any framework."""
    drsan(tf.placeholder(tf.float32, [None, None, None, 3]), "32s", "x2")
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        own = {variable.op.name: session.run(variable) for variable in model_variables()}
    for values in own, initial_weights({name: value.shape for name, value in own.items()}, seed=3):
        assert list(values) == list(own)
        for value in values.values():
            if value.ndim == 1:
                assert not value.any()  # biases and slopes
            else:
                limit = np.sqrt(6 / (np.prod(value.shape[:2]) * sum(value.shape[2:])))  # Glorot-uniform
                # Rounding may leave a value drawn at the limit one float32 above it.
                assert 0.9 * limit < np.abs(value).max() <= np.nextafter(np.float32(limit), np.float32(1))
                assert value.dtype == np.float32
                # five times the standard deviation of that of so many uniform values
                np.testing.assert_allclose(value.std(), limit / 3 ** 0.5, rtol=5 * (0.2 / value.size) ** 0.5)
