"""test.py --input: what of people's pictures is found, read, kept and written, and what bad input gets."""
import errno
import os
import signal
import subprocess
import sys
import time

import test as evaluation
import utils
from conftest import ROOT
from tools import files, images
from tools.command import UserError
from tools.data import photographs
from tools.network import load_model
from tools.pictures.formats import compose, fit_format, read_picture, to_frame, write_deep_png
from tools.pictures.tiles import Store
from tools.pictures.upscale import find_pictures

import fuzz_images
import numpy as np
import png
import pytest
import skimage.data
from PIL import Image, ImageCms, PngImagePlugin

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PICTURE = skimage.data.astronaut()[40:72, 180:204]
OLD_PILLOW = int(Image.__version__.split(".")[0]) < 9
random = np.random.RandomState(5)


@pytest.fixture(autouse=True)
def repeat(monkeypatch):
    """In place of the network, every pixel becomes 2x2; returns what undoes that."""
    opened = evaluation.open_upscaler
    monkeypatch.setattr(evaluation, "open_upscaler", lambda model, scale, args: fuzz_images.Repeat())
    return lambda: monkeypatch.setattr(evaluation, "open_upscaler", opened)


@pytest.fixture
def upscale(run, tmp_path):
    """Run test.py --input with these arguments, into tmp_path / "out": (exit status, stdout, stderr)."""
    return lambda *arguments: run("--output", tmp_path / "out", "--input", *arguments)


def save(path, image=PICTURE, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(str(path), **options)
    return str(path)


def enlarged(image):
    return np.asarray(image).repeat(2, axis=0).repeat(2, axis=1)


# reading

@pytest.mark.parametrize("name, mode", [
    ("a.png", "RGB"), ("a.png", "RGBA"), ("a.png", "L"), ("a.png", "LA"), ("a.png", "1"), ("a.png", "P"),
    ("a.tif", "RGB"), ("a.tif", "CMYK"), ("a.tif", "LAB"), ("a.bmp", "RGB"), ("a.webp", "RGBA"),
    ("a.tga", "LA")])
def test_read_picture(tmp_path, name, mode):
    image, gray = Image.fromarray(PICTURE), mode in ("1", "L", "LA")
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(np.tile(np.arange(1, 25, dtype=np.uint8), (32, 1))))
    image = image.convert(mode) if mode != "LAB" else ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
    options = {"lossless": True} if name == "a.webp" else {}
    picture = read_picture(save(tmp_path / name, image, **options), 1)
    expected = PICTURE if mode == "LAB" else np.asarray(image.convert("L" if gray else "RGB"))
    assert picture.color.dtype == np.uint8 and picture.color.shape == (32, 24, 1 if gray else 3)
    difference = np.abs(picture.color.astype(int) - expected.reshape(picture.color.shape))
    assert difference.mean() < 3 if mode == "LAB" else (difference == 0).all()  # of RGB, LAB has not all
    assert (picture.alpha == np.arange(1, 25)).all() if mode in ("LA", "RGBA") else picture.alpha is None
    assert ["converted from " + mode in note for note in picture.notes] == [True] * (mode in ("CMYK", "LAB"))


def test_frames_and_layers(tmp_path):
    frames = [Image.fromarray(np.full((4, 5), value, np.uint8)) for value in (50, 200)]
    picture = read_picture(save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:]), 1)
    assert picture.notes == ["the first of 2 frames"] and (picture.color == 50).all()
    path = tmp_path / "a.psd"
    for layers, notes in (0, []), (2, ["the merged picture of 2 layers"]):
        path.write_bytes(fuzz_images.psd(PICTURE, layers))
        picture = read_picture(str(path), 1)
        assert (picture.color == PICTURE).all() and picture.notes == notes


