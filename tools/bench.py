"""Time DRSAN on this machine: python tools/bench.py [infer] [train] [pictures] [--python OTHER_PYTHON ...]

infer also measures seconds and peak memory against the size of the image, whole and in tiles, and plots them. Every
figure is a median of several runs after a warm-up, of fewer where one takes seconds; those of one line take turns. `ours` is the
graph of model.py, trained as train.py does; `bfloat16` the same with --precision bfloat16; `compiled` has its element-wise operations
compiled, as a CPU has them in training and for large images (TensorFlow 2); `published` has PReLU as in the authors' graph,
relu(x) + slope * (x - |x|) / 2, six element-wise operations, and is trained on the whole batch at once. infer runs the exported
network in ONNX Runtime and OpenVINO, too, where they are installed (pip install tf2onnx onnxruntime openvino); the share beside a time
is that of the multiplications at the rate of a large product of matrices on this machine. train also prints the share of time that a
step waits for its patches, and the time by type of operation. pictures measures what test.py --input spends until the first picture
is written, and for which share of the time of many pictures the network is busy. --python names interpreters of other environments
(Python 3.6 with TensorFlow 1.8, say) that run the same in turn, with the ratio to this one.
"""
import argparse
import collections
import contextlib
import functools
import json
import os
import re
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import model as model_module
import ops
from ops import tf
from tools.command import UserError, cpu_count, run_main
from tools.data.patches import Sampler, prefetch
from tools.files import check_writable
from tools.network import load_model
from tools.options import add_variant, gpus
from tools.pictures.export import MissingPackage, freeze, import_optional, write_onnx
from tools.pictures.tiles import COMPILING, LARGEST_TILE, OVERHEAD, bytes_per_pixel, free_memory, resident_memory
from tools.pictures.timing import measure_pictures, print_pictures
from tools.plots import COLORS, save_figure
from tools.runtime import has_bfloat16, last_line, open_session
from tools.training.cluster import Devices
from tools.training.graph import build_training
from tools.training.recipes import make_recipe
from tools.compute import PRECISIONS, can_compile

import numpy as np
from tqdm import tqdm


def published_prelu(x, name):
    slope = tf.get_variable(name, [int(x.shape[3])], initializer=tf.zeros_initializer())
    return tf.nn.relu(x) + slope * (x - abs(x)) * 0.5


def progress(total, what, **options):
    """A bar on a terminal, with the time left, over `total` units of something that is measured."""
    return tqdm(total=total, desc="TensorFlow %s, %s" % (tf.__version__, what), leave=False, disable=None, **options)


def median_seconds(functions, runs, what):
    """{name: median seconds of a call} of {name: function}, after two calls of each. They are called in turns, so that a machine
    that gets slower or faster does so for all of them. what: is measured, for the bar."""
    seconds = {name: [] for name in functions}
    with progress((runs + 2) * len(functions), what, unit="run") as bar:
        for _ in range(runs + 2):
            for name, function in functions.items():
                before = time.perf_counter()
                function()
                seconds[name].append(time.perf_counter() - before)
                bar.update()
    return {name: float(np.median(times[2:])) for name, times in seconds.items()}


def inference(args, variant, closing):
    """A function that runs a variant of the network once, in a session that `closing`, an ExitStack, closes."""
    lr = tf.placeholder(tf.float32, [1, None, None, 3])
    with ops.convolving_in(variant.precision, variant.compiled):
        sr = model_module.drsan(lr, args.model, args.scale)
    session = open_session(args.gpu)
    closing.callback(session.close)
    session.run(tf.global_variables_initializer())
    image = noise(args.size)
    return lambda: session.run(sr, {lr: image})


def noise(side):
    """A network input."""
    return np.random.RandomState(0).rand(1, side, side, 3).astype(np.float32)


