"""The figures: the values that they show, on made-up weights, and the files that they write."""
import argparse
import itertools
import os

import utils
from conftest import call
from tools.command import UserError
from tools.paper import attention, figures, results

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.text import Text
from PIL import Image

random = np.random.RandomState(5)


@pytest.fixture
def photograph(tmp_path):
    """An HR image of 48x40 pixels, width first, in a folder of its own."""
    path = str(tmp_path / "images" / "photo.png")
    os.mkdir(os.path.dirname(path))
    utils.save_image(path, random.randint(0, 256, (40, 48, 3)).astype(np.uint8))
    return path


def options(**values):
    return argparse.Namespace(model="32s", scale="x2", checkpoint=None, gpu=-1, data_dir="data", **values)


def panels(figure):
    """{title: image} of what a figure shows."""
    return {axis.get_title(): axis.images[0].get_array() for axis in figure.axes if axis.images}


def test_groups_are_the_clusters_and_show_their_middle():
    centers = np.array([[0, 0], [10, 0], [0, 10]], float)
    values = np.concatenate(
        [center + 0.1 * random.randn(size, 2) for center, size in zip(centers, (9, 4, 6))])
    clusters = attention.group_patches(values, 3, 2)
    assert [size for _, size in clusters] == [9, 6, 4]
    for (members, _), (first, last) in zip(clusters, [(0, 9), (13, 19), (9, 13)]):
        scaled = (values[first:last] - values[first:last].mean(0)) / values.std(0)
        assert set(members - first) == set(np.argsort((scaled ** 2).sum(1))[:2])
    with pytest.raises(UserError, match="19 patches are too few for 3 groups of 7"):
        attention.group_patches(values, 3, 7)


def test_dra_figure_draws_bands_and_means_of_patches_on_a_grid(network, photograph):
    args = options(drag=1, dataset=[os.path.dirname(photograph)], side=8, groups=2, patches=2)
    lrs, hrs = attention.collect_patches(args.dataset, 2, "data", 8)
    image = utils.read_image(photograph)
    assert lrs.shape == (6, 8, 8, 3) and len(hrs) == 6
    np.testing.assert_array_equal(hrs[4], image[16:32, 16:32])
    np.testing.assert_array_equal(lrs[4], utils.downscale(image, 2)[8:16, 8:16])
    with pytest.raises(UserError, match="no image of .* has a patch of 64x64"):
        attention.collect_patches(args.dataset, 2, "data", 64)
    figure = attention.draw_dra(args, network)
    values = np.array([attention.fetch(network, network.dra[0], lr[None])[0, 0, 0] for lr in lrs])
    axis = figure.axes[0]
    for i, (members, _) in enumerate(attention.group_patches(values, 2, 2)):
        np.testing.assert_allclose(axis.lines[i].get_ydata(), values[members].mean(0), atol=1e-5)
        band = axis.collections[i].get_paths()[0].vertices
        for path in range(3):
            y = band[band[:, 0] == path, 1]
            shown = values[members, path]
            np.testing.assert_allclose((y.min(), y.max()), (shown.min(), shown.max()), atol=1e-5)
        for j, member in enumerate(members):
            np.testing.assert_array_equal(figure.axes[1 + 2 * i + j].images[0].get_array(), hrs[member])
    assert [label.get_text() for label in axis.get_xticklabels()] == ["$r_0^1$", "$r_0^2$", "$r_1^2$"]


