"""tools/network.py: networks as scripts use them."""
import glob
import os
import shutil

import utils
from conftest import ROOT
from model import MODELS
from ops import tf
from tools import checkpoints, command, compute, network, runtime
from tools.command import UserError
from tools.files import write_json
from tools.network import load_model
from tools.paper.results import published_variants
from tools.pictures import tiles

import numpy as np
import pytest
import skimage.data

LR = skimage.data.chelsea()[100:131, 120:163]


@pytest.fixture
def copied(tmp_path):
    """Copy a shipped checkpoint without its config.json; returns its folder."""
    def copy(model, scale):
        folder = tmp_path / scale / model
        folder.mkdir(parents=True)
        for path in glob.glob(checkpoints.find_checkpoint(model, scale) + ".*"):
            shutil.copy(path, str(folder))
        return str(folder)
    return copy


def expected(model, image):
    """SR of an open network, float32, not clipped, of an image in [0, 1]."""
    return model.session.run(model.sr, {model.lr: image[None]})[0]


def test_sr_has_the_type_of_lr():
    with load_model("32s", "x2", gpu=-1) as model:
        wanted, sr = expected(model, LR / 255.0), model.upscale(LR)
        assert sr.dtype == np.uint8 and sr.shape == (62, 86, 3)
        np.testing.assert_array_equal(sr, utils.to_uint8(255 * wanted))
        deep = model.upscale(LR.astype(np.uint16) * 257) / 65535.0
        np.testing.assert_allclose(deep, np.clip(wanted, 0, 1), atol=2e-5)
        for dtype, tolerance in (np.float32, 1e-5), (np.float64, 1e-5), (np.float16, 2e-3):
            sr = model.upscale((LR / 255.0).astype(dtype))
            assert sr.dtype == dtype
            np.testing.assert_allclose(sr, np.clip(wanted, 0, 1), atol=tolerance)
        gray = model.upscale(LR[:, :, 1])
        assert gray.dtype == np.uint8 and gray.shape == (62, 86)
        three = expected(model, np.repeat(LR[:, :, 1:2], 3, axis=2) / 255.0)
        np.testing.assert_allclose(gray, 255 * np.clip(three.dot([0.299, 0.587, 0.114]), 0, 1), atol=0.51)


def test_several_are_open_at_once():
    first, second = [load_model("32s", scale, gpu=-1) for scale in ("x2", "x3")]
    for model in first, second, first:
        np.testing.assert_array_equal(model.upscale(LR), utils.to_uint8(255 * expected(model, LR / 255.0)))
    assert (first.parameters, second.parameters) == (368427, 414667)
    first.close()
    assert second.upscale(LR).shape == (93, 129, 3)
    second.close()
    with pytest.raises(RuntimeError, match="closed"):
        first.upscale(LR)


@pytest.mark.parametrize("image, message", [
    (np.zeros((4, 5, 4), np.uint8), r"the shape \(4, 5, 4\): expected \[H, W, 3\] or \[H, W\]"),
    (np.zeros((2, 4, 5, 3), np.uint8), "the shape"), (np.zeros((0, 5, 3), np.uint8), "the shape"),
    (7, "the shape"),
    (np.zeros((4, 5, 3), np.int32), "the type int32: expected uint8, uint16 or floating point"),
    (np.full((4, 5), 255.0), "values from 255 to 255: expected from 0 to 1"),
    (np.full((4, 5), np.nan), "values from nan"), ([["a"]], "the type")])
def test_other_arrays_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        network.check_image(image)


def test_a_checkpoint_tells_model_and_scale(copied):
    """By the shapes of its variables alone."""
    for model, scale in published_variants():
        assert network.choose_variant(None, None, copied(model, scale)) == (model, scale)


