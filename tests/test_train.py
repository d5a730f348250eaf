"""Training: recipes, schedule, data, optimiser, and runs that stop and resume."""
import argparse
import io
import json
import os
import re
import resource
import shutil
import signal
import sys
import threading
import time

import ops
import train
import utils
from conftest import TINY, call, run_script, start, state_values
from model import MODELS, SCALES, Variant, drsan, model_variables
from ops import conv2d, tf
from tools import checkpoints, command
from tools.command import UserError
from tools.data import patches
from tools.data.patches import Sampler
from tools.data.photographs import hold_out, list_photographs, load_photographs
from tools.data.records import RecordSampler, write_records
from tools.files import lock_file
from tools.training import graph, history, recipes
from tools.training.graph import build_training
from tools.training.recipes import Recipe, learning_rate, make_recipe
from tools.weights import initial_weights, transfer

import numpy as np
import pytest
from PIL import Image

ADAM = make_recipe("paper", "32s", "x2")
MUON = make_recipe("fast", "32s", "x2")._replace(ema=0, decay=3)
bfloat16 = pytest.mark.skipif(not ops.has_bfloat16(), reason="this TensorFlow has no convolutions in bfloat16")


# recipes

def test_paper_recipe():
    rates = {(model, scale): make_recipe("paper", model, scale).rate for model in MODELS for scale in SCALES}
    assert {rates[model, "x2"] for model in MODELS} == {2e-4}
    assert [rates[model, "x3"] for model in ("32s", "48s", "48m", "32m")] == [2e-4, 1e-4, 1e-4, 5e-5]
    assert [rates[model, "x4"] for model in ("32s", "48s", "32m", "48m")] == [2e-4, 2e-4, 1e-4, 1e-4]
    assert make_recipe("paper", "32s", "x2")._replace(steps=0) == Recipe(2e-4, "halve", 0, 0, 16, 48, 1, 0, "adam", 0, 0)


def test_learning_rate():
    paper = make_recipe("paper", "32s", "x2")
    assert [learning_rate(paper, step) for step in (0, 199999, 200000, 399999, 400000)] == [2e-4, 2e-4, 1e-4, 1e-4, 5e-5]
    fast = Recipe(1e-3, "cosine", 9, 1000, 16, 32, 1, 0.999, "muon", 1, 10)
    assert learning_rate(fast, 0) == pytest.approx(1e-4)
    assert learning_rate(fast, 4) == pytest.approx(5e-4, rel=1e-3)
    assert learning_rate(fast, 500) == pytest.approx(5e-4)
    assert learning_rate(fast, 999) < 1e-8


def test_how_long_a_training_takes(monkeypatch, capsys):
    """Said once, after five seconds of steps, validations not counted, the first step neither; `fast` is named where it is days."""
    now, run = [1000.0], argparse.Namespace(config=dict(recipe="paper", model="32s", scale="x2"), seconds=0, log=lambda _: None)
    monkeypatch.setattr(history.time, "time", lambda: now[0])
    meter = history.Meter(run, make_recipe("paper", "32s", "x2"), 10, on_cpu=True)
    lines = []
    for i in range(10):
        now[0] += 2 if i == 0 else 0.5
        meter.add(0.1, 1, False)
        lines.append(capsys.readouterr().out)
        with meter.paused():
            now[0] += 100
    # 5.5 s after 8 steps; fast: 30,000 steps of 8 x 32^2 pixels instead of 16 x 48^2
    assert lines == 7 * [""] + ["0.50 s a step: about 5 days, 18:53:11 for the 999982 steps that are left\nnote: that is a plan "
                                "for GPUs; --recipe fast, for CPUs, takes about 0:55:33 here\n"] + 2 * [""]
    meter = history.Meter(run, make_recipe("fast", "32s", "x2"), 0, on_cpu=True)
    for seconds in 20, 2:
        now[0] += seconds
        meter.add(0.1, 1, False)
    assert capsys.readouterr().out == ("the first step took 20.0 s, with what is prepared in it\n"
                                       "2.00 s a step: about 16:39:56 for the 29998 steps that are left\n")
    for kind, seconds, on_cpu in ("paper", 0.1, True), ("paper", 0.5, False), ("fast", 100, True):
        text = history.format_plan(dict(run.config, recipe=kind), make_recipe(kind, "32s", "x2"), 0, seconds, on_cpu)
        assert "for the %d steps that are left" % make_recipe(kind, "32s", "x2").steps in text and "note" not in text


@pytest.mark.parametrize("option", ["--rate", "--steps", "--batch", "--patch", "--candidates"])
def test_values_of_recipes_are_positive(option, monkeypatch, capsys):
    status, _, err = call(monkeypatch, capsys, train.parse_args, "--data", "photos", option, 0)
    assert status == 2 and "argument %s: invalid positive" % option in err


@pytest.mark.parametrize("options, message", [
    (["--ema", 1], "argument --ema: invalid fraction float value"),
    (["--warmup", -1], "argument --warmup: invalid not negative int value"),
    (["--seed", -1], "argument --seed: invalid not negative int value"),
    (["--pairs", 8, "--shards", 16], "--pairs 8 cannot fill --shards 16"),
    (["--run", "runs/a[1]"], "--run runs/a[1]: TensorFlow takes"),
])
def test_options_that_cannot_be(options, message, monkeypatch, capsys):
    status, _, err = call(monkeypatch, capsys, train.parse_args, "--data", "photos", *options)
    assert status == 2 and message in err


# data

@pytest.mark.parametrize("scale", [2, 3, 4])
def test_patches_are_aligned_and_augmented(photographs, scale):
    pairs = load_photographs(str(photographs), scale, 12, 1)
    assert [hr.shape for _, hr in pairs] == [(121 - 121 % scale, 142 - 142 % scale, 3)] * 2
    sampler = Sampler(pairs, scale, 40, 12, seed=1)
    lr, hr = sampler(0)
    assert lr.shape == (40, 12, 12, 3) and hr.shape == (40, 12 * scale, 12 * scale, 3)
    orientations = set()
    for low, high in zip(lr, hr):
        # inside, where imresize does not see the patch's border, LR is HR downscaled
        assert (utils.downscale(high, scale)[3:-3, 3:-3] == low[3:-3, 3:-3]).all()
        found = [(k, mirror) for k in range(4) for mirror in (False, True) if any(
            contains(image, np.rot90(low[:, ::-1] if mirror else low, -k)) for image, _ in pairs)]
        assert len(found) == 1
        orientations.update(found)
    assert len(orientations) == 8
    again = Sampler(pairs, scale, 40, 12, seed=1)(0)
    assert (again[0] == lr).all() and (again[1] == hr).all()
    assert (sampler(1)[0] != lr).any() and (Sampler(pairs, scale, 40, 12, seed=2)(0)[0] != lr).any()