def test_swap_feeds_the_donors_values(network, photograph):
    args = options(patch=photograph + ":0,0,32,32",
                   donors=[photograph + ":8,8,16,16", photograph + ":0,0,32,32"])
    figure = attention.draw_swap(args, network)
    hr = utils.read_image(photograph)
    lr = utils.downscale(hr, 2)
    own, donor = [attention.fetch(network, network.dra, patch[None])
                  for patch in (lr[:16, :16], lr[4:12, 4:12])]
    (plain, swapped, same), values = attention.swap(network, lr[:16, :16], [lr[4:12, 4:12], lr[:16, :16]])
    np.testing.assert_array_equal(plain, same)
    np.testing.assert_array_equal(values[1], donor[0].ravel())
    expected = attention.fetch(network, network.sr, lr[None, :16, :16], donor)[0]
    np.testing.assert_array_equal(swapped, expected)
    assert np.abs(swapped - plain).max() > 1e-3
    shown, sr = panels(figure), utils.to_uint8(255 * swapped)
    title = "DRA of donor 1\n%.2f dB / %.4f" % utils.score(sr, hr[:32, :32], 2)
    np.testing.assert_array_equal(shown[title], sr)
    np.testing.assert_array_equal(shown["donor 1"], hr[8:24, 8:24])
    difference = np.abs(utils.luma(255 * swapped) - utils.luma(255 * plain))
    title = "difference on Y\nmean %.2f, max %.1f" % (difference.mean(), difference.max())
    np.testing.assert_allclose(shown[title], difference, atol=1e-4)
    line = next(axis for axis in figure.axes if axis.get_title().startswith("DRA, donor less own")).lines[0]
    np.testing.assert_allclose(line.get_ydata(), donor[0].ravel() - own[0].ravel(), atol=1e-6)


def test_rsa_is_the_sigmoid_of_each_block_and_is_shown(network, photograph):
    """f_n = (y + DRA sum) * RSA: with all DRA values 0, RSA is f_n / y, and y = log(RSA / (1 - RSA))."""
    lr, zero = utils.downscale(utils.read_image(photograph), 2), [np.zeros((1, 1, 1, 3), np.float32)]
    concat = next(op for op in network.sr.graph.get_operations()
                  if op.name.startswith("DRAN/DRAG1/") and op.type == "ConcatV2")
    rsa, features = attention.fetch(network, [network.rsa[0], list(concat.inputs)[:3]], lr[None], zero)
    for attended, feature in zip(rsa, features[1:]):
        assert attended.shape == (1, 20, 24, 8) and attended.std() > 0.01
        np.testing.assert_allclose(feature, np.log(attended / (1 - attended)) * attended, atol=1e-4)
    figure = attention.draw_rsa(options(patch=photograph, at=(1, 2), channels=[0, 7]), network)
    maps = attention.fetch(network, network.rsa[0], lr[None])
    expected = [lr, maps[1][0, :, :, 0], maps[1][0, :, :, 7], maps[0][0].mean(2), maps[1][0].mean(2)]
    for axis, image in zip(figure.axes, expected):
        np.testing.assert_allclose(axis.images[0].get_array(), image, atol=1e-6)
    assert figure.axes[2].get_title().startswith("1.2, channel 7:") and len(figure.axes) == 5
    rsa = np.full((4, 4, 5), 0.5)
    rsa[0, 0, 3], rsa[0, 0, 1] = 0.9, 0.6
    assert attention.choose_channels(rsa, 3) == [3, 1, 0]


