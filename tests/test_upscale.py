"""Pictures without ground truth: what is read and written, tiles, the ensemble, and what bad input gets."""
import errno
import os
import signal
import subprocess
import sys
import time

import test as evaluation
import utils
from conftest import ROOT, call
from model import MODELS, drsan, model_variables
from ops import tf
from tools import checkpoints
from tools.command import UserError
from tools.pictures import tiles, upscale as upscale_module, write
from tools.pictures.files import Picture, read_picture
from tools.pictures.tiles import Store, Upscaler

import PIL
import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageCms
from fuzz_images import Repeat

random = np.random.RandomState(7)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def photograph(height=48, width=64):
    return skimage.data.astronaut()[40:40 + height, 180:180 + width]


def save(path, image, **options):
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(str(path), **options)
    return str(path)


# tiles and the ensemble

def build(model, scale):
    """(session, lr, sr, model, scale) of the shipped network or, where there is none, of random weights."""
    lr = tf.placeholder(tf.float32, [1, None, None, 3])
    sr, session = drsan(lr, model, scale), tf.Session()
    if (model, scale) == ("32s", "x2"):
        checkpoints.restore_weights(session, checkpoints.find_checkpoint(model, scale))
    else:
        shapes = [variable.shape.as_list() for variable in model_variables()]
        gains = [np.sqrt(1.2 / np.prod(shape[:-1])) if len(shape) == 4 else 0.2 for shape in shapes]
        checkpoints.load_values(session, model_variables(), [gain * random.randn(*shape) for gain, shape in zip(gains, shapes)])
    return session, lr, sr, model, scale


@pytest.mark.parametrize("model, scale", [("32s", "x2"), ("48s", "x3"), ("32s", "x4")])
def test_tiles_do_not_change_the_result(model, scale, tmp_path):
    network = build(model, scale)
    image = photograph(57, 70)
    whole = Upscaler(*network)
    assert whole.plan(57, 70) == (None, False)
    whole = whole(image).array()
    tolerance = 1e-5 * max(1, np.abs(whole).max())
    assert whole.std() > 0.1
    for options in {"tile": 32}, {"tile": 16, "memory": 1, "folder": str(tmp_path)}:
        upscaler = Upscaler(*network, **options)
        assert upscaler.plan(57, 70) == (options["tile"], "memory" in options)
        np.testing.assert_allclose(upscaler(image).array(), whole, rtol=0, atol=tolerance)
    plain = Upscaler(*network)(image[:32, :32]).array()  # what others call a tile, even in a corner far from its edges
    assert np.abs(plain - whole[:plain.shape[0], :plain.shape[1]])[:8, :8].max() > 10 * tolerance
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize("tile", [None, 24])
def test_ensemble_is_the_mean_of_eight(tile):
    network = build("32s", "x2")
    image = photograph(30, 41)
    plain, expected = Upscaler(*network), 0
    for turns in range(4):
        for flip in 1, -1:
            view = np.rot90(image, turns)[:, ::flip]
            expected = expected + np.rot90(plain(view).array()[:, ::flip], -turns) / 8
    result = Upscaler(*network, tile=tile, ensemble=True)(image).array()
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)
    assert np.abs(result - plain(image).array()).max() > 1e-3


def test_gray_and_16_bits_are_the_same_network_input():
    image = random.randint(0, 256, (5, 4, 1)).astype(np.uint8)
    expected = np.repeat(image[None] / 255.0, 3, axis=3)
    for equal in image, image.astype(np.uint16) * 257:
        np.testing.assert_allclose(tiles.network_input(equal), expected, atol=1e-7)


