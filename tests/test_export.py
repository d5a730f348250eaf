"""tools/pictures/export.py: what is written gives the output of the checkpoint, and is checked before."""
import importlib.util
import os
import sys

import utils
from conftest import call, run_script
from ops import tf
from tools.network import load_model
from tools.pictures import export, tiles

import numpy as np
import pytest

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("tf2onnx", "onnxruntime"))
LR = tiles.network_input(utils.read_image(utils.find_dataset("Sample", 2, "").pairs[2].hr)[200:213, 300:321])


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command with these arguments, into tmp_path / "out": (exit status, stdout, stderr)."""
    return lambda *arguments: call(monkeypatch, capsys, export.main, "--output", tmp_path / "out", *arguments)


def test_exported_models_give_the_same(run, tmp_path):
    """The SavedModel in a process of its own, too, which TensorFlow 2 warns of nothing there."""
    status, out, err = run()
    assert status == 0 and err.startswith("" if HAS_ONNX else "onnx is left out: ")
    with load_model("32s", "x2", gpu=-1) as network:
        expected = network.session.run(network.sr, {network.lr: LR})
    lines = [line for line in out.splitlines() if "DRSAN" in line]
    for line, name in zip(lines, export.EXPORTS):
        suffix, _, load_and_run = export.EXPORTS[name]
        path = str(tmp_path / "out" / ("DRSAN32sx2" + suffix))
        assert line.startswith(path)
        np.testing.assert_allclose(load_and_run(path, [LR])[0], expected, rtol=0, atol=1e-5)
    assert len(os.listdir(str(tmp_path / "out"))) == len(lines) == 2 + HAS_ONNX
    if not tf.__version__.startswith("1."):
        code = "import tensorflow as tf; model = tf.saved_model.load(%r); lr = tf.zeros([1, 4, 5, 3])\n" \
            "print(model.signatures['serving_default'](LR=lr)['SR'].shape)"
        status, out, err = run_script("-c", code % str(tmp_path / "out" / "DRSAN32sx2_saved_model"))
        assert (status, out) == (0, "(1, 8, 10, 3)\n")
        assert "WARNING:tensorflow" not in err and "reference variable" not in err


def test_a_wrong_export_is_not_kept(run, small_checkpoint, monkeypatch, tmp_path):
    suffix, write, load_and_run = export.EXPORTS["frozen"]

    def off(path, images):
        return [sr + 2e-5 for sr in load_and_run(path, images)]

    monkeypatch.setitem(export.EXPORTS, "frozen", (suffix, write, off))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "DRSAN32sx2.pb").write_bytes(b"earlier")
    status, out, err = run("--format", "frozen", "--checkpoint", small_checkpoint)
    assert status == 1 and "DRSAN32sx2.pb is not kept: its output differs by 2." in err
    assert (tmp_path / "out" / "DRSAN32sx2.pb").read_bytes() == b"earlier"
    assert len(os.listdir(str(tmp_path / "out"))) == 1


def test_what_is_missing_is_named(run, small_checkpoint, monkeypatch, tmp_path):
    for name in "tf2onnx", "tf2onnx.convert":
        monkeypatch.setitem(sys.modules, name, None)
    status, out, err = run("--format", "onnx", "--checkpoint", small_checkpoint)
    assert status == 1 and err.endswith("pip install tf2onnx onnxruntime\n") and len(err.splitlines()) == 1
    assert os.listdir(str(tmp_path / "out")) == []
    status, out, err = run("--checkpoint", tmp_path / "nowhere" / "a")
    assert status == 1 and err.startswith("error: no checkpoint at ")
