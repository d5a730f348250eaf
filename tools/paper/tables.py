"""The paper's results table with our own models beside: python tools/paper/tables.py

Evaluates every shipped checkpoint on every data set that is present, and keeps the means in our_table.csv;
from these and the published figures it writes results.md, results.tex and results.csv beside, to runs/tables
or, with --update, to figures; with that, the tables of README.md and checkpoints/README.md, too. --redraw
writes all from the means as they are.
"""
import collections
import itertools
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from model import SCALES
from tools import ROOT
from tools.checkpoints import SHIPPED, checkpoint_config, shipped_checkpoints
from tools.command import UserError, run_main
from tools.files import check_writable, file_digest, read_csv, short_path, to_csv, write_text
from tools.paper.results import (FIGURES, MEASURED, Measured, call_script, costs, digest, markdown_table,
                                 present, published_variants, read_published, replace_block, table_parser)
from tools.training.recipes import make_recipe
from utils import BENCHMARKS, DATASETS

import numpy as np

GROUPS = ((0.5, "under 0.5 M parameters"), (1, "0.5 to 1 M parameters"),
          (float("inf"), "1 M parameters and more"))
TITLE = """# Results

Written by `python tools/paper/tables.py`. PSNR / SSIM of Y; difference: ours less the paper's.

Published figures as printed in K. Park, J. W. Soh, N. I. Cho, IEEE TMM 25 (2023) 907-918; its x2 B100 PSNR of
A2F-SD and of FALSR-A look like misprints there. Multi-adds are for an HR image of 1280x720; ours count the
multiplications of the convolutions. The groups by parameters are ours.
"""

# source: published, paper (its own models), ours, or difference: ours less paper; of each of BENCHMARKS, as
# text, "PSNR / SSIM"
Line = collections.namedtuple(
    "Line", ("scale", "group", "method", "source", "parameters", "multi_adds") + BENCHMARKS)


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
    rows = {(row.scale, row.model, row.dataset): row for row in old + new}
    digests = {key: digest(prefix) for key, prefix in shipped.items()}
    keys = [key + (dataset,) for key in shipped for dataset in DATASETS]
    return [rows[key] for key in keys if key in rows and rows[key].weights == digests[key[:2]]]


# ------------------------------------------------------------------------------------------------------ lines

def group_of(params):
    """The group of a method by its parameters in millions."""
    return next(name for limit, name in GROUPS if params < limit)


def describe_costs(model, scale):
    """(parameters, multi-adds) of one of our models as text."""
    parameters, multi_adds = costs(model, scale)
    return "{:,}".format(parameters), "%.2f G" % multi_adds


def published_line(row, method, source):
    """The Line of a row of a published table."""
    cells = ["%s / %s" % (row[name + "_psnr"], row[name + "_ssim"]) if row[name + "_psnr"] else "-"
             for name in BENCHMARKS]
    multi_adds = row["multi_adds_G"] + " G" if row["multi_adds_G"] else "-"
    return Line(row["scale"], group_of(float(row["params_M"])), method, source, row["params_M"] + " M",
                multi_adds, *cells)


def our_lines(measured, paper):
    """The Lines of one of our models, and of its difference to the paper's.

    measured: {data set: (PSNR, SSIM)}, empty if it is not trained; paper: its row in the paper's table.
    """
    head = paper["scale"], group_of(float(paper["params_M"])), "DRSAN-" + paper["model"]
    if not measured:
        return [Line(*head + ("ours", "", "") + ("not trained",) * len(BENCHMARKS))]
    ours, difference = [], []
    for name in BENCHMARKS:
        scores, published = measured.get(name), (float(paper[name + "_psnr"]), float(paper[name + "_ssim"]))
        ours.append("%.2f / %.4f" % scores if scores else "not measured")
        difference.append("%+.2f / %+.4f" % tuple(np.subtract(scores, published)) if scores else "")
    return [Line(*head + ("ours",) + describe_costs(paper["model"], paper["scale"]) + tuple(ours)),
            Line(*head + ("difference", "", "") + tuple(difference))]


def build_lines(measured):
    """The whole table: for each scale bicubic (where measured), then all methods by their parameters, the
    paper's own models followed by ours and the difference."""
    ours, bicubic, lines = collections.defaultdict(dict), collections.defaultdict(dict), []
    for row in measured:
        ours[row.scale, row.model][row.dataset] = row.psnr, row.ssim
        bicubic[row.scale][row.dataset] = "%.2f / %.4f" % (row.bicubic_psnr, row.bicubic_ssim)
    paper, others = read_published()
    methods = sorted(others + paper, key=lambda row: float(row["params_M"]))
    for scale in SCALES:
        if bicubic[scale]:
            lines.append(Line(scale, "", "bicubic", "ours", "-", "-", *[
                bicubic[scale].get(name, "not measured") for name in BENCHMARKS]))
        for row in (row for row in methods if row["scale"] == scale):
            if row in paper:
                lines.append(published_line(row, "DRSAN-" + row["model"], "paper"))
                lines += our_lines(ours[scale, row["model"]], row)
            else:
                lines.append(published_line(row, row["model"], "published"))
    return lines


