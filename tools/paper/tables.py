"""The paper's results table with our own models beside: python tools/paper/tables.py

Evaluates every shipped checkpoint on every data set that is present and keeps the means in figures/our_table.csv; from
these and the published figures it writes results.md, results.tex and results.csv beside, the table of the README, and those
of checkpoints/README.md.
"""
import argparse
import collections
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from model import MODELS, SCALES
from tools.checkpoints import checkpoint_config, shipped_checkpoints
from tools.command import UserError, run_main
from tools.files import ROOT, check_writable, file_digest, read_csv, short_path, to_csv, write_text
from tools.options import add_data_dir, add_gpu
from tools.paper.results import (FIGURES, Measured, costs, digest, markdown_row, present, published_variants,
                                 read_measured, read_published, replace_in_file, write_measured)
from utils import BENCHMARKS, DATASETS

GROUPS = ((0.5, "under 0.5 M parameters"), (1, "0.5 to 1 M parameters"), (float("inf"), "1 M parameters and more"))
NOTE = """Published figures as printed in K. Park, J. W. Soh, N. I. Cho, IEEE TMM 25 (2023) 907-918; its x2 B100 PSNR of
A2F-SD and of FALSR-A look like misprints there. Multi-adds are for an HR image of 1280x720; ours count the
multiplications of the convolutions. The groups by parameters are ours."""

# source: published, paper (its own models), ours, difference (ours less paper); cells: {data set: "PSNR / SSIM"}
Line = collections.namedtuple("Line", "scale group method source params multi_adds cells")


def describe(scale, model, prefix):
    """(scale, model, weights, parameters, multi_adds_G) of a checkpoint, the first fields of Measured."""
    return (scale, model, digest(prefix)) + costs(model, scale)


def measure(scale, model, prefix, args):
    """Evaluate a checkpoint by test.py on the data sets of args.dataset that are present: a list of Measured.

    Raises UserError if there is none, or an image fails.
    """
    names = present(args.dataset, args.data_dir)
    if not names:
        raise UserError("no data set is present in %s" % args.data_dir)
    with tempfile.TemporaryDirectory() as folder:
        saved = os.path.join(folder, "saved.csv")
        command = [sys.executable, os.path.join(ROOT, "test.py"), "--model", model, "--scale", scale, "--csv", saved]
        command += ["--checkpoint", prefix, "--gpu", str(args.gpu), "--data-dir", args.data_dir, "--dataset"] + names
        if subprocess.call(command):
            raise UserError("test.py failed for DRSAN-%s %s: see above" % (model, scale))
        return read_saved([saved], {(scale, model): prefix})


def read_saved(paths, shipped):
    """Measured from files that `test.py --csv` wrote for the shipped checkpoints. Raises UserError."""
    rows, heads = [], {}
    for path in paths:
        images = collections.Counter()
        for row in read_csv(path):
            try:
                key = row["scale"], row["model"]
                if row["image"] != "mean":
                    images[key + (row["dataset"],)] += 1
                    continue
                if key not in shipped:
                    raise UserError("%s: no checkpoint is shipped for its %s %s" % (path, key[1], key[0]))
                heads[key] = heads.get(key) or describe(*key + (shipped[key],))
                scores = [float(row[field]) for field in Measured._fields[-4:]]
            except (KeyError, TypeError, ValueError) as error:
                raise UserError("%s is not a file of test.py --csv: %s" % (path, error))
            rows.append(Measured(*heads[key] + (row["dataset"], images[key + (row["dataset"],)]) + tuple(scores)))
    return rows


def merge(old, new, shipped):
    """`old` with `new` in place of rows of the same model, scale and data set, in the order of the tables; without rows
    that were measured with other weights than those shipped."""
    rows = collections.OrderedDict(((row.scale, row.model, row.dataset), row) for row in old + new)
    digests = {key: digest(prefix) for key, prefix in shipped.items()}
    kept = [row for row in rows.values()
            if row.weights == digests.get((row.scale, row.model)) and row.dataset in DATASETS]
    orders = list(SCALES), list(MODELS), list(DATASETS)
    return sorted(kept, key=lambda row: [order.index(row[field]) for order, field in zip(orders, (0, 1, 5))])


