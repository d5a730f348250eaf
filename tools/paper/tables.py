"""The paper's results table with our own models beside: python tools/paper/tables.py

Evaluates every shipped checkpoint on every data set that is present, and keeps the means in our_table.csv;
from these and the published figures it writes results.md, results.tex and results.csv beside, to runs/tables
or, with --update, to figures; with that, the tables of README.md and checkpoints/README.md, too. --redraw
writes all from the means as they are.
"""
import argparse
import collections
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from model import MODELS, SCALES
from tools import ROOT
from tools.checkpoints import checkpoint_config, shipped_checkpoints
from tools.command import UserError, run_main
from tools.files import check_writable, file_digest, read_csv, short_path, to_csv, write_text
from tools.options import add_data_dir, add_gpu
from tools.paper.results import (FIGURES, MEASURED, Measured, add_target, costs, digest, markdown_table,
                                 present, published_variants, read_published, replace_in_file)
from tools.training.recipes import make_recipe
from utils import BENCHMARKS, DATASETS

import numpy as np

GROUPS = ((0.5, "under 0.5 M parameters"), (1, "0.5 to 1 M parameters"), (float("inf"),
                                                                          "1 M parameters and more"))
TITLE = """# Results

Written by `python tools/paper/tables.py`. PSNR / SSIM of Y; difference: ours less the paper's.

Published figures as printed in K. Park, J. W. Soh, N. I. Cho, IEEE TMM 25 (2023) 907-918; its x2 B100 PSNR of
A2F-SD and of FALSR-A look like misprints there. Multi-adds are for an HR image of 1280x720; ours count the
multiplications of the convolutions. The groups by parameters are ours.
"""

# source: published, paper (its own models), ours, or difference: ours less paper
# cells: {data set: "PSNR / SSIM"}
Line = collections.namedtuple("Line", "scale group method source params multi_adds cells")


def measure(scale, model, prefix, names, args):
    """Evaluate a checkpoint by test.py on the data sets `names`: a list of Measured. Raises UserError."""
    with tempfile.TemporaryDirectory() as folder:
        saved = os.path.join(folder, "saved.csv")
        command = [sys.executable, os.path.join(ROOT, "test.py"), "--gpu", str(args.gpu), "--csv", saved,
                   "--model", model, "--scale", scale, "--checkpoint", prefix, "--data-dir", args.data_dir]
        if subprocess.call(command + ["--dataset"] + names):
            raise UserError("test.py failed for DRSAN-%s %s: see above" % (model, scale))
        return read_saved(saved, {(scale, model): prefix})


def read_saved(path, shipped):
    """The Measured of a file that `test.py --csv` wrote for shipped checkpoints. Raises UserError."""
    rows, images = [], collections.Counter()
    for row in read_csv(path):
        try:
            scale, model, dataset = key = row["scale"], row["model"], row["dataset"]
            if row["image"] != "mean":
                images[key] += 1
                continue
            if key[:2] not in shipped:
                raise UserError("%s: no checkpoint is shipped for its %s %s" % (path, model, scale))
            scores = tuple(float(row[field]) for field in Measured._fields[-4:])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError("%s is not a file of test.py --csv: %s" % (path, error))
        head = (scale, model, digest(shipped[scale, model])) + costs(model, scale)
        rows.append(Measured(*head + (dataset, images[key]) + scores))
    return rows


def merge(old, new, shipped):
    """`old` with `new` in place of rows of the same model, scale and data set, in the order of the tables;
    without rows that were measured with other weights than those shipped."""
    rows = collections.OrderedDict(((row.scale, row.model, row.dataset), row) for row in old + new)
    digests = {key: digest(prefix) for key, prefix in shipped.items()}
    orders = list(SCALES), list(MODELS), list(DATASETS)
    kept = [row for (scale, model, dataset), row in rows.items()
            if row.weights == digests.get((scale, model)) and dataset in DATASETS]
    return sorted(kept, key=lambda row: [order.index(row[field]) for order, field in zip(orders, (0, 1, 5))])


# ------------------------------------------------------------------------------------------------------ lines

def group_of(params):
    """The group of a method by its parameters in millions."""
    return next(name for limit, name in GROUPS if params < limit)


def published_line(row, method, source):
    """The Line of a row of a published table."""
    cells = {name: "%s / %s" % (row[name + "_psnr"], row[name + "_ssim"]) if row[name + "_psnr"] else "-"
             for name in BENCHMARKS}
    return Line(row["scale"], group_of(float(row["params_M"])), method, source, row["params_M"] + " M",
                row["multi_adds_G"] + " G" if row["multi_adds_G"] else "-", cells)


