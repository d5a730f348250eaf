"""The evaluation command: what it prints and writes, and what bad input gets."""
import csv
import json
import os
import signal

import test as evaluation
import utils
from conftest import ROOT, run_script
from model import drsan
from ops import tf
from tools.checkpoints import save_weights
from tools.command import UserError
from tools.data import published
from tools.files import CsvLog, file_digest, read_csv
from utils import crop_to_multiple, read_image, save_image

import numpy as np
import pytest
from PIL import Image

random = np.random.RandomState(3)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, size in ("a", (40, 33)), ("b", (36, 36)):
        noise = random.randint(0, 256, size + (3,)).astype(np.uint8)
        Image.fromarray(noise).resize((48, 40), Image.BICUBIC).save(str(folder / (name + ".png")))
    return folder


def test_figures_and_files(run, tmp_path, weights, images):
    status, out, err = run("--checkpoint", weights, "--dataset", images, "--csv", tmp_path / "new" / "a.csv",
                           "--output", tmp_path / "sr")
    assert (status, err) == (0, "")
    assert "DRSAN-32s x2     368,427 parameters, 84.90 G multi-adds at 1280x720" in out
    with open(str(tmp_path / "new" / "a.csv")) as file:
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


def test_csv_is_complete_at_any_moment(run, tmp_path, weights, images, monkeypatch):
    """Each row is there before the next image is read; what stood in the file before is there until the first row."""
    saved, seen = tmp_path / "a.csv", []
    saved.write_text("old")

    def read_pair(pair, factor):
        seen.append(saved.read_text())
        if pair.name == "b":
            raise KeyboardInterrupt
        return utils.read_pair(pair, factor)
    monkeypatch.setattr(evaluation, "read_pair", read_pair)
    assert run("--checkpoint", weights, "--dataset", images, "--csv", saved)[0] == 130
    assert seen[0] == "old"
    assert saved.read_text() == seen[1]
    lines = seen[1].splitlines()
    assert lines[0] == "model,scale,dataset,image,psnr,ssim,bicubic_psnr,bicubic_ssim"
    assert len(lines) == 2 and lines[1].startswith("32s,x2,images,a,")