def test_tiles_cover_every_pixel_once():
    for height, width, side in (1, 1, 16), (50, 33, 16), (64, 64, 64), (65, 20, 64):
        count = np.zeros((height, width), int)
        for tile in tiles.tiles(height, width, side, 5):
            count[tile.own] += 1
            rows, columns = np.mgrid[:height, :width]
            assert (rows[tile.read][tile.inner] == rows[tile.own]).all()
            assert (columns[tile.read][tile.inner] == columns[tile.own]).all()
            assert max(count[tile.own].shape) <= side
            read = count[tile.read].shape
            assert all(tile.read[i].start <= max(tile.own[i].start - 5, 0) for i in range(2))
            assert all(tile.read[i].start + read[i] >= min(tile.own[i].stop + 5, (height, width)[i]) for i in range(2))
            assert read == tuple(min(-(-size // -(-size // side)) + 10, size) for size in (height, width))  # one shape
        assert (count == 1).all()


def test_plan_stays_below_the_memory():
    upscaler = Upscaler(*build("32s", "x2"))
    halo, per_pixel = 2 * 4 + 3, tiles.bytes_per_pixel(MODELS["32s"], 2)
    kinds = set()
    for size in 100, 1000, 4000, 9000:
        for gibibytes in 0.25, 1, 4, 16:
            upscaler.host = gibibytes * 2 ** 30
            try:
                side, on_disk = upscaler.plan(size, size)
            except UserError as error:
                kinds.add("error")
                assert "GiB more are needed" in str(error)
                continue
            kinds.add((side is None, on_disk))
            need = 16 * size ** 2 + per_pixel * (min(side + 2 * halo, size) if side else size) ** 2
            need += 0 if on_disk or side is None else (2 * 4 * 32 + 3 * 4 * 4) * size ** 2
            assert need <= upscaler.host
    assert kinds == {"error", (True, False), (False, False), (False, True)}


def test_memory_of_a_gpu(monkeypatch):
    """A GPU's memory bounds the tiles, and what goes to disk depends on the machine's."""
    monkeypatch.setattr(tiles, "gpu_memory", lambda session: 2 ** 30)
    network = build("32s", "x2")
    tile, on_disk = Upscaler(*network).plan(4000, 3000)
    room = tiles.bytes_per_pixel(MODELS["32s"], 2) * (tile + 2 * 11) ** 2
    assert 0.75 * 2 ** 30 < room <= 0.8 * 2 ** 30
    assert Upscaler(*network, memory=2 ** 28).plan(4000, 3000)[0] < tile
    assert Upscaler(*network).plan(300, 300) == (None, False)


# reading

@pytest.mark.parametrize("name, mode, note", [
    ("a.png", "RGB", None), ("a.png", "RGBA", None), ("a.png", "L", None), ("a.png", "LA", None), ("a.png", "1", None),
    ("a.png", "P", None), ("a.tif", "RGB", None), ("a.tif", "CMYK", "converted from CMYK to RGB without a profile"),
    ("a.tif", "LAB", "converted from LAB to sRGB"), ("a.bmp", "RGB", None), ("a.webp", "RGBA", None),
    ("a.tga", "LA", None),
])
def test_read_picture(tmp_path, name, mode, note):
    image = Image.fromarray(photograph()).convert("RGBA" if "A" in mode and mode != "LAB" else "RGB")
    if image.mode == "RGBA":
        image.putalpha(Image.fromarray(np.tile(np.arange(1, 65, dtype=np.uint8), (48, 1))))
    image = image.convert(mode) if mode != "LAB" else ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
    path = save(tmp_path / name, image, **({"lossless": True} if name.endswith("webp") else {}))
    picture = read_picture(path, 1)
    gray = mode in ("1", "L", "LA")
    assert picture.color.dtype == np.uint8 and picture.color.shape == (48, 64, 1 if gray else 3)
    if mode == "LAB":  # 8 bits of L, a and b do not hold all of RGB
        assert np.abs(picture.color.astype(int) - photograph()).mean() < 3
    else:
        expected = np.asarray(image.convert("L" if gray else "RGB"))
        assert (picture.color == expected.reshape(picture.color.shape)).all()
    if image.mode in ("LA", "RGBA"):
        assert (picture.alpha == np.arange(1, 65)).all()
    else:
        assert picture.alpha is None
    assert picture.notes == ([note] if note else [])


def test_read_picture_of_16_bits_and_more(tmp_path):
    deep = random.randint(0, 65536, (9, 7)).astype(np.uint16)
    for name in "a.png", "a.tif":
        picture = read_picture(save(tmp_path / name, deep), 1)
        assert picture.color.dtype == np.uint16 and (picture.color[:, :, 0] == deep).all() and picture.notes == []
    picture = read_picture(save(tmp_path / "b.tif", np.float32(deep / 65535.0)), 1)
    assert np.abs(picture.color[:, :, 0].astype(int) - deep).max() == 0
    with pytest.raises(UserError, match="b.tif: its values reach from 0 to 7, expected from 0 to 1"):
        read_picture(save(tmp_path / "b.tif", np.float32(deep % 8)), 1)


def test_a_transparent_color_becomes_alpha(tmp_path):
    gray = np.uint8([[10, 20], [20, 30]])
    picture = read_picture(save(tmp_path / "a.png", gray, transparency=20), 1)
    assert (picture.alpha == [[255, 0], [0, 255]]).all() and picture.color.shape == (2, 2, 1)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation, turn", [
    (2, lambda a: a[:, ::-1]), (3, lambda a: np.rot90(a, 2)), (6, lambda a: np.rot90(a, -1)), (8, np.rot90)])
def test_orientation_is_applied(tmp_path, suffix, orientation, turn):
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / ("a." + suffix), photograph(), exif=exif.tobytes() if suffix != "tif" else exif, **options)
    picture = read_picture(path, 1)
    assert (picture.color == turn(photograph())).all() and picture.notes == []


