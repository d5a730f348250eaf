"""tools/gpu/: steps, runs that are killed and resumed, and the way to a checkpoint and back."""
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

jax = pytest.importorskip("jax", reason="the tools that train with JAX need it: pip install jax")

from conftest import ROOT, call, golden_weight, read_log
from model import model_variables
from ops import tf
from tools.checkpoints import checkpoint_config, checkpoint_prefix, load_values, training_history
from tools.command import UserError
from tools.data import photographs
from tools.data.patches import Sampler
from tools.gpu import convert, train_jax
from tools.gpu.blocks import variable_shapes
from tools.gpu.step import Setup, guarded_update, new_state, run_steps
from tools.training.graph import build_training
from tools.training.recipes import OPTIMIZERS, learning_rate, make_recipe
from tools.training.run import Divergence
import test as evaluation
from utils import downscale

pytestmark = pytest.mark.usefixtures("tiny_model")
RECIPE = make_recipe("fast", "32s", "x2")._replace(
    warmup=5, steps=200, batch=4, patch=8, candidates=1, ema=0.99, optimizer="adam", decay=3)


def textures(count, height, width):
    """uint8 RGB images that a network can learn to sharpen: waves of random direction and wavelength."""
    random, images = np.random.RandomState(1), []
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    for _ in range(count):
        a, b, phase = random.uniform(-0.6, 0.6), random.uniform(-0.6, 0.6), random.uniform(0, 6)
        images.append(np.uint8(np.round(127.5 + 100 * np.sin(a * y + b * x + phase + 0.3 * c))))
    return images


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_three_steps_equal_tensorflow(session, optimizer):
    recipe, steps = RECIPE._replace(optimizer=optimizer), (5, 6, 7)
    rates = np.float32([learning_rate(recipe, i) for i in steps])
    weights = {name: golden_weight(name, shape) for name, shape in variable_shapes("tiny", "x2").items()}
    pairs = [(downscale(hr, 2), hr) for hr in textures(3, 40, 40)]
    batches = [Sampler(pairs, 2, recipe.batch, recipe.patch, 7)(i) for i in steps]
    state = dict(new_state(recipe, weights), step=np.int32(5))
    ours = build_training("tiny", "x2", recipe)
    session.run(tf.global_variables_initializer())
    values = [weights[variable.op.name] for variable in model_variables()]
    load_values(session, model_variables() + ours.averages + [ours.step], values + values + [5])
    expected_losses = [session.run([ours.loss, ours.train], {ours.lr: lr, ours.hr: hr, ours.rate: rate})[0]
                       for (lr, hr), rate in zip(batches, rates)]
    expected = dict(zip([v.op.name for v in tf.global_variables()], session.run(tf.global_variables())))
    setup = Setup("tiny", "x2", recipe, "float32")
    state, (losses, norms, skipped) = run_steps(setup, state, rates, *map(np.stack, zip(*batches)))
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    np.testing.assert_allclose(norms, expected["gradient_norms"][-3:], rtol=1e-4)
    np.testing.assert_allclose(state.pop("gradient_norms"), expected.pop("gradient_norms"), rtol=1e-4)
    assert not np.any(skipped) and state.pop("step") == expected.pop("Variable") == 8
    assert set(expected) == set(state)
    for name in expected:
        moved = name in weights or name.endswith(convert.AVERAGE)
        scale = np.sum(rates) if moved else np.max(np.abs(expected[name]))
        # on average: Adam moves a weight at will whose gradients are of the size of rounding
        assert np.sqrt(np.mean(np.square(state[name] - expected[name]))) <= 1e-3 * scale, name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_bad_step_changes_nothing_but_the_step(random, optimizer):
    recipe = RECIPE._replace(optimizer=optimizer)
    kernel = random.standard_normal((3, 3, 16, 16)).astype(np.float32)
    good = {"DRAN/conv2d/kernel": np.full_like(kernel, 0.01)}
    norm = np.float32(0.01 * kernel.size ** 0.5)
    state = new_state(recipe, {"DRAN/conv2d/kernel": kernel})
    state["gradient_norms"] = np.float32([np.inf] * 50 + [norm] * 51)
    for i, (factor, loss) in enumerate([(np.nan, 0.1), (1, np.inf), (1, 11), (10.1, 0.1)], 1):
        gradients = {name: factor * value for name, value in good.items()}
        after, _, bad = guarded_update(state, gradients, loss, 1e-3, recipe)
        assert bad and after["step"] == i
        for name in set(state) - {"step", "gradient_norms"}:
            np.testing.assert_array_equal(after[name], state[name], name)
        state = after
    noted = state["gradient_norms"][-2:]  # finite ones are
    np.testing.assert_allclose(noted, [norm, 10.1 * norm], rtol=1e-4)
    gradients = {name: 9.9 * value for name, value in good.items()}
    after, _, bad = guarded_update(state, gradients, 0.1, 1e-3, recipe)
    assert not bad and (after["DRAN/conv2d/kernel"] != kernel).all()


