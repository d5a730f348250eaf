"""How long `test.py --input` takes to start, by phase, and how busy it keeps the network: a part of bench.py."""
import argparse
import collections
import contextlib
import io
import json
import os
import sys
import tempfile
import time

from tools.files import ROOT
from tools.network import load_model
from tools.pictures.upscale import upscale
from tools.runtime import last_line

import numpy as np
import skimage.data
from PIL import Image

# what test.py does for one picture, in an interpreter that has imported nothing yet: prints the time after each phase
PHASES = collections.OrderedDict((
    ("Python", ""),
    ("modules", "import test"),
    ("TensorFlow", "from ops import tf; tf.__version__"),
    ("network", "from tools.network import load_model; network = load_model(gpu=-1)"),
    ("upscaling", "from utils import read_image; network.upscale(read_image(sys.argv[1]))"),
))


def photographs(count, width, height):
    """Different pictures of one photograph, uint8 [height, width, 3], at most 600x400."""
    coffee = skimage.data.coffee()
    return [np.roll(coffee, 10 * i, axis=1)[:height, :width] for i in range(count)]


def time_process(*arguments):
    """(seconds, last line of stdout) of a Python process in the top folder of the project. Raises UserError if it fails."""
    before = time.time()
    line = last_line((sys.executable,) + arguments, folder=ROOT)
    return time.time() - before, line


def time_startup(side, runs):
    """Medians of the seconds of a whole `test.py --help`, of a whole `test.py --input` of one picture of side x side pixels, and of
    each of PHASES: {"help": ..., "picture": ..., phase: ...}."""
    code = "import json, sys, time\ntimes = [time.time()]\n" + "\ntimes.append(time.time())\n".join(PHASES.values())
    code += "\ntimes.append(time.time())\nprint(json.dumps(times))"
    seconds = collections.OrderedDict()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.png")
        Image.fromarray(photographs(1, side, side)[0]).save(path)
        command = ["test.py", "--gpu", "-1", "--input", path, "--output", folder, "--overwrite"]
        for _ in range(runs):
            seconds.setdefault("help", []).append(time_process("test.py", "--help")[0])
            seconds.setdefault("picture", []).append(time_process(*command)[0])
            before = time.time()
            times = [before] + json.loads(time_process("-c", code, path)[1])[1:]
            for name, start, stop in zip(PHASES, times, times[1:]):
                seconds.setdefault(name, []).append(stop - start)
    return collections.OrderedDict((name, float(np.median(values))) for name, values in seconds.items())


class Busy(object):
    """An Upscaler that counts the seconds in which it upscales."""

    def __init__(self, upscaler):
        self.upscaler, self.seconds = upscaler, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __getattr__(self, name):
        return getattr(self.upscaler, name)

    def __call__(self, image):
        before = time.time()
        try:
            return self.upscaler(image)
        finally:
            self.seconds += time.time() - before


def time_pictures(model, scale, count, width, height):
    """(seconds for `count` pictures as test.py --input takes them, the share of them in which the network is busy)."""
    with load_model(model, scale, gpu=-1) as network, tempfile.TemporaryDirectory() as folder:
        busy = Busy(network.upscaler)
        for i, image in enumerate(photographs(count, width, height)):
            Image.fromarray(image).save(os.path.join(folder, "%d.jpg" % i), quality=95)
        network.upscale(image)  # what only the first run does
        args = argparse.Namespace(input=[folder], output=os.path.join(folder, "sr"), format="png", quality=95, frames=False,
                                  strip=False, overwrite=False, skip_existing=False, max_megapixels=100, file=None)
        os.mkdir(args.output)
        before = time.time()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            upscale(args, [scale], lambda _: busy)
        seconds = time.time() - before
    return seconds, busy.seconds / seconds


def measure_pictures(args):
    """{"startup": as time_startup(), "pictures": as time_pictures(), of args.pictures of 600x400}."""
    return {"startup": time_startup(100, args.runs), "pictures": time_pictures(args.model, args.scale, args.pictures, 600, 400)}


def print_pictures(result, args):
    """Print what measure_pictures() returns."""
    startup, (seconds, busy) = result["startup"], result["pictures"]
    print("\nTensorFlow %s: test.py --help takes %.2f s, --input of one picture of 100x100 %.2f s: %s" % (
        result["tensorflow"], startup["help"], startup["picture"], ", ".join("%s %.2f s" % (name, startup[name]) for name in PHASES)))
    print("%d pictures of 600x400 take %.1f s, the network is busy for %.1f %% of it" % (args.pictures, seconds, 100 * busy))