def test_the_most_detailed_candidate_is_taken(monkeypatch):
    random = np.random.RandomState(0)
    low = (random.rand(40, 50, 3) * np.linspace(0, 255, 50)[:, None]).astype(np.uint8)  # the more to the right, the more detail
    pairs = [(low, np.repeat(np.repeat(low, 2, 0), 2, 1))]
    sampler, drawn = Sampler(pairs, 2, 3, 8, seed=1, candidates=4), []
    draw = sampler._draw
    monkeypatch.setattr(sampler, "_draw", lambda random: drawn.append(draw(random)) or drawn[-1])
    lr, hr = sampler(0)
    assert len(drawn) == 12 and (hr[:, ::2, ::2] == lr).all()

    def variation(y, x):
        patch = low[y:y + 8, x:x + 8].astype(float)
        return np.abs(patch[1:] - patch[:-1]).mean() + np.abs(patch[:, 1:] - patch[:, :-1]).mean()

    for i in range(3):
        _, _, y, x = max(drawn[4 * i:4 * i + 4], key=lambda one: variation(*one[2:]))
        assert sorted(lr[i].ravel()) == sorted(low[y:y + 8, x:x + 8].ravel())


def contains(image, patch):
    """Whether the patch stands somewhere in the image."""
    size = len(patch)
    corners = (image[:1 - size, :1 - size] == patch[0, 0]).all(axis=2)
    return any((image[y:y + size, x:x + size] == patch).all() for y, x in zip(*np.nonzero(corners)))


def test_bad_photographs_are_named(photographs, tmp_path, capsys):
    (photographs / "broken.jpg").write_bytes(b"nothing")
    Image.new("RGB", (30, 30)).save(str(photographs / "small.png"))
    Image.new("RGB", (1, 1)).save(str(photographs / "dot.png"))
    assert len(load_photographs(str(photographs), 2, 16, 1)) == 2
    out = capsys.readouterr().out
    assert "left out: cannot read the image" in out and "broken.jpg" in out
    assert "small.png is smaller than a patch of 16 LR pixels" in out and "dot.png is smaller than 2 pixels" in out
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no usable photograph below"):
        load_photographs(str(tmp_path / "empty"), 2, 16, 1)


def test_links_to_folders_are_followed_once(photographs, tmp_path):
    """A link out of the folder, one to a folder that is there anyway, and one that leads back up."""
    (tmp_path / "elsewhere" / "below").mkdir(parents=True)
    shutil.copy(list_photographs(str(photographs))[0], str(tmp_path / "elsewhere" / "below" / "c.png"))
    names = [os.path.relpath(path, str(photographs)) for path in list_photographs(str(photographs))]
    os.symlink(str(photographs / "deeper"), str(photographs / "a_link"))
    os.symlink(str(photographs), str(photographs / "deeper" / "loop"))
    os.symlink(str(tmp_path / "elsewhere"), str(photographs / "more"))
    os.symlink(str(tmp_path / "elsewhere" / "below"), str(photographs / "more_again"))
    os.symlink(str(tmp_path / "nowhere"), str(photographs / "broken"))
    assert [os.path.relpath(path, str(photographs)) for path in list_photographs(str(photographs))] == sorted(
        names + [os.path.join("more", "below", "c.png")])
    os.symlink(str(photographs), str(tmp_path / "photos"))
    assert len(list_photographs(str(tmp_path / "photos"))) == 3


@pytest.mark.parametrize("folder, noted", [("LR", True), ("LR_bicubic/X2", True), ("x4", True), ("DIV2K_train_LR_bicubic", True),
                                           ("HR", False), ("LRoom", False), ("x20", False)])
def test_folders_of_lr_are_noted(photographs, capsys, monkeypatch, folder, noted):
    monkeypatch.setattr(command, "_noticed", set())
    (photographs / folder).mkdir(parents=True)
    shutil.copy(list_photographs(str(photographs))[0], str(photographs / folder))
    assert len(load_photographs(str(photographs), 2, 16, 1)) == 3
    assert ("name the folder of HR images by --data" in capsys.readouterr().err) == noted


# records

def authors_record(path, scale, patch, count):
    """Records as the authors' files have them, written by TensorFlow; returns their pairs."""
    random, pairs = np.random.RandomState(5), []
    with tf.python_io.TFRecordWriter(str(path)) as writer:
        for _ in range(count):
            lr = random.randint(0, 256, (patch, patch, 3)).astype(np.uint8)
            hr = random.randint(0, 256, (scale * patch, scale * patch, 3)).astype(np.uint8)
            pairs.append((lr, hr))
            feature = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.tobytes()]))
                       for key, value in (("image", lr), ("label", hr))}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return pairs


def test_authors_records_are_read_once_an_epoch_in_changing_order(tmp_path):
    pairs = authors_record(tmp_path / "train_SR_aug_X3_10.tfrecord", 3, 8, 10)
    sampler = RecordSampler(str(tmp_path), 3, 5, 8, seed=0)

    def epoch(first):
        batches = [sampler(first), sampler(first + 1)]
        order = []
        for lr, hr in batches:
            for low, high in zip(lr, hr):
                order += [i for i, pair in enumerate(pairs) if (pair[0] == low).all() and (pair[1] == high).all()]
        return order

    assert sorted(epoch(0)) == sorted(epoch(2)) == list(range(10))
    assert epoch(0) != epoch(2) and epoch(0) == epoch(0)
    with pytest.raises(UserError, match="is no pair of 8x8 and 16x16 patches"):
        RecordSampler(str(tmp_path), 2, 5, 8, seed=0)
    data = (tmp_path / "train_SR_aug_X3_10.tfrecord").read_bytes()
    (tmp_path / "train_SR_aug_X3_10.tfrecord").write_bytes(data[:-5])
    with pytest.raises(UserError, match="does not consist of records"):
        RecordSampler(str(tmp_path), 3, 5, 8, seed=0)
    (tmp_path / "train_SR_aug_X3_10.tfrecord").write_bytes(data[:3])
    with pytest.raises(UserError, match="is too short to hold a record"):
        RecordSampler(str(tmp_path), 3, 5, 8, seed=0)


def test_records_are_written_once_and_continued(photographs, tmp_path):
    sampler = Sampler(load_photographs(str(photographs), 2, 12, 1), 2, 4, 12, seed=0)
    folder = tmp_path / "records"
    folder.mkdir()
    write_records(sampler, str(folder), 10, 3)
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(content) == ["train_SR_aug_X2_10-%05d-of-00003.tfrecord" % i for i in range(3)]
    records = RecordSampler(str(folder), 2, 10, 12, seed=0)
    lr, hr = records(0)
    written = [sampler(i, size) for i, size in enumerate((3, 3, 4))]
    for ours, expected in (lr, np.concatenate([a for a, _ in written])), (hr, np.concatenate([b for _, b in written])):
        assert sorted(image.tobytes() for image in ours) == sorted(image.tobytes() for image in expected)
    (folder / "train_SR_aug_X2_10-00001-of-00003.tfrecord").unlink()
    (folder / "train_SR_aug_X2_10-00001-of-00003.tfrecord.tmp").write_bytes(b"half")
    write_records(sampler, str(folder), 10, 3)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content
    with pytest.raises(UserError, match="GB free, but the records need"):
        write_records(sampler, str(folder), 10 ** 12, 3)


# graph

@pytest.fixture
def small_network(monkeypatch):
    """A 32s of 8 channels, one DRAG and two RBs, for tests that are not about the network."""
    monkeypatch.setitem(MODELS, "32s", Variant(channels=8, drags=1, blocks=2))


