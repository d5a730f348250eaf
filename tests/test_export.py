"""tools/pictures/export.py: what is written gives the output of the checkpoint, and is checked before it is kept."""
import os
import sys

import utils
from conftest import ROOT, call, run_script
from model import drsan
from ops import tf
from tools import checkpoints
from tools.pictures import export, tiles

import numpy as np
import pytest

# of a photograph: what no photograph has, the network may amplify until float32 does not suffice for 1e-5
IMAGE = tiles.network_input(utils.read_image(utils.find_dataset("Sample", 2, "").pairs[2].hr)[200:213, 300:321])


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command with these arguments, with its output in tmp_path: (exit status, stdout, stderr)."""
    return lambda *arguments: call(monkeypatch, capsys, export.main, "--output", tmp_path, *arguments)


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
    status, out, err = run()  # asked for by nobody
    assert status == 0 and err.startswith("onnx is left out: ") and len(err.splitlines()) == 1
    assert sorted(os.listdir(str(tmp_path))) == ["DRSAN32sx2.pb", "DRSAN32sx2_saved_model"]


def test_saved_model_loads_without_warnings(run, tmp_path):
    """As README says, in a process of its own: TensorFlow 2 warns on stderr, of which this project sees to nothing there."""
    if tf.__version__.startswith("1."):
        pytest.skip("TensorFlow 2's own way to load it")
    assert run("--format", "saved_model")[0] == 0
    code = "import tensorflow as tf; model = tf.saved_model.load(%r); lr = tf.zeros([1, 4, 5, 3])\n" \
        "print(model.signatures['serving_default'](LR=lr)['SR'].shape)" % str(tmp_path / "DRSAN32sx2_saved_model")
    status, out, err = run_script("-c", code)
    assert (status, out) == (0, "(1, 8, 10, 3)\n") and "WARNING:tensorflow" not in err and "reference variable" not in err


def test_weights_that_are_not_there(run):
    status, out, err = run("--model", "32l", "--scale", "x4")
    assert status == 1 and err.startswith("error: no weights for 32l x4 in checkpoints (there: ")


def test_a_checkpoint_tells_model_and_scale(run, tmp_path):
    assert run("--checkpoint", os.path.join(ROOT, "checkpoints", "x3", "48s"), "--format", "frozen")[0] == 0
    assert os.listdir(str(tmp_path)) == ["DRSAN48sx3.pb"]