# ---------------------------------------------------------------------------------------------------------- lines

def group_of(params):
    """The group of a method by its parameters in millions."""
    return next(name for limit, name in GROUPS if params < limit)


def published_line(row, method, source):
    """The Line of a row of a published table."""
    cells = {name: "%s / %s" % (row[name + "_psnr"], row[name + "_ssim"]) if row[name + "_psnr"] else "-"
             for name in BENCHMARKS}
    return Line(row["scale"], group_of(float(row["params_M"])), method, source, row["params_M"] + " M",
                row["multi_adds_G"] + " G" if row["multi_adds_G"] else "-", cells)


def our_lines(scale, model, measured, paper):
    """The Lines of our model: its figures and, where it is trained and published, their difference to the paper's.

    measured: {data set: Measured}, empty if it is not trained; paper: its row in the paper's table, or None.
    """
    method = "DRSAN-" + model
    if not measured:
        return [Line(scale, group_of(float(paper["params_M"])), method, "ours", "", "",
                     {name: "not trained" for name in DATASETS})]
    one = next(iter(measured.values()))
    cells = {name: "%.2f / %.4f" % (measured[name].psnr, measured[name].ssim) if name in measured else "not measured"
             for name in DATASETS}
    group = group_of(float(paper["params_M"]) if paper else one.parameters / 1e6)
    lines = [Line(scale, group, method, "ours", "{:,}".format(one.parameters), "%.2f G" % one.multi_adds_G, cells)]
    if paper:
        cells = {name: "%+.2f / %+.4f" % (measured[name].psnr - float(paper[name + "_psnr"]),
                                          measured[name].ssim - float(paper[name + "_ssim"]))
                 if name in measured and name in BENCHMARKS else "" for name in DATASETS}
        lines.append(Line(scale, group, method, "difference", "", "", cells))
    return lines


def build_lines(measured):
    """The whole table: for each scale bicubic (where measured), then all methods by their parameters, the paper's own
    models followed by ours and the difference."""
    paper, others = read_published()
    ours = collections.OrderedDict()
    for row in measured:
        ours.setdefault((row.scale, row.model), collections.OrderedDict())[row.dataset] = row
    lines = []
    for scale in SCALES:
        bicubic = {row.dataset: "%.2f / %.4f" % (row.bicubic_psnr, row.bicubic_ssim)
                   for row in measured if row.scale == scale}
        if bicubic:
            lines.append(Line(scale, "", "bicubic", "ours", "-", "-",
                              {name: bicubic.get(name, "not measured") for name in DATASETS}))
        blocks = [(float(row["params_M"]), [published_line(row, row["model"], "published")])
                  for row in others if row["scale"] == scale]
        published = {row["model"]: row for row in paper if row["scale"] == scale}
        for model in MODELS:
            rows, row = ours.get((scale, model), {}), published.get(model)
            if row:
                block = [published_line(row, "DRSAN-" + model, "paper")] + our_lines(scale, model, rows, row)
                blocks.append((float(row["params_M"]), block))
            elif rows:
                blocks.append((next(iter(rows.values())).parameters / 1e6, our_lines(scale, model, rows, None)))
        for _, block in sorted(blocks, key=lambda pair: pair[0]):
            lines += block
    return lines


# ---------------------------------------------------------------------------------------------------------- tables


def to_markdown(lines):
    """results.md: one table for each scale, a bold line above each group."""
    text = "# Results\n\nWritten by `python tools/paper/tables.py`. PSNR / SSIM of Y; difference: ours less the paper's.\n"
    text += "\n%s\n" % NOTE
    head = ("method", "source", "parameters", "multi-adds") + BENCHMARKS
    for scale in SCALES:
        text += "\n## %s\n\n" % scale + markdown_row(head) + "|" + "---|" * len(head) + "\n"
        group = ""
        for line in (line for line in lines if line.scale == scale):
            if line.group != group:
                text += markdown_row(["**%s**" % line.group] + [""] * (len(head) - 1))
            group = line.group
            text += markdown_row((line.method, line.source, line.params, line.multi_adds)
                                 + tuple(line.cells[name] for name in BENCHMARKS))
    return text