def test_first_frame_with_a_note(tmp_path):
    frames = [Image.fromarray(np.uint8([[value]])).resize((5, 4)) for value in (50, 200)]
    picture = read_picture(save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:]), 1)
    assert picture.notes == ["the first of 2 frames"] and (picture.color == 50).all()


def test_hidden_color_does_not_bleed(tmp_path):
    rgba = np.zeros((12, 12, 4), np.uint8)
    rgba[:, :6] = 200, 10, 10, 255
    rgba[:, 6:] = 0, 255, 0, 0
    picture = read_picture(save(tmp_path / "a.png", rgba), 1)
    assert (picture.color == [200, 10, 10]).all()
    assert (picture.alpha == rgba[:, :, 3]).all()


# writing

def test_compose_keeps_depth_and_upscales_alpha():
    height, width, scale = 150, 20, 3  # more than two strips
    sr = Store((scale * height, scale * width, 3))
    sr.array()[...] = random.rand(*sr.shape) * 1.2 - 0.1
    alpha = random.randint(0, 256, (height, width)).astype(np.uint8)
    color = np.zeros((height, width, 3), np.uint8)
    result = np.asarray(write.compose(sr, Picture(color, alpha, None, []), scale))
    assert (result[:, :, :3] == utils.to_uint8(255 * sr.array())).all()
    assert (result[:, :, 3] == utils.bicubic(alpha[:, :, None], scale)[:, :, 0]).all()
    image = write.compose(sr, Picture(color[:, :, :1].astype(np.uint16), None, None, []), scale)
    luma = np.clip(sr.array().dot([0.299, 0.587, 0.114]), 0, 1)
    assert image.mode == "I;16" and np.abs(np.asarray(image, np.float64) - 65535 * luma).max() < 0.6


def test_formats(tmp_path):
    color, alpha = np.uint8([[[100, 100, 100]]]), np.uint8([[51]])
    assert write.fit_format(Picture(color, alpha, None, []), "webp").alpha is alpha
    jpeg = write.fit_format(Picture(color, alpha, None, []), "jpeg")
    assert jpeg.alpha is None and (jpeg.color == 224).all()  # a fifth of 100, the rest white
    assert jpeg.notes == ["its transparency becomes white: jpeg has none"]
    deep = Picture(np.uint16([[[257 * 9]]]), None, None, [])
    assert write.fit_format(deep, "png") is not None and write.fit_format(deep, "png").color.dtype == np.uint16
    assert (write.fit_format(deep, "webp").color == 9).all()


