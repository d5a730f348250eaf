"""DRA beyond the range that photographs have is replaced: the rule, its measurement, the gate, and the
shipped weights."""
import json
import os
import shutil

from conftest import call
from model import model_variables
from ops import limit_dra, tf
from tools import checkpoints, gate
from tools.command import UserError
from tools.data import patches
from tools.files import write_json
from tools.network import Network
from tools.pictures import export as export_tool

import numpy as np
import pytest

LOW, HIGH = [-1.0, 0.0], [1.0, 2.0]


def test_dra_is_replaced_for_the_images_that_leave_the_range():
    dra = np.float32([[-1, 2], [0.5, 2.5], [-1.5, 1], [np.nan, 1], [np.inf, 1]])[:, None, None]
    limited = limit_dra(tf.constant(dra), LOW, HIGH)
    with tf.Session() as session:
        values, flags = session.run([limited, "limited:0"])
    assert values[:, 0, 0].tolist() == [[-1, 2]] + 4 * [[0, 0]]
    assert flags[:, 0, 0, 0].tolist() == [False, True, True, True, True]


def test_range_is_that_of_patches_and_pictures_widened_by_itself():
    dark, bright = np.zeros([40, 40, 3], np.uint8), np.full([20, 50, 3], 100, np.uint8)
    stripes = np.full([32, 32, 3], 200, np.uint8)
    stripes[::2] = 40

    def run(batch):
        mean = batch.mean((1, 2, 3))
        return [np.stack([mean, -mean], 1)[:, None, None], np.stack([mean], 1)[:, None, None] / 100]

    first, second = gate.measure_dra(run, [dark, bright, stripes])
    assert first == [[-120, -240], [240, 120]]  # means from 0 to 120, which is added on both sides
    assert second == [[-1.2], [2.4]]


@pytest.fixture
def weights(tmp_path):
    """The folder of a copy of the shipped 32s x2 without any range."""
    folder = tmp_path / "32s"
    shutil.copytree(os.path.join(checkpoints.SHIPPED, "x2", "32s"), str(folder))
    (folder / "config.json").unlink()
    return str(folder)


PICTURE = np.random.RandomState(1).randint(40, 200, size=(30, 25, 3)).astype(np.uint8)
PICTURE = PICTURE.repeat(2, 0).repeat(2, 1)


def test_limits_hold_whole_in_tiles_compiled_and_exported(weights, monkeypatch):
    """In one DRAG, whose range nothing is in."""
    write_json(weights + "/config.json",
               {"dra_ranges": [[[low] * 10, [99.0] * 10] for low in (-99, -99, 98, -99)]})
    outputs = []
    with Network("32s", "x2", weights + "/DRSAN32sx2", -1) as network:
        frozen = export_tool.freeze(network.session)
        for tile, compiled_from in (None, 10 ** 5), (24, 10 ** 5), (None, 1):
            monkeypatch.setattr("tools.pictures.tiles.COMPILED_FROM", compiled_from)
            store = network.make_upscaler(tile)(PICTURE)
            assert store.limited == 1
            outputs.append(store.array())
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(frozen, name="")
        outputs.append(session.run("SR:0", {"LR:0": np.float32(PICTURE[None]) / 255})[0])
    for sr in outputs[1:]:
        assert np.abs(sr - outputs[0]).max() < 1e-4
    with Network("32s", "x2", weights + "/DRSAN32sx2", -1, limit=False) as network:
        store = network.make_upscaler()(PICTURE)
    assert store.limited == 0 and np.abs(store.array() - outputs[0]).max() > 0.01