def test_towers_have_the_gradient_of_the_whole_batch(small_network):
    random = np.random.RandomState(0)
    lr, hr = random.randint(0, 256, (4, 8, 8, 3)), random.randint(0, 256, (4, 16, 16, 3))
    results = []
    for devices in [("",), ("/cpu:0", "/cpu:1")]:
        tf.reset_default_graph()
        tf.set_random_seed(1)
        training = build_training("32s", "x2", ADAM, devices)
        gradients = tf.gradients(training.loss, model_variables())
        with tf.Session(config=tf.ConfigProto(device_count={"CPU": 2})) as session:
            for i, variable in enumerate(model_variables()):
                variable.load(np.random.RandomState(i).randn(*variable.shape.as_list()) * 0.03, session)
            results.append(session.run([training.loss] + gradients, {training.lr: lr, training.hr: hr}))
            assert session.run(training.sr, {training.lr: lr[:1]}).shape == (1, 16, 16, 3)
    for one, two in zip(*results):
        np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)  # sums in another order


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
            feed = {training.lr: random.randint(0, 256, (2, 8, 8, 3)), training.hr: random.randint(0, 256, (2, 16, 16, 3)),
                    training.rate: rate}
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
    """The update of Muon for a learning rate of 1: x [kh, kw, in, out] with the singular values s of its matrix, divided by their
    norm, replaced by p(p(p(p(p(s))))), and scaled. In float64, by SVD where train.py multiplies matrices."""
    u, s, v = np.linalg.svd(x.reshape(-1, x.shape[3]), full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s ** 3 + 2.0315 * s ** 5
    return (0.8 * np.sqrt(max(u.shape[0], v.shape[1])) * (u * s).dot(v)).reshape(x.shape)


def test_muon_directions_have_singular_values_near_one():
    """What the publications say: singular values of about 1, and with the scale, entries with the stated root mean square."""
    update = muon_directions(np.random.RandomState(0).randn(3, 3, 32, 32))
    singular = np.linalg.svd(update.reshape(-1, 32), compute_uv=False) / (0.8 * np.sqrt(288))
    assert 0.6 < singular.min() and singular.max() < 1.25
    assert np.sqrt(np.mean(update ** 2)) == pytest.approx(recipes.UPDATE_RMS, rel=0.2)


def test_weight_decay_alone():
    """Without a gradient, W <- W - rate decay W, in either framework's formula: here in TensorFlow's."""
    kernel = tf.get_variable("kernel", [3, 3, 16, 32])
    step = ops.muon_step(kernel, ops.muon_momentum(kernel), tf.zeros(kernel.shape), 1e-3, 30)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        before = session.run(kernel)
        session.run(step)
        np.testing.assert_allclose(session.run(kernel), 0.97 * np.float64(before), rtol=1e-6)


@pytest.mark.parametrize("devices", [("",), ("/cpu:0", "/cpu:0")])
def test_three_muon_steps_against_singular_value_decomposition(monkeypatch, devices):
    monkeypatch.setitem(MODELS, "32s", Variant(channels=16, drags=1, blocks=2))
    training = build_training("32s", "x3", MUON, devices)
    variables = model_variables()
    names = [variable.op.name for variable in tf.global_variables()]
    by_muon = [recipes.uses_muon(variable.shape.as_list()) for variable in variables]
    assert sum(by_muon) == 8  # of the DRM's two the first, four of the RBs, the closing one, that before the skip, the upsampler's
    for variable, muon in zip(variables, by_muon):
        assert [variable.op.name + slot in names for slot in ("/Muon", "/AdamOptimizer", "/AdamOptimizer_1")] == [
            muon, not muon, not muon]
    gradients = tf.gradients(training.loss, variables)
    random, rate = np.random.RandomState(3), 1e-3
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        kernels = [np.float64(value) for value, muon in zip(session.run(variables), by_muon) if muon]
        momenta = [np.zeros_like(kernel) for kernel in kernels]
        for _ in range(3):
            feed = {training.lr: random.randint(0, 256, (2, 6, 7, 3)), training.hr: random.randint(0, 256, (2, 18, 21, 3)),
                    training.rate: rate}
            g = [np.float64(value) for value, muon in zip(session.run(gradients, feed), by_muon) if muon]
            session.run(training.train, feed)
            momenta = [0.95 * a + 0.05 * b for a, b in zip(momenta, g)]
            kernels = [kernel - rate * (muon_directions(0.95 * a + 0.05 * b) + MUON.decay * kernel)
                       for kernel, a, b in zip(kernels, momenta, g)]
        assert session.run(training.step) == 3
        for ours, expected in zip([value for value, muon in zip(session.run(variables), by_muon) if muon], kernels):
            np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


def run_steps(session, training, random, count, **poison):
    """Train `count` steps on random patches; poison: {tensor: value} fed to the last of them. Returns its norm, and whether it was
    skipped."""
    for i in range(count):
        feed = {training.lr: random.randint(0, 256, (2, 8, 8, 3)), training.hr: random.randint(0, 256, (2, 16, 16, 3)),
                training.rate: 1e-3}
        if i == count - 1:
            feed.update({"DRAN/DRAG1/DRA:0": value for value in poison.values()})
        _, norm, skipped = session.run([training.train, training.norm, training.skipped], feed)
    return norm, skipped


@pytest.mark.parametrize("recipe", [ADAM, ADAM._replace(ema=0.9, skip_above=10), MUON._replace(ema=0.9)])
def test_a_bad_step_changes_nothing_but_the_step(monkeypatch, recipe):
    monkeypatch.setitem(MODELS, "32s", Variant(channels=16, drags=1, blocks=1))
    training = build_training("32s", "x2", recipe)
    random = np.random.RandomState(0)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        assert not run_steps(session, training, random, 3)[1]
        before = session.run(tf.global_variables())
        for value in np.nan, np.inf, 1e30:  # the last one: finite, but a loss far above that of any image
            assert run_steps(session, training, random, 1, dra=np.full([2, 1, 1, 1], value))[1]
        assert session.run(training.step) == 6
        for variable, old, new in zip(tf.global_variables(), before, session.run(tf.global_variables())):
            if variable.op.name not in ("Variable", "gradient_norms"):  # the norm of a finite gradient is noted
                np.testing.assert_array_equal(new, old, variable.op.name)
        assert not run_steps(session, training, random, 1)[1]
        assert any((old != new).any() for old, new in zip(before, session.run(tf.global_variables())))


def test_gradient_norm_against_its_running_median(small_network):
    """The limit is that of the last 101 norms, and waits for 51 of them."""
    training = build_training("32s", "x2", ADAM._replace(skip_above=2))
    gradients, random = tf.gradients(training.loss, model_variables()), np.random.RandomState(0)
    window = next(variable for variable in tf.global_variables() if variable.op.name == "gradient_norms")
    batch = {training.lr: random.randint(0, 256, (1, 8, 8, 3)), training.hr: random.randint(0, 256, (1, 16, 16, 3))}
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        expected = np.sqrt(sum(np.sum(np.float64(value) ** 2) for value in session.run(gradients, batch)))
        norm = session.run([training.train, training.norm], dict(batch, **{training.rate.name: 0}))[1]
        assert norm == pytest.approx(expected, rel=1e-5)

        def is_skipped(noted):
            """Whether the same step is skipped after these norms, the last ones noted."""
            values = np.float32([np.inf] * (101 - len(noted)) + noted)
            window.load(values, session)
            skipped = session.run([training.train, training.skipped], dict(batch, **{training.rate.name: 0}))[1]
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
    dra = [op.outputs[0] for op in tf.get_default_graph().get_operations() if op.name.endswith("DRAG1/DRA")][:2]
    random = np.random.RandomState(0)
    feed = {training.lr: random.randint(0, 256, (2, 8, 8, 3)), training.hr: random.randint(0, 256, (2, 16, 16, 3))}
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        values, largest, rms = session.run([dra, training.largest_dra, training.kernel_rms], feed)
        assert largest == np.abs(values).max() > 0
        kernels = [value.ravel() for value in session.run(model_variables()) if value.ndim == 4]
        assert rms == pytest.approx(np.sqrt(np.mean(np.concatenate(kernels) ** 2)), rel=1e-5)


@bfloat16
def test_bfloat16_kernels_round_what_is_convolved_and_nothing_else():
    """1 + 2^-10 is rounded to 1, in the input, the kernel and the gradient, and sums of ones are exact; biases are not rounded."""
    near_one = 1 + 2.0 ** -10
    with tf.variable_scope("scope", custom_getter=ops.bfloat16_kernels):
        x = tf.fill([1, 4, 5, 2], near_one)
        y = conv2d(x, 3, 3)
    kernel, bias = tf.trainable_variables()
    gradients = tf.gradients(y, [x, kernel, bias], tf.fill([1, 4, 5, 3], near_one))
    assert {tensor.dtype.base_dtype for tensor in [y, kernel, bias] + gradients} == {tf.float32}
    with tf.Session() as session:
        kernel.load(np.full([3, 3, 2, 3], near_one), session)
        bias.load(np.full([3], near_one), session)
        y, to_x, to_kernel, to_bias = session.run([y] + gradients)
    across, down = np.array([2, 3, 3, 3, 2]), np.array([2, 3, 3, 2])  # positions of the kernel inside the image
    np.testing.assert_array_equal(y, np.broadcast_to((2 * np.outer(down, across) + near_one)[None, :, :, None], [1, 4, 5, 3]))
    np.testing.assert_array_equal(to_x, np.broadcast_to((3 * np.outer(down, across))[None, :, :, None], [1, 4, 5, 2]))
    inside = np.outer([3, 4, 3], [4, 5, 4])  # positions of the image under each value of the kernel
    np.testing.assert_array_equal(to_kernel, np.broadcast_to(inside[:, :, None, None], [3, 3, 2, 3]))
    np.testing.assert_allclose(to_bias, 20 * near_one, rtol=1e-6)


@bfloat16
def test_bfloat16_training_is_near_that_in_float32_and_validates_in_float32(small_network):
    random = np.random.RandomState(0)
    lr, hr = random.randint(0, 256, (4, 12, 12, 3)), random.randint(0, 256, (4, 24, 24, 3))
    results, sr = [], []
    for precision in "float32", "bfloat16":
        tf.reset_default_graph()
        training = build_training("32s", "x2", ADAM, ("", ""), precision=precision)
        gradients = tf.gradients(training.loss, model_variables())
        with tf.Session() as session:
            for i, variable in enumerate(model_variables()):
                variable.load(np.random.RandomState(i).randn(*variable.shape.as_list()) * 0.05, session)
            feed = {training.lr: lr, training.hr: hr}
            results.append(session.run([training.loss] + gradients, feed))
            sr.append(session.run(training.sr, feed))
    np.testing.assert_array_equal(*sr)
    for gradients in results:
        gradients.append(np.concatenate([gradient.ravel() for gradient in gradients[1:]]))  # after each, all as one
    norms = [np.linalg.norm(one) for one in results[0]]
    errors = [np.linalg.norm(two - one) / norm for one, two, norm in zip(*(results + [norms]))]
    of_kernels = [error for error, variable in zip(errors[1:], model_variables()) if len(variable.shape) == 4]
    assert errors[0] < 1e-3 and errors[-1] < 0.03 and min(of_kernels) > 1e-4, errors
    # those of the DRMs are so small that they differ most where processors round sums to bfloat16, too
    assert all(error < (0.05 if norm > 1e-3 * norms[-1] else 0.1) for error, norm in zip(errors, norms)), errors


# runs

@pytest.fixture
def tiny(photographs, tmp_path, monkeypatch, capsys):
    """Run train.py within this process, with tiny settings and a tiny network, in the folder `run`: (exit status, stdout, stderr)."""
    monkeypatch.setitem(MODELS, "32s", Variant(channels=16, drags=1, blocks=1))
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process keeps its own handlers

    def run(*extra):
        arguments = ["--run", tmp_path / "run", "--valid", photographs / "deeper"] + TINY + list(extra)
        return call(monkeypatch, capsys, lambda: train.train(train.parse_args()), *arguments)
    return run


def test_run_stops_resumes_and_is_evaluated(photographs, tmp_path, tiny):
    run = tmp_path / "run"
    process = start(photographs, run, "--steps", "100000", "--threads", "1", script="train.py")
    while b"PSNR" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out = process.communicate()[0].decode()
    assert process.returncode == 0 and "stopped at step" in out, out
    reached = int(out.split("stopped at step")[1].split(";")[0])
    config = json.loads((run / "config.json").read_text())
    assert config["model"] == "32s" and config["steps"] == 100000 and config["rate"] == 1e-3

    status, out, err = tiny("--data", photographs, "--steps", 200)
    assert status == 1 and "was started with steps = 100000, not 200, and the learning rate of cosine depends on it" in err

    process = start(photographs, run, "--steps", "100000", "--threads", "1", script="train.py")
    line = process.stdout.readline()
    while b"resumed" not in line:
        assert process.poll() is None
        line = process.stdout.readline()
    assert b"resumed at step %d," % reached in line
    while b"PSNR" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate()

    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [record["step"] for record in records if "loss" in record]
    assert steps == sorted(set(steps)) and steps[-1] > reached
    status, out, err = run_script("test.py", "--gpu", -1, "--checkpoint", run / "best", "--dataset", photographs / "deeper")
    assert status == 0, err
    best = max(record["psnr"] for record in records if "psnr" in record)
    assert float(out.split("mean")[1].split()[0]) == pytest.approx(best, abs=1e-3)


def test_ablation_is_recorded_and_asked_for(photographs, tmp_path, run, tiny):
    status, out, err = tiny("--data", photographs, "--without", "dynamics", "--steps", 8)
    assert status == 0 and "done" in out, err
    config = json.loads((tmp_path / "run" / "best" / "config.json").read_text())
    assert config["without"] == "dynamics"
    options = ["--checkpoint", tmp_path / "run" / "best", "--dataset", photographs / "deeper"]
    status, out, err = run(*options)
    assert status == 1 and "was trained without dynamics: it needs test.py --without dynamics" in err
    status, out, err = run("--without", "dynamics", *options)
    assert status == 0 and "17,684 parameters" in out, err  # 17,988 with the DRM
    assert float(out.split("mean")[1].split()[0]) == pytest.approx(config["validation_psnr"], abs=1e-3)
    status, out, err = tiny("--data", photographs, "--steps", 8)
    assert status == 1 and "was started with without = dynamics, not None" in err


@pytest.mark.parametrize("instructions", [True, False])
def test_bfloat16_is_recorded_or_refused(photographs, tmp_path, monkeypatch, tiny, instructions):
    monkeypatch.setattr(train, "cpu_has_bfloat16", lambda: instructions)
    status, out, err = tiny("--data", photographs, "--precision", "bfloat16", "--steps", 8)
    if ops.has_bfloat16():
        assert status == 0 and "done" in out and ("note: this processor has no" in out) == (not instructions), err
        assert json.loads((tmp_path / "run" / "best" / "config.json").read_text())["precision"] == "bfloat16"
    else:
        assert status == 1 and err.startswith("error: TensorFlow 1.8.0 cannot convolve in bfloat16"), err
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_over_the_steps_on_a_terminal(photographs, tiny, monkeypatch, terminal):
    stderr = io.StringIO()
    stderr.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stderr)
    assert tiny("--data", photographs, "--steps", 8)[0] == 0
    assert ("0/8 [" in stderr.getvalue()) == ("step" in stderr.getvalue()) == terminal


