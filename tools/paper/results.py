"""Results as data: what the shipped weights reach, what the paper says, and where the tables of both are
written."""
import collections
import functools
import os

from model import count_multi_adds, count_parameters, drsan
from ops import tf
from tools import ROOT
from tools.command import UserError
from tools.files import file_digest, read_csv, short_path, to_csv, write_text
from utils import find_dataset

FIGURES = os.path.join(ROOT, "figures")
BEGIN, END = "<!-- %s:begin -->", "<!-- %s:end -->"  # lines around a table of that name in a Markdown file


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


def markdown_table(rows):
    """A Markdown table of rows of text, the first of which is its head."""
    rows = [list(row) for row in rows]
    lines = ["| " + " | ".join(row) + " |\n" for row in rows]
    return "".join(lines[:1] + ["|" + "---|" * len(rows[0]) + "\n"] + lines[1:])


def replace_block(text, table, name="results"):
    """`text` with `table` between the two marker lines of that name. Raises UserError if they are not there
    once, in this order."""
    first, last = BEGIN % name, END % name
    head, begin, rest = text.partition(first + "\n")
    old, end, tail = rest.partition(last + "\n")
    if not (begin and end) or first in old + tail or last in head + tail:
        raise UserError("there must be one line %s and below it one line %s" % (first, last))
    return head + begin + table + end + tail


def replace_in_file(path, table, name="results"):
    """Replace the block of that name in a text file; returns its path. Raises UserError."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    try:
        write_text(path, replace_block(text, table, name))
    except UserError as error:
        raise UserError("%s: %s" % (path, error))
    return path


def add_target(parser, default, words):
    """The options --output, a folder, and --update, which makes it that of the project's own tables and
    figures."""
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--output", default=default, metavar="DIR", help="default %s" % default)
    target.add_argument("--update", dest="output", action="store_const", const=FIGURES,
                        help="write the project's own: %s" % words)


def write_table(table, name, folder):
    """Write a table as <name>.md to a folder or, if it is the project's own, to its place in
    figures/README.md; prints where."""
    if folder == FIGURES:
        path = replace_in_file(os.path.join(FIGURES, "README.md"), table, name)
    else:
        path = os.path.join(folder, name + ".md")
        write_text(path, table)
    print("wrote %s" % short_path(path))
