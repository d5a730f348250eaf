"""tools/gpu/: tiles, training with the exported graph, the schedule, and the way back to a checkpoint."""
import json
import os
import signal

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="the tools that train with JAX need it: pip install jax (Python 3.11 or later)")
jax.config.update("jax_disable_most_optimizations", True)  # most of the time goes into compiling

from conftest import read_log
from jax_tools import load_golden, save_images, start_training, textures, train
from model import model_variables
from ops import tf
from tools import network, ship
from tools.checkpoints import checkpoint_config, checkpoint_prefix
from tools.data import pack_tiles, parts
from tools.gpu import files, import_weights, tiles, train_jax, training
from tools.gpu.export_graph import export_graph
from tools.gpu.jax_graph import read_graph
from tools.paper import tables
from tools.training.graph import build_training
from tools.training.recipes import OPTIMIZERS, Recipe, learning_rate, make_recipe
from tools.command import UserError
from tools.files import write_npz
import utils
from utils import downscale

pytestmark = pytest.mark.usefixtures("tiny_model")
RECIPE = Recipe(1e-3, "cosine", 5, 200, 4, 8, 1, 0.99, "adam", 3, 10)


# ----------------------------------------------------------------------------------------------------------- tiles

def test_packed_tiles_are_the_images(tmp_path, random, run_tool, capsys):
    images = [random.randint(256, size=(h, w, 3)).astype(np.uint8) for h, w in [(31, 24), (24, 36), (40, 40), (24, 24)]]
    source, parts = save_images(tmp_path / "source", images), str(tmp_path / "parts")
    run_tool(pack_tiles, source, parts, "--mebibytes", 0.025)
    lines = capsys.readouterr().out.splitlines()
    names = ["part-%03d.tar" % i for i in range(len(lines))]
    assert len(names) > 1 and sorted(os.listdir(parts)) == ["held_out.json"] + names
    assert all(os.path.getsize(os.path.join(parts, name)) <= 0.025 * 2 ** 20 for name in names)
    pairs = tiles.load_pairs(parts, 3, 2)
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
    (_, hr), = tiles.load_pairs(str(tmp_path / "out"), 2, 1)
    np.testing.assert_array_equal(hr, image[3:27])


def test_damaged_parts_are_named(tmp_path):
    (tmp_path / "part-000.tar").write_bytes(b"x" * 1000)
    with pytest.raises(UserError, match="part-000.tar"):
        tiles.load_pairs(str(tmp_path), 2, 1)
    with pytest.raises(UserError, match="no part-000.tar and no image in"):
        tiles.load_pairs(str(tmp_path / "nowhere"), 2, 1)


@pytest.mark.parametrize("scale", [2, 3])
def test_batches_are_all_positions_and_turns(scale):
    """Tiles whose pixels say where they are: LR (tile, y, x), HR the same with the position within the LR pixel."""
    patch, pairs = 3, []
    for tile, (height, width) in enumerate([(5, 4), (3, 6), (2, 9)]):  # the last is too small
        lr = np.stack(np.broadcast_arrays(tile, *np.mgrid[:height, :width]), 2).astype(np.uint8)
        hr = np.stack(np.broadcast_arrays(tile, *np.mgrid[:scale * height, :scale * width]), 2).astype(np.uint8)
        pairs.append((lr, hr))
    stacked = tiles.stack_tiles(pairs, patch)
    patches = tiles.draw_patches(jax.random.key(0), stacked, 2000)
    lr, hr = [np.asarray(batch) for batch in tiles.cut_patches(stacked, patches, patch, scale)]
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
    stacked = tiles.stack_tiles(pairs, 5)
    key = jax.random.key(3)
    candidates = [np.asarray(values).reshape(6, 4) for values in tiles.draw_patches(key, stacked, 24)]
    taken = np.array(tiles.draw_detailed_patches(key, stacked, 6, 5, 4)).T
    for i in range(6):
        patches = [pairs[tile][0][y:y + 5, x:x + 5].astype(float) for tile, y, x, _ in zip(*[values[i] for values in candidates])]
        details = [np.abs(np.diff(one, axis=0)).mean() + np.abs(np.diff(one, axis=1)).mean() for one in patches]
        assert [values[i, np.argmax(details)] for values in candidates] == list(taken[i])


def test_tiles_that_are_all_too_small():
    with pytest.raises(UserError, match="no tile is as large as a patch of 9"):
        tiles.stack_tiles([(np.zeros([8, 20, 3], np.uint8), np.zeros([16, 40, 3], np.uint8))], 9)


# -------------------------------------------------------------------------------------------------------- training