def test_bad_data_leaves_no_run(photographs, tmp_path, tiny):
    for data, message in [(tmp_path / "nowhere", "no training data below"), (photographs, "2 of the 2 photographs below")]:
        status, out, err = tiny("--data", data, "--patch", 500)
        assert status == 1 and message in err
        assert not (tmp_path / "run").exists()
    status, out, err = tiny()
    assert status == 2 and "give photographs by --data or records by --records" in err


def test_exploding_weights_are_not_kept(photographs, tmp_path, tiny):
    """Whatever step it happens after: the loss of a step is that of the weights before it."""
    options = ["--data", photographs, "--warmup", 0, "--save-minutes", 0]
    status, out, err = tiny("--steps", 1000, "--rate", 1e9, *options)
    assert status == 1 and "the training diverges at step 6, with a loss of " in err and "lower --rate, in another --run\n" in err
    assert not [name for name in os.listdir(str(tmp_path / "run" / "state")) if name.endswith(".index")]
    status, out, err = tiny("--steps", 8, "--rate", 1e-3, *options)  # nothing was kept, so the options may change
    assert status == 0 and "done" in out, err
    assert max(np.abs(value).max() for name, value in state_values(tmp_path / "run").items() if "/" in name) < 10


def test_after_an_explosion_the_last_good_weights_go_on(photographs, tmp_path, tiny, monkeypatch):
    options = ["--data", photographs, "--steps", 16, "--save-minutes", 0]
    monkeypatch.setattr(train, "learning_rate", lambda recipe, step: 1e9 if step == 5 else 1e-3)
    status, out, err = tiny("--steps", 5, *options[:2])
    assert status == 0
    kept = state_values(tmp_path / "run")
    shutil.rmtree(str(tmp_path / "run"))
    status, out, err = tiny(*options)
    assert status == 1 and "the training diverges at step 11, with" in err and "the same command goes on with other patches" in err
    values = state_values(tmp_path / "run")
    assert values.pop("Variable") == 11 and kept.pop("Variable") == 5 and set(values) == set(kept)
    for name in values:
        np.testing.assert_array_equal(values[name], kept[name])
    status, out, err = tiny(*options)
    assert status == 0 and "resumed at step 11," in out and "done" in out, err


