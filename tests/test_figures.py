"""The figures: the values that they show, on made-up weights, and the files that they write."""
import argparse
import itertools
import os
import re

import utils
from conftest import call
from model import MODELS, count_parameters, drsan, model_variables
from ops import tf
from tools import checkpoints
from tools.command import UserError
from tools.paper import attention, canvas, comparison, drawings, figures, results

import numpy as np
import pytest
from PIL import Image

random = np.random.RandomState(5)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A checkpoint of 48s x2 with random weights that keep the signal, so that RSA and DRA are far from constant."""
    draw = np.random.RandomState(1)
    with tf.Graph().as_default(), tf.Session() as session:
        drsan(tf.placeholder(tf.float32, [None, None, None, 3]), "48s", "x2")
        shapes = [variable.shape.as_list() for variable in model_variables()]
        gains = [np.sqrt(2.0 / np.prod(shape[:-1])) if len(shape) == 4 else 0.1 for shape in shapes]
        checkpoints.load_values(session, model_variables(), [gain * draw.randn(*shape) for gain, shape in zip(gains, shapes)])
        return checkpoints.save_weights(session, str(tmp_path_factory.mktemp("weights")), "48s", "x2")


@pytest.fixture
def network(weights):
    return attention.open_network("48s", "x2", weights, -1)


@pytest.fixture
def photograph(tmp_path):
    """An HR image of 48x40 pixels, width first."""
    path = str(tmp_path / "photo.png")
    utils.save_image(path, random.randint(0, 256, (40, 48, 3)).astype(np.uint8))
    return path


@pytest.fixture
def run(monkeypatch, capsys):
    """Run figures.py with these arguments: (exit status, stdout, stderr)."""
    return lambda *arguments: call(monkeypatch, capsys, figures.main, *arguments)


# ---------------------------------------------------------------------------------------------------------- drawings

@pytest.mark.parametrize("model, scale, total", [("32s", "x2", 368427), ("48s", "x3", 751115)])
def test_parts_of_the_drawing_are_those_of_the_graph(model, scale, total):
    parts = drawings.count_parts(model, scale)
    assert sum(parts.values()) == total
    channels, drags, blocks = MODELS[model]
    paths = blocks * (blocks + 1) // 2
    assert parts["x0"] == 27 * channels + channels and parts["output"] == 27 * channels + 3
    assert parts["before the skip"] == 9 * channels ** 2 + channels
    drm = 16 * channels + 16 + 16 + 16 * paths + paths
    drag = drm + 2 * blocks * (9 * channels ** 2 + 2 * channels) + (blocks + 1) * channels ** 2 + channels
    assert [parts["DRAG %d" % k] for k in range(1, drags + 1)] == [drag] * drags
    drsan(tf.placeholder(tf.float32, [1, None, None, 3]), model, scale)
    assert count_parameters() == total


@pytest.mark.parametrize("model", ["32m"])
def test_drawings_name_every_part(model):
    with figures.pyplot.rc_context(canvas.STYLE):
        figure = drawings.structure(model, "x2")
        texts = [text.get_text() for text in figure.axes[0].texts]
        channels, drags, blocks = MODELS[model]
        assert ("DRAG\n%d" % drags) in texts and ("upsampler\nx2") in texts
        assert [text for text in texts if re.match(r"DRSA\$_\d\$$", text)] == [
            "DRSA$_%d$" % n for n in range(1, blocks + 1)]
        assert [text for text in texts if text.startswith("$r_")] == canvas.path_names(blocks)
        assert "{:,} parameters".format(sum(drawings.count_parts(model, "x2").values())) in texts[0]
        figures.pyplot.close(figure)
        figure = drawings.signal_flow(model)
        texts = " ".join(text.get_text() for text in figure.axes[0].texts)
        assert "conv 1x1\n%d" % len(canvas.path_names(blocks)) in texts and "$r_2^3$" in texts
        figures.pyplot.close(figure)


def test_names_of_paths():
    assert canvas.path_names(3) == ["$r_0^1$", "$r_0^2$", "$r_1^2$", "$r_0^3$", "$r_1^3$", "$r_2^3$"]


@pytest.mark.parametrize("name", figures.DRAWINGS)
def test_drawings_are_written_as_png_and_svg(run, tmp_path, name):
    status, out, err = run(name, "--output", tmp_path / "new" / name)
    assert (status, err) == (0, "")
    assert sorted(os.listdir(str(tmp_path / "new"))) == [name + ".png", name + ".svg"]
    with Image.open(str(tmp_path / "new" / (name + ".png"))) as image:
        assert image.size[0] == canvas.WIDTH and image.mode == "RGB"
    with open(str(tmp_path / "new" / (name + ".svg"))) as file:
        assert "</svg>" in file.read()


# --------------------------------------------------------------------------------------------------------------- dra

def test_patches_lie_on_a_grid(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    image = random.randint(0, 256, (70, 100, 3)).astype(np.uint8)
    utils.save_image(str(folder / "a.png"), image)
    lrs, hrs = attention.collect_patches([str(folder)], 2, "data", 16)
    assert lrs.shape == (6, 16, 16, 3) and len(hrs) == 6
    np.testing.assert_array_equal(hrs[4], image[32:64, 32:64])
    np.testing.assert_array_equal(lrs[4], utils.downscale(image, 2)[16:32, 16:32])
    with pytest.raises(UserError, match="no image of .* has a patch of 64x64"):
        attention.collect_patches([str(folder)], 2, "data", 64)


def test_groups_are_the_clusters_and_show_their_middle():
    centers = np.array([[0, 0], [10, 0], [0, 10]], float)
    sizes = 9, 4, 6
    values = np.concatenate([center + 0.1 * random.randn(size, 2) for center, size in zip(centers, sizes)])
    clusters = attention.group_patches(values, 3, 2)
    assert [size for _, size in clusters] == [9, 6, 4]
    for (members, size), (first, last) in zip(clusters, [(0, 9), (13, 19), (9, 13)]):
        part = values[first:last]
        assert set(members) <= set(range(first, last)) and len(members) == 2
        scaled = (part - part.mean(0)) / values.std(0)
        assert set(members - first) == set(np.argsort((scaled ** 2).sum(1))[:2])
    with pytest.raises(UserError, match="19 patches are too few for 3 groups of 7"):
        attention.group_patches(values, 3, 7)


def test_dra_values_are_those_of_each_patch_alone(network):
    lrs = random.randint(0, 256, (70, 8, 8, 3)).astype(np.uint8)  # more than one batch
    values = attention.dra_values(network, lrs, 2)
    assert values.shape == (70, 6)
    np.testing.assert_allclose(values[66], attention.fetch(network, network.dra[1], lrs[66:67])[0, 0, 0], atol=1e-5)


def test_dra_figure_draws_bands_and_means(weights, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    utils.save_image(str(folder / "a.png"), random.randint(0, 256, (96, 96, 3)).astype(np.uint8))
    args = argparse.Namespace(model="48s", scale="x2", checkpoint=weights, gpu=-1, drag=3, dataset=[str(folder)],
                              data_dir="data", side=8, groups=2, patches=3)
    with figures.pyplot.rc_context(canvas.STYLE):
        figure = attention.draw_dra(args)
    axis = figure.axes[0]
    lrs, hrs = attention.collect_patches([str(folder)], 2, "data", 8)
    values = attention.dra_values(attention.open_network("48s", "x2", weights, -1), lrs, 3)
    for i, (members, _) in enumerate(attention.group_patches(values, 2, 3)):
        np.testing.assert_allclose(axis.lines[i].get_ydata(), values[members].mean(0), atol=1e-6)
        band = axis.collections[i].get_paths()[0].vertices
        for x in range(6):
            y = band[band[:, 0] == x, 1]
            expected = values[members, x]
            np.testing.assert_allclose((y.min(), y.max()), (expected.min(), expected.max()), atol=1e-6)
        for j, member in enumerate(members):
            np.testing.assert_array_equal(figure.axes[1 + 3 * i + j].images[0].get_array(), hrs[member])
    figures.pyplot.close(figure)


# -------------------------------------------------------------------------------------------------------------- swap

def test_swap_feeds_the_donors_values(network):
    lr, donor = (random.randint(0, 256, size + (3,)).astype(np.uint8) for size in ((12, 14), (9, 7)))
    own, swapped, values = attention.swap(network, lr, [lr, donor])
    np.testing.assert_array_equal(swapped[0], own)      # its own values change nothing
    assert np.abs(swapped[1] - own).max() > 1e-3
    assert [len(value) for value in values] == [24, 24, 24]
    np.testing.assert_array_equal(values[0], values[1])
    donors = attention.fetch(network, network.dra, donor[None])
    np.testing.assert_array_equal(values[2], np.concatenate([value.ravel() for value in donors]))
    zero = [np.zeros_like(value) for value in donors]
    np.testing.assert_allclose(attention.fetch(network, network.sr, lr[None], zero)[0], no_dra(network, lr), atol=1e-5)


def test_swap_figure_shows_the_images_and_their_scores(weights, photograph):
    donor = photograph + ":8,8,16,16"
    args = argparse.Namespace(model="48s", scale="x2", checkpoint=weights, gpu=-1, patch=photograph + ":0,0,32,32",
                              donors=[donor], data_dir="data")
    with figures.pyplot.rc_context(canvas.STYLE):
        figure = attention.draw_swap(args)
    image = utils.read_image(photograph)
    lr, hr = utils.downscale(image, 2)[:16, :16], image[:32, :32]
    donor_lr, donor_hr = utils.downscale(image, 2)[4:12, 4:12], image[8:24, 8:24]
    own, swapped, values = attention.swap(attention.open_network("48s", "x2", weights, -1), lr, [donor_lr])
    panels = {axis.get_title(): axis for axis in figure.axes}
    shown = {title: axis.images[0].get_array() for title, axis in panels.items() if axis.images}
    np.testing.assert_array_equal(shown["HR"], hr)
    np.testing.assert_array_equal(shown["donor 1"], donor_hr)
    for name, sr in ("SR, own DRA", own), ("DRA of donor 1", swapped[0]):
        sr = utils.to_uint8(255 * sr)
        np.testing.assert_array_equal(shown["%s\n%.2f dB / %.4f" % ((name,) + utils.score(sr, hr, 2))], sr)
    difference = np.abs(utils.luma(255 * swapped[0]) - utils.luma(255 * own))
    title = "difference on Y\nmean %.2f, max %.1f" % (difference.mean(), difference.max())
    np.testing.assert_allclose(shown[title], difference, atol=1e-4)
    line = panels["DRA, donor less own,\nof each DRAG"].lines[0]
    np.testing.assert_allclose(line.get_ydata(), values[1] - values[0], atol=1e-6)
    figures.pyplot.close(figure)


def no_dra(network, lr):
    """SR where every residual path is cut, with nothing fed: the DRM's last convolutions are zero."""
    last = ["DRAN/conv2d_%d/%s" % (2 + 9 * k, part) for k in range(4) for part in ("kernel", "bias")]
    with network.session.graph.as_default():
        variables = [variable for variable in model_variables() if variable.op.name in last]
        assert len(variables) == 8
        checkpoints.load_values(network.session, variables, [np.zeros(variable.shape.as_list()) for variable in variables])
    return attention.fetch(network, network.sr, lr[None])[0]


