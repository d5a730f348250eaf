"""Tiles and the ensemble: the result does not depend on the tiles, and the memory suffices for them."""
import os

from model import MODELS, Variant, drsan, model_variables
from ops import tf
from tools.command import UserError
from tools.network import Network
from tools.pictures import tiles
from tools.pictures.tiles import Upscaler

import numpy as np
import pytest
import skimage.data

PICTURE = skimage.data.astronaut()[40:97, 180:250]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """{scale: Network} of random weights, of three DRAGs: the second has one before it and one behind."""
    MODELS["three"], draw, opened = Variant(8, 3, 2), np.random.RandomState(1), {}
    for scale in "x2", "x3", "x4":
        prefix = str(tmp_path_factory.mktemp(scale) / "weights")
        with tf.Graph().as_default(), tf.Session() as session:
            drsan(tf.placeholder(tf.float32, [None, None, None, 3]), "three", scale)
            for variable in model_variables():
                shape = variable.shape.as_list()
                gain = np.sqrt(1.2 / np.prod(shape[:-1])) if len(shape) == 4 else 0.2
                variable.load(gain * draw.randn(*shape), session)
            tf.train.Saver(model_variables()).save(session, prefix, write_meta_graph=False)
        opened[scale] = Network("three", scale, prefix, -1)
    yield opened
    for network in opened.values():
        network.close()
    del MODELS["three"]


@pytest.mark.parametrize("scale", ["x2", "x3", "x4"])
def test_tiles_do_not_change_the_result(networks, scale, tmp_path):
    network = networks[scale]
    whole = Upscaler(network)
    assert whole.plan(57, 70) == (None, False)
    whole = whole(PICTURE).array()
    tolerance = 1e-5 * max(1, np.abs(whole).max())
    assert whole.std() > 0.1
    for options in {"tile": 32}, {"tile": 16, "memory": 1e-9, "folder": str(tmp_path)}:
        upscaler = Upscaler(network, **options)
        assert upscaler.plan(57, 70) == (options["tile"], "memory" in options)
        np.testing.assert_allclose(upscaler(PICTURE).array(), whole, rtol=0, atol=tolerance)
    # what others call a tile, even in a corner far from its edges
    plain = Upscaler(network)(PICTURE[:32, :32]).array()
    assert np.abs(plain - whole[:plain.shape[0], :plain.shape[1]])[:8, :8].max() > 10 * tolerance
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize("tile", [None, 24])
def test_ensemble_is_the_mean_of_eight(networks, tile):
    image, plain, expected = PICTURE[:30, :41], Upscaler(networks["x2"]), 0
    for turns in range(4):
        for flip in 1, -1:
            view = np.rot90(image, turns)[:, ::flip]
            expected = expected + np.rot90(plain(view).array()[:, ::flip], -turns) / 8
    result = Upscaler(networks["x2"], tile=tile, ensemble=True)(image).array()
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)
    assert np.abs(result - plain(image).array()).max() > 1e-3


def test_gray_and_16_bits_are_the_same_network_input():
    image = PICTURE[:5, :4, :1]
    for equal in image, image.astype(np.uint16) * 257:
        expected = np.repeat(image[None] / 255.0, 3, axis=3)
        np.testing.assert_allclose(tiles.network_input(equal), expected, atol=1e-7)


@pytest.mark.parametrize("height, width, side", [(1, 1, 16), (50, 33, 16), (64, 64, 64), (65, 20, 64)])
def test_tiles_cover_every_pixel_once(height, width, side):
    count = np.zeros((height, width), int)
    for tile in tiles.cut_image(height, width, side, 5):
        count[tile.own] += 1
        rows, columns = np.mgrid[:height, :width]
        assert (rows[tile.read][tile.inner] == rows[tile.own]).all()
        assert (columns[tile.read][tile.inner] == columns[tile.own]).all()
        assert max(count[tile.own].shape) <= side
        read, sides = count[tile.read].shape, (height, width)
        assert all(tile.read[i].start <= max(tile.own[i].start - 5, 0) for i in range(2))
        assert all(tile.read[i].stop >= min(tile.own[i].stop + 5, sides[i]) for i in range(2))
        assert read == tuple(min(-(-size // -(-size // side)) + 10, size) for size in sides)  # one shape
    assert (count == 1).all()


def test_plan_stays_below_the_memory(networks):
    upscaler, kinds = Upscaler(networks["x2"]), set()
    upscaler.variant = MODELS["32s"]
    halo, per_pixel = 2 * 4 + 3, tiles.bytes_per_pixel(MODELS["32s"], 2)
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


def test_memory_of_a_gpu(networks, monkeypatch):
    """A GPU's memory bounds the tiles, and what goes to disk depends on the machine's."""
    monkeypatch.setattr(tiles, "gpu_memory", lambda session: 2 ** 28)
    tile, on_disk = Upscaler(networks["x2"]).plan(4000, 3000)
    room = tiles.bytes_per_pixel(MODELS["three"], 2) * (tile + 2 * 7) ** 2
    assert 0.75 * 2 ** 28 < room <= 0.8 * 2 ** 28
    assert Upscaler(networks["x2"], memory=1 / 16.0).plan(4000, 3000)[0] < tile
    assert Upscaler(networks["x2"]).plan(300, 300) == (None, False)