@pytest.mark.parametrize("total, pace", [(100, 0.01), (1000, 0.01), (3, 1)])
def test_rates_follow_the_clock(total, pace):
    """At a constant pace they are those of as many steps as fit, and end at 0 near the end of the time."""
    recipe, rates, share = make_recipe("fast", "32s", "x2")._replace(warmup=0), [], 0
    while share < 1:
        these, share = train_jax.next_rates(
            recipe, total, len(rates), pace * len(rates), pace if rates else 0, 20)
        rates += list(these)
    assert rates[-1] == 0 and abs(len(rates) * pace - total) <= 40 * pace
    expected = [learning_rate(recipe._replace(steps=len(rates)), i) for i in range(len(rates))]
    assert total == 3 or np.max(np.abs(np.float32(rates) - expected)[20:]) < 1e-3 * 21 * pace / total * np.pi


WITHOUT_TENSORFLOW = """import runpy, sys
sys.modules.update(tensorflow=None, skimage=None)  # their import fails
sys.path[0] = %r
from model import MODELS, Variant
MODELS["tiny"] = Variant(16, 1, 2)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")""" % ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with photographs, and with JAX's compiled programs, so that each is compiled once."""
    folder = tmp_path_factory.mktemp("jax")
    for kind, images in ("data", textures(6, 48, 40)), ("valid", textures(8, 48, 40)[6:]):
        (folder / kind).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(str(folder / kind / ("%d.png" % i)))
    settings = {"jax_compilation_cache_dir": str(folder / "cache"),
                "jax_persistent_cache_min_compile_time_secs": 0}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            jax.config.update(name, value)
            patch.setenv(name.upper(), str(value))
        yield folder
    jax.config.update("jax_compilation_cache_dir", None)


def options(folder, run, **changes):
    values = dict(
        model="tiny", data=folder / "data", valid=folder / "valid", valid_share=0.4, run=run, recipe="fast",
        warmup=5, steps=100, batch=4, patch=8, dispatch=10, valid_every=50, save_minutes=0, workers=1)
    values.update(changes)
    return [str(text) for key, value in values.items() if value is not None
            for text in ("--" + key.replace("_", "-"), value)]


@pytest.fixture(scope="module")
def trained(folder):
    """The folder of an uninterrupted run, in a process that has neither TensorFlow nor scikit-image."""
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, os.path.join(ROOT, "tools", "gpu", "train_jax.py")]
    out = subprocess.check_output(command + options(folder, folder / "run"), universal_newlines=True)
    assert out.splitlines()[-1] == "done: %s" % (folder / "run" / "state.npz")
    return folder / "run"


