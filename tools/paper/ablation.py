"""The ablation: python tools/paper/ablation.py --data data/photos

Trains DRSAN-32s x2 whole and without DRA, three seeds each, and once without its dynamics and without RSA, each from scratch by the
recipe `fast` once over the same --steps batches, which it first writes to records. The weights of each training that are the best
on held-out photographs are evaluated on these and on those of --dataset that are present. Writes ablation.csv, and from it a
table. An interrupted call is continued by the same call.
"""
import argparse
import collections
import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
from tools.command import UserError, positive, run_main
from tools.data.photographs import hold_out
from tools.files import check_writable, read_csv, replacing, short_path, to_csv, write_text
from tools.options import add_data_dir, add_gpu, add_precision
from tools.paper.results import FIGURES, costs, markdown_row, present, write_table
from tools.training.history import read_curves
from tools.training.recipes import make_recipe
from utils import DATASETS

import numpy as np

MODEL, SCALE = "32s", "x2"
HELD_OUT = 0.01  # share of the photographs
# seeds: of its trainings: of the initial weights, and of the order of the records
Network = collections.namedtuple("Network", "name without seeds")
NETWORKS = [  # the others are compared with the first
    Network("whole", None, (0, 1, 2)),
    Network("without DRA: plain sums", "dra", (0, 1, 2)),
    Network("without its dynamics: learned constants", "dynamics", (0,)),
    Network("without RSA", "rsa", (0,)),
]
RUNS = [(network, seed) for seed in (0, 1, 2) for network in NETWORKS if seed in network.seeds]
# of one training; loss: mean of the training loss over the last tenth of the steps; psnr, ssim: means over the images of a data set
Result = collections.namedtuple("Result", "network seed steps parameters multi_adds_G loss dataset psnr ssim")


def name_run(network, seed, args):
    """The folder of a training."""
    return os.path.join(args.runs, "%s_seed%d" % (network.without and "without_" + network.without or "whole", seed))


def without(network):
    """The option of train.py and test.py for a network."""
    return ["--without", network.without] if network.without else []


def steps_done(folder):
    """The steps after which the run in a folder was last validated, 0 if it was not."""
    return max(read_curves(folder)["psnr"][0], default=0) if os.path.exists(os.path.join(folder, "log.jsonl")) else 0


def call(script, args, options, purpose):
    """Run train.py or test.py. Raises UserError that names the purpose if it fails or is stopped by a signal."""
    command = [sys.executable, os.path.join(ROOT, script), "--gpu", str(args.gpu), "--model", MODEL, "--scale", SCALE]
    status = subprocess.call(command + ["--precision", args.precision] + options)
    if status in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        raise UserError("stopped in %s: the same command goes on" % purpose)
    if status:
        raise UserError("%s failed for %s: see above" % (script, purpose))


def prepare(args):
    """Write the records that all networks are trained on, and copy the photographs that are held out; returns the folders of both."""
    records, held_out = os.path.join(args.runs, "records"), os.path.join(args.runs, "held_out")
    pairs = args.steps * make_recipe("fast", MODEL, SCALE).batch
    call("train.py", args, ["--recipe", "fast", "--data", args.data, "--valid-share", str(HELD_OUT), "--records", records,
                            "--pairs", str(pairs), "--prepare"], "the records")
    os.makedirs(held_out, exist_ok=True)
    for path in hold_out(args.data, HELD_OUT)[1]:
        copy = os.path.join(held_out, os.path.relpath(path, args.data).replace(os.sep, "_"))
        if not os.path.exists(copy):
            with replacing(copy) as temporary:
                shutil.copyfile(path, temporary)
    return records, held_out


def seconds_of(folder):
    """How long the run in a folder has trained."""
    with open(os.path.join(folder, "log.jsonl")) as file:
        return max(json.loads(line)["seconds"] for line in file)


def say_which(doing, run, args):
    """Print which of the trainings it is at and, once one is done, about how long those that are left take."""
    done = [folder for folder in (name_run(network, seed, args) for network, seed in RUNS) if steps_done(folder) == args.steps]
    left = sum(map(seconds_of, done)) / len(done) * (len(RUNS) - len(done)) if done else 0
    print("%s %d of %d: %s, seed %d%s" % (doing, RUNS.index(run) + 1, len(RUNS), run[0].name, run[1], (
        "; the training of all takes about %s yet" % datetime.timedelta(seconds=round(left))) if left else ""), flush=True)


def train(network, seed, records, held_out, args):
    """Train a network, or what is left of it, to args.steps. Raises UserError as call()."""
    folder = name_run(network, seed, args)
    if steps_done(folder) == args.steps:
        return
    say_which("training", (network, seed), args)
    options = ["--recipe", "fast", "--steps", str(args.steps), "--seed", str(seed), "--records", records, "--valid", held_out,
               "--valid-every", "2500", "--run", folder]
    call("train.py", args, options + without(network), "the training of the network " + network.name)


