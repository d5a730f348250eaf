"""The ablation: python tools/paper/ablation.py --data data/photos

Trains DRSAN-32s x2 whole and without DRA, three seeds each, and once without its dynamics and without RSA,
each from scratch by the recipe `fast` once over the same --steps batches, which it first writes to records in
--runs. The weights of each training that are the best on held-out photographs are evaluated on these and on
those of --dataset that are present. Writes ablation.csv, and from it a table. An interrupted call is
continued by the same call.
"""
import argparse
import collections
import os
import re
import shutil
import signal
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
from tools.command import UserError, positive, run_main
from tools.data.photographs import hold_out
from tools.files import check_writable, read_csv, replacing, short_path
from tools.options import add_data_dir, add_gpu, add_precision
from tools.paper.results import Table, add_target, costs, markdown_table, present, write_table
from tools.training.history import read_curves
from tools.training.recipes import make_recipe
from utils import DATASETS

import numpy as np

MODEL, SCALE = "32s", "x2"
HELD_OUT = 0.01  # share of the photographs
NETWORKS = collections.OrderedDict([  # by what is left out; the others are compared with the first
    (None, "whole"), ("dra", "without DRA: plain sums"),
    ("dynamics", "without its dynamics: learned constants"), ("rsa", "without RSA")
])
# seed: of the initial weights, and of the order of the records
Training = collections.namedtuple("Training", "without seed")
TRAININGS = [Training(without, seed) for seed in (0, 1, 2) for without in NETWORKS
             if not seed or without in (None, "dra")]
# loss: mean of the training loss over the last tenth of the steps; psnr, ssim: means over the images of a
# data set
Result = collections.namedtuple("Result", "network seed steps parameters multi_adds_G loss dataset psnr ssim")
RESULTS = Table(Result, "%s %d %d %d %.2f %.6f %s %.4f %.4f")


def folder_of(training, args):
    """The folder of a training."""
    name = "without_" + training.without if training.without else "whole"
    return os.path.join(args.runs, "%s_seed%d" % (name, training.seed))


def steps_done(folder):
    """The steps after which the run in a folder was last validated, 0 if it was not."""
    if not os.path.exists(os.path.join(folder, "log.jsonl")):
        return 0
    return max(read_curves(folder)["psnr"][0], default=0)


def call(script, args, training, purpose, *options):
    """Run train.py or test.py, for a Training or None. Raises UserError that names the purpose if it fails or
    is stopped by a signal."""
    command = [sys.executable, os.path.join(ROOT, script), "--gpu", str(args.gpu), "--model", MODEL,
               "--scale", SCALE, "--precision", args.precision]
    if training:
        number, name = TRAININGS.index(training) + 1, NETWORKS[training.without]
        print("%s %d of %d: %s, seed %d" % (purpose, number, len(TRAININGS), name, training.seed), flush=True)
        purpose += " the network " + name
        command += ["--without", training.without] if training.without else []
    status = subprocess.call(command + list(options))
    if status in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        raise UserError("stopped when %s: the same command goes on" % purpose)
    if status:
        raise UserError("%s failed when %s: see above" % (script, purpose))


def prepare(args):
    """Write the records that all networks are trained on, and copy the photographs that are held out; returns
    the folders of both."""
    records, held_out = os.path.join(args.runs, "records"), os.path.join(args.runs, "held_out")
    pairs = args.steps * make_recipe("fast", MODEL, SCALE).batch
    call("train.py", args, None, "writing the records", "--recipe", "fast", "--data", args.data,
         "--valid-share", str(HELD_OUT), "--records", records, "--pairs", str(pairs), "--prepare")
    os.makedirs(held_out, exist_ok=True)
    for path in hold_out(args.data, HELD_OUT)[1]:
        copy = os.path.join(held_out, os.path.relpath(path, args.data).replace(os.sep, "_"))
        if not os.path.exists(copy):
            with replacing(copy) as temporary:
                shutil.copyfile(path, temporary)
    return records, held_out