# ----------------------------------------------------------------------------------------------------- tables

def to_markdown(lines):
    """results.md: one table for each scale, a bold line above each group."""
    text = TITLE
    for scale, own in itertools.groupby(lines, lambda line: line.scale):
        rows = [("method", "source", "parameters", "multi-adds") + BENCHMARKS]
        for group, of_group in itertools.groupby(own, lambda line: line.group):
            if group:
                rows.append(("**%s**" % group,) + ("",) * (len(rows[0]) - 1))
            rows += [line[2:] for line in of_group]
        text += "\n## %s\n\n" % scale + markdown_table(rows)
    return text


def to_latex(lines):
    """results.tex: one tabular without packages, for \\input."""
    text = "% Written by python tools/paper/tables.py\n\\begin{tabular}{lllrrcccc}\n\\hline\n"
    text += " & ".join(("Scale", "Method", "Source", "Parameters", "Multi-adds") + BENCHMARKS) + " \\\\\n"
    for head, own in itertools.groupby(lines, lambda line: line[:2]):
        text += "\\hline\n\\multicolumn{9}{l}{%s} \\\\\n" % ", ".join(filter(None, head))
        for line in own:
            cells = " & ".join(line[6:])
            if line.source == "difference":
                cells = cells.replace("+", "$+$").replace("-", "$-$")
            text += " & ".join(line[:1] + line[2:6] + (cells,)) + " \\\\\n"
    return text + "\\hline\n\\end{tabular}\n"


def to_wide_csv(lines):
    """results.csv: as paper_table.csv, with the group and the source of each line; empty where there is no
    figure."""
    rows = [Line._fields[:6] + tuple(name + part for name in BENCHMARKS for part in ("_psnr", "_ssim"))]
    for line in lines:
        scores = [cell.split(" / ") if " / " in cell else ["", ""] for cell in line[6:]]
        rows.append(line[:4] + (line.parameters.replace(",", ""), line.multi_adds) + tuple(sum(scores, [])))
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
        rows.append((name, scale) + describe_costs(model, scale) + tuple(
            "%s (%s)" % (ours.get((model, scale, dataset), "-"), paper[dataset + "_psnr"])
            for dataset in BENCHMARKS))
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

def evaluate_shipped(args, shipped):
    """Run test.py for each shipped checkpoint, and yield the file of its figures. Raises UserError."""
    names = present(args.dataset, args.data_dir)
    with tempfile.TemporaryDirectory() as folder:
        saved = os.path.join(folder, "saved.csv")
        for (scale, model), prefix in shipped.items():
            if call_script("test.py", model, scale, args.gpu, "--checkpoint", prefix, "--csv", saved,
                           "--data-dir", args.data_dir, "--dataset", *names):
                raise UserError("test.py failed for DRSAN-%s %s: see above" % (model, scale))
            yield saved


def main(argv=None):
    parser = table_parser(__doc__, os.path.join("runs", "tables"),
                          "in figures, README.md and checkpoints/README.md")
    parser.add_argument(
        "--csv", nargs="+", metavar="FILE",
        help="take what test.py --csv saved for the shipped checkpoints, and evaluate nothing")
    parser.add_argument("--checkpoints", default=SHIPPED, metavar="DIR",
                        help="has <scale>/<model>/ (default: the project's)")
    args = parser.parse_args(argv)
    check_writable([args.output])
    os.makedirs(args.output, exist_ok=True)
    path = os.path.join(args.output, "our_table.csv")
    measured = MEASURED.read(path if os.path.exists(path) else os.path.join(FIGURES, "our_table.csv"))
    shipped, texts = shipped_checkpoints(args.checkpoints), {}
    if not args.redraw:
        if not shipped:
            raise UserError("no checkpoint in %s: expected <scale>/<model>" % args.checkpoints)
        for saved in args.csv or evaluate_shipped(args, shipped):
            measured = merge(measured, read_saved(saved, shipped), shipped)
            MEASURED.write(path, measured)  # each time: an interruption loses one checkpoint's figures
        measured = MEASURED.read(path)      # as rounded there, so that tables drawn later are the same
        print("wrote %s" % short_path(path))
    lines = build_lines(measured)
    for name, to_text in ("md", to_markdown), ("tex", to_latex), ("csv", to_wide_csv):
        texts[os.path.join(args.output, "results." + name)] = to_text(lines)
    if args.output == FIGURES:
        for readme, table in (os.path.join(ROOT, "README.md"), to_readme(measured)), (
                os.path.join(args.checkpoints, "README.md"), to_checkpoints(measured, shipped)):
            texts[readme] = replace_block(readme, table)
    for path, text in texts.items():
        write_text(path, text)
        print("wrote %s" % short_path(path))


if __name__ == "__main__":
    run_main(main)
