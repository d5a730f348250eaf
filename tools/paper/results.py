"""Results as data: what the shipped weights reach, what the paper says, and where the tables of both are
written."""
import argparse
import collections
import functools
import os
import re
import subprocess
import sys

from model import count_multi_adds, count_parameters, drsan
from ops import tf
from tools import ROOT
from tools.command import UserError
from tools.files import file_digest, read_csv, short_path, to_csv, write_text
from tools.options import add_data_dir, add_gpu
from utils import DATASETS, find_dataset

FIGURES = os.path.join(ROOT, "figures")


class Table(object):
    """A kind of CSV file: `row` is the namedtuple of its rows, `formats` says how each field is written, as
    "%s %d %.4f"."""

    def __init__(self, row, formats):
        self.row, self.formats = row, formats.split()

    def read(self, path):
        """The rows of a file of write(), rounded as they are there. Raises UserError."""
        types = [{"s": str, "d": int, "f": float}[text[-1]] for text in self.formats]
        try:
            return [self.row(*[kind(line[field]) for kind, field in zip(types, self.row._fields)])
                    for line in read_csv(path)]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError("%s is not a table of this tool: %s" % (path, error))

    def write(self, path, rows):
        write_text(path, to_csv([self.row._fields] + [[text % value for text, value in zip(self.formats, row)]
                                                      for row in rows]))


# means over the images of a data set; weights: digest of the checkpoint that gave them
Measured = collections.namedtuple(
    "Measured", "scale model weights parameters multi_adds_G dataset images psnr ssim "
    "bicubic_psnr bicubic_ssim")
MEASURED = Table(Measured, "%s %s %s %d %.2f %s %d %.4f %.4f %.4f %.4f")


def digest(prefix):
    """The first 12 hexadecimal digits of the SHA-256 of a checkpoint's values."""
    return file_digest(prefix + ".data-00000-of-00001")[:12]


@functools.lru_cache(maxsize=None)
def costs(model, scale, without=None):
    """(parameters, multi-adds in 10^9 at 1280x720) of DRSAN, or of an ablation of it."""
    with tf.Graph().as_default():
        drsan(tf.placeholder(tf.float32, [1, None, None, 3]), model, scale, without)
        return count_parameters(), count_multi_adds(scale, 720, 1280) / 1e9


def present(names, data_dir):
    """Those data sets of `names` whose images are there; a line for each of the others. Raises UserError if
    none is."""
    found = []
    for name in names:
        try:
            find_dataset(name, 2, data_dir)
            found.append(name)
        except UserError as error:
            print("%s is left out: %s" % (name, error), flush=True)
    if not found:
        raise UserError("no data set of %s is present in %s" % (" ".join(names), data_dir))
    return found


def call_script(script, model, scale, gpu, *options):
    """Run train.py or test.py as a process; returns its exit status."""
    return subprocess.call([sys.executable, os.path.join(ROOT, script), "--model", model, "--scale", scale,
                            "--gpu", str(gpu)] + list(options))


def read_published():
    """(rows of the paper's own models, rows of the other methods), dicts of the text in the two published
    tables."""
    return [read_csv(os.path.join(FIGURES, name)) for name in ("paper_table.csv", "paper_table_others.csv")]


@functools.lru_cache(maxsize=1)
def published_variants():
    """{(model, scale): row} of the paper's 13, with rows as read_published() has them."""
    return collections.OrderedDict(((row["model"], row["scale"]), row) for row in read_published()[0])


def published_scores(model, scale, dataset):
    """The paper's (PSNR, SSIM) of a data set as text, or None."""
    row = published_variants().get((model, scale), {})
    return (row[dataset + "_psnr"], row[dataset + "_ssim"]) if dataset + "_psnr" in row else None


# ------------------------------------------------------------------------------------------------- Markdown

def markdown_table(rows):
    """A Markdown table of rows of text, the first of which is its head."""
    lines = ["| " + " | ".join(row) + " |\n" for row in rows]
    return "".join(lines[:1] + ["|" + "---|" * len(rows[0]) + "\n"] + lines[1:])


def replace_block(path, table, name="results"):
    """The text of a file, with `table` between the two lines that mark the block of that name. Raises
    UserError unless it is there once."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    begin, end = ("<!-- %s:%s -->\n" % (name, word) for word in ("begin", "end"))
    text, count = re.subn("(?s)" + begin + ".*?" + end, lambda _: begin + table + end, text)
    if count != 1:
        raise UserError("%s: there must be one line %s and below it one line %s" % (
            path, begin.strip(), end.strip()))
    return text


def write_table(table, name, folder):
    """Write a table as <name>.md to a folder or, if it is the project's own, to its place in
    figures/README.md; prints where."""
    path = os.path.join(folder, "README.md" if folder == FIGURES else name + ".md")
    write_text(path, replace_block(path, table, name) if folder == FIGURES else table)
    print("wrote %s" % short_path(path))


def table_parser(text, default, words):
    """The parser of a command with this docstring that evaluates networks and writes tables: to the folder
    `default`, or by --update the project's own, named in words."""
    parser = argparse.ArgumentParser(description=(text or "").split("\n")[0])
    add_gpu(parser)
    parser.add_argument("--dataset", nargs="+", default=DATASETS, metavar="NAME",
                        help="data sets, or folders of HR images (default: %s)" % " ".join(DATASETS))
    add_data_dir(parser)
    parser.add_argument("--redraw", action="store_true",
                        help="write the tables from the CSV file that is there, evaluate nothing")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--output", default=default, metavar="DIR", help="default %s" % default)
    target.add_argument("--update", dest="output", action="store_const", const=FIGURES,
                        help="write the project's own: %s" % words)
    return parser