def our_lines(measured, paper):
    """The Lines of one of our models, and of its difference to the paper's.

    measured: {data set: (PSNR, SSIM)}, empty if it is not trained; paper: its row in the paper's table.
    """
    head = paper["scale"], group_of(float(paper["params_M"])), "DRSAN-" + paper["model"]
    ours, difference = {}, {}
    for name in BENCHMARKS:
        published, scores = (float(paper[name + "_psnr"]), float(paper[name + "_ssim"])), measured.get(name)
        ours[name] = "%.2f / %.4f" % scores if scores else "not measured" if measured else "not trained"
        difference[name] = "%+.2f / %+.4f" % tuple(np.subtract(scores, published)) if scores else ""
    if not measured:
        return [Line(*head + ("ours", "", "", ours))]
    parameters, multi_adds = costs(paper["model"], paper["scale"])
    return [Line(*head + ("ours", "{:,}".format(parameters), "%.2f G" % multi_adds, ours)),
            Line(*head + ("difference", "", "", difference))]


def build_lines(measured):
    """The whole table: for each scale bicubic (where measured), then all methods by their parameters, the
    paper's own models followed by ours and the difference."""
    ours, bicubic, lines = collections.defaultdict(dict), collections.defaultdict(dict), []
    for row in measured:
        ours[row.scale, row.model][row.dataset] = row.psnr, row.ssim
        bicubic[row.scale][row.dataset] = "%.2f / %.4f" % (row.bicubic_psnr, row.bicubic_ssim)
    for scale in SCALES:
        if bicubic[scale]:
            cells = {name: bicubic[scale].get(name, "not measured") for name in BENCHMARKS}
            lines.append(Line(scale, "", "bicubic", "ours", "-", "-", cells))
        paper, others = ([row for row in rows if row["scale"] == scale] for rows in read_published())
        blocks = [(row, [published_line(row, row["model"], "published")]) for row in others]
        blocks += [(row, [published_line(row, "DRSAN-" + row["model"], "paper")]
                    + our_lines(ours[scale, row["model"]], row)) for row in paper]
        for _, block in sorted(blocks, key=lambda pair: float(pair[0]["params_M"])):
            lines += block
    return lines


# ----------------------------------------------------------------------------------------------------- tables

def to_markdown(lines):
    """results.md: one table for each scale, a bold line above each group."""
    text = TITLE
    for scale in SCALES:
        rows, group = [("method", "source", "parameters", "multi-adds") + BENCHMARKS], ""
        for line in (line for line in lines if line.scale == scale):
            if line.group != group:
                rows.append(("**%s**" % line.group,) + ("",) * (len(rows[0]) - 1))
            group = line.group
            rows.append(line[2:6] + tuple(line.cells[name] for name in BENCHMARKS))
        text += "\n## %s\n\n" % scale + markdown_table(rows)
    return text


def to_latex(lines):
    """results.tex: one tabular without packages, for \\input."""
    last = None
    text = "% Written by python tools/paper/tables.py\n\\begin{tabular}{lllrrcccc}\n\\hline\n"
    text += " & ".join(("Scale", "Method", "Source", "Parameters", "Multi-adds") + BENCHMARKS) + " \\\\\n"
    for line in lines:
        if line[:2] != last:
            text += "\\hline\n\\multicolumn{9}{l}{%s} \\\\\n" % ", ".join(filter(None, line[:2]))
        last, cells = line[:2], " & ".join(line.cells[name] for name in BENCHMARKS)
        if line.source == "difference":
            cells = cells.replace("+", "$+$").replace("-", "$-$")
        text += " & ".join((line.scale,) + line[2:6] + (cells,)) + " \\\\\n"
    return text + "\\hline\n\\end{tabular}\n"


def to_wide_csv(lines):
    """results.csv: as paper_table.csv, with the group and the source of each line; empty where there is no
    figure."""
    rows = [Line._fields[:4] + ("parameters", "multi_adds")
            + tuple(name + part for name in BENCHMARKS for part in ("_psnr", "_ssim"))]
    for line in lines:
        scores = [line.cells[name].split(" / ") for name in BENCHMARKS]
        rows.append(line[:4] + (line.params.replace(",", ""), line.multi_adds)
                    + tuple(value for pair in scores for value in (pair if len(pair) == 2 else ("", ""))))
    return to_csv(rows)


def to_readme(measured):
    """The README's table: PSNR of each of the paper's models, the paper's own in brackets; a name leads to
    its weights."""
    rows = [("model", "scale", "parameters", "multi-adds") + BENCHMARKS]
    ours = {(row.model, row.scale, row.dataset): "%.2f" % row.psnr for row in measured}
    trained = {key[:2] for key in ours}
    for (model, scale), paper in published_variants().items():
        name = "DRSAN-" + model
        if (model, scale) in trained:
            name = "[%s](checkpoints/%s/%s)" % (name, scale, model)
        parameters, multi_adds = costs(model, scale)
        rows.append([name, scale, "{:,}".format(parameters), "%.2f G" % multi_adds])
        rows[-1] += ["%s (%s)" % (ours.get((model, scale, dataset), "-"), paper[dataset + "_psnr"])
                     for dataset in BENCHMARKS]
    return markdown_table(rows)


