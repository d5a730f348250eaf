"""Compare recipes at equal cost: python tools/compare_recipes.py --data data/photos batch=16 batch=8,rate=5e-4

Each candidate is a list of values that replace those of the recipe `fast`. It is trained until it has seen --pixels LR pixels, to
which time is proportional within a few percent, its learning rate falling to 0 there; the table shows the PSNR of its averaged
weights on --valid and on the photographs held out by --valid-share, the best on the last of them first.
"""
import argparse
import collections
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from model import SCALES
from ops import tf
from tools.checkpoints import find_checkpoint, note_seen
from tools.command import cpu_count, positive, run_main
from tools.data.patches import Sampler, prefetch
from tools.data.photographs import hold_out, load_photographs, open_valid
from tools.options import add_data_dir, add_precision, add_valid_share, add_variant, gpus
from tools.runtime import check_precision
from tools.training.cluster import Devices
from tools.training.graph import averaged_weights, build_training, start_from, validate
from tools.training.recipes import RECIPE_OPTIONS, learning_rate, make_recipe

import numpy as np

COMPARED = [key for key in RECIPE_OPTIONS if key != "steps"]  # which follow from --pixels


def parse_candidate(text):
    """The values of a Recipe named in a text as "batch=8,rate=1e-3". Raises ValueError."""
    values = {}
    for key, value in (item.split("=") for item in text.split(",")):
        if key not in COMPARED:
            raise argparse.ArgumentTypeError("unknown value %s: expected %s" % (key, ", ".join(sorted(COMPARED))))
        kind = RECIPE_OPTIONS[key][0]
        values[key] = kind[kind.index(value)] if isinstance(kind, tuple) else kind(value)
    return values


# psnr: of each validation set; loss: mean of the last tenth of the steps; skipped: steps; largest_dra: of all steps
Result = collections.namedtuple("Result", "psnr loss seconds skipped largest_dra kernel_rms")


def train_candidate(recipe, photographs, valid, args):
    """The Result of recipe.steps steps, from scratch or from args.init_from."""
    scale = SCALES[args.scale]
    tf.reset_default_graph()
    tf.set_random_seed(args.seed)
    devices = Devices(args.gpu, args.threads, recipe.batch)
    training = build_training(args.model, args.scale, recipe, devices.names, precision=args.precision, compiled=devices.compiled)
    session = devices.connect()
    session.run(tf.global_variables_initializer())
    if args.init_from:
        start_from(session, training, find_checkpoint(args.model, args.scale, args.init_from))
    fetches, values, before = [training.loss, training.skipped, training.largest_dra, training.train], [], time.time()
    sampler = Sampler(photographs, scale, recipe.batch, recipe.patch, args.seed, recipe.candidates)
    for step, (lr, hr) in enumerate(prefetch(sampler, 0, recipe.steps)):
        feed = {training.lr: lr, training.hr: hr, training.rate: learning_rate(recipe, step)}
        values.append(session.run(fetches, feed)[:3])
    losses, skipped, dra = np.transpose(values)
    seconds, kernel_rms = time.time() - before, session.run(training.kernel_rms)
    with averaged_weights(session, training):
        psnr = [validate(session, training, pairs, scale)[0] for _, pairs in valid.values()]
    session.close()
    return Result(psnr, np.mean(losses[-len(losses) // 10:]), seconds, int(np.sum(skipped)), np.max(dra), kernel_rms)


def compare(args):
    check_precision(args.precision)
    scale, fast = SCALES[args.scale], make_recipe("fast", args.model, args.scale)
    recipes = [fast._replace(**candidate) for candidate in args.candidates]
    recipes = [recipe._replace(steps=round(args.pixels * 1e6 / (recipe.batch * recipe.patch ** 2))) for recipe in recipes]
    held_out = hold_out(args.data, args.valid_share)[1]
    if args.init_from:
        note_seen(find_checkpoint(args.model, args.scale, args.init_from), [os.path.relpath(path, args.data) for path in held_out])
    patch = max(recipe.patch for recipe in recipes)
    photographs = load_photographs(args.data, scale, patch, args.workers, args.valid_share)
    valid = open_valid(args.valid, held_out, scale, args.data_dir)
    results = []
    for recipe, candidate in zip(recipes, args.candidates):
        words = ", ".join("%s %s" % item for item in sorted(candidate.items()))
        results.append((train_candidate(recipe, photographs, valid, args), words, recipe))
        print("done: %s: %s" % (words, ", ".join("%s %s" % item for item in results[-1][0]._asdict().items())), flush=True)
    print("\nDRSAN-%s %s from %s, %.1f million LR pixels each, %s" % (
        args.model, args.scale, args.init_from or "scratch", args.pixels, args.precision))
    print("".join("%22s" % name for name, _ in valid.values()) + "%9s %7s %8s %11s %11s %8s  %s" % (
        "loss", "steps", "skipped", "largest DRA", "kernel RMS", "seconds", "fast, but for"))
    for result, words, recipe in sorted(results, key=lambda one: -one[0].psnr[-1]):
        print("".join("%22.3f" % psnr for psnr in result.psnr) + "%9.5f %7d %8d %11.2f %11.3f %8.0f  %s" % (
            result.loss, recipe.steps, result.skipped, result.largest_dra, result.kernel_rms, result.seconds, words))


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("candidates", nargs="+", type=parse_candidate, metavar="KEY=VALUE[,...]",
                        help="values that replace those of `fast`: of %s" % ", ".join(sorted(COMPARED)))
    parser.add_argument("--data", required=True, metavar="DIR", help="photographs, searched recursively")
    parser.add_argument("--pixels", type=positive(float), default=25, help="million LR pixels for each candidate")
    parser.add_argument("--gpu", type=gpus, default=[-1], metavar="I[,J...]",
                        help="index of the GPU, cpu or -1 for the CPU (default cpu)")
    add_variant(parser)
    add_precision(parser)
    parser.add_argument("--init-from", metavar="CHECKPOINT", help="start from its weights instead of from scratch")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights and patches (default 0)")
    parser.add_argument("--valid", default="Sample", help="data set for validation; never one of the benchmarks")
    add_valid_share(parser)
    add_data_dir(parser)
    parser.add_argument("--threads", type=int, default=cpu_count(), help="of TensorFlow on the CPU (default: all)")
    parser.add_argument("--workers", type=int, default=cpu_count(), help="processes that read photographs")
    return parser.parse_args()


if __name__ == "__main__":
    run_main(lambda: compare(parse_args()))