def peers(args):
    """{name: a function that runs the network once} of other runtimes that are installed, on the exported network."""
    try:
        import_optional("tf2onnx.convert")
        onnxruntime = import_optional("onnxruntime")
    except MissingPackage:
        return {}
    with tf.Graph().as_default(), open_session([-1]) as session, tempfile.TemporaryDirectory() as folder:
        lr = tf.placeholder(tf.float32, [None, None, None, 3], "LR")
        tf.identity(model_module.drsan(lr, args.model, args.scale), "SR")
        session.run(tf.global_variables_initializer())
        path, image = os.path.join(folder, "network.onnx"), noise(args.size)
        write_onnx(path, session, freeze(session))
        runtime = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        functions = {"ONNX Runtime %s" % onnxruntime.__version__: lambda: runtime.run(["SR:0"], {"LR:0": image})}
        with contextlib.suppress(MissingPackage):
            openvino = import_optional("openvino")
            compiled = openvino.Core().compile_model(path, "CPU")
            functions["OpenVINO %s" % openvino.__version__.split("-")[0]] = lambda: compiled({"LR:0": image})
        return functions


def product_rates():
    """{precision: multiplications per second of a large product of matrices} on the CPU."""
    side, functions = 2048, {}
    with contextlib.ExitStack() as closing:
        for precision in PRECISIONS if has_bfloat16() else ["float32"]:
            with tf.Graph().as_default():
                x = tf.Variable(tf.cast(tf.random_uniform([side, side]), precision))
                product = tf.matmul(x, x)
                session = open_session([-1])
                closing.callback(session.close)
                session.run(x.initializer)
                functions[precision] = functools.partial(session.run, product.op)
        return {name: side ** 3 / seconds for name, seconds in median_seconds(functions, 5, "products").items()}


def multi_adds_per_pixel(args):
    """The multiplications of the convolutions for one LR pixel."""
    with tf.Graph().as_default():
        model_module.drsan(tf.placeholder(tf.float32, [1, None, None, 3]), args.model, args.scale)
        scale = model_module.SCALES[args.scale]
        return model_module.count_multi_adds(args.scale, scale, scale)


def training_step(args, variant, closing):
    """As inference(): a training step that finds its batch ready."""
    devices = Devices(args.gpu, args.threads, args.batch)
    training = build_training(args.model, args.scale, make_recipe("paper", args.model, args.scale),
                              devices.names if variant.threads else [""], precision=variant.precision,
                              compiled=variant.threads and devices.compiled)
    session = devices.connect() if variant.threads else open_session(args.gpu)
    closing.callback(session.close)
    session.run(tf.global_variables_initializer())
    feed = training_feed(training, make_sampler(args)(0))
    return lambda: session.run([training.train, training.loss], feed)


