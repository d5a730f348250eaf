"""Time DRSAN on the CPU, beside other runtimes: python tools/bench.py [sizes] [infer] [train]

sizes upscales images from small to large, with the peak memory of the process. infer upscales one image: as
this project does, and by ONNX Runtime and OpenVINO where they are installed (pip install tf2onnx onnxruntime
openvino). train takes training steps.

A time is a median, after two runs that are not counted; rows of one kind take turns with a product of large
matrices. GFLOP/s counts two operations for a multiplication of a convolution, and three times as many in
training; share is that of the rate of the product in the row's precision.
"""
import argparse
import contextlib
import functools
import importlib
import os
import platform
import sys
import tempfile
import time
from collections import OrderedDict, namedtuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from model import SCALES
from ops import tf
from tools.command import cpu_count, positive, quiet_stderr, run_main
from tools.compute import PRECISIONS
from tools.network import load_model
from tools.options import add_variant
from tools.paper.results import costs
from tools.pictures.export import freeze, write_onnx
from tools.runtime import cpu_info, open_session, why_no_bfloat16
from tools.training.cluster import Devices
from tools.training.graph import build_training
from tools.training.recipes import make_recipe

import numpy as np
from tqdm import tqdm

# function: of no arguments, timed; pixels: of LR that it takes, None for a product; memory: its peak in
# bytes, or None
Timed = namedtuple("Timed", "name precision pixels function memory")
SIDE = 2048  # of the matrices


def processor_name():
    """The name of the processor, as far as the system says."""
    names = [line.split(":")[1].strip() for line in cpu_info().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peak_memory():
    """Bytes of memory that this process has taken at most; getrusage() would count what its parent had,
    too."""
    with open("/proc/self/status") as file:
        return 1024 * int(next(line for line in file if line.startswith("VmHWM:")).split()[1])


def median_seconds(functions, runs):
    """The median seconds of each of these functions, which take turns."""
    seconds = []
    for _ in tqdm(range(runs + 2), "timing", leave=False, disable=None):
        for function in functions:
            before = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - before)
    return np.median(np.reshape(seconds, (runs + 2, -1))[2:], axis=0)


def noise(count, side):
    """Images, uint8 [count, side, side, 3]."""
    return np.random.RandomState(0).randint(0, 256, (count, side, side, 3)).astype(np.uint8)


def in_each_precision(kind):
    """(name, precision) of what this TensorFlow can compute in."""
    precisions = PRECISIONS[:1] if why_no_bfloat16() else PRECISIONS
    return [("%s, %s" % (kind, precision), precision) for precision in precisions]


# ------------------------------------------- what is timed; closing: an ExitStack that closes their sessions

def products(closing):
    """The Timed products of matrices."""
    for name, precision in in_each_precision("product of matrices"):
        with tf.Graph().as_default():
            matrix = tf.Variable(tf.cast(tf.random_uniform([SIDE, SIDE]), precision))
            session = closing.enter_context(open_session([-1]))
            session.run(matrix.initializer)
            function = functools.partial(session.run, tf.matmul(matrix, matrix).op)
            yield Timed(name, precision, None, function, None)


def load_network(args, closing, precision="float32"):
    return closing.enter_context(load_model(args.model, args.scale, None, -1, args.tile, precision=precision))


def sizes(args, closing):
    """The Timed of images from small to large, each of which has been upscaled once for its peak memory."""
    network = load_network(args, closing)
    for side in sorted(args.sizes):
        function = functools.partial(network.upscaler, noise(1, side)[0])
        function()
        yield Timed("%dx%d" % (side, side), "float32", side ** 2, function, peak_memory())


def inference(args, closing):
    """The Timed of one image: as test.py upscales it, and by other runtimes that are installed."""
    image = noise(1, args.size)
    for name, precision in in_each_precision("TensorFlow " + tf.__version__):
        function = functools.partial(load_network(args, closing, precision).upscaler, image[0])
        yield Timed(name, precision, args.size ** 2, function, None)
    for name, function in exported(load_network(args, closing), image / np.float32(255)):
        yield Timed(name, "float32", args.size ** 2, function, None)