def test_crop_is_cut_from_the_whole_image(network, photograph, tmp_path, monkeypatch, capsys):
    image, crop = utils.read_image(photograph), (slice(4, 16), slice(10, 30))
    lr = utils.downscale(image, 2)
    text = photograph + ":10,4,20,12"
    shown = panels(figures.draw_crops(options(crops=[text], paper=False)))
    assert len(shown) == 4
    np.testing.assert_array_equal(shown["photo, x2"], image)
    np.testing.assert_array_equal(shown["HR\nPSNR / SSIM"], image[crop])
    for name, sr in ("bicubic", utils.bicubic(lr, 2)), ("DRSAN-32s", attention.fetch_sr(network, lr)):
        title = "%s\n%.2f dB / %.4f" % ((name,) + utils.score(sr, image, 2))
        np.testing.assert_array_equal(shown[title], sr[crop])
    path = tmp_path / "new" / "crops"
    status, out, err = call(
        monkeypatch, capsys, figures.main, "crops", "--crops", text, "--gpu", -1, "--output", path)
    assert (status, err) == (0, "") and out.endswith("crops.png\n")
    assert os.listdir(str(path.parent)) == ["crops.png"]
    with Image.open(str(path) + ".png") as drawn:
        drawn, zoom = np.array(drawn)[:, :, :3], 276 // 20
    pixels = drawn[50:50 + 12 * zoom, 200:200 + 20 * zoom]  # HR, each pixel a square
    np.testing.assert_array_equal(pixels[zoom // 2::zoom, zoom // 2::zoom], image[crop])


def test_patches_are_named_by_data_set_or_path(photograph):
    lr, hr = attention.read_patch("Sample/chelsea:100,80,96,64", 2, "data")
    image = attention.read_photograph("Sample/chelsea", 2, "data")[2]
    np.testing.assert_array_equal(hr, image[80:144, 100:196])
    np.testing.assert_array_equal(lr, utils.downscale(utils.crop_to_multiple(image, 2), 2)[40:72, 50:98])
    assert attention.read_patch("Sample/chelsea:100,80,96,64", 3, "data")[1].shape == (63, 96, 3)
    for text, message in [("Sample/nobody", "there is no image Sample/nobody"),
                          ("no.png:1,2,3,4", "no image no"), (photograph + ":1,2,3", "for a patch of it"),
                          (photograph + ":40,0,10,10", "is not inside"),
                          (photograph + ":0,0,1,9", "smaller")]:
        with pytest.raises(UserError, match=message):
            attention.read_patch(text, 2, "data")


def test_trade_off_shows_every_point_and_its_name():
    with rc_context(figures.STYLE):
        figure = figures.draw_trade_off(argparse.Namespace(dataset="Set5"))
    measured = results.MEASURED.read(os.path.join(results.FIGURES, "our_table.csv"))
    points = figures.trade_off_points(measured, "Set5")
    assert [len(points[scale]) for scale in ("x2", "x3", "x4")] == [22 + 5 + 5, 17 + 4 + 4, 16 + 4 + 4]
    assert figures.Point("48m", "paper", 1.27, 88.7, 32.34) in points["x4"]
    assert figures.Point("48m", "ours", 1.270963, 88.33, 31.9828) in points["x4"]
    for axis, (scale, column) in zip(figure.axes, itertools.product(points, ("params", "multi_adds"))):
        expected = [point for point in points[scale] if getattr(point, column) and point.name != "FSRCNN"]
        shown = np.concatenate([line.get_xydata() for line in axis.lines])
        assert sorted(map(tuple, shown)) == sorted((getattr(point, column), point.psnr) for point in expected)
        names = [text for text in axis.texts if "FSRCNN" not in text.get_text()]
        assert sorted(text.get_text() for text in names) == sorted(point.name for point in expected)
        boxes = [Text.get_window_extent(text) for text in names]
        assert not any(box.count_overlaps([other]) for box, other in itertools.combinations(boxes, 2))


@pytest.mark.parametrize(
    "arguments, status, message",
    [(["structure"], 2, "invalid choice: 'structure'"),
     (["dra", "--groups", "0"], 2, "invalid positive int value: '0'"),
     (["rsa", "--at", "2"], 2, "invalid drsa_number value"),
     (["crops", "--paper", "--checkpoint", "a"], 2, "three scales"),
     (["dra", "--checkpoint", "nowhere"], 1, "error: no checkpoint at nowhere"),
     (["dra", "--drag", "5"], 1, "error: DRSAN-32s has no DRAG 5: choose from 1 to 1"),
     (["rsa", "--at", "1.5"], 1, "error: DRSAN-32s has no DRSA 1.5"),
     (["rsa", "--channels", "0", "-1", "--patch", "Sample/chelsea:0,0,16,16"], 1, "has the channels 0 to 7")])
def test_bad_arguments(network, monkeypatch, capsys, tmp_path, arguments, status, message):
    end = ["--gpu", "-1", "--output", tmp_path / "a"]
    result = call(monkeypatch, capsys, figures.main, *arguments + (end if status == 1 else []))
    assert result[0] == status and message in result[2]