@pytest.fixture
def poison(monkeypatch):
    """poison(*steps) makes the DRA values of these steps of a run of train.py with one thread NaN, as a bad patch may."""
    sampled, run = [], tf.Session.run

    def poisoned_run(session, fetches, feed_dict=None, **kwargs):
        if isinstance(fetches, list) and len(fetches) == 4 and fetches[1].name == "Loss:0" and sampled.pop(0) in steps:
            feed_dict = dict(feed_dict, **{"DRAN/DRAG1/DRA:0": np.full([2, 1, 1, 1], np.nan)})
        return run(session, fetches, feed_dict, **kwargs)

    def prefetch(function, first, last):
        for step in range(first, last):
            sampled.append(step)
            yield function(step)

    steps = set()
    monkeypatch.setattr(tf.Session, "run", poisoned_run)
    monkeypatch.setattr(train, "prefetch", prefetch)
    return lambda *poisoned: steps.update(poisoned)


def test_a_poisoned_step_is_counted(photographs, tmp_path, tiny, poison):
    poison(5)
    status, out, err = tiny("--data", photographs, "--steps", 8, "--threads", 1)
    assert status == 0 and "done" in out, err
    lines = [line for line in out.splitlines() if "loss" in line]
    assert not lines[0].endswith("skipped 1") and lines[1].endswith("  skipped 1")
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [record["skipped"] for record in records if "loss" in record] == [0, 1]
    assert all(record["gradient_norm"] > 0 for record in records if "loss" in record)
    assert records[-1]["step"] == 8 and records[-1]["largest_dra"] > 0 and 0.01 < records[-1]["kernel_rms"] < 1


def test_five_poisoned_steps_stop_a_run_that_goes_on(photographs, tmp_path, tiny, poison):
    poison(4, 6, 7, 8, 9, 10)
    options = ["--data", photographs, "--steps", 16, "--threads", 1]
    status, out, err = tiny(*options)
    assert status == 1 and "the training diverges at step 11, with a loss of nan and a gradient norm of nan" in err
    assert "the same command goes on with other patches from the last good weights, saved in %s" % (tmp_path / "run" / "state") in err
    status, out, err = tiny(*options)
    assert status == 0 and "resumed at step 11, best PSNR of" in out and "done" in out, err
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == 16


def test_resuming_is_about_the_training_not_the_spelling(photographs, tmp_path, tiny):
    options = ["--schedule", "halve", "--valid", photographs / "deeper"]
    assert tiny("--data", photographs, "--steps", 4, *options)[0] == 0
    moved = tmp_path / "moved"
    photographs.rename(moved)
    moved.joinpath("deeper").rename(tmp_path / "deeper")  # the validation set stays a part of the training set
    shutil.copytree(str(tmp_path / "deeper"), str(moved / "deeper"))
    shutil.copytree(str(moved), str(photographs))
    for data, steps in (str(photographs) + os.sep, 6), (os.path.relpath(str(photographs)), 8), (moved, 9):
        status, out, err = tiny("--data", data, "--steps", steps, *options[:2], "--valid", os.path.relpath(str(options[3])))
        assert status == 0 and "resumed at step" in out and "done" in out, err
    (moved / "deeper" / "coffee.png").unlink()
    status, out, err = tiny("--data", moved, "--steps", 12, *options)
    assert status == 1 and "was started with data = " in err
    status, out, err = tiny("--data", photographs, "--steps", 12, "--schedule", "cosine")
    assert status == 1 and "was started with schedule = halve, not cosine" in err


def test_a_cosine_is_not_made_longer(photographs, tmp_path, tiny):
    assert tiny("--data", photographs, "--steps", 4)[0] == 0
    status, out, err = tiny("--data", photographs, "--steps", 8)
    assert status == 1 and "was started with steps = 4, not 8, and the learning rate of cosine depends on it" in err
    assert "--init-from %s --run DIR" % (tmp_path / "run" / "best") in err
    assert tiny("--data", photographs, "--steps", 8, "--init-from", tmp_path / "run" / "best", "--run", tmp_path / "next")[0] == 0