# the command

@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    save(folder / "rgb.jpg", photograph(), icc_profile=SRGB)
    save(folder / "gray.png", photograph()[:, :, 0])
    save(folder / "one.png", photograph(1, 1))
    save(folder / "alpha.webp", np.dstack([photograph(), photograph()[:, :, 0]]))
    return folder


@pytest.fixture
def repeat(monkeypatch):
    monkeypatch.setattr(evaluation, "build", lambda model, scale, args: Repeat())


def test_command(run, pictures, tmp_path):
    (pictures / "bad.png").write_bytes(b"no image")
    (pictures / "short.jpg").write_bytes((pictures / "rgb.jpg").read_bytes()[:900])
    (pictures / "notes.txt").write_text(u"")
    options = "--output", tmp_path / "out"
    missing = tmp_path / "out" / "nowhere.png"
    status, out, err = run("--input", pictures, missing, *options)
    assert status == 1
    assert sorted(line for line in err.splitlines()) == sorted([
        "note: 1 of 7 entries of %s are not images by their suffix" % pictures,
        "error: no image at %s" % missing,
        "error: cannot read the image %s: it is in no image format that Pillow %s knows" % (pictures / "bad.png", PIL.__version__),
        [line for line in err.splitlines() if "short.jpg" in line][0]])
    assert out.splitlines()[-1].startswith("4 of 7 pictures in ")
    assert "rgb.jpg 64x48 -> %s 128x96, " % (tmp_path / "out" / "rgb_x2.png") in out
    found = {name: Image.open(str(tmp_path / "out" / name)) for name in os.listdir(str(tmp_path / "out"))}
    assert {name: (image.mode, image.size) for name, image in found.items()} == {
        "rgb_x2.png": ("RGB", (128, 96)), "gray_x2.png": ("L", (128, 96)), "one_x2.png": ("RGB", (2, 2)),
        "alpha_x2.png": ("RGBA", (128, 96))}
    assert found["rgb_x2.png"].info["icc_profile"] == SRGB


def test_command_writes_what_the_network_gives(run, tmp_path):
    path = save(tmp_path / "a.png", photograph())
    network = build("32s", "x2")
    expected = utils.to_uint8(255 * Upscaler(*network, ensemble=True)(photograph()).array())
    status, out, err = run("--input", path, "--output", tmp_path, "--ensemble", "--tile", 32)
    assert (status, err) == (0, "")
    assert np.abs(utils.read_image(str(tmp_path / "a_x2.png")).astype(int) - expected).max() <= 1
    assert out.splitlines()[1] == "checkpoint       checkpoints/x2/32s/DRSAN32sx2"


def test_ensemble_and_tiles_in_the_evaluation(run, tmp_path):
    folder = tmp_path / "hr"
    folder.mkdir()
    save(folder / "a.png", photograph(80, 80))
    status, out, err = run("--dataset", folder, "--ensemble", "--tile", 24)
    lr = utils.downscale(photograph(80, 80), 2)
    sr = utils.to_uint8(255 * Upscaler(*build("32s", "x2"), ensemble=True)(lr).array())
    psnr, ssim = utils.score(sr, photograph(80, 80), 2)
    assert (status, err) == (0, "")
    assert [float(word) for word in out.splitlines()[4].split()[1:3]] == pytest.approx([psnr, ssim], abs=0.002)


class Timed(Repeat):
    """Logs when each picture is in the network. It leaves the network only when `until` is fulfilled for its number."""

    def __init__(self, log, room, until):
        self.log, self.room, self.until, self.count = log, room, until, 0

    def leave_room(self):
        return self.room

    def __call__(self, image):
        number, self.count = self.count, self.count + 1
        self.log.append("in %d" % number)
        limit = time.time() + 60
        while not self.until(number) and time.time() < limit:
            time.sleep(0.01)
        self.log.append("out %d" % number if self.until(number) else "late %d" % number)
        return super(Timed, self).__call__(image)