def test_hidden_color_does_not_bleed(tmp_path):
    rgba = np.zeros((12, 12, 4), np.uint8)
    rgba[:, :6], rgba[:, 6:] = (200, 10, 10, 255), (0, 255, 0, 0)
    picture = read_picture(save(tmp_path / "a.png", rgba), 1)
    assert (picture.color == [200, 10, 10]).all() and (picture.alpha == rgba[:, :, 3]).all()


# writing

@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_stay(upscale, tmp_path, channels):
    samples, path = random.randint(0, 65536, (70, 9, channels)).astype(np.uint16), tmp_path / "a.png"
    samples[:, :, -1] = 40000 if channels % 2 == 0 else samples[:, :, -1]
    with open(str(path), "wb") as file:
        writer = png.Writer(9, 70, greyscale=channels < 3, alpha=channels % 2 == 0, bitdepth=16)
        writer.write(file, samples.reshape(70, -1).tolist())
    assert upscale(path)[::2] == (0, "")
    width, height, rows, info = png.Reader(filename=str(tmp_path / "out" / "a_x2.png")).asDirect()
    assert (width, height, info["bitdepth"], info["planes"]) == (18, 140, 16, channels)
    sr = np.array([list(row) for row in rows]).reshape(140, 18, channels)
    assert np.abs(sr - enlarged(samples).astype(int)).max() <= 1  # float32


def test_compose_clips_and_upscales_alpha():
    height, width, scale = 150, 20, 3  # more than two strips
    sr = Store((scale * height, scale * width, 3))
    sr.array()[...] = random.rand(*sr.shape) * 1.2 - 0.1
    alpha = random.randint(0, 256, (height, width)).astype(np.uint8)
    result = compose(sr, images.Picture(np.zeros((height, width, 3), np.uint8), alpha, None, []), scale)
    assert (result[:, :, :3] == utils.to_uint8(255 * sr.array())).all()
    assert (result[:, :, 3] == utils.bicubic(alpha[:, :, None], scale)[:, :, 0]).all()
    image = compose(sr, images.Picture(np.zeros((height, width, 1), np.uint16), None, None, []), scale)
    luma = np.clip(sr.array().dot([0.299, 0.587, 0.114]), 0, 1)
    assert image.dtype == np.uint16 and np.abs(image[:, :, 0] - 65535 * luma).max() < 0.6


def test_what_a_format_holds():
    color, alpha = np.uint8([[[100, 100, 100]]]), np.uint8([[51]])
    assert fit_format(images.Picture(color, alpha, None, []), "webp").alpha is alpha
    jpeg = fit_format(images.Picture(color, alpha, None, []), "jpeg")
    assert jpeg.alpha is None and (jpeg.color == 224).all()  # a fifth of 100, the rest white
    assert len(jpeg.notes) == 1 and "becomes white" in jpeg.notes[0]
    deep = images.Picture(np.uint16([[[257 * 9]]]), np.uint16([[257 * 7]]), None, [])
    assert fit_format(deep, "png") == deep
    assert (fit_format(deep, "webp").color == 9).all() and (fit_format(deep, "webp").alpha == 7).all()


def exif_of_a_camera():
    exif = Image.Exif()
    exif[274], exif[315], exif[306], exif[282] = 6, "An Author", "2020:01:02 03:04:05", 300.0
    exif[0x8769] = {0x9003: "2020:01:02 03:04:06", 0xA002: 24, 0xA003: 32, 0x927C: b"a note of the maker"}
    exif[0x8825] = {1: "N", 2: (47.0, 3.0, 1.5)}
    return exif.tobytes()


