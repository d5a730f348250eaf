"""Checkpoints: found, identified, read, written, and exchanged with the other TensorFlow."""
import os
import subprocess

from conftest import ROOT, golden_image
from model import drsan, model_variables
from ops import tf
from tools import checkpoints, command
from tools.command import UserError
from tools.files import write_json

import numpy as np
import pytest


def build(model="32s", scale="x2"):
    tf.reset_default_graph()
    lr = tf.placeholder(tf.float32, [None, None, None, 3])
    sr = drsan(lr, model, scale)
    session = tf.Session()
    session.run(tf.global_variables_initializer())
    return lr, sr, session


def test_weights_round_trip(tmp_path):
    lr, sr, session = build()
    expected = session.run(sr, {lr: golden_image(8, 6)})
    prefix = checkpoints.save_weights(session, str(tmp_path / "best"), "32s", "x2")
    contract = sorted(variable.op.name for variable in model_variables())
    assert sorted(tf.train.NewCheckpointReader(prefix).get_variable_to_shape_map()) == contract
    for path in prefix, prefix + ".index", prefix + ".data-00000-of-00001", prefix + ".meta", str(tmp_path):
        assert checkpoints.find_checkpoint("32s", "x2", path) == prefix
    lr, sr, session = build()
    checkpoints.restore_weights(session, prefix)
    np.testing.assert_array_equal(session.run(sr, {lr: golden_image(8, 6)}), expected)
    os.remove(str(tmp_path / "best" / "checkpoint"))  # or one that names another machine's paths
    assert checkpoints.find_checkpoint("32s", "x2", str(tmp_path / "best")) == prefix
    checkpoints.save_weights(session, str(tmp_path / "state"), "32s", "x2")
    assert checkpoints.find_checkpoint("32s", "x2", str(tmp_path)) == prefix  # of a run, the best


@pytest.mark.parametrize("model, scale, variable", [
    ("32m", "x2", "conv2d_45/kernel"), ("48s", "x2", "conv2d/kernel"), ("32s", "x4", "conv2d_47/kernel"),
    ("32s", "x3", "conv2d_46/kernel")])
def test_checkpoint_of_another_model_names_the_variable(weights, model, scale, variable):
    session = build(model, scale)[2]
    with pytest.raises(UserError, match="another model or scale: DRAN/%s should" % variable):
        checkpoints.restore_weights(session, weights)


def test_checkpoints_in_a_folder_whose_name_is_a_pattern(tmp_path):
    prefix = checkpoints.save_weights(build()[2], str(tmp_path / "run[1]"), "32s", "x2")
    for _ in range(2):
        assert checkpoints.checkpoint_prefix(str(tmp_path / "run[1]")) == prefix
        with pytest.raises(UserError, match=r"characters \*\?\[ in .* for a pattern: rename the folder"):
            checkpoints.find_checkpoint("32s", "x2", str(tmp_path / "run[1]"))
        (tmp_path / "run[1]" / "checkpoint").write_text("")


def test_ablations_and_damaged_checkpoints_are_refused(weights):
    """RSA has no variables: names and shapes are those of the whole network."""
    session, config = build()[2], os.path.join(os.path.dirname(weights), "config.json")
    write_json(config, {"without": "rsa"})
    checkpoints.restore_weights(session, weights, "rsa")
    for load in checkpoints.restore_weights, checkpoints.transfer_weights:
        with pytest.raises(UserError, match="was trained without rsa: it needs test.py --without rsa"):
            load(session, weights)
    write_json(config, {"without": None})
    with pytest.raises(UserError, match="with all parts of the network: leave out --without"):
        checkpoints.restore_weights(session, weights, "rsa")
    os.truncate(weights + ".data-00000-of-00001", 1000)
    with pytest.raises(UserError, match="cannot read the checkpoint"):
        checkpoints.restore_weights(session, weights)


def test_missing_checkpoint_says_how_to_get_one(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"no weights for 32l x3 .*; the paper publishes none; .* train.py "
                                        "--model 32l --scale x3"):
        checkpoints.find_checkpoint("32l", "x3")
    monkeypatch.setattr(checkpoints, "shipped_checkpoints", lambda folder: {("x2", "32s"): "prefix"})
    monkeypatch.setattr(checkpoints, "SHIPPED", str(tmp_path))
    with pytest.raises(UserError, match=r"\(there: 32s_x2\); .* test.py --checkpoint authors --download"):
        checkpoints.find_checkpoint("32l", "x2")
    for path in "nowhere", "":
        with pytest.raises(UserError, match="no checkpoint at %s:" % path):
            checkpoints.find_checkpoint("32s", "x2", path)


@pytest.mark.parametrize("before, own, is_noted", [
    ([], ["a", "b"], False), ([], ["a"], True), ([], None, True), ([{"held_out": ["b"]}], ["a", "b"], True),
    ([{"held_out": ["a", "b"]}], ["b", "a", "c"], False), ([{"checkpoint": "theirs"}], ["a", "b"], True)])
def test_weights_that_have_seen_what_is_held_out_are_noted(tmp_path, monkeypatch, capsys, before, own,
                                                           is_noted):
    monkeypatch.setattr(command, "_noticed", set())
    config = dict({"trained_before": before}, **({"held_out": own} if own else {}))
    write_json(str(tmp_path / "config.json"), config)
    checkpoints.note_seen(str(tmp_path / "weights"), ["a", "b"])
    assert ("may have been trained on photographs that are held out" in capsys.readouterr().err) == is_noted


EXCHANGE = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
import numpy as np
from tools import checkpoints
from conftest import golden_image
from test_checkpoints import build
lr, sr, session = build()
checkpoints.save_weights(session, {folder!r}, "32s", "x2")
np.save({folder!r} + "/sr.npy", session.run(sr, {{lr: golden_image(20, 30)}}))
"""


def test_checkpoints_go_both_ways(request, tmp_path):
    """Weights written under the other TensorFlow give the same SR here."""
    other = request.config.getoption("--other-python")
    if not other:
        pytest.skip("needs --other-python")
    code = EXCHANGE.format(root=ROOT, tests=os.path.join(ROOT, "tests"), folder=str(tmp_path))
    subprocess.check_call([other, "-c", code])
    lr, sr, session = build()
    checkpoints.restore_weights(session, checkpoints.find_checkpoint("32s", "x2", str(tmp_path)))
    ours = session.run(sr, {lr: golden_image(20, 30)})
    np.testing.assert_allclose(ours, np.load(str(tmp_path / "sr.npy")), rtol=0, atol=1e-4)