def describe_options(training):
    """The options of train.py that a training has beside `--recipe fast --precision bfloat16`, from its
    config, and the step of its weights if that is not the last. What a config does not name was 0 then."""
    usual = dict(make_recipe("fast", training["model"], training["scale"])._asdict(),
                 recipe="fast", precision="bfloat16", seed=0, valid_share=0)
    given = ["--%s=%s" % (key.replace("_", "-"), training.get(key, 0)) for key in usual
             if training.get(key, 0) != usual[key]]
    taken, steps = training["trained_steps"], training["steps"]
    return "`%s`" % " ".join(given) + (", weights of step {:,}".format(taken) if taken < steps else "")


def to_checkpoints(measured, shipped):
    """The tables of checkpoints/README.md: what the shipped weights reach, and the trainings that led to them
    in order."""
    scores = {(row.scale, row.model, row.dataset): "%.2f / %.4f" % (row.psnr, row.ssim) for row in measured}
    reached = [("checkpoint",) + DATASETS + ("SHA-256 of the values",)]
    trainings = [("model", "started from", "options", "hours, device")]
    for (scale, model), prefix in shipped.items():
        cells = [scores.get((scale, model, dataset), "-") for dataset in DATASETS]
        values = "`%s`" % file_digest(prefix + ".data-00000-of-00001")
        reached.append(["%s/%s" % (scale, model)] + cells + [values])
        config = checkpoint_config(prefix)
        for training in config.get("trained_before", []) + [config]:
            if "recipe" not in training:  # someone else's weights, named in the next row
                continue
            row = ("{scale}/{model}".format(**training), training["init_from"] or "-",
                   describe_options(training),
                   "%.2f, %s" % (training["trained_seconds"] / 3600, training["device"]))
            if row not in trainings:  # several may build on it
                trainings.append(row)
    return markdown_table(reached) + "\n" + markdown_table(trainings)


# ---------------------------------------------------------------------------------------------------- command

def make_tables(args):
    """What the command does, once for the arguments; prints the files it wrote."""
    check_writable([args.output])
    os.makedirs(args.output, exist_ok=True)
    path = os.path.join(args.output, "our_table.csv")
    known = path if os.path.exists(path) else os.path.join(FIGURES, "our_table.csv")
    measured, shipped = MEASURED.read(known), shipped_checkpoints(args.checkpoints)
    if not args.redraw:
        if not shipped:
            raise UserError("no checkpoint in %s: expected <scale>/<model>" % args.checkpoints)
        names = [] if args.csv else present(args.dataset, args.data_dir)
        found = (read_saved(saved, shipped) for saved in args.csv) if args.csv else (
            measure(scale, model, prefix, names, args) for (scale, model), prefix in shipped.items())
        for rows in found:
            measured = merge(measured, rows, shipped)
            MEASURED.write(path,
                           measured)  # each time, so that an interruption loses one checkpoint's figures
        measured = MEASURED.read(path)      # as rounded there, so that tables drawn later are the same
    written, lines = [path] * (not args.redraw), build_lines(measured)
    for name, to_text in ("md", to_markdown), ("tex", to_latex), ("csv", to_wide_csv):
        written.append(os.path.join(args.output, "results." + name))
        write_text(written[-1], to_text(lines))
    if args.output == FIGURES:
        written.append(replace_in_file(os.path.join(ROOT, "README.md"), to_readme(measured)))
        written.append(
            replace_in_file(os.path.join(args.checkpoints, "README.md"), to_checkpoints(measured, shipped)))
    for path in written:
        print("wrote %s" % short_path(path))


def main(argv=None):
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--csv", nargs="+", metavar="FILE",
        help="take what test.py --csv saved for the shipped checkpoints, and evaluate nothing")
    source.add_argument("--redraw", action="store_true",
                        help="write the tables from our_table.csv, evaluate nothing")
    add_gpu(parser)
    parser.add_argument("--dataset", nargs="+", default=DATASETS, choices=DATASETS, help="default: all")
    add_data_dir(parser)
    parser.add_argument("--checkpoints", default=os.path.join(ROOT, "checkpoints"), metavar="DIR",
                        help="has <scale>/<model>/ (default: the project's)")
    add_target(parser, os.path.join("runs", "tables"), "in figures, README.md and checkpoints/README.md")
    make_tables(parser.parse_args(argv))


if __name__ == "__main__":
    run_main(main)
