"""The training graph: optimisers, averages, steps that are skipped, devices and precision."""
from model import ABLATIONS, MODELS, Variant, dra_values, drsan, model_variables
from ops import conv2d, tf
from tools import runtime, compute
from tools.training import recipes
from tools.training.graph import build_training
from tools.training.recipes import make_recipe

import numpy as np
import pytest

ADAM = make_recipe("paper", "32s", "x2")
MUON = make_recipe("fast", "32s", "x2")._replace(ema=0, decay=3)
bfloat16 = pytest.mark.skipif(bool(runtime.why_no_bfloat16()), reason="needs convolutions in bfloat16")


def random_batch(training, random, rate=1e-3, images=2, side=8, scale=2):
    """What is fed to a step on random patches."""
    lr, hr = ([images, factor * side, factor * side, 3] for factor in (1, scale))
    return {training.lr: random.randint(0, 256, lr), training.hr: random.randint(0, 256, hr),
            training.rate: rate}


def test_towers_have_the_gradient_of_the_whole_batch(small_network):
    results = []
    for devices in [("",), ("/cpu:0", "/cpu:1")]:
        tf.reset_default_graph()
        tf.set_random_seed(1)
        training = build_training("32s", "x2", ADAM, devices)
        gradients = tf.gradients(training.loss, model_variables())
        with tf.Session(config=tf.ConfigProto(device_count={"CPU": 2})) as session:
            for i, variable in enumerate(model_variables()):
                variable.load(np.random.RandomState(i).randn(*variable.shape.as_list()) * 0.03, session)
            feed = random_batch(training, np.random.RandomState(0), images=4)
            results.append(session.run([training.loss] + gradients, feed))
            assert session.run(training.sr, {training.lr: feed[training.lr][:1]}).shape == (1, 16, 16, 3)
    for whole, split in zip(*results):
        np.testing.assert_allclose(split, whole, rtol=1e-5, atol=1e-6)  # sums in another order


def test_training_checkpoint_has_the_published_names():
    build_training("32s", "x2", ADAM)
    names = {variable.op.name: variable.dtype.base_dtype for variable in tf.global_variables()}
    contract = {variable.op.name for variable in model_variables()}
    expected = {name + suffix for name in contract for suffix in ("", "/AdamOptimizer", "/AdamOptimizer_1")}
    assert set(names) == expected | {"Variable", "beta1_power", "beta2_power"}
    assert names["Variable"] == tf.int32


def test_three_steps_equal_numpy_adam_and_ema(small_network):
    training = build_training("32s", "x2", ADAM._replace(ema=0.9))
    variables = model_variables()
    gradients = tf.gradients(training.loss, variables)
    random = np.random.RandomState(0)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        weights = average = [np.float64(value) for value in session.run(variables)]
        m = v = [np.zeros(value.shape) for value in weights]
        for t in range(1, 4):
            rate = 1e-3 / t
            feed = random_batch(training, random, rate)
            g = [np.float64(value) for value in session.run(gradients, feed)]
            loss, sr = session.run([training.loss, training.sr], feed)
            assert loss == pytest.approx(np.abs(sr - feed[training.hr] / 255.0).mean(), rel=1e-5)
            session.run(training.train, feed)
            m = [0.9 * a + 0.1 * b for a, b in zip(m, g)]
            v = [0.999 * a + 0.001 * b ** 2 for a, b in zip(v, g)]
            alpha = rate * np.sqrt(1 - 0.999 ** t) / (1 - 0.9 ** t)
            weights = [w - alpha * a / (np.sqrt(b) + 1e-8) for w, a, b in zip(weights, m, v)]
            decay = min(0.9, (1.0 + t) / (10.0 + t))
            average = [decay * a + (1 - decay) * w for a, w in zip(average, weights)]
        assert session.run(training.step) == 3
        for ours, expected in zip(session.run(variables), weights):
            np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6)
        for ours, expected in zip(session.run(training.averages), average):
            np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6)


