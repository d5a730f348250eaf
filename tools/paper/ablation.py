"""The ablation: python tools/paper/ablation.py --data data/photos

Trains DRSAN-32s x2 whole, from two seeds, and without DRA, without its dynamics and without RSA, each from scratch by the recipe
`fast` once over the same --steps batches, which it first writes to records; evaluates the five on those of --dataset that are
present; and writes ablation.csv and from it a table. An interrupted call is continued by the same call.
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
from tools.files import check_writable, read_csv, replacing, short_path, to_csv, write_text
from tools.options import add_data_dir, add_gpu
from tools.paper.results import FIGURES, costs, markdown_row, present, replace_in_file
from tools.training.history import read_curves
from tools.training.recipes import make_recipe
from utils import DATASETS

import numpy as np

MODEL, SCALE = "32s", "x2"
Network = collections.namedtuple("Network", "name without seed")
NETWORKS = collections.OrderedDict((  # by the folder of their run; the others are compared with the first
    ("whole", Network("whole", None, 0)),
    ("whole_seed1", Network("whole, another seed", None, 1)),
    ("without_dra", Network("without DRA: plain sums", "dra", 0)),
    ("without_dynamics", Network("without its dynamics: learned constants", "dynamics", 0)),
    ("without_rsa", Network("without RSA", "rsa", 0)),
))
# loss: mean of the training loss over the last tenth of the steps; psnr, ssim: means over the images of a data set
Result = collections.namedtuple("Result", "network steps parameters multi_adds_G loss dataset psnr ssim")


def without(network):
    """The option of train.py and test.py for a network."""
    return ["--without", network.without] if network.without else []


def steps_done(folder):
    """The steps after which the run in a folder was last validated, 0 if it was not."""
    return max(read_curves(folder)["psnr"][0], default=0) if os.path.exists(os.path.join(folder, "log.jsonl")) else 0


def call(script, args, options, purpose):
    """Run train.py or test.py. Raises UserError that names the purpose if it fails or is stopped by a signal."""
    command = [sys.executable, os.path.join(ROOT, script), "--gpu", str(args.gpu), "--model", MODEL, "--scale", SCALE]
    status = subprocess.call(command + options)
    if status in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        raise UserError("stopped in %s: the same command goes on" % purpose)
    if status:
        raise UserError("%s failed for %s: see above" % (script, purpose))


def prepare(args):
    """Write the records that all networks are trained on; returns their folder."""
    folder = os.path.join(args.runs, "records")
    pairs = args.steps * make_recipe("fast", MODEL, SCALE).batch
    call("train.py", args, ["--recipe", "fast", "--data", args.data, "--records", folder, "--pairs", str(pairs), "--prepare"],
         "the records")
    return folder


def seconds_of(folder):
    """How long the run in a folder has trained."""
    with open(os.path.join(folder, "log.jsonl")) as file:
        return max(json.loads(line)["seconds"] for line in file)


def say_which(doing, network, args):
    """Print which of the networks it is at and, once one is trained, about how long the training of those that are left takes."""
    number = list(NETWORKS.values()).index(network) + 1
    done = [os.path.join(args.runs, name) for name in NETWORKS if steps_done(os.path.join(args.runs, name)) == args.steps]
    left = sum(map(seconds_of, done)) / len(done) * (len(NETWORKS) - len(done)) if done else 0
    print("%s %d of %d: %s%s" % (doing, number, len(NETWORKS), network.name, "; the training of all takes about %s yet" % (
        datetime.timedelta(seconds=round(left))) if left else ""), flush=True)


def train(network, folder, records, args):
    """Train a network, or what is left of it, to args.steps. Raises UserError as call()."""
    if steps_done(folder) == args.steps:
        return
    say_which("training", network, args)
    options = ["--recipe", "fast", "--steps", str(args.steps), "--seed", str(network.seed), "--records", records, "--run", folder]
    call("train.py", args, options + without(network), "the training of the network " + network.name)


def scores(network, folder, dataset, args):
    """(name, PSNR, SSIM) of the best weights of a run on a data set, measured once and kept in the run. Raises UserError."""
    path = os.path.join(folder, "evaluated", re.sub(r"\W+", "_", dataset) + ".csv")
    if not os.path.exists(path):
        say_which("evaluating", network, args)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with tempfile.TemporaryDirectory() as temporary:
            saved = os.path.join(temporary, "saved.csv")
            options = ["--checkpoint", os.path.join(folder, "best"), "--data-dir", args.data_dir, "--csv", saved] + without(network)
            call("test.py", args, options + ["--dataset", dataset], "the evaluation of the network " + network.name)
            with open(saved, "rb") as source, replacing(path) as whole, open(whole, "wb") as file:
                shutil.copyfileobj(source, file)
    row = next(row for row in read_csv(path) if row["image"] == "mean")
    return row["dataset"], float(row["psnr"]), float(row["ssim"])


def evaluate(network, folder, datasets, args):
    """Evaluate the best weights of a run on the data sets: a list of Result. Raises UserError."""
    steps, losses = (np.array(values) for values in read_curves(folder)["loss"])
    loss = losses[steps > 0.9 * args.steps].mean()
    head = (network.name, args.steps) + costs(MODEL, SCALE, network.without) + (loss,)
    return [Result(*head + scores(network, folder, dataset, args)) for dataset in datasets]


def write_results(path, results):
    """Write a list of Result; read_results() gives it back, rounded."""
    write_text(path, to_csv([Result._fields] + [one[:3] + ("%.2f" % one.multi_adds_G, "%.6f" % one.loss, one.dataset,
                                                           "%.4f" % one.psnr, "%.4f" % one.ssim) for one in results]))


def read_results(path):
    """The Results of a file of write_results(). Raises UserError."""
    types = str, int, int, float, float, str, float, float
    try:
        return [Result(*[kind(row[field]) for kind, field in zip(types, Result._fields)]) for row in read_csv(path)]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError("%s is not a table of this tool: %s" % (path, error))


def to_markdown(results):
    """The table: a row for each network, below its PSNR / SSIM the difference to the first network's."""
    scores = {(one.network, one.dataset): one for one in results}
    datasets = list(collections.OrderedDict.fromkeys(one.dataset for one in results))
    text = markdown_row(["", "parameters", "multi-adds", "training loss"] + datasets)
    text += "|" + "---|" * (4 + len(datasets)) + "\n"
    first = results[0].network
    for one in collections.OrderedDict((one.network, one) for one in results).values():
        cells = []
        for name in datasets:
            ours, base = scores[one.network, name], scores[first, name]
            cells.append("%.2f / %.4f" % (ours.psnr, ours.ssim))
            if one.network != first:
                cells[-1] += "<br>%+.2f / %+.4f" % (ours.psnr - base.psnr, ours.ssim - base.ssim)
        text += markdown_row([one.network, "{:,}".format(one.parameters), "%.2f G" % one.multi_adds_G, "%.5f" % one.loss] + cells)
    return text


