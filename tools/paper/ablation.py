"""The ablation: python tools/paper/ablation.py --data data/photos

Trains DRSAN-32s x2 whole and without DRA, three seeds each, and once without its dynamics and without RSA,
each from scratch by the recipe `fast`; trainings of one seed see the same batches. The weights of each that
are the best on held-out photographs are evaluated on the data sets that are present. Writes ablation.csv, and
from it a table. An interrupted call is continued by the same call.
"""
import collections
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from tools.command import UserError, positive, run_main
from tools.files import check_writable, read_csv, short_path
from tools.options import add_precision
from tools.paper.results import Table, call_script, costs, markdown_table, present, table_parser, write_table
from tools.training.run import read_curves

import numpy as np

MODEL, SCALE = "32s", "x2"
NETWORKS = collections.OrderedDict([  # by what is left out; the others are compared with the first
    (None, "whole"), ("dra", "without DRA: plain sums"),
    ("dynamics", "without its dynamics: learned constants"), ("rsa", "without RSA")
])
# seed: of the initial weights, and of the batches
Ablation = collections.namedtuple("Ablation", "without seed")
TRAININGS = [Ablation(without, seed) for seed in (0, 1, 2) for without in NETWORKS
             if not seed or without in (None, "dra")]
# loss: mean of the training loss over the last tenth of the steps; psnr, ssim: means over the images of a
# data set
Result = collections.namedtuple("Result", "network seed steps parameters multi_adds_G loss dataset psnr ssim")
RESULTS = Table(Result, "%s %d %d %d %.2f %.6f %s %.4f %.4f")


def run_script(script, args, training, purpose, *options):
    """Run train.py or test.py for an Ablation. Raises UserError that names it if that fails or is stopped by
    a signal."""
    purpose += " %d of %d: %s, seed %d" % (
        TRAININGS.index(training) + 1, len(TRAININGS), NETWORKS[training.without], training.seed)
    print(purpose, flush=True)
    without = ("--without", training.without) if training.without else ()
    status = call_script(script, MODEL, SCALE, args.gpu, "--precision", args.precision, *options + without)
    if status in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        raise UserError("stopped when %s: the same command goes on" % purpose)
    if status:
        raise UserError("%s failed when %s: see above" % (script, purpose))


def train_and_evaluate(training, args, datasets):
    """Train a network, or what is left of it, to args.steps, and evaluate its best weights: a list of Result.
    Raises UserError as run_script()."""
    folder = os.path.join(args.runs, "%s_seed%d" % (
        "without_" + training.without if training.without else "whole", training.seed))
    begun, saved = os.path.exists(os.path.join(folder, "log.jsonl")), os.path.join(folder, "evaluated.csv")
    if not begun or max(read_curves(folder)["psnr"][0], default=0) < args.steps:  # of the last validation
        run_script("train.py", args, training, "training", "--recipe", "fast", "--data", args.data,
                   "--valid-share", "0.01", "--steps", str(args.steps), "--seed", str(training.seed),
                   "--valid-every", "2500", "--run", folder)
    run_script("test.py", args, training, "evaluating", "--checkpoint", os.path.join(folder, "best"),
               "--data-dir", args.data_dir, "--csv", saved, "--dataset", *datasets)
    steps, losses = (np.array(values) for values in read_curves(folder)["loss"])
    head = (NETWORKS[training.without], training.seed, args.steps) + costs(MODEL, SCALE, training.without)
    return [Result(*head + (losses[steps > 0.9 * args.steps].mean(), row["dataset"], float(row["psnr"]),
                            float(row["ssim"]))) for row in read_csv(saved) if row["image"] == "mean"]


def ablation_table(results):
    """The table: a row for each network, with means over its seeds and, of several, the sample standard
    deviation of PSNR; below its PSNR / SSIM the difference to the first network's."""
    networks = collections.OrderedDict()
    for result in results:
        sets = networks.setdefault(result.network, collections.OrderedDict())
        sets.setdefault(result.dataset, []).append(result)
    first = next(iter(networks.values()))
    table = [["", "seeds", "parameters", "multi-adds", "training loss"] + list(first)]
    for name, sets in networks.items():
        seeds = next(iter(sets.values()))
        table.append([name, str(len(seeds)), "{:,}".format(seeds[0].parameters),
                      "%.2f G" % seeds[0].multi_adds_G, "%.5f" % np.mean([seed.loss for seed in seeds])])
        for dataset in first:
            scores, base = (np.array([(seed.psnr, seed.ssim) for seed in own[dataset]])
                            for own in (sets, first))
            spread = " \u00b1 %.3f" % scores.std(0, ddof=1)[0] if len(scores) > 1 else ""
            cell = "%.3f%s / %.4f" % (scores.mean(0)[0], spread, scores.mean(0)[1])
            if sets is not first:
                cell += "<br>%+.3f / %+.4f" % tuple(scores.mean(0) - base.mean(0))
            table[-1].append(cell)
    return markdown_table(table)


def main(argv=None):
    default = os.path.join("runs", "ablation")
    parser = table_parser(__doc__, default, "ablation.csv and README.md in figures")
    parser.add_argument("--data", metavar="DIR", help="photographs to train on")
    parser.add_argument("--steps", type=positive(int), default=12500, help="of each training (default 12500)")
    add_precision(parser)
    parser.add_argument("--runs", default=default, metavar="DIR", help="default " + default)
    args = parser.parse_args(argv)
    path, results = os.path.join(args.output, "ablation.csv"), []
    if not (args.data or args.redraw):
        parser.error("give photographs by --data, or --redraw")
    if not args.redraw:
        check_writable([args.runs, args.output])
        datasets = present(args.dataset, args.data_dir)
        for training in TRAININGS:
            results += train_and_evaluate(training, args, datasets)
        os.makedirs(args.output, exist_ok=True)
        RESULTS.write(path, results)
        print("wrote %s" % short_path(path))
    write_table(ablation_table(RESULTS.read(path)), "ablation", args.output)


if __name__ == "__main__":
    run_main(main)
