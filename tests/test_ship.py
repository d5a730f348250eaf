"""tools/ship.py: from the best weights of a run to checkpoints/."""
import json
import os

from conftest import call
from model import drsan, model_variables
from ops import tf
from tools import checkpoints, gate, ship
from tools.files import short_path, write_json
from tools.paper import tables

import numpy as np
import pytest


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, small_network):
    """Run ship.py with these arguments, to `checkpoints`: (exit status, stdout, stderr). Random weights are
    not held to the gate."""
    monkeypatch.setattr(ship, "hard_pictures", list)
    target = tmp_path / "checkpoints"
    return lambda *arguments: call(monkeypatch, capsys, ship.main, *arguments, "--to", target)


@pytest.fixture
def shipped(tmp_path):
    return tmp_path / "checkpoints" / "x2" / "32s"


def make_run(folder, init_from=None, **config):
    """The folder `best` of a run, with random weights, and this in its config; returns the weights."""
    folder.mkdir(parents=True)
    tf.reset_default_graph()
    drsan(tf.placeholder(tf.float32, [None, None, None, 3]), "32s", "x2")
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        tf.train.Saver(model_variables()).save(
            session, str(folder / "DRSAN32sx2"), global_step=70, write_meta_graph=False)
        values = session.run(model_variables())
    before = checkpoints.checkpoint_prefix(str(init_from)) or init_from
    known = dict(
        model="32s", scale="x2", init_from=init_from and str(init_from), recipe="fast", optimizer="muon",
        trained_before=checkpoints.training_history(before) if init_from else [], rate=1e-3,
        schedule="cosine", batch=8, patch=32, candidates=3, ema=0.999, precision="float32", steps=90,
        trained_steps=70, trained_seconds=7200, data={"files": 5, "folder": "photos"},
        framework="TensorFlow", device="2 CPUs", validation_psnr=30.0)
    write_json(str(folder / "config.json"), dict(known, **config))
    return values


def test_shipped_weights_carry_their_history_and_digests(tmp_path, shipped, run, capsys):
    first, second = tmp_path / "first" / "best", tmp_path / "second" / "best"
    make_run(first)
    assert run(first)[0] == 0 and not (shipped / "log.jsonl").exists()
    values = make_run(second, shipped)
    (tmp_path / "second" / "log.jsonl").write_text('{"loss": 1, "step": 1}\n')
    status, out, err = run(second)
    assert status == 0 and out.strip().endswith("checkpoints/x2/32s/DRSAN32sx2"), err
    assert run(second)[0] == 0  # once more: its history is that from which it began
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
        assert "SHA-256" not in "".join(capsys.readouterr())
        config["sha256"]["DRSAN32sx2.index"] = "0" * 64
        write_json(str(shipped / "config.json"), config)
        checkpoints.restore_weights(session, str(shipped / "DRSAN32sx2"))
    assert "DRSAN32sx2.index is not the file that was trained" in "".join(capsys.readouterr())


def test_what_is_no_run_and_weights_that_explode_are_refused(tmp_path, run, monkeypatch):
    assert run(tmp_path)[0] == 1 and "usable config.json in %s" % tmp_path in run(tmp_path)[2]
    make_run(tmp_path / "rsa", without="rsa")
    assert "was trained without rsa: ablations are not shipped" in run(tmp_path / "rsa")[2]
    make_run(tmp_path / "best")
    monkeypatch.setattr(ship, "hard_pictures", lambda: gate.hard_pictures(2, 24))
    monkeypatch.setattr(gate, "LARGEST_MEAN", -1)
    status, _, err = run(tmp_path / "best")
    assert status == 1 and "fails on 2 of 2 hard pictures" in err
    assert not (tmp_path / "checkpoints").exists()


def test_worse_weights_are_refused(tmp_path, shipped, run):
    """And those of which it is not known; --replace takes them. Both figures are shown."""
    def ship(psnr, *options, **config):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        make_run(folder, validation_psnr=psnr, **config)
        out, err = run(folder, *options)[1:]
        reason = err.partition("error: ")[2].partition(":")[0]
        psnr = json.loads((shipped / "config.json").read_text())["validation_psnr"]
        figures = out.splitlines()[0].partition("; of the weights in %s: " % short_path(str(shipped)))[::2]
        return figures, reason, psnr

    worse, unknown = "these weights are worse", "which weights are better is not known"
    assert ship(35.176)[1:] == ("", 35.176)
    assert ship(14.27) == (("PSNR: 14.270 dB on Sample", "35.176 dB on Sample"), worse, 35.176)
    assert ship(36.0, valid="Set5") == (("PSNR: 36.000 dB on Set5", "35.176 dB on Sample"), unknown, 35.176)
    assert ship(None) == (("PSNR: unknown", "35.176 dB on Sample"), unknown, 35.176)
    assert ship(36.0, valid_share=0.01)[1:] == (unknown, 35.176)
    assert ship(36.0, valid_share=0.01, held_out=["a"])[1:] == (unknown, 35.176)
    held_out = dict(valid_share=0.2, data={"files": 5, "folder": "./photos"})
    assert ship(31, "--replace", valid_share=0.01, held_out=["a"])[1:] == ("", 31)
    assert ship(33, held_out=["a", "b"], **held_out)[1:] == (unknown, 31)
    assert ship(31.1, held_out=["a"], **held_out)[1:] == ("", 31.1)


@pytest.mark.parametrize("done", [0, 1])
def test_a_kill_in_the_middle_of_a_swap_loses_nothing(tmp_path, shipped, run, monkeypatch, done):
    """done: how many of the two renames; the weights before are found in both cases, and the same command
    goes on."""
    old, new = [make_run(tmp_path / name)[0] for name in ("old", "new")]
    assert run(tmp_path / "old")[0] == 0
    rename, renames = os.rename, []

    def killed(*paths):
        renames.append(paths)
        if len(renames) > done:
            raise SystemExit(137)
        rename(*paths)

    def first_weights(folder):
        return tf.train.NewCheckpointReader(str(folder / "DRSAN32sx2")).get_tensor("DRAN/conv2d/kernel")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", killed)
        assert run(tmp_path / "new")[0] == 137
    kept = shipped if done == 0 else shipped.with_name("32s.old")
    np.testing.assert_array_equal(first_weights(kept), old)
    np.testing.assert_array_equal(first_weights(shipped.with_name("32s.tmp")), new)
    status, out, _ = run(tmp_path / "new")
    assert status == 0 and out.startswith("PSNR: 30.000 dB on Sample; of ")  # those before are there again
    np.testing.assert_array_equal(first_weights(shipped), new)
    assert os.listdir(str(shipped.parent)) == ["32s"]


def test_the_table_of_weights_that_began_as_others(tmp_path, run):
    """Of the training of someone else's weights nothing is known: the table names them where this project's
    training began."""
    make_run(tmp_path / "best", "their/weights")
    assert run(tmp_path / "best")[0] == 0
    found = checkpoints.shipped_checkpoints(str(tmp_path / "checkpoints"))
    table = tables.to_checkpoints([], found).splitlines()
    assert table[-1] == (
        "| x2/32s | their/weights | `--warmup=0 --steps=90 --decay=0 --skip-above=0 --precision=float32`, "
        "weights of step 70 | 2.00, 2 CPUs |")
    assert table[-3].startswith("| model |")
