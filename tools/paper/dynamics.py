"""How dynamic the dynamic residual attention is: python tools/paper/dynamics.py

Asks a trained network three things on each data set that is present. How much do its DRA values vary, between the images of a set and
between windows of an image? What does it cost to fix them to their means over the set? And what, to have the DRM pool over windows
of the size of training patches in place of the whole image? Windows are the tiles of tools/pictures/tiles.py, so convolutions see
beyond them. Writes dynamics.csv, and from it a table.
"""
import argparse
import collections
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from model import SCALES
from tools.command import UserError, run_main
from tools.files import check_writable, read_csv, short_path, to_csv, write_text
from tools.network import choose_variant
from tools.options import add_checkpoint, add_data_dir, add_gpu
from tools.paper.attention import fetch, open_network, upscale
from tools.paper.results import FIGURES, digest, markdown_row, present, write_table
from tools.pictures.tiles import Upscaler, to_image
from utils import DATASETS, find_dataset, read_pair, score

import numpy as np
from tqdm import tqdm

WINDOWS = 32, 48  # LR pixels a side, at most: the patches of the recipes `fast` and `paper`
# weights: digest of the checkpoint. size, between, within_N: root mean squares over the paths of all DRAGs of the DRA values, of their
# standard deviations between images, and of those between the windows of an image. psnr, fixed, windows_N: PSNR of the network as it
# is, with DRA values fixed to their means over the set, and pooled over windows
Dynamics = collections.namedtuple(
    "Dynamics", "weights dataset images size between within_32 within_48 psnr fixed windows_32 windows_48")


class WindowUpscaler(Upscaler):
    """Upscales with DRA values that are pooled over each tile alone. values: those of the last image, [tiles, paths] of each DRAG."""

    def __call__(self, image):
        self.values = []
        return super(WindowUpscaler, self).__call__(image)

    def pool(self, sums, pixels):
        self.values.append(sums / pixels)
        return self.values[-1]


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def measure(network, dataset):
    """The Dynamics of a network of open_network() on a DataSet."""
    upscalers = [WindowUpscaler(network.session, network.lr, network.sr, network.model, network.scale, side) for side in WINDOWS]
    pairs = [read_pair(pair, network.factor) for pair in tqdm(dataset.pairs, "reading", leave=False, disable=None)]
    values, deviations, scores = [], [[] for _ in WINDOWS], [[] for _ in range(2 + len(WINDOWS))]

    def add_score(i, sr, hr):
        scores[i].append(score(sr, hr, network.factor)[0])

    for lr, hr in tqdm(pairs, dataset.name, unit="image", leave=False, disable=None):
        values.append(fetch(network, network.dra, lr[None]))
        add_score(0, upscale(network, lr), hr)
        for i, upscaler in enumerate(upscalers):
            add_score(2 + i, to_image(upscaler(lr)), hr)
            deviations[i].append(np.concatenate([one.std(0) for one in upscaler.values]))
    means = [np.mean(one, axis=0) for one in zip(*values)]
    for lr, hr in tqdm(pairs, dataset.name + ", fixed", unit="image", leave=False, disable=None):
        add_score(1, upscale(network, lr, means), hr)
    values = np.array([np.concatenate([one.ravel() for one in image]) for image in values])  # [images, paths of all DRAGs]
    return Dynamics(digest(network.prefix), dataset.name, len(pairs), rms(values), rms(values.std(0)), *(
        [rms(one) for one in deviations] + [float(np.mean(one)) for one in scores]))


def write_dynamics(path, rows):
    """Write a list of Dynamics; read_dynamics() gives it back, rounded."""
    write_text(path, to_csv([Dynamics._fields] + [row[:3] + tuple("%.5f" % value for value in row[3:]) for row in rows]))


def read_dynamics(path):
    """The list of Dynamics in a file of write_dynamics(). Raises UserError."""
    try:
        return [Dynamics(row["weights"], row["dataset"], int(row["images"]), *[float(row[name]) for name in Dynamics._fields[3:]])
                for row in read_csv(path)]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError("%s is not a table of this tool: %s" % (path, error))


def to_markdown(rows):
    """The table of a list of Dynamics, a row for each data set; PSNR of what is changed as the difference to the network as it is."""
    text = markdown_row(["", "images", "DRA values", "between images", "within, 32x32", "within, 48x48", "PSNR", "fixed to means",
                         "windows of 32x32", "windows of 48x48"])
    text += "|" + "---|" * 10 + "\n"
    for row in rows:
        changed = ["%+.3f" % (value - row.psnr) for value in (row.fixed, row.windows_32, row.windows_48)]
        shares = ["%.1f %%" % (100 * value / row.size) for value in (row.between, row.within_32, row.within_48)]
        text += markdown_row([row.dataset, str(row.images), "%.3f" % row.size] + shares + ["%.3f" % row.psnr] + changed)
    return text


def make_dynamics(args):
    """What the command does, once for the arguments; prints the files it wrote."""
    path = os.path.join(args.output, "dynamics.csv")
    if not args.redraw:
        check_writable([args.output])
        names = present(args.dataset, args.data_dir)
        if not names:
            raise UserError("no data set of %s is present in %s" % (" ".join(args.dataset), args.data_dir))
        model, scale = choose_variant(args.model, args.scale, args.checkpoint)
        network, rows = open_network(model, scale, args.checkpoint, args.gpu), []
        os.makedirs(args.output, exist_ok=True)
        for name in names:
            rows.append(measure(network, find_dataset(name, SCALES[scale], args.data_dir)))
            write_dynamics(path, rows)  # what is known stays if the next one is interrupted
            print("%s: PSNR %.3f, with fixed DRA values %.3f" % (name, rows[-1].psnr, rows[-1].fixed), flush=True)
        print("wrote %s" % short_path(path))
    write_table(to_markdown(read_dynamics(path)), "dynamics", args)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_checkpoint(parser)
    add_gpu(parser)
    parser.add_argument("--dataset", nargs="+", default=DATASETS, metavar="NAME",
                        help="data sets, or folders of HR images (default: %s)" % " ".join(DATASETS))
    add_data_dir(parser)
    parser.add_argument("--redraw", action="store_true", help="write the table from dynamics.csv, run no network")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--output", default=os.path.join("runs", "dynamics"), metavar="DIR",
                        help="where dynamics.csv and dynamics.md go (default runs/dynamics)")
    target.add_argument("--update", action="store_true", help="write the project's own: dynamics.csv and README.md in figures")
    args = parser.parse_args()
    args.output = FIGURES if args.update else args.output
    return args


if __name__ == "__main__":
    run_main(lambda: make_dynamics(parse_args()))