@pytest.fixture
def logged(run, tmp_path, monkeypatch):
    """Upscale three pictures: the log of Timed, with what is read and written in it."""
    def upscale(room, until):
        log, read, save_picture = [], upscale_module.read_picture, upscale_module.save_picture

        def log_read(path, megapixels):
            log.append("read " + os.path.basename(path)[0])
            return read(path, megapixels)

        def log_write(path, *arguments):
            note = save_picture(path, *arguments)
            log.append("write " + os.path.basename(path)[0])
            return note

        monkeypatch.setattr(upscale_module, "read_picture", log_read)
        monkeypatch.setattr(upscale_module, "save_picture", log_write)
        monkeypatch.setattr(evaluation, "build", lambda model, scale, args: Timed(log, room, lambda number: until(log, number)))
        paths = [save(tmp_path / ("%d.png" % i), photograph(8, 8 + i)) for i in range(3)]
        assert run("--input", *(paths + ["--output", tmp_path / "out", "--overwrite"]))[::2] == (0, "")
        for i in range(3):
            sr = utils.read_image(str(tmp_path / "out" / ("%d_x2.png" % i)))
            assert (sr[::2, ::2] == photograph(8, 8 + i)).all()
        return log
    return upscale


def test_reading_and_writing_overlap_with_the_network(logged):
    def until(log, number):  # what must happen before picture `number` leaves the network
        return ("read %d" % (number + 1) in log or number == 2) and ("write %d" % (number - 1) in log or number == 0)

    assert not [line for line in logged(2 ** 20, until) if line.startswith("late")]