@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_three_steps_equal_tensorflow(session, optimizer):
    recipe = RECIPE._replace(optimizer=optimizer)
    graph = read_graph(export_graph("tiny", "x2"))
    stacked = tiles.stack_tiles([(downscale(hr, 2), hr) for hr in textures(3, 40, 40)], RECIPE.patch)
    with tf.Graph().as_default(), tf.Session() as session:
        ours = build_training("tiny", "x2", recipe)
        session.run(tf.global_variables_initializer())
        weights = load_golden(session)
        session.run([tf.assign(average, variable) for variable, average in zip(model_variables(), ours.averages)])
        session.run(ours.step.initializer, {ours.step.initializer.inputs[1]: 5})
        state = dict(training.new_state(weights, recipe, 7), Variable=np.int32(5))
        rates, expected_losses = np.array([learning_rate(RECIPE, i) for i in (5, 6, 7)], np.float32), []
        for i in (5, 6, 7):
            key = jax.random.fold_in(jax.random.wrap_key_data(state["random_key"]), i)
            patches = tiles.draw_patches(key, stacked, RECIPE.batch)
            lr, hr = tiles.cut_patches(stacked, patches, RECIPE.patch, 2)
            expected_losses.append(session.run([ours.loss, ours.train], {
                ours.lr: np.asarray(lr), ours.hr: np.asarray(hr), ours.rate: rates[i - 5]})[0])
        expected = dict(zip([v.op.name for v in tf.global_variables()], session.run(tf.global_variables())))
    state, (losses, norms, skipped) = training.run_steps(graph, recipe, "float32", state, stacked, rates)
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
    before, _, bad = training.guarded_update(training.new_state(weights, recipe, 0), good, 0.1, 1e-3, recipe)
    assert not bad and before["Variable"] == 1 and np.isinf(before["gradient_norms"][:-1]).all()
    np.testing.assert_allclose(before["gradient_norms"][-1], norm, rtol=1e-4)
    before["gradient_norms"] = np.float32([np.inf] * 50 + [norm] * 51)
    state = before
    for i, (factor, loss) in enumerate([(np.nan, 0.1), (1, np.inf), (1, 11), (10.1, 0.1)], 1):
        state, _, bad = training.guarded_update(
            state, {name: factor * value for name, value in good.items()}, loss, 1e-3, recipe)
        assert bad and state["Variable"] == 1 + i and state["skipped_in_a_row"] == i
        for name in weights, before:
            for key in set(name) - {"Variable", "skipped_in_a_row", "gradient_norms"}:
                np.testing.assert_array_equal(state[key], before[key], key)
    np.testing.assert_allclose(state["gradient_norms"][-2:], [norm, 10.1 * norm], rtol=1e-4)  # finite ones are noted
    fifth, _, _ = training.guarded_update(state, good, np.nan, 1e-3, recipe)
    frozen, _, _ = training.guarded_update(fifth, good, 0.1, 1e-3, recipe)
    for name in frozen:
        np.testing.assert_array_equal(frozen[name], fifth[name], name)
    again, _, bad = training.guarded_update(state, {name: 9.9 * value for name, value in good.items()}, 0.1, 1e-3, recipe)
    assert not bad and again["skipped_in_a_row"] == 0 and (again["DRAN/conv2d/kernel"] != weights["DRAN/conv2d/kernel"]).all()


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
    parts.write_held_out(str(folder / "tiles"), ["a.png"])
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "cache")
    yield folder
    del os.environ["JAX_COMPILATION_CACHE_DIR"]


def options(tiny, run, **changes):
    values = dict(graph=tiny / "tiny_x2.json", data=tiny / "tiles", valid=tiny / "tiles", run=run, recipe="fast",
                  warmup=5, steps=200, batch=4, patch=8, dispatch=20, valid_every=100, save_minutes=0, workers=1)
    values.update(changes)
    return [text for key, value in values.items() for text in ("--" + key.replace("_", "-"), value)]


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
    process = start_training(arguments)
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
    state, config, _ = files.load_state(str(run / "state.npz"))
    expected, expected_config, _ = files.load_state(str(trained[0] / "state.npz"))
    assert config == expected_config and set(state) == set(expected)
    for name in expected:
        np.testing.assert_array_equal(state[name], expected[name], name)