def scores(network, seed, dataset, args):
    """(name, PSNR, SSIM) of the best weights of a training on a data set, measured once and kept in the run. Raises UserError."""
    folder = name_run(network, seed, args)
    path = os.path.join(folder, "evaluated", re.sub(r"\W+", "_", dataset) + ".csv")
    if not os.path.exists(path):
        say_which("evaluating", (network, seed), args)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with tempfile.TemporaryDirectory() as temporary:
            saved = os.path.join(temporary, "saved.csv")
            options = ["--checkpoint", os.path.join(folder, "best"), "--data-dir", args.data_dir, "--csv", saved] + without(network)
            call("test.py", args, options + ["--dataset", dataset], "the evaluation of the network " + network.name)
            with open(saved, "rb") as source, replacing(path) as whole, open(whole, "wb") as file:
                shutil.copyfileobj(source, file)
    row = next(row for row in read_csv(path) if row["image"] == "mean")
    return row["dataset"], float(row["psnr"]), float(row["ssim"])


def evaluate(network, seed, datasets, args):
    """Evaluate the best weights of a training on the data sets: a list of Result. Raises UserError."""
    steps, losses = (np.array(values) for values in read_curves(name_run(network, seed, args))["loss"])
    loss = losses[steps > 0.9 * args.steps].mean()
    head = (network.name, seed, args.steps) + costs(MODEL, SCALE, network.without) + (loss,)
    return [Result(*head + scores(network, seed, dataset, args)) for dataset in datasets]


def write_results(path, results):
    """Write a list of Result; read_results() gives it back, rounded."""
    write_text(path, to_csv([Result._fields] + [one[:4] + ("%.2f" % one.multi_adds_G, "%.6f" % one.loss, one.dataset,
                                                           "%.4f" % one.psnr, "%.4f" % one.ssim) for one in results]))


def read_results(path):
    """The Results of a file of write_results(). Raises UserError."""
    types = str, int, int, int, float, float, str, float, float
    try:
        return [Result(*[kind(row[field]) for kind, field in zip(types, Result._fields)]) for row in read_csv(path)]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError("%s is not a table of this tool: %s" % (path, error))


def mean_and_spread(values):
    """The mean PSNR of several seeds as text and, of more than one, its sample standard deviation."""
    return "%.3f" % np.mean(values) + (" \u00b1 %.3f" % np.std(values, ddof=1) if len(values) > 1 else "")


def to_markdown(results):
    """The table: a row for each network, with means over its seeds, below its PSNR / SSIM the difference to the first network's."""
    groups = collections.OrderedDict()
    for one in results:
        groups.setdefault(one.network, collections.OrderedDict()).setdefault(one.dataset, []).append(one)
    first = list(groups.values())[0]
    text = markdown_row(["", "seeds", "parameters", "multi-adds", "training loss"] + list(first))
    text += "|" + "---|" * (5 + len(first)) + "\n"
    for name, sets in groups.items():
        cells, some = [], list(sets.values())[0]
        for dataset, base in first.items():
            psnr, ssim = ([getattr(one, field) for one in sets[dataset]] for field in ("psnr", "ssim"))
            cells.append("%s / %.4f" % (mean_and_spread(psnr), np.mean(ssim)))
            if sets is not first:
                cells[-1] += "<br>%+.3f / %+.4f" % (np.mean(psnr) - np.mean([one.psnr for one in base]),
                                                   np.mean(ssim) - np.mean([one.ssim for one in base]))
        text += markdown_row([name, str(len(some)), "{:,}".format(some[0].parameters), "%.2f G" % some[0].multi_adds_G,
                              "%.5f" % np.mean([one.loss for one in some])] + cells)
    return text


def make_ablation(args):
    """What the command does, once for the arguments; prints the files it wrote."""
    path = os.path.join(args.output, "ablation.csv")
    if not args.redraw:
        check_writable([args.runs, args.output])
        datasets = present(args.dataset, args.data_dir)
        if not datasets:
            raise UserError("no data set of %s is present in %s" % (" ".join(args.dataset), args.data_dir))
        records, held_out = prepare(args)
        for network, seed in RUNS:
            train(network, seed, records, held_out, args)
        results = [one for network, seed in RUNS for one in evaluate(network, seed, datasets + [held_out], args)]
        os.makedirs(args.output, exist_ok=True)
        write_results(path, results)
        print("wrote %s" % short_path(path))
    write_table(to_markdown(read_results(path)), "ablation", args)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", metavar="DIR", help="photographs to train on")
    source.add_argument("--redraw", action="store_true", help="write the table from ablation.csv, train nothing")
    parser.add_argument("--steps", type=positive(int), default=12500, help="of each training (default 12500)")
    add_gpu(parser)
    add_precision(parser)
    parser.add_argument("--dataset", nargs="+", default=DATASETS, metavar="NAME",
                        help="data sets, or folders of HR images, to evaluate on (default: %s)" % " ".join(DATASETS))
    add_data_dir(parser)
    parser.add_argument("--runs", default=os.path.join("runs", "ablation"), metavar="DIR", help="default runs/ablation")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--output", metavar="DIR", help="where ablation.csv and ablation.md go (default: that of --runs)")
    target.add_argument("--update", action="store_true", help="write the project's own: ablation.csv and README.md in figures")
    args = parser.parse_args()
    args.output = FIGURES if args.update else args.output or args.runs
    return args


if __name__ == "__main__":
    run_main(lambda: make_ablation(parse_args()))