def test_held_out_photographs(tmp_path):
    """Chosen by a hash of the name: the same ones in any order and anywhere; of tiles, all or none of a photograph."""
    folder = tmp_path / "a"
    folder.mkdir()
    for i in range(400):
        (folder / ("%03d.png" % i)).write_bytes(b"")
    kept, held = hold_out(str(folder), 0.1)
    assert len(kept) + len(held) == 400 and 25 <= len(held) <= 60 and not set(kept) & set(held)
    assert hold_out(str(folder), 0) == (sorted(kept + held), [])
    (folder / "000.png").unlink()
    assert set(hold_out(str(folder), 0.1)[1]) == set(held) - {str(folder / "000.png")}
    assert set(hold_out(str(folder), 0.2)[1]) > set(hold_out(str(folder), 0.1)[1])
    rows = ["%03d.png,someone/photos,%d.jpg" % (i, i // 8) for i in range(1, 400)]
    (folder / "manifest.csv").write_text("\n".join(["file,repo,path"] + rows))
    kept, held = hold_out(str(folder), 0.1)
    photograph = {str(folder / row.split(",")[0]): row.split(",")[2] for row in rows}
    assert len(held) == len({photograph[path] for path in held}) and not {photograph[path] for path in held} & {
        photograph[path] for path in kept}
    assert all(path == sorted(one for one in photograph if photograph[one] == photograph[path])[
        (8 if photograph[path] != "0.jpg" else 7) // 2] for path in held)
    assert len(kept) == 399 - sum(name in {photograph[path] for path in held} for name in photograph.values())
    with pytest.raises(UserError, match="--valid-share 1e-06 holds out 0 of the 50 photographs below"):
        hold_out(str(folder), 1e-6)
    (folder / "manifest.csv").write_text("nothing")
    assert len(hold_out(str(folder), 0.1)[1]) > 25
    (folder / "manifest.csv").write_text("file,size\n001.png,3")
    with pytest.raises(UserError, match="manifest.csv is not the manifest of a photo set"):
        hold_out(str(folder), 0.1)


def test_best_is_best_on_the_held_out(photographs, tmp_path, run, tiny):
    """Neither photographs nor records hold what is held out."""
    shares = [share / 100 for share in range(1, 100) if len(hold_out_or_none(photographs, share / 100)) == 1]
    options = ["--data", photographs, "--valid-share", shares[0], "--steps", 16]
    status, out, err = tiny(*options)
    assert status == 0 and "1 photographs, " in out and "held-out photographs" in out, err
    config = json.loads((tmp_path / "run" / "best" / "config.json").read_text())
    held = os.path.join(str(photographs), config["held_out"][0])
    assert [held] == hold_out_or_none(photographs, shares[0]) and config["valid_share"] == shares[0]
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert config["validation_psnr"] == max(record["psnr_held_out"] for record in records if "psnr" in record)
    (tmp_path / "held").mkdir()
    shutil.copy(held, str(tmp_path / "held"))
    status, out, err = run("--checkpoint", tmp_path / "run" / "best", "--dataset", tmp_path / "held")
    assert float(out.split("mean")[1].split()[0]) == pytest.approx(config["validation_psnr"], abs=1e-3)
    assert "resumed at step 16, best PSNR of held-out photographs %.3f dB" % config["validation_psnr"] in tiny(*options)[1]
    status, out, err = tiny(*options + ["--records", tmp_path / "records", "--pairs", 4, "--shards", 1, "--prepare"])
    assert status == 0 and "1 photographs, " in out and json.loads(
        (tmp_path / "records" / "records.json").read_text())["valid_share"] == shares[0]
    status, out, err = tiny("--records", tmp_path / "records", "--valid-share", 0.5)
    assert status == 2 and "--valid-share goes with --data" in err


def hold_out_or_none(photographs, share):
    """What is held out, or [] if this share takes none or all."""
    try:
        return hold_out(str(photographs), share)[1]
    except UserError:
        return []


def test_an_infinite_psnr_is_null_in_the_log(photographs, tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(graph, "psnr_y", lambda sr, hr, factor: float("inf"))
    assert tiny("--data", photographs, "--steps", 16)[0] == 0
    text = (tmp_path / "run" / "log.jsonl").read_text()
    assert [record["psnr"] for record in map(json.loads, text.splitlines()) if "psnr" in record] == [None, None]
    assert "Infinity" not in text + (tmp_path / "run" / "best" / "config.json").read_text()
    assert checkpoints.checkpoint_prefix(str(tmp_path / "run" / "best")).endswith("-16")  # the last ones
    assert "resumed at step 16, before its first validation" in tiny("--data", photographs, "--steps", 16)[1]


def test_a_failed_start_does_not_stand_in_the_way(photographs, tmp_path, weights, tiny):
    status, out, err = tiny("--data", photographs, "--steps", 8, "--init-from", tmp_path / "nowhere")
    assert status == 1 and "no checkpoint at" in err and not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"init_from": "nowhere"}')
    status, out, err = tiny("--data", photographs, "--steps", 8)
    assert status == 0 and "done" in out, err
    assert json.loads((tmp_path / "run" / "best" / "config.json").read_text())["trained_before"] == []
    status, out, err = tiny("--data", photographs, "--steps", 8, "--init-from", weights)  # of the whole 32s, not of the tiny one
    assert status == 1 and "was started with init_from = None, not" in err
    status, out, err = tiny("--data", photographs, "--steps", 8, "--init-from", weights, "--run", tmp_path / "other")
    assert status == 1 and "nothing can be taken from %s: its DRAN/conv2d/kernel has the shape [3, 3, 3, 32]" % weights in err


def test_history_is_that_of_the_start(photographs, tmp_path, tiny):
    """Also if the checkpoint that a run started from is not there any more when it resumes."""
    options = ["--data", photographs, "--steps", 8]
    assert tiny(*options)[0] == 0
    first = json.loads((tmp_path / "run" / "best" / "config.json").read_text())
    options += ["--init-from", tmp_path / "run" / "best", "--run", tmp_path / "second"]
    assert tiny(*options)[0] == 0
    shutil.rmtree(str(tmp_path / "run"))
    assert tiny(*options)[0] == 0  # resumed, though nothing is left to do
    for path in "config.json", "best/config.json":
        assert json.loads((tmp_path / "second" / path).read_text())["trained_before"] == [
            {key: value for key, value in first.items() if key != "trained_before"}]


def test_a_run_that_cannot_go_on_is_one_line(photographs, tmp_path, tiny):
    """With another validation set, while another process trains, and from a state that cannot be read."""
    options = ["--data", photographs, "--steps", 8]
    assert tiny(*options)[0] == 0
    status, out, err = tiny("--valid", "Sample", *options)
    assert status == 1 and "was started with valid = " in err and "not Sample" in err
    with lock_file(str(tmp_path / "run" / ".lock"), wait=False):
        status, out, err = tiny(*options)
        assert status == 1 and "another process trains in %s" % (tmp_path / "run") in err
    state = tmp_path / "run" / "state"
    data = (state / "state-8.data-00000-of-00001").read_bytes()
    (state / "state-8.data-00000-of-00001").write_bytes(data[:1000])
    status, out, err = tiny(*options)
    assert status == 1 and "cannot read the checkpoint" in err
    (state / "state-8.data-00000-of-00001").write_bytes(data)
    (state / "state-4.index").write_bytes((state / "state-8.index").read_bytes())
    (state / "checkpoint").unlink()
    status, out, err = tiny(*options)
    assert status == 1 and "holds several states, and its file `checkpoint` names none of them" in err
    (state / "state-4.index").unlink()
    status, out, err = tiny(*options)
    assert status == 0 and "resumed at step 8," in out, err
    (state / "checkpoint").write_text("")
    status, out, err = tiny(*options)
    assert status == 0 and "resumed at step 8," in out, err


def test_a_full_disk_is_named(photographs, tmp_path):
    """By a limit on the size of files, which stands for it: TensorFlow reports both in the same way."""
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))
    out = start(photographs, tmp_path / "run", "--steps", "8", preexec_fn=limit).communicate()[0].decode()
    assert re.search(r"\nerror: cannot save step 8 as .*best/DRSAN32sx2: .*; File too large; the one before is kept\n$", out), out


def test_prepared_records_are_trained_on(photographs, tmp_path, tiny):
    options = ["--data", photographs, "--records", tmp_path / "records", "--pairs", 20, "--shards", 2]
    status, out, err = tiny("--prepare", *options)
    assert status == 0 and "20 pairs in 2 files" in out and not (tmp_path / "run").exists(), err
    status, out, err = tiny("--steps", 12, *options)
    assert status == 0 and "photographs," not in out and "done" in out, err
    status, out, err = tiny("--seed", 1, *options)
    assert status == 1 and "holds records with another seed" in err
    status, out, err = tiny("--records", tmp_path / "records", "--candidates", 2)
    assert status == 2 and "--candidates goes with --data" in err
    (tmp_path / "records" / "train_SR_aug_X2_20-00001-of-00002.tfrecord").unlink()
    status, out, err = tiny("--records", tmp_path / "records")
    assert status == 1 and "holds 10 of 20 pairs: give --data" in err
    (tmp_path / "records" / "records.json").unlink()
    status, out, err = tiny("--prepare", *options)
    assert status == 1 and "holds records that were not written here: leave out --data" in err
    assert sorted(os.listdir(str(tmp_path / "records"))) == [".lock", "train_SR_aug_X2_20-00000-of-00002.tfrecord"]
    with lock_file(str(tmp_path / "records" / ".lock"), wait=False):
        status, out, err = tiny("--prepare", *options)
        assert status == 1 and "another process writes records to %s" % (tmp_path / "records") in err


def test_prefetching_ends_with_its_generator():
    before, made = threading.active_count(), []
    batches = patches.prefetch(lambda i: made.append(i) or i, 5, 1000)
    assert [next(batches) for _ in range(3)] == [5, 6, 7] and threading.active_count() == before + 1
    batches.close()
    deadline = time.time() + 10
    while threading.active_count() > before and time.time() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before and len(made) < 20

    def fails(i):
        raise ValueError("patch %d" % i)
    with pytest.raises(ValueError, match="patch 5"):
        next(patches.prefetch(fails, 5, 1000))


def test_tensorboard_is_told_where_a_run_resumed(photographs, tmp_path, tiny):
    options = ["--data", photographs, "--schedule", "halve", "--steps"]
    assert tiny(*options + [4])[0] == tiny(*options + [8])[0] == 0
    starts = [(event.session_log.status, event.step) for name in sorted(os.listdir(str(tmp_path / "run"))) if "tfevents" in name
              for event in tf.train.summary_iterator(str(tmp_path / "run" / name)) if event.HasField("session_log")]
    assert starts == [(tf.SessionLog.START, 4)]


def test_candidates_of_records_are_those_they_were_written_with(tmp_path, tiny):
    authors_record(tmp_path / "authors.tfrecord", 2, 12, 4)
    for folder, expected in ("one", 1), ("five", 5):
        status, out, err = tiny("--records", tmp_path, "--steps", 2, "--run", tmp_path / folder)
        assert status == 0 and "candidates %d," % expected in out, err
        assert json.loads((tmp_path / folder / "config.json").read_text())["candidates"] == expected
        (tmp_path / "records.json").write_text('{"candidates": 5}')


@pytest.mark.parametrize("threads", ["1", "2"])  # 2: each half of the batch in a thread of its own
def test_resumed_equals_uninterrupted_to_the_bit(photographs, tmp_path, threads):
    """Killed without warning, and resumed: the same weights, optimiser state, averages, skipped steps and log."""
    options = "--steps", "72", "--threads", threads, "--save-minutes", "0", "--skip-above", "1.2"
    whole = start(photographs, tmp_path / "whole", *options)
    broken = start(photographs, tmp_path / "broken", *options)
    while not (tmp_path / "broken" / "state" / "checkpoint").exists():
        assert broken.poll() is None
        time.sleep(0.01)
    broken.kill()
    broken.communicate()
    assert b"done" in whole.communicate()[0]
    resumed = start(photographs, tmp_path / "broken", *options)
    out = resumed.communicate()[0]
    assert b"resumed at step" in out and b"done" in out
    whole, broken = [state_values(tmp_path / name) for name in ("whole", "broken")]
    assert sorted(whole) == sorted(broken) and len(whole) == 4 * 21 - 6 + 4  # Muon, of six kernels, has one slot where Adam has two
    for name in whole:
        np.testing.assert_array_equal(whole[name], broken[name])
    logs = [[{key: record.get(key) for key in ("step", "rate", "psnr", "skipped")} for record in map(
        json.loads, (tmp_path / name / "log.jsonl").read_text().splitlines())] for name in ("whole", "broken")]
    assert logs[0] == logs[1] and sum(record["skipped"] or 0 for record in logs[0]) > 0
    files = sorted(os.listdir(str(tmp_path / "broken" / "state")))
    assert {"checkpoint", "state-72.data-00000-of-00001", "state-72.index"} <= set(files)
    assert not [name for name in files if "temp" in name]


def test_killed_at_ten_random_moments(photographs, tmp_path):
    status, out, err = run_script(os.path.join("tests", "kill_at_random.py"), 1, tmp_path / "jobs", photographs)
    assert status == 0 and "0 files lost, ended as uninterrupted\nkilled 10 times" in out, out + err


def test_ema_weights_are_swapped_in_and_out(small_network, photographs):
    training = build_training("32s", "x2", ADAM._replace(ema=0.9))
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        before = session.run(model_variables())
        for variable in training.averages:
            variable.load(np.ones(variable.shape.as_list()), session)
        with graph.averaged_weights(session, training):
            assert all((value == 1).all() for value in session.run(model_variables()))
        for ours, expected in zip(session.run(model_variables()), before):
            np.testing.assert_array_equal(ours, expected)


def test_transfer_of_weights(tmp_path):
    """x2 to x4 and x3, and a deeper model from a shallower one: what is new passes on what it gets."""
    def build(model, scale):
        tf.reset_default_graph()
        drsan(tf.placeholder(tf.float32, [None, None, None, 3], "LR"), model, scale)
        session = tf.Session()
        session.run(tf.global_variables_initializer())
        return session

    session = build("32s", "x2")
    prefix = checkpoints.save_weights(session, str(tmp_path), "32s", "x2")
    lr = np.random.RandomState(0).rand(1, 10, 12, 3)
    sr = session.run("DRAN/SR:0", {"LR:0": lr})
    before, upsampler, output = session.run(["DRAN/conv2d_%d/kernel:0" % i for i in (45, 46, 47)])
    session = build("32s", "x4")
    taken, fresh, _ = checkpoints.transfer_weights(session, prefix)
    assert fresh == ["DRAN/conv2d_47/kernel", "DRAN/conv2d_47/bias"] and len(taken) == 132
    for ours, expected in zip(session.run(["DRAN/conv2d_%d/kernel:0" % i for i in (45, 46, 48)]), (before, upsampler, output)):
        np.testing.assert_array_equal(ours, expected)
    rows, columns = np.mgrid[:6, :8].astype(np.float32)
    ramp = (2 * rows + 3 * columns)[None, ..., None] * np.ones(32, np.float32)
    kernel, bias = session.run(["DRAN/conv2d_47/kernel:0", "DRAN/conv2d_47/bias:0"])
    assert not bias.any()
    with tf.Graph().as_default(), tf.Session() as other:  # bilinear interpolation of a ramp is a ramp
        larger = other.run(tf.depth_to_space(tf.nn.conv2d(tf.constant(ramp), kernel, [1, 1, 1, 1], "SAME"), 2))
    rows, columns = (np.mgrid[:12, :16] - 0.5) / 2
    np.testing.assert_allclose(larger[0, 2:-2, 2:-2, 31], (2 * rows + 3 * columns)[2:-2, 2:-2], atol=1e-5)
    session = build("32s", "x3")
    taken, fresh, message = checkpoints.transfer_weights(session, prefix)
    assert fresh == [] and len(taken) == 132 and message == "132 variables taken from " + prefix
    ours = session.run("DRAN/conv2d_46/kernel:0").reshape([3, 3, 32, 3, 3, 32])
    corners = upsampler.reshape([3, 3, 32, 2, 2, 32])
    np.testing.assert_array_equal(ours[..., ::2, ::2, :], corners)
    np.testing.assert_allclose(ours[..., 0, 1, :], corners[..., 0, :, :].mean(axis=-2), atol=1e-6)
    np.testing.assert_allclose(ours[..., 1, 1, :], corners.mean(axis=(-3, -2)), atol=1e-6)
    session = build("48s", "x4")
    with pytest.raises(UserError, match=r"has the shape \[3, 3, 3, 32\], and this model's has \[3, 3, 3, 48\]"):
        checkpoints.transfer_weights(session, prefix)
    session = build("32m", "x2")  # four new DRAGs, each the identity
    taken, fresh, message = checkpoints.transfer_weights(session, prefix)
    assert message == "132 variables taken from %s, %d not: %s" % (prefix, len(fresh), " ".join(fresh))
    assert len(taken) == 132  # x0, four DRAGs, the convolution before the skip, upsampler and output
    assert {name.split("/")[1] for name in fresh if "block" in name} == {
        "conv_block%d%s" % (k, suffix) for k in range(5, 9)
        for suffix in ["prelualpha"] + ["_pReLU_%dalpha" % j for j in range(1, 9)]}
    for ours, expected in zip(session.run(["DRAN/conv2d_89/kernel:0", "DRAN/conv2d_91/kernel:0"]), (before, output)):
        np.testing.assert_array_equal(ours, expected)
    np.testing.assert_allclose(session.run("DRAN/SR:0", {"LR:0": lr}), sr, atol=1e-6)


@pytest.mark.parametrize("model, scale", [("32s", "x3"), ("32s", "x4"), ("32m", "x2")])
def test_transfer_without_tensorflow_is_the_same(model, scale, tmp_path):
    """weights.transfer() on arrays gives every bit that transfer_weights() loads, and does not change what it is given."""
    with tf.Graph().as_default(), tf.Session() as session:
        drsan(tf.placeholder(tf.float32, [None, None, None, 3], "LR"), "32s", "x2")
        session.run(tf.global_variables_initializer())
        prefix = checkpoints.save_weights(session, str(tmp_path), "32s", "x2")
        source = {v.op.name: session.run(v) for v in model_variables()}
    drsan(tf.placeholder(tf.float32, [None, None, None, 3], "LR"), model, scale)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        own = {v.op.name: session.run(v) for v in model_variables()}
        before = {name: value.copy() for name, value in own.items()}
        expected_taken = checkpoints.transfer_weights(session, prefix)[0]
        values, taken = transfer(source, own, "here")
        assert taken == expected_taken and list(values) == list(own)
        for variable in model_variables():
            name, expected = variable.op.name, session.run(variable)
            assert values[name].dtype == expected.dtype and values[name].tobytes() == expected.tobytes(), name
            np.testing.assert_array_equal(own[name], before[name])
        shapes = {name: value.shape for name, value in own.items()}
        drawn = initial_weights(shapes, 3)
    for name, value in own.items():  # the same law as TensorFlow's initializers
        assert drawn[name].shape == value.shape and drawn[name].dtype == np.float32
        if not name.endswith("/kernel"):
            assert not value.any() and not drawn[name].any()
        elif value.size > 5000:
            np.testing.assert_allclose(np.abs(drawn[name]).max(), np.abs(value).max(), rtol=0.01)
            np.testing.assert_allclose(drawn[name].std(), value.std(), rtol=0.05)
    np.testing.assert_array_equal(initial_weights(shapes, 3)["DRAN/conv2d/kernel"], drawn["DRAN/conv2d/kernel"])


def test_plot_of_runs(tmp_path):
    from tools import plot_training
    (tmp_path / "run").mkdir()
    log = tmp_path / "run" / "log.jsonl"
    log.write_text('{"loss": 0.5, "step": 1}\n{"psnr": 30, "step": 1}\n{"loss": 0.4, "step": 2}\n')
    curves = plot_training.read_curves(str(tmp_path / "run"))
    assert curves["loss"] == ((1, 2), (0.5, 0.4)) and curves["psnr"] == ((1,), (30,)) and curves["kernel_rms"] == ((), ())
    plot_training.plot([str(tmp_path / "run")], str(tmp_path / "a.png"))
    assert Image.open(str(tmp_path / "a.png")).size == (1200, 432)
    log.write_text(log.read_text() + '{"psnr": 31, "psnr_held_out": 29, "largest_dra": 0.5, "kernel_rms": 0.1, "step": 2}\n')
    curves = plot_training.read_curves(str(tmp_path / "run"))
    assert curves["psnr"] == ((2,), (29,)) and curves["largest_dra"] == ((2,), (0.5,)) and curves["kernel_rms"] == ((2,), (0.1,))
    plot_training.plot([str(tmp_path / "run")], str(tmp_path / "b.png"), health=True)
    drawn = np.asarray(Image.open(str(tmp_path / "b.png")).convert("RGB"), int)
    assert drawn.shape == (864, 1200, 3) and (drawn[432:].min(axis=2) < 100).any(axis=0).sum() > 600  # three more panels below
    assert sorted(os.listdir(str(tmp_path))) == ["a.png", "b.png", "run"]
    with pytest.raises(UserError, match="cannot read .*nothing"):
        plot_training.plot([str(tmp_path / "nothing")], str(tmp_path / "b.png"))