def test_what_is_named_must_fit(copied):
    folder = copied("48s", "x3")
    for named in ("48s", None), (None, "x3"):
        assert network.choose_variant(*named, folder) == ("48s", "x3")
    for model, scale, named in ("32s", None, "32s"), (None, "x2", "x2"), ("48s", "x2", "48s x2"):
        with pytest.raises(UserError, match="is a checkpoint of DRSAN-48s x3, not of %s$" % named):
            network.choose_variant(model, scale, folder)
    write_json(os.path.join(folder, "config.json"), {"model": "48m", "scale": "x4"})
    assert network.choose_variant(None, None, folder) == ("48m", "x4")  # which says more than shapes do
    assert network.choose_variant(None, "x3", None) == ("32s", "x3")
    assert network.choose_variant("48m", None, None) == ("48m", "x2")
    shipped = checkpoints.find_checkpoint(*network.choose_variant(None, None, None))
    assert shipped == os.path.join(ROOT, "checkpoints", "x2", "32s", "DRSAN32sx2")


def test_variables_of_something_else(tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("DRAN/conv2d/kernel", [3, 3, 3, 40])
        session.run(tf.global_variables_initializer())
        prefix = tf.train.Saver().save(session, str(tmp_path / "other"), write_meta_graph=False)
    with pytest.raises(UserError, match="other is no checkpoint of DRSAN"):
        checkpoints.identify(prefix)


def test_bfloat16_is_near_float32(monkeypatch):
    """SR of a photograph, in grey levels; tiles equal the whole but for sums rounded otherwise."""
    if runtime.why_no_bfloat16():
        with pytest.raises(UserError, match="cannot convolve in bfloat16.*: leave out --precision"):
            load_model("32s", "x2", gpu=-1, precision="bfloat16")
        return
    photograph, images = skimage.data.chelsea()[100:196, 140:240] / np.float32(255), []
    with load_model("32s", "x2", gpu=-1) as model:
        plain = 255 * model.upscale(photograph)
    with load_model("32s", "x2", gpu=-1, precision="bfloat16") as model:
        for compiled_from, tile in (10 ** 9, None), (10 ** 9, 48), (1, None), (1, 48):
            monkeypatch.setattr(tiles, "COMPILED_FROM", compiled_from)
            model.make_upscaler(tile)
            images.append(255 * model.upscale(photograph))
    whole, in_tiles, compiled, compiled_in_tiles = images
    for sr in whole, compiled:
        assert 0.02 < np.sqrt(np.mean((sr - plain) ** 2)) < 0.2 and np.abs(sr - plain).max() < 2
    for sr, other in (in_tiles, whole), (compiled_in_tiles, compiled):
        # sums are rounded in another order: by less than what 8 bits differ from float32, on any processor
        assert np.sqrt(np.mean((sr - other) ** 2)) < np.sqrt(np.mean((other - plain) ** 2))
        assert np.abs(sr - other).max() < 2


@pytest.mark.parametrize("model, scale, convolutions", [("32s", "x2", False), ("48s", "x3", True)])
def test_compiled_network_equals_the_plain_one(model, scale, convolutions, monkeypatch):
    """From COMPILED_FROM pixels on, whole and in tiles, with a program for each kind of operation, of which
    convolutions are some where oneDNN is slow."""
    monkeypatch.setattr("tools.network.ends_at_avx2", lambda: convolutions)
    photograph, images = skimage.data.astronaut()[:64, 100:200], []
    _, drags, blocks = MODELS[model]
    with load_model(model, scale, gpu=-1) as opened:
        for compiled_from, tile in (6401, None), (6400, None), (6400, 48):
            monkeypatch.setattr(tiles, "COMPILED_FROM", compiled_from)
            images.append(opened.make_upscaler(tile)(photograph).array())
            nodes = opened.session.graph.as_graph_def().node
            calls = [node for node in nodes if "_XlaMustCompile" in node.attr]
            if compiled_from == 6401 or not compute.can_compile():
                assert not calls
                continue
            # two PReLU and a DRSA of each block, and the PReLU of the DRM; two convolutions of each block,
            # two of the DRM and the fusion, and the first, that before the skip, the upsampler's and the last
            assert len(calls) == drags * (3 * blocks + 1) + convolutions * (drags * (2 * blocks + 3) + 4)
            # PReLU of f and of 16 channels, DRSA of each number of residual paths; seven shapes of kernels
            assert len({call.attr["f"].func.name for call in calls}) == 2 + blocks + 7 * convolutions
    for sr in images:
        np.testing.assert_allclose(sr, images[0], rtol=0, atol=1e-5 * max(1, np.abs(sr).max()))


def test_a_network_is_compiled_for_so_many_sizes_of_which_so_many_pixels_came(small_checkpoint, monkeypatch):
    monkeypatch.setattr(tiles, "COMPILED_FROM", 100)
    monkeypatch.setattr(tiles, "MOST_SIZES", 2)
    monkeypatch.setattr(tiles, "can_compile", lambda: True)
    with load_model("32s", "x2", small_checkpoint, gpu=-1) as opened:
        first, second = opened.upscaler, opened.make_upscaler()
    sizes = (9, 9), (10, 10), (9, 9), (10, 11), (10, 10)
    assert [first.note_size(*size) for size in sizes] == [False, True, True, False, True]
    assert not second.note_size(10, 11)  # the session of both holds what is compiled


@pytest.mark.skipif(tf.__version__.startswith("1."), reason="TensorFlow 1 is not compiled by XLA")
def test_without_xla_nothing_is_compiled_and_a_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(command, "_noticed", set())
    assert compute.can_compile() and not capsys.readouterr().err
    monkeypatch.setattr(tf.test, "is_built_with_xla", lambda: False)
    assert not compute.can_compile() and not compute.can_compile()
    assert capsys.readouterr().err.count("without XLA") == 1


@pytest.mark.parametrize("flags, limit, expected", [
    ("flags : avx avx2 avx512f", "", False), ("flags : avx avx2", "", True), ("flags : avx", "", False),
    ("Features : asimd bf16", "", False), ("", "", False), ("flags : avx2 avx512f", "avx2", True),
    ("flags : avx2 avx512f", "AVX512_CORE", False)])
def test_processors_on_which_onednn_ends_at_avx2(flags, limit, expected, monkeypatch):
    monkeypatch.setattr(runtime, "cpu_info", lambda: flags)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert runtime.ends_at_avx2() == expected


def test_a_processor_without_bfloat16_is_told_of(monkeypatch, capsys):
    monkeypatch.setattr(command, "_noticed", set())
    monkeypatch.setattr(runtime, "why_no_bfloat16", lambda: None)
    for found in True, False:
        monkeypatch.setattr(runtime, "cpu_has_bfloat16", lambda: found)
        for precision, on_cpu in ("float32", True), ("bfloat16", False), ("bfloat16", True):
            runtime.check_precision(precision, on_cpu)
            told = "note: this processor has no instructions for bfloat16" in capsys.readouterr().err
            assert told == (precision == "bfloat16" and on_cpu and not found)


@pytest.mark.parametrize("limit, onednn, message", [
    (None, "1", None), ("AVX2", "0", None), ("AVX512_CORE", "1", None),
    ("AVX2", "1", "oneDNN cannot convolve in bfloat16 with ONEDNN_MAX_CPU_ISA=AVX2: leave out --p")])
def test_a_limit_of_instructions_without_bfloat16_is_an_error(monkeypatch, limit, onednn, message):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit or "")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", onednn)
    if tf.__version__.startswith("1."):
        message = "TensorFlow 1.8.0 cannot convolve in bfloat16: leave out --precision, or use TensorFlow 2"
    if not message:
        return runtime.check_precision("bfloat16")
    with pytest.raises(UserError, match=message):
        runtime.check_precision("bfloat16")