def to_latex(lines):
    """results.tex: one tabular without packages, for \\input."""
    head = ("Scale", "Method", "Source", "Parameters", "Multi-adds") + BENCHMARKS
    text = "% Written by python tools/paper/tables.py\n\\begin{tabular}{lllrrcccc}\n\\hline\n" + " & ".join(head) + " \\\\\n"
    last = None
    for line in lines:
        if (line.scale, line.group) != last:
            text += "\\hline\n\\multicolumn{9}{l}{%s%s} \\\\\n" % (line.scale, ", " + line.group if line.group else "")
        last = line.scale, line.group
        cells = tuple(line.cells[name] for name in BENCHMARKS)
        if line.source == "difference":
            cells = tuple(cell.replace("+", "$+$").replace("-", "$-$") for cell in cells)
        head = line.scale, line.method, line.source, line.params, line.multi_adds
        text += " & ".join(head + cells) + " \\\\\n"
    return text + "\\hline\n\\end{tabular}\n"


def to_wide_csv(lines):
    """results.csv: as paper_table.csv, with the group and the source of each line; empty where there is no figure."""
    rows = [["scale", "group", "method", "source", "parameters", "multi_adds"]
            + [name + part for name in BENCHMARKS for part in ("_psnr", "_ssim")]]
    for line in lines:
        cells = [line.cells[name].split(" / ") for name in BENCHMARKS]
        rows.append(list(line[:4]) + [line.params.replace(",", ""), line.multi_adds]
                    + [value for cell in cells for value in (cell if len(cell) == 2 else ("", ""))])
    return to_csv(rows)


def to_readme(measured):
    """The README's table: PSNR of each of the paper's models, the paper's own in brackets; a name leads to weights, if any."""
    text = markdown_row(("model", "scale", "parameters", "multi-adds") + BENCHMARKS) + "|" + "---|" * (4 + len(BENCHMARKS)) + "\n"
    ours = {(row.model, row.scale, row.dataset): row.psnr for row in measured}
    for (model, scale), paper in published_variants().items():
        name = "DRSAN-" + model
        if any((model, scale) == key[:2] for key in ours):
            name = "[%s](checkpoints/%s/%s)" % (name, scale, model)
        cells = ["%s (%s)" % ("%.2f" % ours[key] if key in ours else "-", paper[key[2] + "_psnr"])
                 for key in ((model, scale, dataset) for dataset in BENCHMARKS)]
        parameters, multi_adds = costs(model, scale)
        text += markdown_row([name, scale, "{:,}".format(parameters), "%.2f G" % multi_adds] + cells)
    return text


def to_checkpoints(measured, shipped):
    """The tables of checkpoints/README.md: what the shipped weights reach, and the trainings that led to them in order."""
    scores = {(row.scale, row.model, row.dataset): "%.2f / %.4f" % (row.psnr, row.ssim) for row in measured}
    figures = markdown_row(("checkpoint",) + DATASETS + ("SHA-256 of the values",))
    figures += "|" + "---|" * (2 + len(DATASETS)) + "\n"
    head = markdown_row(("model", "recipe", "started from", "steps", "hours", "images", "framework", "device"))
    trainings = collections.OrderedDict.fromkeys([head + "|" + "---|" * 8 + "\n"])  # each once, though several may build on it
    for (scale, model), prefix in shipped.items():
        name, config = "%s/%s" % (scale, model), checkpoint_config(prefix)
        cells = [scores.get((scale, model, dataset), "-") for dataset in DATASETS]
        figures += markdown_row([name] + cells + ["`%s`" % file_digest(prefix + ".data-00000-of-00001")])
        for one in config.get("trained_before", []) + [config]:
            if "recipe" not in one:  # someone else's weights, named in the next row
                continue
            recipe = "%s: %s, rate %g, %s, batch %d, patch %d, best of %d, EMA %g, %s" % tuple(one[key] for key in (
                "recipe", "optimizer", "rate", "schedule", "batch", "patch", "candidates", "ema", "precision"))
            if one.get("decay"):
                recipe += ", decay %g" % one["decay"]
            steps = "{:,} of {:,}".format(one["trained_steps"], one["steps"])
            trainings[markdown_row([
                "%s/%s" % (one["scale"], one["model"]), recipe, one["init_from"] or "-", steps,
                "%.2f" % (one["trained_seconds"] / 3600), "{:,}".format(one["data"]["files"]), one["framework"], one["device"]])] = None
    return figures + "\n" + "".join(trainings)