def test_csv_on_a_full_disk_keeps_its_rows(tmp_path):
    log = CsvLog(str(tmp_path / "a.csv"), ("name", "value"))
    log.add((u"\u65e5\udce9", 1))
    log.add(("b", 2))
    import resource
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(log.path) + 5, limit[1]))
        with pytest.raises(UserError, match="cannot write .*a.csv: File too large"):
            log.add(("ccccccccccc", 3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    log.add(("d", 4))
    rows = [{"name": u"\u65e5\udce9", "value": "1"}, {"name": "b", "value": "2"}, {"name": "d", "value": "4"}]
    assert [dict(row) for row in read_csv(log.path)] == rows
    assert os.listdir(str(tmp_path)) == ["a.csv"]


def test_a_flat_image_does_not_make_the_mean_infinite(run, tmp_path, weights, images):
    with_flat = run("--checkpoint", weights, "--dataset", images)[1]
    mean = [line for line in with_flat.splitlines() if line.startswith("mean")]
    save_image(str(images / "flat.png"), np.full((40, 40, 3), 90, np.uint8))  # bicubic upscaling gives it back
    status, out, err = run("--checkpoint", weights, "--dataset", images)
    assert status == 0 and "1 of 3 images equal HR: their infinite PSNR is left out of the mean" in err
    assert [line for line in out.splitlines() if line.startswith("mean")] == mean
    assert out.count(" inf ") == 1


@pytest.mark.parametrize("command", ["test.py", "train.py"])
def test_help_waits_for_no_tensorflow(command):
    code = "import runpy, sys; sys.argv = [{0!r}, '--help']\ntry: runpy.run_path({0!r}, run_name='__main__')\n" \
        "except SystemExit as stop: print(stop.code, 'tensorflow' in sys.modules)".format(os.path.join(ROOT, command))
    status, out, err = run_script("-c", code)
    assert status == 0 and out.startswith("usage: ") and out.endswith("\n0 False\n"), err


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


def test_several_end_in_one_table(run, weights, images, tmp_path, monkeypatch):
    """The paper's figures stand beside those of its own images alone, not of others in a folder of the same name."""
    files = {}
    for name in "Set5", "Set14":
        for folder in "HR", "x2":
            target = tmp_path / "data" / folder / name
            target.mkdir(parents=True)
            for image in "a.png", "b.png":
                hr = crop_to_multiple(read_image(str(images / image)), 2)
                save_image(str(target / image), hr if folder == "HR" else utils.downscale(hr, 2))
                files["psnrtest/%s/%s/%s" % (folder, name, image)] = (
                    file_digest(str(target / image), "git blob"), 0)
    monkeypatch.setattr(published, "read_manifest", lambda: files)
    status, out, err = run("--checkpoint", weights, "--dataset", "Set5", "Set14", "--data-dir", tmp_path / "data")
    assert status == 0 and "as published: 4 of 4 files" in out
    assert "paper                   37.99   0.9606   (difference " in out
    table = out.split("\n\n")[-1].splitlines()
    assert table[0].split() == ["PSNR", "/", "SSIM", "Set5", "Set14"]
    assert table[1].startswith("32s x2") and table[2].split() == "paper 37.99 / 0.9606 33.57 / 0.9177".split()
    save_image(str(tmp_path / "data" / "HR" / "Set5" / "a.png"), np.zeros((40, 48, 3), np.uint8))
    status, out, err = run("--checkpoint", weights, "--dataset", "Set5", "Set14", "--data-dir", tmp_path / "data")
    assert "as published: 3 of 4 files" in out and "37.99" not in out
    table = out.split("\n\n")[-1].splitlines()
    assert table[2].split() == "paper - 33.57 / 0.9177".split()
    status, out, err = run("--checkpoint", weights, "--dataset", tmp_path / "data" / "HR" / "Set14")
    assert status == 0 and "paper" not in out  # its LR is made here


@pytest.mark.parametrize("arguments, status, message", [
    (["--model", "64s"], 2, "choose from"),
    (["--scale", "x5"], 2, "choose from"),
    (["--dataset", "Set6"], 2, "unknown data set 'Set6': choose from Sample, Set5, Set14, B100, Urban100"),
    (["--checkpoint", "a", "--model", "32s", "48s"], 2, "--checkpoint goes with one --model"),
    (["--model", "32l", "--scale", "x4"], 1, "48s_x4 48m_x4); the paper publishes none; train it with: python train.py --model 32l"),
    (["--checkpoint", "nowhere/a"], 1, "error: no checkpoint at nowhere/a"),
    (["--checkpoint", "a", "--without", "rsa", "--memory", "1"], 2, "without --tile and --memory"),
])
def test_bad_arguments(run, arguments, status, message):
    result = run(*arguments)
    assert result[0] == status and message in result[2]


def test_all_data_sets_and_another(monkeypatch):
    monkeypatch.setattr("sys.argv", ["test.py", "--dataset", "my/folder", "all", "Set14"])
    args = evaluation.parse_args()
    assert args.dataset == ["my/folder", "Sample", "Set5", "Set14", "B100", "Urban100"]


@pytest.mark.parametrize("arguments, variants, noted", [
    ([], "32s_x2", ""), (["--scale", "3", "x2"], "32s_x3 32s_x2", ""), (["--model", "48m", "32s"], "48m_x2 32s_x2", ""),
    (["--model", "all", "--scale", "x3"], "32s_x3 32m_x3 48s_x3 48m_x3", ""),
    (["--model", "32l", "--scale", "all"], "32l_x2", "note: the paper has no 32l x3, 32l x4\n"),
    (["--model", "32l", "--scale", "4"], "32l_x4", ""),  # which can be trained here
    (["--model", "all", "--scale", "all", "--checkpoint", "authors"],
     "32s_x2 32m_x2 32l_x2 48s_x2 48m_x2 32s_x3 32m_x3 48s_x3 48m_x3 32s_x4 32m_x4 48s_x4 48m_x4", "")])
def test_models_and_scales(monkeypatch, capsys, arguments, variants, noted):
    monkeypatch.setattr("sys.argv", ["test.py"] + arguments)
    assert " ".join("_".join(pair) for pair in evaluation.choose_variants(evaluation.parse_args())) == variants
    assert capsys.readouterr().err == noted


def test_the_cpu_has_a_name(monkeypatch):
    for text, index in ("cpu", -1), ("-1", -1), ("2", 2):
        monkeypatch.setattr("sys.argv", ["test.py", "--gpu", text])
        assert evaluation.parse_args().gpu == index


def test_a_checkpoint_alone_is_enough(run, tmp_path, images):
    with tf.Graph().as_default(), tf.Session() as session:
        drsan(tf.placeholder(tf.float32, [1, None, None, 3]), "48s", "x3")
        session.run(tf.global_variables_initializer())
        prefix = save_weights(session, str(tmp_path / "weights"), "48s", "x3")
    status, out, err = run("--checkpoint", tmp_path / "weights", "--dataset", images, "--output", tmp_path / "sr")
    assert status == 0 and out.startswith("DRSAN-48s x3     751,115 parameters")
    assert sorted(os.listdir(str(tmp_path / "sr" / "48s_x3" / "images"))) == ["a.png", "b.png"]
    status, out, err = run("--checkpoint", prefix, "--dataset", images, "--scale", "2")
    assert (status, out) == (1, "") and err == "error: %s is a checkpoint of DRSAN-48s x3, not of x2\n" % prefix


def test_a_single_picture_is_named_by_output(run, images, tmp_path):
    status, out, err = run("--input", images / "a.png", "--output", tmp_path / "new" / "result.jpg")
    assert status == 0, err
    with Image.open(str(tmp_path / "new" / "result.jpg")) as image:
        assert image.format == "JPEG" and image.size == (96, 80)
    assert os.listdir(str(tmp_path / "new")) == ["result.jpg"]
    status, out, err = run("--input", images / "a.png", "--output", tmp_path / "new" / "result.jpg")
    assert status == 1 and "result.jpg exists already: add --overwrite" in err
    for arguments, message in [(["--input", images], "give one picture and one --scale, or a folder"),
                               (["--input", images / "a.png", "--scale", "2", "3"], "give one picture and one --scale"),
                               (["--input", images / "a.png", "--format", "webp"], "goes without --frames and another --format")]:
        status, out, err = run("--output", tmp_path / "r.png", *arguments)
        assert status == 2 and message in err
    status, out, err = run("--input", images / "a.png", "--output", images / "a.png")
    assert status == 1 and "would become %s, which is an input, too" % (images / "a.png") in err


def test_bad_files(run, weights, images, tmp_path):
    status, out, err = run("--checkpoint", weights, "--dataset", tmp_path / "missing")
    assert status == 1 and "error: no images of missing: there is no folder" in err
    (tmp_path / "empty").mkdir()
    status, out, err = run("--checkpoint", weights, "--dataset", tmp_path / "empty")
    assert status == 1 and "error: no image in" in err
    status, out, err = run("--checkpoint", weights, "--model", "48s", "--dataset", images)
    assert status == 1 and "is a checkpoint of DRSAN-32s x2, not of 48s" in err
    (tmp_path / "file").write_text("")
    for option in "--output", "--csv":
        status, out, err = run("--checkpoint", weights, "--dataset", images, option, tmp_path / "file" / "a")
        assert status == 1 and "error: cannot write" in err and not out