def make_ablation(args):
    """What the command does, once for the arguments; prints the files it wrote."""
    path = os.path.join(args.output, "ablation.csv")
    if not args.redraw:
        check_writable([args.runs, args.output])
        datasets = present(args.dataset, args.data_dir)
        if not datasets:
            raise UserError("no data set of %s is present in %s" % (" ".join(args.dataset), args.data_dir))
        results, records = [], prepare(args)
        for name, network in NETWORKS.items():
            train(network, os.path.join(args.runs, name), records, args)
        for name, network in NETWORKS.items():
            results += evaluate(network, os.path.join(args.runs, name), datasets, args)
        os.makedirs(args.output, exist_ok=True)
        write_results(path, results)
        print("wrote %s" % short_path(path))
    table = to_markdown(read_results(path))
    if args.update:
        written = replace_in_file(os.path.join(FIGURES, "README.md"), table, "ablation")
    else:
        written = os.path.join(args.output, "ablation.md")
        write_text(written, table)
    print("wrote %s" % short_path(written))


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", metavar="DIR", help="photographs to train on")
    source.add_argument("--redraw", action="store_true", help="write the table from ablation.csv, train nothing")
    parser.add_argument("--steps", type=positive(int), default=2500, help="of each training (default 2500)")
    add_gpu(parser)
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