@pytest.mark.parametrize("format_, strip", [("png", False), ("jpeg", False), ("webp", False), ("png", True)])
@pytest.mark.parametrize("deep", [False, True])
def test_exif_and_resolution_are_kept(upscale, tmp_path, format_, strip, deep):
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "Steps: 20")
    path = save(tmp_path / "a.png", exif=exif_of_a_camera(), dpi=(200, 100), icc_profile=SRGB, pnginfo=text)
    if deep:
        with open(path, "wb") as file:
            write_deep_png(file, PICTURE.astype(np.uint16) * 257, SRGB, exif_of_a_camera(), (200, 100))
    status, _, err = upscale(path, "--format", format_, *["--strip"] * strip)
    notes = ["its 16 bits become 8: %s has no more" % format_] if deep and format_ != "png" else []
    notes += ["not kept: text"] if not deep and not strip else []
    assert (status, err) == (0, "".join("note: %s: %s\n" % (path, note) for note in notes))
    with Image.open(str(tmp_path / "out" / ("a_x2." + format_))) as image:
        image.load()
        exif = image.getexif()
        assert image.size == (64, 48) and image.info["icc_profile"] == SRGB  # turned
        if strip:
            assert len(exif) == 0 and "dpi" not in image.info
            return
        if format_ != "webp":
            assert [round(float(value)) for value in image.info["dpi"]] == [200, 100]
        assert 274 not in exif and (exif[315], exif[306]) == ("An Author", "2020:01:02 03:04:05")
        inner, place = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
        assert (inner[0x9003], inner[0xA002], inner[0xA003]) == ("2020:01:02 03:04:06", 64, 48)
        assert 0x927C not in inner and place[1] == "N"
        assert [float(value) for value in place[2]] == [47, 3, 1.5]


def test_quality_and_the_chroma_of_jpeg(upscale, tmp_path):
    stripes = np.zeros((32, 24, 3), np.uint8)
    stripes[:, ::2, 0], stripes[:, 1::2, 2] = 200, 200  # red and blue
    path = save(tmp_path / "a.png", stripes)
    for name in "jpeg", "webp":
        sizes = []
        for quality in [], ["--quality", 10]:
            assert upscale(path, "--format", name, "--overwrite", *quality)[0] == 0
            sizes.append(os.path.getsize(str(tmp_path / "out" / ("a_x2." + name))))
            if name == "jpeg" and not quality:
                with Image.open(str(tmp_path / "out" / "a_x2.jpeg")) as image:
                    assert np.abs(np.asarray(image, int) - enlarged(stripes)).mean() < 4  # of 4:2:0, above 20
        assert sizes[1] < 0.7 * sizes[0]


# animations