def test_stopped_at_once_saves_the_state(tiny, tmp_path, run_tool, capsys, monkeypatch):
    monkeypatch.setattr(train_jax, "stop_on_signals", lambda: [signal.SIGINT])
    assert run_tool(train_jax, *options(tiny, tmp_path / "run")) == 130
    assert capsys.readouterr().out.splitlines()[-1] == "stopped at step 0; the same command resumes"
    state, config, trained = files.load_state(str(tmp_path / "run" / "state.npz"))
    with np.load(str(tiny / "tiny_x2.npz")) as weights:
        for name in weights:
            np.testing.assert_array_equal(state[name], weights[name])
    assert state["Variable"] == 0 and config["model"] == "tiny" and config["steps"] == 200 and trained["trained_seconds"] == 0


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    path = str(tmp_path / "state.npz")
    state = {"Variable": np.int32(1), "DRAN/a": np.float32([1, 2])}
    files.save_state(path, state, {}, {})
    with pytest.raises(UserError, match="weights are not finite at step 2: lower --rate, in another --run; .*npz keeps the last"):
        files.save_state(path, {"Variable": np.int32(2), "DRAN/a": np.float32([1, np.nan])}, {}, {})
    np.testing.assert_array_equal(files.load_state(path)[0]["DRAN/a"], [1, 2])


@pytest.fixture
def optimized(tiny):
    """Within this test, programs are optimized, and those of the trainings in other processes are found."""
    jax.config.update("jax_disable_most_optimizations", False)
    jax.config.update("jax_compilation_cache_dir", str(tiny / "cache"))
    yield
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_disable_most_optimizations", True)


def test_a_training_that_diverges_goes_on_from_its_last_good_weights(
        tiny, trained, optimized, tmp_path, run_tool, monkeypatch, capsys):
    arguments = options(tiny, tmp_path / "run", steps=60)
    monkeypatch.setattr(train_jax, "stop_on_signals", lambda: [signal.SIGINT])
    run_tool(train_jax, *arguments)
    monkeypatch.setattr(train_jax, "stop_on_signals", list)
    kept = files.load_state(str(tmp_path / "run" / "state.npz"))[0]
    guarded = training.guarded_update
    monkeypatch.setattr(training, "guarded_update", lambda state, gradients, loss, rate, recipe: guarded(
        state, gradients, training.jnp.where(state["Variable"] >= 24, np.nan, loss), rate, recipe))
    training.run_steps.clear_cache()
    with pytest.raises(UserError, match="diverges at step 29, with a loss of .* the same command goes on with other patches"):
        run_tool(train_jax, *arguments)
    training.run_steps.clear_cache()
    state = files.load_state(str(tmp_path / "run" / "state.npz"))[0]
    assert state["Variable"] == 29 and set(state) == set(kept)
    assert any((state[name] != kept[name]).any() for name in files.weight_names(kept))  # saved at step 20
    monkeypatch.setattr(training, "guarded_update", guarded)
    run_tool(train_jax, *arguments)
    out = capsys.readouterr().out
    assert "resumed at step 29\n" in out and out.splitlines()[-1].startswith("done: ")


def test_damaged_files_are_named(tiny, trained, tmp_path):
    for source, name, read in [(trained[0], "state.npz", files.load_state), (tiny, "tiny_x2.npz", files.read_trained)]:
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


def test_imported_weights_are_the_averages(trained, tmp_path, run_tool, tf_graph, capsys):
    run_tool(import_weights, trained[0] / "state.npz", tmp_path / "out")
    assert "tiny x2 after 200 steps" in capsys.readouterr().out
    reader = tf.train.NewCheckpointReader(checkpoint_prefix(str(tmp_path / "out")))
    state, _, _ = files.load_state(str(trained[0] / "state.npz"))
    names = files.weight_names(state)
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
                    data={"folder": str(tiny / "tiles"), "files": 6}, valid="Sample", held_out=["a.png"])
    assert {key: config[key] for key in config if key not in ("sha256", "trained_seconds", "validation_psnr")} == expected
    with network.load_model(checkpoint=prefix, gpu=-1) as model:
        pairs = [utils.read_pair(pair, 2) for pair in utils.find_dataset("Sample", 2, None).pairs]
        scores = [utils.psnr_y(model.upscale(lr), hr, 2) for lr, hr in pairs]
    assert config["validation_psnr"] == pytest.approx(np.mean(scores), abs=1e-3)
    seconds = [record["time"] for record in read_log(trained[0])]
    assert 0 <= config["trained_seconds"] <= seconds[-1] - seconds[0] + 60
    assert "| x2/tiny | fast: muon, rate 0.001, cosine, batch 4, patch 8, best of 3, EMA 0.999, float32, decay 1 | - | 200 of 200 |" in (
        tables.to_checkpoints([], {("x2", "tiny"): prefix}))


def test_unequal_outputs_are_not_imported(trained, tmp_path, run_tool, monkeypatch, tf_graph):
    upscale = training.upscale
    monkeypatch.setattr(training, "upscale", lambda *args: upscale(*args) + 0.01)
    with pytest.raises(UserError, match="differ by"):
        run_tool(import_weights, trained[0] / "state.npz", tmp_path / "out")
    assert not (tmp_path / "out").exists()
