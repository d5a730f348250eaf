"""How dynamic the dynamic residual attention is: python tools/paper/dynamics.py

Asks a trained network three things on each data set that is present. How much do its DRA values vary, between
the images of a set and between windows of an image? What does it cost to fix them to their means over the
set? And what, to have the DRM pool over windows of the size of training patches in place of the whole image?
Windows are the tiles of tools/pictures/tiles.py, so convolutions see beyond them. Writes dynamics.csv, and
from it a table.
"""
import collections
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from tools.command import run_main
from tools.files import check_writable, short_path
from tools.network import choose_variant
from tools.options import add_checkpoint
from tools.paper.attention import fetch, fetch_sr, open_network
from tools.paper.results import Table, digest, markdown_table, present, table_parser, write_table
from tools.pictures.tiles import Upscaler, to_image
from utils import find_dataset, read_pair, score

import numpy as np
from tqdm import tqdm

WINDOWS = 32, 48  # LR pixels a side, at most: the patches of the recipes `fast` and `paper`
# weights: digest of the checkpoint. size, between, within_N: root mean squares over the paths of all DRAGs of
# the DRA values, of their standard deviations between images, and of those between the windows of an image.
# psnr, fixed, windows_N: PSNR of the network as it is, with DRA values fixed to their means over the set, and
# pooled over windows
Dynamics = collections.namedtuple(
    "Dynamics", "weights dataset images size between within_32 within_48 psnr fixed windows_32 windows_48")
DYNAMICS = Table(Dynamics, "%s %s %d" + " %.5f" * 8)


class WindowUpscaler(Upscaler):
    """Upscales with DRA values that are pooled over each tile alone. values: those of the last image, [tiles,
    paths] of each DRAG."""

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
    upscalers = [WindowUpscaler(network, side) for side in WINDOWS]
    pairs = [read_pair(pair, network.factor) for pair in dataset.pairs]
    values, deviations, scores = [], [], []
    for lr, hr in tqdm(pairs, dataset.name, unit="image", leave=False, disable=None):
        values.append(fetch(network, network.dra, lr[None]))
        images = [fetch_sr(network, lr)] + [to_image(upscaler(lr)) for upscaler in upscalers]
        scores.append([score(sr, hr, network.factor)[0] for sr in images])
        deviations.append([np.concatenate([drag.std(0) for drag in upscaler.values])
                           for upscaler in upscalers])
    means = [np.mean(drag, axis=0) for drag in zip(*values)]
    fixed = [score(fetch_sr(network, lr, means), hr, network.factor)[0]
             for lr, hr in tqdm(pairs, dataset.name + ", fixed", unit="image", leave=False, disable=None)]
    # [images, paths]
    values = np.array([np.concatenate([drag.ravel() for drag in image]) for image in values])
    psnr, windows_32, windows_48 = np.mean(scores, axis=0)
    within_32, within_48 = map(rms, zip(*deviations))
    return Dynamics(digest(network.prefix), dataset.name, len(pairs), rms(values), rms(values.std(0)),
                    within_32, within_48, psnr, np.mean(fixed), windows_32, windows_48)


def dynamics_table(rows):
    """The table of a list of Dynamics, a row for each data set; PSNR of what is changed as the difference to
    the network as it is."""
    table = [["", "images", "DRA values", "between images", "within, 32x32", "within, 48x48", "PSNR",
              "fixed to means", "windows of 32x32", "windows of 48x48"]]
    for row in rows:
        shares = ["%.1f %%" % (100 * value / row.size)
                  for value in (row.between, row.within_32, row.within_48)]
        changes = ["%+.3f" % (value - row.psnr) for value in (row.fixed, row.windows_32, row.windows_48)]
        head = [row.dataset, str(row.images), "%.3f" % row.size]
        table.append(head + shares + ["%.3f" % row.psnr] + changes)
    return markdown_table(table)


def main(argv=None):
    parser = table_parser(__doc__, os.path.join("runs", "dynamics"), "dynamics.csv and README.md in figures")
    add_checkpoint(parser)
    args = parser.parse_args(argv)
    path, rows = os.path.join(args.output, "dynamics.csv"), []
    if not args.redraw:
        check_writable([args.output])
        names = present(args.dataset, args.data_dir)
        model, scale = choose_variant(args.model, args.scale, args.checkpoint)
        os.makedirs(args.output, exist_ok=True)
        with open_network(model, scale, args.checkpoint, args.gpu) as network:
            for name in names:
                rows.append(measure(network, find_dataset(name, network.factor, args.data_dir)))
                DYNAMICS.write(path, rows)  # what is known stays if the next one is interrupted
                print("%s: PSNR %.3f, with fixed DRA values %.3f" % (name, rows[-1].psnr, rows[-1].fixed),
                      flush=True)
        print("wrote %s" % short_path(path))
    write_table(dynamics_table(DYNAMICS.read(path)), "dynamics", args.output)


if __name__ == "__main__":
    run_main(main)
