"""The evaluation command: what it prints and writes, and what bad input gets."""
import csv
import json
import os

import numpy as np
import pytest
from PIL import Image

import test as evaluation
import utils
from conftest import ROOT
from utils import read_image

random = np.random.RandomState(3)


@pytest.fixture(autouse=True)
def reseed():
    """The values of a test do not depend on the tests before it."""
    random.seed(3)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, size in ("a", (40, 33)), ("b", (36, 36)):
        noise = random.randint(0, 256, size + (3,)).astype(np.uint8)
        Image.fromarray(noise).resize((48, 40), Image.BICUBIC).save(str(folder / (name + ".png")))
    return folder


def test_figures_and_files(run, tmp_path, weights, images):
    status, out, err = run("--checkpoint", weights, "--dataset", images, "--csv", tmp_path / "a.csv",
                           "--output", tmp_path / "sr")
    assert (status, err) == (0, "")
    assert "DRSAN-32s x2     368,427 parameters, 84.90 G multi-adds at 1280x720" in out
    with open(str(tmp_path / "a.csv")) as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["a", "b", "mean"]
    for row in rows[:2]:
        hr = read_image(str(images / (row["image"] + ".png")))
        sr = read_image(str(tmp_path / "sr" / "32s_x2" / "images" / (row["image"] + ".png")))
        values = utils.score(sr, hr, 2) + utils.score(utils.bicubic(utils.downscale(hr, 2), 2), hr, 2)
        np.testing.assert_allclose([float(row[key]) for key in evaluation.Scores._fields], values, atol=1e-4)
        assert "%-20s %8.3f %8.4f %12.3f %8.4f" % ((row["image"],) + values) in out
    psnr = [float(row["psnr"]) for row in rows]
    assert psnr[2] == pytest.approx((psnr[0] + psnr[1]) / 2, abs=1e-4)


def test_shipped_weights_score_what_their_record_says(run, tmp_path):
    """The README's first command, on either TensorFlow: DRSAN-32s against bicubic on Sample."""
    status, out, err = run("--dataset", "Sample", "--csv", tmp_path / "a.csv")
    assert status == 0, err
    with open(os.path.join(ROOT, "checkpoints", "x2", "32s", "config.json")) as file:
        recorded = json.load(file)["validation_psnr"]
    with open(str(tmp_path / "a.csv")) as file:
        mean = list(csv.DictReader(file))[-1]
    assert float(mean["psnr"]) == pytest.approx(recorded, abs=0.002)
    assert float(mean["bicubic_psnr"]) == pytest.approx(31.992, abs=0.002)


def test_failed_images_are_left_out_of_the_mean(run, weights, images):
    (images / "aa.png").write_bytes(b"no image")
    status, out, err = run("--checkpoint", weights, "--dataset", images)
    assert status == 1
    assert "aa                   failed: cannot read the image" in out
    assert "mean of 2" in out
    for name in "a", "b":
        os.remove(str(images / (name + ".png")))
    status, out, err = run("--checkpoint", weights, "--dataset", images)
    assert status == 1 and "mean" not in out
    assert "error: no image of images could be evaluated" in err


def test_several_end_in_one_table(run, weights, images, tmp_path):
    for name in "Set5", "Set14":
        (tmp_path / "data" / "HR").mkdir(parents=True, exist_ok=True)
        os.symlink(str(images), str(tmp_path / "data" / "HR" / name))
    status, out, err = run("--checkpoint", weights, "--dataset", "Set5", "Set14", "--data-dir", tmp_path / "data")
    assert status == 0
    assert "paper                   37.99   0.9606   (difference " in out
    table = out.split("\n\n")[-1].splitlines()
    assert table[0].split() == ["PSNR", "/", "SSIM", "Set5", "Set14"]
    assert table[1].startswith("32s x2") and table[2].split() == "paper 37.99 / 0.9606 33.57 / 0.9177".split()


@pytest.mark.parametrize("arguments, status, message", [
    (["--model", "64s"], 2, "choose from"),
    (["--scale", "x5"], 2, "choose from"),
    (["--dataset", "Set6"], 2, "unknown data set 'Set6': choose from Sample, Set5, Set14, B100, Urban100"),
    (["--checkpoint", "a", "--model", "32s", "48s"], 2, "--checkpoint goes with one --model"),
    (["--model", "32l", "--scale", "x4"], 1, "the paper publishes none for 32l at x4; train it with"),
    (["--checkpoint", "nowhere/a"], 1, "error: no checkpoint at nowhere/a"),
    (["--checkpoint", "a", "--without", "rsa", "--memory", "1"], 2, "without --tile and --memory"),
])
def test_bad_arguments(run, arguments, status, message):
    result = run(*arguments)
    assert result[0] == status and message in result[2]


def test_all_data_sets_and_another(monkeypatch):
    monkeypatch.setattr("sys.argv", ["test.py", "--dataset", "my/folder", "all", "Set14", "--model", "all", "--scale", "x3"])
    args = evaluation.parse_args()
    assert args.dataset == ["my/folder", "Sample", "Set5", "Set14", "B100", "Urban100"]
    assert args.model == ["32s", "32m", "32l", "48s", "48m"] and args.scale == ["x3"] and args.every


def test_bad_files(run, weights, images, tmp_path):
    status, out, err = run("--checkpoint", weights, "--dataset", tmp_path / "missing")
    assert status == 1 and "error: no images of missing: there is no folder" in err
    (tmp_path / "empty").mkdir()
    status, out, err = run("--checkpoint", weights, "--dataset", tmp_path / "empty")
    assert status == 1 and "error: no image in" in err
    status, out, err = run("--checkpoint", weights, "--model", "48s", "--dataset", images)
    assert status == 1 and "another model or scale: DRAN/conv2d/kernel should have the shape [3, 3, 3, 48]" in err
    (tmp_path / "file").write_text("")
    for option in "--output", "--csv":
        status, out, err = run("--checkpoint", weights, "--dataset", images, option, tmp_path / "file" / "a")
        assert status == 1 and "error: cannot write" in err and not out
