"""Tiles and the ensemble: the result does not depend on the tiles, and the memory suffices for them."""
import os

from model import MODELS, drsan, model_variables
from ops import tf
from tools import checkpoints
from tools.command import UserError
from tools.pictures import tiles
from tools.pictures.tiles import Upscaler

import numpy as np
import pytest
import skimage.data

random = np.random.RandomState(7)


def photograph(height=48, width=64):
    return skimage.data.astronaut()[40:40 + height, 180:180 + width]


def build(model, scale):
    """(session, lr, sr, model, scale) of the shipped network or, where there is none, of random weights."""
    lr = tf.placeholder(tf.float32, [1, None, None, 3])
    sr, session = drsan(lr, model, scale), tf.Session()
    if (model, scale) == ("32s", "x2"):
        checkpoints.restore_weights(session, checkpoints.find_checkpoint(model, scale))
    else:
        shapes = [variable.shape.as_list() for variable in model_variables()]
        gains = [np.sqrt(1.2 / np.prod(shape[:-1])) if len(shape) == 4 else 0.2 for shape in shapes]
        checkpoints.load_values(session, model_variables(),
                                [gain * random.randn(*shape) for gain, shape in zip(gains, shapes)])
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
    # what others call a tile, even in a corner far from its edges
    plain = Upscaler(*network)(image[:32, :32]).array()
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
            assert all(tile.read[i].start + read[i] >= min(tile.own[i].stop + 5, (height, width)[i])
                       for i in range(2))
            # one shape
            assert read == tuple(min(-(-size // -(-size // side)) + 10, size) for size in (height, width))
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
