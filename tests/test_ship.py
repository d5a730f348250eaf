"""tools/ship.py: from the best weights of a run to checkpoints/."""
import json

import numpy as np
import pytest

import utils
from conftest import call
from model import drsan, model_variables
from ops import tf
from tools import checkpoints, ship
from tools.paper import results, tables


@pytest.fixture
def run(monkeypatch, capsys):
    """Run ship.py with these arguments: (exit status, stdout, stderr)."""
    return lambda *arguments: call(monkeypatch, capsys, ship.main, *arguments)


def make_run(folder, init_from):
    """The folder `best` of a run, with random weights; returns their values."""
    folder.mkdir(parents=True)
    tf.reset_default_graph()
    drsan(tf.placeholder(tf.float32, [None, None, None, 3]), "32s", "x2")
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        tf.train.Saver(model_variables()).save(session, str(folder / "DRSAN32sx2"), global_step=70, write_meta_graph=False)
        values = session.run(model_variables())
    utils.write_json(str(folder / "config.json"), dict(
        model="32s", scale="x2", init_from=init_from and str(init_from),
        trained_before=checkpoints.training_history(checkpoints.checkpoint_prefix(str(init_from)) or init_from) if init_from else [], recipe="fast", optimizer="muon", rate=1e-3,
        schedule="cosine", batch=8, patch=32, candidates=3, ema=0.999, precision="float32", steps=90, trained_steps=70,
        trained_seconds=7200, data={"files": 5}, framework="TensorFlow", device="2 CPUs"))
    return values


def test_shipped_weights_carry_their_history_and_digests(tmp_path, run):
    first, second = tmp_path / "first" / "best", tmp_path / "second" / "best"
    make_run(first, None)
    shipped = tmp_path / "checkpoints" / "x2" / "32s"
    assert run(first, "--to", tmp_path / "checkpoints")[0] == 0
    assert not (shipped / "log.jsonl").exists()
    values = make_run(second, shipped)
    (tmp_path / "second" / "log.jsonl").write_text('{"loss": 1, "step": 1}\n')
    status, out, err = run(second, "--to", tmp_path / "checkpoints")
    assert status == 0 and out.strip().endswith("checkpoints/x2/32s/DRSAN32sx2"), err
    assert run(second, "--to", tmp_path / "checkpoints")[0] == 0  # once more: its history is that from which it began
    assert sorted(path.name for path in shipped.iterdir()) == [
        "DRSAN32sx2.data-00000-of-00001", "DRSAN32sx2.index", "checkpoint", "config.json", "log.jsonl"]
    assert (shipped / "log.jsonl").read_text() == '{"loss": 1, "step": 1}\n'
    config = json.loads((shipped / "config.json").read_text())
    assert [before["init_from"] for before in config["trained_before"]] == [None]
    assert config["init_from"] == str(shipped) and "sha256" not in config["trained_before"][0]

    with tf.Session() as session:
        checkpoints.restore_weights(session, str(shipped / "DRSAN32sx2"))
        for ours, expected in zip(session.run(model_variables()), values):
            np.testing.assert_array_equal(ours, expected)


def test_the_table_of_weights_that_began_as_others(tmp_path, run):
    """Of the training of someone else's weights nothing is known: the table names them where this project's training began."""
    make_run(tmp_path / "best", "their/weights")
    assert run(tmp_path / "best", "--to", tmp_path / "checkpoints")[0] == 0
    table = tables.to_checkpoints([], results.shipped_checkpoints(str(tmp_path / "checkpoints"))).splitlines()
    assert table[-1] == ("| x2/32s | fast: muon, rate 0.001, cosine, batch 8, patch 32, best of 3, EMA 0.999, float32 | their/weights "
                         "| 70 of 90 | 2.00 | 5 | TensorFlow | 2 CPUs |")
    assert table[-3].startswith("| model |")


def test_a_changed_checkpoint_is_named(tmp_path, run, capsys):
    make_run(tmp_path / "best", None)
    assert run(tmp_path / "best", "--to", tmp_path / "checkpoints")[0] == 0
    shipped = tmp_path / "checkpoints" / "x2" / "32s"
    with tf.Session() as session:
        checkpoints.restore_weights(session, str(shipped / "DRSAN32sx2"))
        assert "SHA-256" not in "".join(capsys.readouterr())
        config = json.loads((shipped / "config.json").read_text())
        config["sha256"]["DRSAN32sx2.index"] = "0" * 64
        (shipped / "config.json").write_text(json.dumps(config))
        checkpoints.restore_weights(session, str(shipped / "DRSAN32sx2"))
    assert "DRSAN32sx2.index is not the file that was trained" in "".join(capsys.readouterr())


def test_what_is_not_a_run_is_one_line(tmp_path, run):
    status, out, err = run(tmp_path)
    assert status == 1 and "no usable config.json" in err