def train(training, records, held_out, args):
    """Train a network, or what is left of it, to args.steps. Raises UserError as call()."""
    folder = folder_of(training, args)
    if steps_done(folder) < args.steps:
        call("train.py", args, training, "training", "--recipe", "fast", "--steps", str(args.steps), "--seed",
             str(training.seed), "--records", records, "--valid", held_out, "--valid-every", "2500", "--run",
             folder)


def evaluate(training, dataset, args):
    """The Result of the best weights of a training on a data set, measured once and kept in the run. Raises
    UserError."""
    folder = folder_of(training, args)
    path = os.path.join(folder, "evaluated", re.sub(r"\W+", "_", dataset) + ".csv")
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with replacing(path) as temporary:
            call("test.py", args, training, "evaluating", "--checkpoint", os.path.join(folder, "best"),
                 "--data-dir", args.data_dir, "--csv", temporary, "--dataset", dataset)
    mean = next(row for row in read_csv(path) if row["image"] == "mean")
    steps, losses = (np.array(values) for values in read_curves(folder)["loss"])
    loss = losses[steps > 0.9 * args.steps].mean()
    head = (NETWORKS[training.without], training.seed, args.steps) + costs(MODEL, SCALE, training.without)
    return Result(*head + (loss, mean["dataset"], float(mean["psnr"]), float(mean["ssim"])))


def to_markdown(results):
    """The table: a row for each network, with means over its seeds and, of several, the sample standard
    deviation of PSNR; below its PSNR / SSIM the difference to the first network's."""
    groups = collections.OrderedDict()
    for result in results:
        sets = groups.setdefault(result.network, collections.OrderedDict())
        sets.setdefault(result.dataset, []).append(result)
    first = next(iter(groups.values()))
    table = [["", "seeds", "parameters", "multi-adds", "training loss"] + list(first)]
    for name, sets in groups.items():
        seeds = sets[next(iter(first))]
        table.append([
            name,
            str(len(seeds)), "{:,}".format(seeds[0].parameters),
            "%.2f G" % seeds[0].multi_adds_G,
            "%.5f" % np.mean([seed.loss for seed in seeds])
        ])
        for dataset, base in first.items():
            scores, base = ([(seed.psnr, seed.ssim) for seed in seeds] for seeds in (sets[dataset], base))
            psnr, ssim = np.mean(scores, axis=0)
            spread = " \u00b1 %.3f" % np.std(scores, axis=0, ddof=1)[0] if len(scores) > 1 else ""
            table[-1].append("%.3f%s / %.4f" % (psnr, spread, ssim))
            if sets is not first:
                table[-1][-1] += "<br>%+.3f / %+.4f" % tuple(np.mean(scores, axis=0) - np.mean(base, axis=0))
    return markdown_table(table)


def make_ablation(args):
    """What the command does, once for the arguments; prints the files it wrote."""
    path = os.path.join(args.output, "ablation.csv")
    if not args.redraw:
        check_writable([args.runs, args.output])
        datasets = present(args.dataset, args.data_dir)
        records, held_out = prepare(args)
        for training in TRAININGS:
            train(training, records, held_out, args)
        results = [
            evaluate(training, dataset, args) for training in TRAININGS for dataset in datasets + [held_out]
        ]
        os.makedirs(args.output, exist_ok=True)
        RESULTS.write(path, results)
        print("wrote %s" % short_path(path))
    write_table(to_markdown(RESULTS.read(path)), "ablation", args.output)


def main(argv=None):
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", metavar="DIR", help="photographs to train on")
    source.add_argument("--redraw", action="store_true",
                        help="write the table from ablation.csv, train nothing")
    parser.add_argument("--steps", type=positive(int), default=12500, help="of each training (default 12500)")
    add_gpu(parser)
    add_precision(parser)
    parser.add_argument(
        "--dataset", nargs="+", default=DATASETS, metavar="NAME",
        help="data sets, or folders of HR images, to evaluate on (default: %s)" % " ".join(DATASETS))
    add_data_dir(parser)
    default = os.path.join("runs", "ablation")
    parser.add_argument("--runs", default=default, metavar="DIR", help="default " + default)
    add_target(parser, default, "ablation.csv and README.md in figures")
    make_ablation(parser.parse_args(argv))


if __name__ == "__main__":
    run_main(main)