def make_sampler(args):
    """Patches from photographs of noise."""
    scale = model_module.SCALES[args.scale]
    images = [np.random.RandomState(i).randint(0, 256, [480, 480, 3]).astype(np.uint8) for i in range(10)]
    return Sampler([(image[:480 // scale, :480 // scale], image) for image in images], scale, args.batch, args.patch, 0)


def training_feed(training, batch):
    return {training.lr: batch[0], training.hr: batch[1], training.rate: 1e-4}


def profile_training(args):
    """The share of time that steps wait for their batches, and {type of operation: share of the time of all operations}."""
    tf.reset_default_graph()
    devices = Devices(args.gpu, args.threads, args.batch)
    training = build_training(args.model, args.scale, make_recipe("paper", args.model, args.scale), devices.names,
                              compiled=devices.compiled)
    fetches, waited, types = [training.train, training.loss], 0.0, collections.Counter()
    with devices.connect() as session:
        session.run(tf.global_variables_initializer())
        batches = prefetch(make_sampler(args), 0, args.runs + 4)
        for _ in range(3):
            session.run(fetches, training_feed(training, next(batches)))
        start = time.perf_counter()
        for _ in range(args.runs):
            before = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - before
            session.run(fetches, training_feed(training, batch))
        seconds = time.perf_counter() - start
        trace = tf.RunMetadata()
        session.run(fetches, training_feed(training, next(batches)), run_metadata=trace,
                    options=tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE))
    for node in (node for device in trace.step_stats.dev_stats for node in device.node_stats):
        label = re.search(r" = (\w+)\(", node.timeline_label)  # "name = Type(inputs)", after the runtime's own rewriting
        types[label.group(1) if label else "other"] += node.op_end_rel_micros - node.op_start_rel_micros
    total = sum(types.values())
    return waited / seconds, {name: micros / total for name, micros in types.most_common(10)}


def time_sizes(args):
    """[[side, seconds, peak bytes of this process, the peak by the formula]] of images from small to large.

    With args.tile, in tiles, and what grows with the image is kept on disk; else, those for which the memory does not suffice are
    left out.
    """
    per_pixel = bytes_per_pixel(model_module.MODELS[args.model], model_module.SCALES[args.scale])
    with load_model(args.model, args.scale, gpu=args.gpu[0]) as network:
        upscaler = network.make_upscaler(args.tile, 2 ** (-30 if args.tile else 20))
        noise = np.random.RandomState(0).randint(0, 256, (max(args.sizes), max(args.sizes), 3), np.uint8)
        start, rows = resident_memory() + OVERHEAD, []
        upscaler(noise[:64, :64])
        with progress(sum(side ** 2 for side in args.sizes), "tiles" if args.tile else "whole images", unit=" pixels",
                      unit_scale=True) as bar:
            for side in sorted(args.sizes):
                if not args.tile and start + per_pixel * side ** 2 > 0.8 * free_memory():
                    break
                times = []
                while len(times) < args.runs and sum(times) < 10:
                    before = time.perf_counter()
                    upscaler(noise[:side, :side])
                    times.append(time.perf_counter() - before)
                read = min(args.tile + 2 * upscaler.halo(upscaler.variant.drags), side) if args.tile else side
                formula = start + per_pixel * read ** 2 + COMPILING * upscaler.is_compiled(side ** 2)
                rows.append([side, float(np.median(times)), peak_memory(), formula])
                bar.update(side ** 2)
        return rows


def peak_memory():
    """Bytes of memory that this process has taken at most; getrusage() would count what its parent had, too."""
    with open("/proc/self/status") as file:
        return 1024 * int(next(line for line in file if line.startswith("VmHWM:")).split()[1])


def check_python(python):
    """Raise UserError if an interpreter lacks TensorFlow, before minutes are spent on measuring."""
    try:
        last_line([python, "-c", "import tensorflow; print(tensorflow.__version__)"])
    except (UserError, OSError) as error:
        raise UserError("%s: --python takes interpreters that can import tensorflow" % error)


def measure_sizes(args):
    """{"whole": rows of time_sizes, "tiles": ...}, each in a process of its own, since a peak only rises."""
    command = [sys.executable, os.path.abspath(__file__), "--one-kind", "--gpu", ",".join(map(str, args.gpu)),
               "--model", args.model,
               "--scale", args.scale, "--runs", str(args.runs), "--sizes"] + [str(side) for side in args.sizes]
    results = {}
    for kind, options in ("whole", []), ("tiles", ["--tile", str(args.tile)]):
        results[kind] = json.loads(last_line(command + options, bars=True))
    return results


def print_sizes(results):
    print("\nsizes  %-11s %-26s %10s %14s %10s %12s" % (
        "LR image", "", "seconds", "s/megapixel", "peak MiB", "formula MiB"))
    for result in results:
        for kind, rows in sorted(result["sizes"].items(), reverse=True):
            for side, seconds, peak, formula in rows:
                print("       %-11s %-26s %10.2f %14.2f %10.0f %12.0f" % (
                    "%dx%d" % (side, side), "%s, TensorFlow %s" % (kind, result["tensorflow"]), seconds,
                    seconds / side ** 2 * 1e6, peak / 2 ** 20, formula / 2 ** 20))


def plot_sizes(results, tile, output):
    """Draw seconds and peak memory against the pixels of the LR image, log-log, to the image file `output`."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.8))
    for i, result in enumerate(results):
        for kind, rows in sorted(result["sizes"].items(), reverse=True):
            side, seconds, peak, formula = np.array(rows).T
            style = {"color": COLORS[i % len(COLORS)], "marker": "o" if kind == "whole" else "s",
                     "linestyle": "-" if kind == "whole" else "--"}
            label = "%s, TensorFlow %s" % ("whole" if kind == "whole" else "tiles of %d" % tile, result["tensorflow"])
            axes[0].plot(side ** 2 / 1e6, seconds, label=label, **style)
            axes[1].plot(side ** 2 / 1e6, peak / 2 ** 30, label=label, **style)
            axes[1].plot(side ** 2 / 1e6, formula / 2 ** 30, color="0.6", linestyle=":", zorder=0)
    axes[0].set(title="Seconds for one image", xlabel="megapixels of LR")
    axes[1].set(title="Peak memory in GiB (dotted: formula)", xlabel="megapixels of LR")
    for axis in axes:
        axis.set(xscale="log", yscale="log")
        axis.grid(True, alpha=0.3)
    axes[0].legend(frameon=False, loc="lower right")
    save_figure(figure, output)
    pyplot.close(figure)


# threads: whether it is trained as train.py does, each thread with a part of the batch; compiled: see convolving_in, of inference
Variant = collections.namedtuple("Variant", "prelu threads precision compiled")
VARIANTS = collections.OrderedDict([
    ("ours", Variant(ops.prelu, True, "float32", False)),
    ("published", Variant(published_prelu, False, "float32", False)),
    ("bfloat16", Variant(ops.prelu, True, "bfloat16", False)),
    ("compiled", Variant(ops.prelu, True, "float32", True)),
    ("compiled bfloat16", Variant(ops.prelu, True, "bfloat16", True)),
])
BENCHMARKS = {"infer": inference, "train": training_step}
WHAT = list(BENCHMARKS) + ["pictures"]


def can_measure(variant, args, what):
    """Whether a variant is for this TensorFlow and one of BENCHMARKS."""
    return ((variant.precision == "float32" or has_bfloat16())
            and (not variant.compiled or can_compile() and what == "infer" and args.gpu == [-1]))


def time_variants(args, what):
    """{variant: median seconds} of one of BENCHMARKS, and for `infer` on the CPU of peers()."""
    functions = collections.OrderedDict(peers(args) if what == "infer" and args.gpu == [-1] else {})
    with contextlib.ExitStack() as closing:
        for name, variant in VARIANTS.items():
            if can_measure(variant, args, what):
                with tf.Graph().as_default():
                    ops.prelu = variant.prelu
                    functions[name] = BENCHMARKS[what](args, variant, closing)
        ops.prelu = VARIANTS["ours"].prelu
        return median_seconds(functions, args.runs, what)


def measure(args):
    """{"infer": {variant: seconds}, "train": ..., and what profile_training() and measure_sizes() return, "tensorflow": version}."""
    results = {what: time_variants(args, what) for what in args.what if what in BENCHMARKS}
    if "train" in args.what:
        results["wait"], results["types"] = profile_training(args)
    if "pictures" in args.what:
        results.update(measure_pictures(args))
    if "infer" in args.what:
        results["rates"], results["multi_adds"] = product_rates(), multi_adds_per_pixel(args)
        results["sizes"] = measure_sizes(args)
    return dict(results, tensorflow=tf.__version__)


def print_runtimes(result, pixels):
    """The costs per pixel of one result of measure(): of this graph in each precision, and of other runtimes."""
    print("\nTensorFlow %s; a product of matrices: %s" % (result["tensorflow"], ", ".join(
        "%.0f GFLOP/s in %s" % (2 * rate / 1e9, name) for name, rate in sorted(result["rates"].items(), reverse=True))))
    print("       %-24s %14s %14s %22s" % ("", "us/LR pixel", "to float32", "of the product's rate"))
    for name, seconds in result["infer"].items():
        if name != "published":
            rate = result["rates"]["bfloat16" if "bfloat16" in name else "float32"]
            print("       %-24s %14.2f %14.2f %20.0f %%" % (
                "float32" if name == "ours" else name, seconds / pixels * 1e6, seconds / result["infer"]["ours"],
                100 * result["multi_adds"] * pixels / seconds / rate))


def bench(args):
    if args.one_kind:
        print(json.dumps(time_sizes(args)))
        return
    pixels = {"infer": args.size ** 2, "train": args.batch * args.patch ** 2}
    units = {"infer": "%dx%d LR" % (args.size, args.size), "train": "batch %d of %dx%d LR" % (args.batch, args.patch, args.patch)}
    if args.json:
        print(json.dumps(measure(args)))
        return
    check_writable(files=[args.plot if "infer" in args.what else None])
    for python in args.python:
        check_python(python)
    results = [measure(args)]
    for python in args.python:
        command = [python, os.path.abspath(__file__), "--json"] + sys.argv[1:]
        results.append(json.loads(last_line(command, bars=True)))
    print("DRSAN-%s %s, %d CPUs, median of %d runs" % (args.model, args.scale, cpu_count(), args.runs))
    for what in [name for name in args.what if name in BENCHMARKS]:
        print("\n%-6s %-22s %12s %12s %14s %18s %16s" % (what, units[what], "ours s", "published s", "ours/published",
                                                       "ours s/LR megapixel", "ours to first"))
        for result in results:
            ours, published = result[what]["ours"], result[what]["published"]
            print("       TensorFlow %-11s %12.3f %12.3f %14.2f %18.2f %17.2f" % (
                result["tensorflow"], ours, published, ours / published, ours / pixels[what] * 1e6,
                ours / results[0][what]["ours"]))
        for result in results if what == "infer" else []:
            print_runtimes(result, pixels[what])
        for result in results if what == "train" else []:
            if "bfloat16" in result[what]:
                print("\nTensorFlow %s: %.3f s with --precision bfloat16, %.2f of float32" % (
                    result["tensorflow"], result[what]["bfloat16"], result[what]["bfloat16"] / result[what]["ours"]))
            print("\nTensorFlow %s: %.1f images/s, %.1f %% of the time waiting for data; operations: %s" % (
                result["tensorflow"], args.batch / result[what]["ours"], 100 * result["wait"],
                ", ".join("%s %.0f %%" % (name, 100 * share) for name, share in sorted(
                    result["types"].items(), key=lambda item: -item[1]))))
    for result in results if "pictures" in args.what else []:
        print_pictures(result, args)
    if "infer" in args.what:
        print_sizes(results)
        plot_sizes(results, args.tile, args.plot)
        print("\nplotted to %s" % args.plot)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=WHAT + [[]], help="infer, train, pictures (default: all)")
    parser.add_argument("--gpu", type=gpus, default=[-1], help="index of the GPU (default -1, the CPU)")
    parser.add_argument("--threads", type=int, default=cpu_count(), help="of TensorFlow on the CPU (default: all)")
    add_variant(parser)
    parser.add_argument("--size", type=int, default=320, help="side of the LR image of infer")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256, 512, 1024, 2048, 4096], metavar="SIDE",
                        help="sides of the LR images of infer's second table")
    parser.add_argument("--tile", type=int, help="side of the tiles there (default %d)" % LARGEST_TILE)
    parser.add_argument("--plot", default=os.path.join("runs", "inference.png"), metavar="FILE",
                        help="default runs/inference.png")
    parser.add_argument("--batch", type=int, default=16, help="patches a step of train (default 16)")
    parser.add_argument("--patch", type=int, default=48, help="side of the LR patches of train")
    parser.add_argument("--pictures", type=int, default=50, help="how many pictures of 600x400 to upscale (default 50)")
    parser.add_argument("--runs", type=int, default=7, help="of which the median is taken (default 7)")
    parser.add_argument("--python", nargs="+", default=[], metavar="PYTHON", help="interpreters of other environments")
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--one-kind", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.what = args.what or WHAT
    if args.json:
        args.python = []
    if not args.one_kind:
        args.tile = args.tile or LARGEST_TILE
    return args


if __name__ == "__main__":
    run_main(lambda: bench(parse_args()))
