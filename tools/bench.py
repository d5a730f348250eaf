"""Time DRSAN on this machine: python tools/bench.py [infer] [train] [--python OTHER_PYTHON ...]

Every figure is a median of several runs after a warm-up. `ours` is the graph of model.py, trained as train.py does;
`published` has PReLU as in the authors' graph, relu(x) + slope * (x - |x|) / 2, six element-wise operations, and is trained on
the whole batch at once. train also prints the share of time that a step waits for its patches, and the time by type of
operation. --python names interpreters of other environments (Python 3.6 with TensorFlow 1.8, say) that run the same in turn, with
the ratio to this one.
"""
import argparse
import collections
import json
import os
import re
import subprocess
import sys
import time

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import model as model_module  # noqa: E402
import ops  # noqa: E402
from ops import tf  # noqa: E402
from train import Devices, Sampler, build_training, parse_gpus, prefetch  # noqa: E402
from utils import open_session, run_main  # noqa: E402


def published_prelu(x, name):
    slope = tf.get_variable(name, [int(x.shape[3])], initializer=tf.zeros_initializer())
    return tf.nn.relu(x) + slope * (x - abs(x)) * 0.5


def median_seconds(function, runs):
    function()
    function()
    seconds = []
    for _ in range(runs):
        before = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - before)
    return float(np.median(seconds))


def time_inference(args):
    lr = tf.placeholder(tf.float32, [1, None, None, 3])
    sr = model_module.drsan(lr, args.model, args.scale)
    with open_session(args.gpu) as session:
        session.run(tf.global_variables_initializer())
        image = np.random.RandomState(0).rand(1, args.size, args.size, 3)
        return median_seconds(lambda: session.run(sr, {lr: image}), args.runs)


def time_training(args):
    """Seconds of a step that finds its batch ready."""
    devices = Devices(args, args.batch)
    training = build_training(args.model, args.scale, 0, devices.names if ops.prelu is OURS else [""])
    with devices.connect() if ops.prelu is OURS else open_session(args.gpu) as session:
        session.run(tf.global_variables_initializer())
        feed = training_feed(training, make_sampler(args)(0))
        return median_seconds(lambda: session.run([training.train, training.loss], feed), args.runs)


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
    devices = Devices(args, args.batch)
    training = build_training(args.model, args.scale, 0, devices.names)
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


OURS = ops.prelu
TIMERS = {"infer": time_inference, "train": time_training}


def measure(args):
    """{"infer": {"ours": seconds, "published": seconds}, ...}"""
    results = {}
    for what in args.what:
        results[what] = {}
        for name, prelu in ("ours", OURS), ("published", published_prelu):
            tf.reset_default_graph()
            ops.prelu = prelu
            results[what][name] = TIMERS[what](args)
    ops.prelu = OURS
    if "train" in args.what:
        results["wait"], results["types"] = profile_training(args)
    return dict(results, tensorflow=tf.__version__)


def bench(args):
    pixels = {"infer": args.size ** 2, "train": args.batch * args.patch ** 2}
    units = {"infer": "%dx%d LR" % (args.size, args.size), "train": "batch %d of %dx%d LR" % (args.batch, args.patch, args.patch)}
    results = [measure(args)]
    if args.json:
        print(json.dumps(results[0]))
        return
    for python in args.python:
        command = [python, os.path.abspath(__file__), "--json"] + sys.argv[1:]
        output = subprocess.check_output(command, stderr=subprocess.DEVNULL)
        results.append(json.loads(output.decode().splitlines()[-1]))
    print("DRSAN-%s %s, %d CPUs, median of %d runs" % (args.model, args.scale, os.cpu_count(), args.runs))
    for what in args.what:
        print("\n%-6s %-22s %12s %12s %14s %18s %16s" % (what, units[what], "ours s", "published s", "ours/published",
                                                       "ours s/LR megapixel", "ours to first"))
        for result in results:
            ours, published = result[what]["ours"], result[what]["published"]
            print("       TensorFlow %-11s %12.3f %12.3f %14.2f %18.2f %17.2f" % (
                result["tensorflow"], ours, published, ours / published, ours / pixels[what] * 1e6,
                ours / results[0][what]["ours"]))
        for result in results if what == "train" else []:
            print("\nTensorFlow %s: %.1f images/s, %.1f %% of the time waiting for data; operations: %s" % (
                result["tensorflow"], args.batch / result[what]["ours"], 100 * result["wait"],
                ", ".join("%s %.0f %%" % (name, 100 * share) for name, share in sorted(
                    result["types"].items(), key=lambda item: -item[1]))))


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=list(TIMERS) + [[]], help="infer, train (default both)")
    parser.add_argument("--gpu", type=parse_gpus, default=[-1], help="index of the GPU (default -1, the CPU)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of TensorFlow on the CPU (default: all)")
    parser.add_argument("--model", default="32s", choices=list(model_module.MODELS))
    parser.add_argument("--scale", default="x2", choices=list(model_module.SCALES))
    parser.add_argument("--size", type=int, default=320, help="side of the LR image of infer")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--patch", type=int, default=48, help="side of the LR patches of train")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--python", nargs="+", default=[], metavar="PYTHON", help="interpreters of other environments")
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.what = args.what or list(TIMERS)
    if args.json:
        args.python = []
    return args


if __name__ == "__main__":
    run_main(lambda: bench(parse_args()))
