"""Compare recipes at equal cost: python tools/compare_recipes.py --data data/photos batch=16 batch=8,rate=5e-4

Each candidate is a list of values that replace those of the recipe `fast`. It is trained from scratch until it has seen --pixels
LR pixels, to which time is proportional within a few percent, its learning rate falling to 0 there; the table shows the PSNR of
its averaged weights on --valid, best first.
"""
import argparse
import os
import sys
import time

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from model import MODELS, SCALES  # noqa: E402
from ops import tf  # noqa: E402
from train import (OPTIMIZERS, PRECISIONS, Devices, Sampler, averaged_weights, build_training,  # noqa: E402
                   check_precision, decay, learning_rate, load_photographs, make_recipe, parse_gpus, prefetch, validate)
from utils import find_dataset, not_negative, positive, read_pair, run_main  # noqa: E402


def parse_candidate(text):
    """The values of a Recipe named in a text as "batch=8,rate=1e-3". Raises ValueError."""
    types = {"rate": positive(float), "ema": decay, "warmup": not_negative(int), "batch": positive(int),
             "patch": positive(int), "candidates": positive(int), "optimizer": lambda text: OPTIMIZERS[OPTIMIZERS.index(text)]}
    values = dict(item.split("=") for item in text.split(","))
    return {key: types[key](value) if key in types else unknown(key, types) for key, value in values.items()}


def unknown(key, types):
    raise argparse.ArgumentTypeError("unknown value %s: expected %s" % (key, ", ".join(sorted(types))))


def train_candidate(recipe, photographs, valid, args):
    """The mean PSNR on `valid` after recipe.steps steps, the mean loss of the last tenth of them, and the seconds they took."""
    scale = SCALES[args.scale]
    tf.reset_default_graph()
    tf.set_random_seed(args.seed)
    devices = Devices(args, recipe.batch)
    training = build_training(args.model, args.scale, recipe.ema, devices.names, optimizer=recipe.optimizer,
                              precision=args.precision)
    session = devices.connect()
    session.run(tf.global_variables_initializer())
    losses, before = [], time.time()
    sampler = Sampler(photographs, scale, recipe.batch, recipe.patch, args.seed, recipe.candidates)
    for step, (lr, hr) in enumerate(prefetch(sampler, 0, recipe.steps)):
        feed = {training.lr: lr, training.hr: hr, training.rate: learning_rate(recipe, step)}
        losses.append(session.run([training.train, training.loss], feed)[1])
    seconds = time.time() - before
    with averaged_weights(session, training):
        psnr, _ = validate(session, training, valid, scale)
    session.close()
    return psnr, np.mean(losses[-len(losses) // 10:]), seconds


def compare(args):
    check_precision(args.precision)
    scale, fast = SCALES[args.scale], make_recipe("fast", args.model, args.scale)
    recipes = [fast._replace(**candidate) for candidate in args.candidates]
    recipes = [recipe._replace(steps=round(args.pixels * 1e6 / (recipe.batch * recipe.patch ** 2))) for recipe in recipes]
    photographs = load_photographs(args.data, scale, max(recipe.patch for recipe in recipes), args.workers)
    valid = [read_pair(pair, scale) for pair in find_dataset(args.valid, scale, args.data_dir).pairs]
    results = []
    for recipe in recipes:
        results.append((train_candidate(recipe, photographs, valid, args), recipe))
        print("done: PSNR %.3f  loss %.5f  %.0f s  %s" % (results[-1][0] + (recipe,)), flush=True)
    print("\nDRSAN-%s %s, %.1f million LR pixels each, %s" % (args.model, args.scale, args.pixels, args.precision))
    print("%8s %9s %6s %6s %10s %8s %8s %8s  %10s %9s %8s" % (
        "rate", "optimizer", "batch", "patch", "candidates", "steps", "warm-up", "EMA", "PSNR", "loss", "seconds"))
    for (psnr, loss, seconds), recipe in sorted(results, reverse=True):
        print("%8.0e %9s %6d %6d %10d %8d %8d %8s  %10.3f %9.5f %8.0f" % (
            recipe.rate, recipe.optimizer, recipe.batch, recipe.patch, recipe.candidates, recipe.steps, recipe.warmup, recipe.ema,
            psnr, loss, seconds))


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("candidates", nargs="+", type=parse_candidate, metavar="KEY=VALUE[,...]",
                        help="values of rate, optimizer, batch, patch, candidates, warmup and ema that replace those of `fast`")
    parser.add_argument("--data", required=True, metavar="DIR", help="photographs, searched recursively")
    parser.add_argument("--pixels", type=positive(float), default=25, help="million LR pixels for each candidate")
    parser.add_argument("--gpu", type=parse_gpus, default=[-1])
    parser.add_argument("--model", default="32s", choices=list(MODELS))
    parser.add_argument("--scale", default="x2", choices=list(SCALES))
    parser.add_argument("--precision", default="float32", choices=list(PRECISIONS), help="of convolutions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--valid", default="Sample", help="data set for validation; never one of the benchmarks")
    parser.add_argument("--data-dir", default="data", metavar="DIR", help="where data sets are found")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of TensorFlow on the CPU (default: all)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that read photographs")
    return parser.parse_args()


if __name__ == "__main__":
    run_main(lambda: compare(parse_args()))
