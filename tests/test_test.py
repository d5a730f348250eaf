"""The evaluation command: what it prints and writes, and what bad input gets. By a tiny network, one for all
tests."""
import csv
import os
import shutil

import test as evaluation
import utils
from conftest import ROOT, run_script
from model import drsan
from ops import tf
from tools.checkpoints import save_weights
from tools.data import download
from tools.files import file_digest
from utils import crop_to_multiple, read_image, save_image

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.usefixtures("tiny_model")


@pytest.fixture(scope="module")
def weights(tiny_model, tmp_path_factory):
    """A checkpoint of an untrained model `tiny`."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(0)
        drsan(tf.placeholder(tf.float32, [1, None, None, 3]), "tiny", "x2")
        session.run(tf.global_variables_initializer())
        return save_weights(session, str(tmp_path_factory.mktemp("weights")), "tiny", "x2")


@pytest.fixture
def evaluate(run, weights):
    """Run test.py with these weights and arguments: (exit status, stdout, stderr)."""
    return lambda *arguments: run("--checkpoint", weights, "--dataset", *arguments)


@pytest.fixture
def images(tmp_path):
    folder, random = tmp_path / "images", np.random.RandomState(3)
    folder.mkdir()
    for name, size in ("a", (40, 33)), ("b", (36, 36)):
        noise = random.randint(0, 256, size + (3,)).astype(np.uint8)
        Image.fromarray(noise).resize((48, 40), Image.BICUBIC).save(str(folder / (name + ".png")))
    return folder


def test_figures_and_files(evaluate, tmp_path, weights, images, monkeypatch):
    """Model and scale are those of the checkpoint, and no session stays open."""
    sessions, make = [], evaluation.Network.make_upscaler
    monkeypatch.setattr(evaluation.Network, "make_upscaler", lambda network, *options: (
        sessions.append(network.session), make(network, *options))[1])
    status, out, err = evaluate(images, "--csv", tmp_path / "new" / "a.csv", "--output", tmp_path / "sr")
    assert (status, err) == (0, "") and out.startswith("DRSAN-tiny x2     ")
    with open(str(tmp_path / "new" / "a.csv")) as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["a", "b", "mean"]
    for row in rows[:2]:
        hr = read_image(str(images / (row["image"] + ".png")))
        sr = read_image(str(tmp_path / "sr" / "tiny_x2" / "images" / (row["image"] + ".png")))
        values = utils.score(sr, hr, 2) + utils.score(utils.bicubic(utils.downscale(hr, 2), 2), hr, 2)
        np.testing.assert_allclose([float(row[key]) for key in evaluation.Scores._fields], values, atol=1e-4)
        assert "%-20s %8.3f %8.4f %12.3f %8.4f" % ((row["image"],) + values) in out
    psnr = [float(row["psnr"]) for row in rows]
    assert psnr[2] == pytest.approx((psnr[0] + psnr[1]) / 2, abs=1e-4)
    status, out, err = evaluate(images, "--scale", "3")
    assert (status, err) == (1, "error: %s is a checkpoint of DRSAN-tiny x2, not of x3\n" % weights)
    assert len(sessions) == 1
    with pytest.raises(RuntimeError, match="closed"):
        sessions[0].run([])


def test_csv_is_complete_at_any_moment(evaluate, tmp_path, images, monkeypatch):
    """Each row is there before the next image is read; what stood in the file before is there until the first
    row."""
    saved, seen = tmp_path / "a.csv", []
    saved.write_text("old")

    def read_pair(pair, factor):
        seen.append(saved.read_text())
        if pair.name == "b":
            raise KeyboardInterrupt
        return utils.read_pair(pair, factor)
    monkeypatch.setattr(evaluation, "read_pair", read_pair)
    assert evaluate(images, "--csv", saved)[0] == 130
    assert seen[0] == "old" and saved.read_text() == seen[1]
    header, row = seen[1].splitlines()
    assert header == "model,scale,dataset,image,psnr,ssim,bicubic_psnr,bicubic_ssim"
    assert row.startswith("tiny,x2,images,a,")


def test_failed_images_are_left_out_of_the_mean(evaluate, images, tmp_path):
    (images / "aa.png").write_bytes(b"no image")
    status, out, err = evaluate(images)
    assert status == 1 and "mean of 2" in out and "aa                   failed: cannot read the image" in out
    for name in "a", "b":
        os.remove(str(images / (name + ".png")))
    status, out, err = evaluate(images)
    assert status == 1 and "mean" not in out and "error: no image of images could be evaluated" in err
    os.remove(str(images / "aa.png"))
    assert "images (subfolders are not searched): expected files ending in .png" in evaluate(images)[2]
    assert "error: no images of missing: there is no folder" in evaluate(tmp_path / "missing")[2]


def test_several_end_in_one_table(run, images, tmp_path, weights, monkeypatch):
    """The paper's figures stand beside those of its own images alone, not of others in a folder of the same
    name."""
    files, data = {}, tmp_path / "data"
    monkeypatch.setattr(evaluation, "published_scores", lambda model, scale, name: {
        "Set5": ("37.99", "0.9606"), "Set14": ("33.57", "0.9177")}[name])
    for name in "Set5", "Set14":
        for folder in "HR", "x2":
            target = data / folder / name
            target.mkdir(parents=True)
            for image in "a.png", "b.png":
                hr = crop_to_multiple(read_image(str(images / image)), 2)
                save_image(str(target / image), hr if folder == "HR" else utils.downscale(hr, 2))
                files["psnrtest/%s/%s/%s" % (folder, name, image)] = (
                    file_digest(str(target / image), "git blob"), 0)
    monkeypatch.setattr(download, "read_manifest", lambda: files)
    arguments = "--checkpoint", weights, "--dataset", "Set5", "Set14", "--data-dir", data
    status, out, err = run(*arguments)
    assert status == 0 and "as published: 4 of 4 files" in out
    assert "paper                   37.99   0.9606   (difference " in out
    table = out.split("\n\n")[-1].splitlines()
    assert table[0].split() == ["PSNR", "/", "SSIM", "Set5", "Set14"]
    assert table[1].startswith("tiny x2")
    assert table[2].split() == "paper 37.99 / 0.9606 33.57 / 0.9177".split()
    save_image(str(data / "HR" / "Set5" / "a.png"), np.zeros((40, 48, 3), np.uint8))
    status, out, err = run(*arguments)
    assert "as published: 3 of 4 files" in out and "37.99" not in out
    assert out.split("\n\n")[-1].splitlines()[2].split() == "paper - 33.57 / 0.9177".split()
    shutil.rmtree(str(data / "x2"))
    status, out, err = run(*arguments[:3] + (data / "HR" / "Set14",))
    assert status == 0 and "paper" not in out  # its LR is made here


@pytest.mark.parametrize("arguments, status, message", [
    (["--model", "64s"], 2, "choose from"), (["--scale", "x5"], 2, "choose from"),
    (["--dataset", "Set6"], 2, "unknown data set 'Set6': choose from Sample, Set5, Set14, B100, Urban100"),
    (["--dataset", "a/Set5", "Set5"], 2, "two data sets have the same name: Set5 Set5"),
    (["--checkpoint", "a", "--model", "32s", "48s"], 2, "--checkpoint goes with one --model"),
    (["--model", "32l", "--scale", "x4"], 1,
     "48s_x4 48m_x4); the paper publishes none; train it with: python train.py"),
    (["--checkpoint", "nowhere/a"], 1, "error: no checkpoint at nowhere/a"),
    (["--checkpoint", "a", "--without", "rsa", "--memory", "1"], 2, "without --tile and --memory")])
def test_bad_arguments(run, tmp_path, monkeypatch, arguments, status, message):
    if "a/Set5" in arguments:
        (tmp_path / "a" / "Set5").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result[0] == status and message in result[2]


@pytest.mark.parametrize("arguments, variants, noted", [
    ([], "32s_x2", ""), (["--scale", "3", "x2"], "32s_x3 32s_x2", ""),
    (["--model", "48m", "32s"], "48m_x2 32s_x2", ""),
    (["--model", "all", "--scale", "x3"], "32s_x3 32m_x3 48s_x3 48m_x3", ""),
    (["--model", "32l", "--scale", "all"], "32l_x2", "note: the paper has no 32l x3, 32l x4\n"),
    (["--model", "32l", "--scale", "4"], "32l_x4", ""),  # which can be trained here
    (["--model", "all", "--scale", "all", "--checkpoint", "authors"],
     "32s_x2 32m_x2 32l_x2 48s_x2 48m_x2 32s_x3 32m_x3 48s_x3 48m_x3 32s_x4 32m_x4 48s_x4 48m_x4", "")])
def test_models_and_scales(capsys, arguments, variants, noted):
    pairs = evaluation.choose_variants(evaluation.parse_args(arguments))
    assert " ".join("_".join(pair) for pair in pairs) == variants and capsys.readouterr().err == noted


def test_options_reach_the_network(monkeypatch, weights):
    calls = []

    class Recorder(evaluation.Network):
        def __init__(self, *arguments):
            calls.append(arguments)
            super().__init__(*arguments)

        def make_upscaler(self, *options):
            calls.append(options)

    monkeypatch.setattr(evaluation, "Network", Recorder)
    for words in "--gpu -1 --no-limit --ensemble", "--gpu -1 --memory 3 --tile 20 --output sr --ensemble":
        args = evaluation.parse_args(["--checkpoint", weights] + words.split())
        with evaluation.open_upscaler("tiny", "x2", args):
            pass
    same = "tiny", "x2", weights, -1, None, "float32"
    assert calls == [same + (False,), (None, None, True, None), same + (True,), (20, 3, True, "sr")]


def test_names_of_data_sets_and_of_the_cpu():
    args = evaluation.parse_args(["--dataset", "my/folder", "all", "Set14"])
    assert args.dataset == ["my/folder", "Sample", "Set5", "Set14", "B100", "Urban100"]
    for text, index in ("cpu", -1), ("-1", -1), ("2", 2):
        assert evaluation.parse_args(["--gpu", text]).gpu == index


@pytest.mark.parametrize("command", ["test.py", "train.py"])
def test_help_waits_for_no_tensorflow(command):
    code = ("import runpy, sys; sys.argv = [{0!r}, '--help']\n"
            "try: runpy.run_path({0!r}, run_name='__main__')\n"
            "except SystemExit as stop: print(stop.code, 'tensorflow' in sys.modules)")
    status, out, err = run_script("-c", code.format(os.path.join(ROOT, command)))
    assert status == 0 and out.startswith("usage: ") and out.endswith("\n0 False\n"), err