def write_tables(measured, folder, readme):
    """Write results.md, .tex and .csv to `folder`, and the block of `readme` (a path or None); returns the paths."""
    lines, paths = build_lines(measured), []
    for name, text in ("md", to_markdown(lines)), ("tex", to_latex(lines)), ("csv", to_wide_csv(lines)):
        paths.append(os.path.join(folder, "results." + name))
        write_text(paths[-1], text)
    return paths + ([replace_in_file(readme, to_readme(measured))] if readme else [])


def make_tables(args):
    """What the command does, once for the arguments; prints the files it wrote."""
    check_writable([args.output], [args.readme])
    os.makedirs(args.output, exist_ok=True)
    path = os.path.join(args.output, "our_table.csv")
    known = path if os.path.exists(path) else os.path.join(FIGURES, "our_table.csv")
    measured, shipped = read_measured(known), shipped_checkpoints(args.checkpoints)
    if not args.redraw:
        if not shipped:
            raise UserError("no checkpoint in %s: expected %s" % (args.checkpoints, os.path.join("<scale>", "<model>")))
        if args.csv:
            measured = merge(measured, read_saved(args.csv, shipped), shipped)
            write_measured(path, measured)
        for (scale, model), prefix in () if args.csv else shipped.items():
            measured = merge(measured, measure(scale, model, prefix, args), shipped)
            write_measured(path, measured)  # after each, so that an interruption loses one checkpoint's figures
        measured = read_measured(path)      # as rounded there, so that tables drawn later are the same
    elif not measured:
        raise UserError("nothing to draw: there is no %s; leave out --redraw to measure it" % known)
    paths = [path] * (not args.redraw) + write_tables(measured, args.output, args.readme)
    overview = os.path.join(args.checkpoints, "README.md")
    if args.overview and os.path.exists(overview):
        paths.append(replace_in_file(overview, to_checkpoints(measured, shipped)))
    for written in paths:
        print("wrote %s" % short_path(written))


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--csv", nargs="+", metavar="FILE",
                        help="take what test.py --csv saved for the shipped checkpoints, and evaluate nothing")
    source.add_argument("--redraw", action="store_true", help="write the tables from our_table.csv, evaluate nothing")
    add_gpu(parser)
    parser.add_argument("--dataset", nargs="+", default=DATASETS, choices=DATASETS, help="default: all")
    add_data_dir(parser)
    parser.add_argument("--checkpoints", metavar="DIR", help="has <scale>/<model>/; the tables of its README.md are written, too "
                        "(default: the project's, whose README.md is left alone without --update)")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--output", default=os.path.join("runs", "tables"), metavar="DIR", help="default runs/tables")
    target.add_argument("--update", action="store_true",
                        help="write the project's own tables, in figures, README.md and checkpoints/README.md")
    parser.add_argument("--readme", metavar="FILE", help="write the short table between its markers, too")
    args = parser.parse_args()
    args.overview = args.update or args.checkpoints is not None
    if args.update:
        args.output, args.readme = FIGURES, args.readme or os.path.join(ROOT, "README.md")
    args.checkpoints = args.checkpoints or os.path.join(ROOT, "checkpoints")
    return args


if __name__ == "__main__":
    run_main(lambda: make_tables(parse_args()))