def test_a_large_picture_has_the_memory_for_itself(logged):
    one = ["read %d", "in %d", "out %d", "write %d"]
    assert logged(24 * 4 * 8 * 8 - 1, lambda log, number: True) == [line % i for i in range(3) for line in one]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_interrupt_ends_a_large_picture(tmp_path):
    save(tmp_path / "a.png", np.tile(photograph(512, 300), (8, 8, 1)))
    command = [sys.executable, os.path.join(ROOT, "test.py"), "--gpu", "-1", "--input", str(tmp_path / "a.png"),
               "--output", str(tmp_path / "out"), "--tile", "32"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                               env=dict(os.environ, PYTHONUNBUFFERED="1"),
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # jobs in the background ignore it
    assert process.stdout.readline().startswith("DRSAN-32s")
    assert process.stdout.readline().startswith("checkpoint")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (130, "", "stopped\n")
    assert os.listdir(str(tmp_path / "out")) == []


def test_existing_output_is_kept_without_overwrite(run, repeat, tmp_path):
    path = save(tmp_path / "a.png", photograph())
    (tmp_path / "a_x2.png").write_bytes(b"mine")
    options = "--input", path, "--output", tmp_path
    status, out, err = run(*options)
    assert status == 1 and "error: %s exists already: add --overwrite" % (tmp_path / "a_x2.png") in err
    assert (tmp_path / "a_x2.png").read_bytes() == b"mine"
    assert run("--overwrite", *options)[0] == 0
    assert (utils.read_image(str(tmp_path / "a_x2.png"))[::2, 1::2] == photograph()).all()


@pytest.mark.parametrize("name", ["webp", "jpeg"])
def test_quality(run, repeat, tmp_path, name):
    path = save(tmp_path / "a.png", photograph(), icc_profile=SRGB)
    status, out, err = run("--input", path, "--output", tmp_path, "--format", name, "--quality", 10)
    output = str(tmp_path / ("a_x2." + name))
    assert (status, err) == (0, "")
    with Image.open(output) as image:
        assert image.info["icc_profile"] == SRGB and image.size == (128, 96)
        finer = save(tmp_path / "finer", image, format=name, quality=60, icc_profile=SRGB)
    assert os.path.getsize(output) < 0.9 * os.path.getsize(finer)


def test_errors_before_work_starts(run, pictures, tmp_path):
    same = []
    for folder in "bc":
        (tmp_path / folder).mkdir()
        same.append(save(tmp_path / folder / "rgb.jpg", photograph()))
    status, out, err = run("--input", pictures, *same + ["--output", tmp_path / "out"])
    assert (status, out) == (1, "")
    assert err == "error: %s and %s would both become %s\n" % (same[0], same[1], tmp_path / "out" / "rgb_jpg_x2.png")
    save(pictures / "rgb.png", photograph())
    os.rename(str(pictures / "rgb.png"), str(pictures / "rgb_x2.png"))
    status, out, err = run("--input", pictures / "rgb.jpg", pictures / "rgb_x2.png", "--output", pictures)
    assert (status, out) == (1, "")
    assert err == "error: %s would become %s, which is an input, too\n" % (
        pictures / "rgb.jpg", pictures / "rgb_x2.png")
    for source in pictures, pictures / "*.png":
        status, out, err = run("--input", source, "--output", pictures)
        assert (status, out) == (1, "")
        assert err == "error: --output %s is the folder of the input: choose another\n" % pictures


def test_too_many_pixels(run, repeat, tmp_path):
    paths = [save(tmp_path / name, photograph(*size)) for name, size in (("a.png", (40, 40)), ("b.png", (50, 50)))]
    options = ["--output", tmp_path, "--max-megapixels"]
    status, out, err = run("--input", *(paths + options + [0.0012]))  # a: above the limit, b: above twice the limit
    assert status == 1
    assert err.splitlines() == ["error: %s has more than 0.0012 megapixels: raise the limit by --max-megapixels" % path
                                for path in paths]
    assert run("--input", *(paths + options + [0.0025]))[0] == 0
    assert Image.MAX_IMAGE_PIXELS > 1e7


def test_full_disk_and_unreadable_folder(run, repeat, pictures, tmp_path, monkeypatch):
    def full(image, path, *arguments, **options):
        with open(path, "wb") as file:
            file.write(b"part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def closed(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    options = "--output", tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        status, out, err = run("--input", pictures / "rgb.jpg", *options)
    assert status == 1 and "0 of 1 pictures" in out
    assert err == "error: cannot write %s: No space left on device\n" % (tmp_path / "out" / "rgb_x2.png")
    assert os.listdir(str(tmp_path / "out")) == []
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", lambda *_: full(None, os.devnull))
        with pytest.raises(UserError, match="cannot keep 1.00 GiB in %s: No space left on device" % tmp_path):
            Store((2 ** 14, 2 ** 14, 1), str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", closed)
        status, out, err = run("--input", pictures, pictures / "rgb.jpg", *options)
    assert status == 1 and "1 of 2 pictures" in out
    assert err == "error: cannot read the folder %s: Permission denied\n" % pictures


def test_sides_that_a_format_cannot_hold(run, repeat, tmp_path):
    path = save(tmp_path / "a.png", np.zeros((1, 8200), np.uint8))
    status, out, err = run("--input", path, "--output", tmp_path, "--format", "webp")
    assert status == 1
    assert err == "error: %s would have 16400x2 pixels, and webp holds 16383 a side\n" % (tmp_path / "a_x2.webp")


@pytest.mark.parametrize("arguments, message", [
    (["--input", "a.png"], "--input needs --output"),
    (["--input", "a.png", "--output", "b", "--dataset", "Set5"], "--input goes without --dataset and --csv"),
    (["--input", "a.png", "--output", "b", "--model", "all"], "--input goes with one --model"),
    (["--input", "a.png", "--output", "b", "--quality", "0"], "--quality is from 1 to 100"),
    (["--input", "a.png", "--output", "b", "--quality", "50"], "--quality goes with --format webp or jpeg"),
    (["--input", "a.png", "--output", "b", "--tile", "0"], "invalid positive int value"),
    (["--format", "webp"], "--format goes with --input"),
    (["--overwrite"], "--overwrite goes with --input"),
])
def test_usage_errors(run, arguments, message):
    status, out, err = run(*arguments)
    assert status == 2 and message in err