@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("format_", ["gif", "png", "webp"])
def test_all_frames(upscale, tmp_path, format_, alpha):
    # of few colors, for GIF
    frames = [frame // 64 * 85 for frame in (PICTURE, PICTURE[::-1].copy(), 255 - PICTURE)]
    if alpha:
        mask = [np.where(np.arange(24) < edge, 255, 0) * np.ones((32, 1)) for edge in (8, 16, 24)]
        frames = [np.dstack([frame, edge]).astype(np.uint8) for frame, edge in zip(frames, mask)]
    path, durations = str(tmp_path / ("a." + format_)), [50, 120, 200]
    stored = [to_frame(Image.fromarray(frame), format_, alpha) for frame in frames]
    options = {"gif": {"disposal": 2, "transparency": 255} if alpha else {}, "webp": {"lossless": True},
               "png": {}}[format_]
    stored[0].save(path, save_all=True, append_images=stored[1:], duration=durations, loop=3, **options)
    status, out, err = upscale(path, "--frames")
    if format_ == "gif" and OLD_PILLOW:
        assert status == 1 and "leave out --frames" in err
        return
    assert (status, err) == (0, "note: %s: all 3 frames\n" % path)
    with Image.open(str(tmp_path / "out" / ("a_x2." + format_))) as image:
        assert (image.n_frames, image.format, image.info["loop"]) == (3, format_.upper(), 3)
        for i, expected in enumerate(frames):
            image.seek(i)
            image.load()
            assert image.info["duration"] == durations[i]
            shown = np.asarray(image.convert("RGBA"), int)
            seen = enlarged(expected[:, :, 3] > 0) if alpha else np.ones((64, 48), bool)
            hr = enlarged(np.dstack([expected[:, :, :3], np.full((32, 24), 255)]))
            assert np.abs((shown - hr)[seen]).mean() < 8
            assert not (~seen).any() or (shown[~seen][:, 3] < 60).mean() > 0.9  # but for the edge, by bicubic
    status, out, err = upscale(path, "--overwrite", "--frames", "--max-megapixels", 0.0015)
    assert status == 1 and "has more than 0.0015 megapixels in 3 frames" in err


@pytest.mark.parametrize("format_, options, exact", [
    ("png", [], True), ("webp", [], True), ("webp", ["--format", "webp", "--quality", "60"], False)])
def test_frames_are_upright_keep_exif_and_have_no_loss(upscale, tmp_path, format_, options, exact):
    """Where the original has none."""
    path, frames = tmp_path / ("a." + format_), (PICTURE, PICTURE[:, ::-1])
    save(path, frames[0], save_all=True, append_images=[Image.fromarray(frames[1].copy())], duration=50,
         exif=exif_of_a_camera(), **({"lossless": True} if format_ == "webp" else {}))
    for strip in False, True:
        assert upscale(path, "--frames", "--overwrite", *options + ["--strip"] * strip)[0] == 0
        with Image.open(str(tmp_path / "out" / ("a_x2." + format_))) as image:
            exif = image.getexif()
            assert exif.get(315) == (None if strip else "An Author")
            assert 274 not in exif and image.size == (64, 48)
            for i, expected in enumerate(frames):
                image.seek(i)
                assert (np.asarray(image.convert("RGB")) == enlarged(np.rot90(expected, -1))).all() == exact


# names

def test_names_of_sr_images(upscale, tmp_path):
    """Of one stem, the second keeps its suffix; of one name, each has its folder."""
    names = ["in/a.jpg", "in/a.png", "seq/1/x/f.png", "seq/2/x/f.png", "seq/3/y/f.png"]
    for i, name in enumerate(names):
        save(tmp_path / name, np.full((4, 4, 3), 50 * i, np.uint8))
    assert upscale(tmp_path / "in", tmp_path / "seq" / "*" / "*" / "f.png")[0] == 0
    outputs = ["a_x2.png", "a_png_x2.png", "1_x_f_x2.png", "2_x_f_x2.png", "3_y_f_x2.png"]
    found = [utils.read_image(str(tmp_path / "out" / name))[0, 0, 0] for name in outputs]
    assert found == [0, 50, 100, 150, 200] and len(os.listdir(str(tmp_path / "out"))) == 5


def test_errors_before_work_starts(run, upscale, tmp_path):
    folder, sr = tmp_path / "in", tmp_path / "out" / "a_png_x2.png"
    a_png, a_jpg, a, sr_of_a = [save(folder / name) for name in ("a_png.png", "a.jpg", "a.png", "a_x2.png")]
    assert upscale(a_png, a_jpg, a) == (1, "", "error: %s and %s would both become %s\n" % (a_png, a, sr))
    result = run("--input", a, sr_of_a, "--output", folder)
    assert result == (1, "", "error: %s would become %s, which is an input, too\n" % (a, sr_of_a))
    for source in folder, folder / "*.png":
        result = run("--input", source, "--output", folder)
        assert result == (1, "", "error: --output %s is the folder of the input: choose another\n" % folder)


def test_a_single_picture_is_named_by_output(run, tmp_path, monkeypatch):
    path, target = save(tmp_path / "in" / "a.png"), tmp_path / "new" / "result.jpg"
    assert run("--input", path, "--output", target)[0] == 0
    with Image.open(str(target)) as image:
        assert image.format == "JPEG" and image.size == (48, 64)
    status, out, err = run("--input", path, "--output", target)
    assert status == 1 and "result.jpg exists already" in err
    status, out, err = run("--input", path, "--output", path)
    assert status == 1 and "would become %s, which is an input, too" % path in err
    for name, arguments, message in [
            ("r.png", ["--input", tmp_path / "in"], "names one file"),
            ("r.png", ["--scale", "2", "3"], "names one file"),
            ("r.png", ["--format", "webp"], "names one file"),
            ("r.tif", [], "are written as .png .webp .jpg .jpeg"), ("r.gif", [], "are written as")]:
        status, out, err = run("--input", path, "--output", tmp_path / name, *arguments)
        assert status == 2 and message in err
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run("--input=~/in/a.png", "--output=~/out")[0] == 0
    assert os.listdir(str(tmp_path / "out")) == ["a_x2.png"]
    assert os.listdir(str(target.parent)) == ["result.jpg"]


def test_existing_results(upscale, tmp_path, monkeypatch):
    """They are errors, or replaced, or left out; where all are there, no network is opened."""
    path, other = [save(tmp_path / "in" / name) for name in ("a.png", "b.png")]
    (tmp_path / "out").mkdir()
    mine = tmp_path / "out" / "a_x2.png"
    mine.write_bytes(b"mine")
    assert upscale(path)[::2] == (1, "error: %s exists already: add --overwrite or --skip-existing\n" % mine)
    status, out, err = upscale(tmp_path / "in", "--skip-existing")
    assert (status, err) == (0, "") and out.startswith(other) and mine.read_bytes() == b"mine"
    assert out.splitlines()[-1].startswith("1 of 2 pictures in") and out.endswith(", 1 were there\n")
    assert upscale(path, "--overwrite")[0] == 0 and (utils.read_image(str(mine)) == enlarged(PICTURE)).all()
    monkeypatch.setattr(evaluation, "open_upscaler", None)
    status, out, err = upscale(tmp_path / "in", "--skip-existing")
    assert (status, err) == (0, "") and out.endswith(", 2 were there\n")


def test_long_names_and_no_limit(upscale, tmp_path):
    longest, longer = "n" * 248, "m" * 249  # with _x2.png, 255 bytes and one more
    paths = [save(tmp_path / (name + ".png")) for name in (longest, longer)]
    status, out, err = upscale(*paths + ["--max-megapixels", "inf"])
    assert (status, os.listdir(str(tmp_path / "out"))) == (1, [longest + "_x2.png"])
    assert longer + "_x2.png, a name of more than 255 bytes" in err and len(err.splitlines()) == 1


# what is there, and what is none

def test_what_is_no_picture_is_left_out(tmp_path, capsys):
    folder = tmp_path / "in"
    both = [save(folder / "a.jpg"), save(folder / "b.mpo", format="jpeg")]
    deeper = save(folder / "c.png" / "d.png")
    (folder / "._a.jpg").write_bytes(b"\0\5\x16\7")
    for name in "IMG_1.HEIC", "b.cr2", "f", "notes.txt":
        (folder / name).write_bytes(b"")
    os.mkfifo(str(folder / "e.png"))
    for name in str(folder), str(folder / "*"):
        assert find_pictures([name], str(tmp_path)) == (both, [])
        out, err = capsys.readouterr()
        assert err.startswith("note: %s: left out, " % name) and err.endswith(
            ": IMG_1.HEIC b.cr2 c.png e.png f and 1 more\n") and not out
    for name, reason in ((str(folder / "e.png"), ": e.png"), ("-", "standard input"),
                         ("https://a.invalid/b.png", "URLs")):
        found, (error,) = find_pictures([name], str(tmp_path))
        assert found == [] and error.startswith("no image at %s: " % name) and reason in error
    assert utils.list_images(str(folder)) == both
    assert photographs.list_photographs(str(folder)) == both + [deeper]
    assert (read_picture(both[1], 1).color == read_picture(both[0], 1).color).all()


def test_what_goes_wrong_with_one_does_not_stop_the_others(run, upscale, tmp_path, monkeypatch):
    folder, missing = tmp_path / "in", tmp_path / "out" / "nowhere.png"
    paths = [save(folder / "a.png", np.zeros((40, 40), np.uint8)),
             save(folder / "b.png", np.zeros((50, 50), np.uint8)), save(folder / "c.png")]
    os.symlink("../.git/annex/e", str(folder / "e.png"))
    (folder / "f.heic").write_bytes(b"\0\0\0\x18ftypheic")
    others = [folder / "e.png", folder / "f.heic", missing]
    status, out, err = upscale(*paths + others + ["--max-megapixels", 0.0012])
    starts = ["no image at %s" % missing] + [
        "%s has more than 0.0012 megapixels: raise the limit by --max-m" % path for path in paths[:2]] + [
        "cannot read the image %s: it is a link to ../.git/annex/e, which is not there" % (folder / "e.png"),
        "cannot read the image %s: it is in no image format that Pillow" % (folder / "f.heic")]
    lines = err.splitlines()
    assert status == 1 and all(line.startswith("error: " + start) for line, start in zip(lines, starts))
    assert len(lines) == 5 and out.splitlines()[-1].startswith("1 of 6 pictures in ")
    assert out.startswith("%s 24x32 -> %s 48x64, " % (paths[2], tmp_path / "out" / "c_x2.png"))
    assert Image.MAX_IMAGE_PIXELS > 1e7
    wide = save(folder / "d.png", np.zeros((1, 8200), np.uint8))
    status, out, err = upscale(wide, "--format", "webp")
    assert err.endswith("d_x2.webp would have 16400x2 pixels, and webp holds 16383 a side\n")
    status, out, err = run("--dataset", folder)
    assert status == 1 and "e                    failed: cannot read the image" in out

    def closed(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "listdir", closed)
    status, out, err = upscale(folder, paths[2], "--overwrite")
    assert status == 1 and "1 of 2 pictures" in out
    assert err == "error: cannot read the folder %s: Permission denied\n" % folder


def test_full_disk(upscale, tmp_path, monkeypatch):
    def full(image, path, *arguments, **options):
        with open(path, "wb") as file:
            file.write(b"part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path, deep = save(tmp_path / "a.png"), str(tmp_path / "b.png")
    with open(deep, "wb") as file:
        write_deep_png(file, PICTURE.astype(np.uint16) * 257, None)
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        patch.setattr(png.Writer, "write_packed", lambda *_: full(None, os.devnull))
        status, out, err = upscale(path, deep)
    assert status == 1 and "0 of 2 pictures" in out and os.listdir(str(tmp_path / "out")) == []
    assert err.splitlines() == ["error: cannot write %s: No space left on device" % (tmp_path / "out" / name)
                                for name in ("a_x2.png", "b_x2.png")]
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: full(None, os.devnull))
    with pytest.raises(UserError, match="cannot keep 1.00 GiB in %s: No space left on device" % tmp_path):
        Store((2 ** 14, 2 ** 14, 1), str(tmp_path))


@pytest.mark.parametrize("arguments, message", [
    ("--input a.png", "--input needs --output"),
    ("--input a.png --output b --dataset Set5", "without --dataset and --csv"),
    ("--input a.png --output b --model all", "with one --model"),
    ("--input a.png --output b --quality 0 --format webp", "--quality is from 1 to 100"),
    ("--input a.png --output b --quality 50", "with --format webp or jpeg"),
    ("--input a.png --output b --overwrite --skip-existing", "not allowed with argument"),
    ("--input a.png --output b --tile 0", "invalid positive int value"),
    ("--format webp", "--format goes with --input"),
    ("--max-megapixels 5", "--max-megapixels goes with --input")])
def test_usage_errors(run, arguments, message):
    status, out, err = run(*arguments.split())
    assert status == 2 and message in err


# the network

def test_the_result_is_that_of_the_network(upscale, tmp_path, repeat):
    repeat()
    path = save(tmp_path / "a.png")
    with load_model(gpu=-1, tile=16, ensemble=True) as model:
        expected = model.upscale(PICTURE)
    assert upscale(path, "--ensemble", "--tile", 16)[0] == 0
    assert (utils.read_image(str(tmp_path / "out" / "a_x2.png")) == expected).all()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_interrupt_ends_a_large_picture(tmp_path):
    path = save(tmp_path / "a.png", np.tile(PICTURE, (100, 100, 1)))
    command = [sys.executable, os.path.join(ROOT, "test.py"), "--gpu", "-1", "--input", path,
               "--output", str(tmp_path / "out"), "--tile", "32"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               universal_newlines=True, env=dict(os.environ, PYTHONUNBUFFERED="1"),
                               # jobs in the background ignore SIGINT
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert process.stdout.readline().startswith("DRSAN-32s")
    assert process.stdout.readline().startswith("checkpoint")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (130, "", "stopped\n")
    assert os.listdir(str(tmp_path / "out")) == []


# names of files that cannot be encoded, and closed standard files, need a process of their own

WITHOUT_NETWORK = """
import sys
sys.path[:0] = [".", "tests"]
import fuzz_images, test
from tools.command import run_main
test.open_upscaler = lambda model, scale, args: fuzz_images.Repeat()
for arguments in %r:
    try:
        run_main(lambda: test.main(arguments))
    except SystemExit as stop:
        status = stop.code
sys.exit(status)
"""


def run_in(environment, closed, code):
    """Run Python code with other environment variables, without these standard files: (status, out, err)."""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ, **environment),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               preexec_fn=lambda: [os.close(number) for number in closed])
    out, err = process.communicate()
    return process.returncode, out, err


