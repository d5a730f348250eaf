"""tools/pictures/export.py: what is written gives the output of the checkpoint, and is checked before it is kept."""
import os
import sys

import numpy as np
import pytest

import utils
from conftest import call
from model import drsan
from ops import tf
from tools import checkpoints
from tools.pictures import export, tiles

# of a photograph: what no photograph has, the network may amplify until float32 does not suffice for 1e-5
IMAGE = tiles.network_input(utils.read_image(utils.find_dataset("Sample", 2, "").pairs[2].hr)[200:213, 300:321])


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command with these arguments, with its output in tmp_path: (exit status, stdout, stderr)."""
    return lambda *arguments: call(monkeypatch, capsys, export.main, "--out", tmp_path, *arguments)


def expected():
    """SR of IMAGE by the shipped 32s x2."""
    with tf.Graph().as_default():
        lr = tf.placeholder(tf.float32, [1, None, None, 3])
        sr = drsan(lr, "32s", "x2")
        with tf.Session() as session:
            checkpoints.restore_weights(session, checkpoints.find_checkpoint("32s", "x2"))
            return session.run(sr, {lr: IMAGE})


@pytest.mark.parametrize("name", list(export.FORMATS))
def test_exported_model_gives_the_same(run, name, tmp_path):
    if name == "onnx":
        pytest.importorskip("tf2onnx", reason="the export to ONNX needs it: pip install tf2onnx onnxruntime")
        pytest.importorskip("onnxruntime", reason="the export to ONNX needs it: pip install tf2onnx onnxruntime")
    status, out, err = run("--format", name)
    suffix, _, load_and_run = export.FORMATS[name]
    path = str(tmp_path / ("DRSAN32sx2" + suffix))
    assert status == 0 and err == "" and out.splitlines()[-1].startswith(path)
    assert os.listdir(str(tmp_path)) == [os.path.basename(path)]
    result, = load_and_run(path, [IMAGE])
    assert result.shape == (1, 26, 42, 3)
    np.testing.assert_allclose(result, expected(), rtol=0, atol=1e-5)


def test_a_wrong_export_is_not_kept(run, monkeypatch, tmp_path):
    suffix, write, load_and_run = export.FORMATS["frozen"]

    def off(path, images):
        return [sr + 2e-5 for sr in load_and_run(path, images)]

    monkeypatch.setitem(export.FORMATS, "frozen", (suffix, write, off))
    (tmp_path / "DRSAN32sx2.pb").write_bytes(b"earlier")
    status, out, err = run("--format", "frozen")
    assert status == 1 and "DRSAN32sx2.pb is not kept: its output differs by 2." in err
    assert (tmp_path / "DRSAN32sx2.pb").read_bytes() == b"earlier" and len(os.listdir(str(tmp_path))) == 1


def test_missing_packages_are_named(run, monkeypatch, tmp_path):
    for name in "tf2onnx", "tf2onnx.convert":
        monkeypatch.setitem(sys.modules, name, None)
    status, out, err = run("--format", "onnx")
    assert status == 1 and err.endswith("pip install tf2onnx onnxruntime\n") and len(err.splitlines()) == 1
    assert os.listdir(str(tmp_path)) == []


def test_weights_that_are_not_there(run):
    status, out, err = run("--model", "32l", "--scale", "x4")
    assert status == 1 and err.startswith("error: no checkpoint for 32l x4 in checkpoints/x4/32l")