def test_training_lowers_the_loss(trained, folder):
    log = read_log(trained)
    steps, valid = [[record for record in log if key in record] for key in ("loss", "psnr")]
    assert [record["step"] for record in steps] == list(range(10, 101, 10))
    assert [record["step"] for record in valid] == [50, 100]
    assert steps[-1]["loss"] < 0.3 * steps[0]["loss"]
    for key in "psnr", "psnr_held_out":
        assert valid[1][key] > valid[0][key] + 0.5
    _, config, _ = convert.load_state(str(trained / "state.npz"))
    held_out = [os.path.basename(path) for path in photographs.hold_out(str(folder / "data"), 0.4)[1]]
    assert config["held_out"] == held_out and config["data"]["files"] == 6


def test_killed_and_resumed_equals_uninterrupted(trained, folder, tmp_path, monkeypatch):
    """Equal to the bit on a CPU. It is killed after steps that are in its log, but not in its state."""
    class Killed(Exception):
        pass

    def dispatch(self):
        if self.step == 30:
            self.args.save_minutes = 1000
        if self.step == 50:
            raise Killed()
        original(self)
    original, run = train_jax.JaxTrainer.dispatch, tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train_jax.JaxTrainer, "dispatch", dispatch)
        train_jax.main(options(folder, run))
    assert convert.load_state(str(run / "state.npz"))[0]["step"] == 30 and read_log(run)[-1]["step"] == 50
    assert train_jax.main(options(folder, run)) == 0
    keys = "step", "loss", "rate", "gradient_norm", "psnr", "psnr_held_out"
    logs = [[[record.get(key) for key in keys] for record in read_log(path)] for path in (run, trained)]
    assert logs[0] == logs[1]
    state, config, _ = convert.load_state(str(run / "state.npz"))
    expected, expected_config, _ = convert.load_state(str(trained / "state.npz"))
    assert config == expected_config and set(state) == set(expected)
    for name in expected:
        np.testing.assert_array_equal(state[name], expected[name], name)