def test_sr_that_explodes_and_ranges_of_another_model_are_errors(weights):
    prefix = weights + "/DRSAN32sx2"
    with Network("32s", "x2", prefix, -1) as network:
        with network.session.graph.as_default():
            bias = model_variables()[-1]
        for value, word in (1e3, "explodes"), (np.nan, "from nan to nan"):
            bias.load([value] * 3, network.session)
            with pytest.raises(UserError, match=word):
                network.upscale(PICTURE)
    write_json(weights + "/config.json", {"dra_ranges": [[[0], [1]]]})
    with pytest.raises(UserError, match="not those of DRSAN-32s"):
        Network("32s", "x2", prefix, -1)


def test_the_command_measures_the_range_and_counts_failures(weights, photographs, monkeypatch, capsys):
    monkeypatch.setattr(gate, "PATCHES", 20)
    monkeypatch.setattr(gate, "hard_pictures", lambda: [("a", PICTURE), ("b", PICTURE), ("a", PICTURE)])
    monkeypatch.setattr(gate, "hold_out", lambda folder, share: ([], gate_photographs(folder)))

    def gate_photographs(folder):
        return [os.path.join(folder, "deeper", name) for name in os.listdir(os.path.join(folder, "deeper"))]
    assert call(monkeypatch, capsys, gate.main, "--measure", photographs)[0] == 2
    status, out, err = call(monkeypatch, capsys, gate.main, "--checkpoint", weights, "--measure", photographs)
    assert out.startswith("2 photographs -> ") and "DRSAN-32s x2: 0 of 3 pictures fail\n" in out, err
    rows = [line.split()[:3] for line in out.splitlines()[2:4]]
    assert status == 0 and rows == [["a", "2", "0"], ["b", "1", "0"]]
    with open(weights + "/config.json") as file:
        config = json.load(file)
    assert np.shape(config["dra_ranges"]) == (4, 2, 10)
    assert (config["model"], config["scale"]) == ("32s", "x2")
    monkeypatch.setattr(gate, "LARGEST_MEAN", -1)
    assert call(monkeypatch, capsys, gate.main, "--checkpoint", weights)[0] == 1


def test_deviation_is_that_of_blocks():
    lr = np.full([24, 24, 3], 100, np.uint8)
    sr = np.full([48, 48, 3], 100 / 255)
    sr[:24, :24] = 200 / 255
    sr[0, 30], sr[1, 30] = 90 / 255, 110 / 255  # within a block, differences cancel
    found = gate.deviation(sr, lr)
    step = 100 * 219 / 255  # grey levels of luma
    assert found == pytest.approx((step / 4, step), abs=1e-6)
    assert gate.deviation(np.full_like(sr, np.nan), lr) == (np.inf, np.inf)
    assert gate.failures({"a": [gate.Deviation(12, 70), gate.Deviation(12.1, 13)],
                          "b": [gate.Deviation(5, 71)]}) == 2


@pytest.mark.parametrize("texture", patches.TRAINED + patches.UNSEEN)
def test_textures_are_a_function_of_photograph_and_seed(texture):
    photograph = np.random.RandomState(2).randint(256, size=(30, 41, 3)).astype(np.uint8)
    kept = photograph.copy()
    first, second, *others = (texture(photograph, np.random.RandomState(seed)) for seed in (0, 0, 3, 4, 5))
    assert first.shape == photograph.shape and first.dtype == np.uint8
    assert (first == second).all() and any((first != other).any() for other in others)
    assert (photograph == kept).all()


@pytest.mark.parametrize("scale, model", sorted(checkpoints.shipped_checkpoints(checkpoints.SHIPPED)))
def test_shipped_weights_do_not_explode(scale, model):
    """On a picture of each kind. Which weights pass the whole gate, checkpoints/README.md says."""
    with Network(model, scale, checkpoints.find_checkpoint(model, scale), -1) as network:
        assert network.dra_ranges
        found = [kind[0] for kind in gate.judge_network(network, gate.hard_pictures(14, 48)).values()]
    assert max(picture.largest for picture in found) <= gate.LARGEST_BLOCK
    assert np.mean([picture.mean for picture in found]) <= gate.LARGEST_MEAN
