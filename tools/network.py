"""DRSAN with the weights of a checkpoint, ready to run, for the commands and for scripts of your own.

    from tools.network import load_model
    with load_model("32s", "x2") as model:
        sr = model.upscale(lr)
"""
import collections
import threading

from model import MODELS, SCALES, count_multi_adds, count_parameters, drsan
from ops import tf
from tools.checkpoints import dra_ranges, find_checkpoint, identify, restore_weights
from tools.command import UserError, notice_once
from tools.compute import PRECISIONS, convolving_in
from tools.options import gpu as parse_gpu, scale_name
from tools.pictures.tiles import Upscaler, limited_notes, to_gray
from tools.runtime import (check_not_forked, check_precision, ends_at_avx2, gpu_memory, graph_device,
                           open_session)
from utils import to_integers

import numpy as np

MODES = "RGB", "L", "I;16", "F"  # of Pillow's pictures whose arrays are what they look like


class Network:
    """DRSAN in a graph and a session of its own, so that several can be open at once.

    lr, sr: placeholder and output, the tensors LR:0, float32 [N, H, W, 3] in [0, 1], and SR:0,
    [N, s H, s W, 3], not clipped. prefix: of the checkpoint. parameters, multi_adds: how many there are, the
    latter for SR of 1280x720.
    """

    def __init__(self, model, scale, prefix, gpu, without=None, precision="float32", limit=True):
        """gpu: its index, or -1 for the CPU. without: of an ablation (see drsan). precision: see
        convolving_in. limit: DRA to the range that stands beside the weights, if one does (see
        tools/gate.py). Raises UserError as restore_weights and check_precision."""
        self.model, self.scale, self.factor, self.prefix = model, scale, SCALES[scale], prefix
        self.without, self.precision = without, precision
        self.dra_ranges = dra_ranges(prefix, model) if limit and not without else None
        check_precision(precision)
        self.device = graph_device(gpu)
        with tf.Graph().as_default(), tf.device(self.device), convolving_in(precision):
            self.lr = tf.placeholder(tf.float32, [None, None, None, 3], "LR")
            self.sr = tf.identity(drsan(self.lr, model, scale, without, self.dra_ranges), "SR")
            self.parameters, self.multi_adds = count_parameters(), count_multi_adds(scale, 720, 1280)
            self.session = open_session([gpu])
            check_precision(precision, not gpu_memory(self.session))
            restore_weights(self.session, prefix, without)
        self.upscaler, self._compiled, self._lock = None, False, threading.Lock()
        # by all of its Upscalers, of images of (height, width)
        self.pixels_of_size, self.compiled_sizes = collections.Counter(), set()

    def make_upscaler(self, tile=None, memory=None, ensemble=False, folder=None):
        """How images are upscaled from now on: an Upscaler, whose options these are."""
        self.upscaler = Upscaler(self, tile, memory, ensemble, folder)
        return self.upscaler

    def build_compiled(self):
        """Build the network once more, compiled (see convolving_in); returns the name scope that it is in."""
        with self._lock:  # other threads may upscale, too
            if not self._compiled:
                with self.session.graph.as_default(), tf.device(self.device), tf.name_scope("compiled/"), \
                        convolving_in(self.precision, compiled=True, convolutions=ends_at_avx2()):
                    drsan(self.lr, self.model, self.scale, self.without, self.dra_ranges)
                self._compiled = True
        return "compiled/"

    def upscale(self, image):
        """SR of an image of any size, of the same type and s times as large.

        image: RGB [H, W, 3] or gray [H, W], uint8, uint16, or floating point in [0, 1]. SR is clipped to the
        range of its type; gray is the luma of SR. Raises ValueError for other arrays, and for pictures of
        Pillow of other MODES. Raises UserError if the memory does not suffice, SR explodes, or the process
        was forked after the model was loaded.
        """
        check_not_forked()
        image = check_image(image)
        upscaler = self.upscaler or self.make_upscaler()
        store = upscaler(image if image.ndim == 3 else image[:, :, None])
        for note in limited_notes(store):
            notice_once("an image: " + note)
        sr = store.array()
        sr = sr if image.ndim == 3 else to_gray(sr)[:, :, 0]
        if image.dtype.kind == "u":
            return to_integers(np.iinfo(image.dtype).max * sr, image.dtype)
        return np.clip(sr, 0, 1).astype(image.dtype)

    def close(self):
        """Free what the session holds; the network cannot be used any more."""
        self.session.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def check_image(image):
    """An image as an array that Network.upscale() takes. Raises ValueError that says what is wrong."""
    if getattr(image, "mode", "RGB") not in MODES:
        raise ValueError("a picture of the mode %s: convert it to one of %s" % (image.mode, ", ".join(MODES)))
    image = np.asarray(image)
    if not image.size or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise ValueError("an image of the shape %s: expected [H, W, 3] or [H, W]" % (image.shape,))
    if image.dtype not in (np.uint8, np.uint16) and image.dtype.kind != "f":
        raise ValueError("an image of the type %s: expected uint8, uint16 or floating point" % image.dtype)
    if image.dtype.kind == "f" and not (image.min() >= 0 and image.max() <= 1):
        raise ValueError("an image with values from %g to %g: expected from 0 to 1" % (
            image.min(), image.max()))
    return image


def choose_variant(model, scale, checkpoint):
    """(model, scale) that these name, each of which may be None: a checkpoint alone tells both; without one
    they are 32s and x2. Raises UserError if the checkpoint is that of others."""
    if checkpoint is None:
        return model or "32s", scale or "x2"
    prefix = find_checkpoint(model, scale, checkpoint)
    found = identify(prefix)
    if found != (model or found[0], scale or found[1]):
        raise UserError("%s is a checkpoint of DRSAN-%s %s, not of %s" % (
            (prefix,) + found + (" ".join(name for name in (model, scale) if name),)))
    return found


def load_model(model=None, scale=None, checkpoint=None, gpu=0, tile=None, memory=None, ensemble=False,
               precision="float32", limit=True):
    """A Network that is ready to upscale images.

    model, scale: keys of MODELS and SCALES (or 2 for "x2"), by default those of the checkpoint, or else "32s"
    and "x2". checkpoint: prefix, .index file or folder, by default the weights shipped for model and scale.
    gpu: its index; on the CPU for -1 or "cpu", or if there is none. tile, memory (GiB), ensemble, precision:
    as in test.py; limit=False is --no-limit. Raises UserError if there is no such checkpoint, it is that of
    another model, or this TensorFlow lacks the precision. Raises ValueError for other names and precisions.
    """
    gpu, scale = parse_gpu(str(gpu)), None if scale is None else scale_name(str(scale))
    for name, known in (precision, PRECISIONS), (model, MODELS), (scale, SCALES):
        if name is not None and name not in known:
            raise ValueError("%r: expected one of %s" % (name, ", ".join(known)))
    model, scale = choose_variant(model, scale, checkpoint)
    prefix = find_checkpoint(model, scale, checkpoint)
    network = Network(model, scale, prefix, gpu, precision=precision, limit=limit)
    network.make_upscaler(tile, memory, ensemble)
    return network