def test_stopped_by_a_signal_or_by_bad_steps(folder, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(train_jax.JaxTrainer, "dispatch", lambda self: os.kill(os.getpid(), signal.SIGTERM))
        assert train_jax.main(options(folder, run)) == 143
    assert capsys.readouterr().out.endswith("stopped at step 0; the same command resumes\n")
    state = convert.load_state(str(run / "state.npz"))[0]
    assert state["step"] == 0

    class Bad(object):
        def lower(self, *_):
            return self

        def compile(self):
            return lambda state, *_: (state, ([np.nan] * 10, [np.inf] * 10, [True] * 10))
    monkeypatch.setattr(train_jax, "run_steps", Bad())
    with pytest.raises(Divergence, match="diverges at step 5, with a loss of nan .*: lower --rate"):
        train_jax.main(options(folder, run))
    assert convert.load_state(str(run / "state.npz"))[0]["step"] == 0


def test_by_the_clock_from_other_weights(trained, folder, tmp_path):
    """A training of so many minutes begins where another ended, ends with a rate of 0, and tells of both."""
    run, start = tmp_path / "run", str(trained / "state.npz")
    more = dict(minutes=0.02, steps=None, init_from=start, rate=1e-5, warmup=0)
    assert train_jax.main(options(folder, run, **more)) == 0
    log = [record for record in read_log(run) if "loss" in record]
    assert log[-1]["rate"] == 0 and log[0]["loss"] < 1.5 * read_log(trained)[-2]["loss"]
    config = convert.trained_config(*convert.load_state(str(run / "state.npz")))
    assert config["steps"] == config["trained_steps"] == log[-1]["step"] and config["trained_seconds"] > 0.5
    assert [config["init_from"], len(config["trained_before"])] == [start, 1]
    assert config["trained_before"][0]["trained_steps"] == 100


def test_imported_weights_are_the_averages_and_evaluated(trained, folder, tmp_path, monkeypatch, capsys):
    convert.main([str(trained / "state.npz"), str(tmp_path / "out")])
    assert "tiny x2 after 100 steps, " in capsys.readouterr().out
    prefix, how = checkpoint_prefix(str(tmp_path / "out")), convert.load_state(str(trained / "state.npz"))
    reader, names = tf.train.NewCheckpointReader(prefix), set(variable_shapes("tiny", "x2"))
    assert set(reader.get_variable_to_shape_map()) == names
    for name in names:
        np.testing.assert_array_equal(reader.get_tensor(name), how[0][name + convert.AVERAGE])
    config = checkpoint_config(prefix)
    assert config.pop("validation_psnr") > 10 and config.pop("valid") == "Sample"
    assert config == convert.trained_config(*how) and config["device"] == "cpu"
    assert (tmp_path / "out" / "log.jsonl").read_bytes() == (trained / "log.jsonl").read_bytes()
    status, out, err = call(monkeypatch, capsys, evaluation.main, "--gpu", -1, "--model", "tiny", "--dataset",
                            folder / "valid", "--checkpoint", tmp_path / "out")
    assert status == 0, err
    mean = [line for line in out.splitlines() if line.startswith("mean")][0].split()
    assert float(mean[1]) == pytest.approx(read_log(trained)[-1]["psnr"], abs=2e-3)


def test_exported_weights_are_those_of_the_checkpoint(tmp_path, capsys):
    source, path = os.path.join(ROOT, "checkpoints", "x2", "32s"), str(tmp_path / "a" / "32s.npz")
    convert.main([source, path])
    assert capsys.readouterr().out == "%s: 132 variables of %s\n" % (path, checkpoint_prefix(source))
    weights, history = convert.read_start(path)
    reader = tf.train.NewCheckpointReader(checkpoint_prefix(source))
    assert set(weights) == set(reader.get_variable_to_shape_map()) == set(variable_shapes("32s", "x2"))
    for name, value in weights.items():
        np.testing.assert_array_equal(value, reader.get_tensor(name))
    assert history == json.loads(json.dumps(training_history(checkpoint_prefix(source)))) and len(history) > 1


def test_damaged_states_are_named(trained, tmp_path):
    content, data = (trained / "state.npz").read_bytes(), ["--data", str(trained.parent / "data"), "--run"]
    for damaged in content[:1000], b"", content[:-2000]:
        (tmp_path / "state.npz").write_bytes(damaged)
        for command, arguments in [
                (convert, [str(tmp_path / "state.npz"), str(tmp_path / "out")]),
                (train_jax, data + [str(tmp_path)]),
                (train_jax, data + [str(tmp_path / "new"), "--init-from", str(tmp_path / "state.npz")])]:
            with pytest.raises(UserError, match="cannot read .*state.npz: .*: copy it anew"):
                command.main(arguments)


def test_first_errors(trained, folder, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no checkpoint at nowhere: "):
        convert.main(["nowhere", str(tmp_path / "a.npz")])
    with pytest.raises(UserError, match="no training data below nowhere: "):
        train_jax.main(["--data", "nowhere", "--run", str(tmp_path / "run")])
    with pytest.raises(UserError, match="not finite at step 2: lower --rate, in another --run$"):
        convert.save_state(str(tmp_path / "state.npz"), {"step": 2, "DRAN/a": np.float32([np.nan])}, {}, {})
    with pytest.raises(UserError, match="run was started with batch = 4, not 5: "):
        train_jax.main(options(folder, trained, batch=5))

    def exhausted(self):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 byte.")
    monkeypatch.setattr(train_jax.JaxTrainer, "train", exhausted)
    with pytest.raises(UserError, match="the device's memory is too small: lower --batch"):
        train_jax.main(options(folder, tmp_path / "run"))
    monkeypatch.setattr(train_jax, "jax", None)
    with pytest.raises(UserError, match="JAX is needed: pip install jax"):
        train_jax.main(options(folder, tmp_path))


@pytest.mark.parametrize("command, arguments, message", [
    (train_jax, ["--data", "a", "--steps", "1", "--minutes", "1"], "give --steps or --minutes"),
    (convert, ["a.npz", "b.npz"], "one of SOURCE and TARGET ends in .npz")])
def test_wrong_options(command, arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err
