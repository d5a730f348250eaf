"""Measure the range of DRA values on photographs, beyond which ops.limit_dra() drops them

    python tools/dra_range.py CHECKPOINT --data FOLDER

measures it on photographs of a folder, best such as the weights were not trained on, and writes it into the
config.json beside the checkpoint. train.py does so by itself, on its validation photographs.
"""
import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from model import MODELS, SCALES, tensor_name
from tools.command import UserError, fraction, run_main
from tools.checkpoints import checkpoint_config, find_checkpoint, identify
from tools.data.photographs import hold_out, load_pair
from tools.files import short_path, write_json
from tools.network import Network

import numpy as np

# side in LR pixels; how many in all: DRA varies more on patches than on whole pictures
PATCH, PATCHES = 32, 1000
MARGIN = 1.0               # share of the range that it is widened by on both sides


def measure_dra(run, images):
    """For each DRAG [low, high], lists of a number for each residual path, as ops.limit_dra() takes them.

    run: function of LR images, uint8 [N, H, W, 3], to the DRA values of each DRAG, arrays [N, 1, 1, paths].
    images: LR of photographs, uint8 [H, W, 3]. The range is that of the images and of random patches of them,
    widened by MARGIN of it.
    """
    random, values = np.random.RandomState(0), []
    for image in images:
        sides = [min(PATCH, side) for side in image.shape[:2]]
        corners = [[random.randint(side - part + 1) for side, part in zip(image.shape, sides)]
                   for _ in range(-(-PATCHES // len(images)))]
        patches = np.stack([image[y:y + sides[0], x:x + sides[1]] for y, x in corners])
        values += [run(patches), run(image[None])]
    ranges = []
    for dra in (np.concatenate(drag)[:, 0, 0] for drag in zip(*values)):
        low, high = dra.min(0), dra.max(0)
        margin = MARGIN * (high - low)
        ranges.append([[float("%.5g" % value) for value in row] for row in (low - margin, high + margin)])
    return ranges


def measure_network(network, images):
    """As measure_dra(), of a Network that does not limit its DRA."""
    names = [tensor_name(k, "pooled") for k in range(1, MODELS[network.model].drags + 1)]
    return measure_dra(lambda batch: network.session.run(names, {network.lr: np.float32(batch) / 255}),
                       images)


def main(argv=None):
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="prefix, .index file or folder")
    parser.add_argument("--data", required=True, metavar="DIR", help="photographs, searched recursively")
    parser.add_argument("--share", type=fraction(float), default=0.03, metavar="S",
                        help="about this share of the photographs is used (default 0.03)")
    args = parser.parse_args(argv)
    prefix = find_checkpoint(None, None, args.checkpoint)
    model, scale = identify(prefix)
    pairs = (load_pair(path, SCALES[scale]) for path in hold_out(args.data, args.share)[1])
    images = [pair[0] for pair in pairs if not isinstance(pair, UserError)]
    with Network(model, scale, prefix, -1, limit=False) as network:
        ranges = measure_network(network, images)
    path = os.path.join(os.path.dirname(prefix), "config.json")
    write_json(path, dict(checkpoint_config(prefix), model=model, scale=scale, dra_ranges=ranges))
    print("%d photographs -> %s" % (len(images), short_path(path)))


if __name__ == "__main__":
    run_main(main)