# ------------------------------------------------------------------------------------------------------------- crops

def test_crop_is_cut_from_the_whole_image(run, weights, photograph, tmp_path):
    patch = canvas.parse_patch(photograph + ":10,4,20,12", 2, "data")
    assert (patch.name, patch.box) == ("photo", (10, 4, 20, 12))
    hr, bicubic, ours = comparison.crop_row(patch, "48s", "x2", weights, -1)
    image = utils.read_image(photograph)
    lr = utils.downscale(image, 2)
    np.testing.assert_array_equal(hr[1], image)
    np.testing.assert_array_equal(bicubic[1], utils.bicubic(lr, 2))
    assert bicubic[2] == utils.score(bicubic[1], image, 2) and ours[2] == utils.score(ours[1], image, 2)
    np.testing.assert_array_equal(ours[1], attention.upscale(attention.open_network("48s", "x2", weights, -1), lr))
    np.testing.assert_array_equal(canvas.cut(ours[1], patch.box), ours[1][4:16, 10:30])
    status, out, err = run("crops", "--crops", photograph + ":10,4,20,12", "--gpu", "-1", "--checkpoint", weights,
                           "--output", tmp_path / "crops")
    assert (status, err) == (0, "")
    with Image.open(str(tmp_path / "crops.png")) as drawn:
        drawn = np.array(drawn)
    zoom = 276 // 20
    shown = drawn[50:50 + 12 * zoom, 200:200 + 20 * zoom]  # HR, each pixel a square
    np.testing.assert_array_equal(shown[zoom // 2::zoom, zoom // 2::zoom], image[4:16, 10:30])


def test_crop_of_an_untrained_model(photograph, monkeypatch, tmp_path):
    def missing(model, scale, checkpoint):
        raise UserError("no checkpoint")
    monkeypatch.setattr(comparison, "find_checkpoint", missing)
    patch = canvas.parse_patch(photograph, 2, "data")
    assert comparison.crop_row(patch, "48m", "x4", None, -1)[2] == ("DRSAN-48m", None, None)
    with pytest.raises(UserError, match="no checkpoint"):
        comparison.crop_row(patch, "48m", "x4", "named", -1)
    (tmp_path / "damaged.index").write_bytes(b"damaged")
    for module in comparison, attention:
        monkeypatch.setattr(module, "find_checkpoint", lambda *arguments: str(tmp_path / "damaged"))
    with pytest.raises(UserError, match="cannot read the checkpoint"):  # which is not "not trained"
        comparison.crop_row(patch, "48m", "x4", None, -1)


def test_patches_are_named_by_data_set_or_path(photograph):
    patch = canvas.parse_patch("Sample/chelsea:100,80,96,64", 2, "data")
    lr, hr = canvas.read_patch(patch, 2)
    image = utils.read_image(patch.pair.hr)
    np.testing.assert_array_equal(hr, image[80:144, 100:196])
    np.testing.assert_array_equal(lr, utils.downscale(utils.crop_to_multiple(image, 2), 2)[40:72, 50:98])
    assert canvas.read_patch(patch, 3)[1].shape == (63, 96, 3)
    assert canvas.read_patch(canvas.parse_patch(photograph, 2, "data"), 2)[1].shape == (40, 48, 3)
    for text, message in [("Sample/nobody", "there is no image Sample/nobody"), ("no.png:1,2,3,4", "no image no"),
                          (photograph + ":1,2,3", "a patch is x,y,width,height"), (photograph + ":0,0,0,9", "a patch")]:
        with pytest.raises(UserError, match=message):
            canvas.parse_patch(text, 2, "data")
    with pytest.raises(UserError, match="40,0,10,10 is not inside its image of 48x40"):
        canvas.cut(utils.read_image(photograph), (40, 0, 10, 10))
    with pytest.raises(UserError, match="too small"):
        canvas.read_patch(canvas.parse_patch(photograph + ":0,0,1,9", 2, "data"), 2)


# --------------------------------------------------------------------------------------------------------------- rsa

def test_rsa_is_the_sigmoid_of_each_block(network):
    """f_n = (y + DRA sum) * RSA: with all DRA values 0 and N = 3, RSA is f_n / y, and y = log(RSA / (1 - RSA))."""
    assert [len(drag) for drag in network.rsa] == [3, 3, 3, 3]
    lr = random.randint(0, 256, (1, 6, 5, 3)).astype(np.uint8)
    zero = [np.zeros((1, 1, 1, 6), np.float32)] * 4
    concat = next(op for op in network.sr.graph.get_operations()
                  if op.name.startswith("DRAN/DRAG2/") and op.type == "ConcatV2")
    rsa, features = attention.fetch(network, [network.rsa[1], list(concat.inputs)[:4]], lr, zero)
    for one, feature in zip(rsa, features[1:]):
        assert one.shape == (1, 6, 5, 48) and one.std() > 0.01
        np.testing.assert_allclose(feature, np.log(one / (1 - one)) * one, atol=1e-4)


def test_rsa_figure_shows_means_and_channels(weights, photograph):
    args = argparse.Namespace(model="48s", scale="x2", checkpoint=weights, gpu=-1, patch=photograph, at=(2, 3),
                              channels=[0, 47], data_dir="data")
    with figures.pyplot.rc_context(canvas.STYLE):
        figure = attention.draw_rsa(args)
    lr = utils.downscale(utils.read_image(photograph), 2)
    network = attention.open_network("48s", "x2", weights, -1)
    maps = attention.fetch(network, network.rsa, lr[None])
    shown = [axis.images[0].get_array() for axis in figure.axes]
    assert len(shown) == 3 + 4 * 3
    np.testing.assert_array_equal(shown[0], lr)
    for image, channel in zip(shown[1:3], args.channels):
        np.testing.assert_allclose(image, maps[1][2][0, :, :, channel], atol=1e-6)
    for i, image in enumerate(shown[3:]):
        np.testing.assert_allclose(image, maps[i // 3][i % 3][0].mean(2), atol=1e-6)
    assert figure.axes[2].get_title().startswith("2.3, channel 47:") and figure.axes[-1].get_title().startswith("DRSA 4.3:")
    figures.pyplot.close(figure)


def test_channels_that_vary_most():
    rsa = np.full((4, 4, 5), 0.5)
    rsa[0, 0, 3], rsa[0, 0, 1] = 0.9, 0.6
    assert attention.choose_channels(rsa, 3) == [3, 1, 0]


# --------------------------------------------------------------------------------------------------------- trade-off

def test_points_of_the_trade_off():
    measured = [results.Measured("x2", "32s", "w", 368427, 84.9, "Set5", 5, 37.2, 0.95, 33, 0.9)]
    points = comparison.trade_off_points(measured, "Set5")
    assert [len(points[scale]) for scale in ("x2", "x3", "x4")] == [22 + 5 + 1, 17 + 4, 16 + 4]
    assert comparison.Point("32s", "ours", 0.368427, 84.9, 37.2) in points["x2"]
    assert comparison.Point("48m", "paper", 1.27, 88.7, 32.34) in points["x4"]
    assert comparison.Point("IMDN", "published", 0.7, None, 34.36) in points["x3"]
    assert len(comparison.trade_off_points([], "Urban100")["x2"]) == 22 + 5 - 1  # SelNet has no figure there


def test_range_leaves_out_a_point_that_lies_alone():
    points = [comparison.Point(str(psnr), kind, 1, 1, psnr) for kind, psnr in (
        ("published", 30), ("published", 36), ("published", 38), ("paper", 38))]
    low, high = comparison.psnr_range(points)
    assert 30 < low < 36 and high > 38
    low, _ = comparison.psnr_range(points + [comparison.Point("a", "ours", 1, 1, 31)])
    assert low < 30  # ours is always shown, and now the lowest is near it


def test_labels_do_not_collide():
    with figures.pyplot.rc_context(canvas.STYLE):
        figure = comparison.draw_trade_off(argparse.Namespace(dataset="Set5"))
        figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    assert len(figure.axes) == 6
    for axis in figure.axes:
        boxes = [text.get_window_extent(renderer) for text in axis.texts if text.get_text()]
        assert len(boxes) >= 16
        boxes = [(box.x0, box.y0 + 0.15 * box.height, box.x1, box.y1 - 0.15 * box.height) for box in boxes]
        assert not any(comparison.overlap(one, other) for one, other in itertools.combinations(boxes, 2))
    figures.pyplot.close(figure)


def test_trade_off_shows_every_point_at_its_place():
    with figures.pyplot.rc_context(canvas.STYLE):
        figure = comparison.draw_trade_off(argparse.Namespace(dataset="Set5"))
    measured = results.read_measured(os.path.join(results.FIGURES, "our_table.csv"))
    points = comparison.trade_off_points(measured, "Set5")
    for i, scale in enumerate(points):
        for j, column in enumerate(("params", "multi_adds")):
            for line, kind in zip(figure.axes[2 * i + j].lines, ("published", "paper", "ours")):
                expected = sorted((getattr(point, column), point.psnr) for point in points[scale]
                                  if point.kind == kind and getattr(point, column))
                assert sorted(map(tuple, line.get_xydata())) == expected and (expected or kind == "ours")
    figures.pyplot.close(figure)


def test_overlap():
    assert comparison.overlap((0, 0, 4, 3), (2, 1, 9, 9)) == 4
    assert comparison.overlap((0, 0, 4, 3), (4, 0, 9, 9)) == comparison.overlap((0, 0, 4, 3), (5, 5, 9, 9)) == 0


# ----------------------------------------------------------------------------------------------------------- command

@pytest.mark.parametrize("arguments", [
    ["swap", "--patch", "{photo}:0,0,32,32", "--donors", "{photo}:8,8,16,16"],
    ["rsa", "--patch", "{photo}", "--at", "2.3", "--channels", "0", "47"]])
def test_figures_of_a_model_are_written(run, weights, photograph, tmp_path, arguments):
    arguments = [argument.format(photo=photograph) for argument in arguments]
    common = ["--gpu", "-1", "--model", "48s", "--checkpoint", weights]
    for name in "a", "b":
        status, out, err = run(*arguments + common + ["--output", tmp_path / "out" / name])
        assert (status, err) == (0, "") and "wrote " in out
    assert sorted(os.listdir(str(tmp_path / "out"))) == ["a.png", "b.png"]
    with Image.open(str(tmp_path / "out" / "a.png")) as image:
        assert image.size[0] == canvas.WIDTH
    assert (tmp_path / "out" / "a.png").read_bytes() == (tmp_path / "out" / "b.png").read_bytes()


def test_shipped_figures_are_small_and_readable():
    for name in figures.DRAW:
        path = os.path.join(figures.FIGURES, name + ".png")
        assert os.path.getsize(path) < 300000
        with Image.open(path) as image:
            assert image.size[0] == canvas.WIDTH


@pytest.mark.parametrize("arguments, status, message", [
    (["poster"], 2, "invalid choice: 'poster'"),
    (["dra", "--groups", "0"], 2, "invalid positive int value: '0'"),
    (["rsa", "--at", "2"], 2, "invalid drsa_number value: '2'"),
    (["crops", "--paper", "--checkpoint", "a"], 2, "--paper is of three scales"),
    (["crops", "--crops", "Sample/chelsea"], 1, "error: a crop needs a box"),
    (["dra", "--checkpoint", "nowhere"], 1, "error: no checkpoint at nowhere"),
    (["dra", "--drag", "5", "--gpu", "-1"], 1, "error: DRSAN-32s has no DRAG 5: choose from 1 to 4"),
    (["rsa", "--at", "1.5", "--gpu", "-1"], 1, "error: DRSAN-32s has no DRSA 1.5"),
    (["rsa", "--channels", "32", "--patch", "Sample/chelsea:0,0,16,16", "--gpu", "-1"], 1, "has the channels 0 to 31"),
    (["rsa", "--channels", "-33", "--patch", "Sample/chelsea:0,0,16,16", "--gpu", "-1"], 1, "has the channels 0 to 31"),
    (["rsa", "--channels", "0", "-1", "--patch", "Sample/chelsea:0,0,16,16", "--gpu", "-1"], 1, "has the channels 0 to 31"),
    (["structure", "--output", os.devnull + "/a"], 1, "error: cannot write"),
])
def test_bad_arguments(run, arguments, status, message):
    result = run(*arguments)
    assert result[0] == status and message in result[2]
