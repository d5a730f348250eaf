"""Results as data: what the shipped weights reach, what the paper says, and tables within Markdown files."""
import collections
import functools
import os

from model import count_multi_adds, count_parameters, drsan
from ops import tf
from tools.command import UserError
from tools.files import ROOT, file_digest, read_csv, short_path, to_csv, write_text
from utils import find_dataset

FIGURES = os.path.join(ROOT, "figures")
BEGIN, END = "<!-- %s:begin -->", "<!-- %s:end -->"  # lines around a table of that name in a Markdown file
# means over the images of a data set; weights: digest of the checkpoint that gave them
Measured = collections.namedtuple(
    "Measured", "scale model weights parameters multi_adds_G dataset images psnr ssim bicubic_psnr bicubic_ssim")


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
    """Those data sets of `names` whose images are there; a line for each of the others."""
    found = []
    for name in names:
        try:
            find_dataset(name, 2, data_dir)
            found.append(name)
        except UserError as error:
            print("%s is left out: %s" % (name, error), flush=True)
    return found


def read_measured(path):
    """The Measured of a file of write_measured(), an empty list if there is none. Raises UserError."""
    if not os.path.exists(path):
        return []
    try:
        types = [str, str, str, int, float, str, int] + 4 * [float]
        return [Measured(*[kind(row[field]) for kind, field in zip(types, Measured._fields)]) for row in read_csv(path)]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError("%s is not a table of this tool: %s" % (path, error))


def write_measured(path, rows):
    """Write a list of Measured; read_measured() gives it back, rounded."""
    cells = [row._replace(multi_adds_G="%.2f" % row.multi_adds_G)[:7] + tuple("%.4f" % value for value in row[7:])
             for row in rows]
    write_text(path, to_csv([Measured._fields] + cells))


def read_published():
    """(rows of the paper's own models, rows of the other methods), dicts of the text in the two published tables."""
    return [read_csv(os.path.join(FIGURES, name)) for name in ("paper_table.csv", "paper_table_others.csv")]


@functools.lru_cache(maxsize=1)
def published_variants():
    """{(model, scale): row} of the paper's 13, with rows as read_published() has them."""
    return collections.OrderedDict(((row["model"], row["scale"]), row) for row in read_published()[0])


def published_scores(model, scale, dataset):
    """The paper's (PSNR, SSIM) of a data set as text, or None."""
    row = published_variants().get((model, scale), {})
    return (row[dataset + "_psnr"], row[dataset + "_ssim"]) if dataset + "_psnr" in row else None


def markdown_row(cells):
    return "| " + " | ".join(cells) + " |\n"


def replace_block(text, table, name="results"):
    """`text` with `table` between the two marker lines of that name. Raises UserError if they are not there once, in this
    order."""
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


def write_table(table, name, args):
    """Write a table as <name>.md to the folder args.output or, with args.update, to its place in figures/README.md; prints where."""
    if args.update:
        path = replace_in_file(os.path.join(FIGURES, "README.md"), table, name)
    else:
        path = os.path.join(args.output, name + ".md")
        write_text(path, table)
    print("wrote %s" % short_path(path))