def exported(network, lr):
    """(name, function that runs a Network on LR in [0, 1]) of the runtimes for ONNX that are installed."""
    try:
        with quiet_stderr():
            importlib.import_module("tf2onnx")
            onnxruntime = importlib.import_module("onnxruntime")
    except ImportError:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "network.onnx")
        write_onnx(path, freeze(network.session))
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        yield "ONNX Runtime " + onnxruntime.__version__, lambda: session.run(["SR:0"], {"LR:0": lr})
        with contextlib.suppress(ImportError):
            openvino = importlib.import_module("openvino")
            # by default it computes in bfloat16 where the processor does
            compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            yield "OpenVINO " + openvino.__version__.split("-")[0], lambda: compiled({"LR:0": lr})


def training(args, closing):
    """The Timed of a training step, whose batch is ready: as train.py takes it."""
    lr, hr = noise(args.batch, args.patch), noise(args.batch, args.patch * SCALES[args.scale])
    for name, precision in in_each_precision("TensorFlow " + tf.__version__):
        with tf.Graph().as_default():
            devices = Devices([-1], cpu_count(), args.batch)
            recipe = make_recipe("paper", args.model, args.scale)
            graph = build_training(args.model, args.scale, recipe, devices.names, None, precision,
                                   devices.compiled)
            session = closing.enter_context(devices.connect())
            session.run(tf.global_variables_initializer())
            feed = {graph.lr: lr, graph.hr: hr, graph.rate: 1e-4}
            function = functools.partial(session.run, [graph.train, graph.loss], feed)
            yield Timed(name, precision, args.batch * args.patch ** 2, function, None)


# sizes first, since a peak only rises
TIMINGS = OrderedDict([("sizes", sizes), ("infer", inference), ("train", training)])


# ---------------------------------------------------------------------------------------------------- command

def print_rows(kind, operations, args):
    """Time one of TIMINGS and print its rows; operations: of inference for one LR pixel."""
    with contextlib.ExitStack() as closing:
        rows = list(TIMINGS[kind](args, closing)) + list(products(closing))
        seconds = median_seconds([row.function for row in rows], args.runs)
    operations *= 3 if kind == "train" else 1
    rates = [(row.pixels * operations if row.pixels else 2 * SIDE ** 3) / time
             for row, time in zip(rows, seconds)]
    best = {row.precision: rate for row, rate in zip(rows, rates) if not row.pixels}
    print(kind)
    for row, time, rate in zip(rows, seconds, rates):
        per_pixel = "%.2f" % (1e6 * time / row.pixels) if row.pixels else ""
        memory = "%.0f" % (row.memory / 2 ** 20) if row.memory else "-"
        print("  %-36s %9.3f %12s %9.0f %5.0f %% %9s" % (
            row.name, time, per_pixel, rate / 1e9, 100 * rate / best[row.precision], memory), flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", nargs="*", choices=list(TIMINGS) + [[]], help="default: all")
    add_variant(parser)
    for name, default, words in (
            ("size", 320, "side of the LR image of infer"), ("batch", 16, "patches in a step of train"),
            ("patch", 48, "side of the LR patches of train"), ("runs", 7, "of which the median is taken")):
        parser.add_argument("--" + name, type=positive(int), default=default,
                            help=words + " (default %(default)s)")
    parser.add_argument("--sizes", type=positive(int), nargs="+", default=[64, 128, 256, 512, 1024],
                        metavar="SIDE", help="sides of the LR images of sizes (default: 64 to 1024)")
    parser.add_argument("--tile", type=positive(int), metavar="N",
                        help="work in tiles of NxN (default: as memory demands)")
    args = parser.parse_args(argv)
    print("DRSAN-%s %s on %s, %d processors" % (args.model, args.scale, processor_name(), cpu_count()))
    print("%-38s %9s %12s %9s %7s %9s" % ("", "seconds", "us/LR pixel", "GFLOP/s", "share", "peak MiB"))
    multi_adds = costs(args.model, args.scale)[1] * 1e9 / (720 * 1280)  # of an SR pixel
    for kind in TIMINGS:
        if kind in (args.what or TIMINGS):
            print_rows(kind, 2 * multi_adds * SCALES[args.scale] ** 2, args)


if __name__ == "__main__":
    run_main(main)
