"""tools/gpu/blocks.py: DRSAN in JAX is that of the published graphs, in every precision."""
import os

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="the tools that train with JAX need it: pip install jax")

from conftest import GOLDEN, golden_contract, golden_image, golden_weight
from model import drsan, model_variables
from ops import tf
from tools.compute import convolving_in
from tools.checkpoints import load_values
from tools.gpu.blocks import apply_drsan, variable_shapes
from tools.runtime import why_no_bfloat16


@pytest.fixture(scope="module", autouse=True)
def unoptimized():
    """Most of the time goes into compiling."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def golden_weights(model, scale):
    return {name: golden_weight(name, shape) for name, shape in variable_shapes(model, scale).items()}


@pytest.mark.parametrize("name", ["32s_x2", "48s_x3", "32m_x4", "32l_x2"])
def test_equals_published_graph(name):
    model, scale = name.split("_")
    shapes = variable_shapes(model, scale)
    assert [[variable, list(shape)] for variable, shape in shapes.items()] == golden_contract(name)
    golden = np.load(os.path.join(GOLDEN, name + ".npz"))
    for key, image in ("y_9x7", golden_image(9, 7)), ("y_16x16", golden_image(16, 16)):
        result = apply_drsan(golden_weights(model, scale), image, model, scale)
        np.testing.assert_allclose(result, golden[key], rtol=0, atol=1e-5)


@pytest.mark.skipif(bool(why_no_bfloat16()), reason="TensorFlow cannot convolve in bfloat16")
def test_bfloat16_is_as_close_as_that_of_tensorflow(small_network):
    """Both round the same; the order of the sums differs."""
    weights, image = golden_weights("32s", "x4"), golden_image(9, 7)
    lr = tf.placeholder(tf.float32, [None, None, None, 3])
    with convolving_in("bfloat16"):
        sr = drsan(lr, "32s", "x4")
    with tf.Session() as session:
        load_values(session, model_variables(), [weights[variable.op.name] for variable in model_variables()])
        expected = session.run(sr, {lr: image})
    result = apply_drsan(weights, image, "32s", "x4", jax.numpy.bfloat16)
    exact = apply_drsan(weights, image, "32s", "x4")
    assert result.dtype == np.float32
    assert 1e-4 < np.sqrt(np.mean((result - exact) ** 2)) < 1.5 * np.sqrt(np.mean((expected - exact) ** 2))