def muon_directions(x):
    """The update of Muon for a learning rate of 1: x [kh, kw, in, out] with the singular values s of its
    matrix, divided by their norm, replaced by p(p(p(p(p(s))))), and scaled. In float64, by SVD where train.py
    multiplies matrices."""
    u, s, v = np.linalg.svd(x.reshape(-1, x.shape[3]), full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s ** 3 + 2.0315 * s ** 5
    return (0.8 * np.sqrt(max(u.shape[0], v.shape[1])) * (u * s).dot(v)).reshape(x.shape)


@pytest.mark.parametrize("devices", [("",), ("/cpu:0", "/cpu:0")])
def test_three_muon_steps_against_singular_value_decomposition(monkeypatch, devices):
    monkeypatch.setitem(MODELS, "32s", Variant(channels=16, drags=1, blocks=2))
    training = build_training("32s", "x3", MUON, devices)
    variables = model_variables()
    names = [variable.op.name for variable in tf.global_variables()]
    by_muon = [recipes.uses_muon(variable.shape.as_list()) for variable in variables]
    # of the DRM's two the first, four of the RBs, the closing one, that before the skip, the upsampler's
    assert sum(by_muon) == 8
    for variable, muon in zip(variables, by_muon):
        slots = [variable.op.name + slot in names for slot in ("/Muon", "/AdamOptimizer", "/AdamOptimizer_1")]
        assert slots == [muon, not muon, not muon]
    gradients = tf.gradients(training.loss, variables)
    random, rate = np.random.RandomState(3), 1e-3
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        kernels = [np.float64(value) for value, muon in zip(session.run(variables), by_muon) if muon]
        momenta = [np.zeros_like(kernel) for kernel in kernels]
        for _ in range(3):
            feed = random_batch(training, random, rate, side=6, scale=3)
            g = [np.float64(value) for value, muon in zip(session.run(gradients, feed), by_muon) if muon]
            session.run(training.train, feed)
            momenta = [0.95 * a + 0.05 * b for a, b in zip(momenta, g)]
            kernels = [kernel - rate * (muon_directions(0.95 * a + 0.05 * b) + MUON.decay * kernel)
                       for kernel, a, b in zip(kernels, momenta, g)]
        assert session.run(training.step) == 3
        updated = [value for value, muon in zip(session.run(variables), by_muon) if muon]
        for ours, expected in zip(updated, kernels):
            np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


def run_steps(session, training, random, count, dra=None):
    """Train `count` steps on random patches, with these DRA values if any; returns whether the last one was
    skipped."""
    for _ in range(count):
        feed = dict(random_batch(training, random), **({} if dra is None else {"DRAN/DRAG1/DRA:0": dra}))
        skipped = session.run([training.train, training.skipped], feed)[1]
    return skipped


@pytest.mark.parametrize("recipe", [
    ADAM._replace(ema=0.9, skip_above=10), MUON._replace(ema=0.9, skip_above=0)])
def test_a_bad_step_changes_nothing_but_the_step(monkeypatch, recipe):
    monkeypatch.setitem(MODELS, "32s", Variant(channels=16, drags=1, blocks=1))
    training = build_training("32s", "x2", recipe)
    random = np.random.RandomState(0)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        assert not run_steps(session, training, random, 3)
        before = session.run(tf.global_variables())
        for value in np.nan, np.inf, 1e8:  # the last one: finite, but a loss far above that of any image
            assert run_steps(session, training, random, 1, np.full([2, 1, 1, 1], value))
        assert session.run(training.step) == 6
        for variable, old, new in zip(tf.global_variables(), before, session.run(tf.global_variables())):
            if variable.op.name not in ("Variable", "gradient_norms"):  # a finite norm is noted
                np.testing.assert_array_equal(new, old, variable.op.name)
        assert not run_steps(session, training, random, 1)
        assert any((old != new).any() for old, new in zip(before, session.run(tf.global_variables())))


def test_gradient_norm_against_its_running_median(small_network):
    """The limit is that of the last 101 norms, and waits for 51 of them."""
    training = build_training("32s", "x2", ADAM._replace(skip_above=2))
    gradients, random = tf.gradients(training.loss, model_variables()), np.random.RandomState(0)
    window = next(variable for variable in tf.global_variables() if variable.op.name == "gradient_norms")
    batch = random_batch(training, random, rate=0, images=1)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        expected = np.sqrt(sum(np.sum(np.float64(value) ** 2) for value in session.run(gradients, batch)))
        norm = session.run([training.train, training.norm], batch)[1]
        assert norm == pytest.approx(expected, rel=1e-5)

        def is_skipped(noted):
            """Whether the same step is skipped after these norms, the last ones noted."""
            values = np.float32([np.inf] * (101 - len(noted)) + noted)
            window.load(values, session)
            skipped = session.run([training.train, training.skipped], batch)[1]
            np.testing.assert_allclose(session.run(window), np.append(values[1:], norm), rtol=1e-6)
            return skipped

        assert not is_skipped([norm / 3] * 50)
        assert is_skipped([norm / 3] * 51)
        assert not is_skipped([norm / 3] * 50 + [norm] * 51)
        assert is_skipped([norm / 3] * 51 + [norm] * 50)
        assert not is_skipped([norm / 1.9] * 101)


def test_what_is_logged_of_a_step(small_network):
    """The largest |DRA| of the batch, and the root mean square of all kernels together."""
    training = build_training("32s", "x2", ADAM, ("", ""))
    dra = dra_values()[:2]
    feed = random_batch(training, np.random.RandomState(0))
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        values, largest, rms = session.run([dra, training.largest_dra, training.kernel_rms], feed)
        assert largest == np.abs(values).max() > 0
        kernels = [value.ravel() for value in session.run(model_variables()) if value.ndim == 4]
        assert rms == pytest.approx(np.sqrt(np.mean(np.concatenate(kernels) ** 2)), rel=1e-5)


@bfloat16
def test_the_gradient_of_a_bias_in_bfloat16_is_exact():
    """A sum in bfloat16 of so many ones would end at 256."""
    with tf.Graph().as_default(), tf.Session() as session:
        y = conv2d(tf.ones([4, 48, 48, 16], tf.bfloat16), 8, 3)
        gradient, = tf.gradients(tf.reduce_sum(tf.cast(y, tf.float32)), tf.trainable_variables()[1])
        session.run(tf.global_variables_initializer())
        np.testing.assert_array_equal(session.run(gradient), 4 * 48 * 48 * np.ones(8))


@bfloat16
def test_a_convolution_in_bfloat16_rounds_what_it_takes_and_gives():
    """1 + 2^-10 is rounded to 1 in the input, the kernel, the bias and the gradient of the output, and sums
    of up to 256 ones are exact. Variables and their gradients are float32."""
    near_one = 1 + 2.0 ** -10
    source = tf.fill([1, 4, 5, 2], near_one)
    with compute.convolving_in("bfloat16"):
        y = compute.to_float32(conv2d(compute.to_compute_dtype(source), 3, 3))
    assert compute.to_compute_dtype(source).dtype == tf.float32  # outside of the context
    kernel, bias = tf.trainable_variables()
    gradients = tf.gradients(y, [source, kernel, bias], tf.fill([1, 4, 5, 3], near_one))
    assert {tensor.dtype.base_dtype for tensor in [y, kernel, bias] + gradients} == {tf.float32}
    with tf.Session() as session:
        kernel.load(np.full([3, 3, 2, 3], near_one), session)
        bias.load(np.full([3], near_one), session)
        y, to_source, to_kernel, to_bias = session.run([y] + gradients)
    across, down = np.array([2, 3, 3, 3, 2]), np.array([2, 3, 3, 2])  # positions of the kernel
    inside = np.outer([3, 4, 3], [4, 5, 4])  # positions of the image under each value of the kernel
    for value, expected in ((y, 2 * np.outer(down, across)[:, :, None] + 1), (
            to_source, 3 * np.outer(down, across)[:, :, None]), (to_kernel, inside[:, :, None, None]), (
            to_bias, 20)):
        np.testing.assert_array_equal(value, np.broadcast_to(expected, value.shape))


@bfloat16
@pytest.mark.parametrize("compiled", [False, True])
def test_bfloat16_training_is_near_that_in_float32_and_validates_in_float32(small_network, compiled):
    results, sr = [], []
    for precision in "float32", "bfloat16":
        tf.reset_default_graph()
        training = build_training("32s", "x2", ADAM, ("", ""), precision=precision, compiled=compiled)
        gradients = tf.gradients(training.loss, model_variables())
        with tf.Session() as session:
            for i, variable in enumerate(model_variables()):
                variable.load(np.random.RandomState(i).randn(*variable.shape.as_list()) * 0.05, session)
            feed = random_batch(training, np.random.RandomState(0), images=4, side=12)
            results.append(session.run([training.loss] + gradients, feed))
            sr.append(session.run(training.sr, feed))
    np.testing.assert_array_equal(*sr)
    for gradients in results:
        gradients.append(np.concatenate([gradient.ravel() for gradient in gradients[1:]]))  # all as one
    norms = [np.linalg.norm(wide) for wide in results[0]]
    errors = [np.linalg.norm(narrow - wide) / norm for wide, narrow, norm in zip(*(results + [norms]))]
    of_kernels = [error for error, variable in zip(errors[1:], model_variables()) if len(variable.shape) == 4]
    assert errors[0] < 1e-3 and min(of_kernels) > 1e-4, errors
    # Some processors round sums of n products, too: by about sqrt(n) 2^-9, 0.02 for the 72 of a kernel of 8
    # channels. A gradient goes through at most ten such sums there and back. Those of the DRMs are too small
    # to be held to that.
    assert errors[-1] < 20 ** 0.5 * 0.02, errors
    large = [error for error, norm in zip(errors, norms) if norm > 1e-3 * norms[-1]]
    assert max(large) < 2 * 20 ** 0.5 * 0.02, errors


@pytest.mark.skipif(not compute.can_compile(), reason="this TensorFlow has no XLA")
@pytest.mark.parametrize("without", (None,) + ABLATIONS)
def test_compiled_operations_have_the_gradients_of_the_plain_ones(small_network, without):
    """Those of DRSA and PReLU, and of what they broadcast: DRA values of each image, learned ones, constants,
    and slopes."""
    results = []
    for compiled in False, True:
        with tf.Graph().as_default(), tf.Session() as session:
            lr, random = tf.placeholder(tf.float32, [None, None, None, 3]), np.random.RandomState(0)
            with compute.convolving_in("float32", compiled):
                sr = drsan(lr, "32s", "x2", without)
            gradients = tf.gradients(tf.reduce_mean(tf.abs(sr - 0.3)), model_variables())
            for variable in model_variables():
                shape = variable.shape.as_list()
                gain = np.sqrt(1.2 / np.prod(shape[:-1])) if "kernel" in variable.name else 0.2
                variable.load(gain * random.randn(*shape), session)
            results.append(session.run([sr] + gradients, {lr: random.rand(2, 12, 9, 3)}))
    for plain, by_xla in zip(*results):
        np.testing.assert_allclose(by_xla, plain, rtol=0, atol=1e-5 * np.abs(plain).max())
        assert np.abs(plain).max() > 1e-4