def test_names_that_cannot_be_encoded(tmp_path):
    folder, table, sr = tmp_path / "in", tmp_path / "a.csv", tmp_path / "out"
    folder.mkdir()
    names = [u"\u65e5\u672c.png".encode("utf-8"), b"caf\xe9.png"]
    for name in names:
        Image.fromarray(PICTURE).save(os.fsdecode(os.path.join(os.fsencode(str(folder)), name)))
    status, out, err = run_in({"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}, [], WITHOUT_NETWORK % ([
        ["--input", str(folder), "--output", str(sr)], ["--dataset", str(folder), "--csv", str(table)]],))
    assert status == 0 and b"2 of 2 pictures" in out and b"Traceback" not in err
    assert {name[:-4] + b"_x2.png" for name in names} == set(os.listdir(os.fsencode(str(sr))))
    assert out.count(rb"\u65e5\u672c") == 3 and out.count(rb"caf\udce9") == 3
    found = [row["image"] for row in files.read_csv(str(table))]
    assert {os.fsencode(name) for name in found} == {name[:-4] for name in names} | {b"mean"}
    assert len(photographs.load_photographs(str(folder), 2, 8, 1)) == 2


def test_closed_standard_files(tmp_path):
    """Neither an error, nor anything of what is printed in a file."""
    code = WITHOUT_NETWORK % ([["--input", save(tmp_path / "a.png"), "nowhere.png", "--output",
                                str(tmp_path / "out")]],)
    status, out, err = run_in({}, [2], code)
    assert status == 1 and out.splitlines()[-1].startswith(b"1 of 2 pictures") and err == b""
    assert (images.decode(str(tmp_path / "out" / "a_x2.png")).color == enlarged(PICTURE)).all()
    code = ("import utils, sys; print('a'); print('b', file=sys.stderr); file = open(%r, 'w'); "
            "print(file.fileno(), file=file)")
    assert run_in({}, [0, 1, 2], code % str(tmp_path / "c")) == (0, b"", b"")
    assert int((tmp_path / "c").read_text()) > 2


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_written_or_refused(capfd):
    results = fuzz_images.campaign(100, seed=1)
    outcomes = [outcome[1] for attempts in results.values() for outcome in attempts]
    assert set(outcomes) == {"written", "refused"} and len(outcomes) in (104, 91)  # Pillow 8 has no AVIF
    assert 10 < outcomes.count("written") < 80 and capfd.readouterr() == ("", "")
