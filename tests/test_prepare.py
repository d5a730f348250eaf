"""tools/gpu/prepare.py and the parts that it and pack_tiles.py write: what a lease takes along. Nothing here needs JAX."""
import io
import json
import os
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from conftest import call
from model import MODELS, Variant, drsan
from ops import tf
from tools import checkpoints
from tools.data import pack_tiles
from tools.data.parts import decode, encode, read_files, read_held_out
from tools.data.photographs import hold_out
from tools.gpu import prepare
from tools.gpu.files import read_trained
from tools.gpu.plan import read_plan, start_path
from tools.command import UserError
from tools.files import write_json
from utils import luma, psnr

PLAN = [{"name": "one", "model": "32s", "scale": "x2", "share": 1, "start": "scratch"},
        {"name": "two", "model": "32s", "scale": "x3", "share": 1, "start": "one"}]


def photograph(random, height, width):
    """Smooth, with some noise: uint8 RGB."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    image = 128 + 60 * np.sin(0.1 * y + 0.05 * x) + 20 * c * np.cos(0.07 * x) + random.normal(0, 4, y.shape)
    return np.uint8(np.clip(image, 0, 255))


@pytest.fixture
def photographs(tmp_path, random):
    (tmp_path / "photos").mkdir()
    images = [photograph(random, 64, 80) for _ in range(5)]
    for i, image in enumerate(images):
        Image.fromarray(image).save(str(tmp_path / "photos" / ("%d.png" % i)))
    return str(tmp_path / "photos"), images


def test_lossy_parts_are_smaller_and_close(photographs, tmp_path, run_tool):
    folder, images = photographs
    sizes, close = [], []
    for name, options in ("lossless", []), ("90", ["--quality", "90"]), ("50", ["--quality", "50"]):
        run_tool(pack_tiles, folder, tmp_path / name, *options)
        read = {os.path.basename(key.split(" in ")[0]): decode(key, data) for key, data in read_files(str(tmp_path / name))}
        assert sorted(read) == ["%d.webp" % i for i in range(5)]
        close.append(min(psnr(luma(read["%d.webp" % i]), luma(image)) for i, image in enumerate(images)))
        sizes.append((tmp_path / name / "part-000.tar").stat().st_size)
    assert close[0] == np.inf > close[1] > close[2] + 2 > 30
    assert sizes[0] > 1.5 * sizes[1] > 1.5 * sizes[2]


@pytest.mark.parametrize("command", ["pack_tiles", "prepare"])
def test_held_out_photographs_are_not_packed(command, small, photographs, tmp_path, run_tool, monkeypatch, capsys):
    """They are those that train.py holds out with the same share, and stand by name beside the parts."""
    folder = photographs[0]
    os.mkdir(os.path.join(folder, "below"))
    shutil.copy(os.path.join(folder, "4.png"), os.path.join(folder, "below", "5.png"))
    kept, held = hold_out(folder, 0.5)
    if command == "pack_tiles":
        out = tmp_path / "out"
        run_tool(pack_tiles, folder, out, "--valid-share", 0.5)
    else:
        out = tmp_path / "lease" / "1" / "tiles"
        write_json(str(tmp_path / "plan.json"), PLAN)
        status, _, err = prepared(tmp_path, photographs, monkeypatch, capsys, "--valid-share", 0.5)
        assert status == 0, err
    names = [os.path.splitext(os.path.basename(key.split(" in ")[0]))[0] for key, _ in read_files(str(out))]
    assert sorted(names) == sorted(os.path.splitext(os.path.basename(path))[0] for path in kept)
    assert [os.path.join(folder, name) for name in read_held_out(str(out))] == held and held
    (out / "held_out.json").write_text("[")
    with pytest.raises(UserError, match="cannot read .*held_out.json: .*: copy it anew"):
        read_held_out(str(out))
    assert read_held_out(str(tmp_path)) == []


def test_webp_is_what_it_says(photographs):
    path = os.path.join(photographs[0], "0.png")
    assert encode(path)[12:16] == b"VP8L" and encode(path, quality=80)[12:16] == b"VP8 "
    assert Image.open(io.BytesIO(encode(path, 24, 80))).size == (24, 24)


@pytest.mark.parametrize("value", ["-1", "101", "good"])
def test_quality_is_checked(value, run_tool, capsys):
    with pytest.raises(SystemExit):
        run_tool(pack_tiles, "a", "b", "--quality", value)
    assert "argument --quality: invalid" in capsys.readouterr().err


@pytest.fixture
def small(monkeypatch):
    """32s is small."""
    monkeypatch.setitem(MODELS, "32s", Variant(16, 1, 1))


def prepared(tmp_path, photographs, monkeypatch, capsys, *options):
    return call(monkeypatch, capsys, lambda: prepare.prepare(prepare.parse_args()), "--plan", tmp_path / "plan.json", "--data",
                photographs[0], "--out", tmp_path / "lease", *options)


def test_what_a_lease_takes_along(small, photographs, tmp_path, monkeypatch, capsys):
    with tf.Graph().as_default():
        weights_path = checkpoint(tmp_path)
    plan = PLAN + [{"name": "three", "model": "32s", "scale": "x2", "share": 1, "start": weights_path}]
    write_json(str(tmp_path / "plan.json"), plan)
    status, out, err = prepared(tmp_path, photographs, monkeypatch, capsys, "--parts", 2, "--mebibytes", 0.02)
    assert status == 0, err
    files = sorted(os.path.relpath(os.path.join(parent, file), str(tmp_path / "lease"))
                   for parent, _, names in os.walk(str(tmp_path / "lease")) for file in names)
    start = start_path("1/graphs", weights_path)
    assert files == sorted(["1/graphs/32s_x2.json", "1/graphs/32s_x3.json", start, "1/plan.json", "1/tiles/held_out.json",
                            "1/tiles/part-0-001.tar", "2/tiles/part-0-002.tar"])
    assert [entry.name for entry in read_plan(str(tmp_path / "lease" / "1" / "plan.json"))] == ["one", "two", "three"]
    reader = tf.train.NewCheckpointReader(checkpoints.checkpoint_prefix(weights_path))
    trained = read_trained(str(tmp_path / "lease" / start))
    assert set(trained.weights) == set(reader.get_variable_to_shape_map()) and trained.config == {"model": "32s", "rate": 1}
    for name, value in trained.weights.items():
        np.testing.assert_array_equal(value, reader.get_tensor(name))
    names = []
    for i in "12":
        with tarfile.open(str(tmp_path / "lease" / i / "tiles" / ("part-0-00%s.tar" % i))) as part:
            names += part.getnames()
    assert len(names) == len(set(names)) > 1  # a further part has other photographs
    assert out.splitlines()[-1].startswith("%s: 0." % (tmp_path / "lease" / "2"))
    with open(str(tmp_path / "lease" / "1" / "graphs" / "32s_x3.json")) as file:
        assert json.load(file)["factor"] == 3


def test_nothing_else_is_replaced(photographs, tmp_path, monkeypatch, capsys):
    write_json(str(tmp_path / "plan.json"), PLAN)
    (tmp_path / "lease").mkdir()
    (tmp_path / "lease" / "thesis.tex").write_text("")
    status, _, err = prepared(tmp_path, photographs, monkeypatch, capsys)
    assert status == 1 and "other things in it than an earlier lease" in err
    assert os.listdir(str(tmp_path / "lease")) == ["thesis.tex"]


def checkpoint(tmp_path):
    """The folder of an untrained checkpoint of the small 32s, with a config."""
    drsan(tf.placeholder(tf.float32, [None, None, None, 3]), "32s", "x2")
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        checkpoints.save_weights(session, str(tmp_path / "start"), "32s", "x2")
    write_json(str(tmp_path / "start" / "config.json"), {"model": "32s", "rate": 1})
    return str(tmp_path / "start")


def test_a_second_lease_takes_what_it_goes_on_from(small, photographs, tmp_path, monkeypatch, capsys):
    write_json(str(tmp_path / "plan.json"), PLAN + [dict(PLAN[1], name="three", start="two"), dict(PLAN[1], name="four")])
    back = tmp_path / "back"
    (back / "two").mkdir(parents=True)
    done = {"status": "done"}
    for name in "one.npz", "four.npz", "two/state.npz", "two/log.jsonl", "summary.csv":
        (back / name).write_text(name)
    options = "--parts", 1, "--back", back
    status, _, err = prepared(tmp_path, photographs, monkeypatch, capsys, *options)
    assert status == 1 and "does not hold the results of a plan" in err and "unpack lease.tar.* there" in err
    write_json(str(back / "progress.json"), {"seconds": 5, "trainings": {"one": done, "four": done, "two": {"status": "training"}}})
    status, out, err = prepared(tmp_path, photographs, monkeypatch, capsys, *options)
    assert status == 0, err
    assert "still to be trained: two, three\n" in out
    taken = sorted(os.path.relpath(os.path.join(parent, file), str(tmp_path / "lease" / "1" / "back"))
                   for parent, _, names in os.walk(str(tmp_path / "lease" / "1" / "back")) for file in names)
    assert taken == ["one.npz", "progress.json", "two/log.jsonl", "two/state.npz"]
