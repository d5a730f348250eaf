"""Whether weights stay sane on hard pictures: python tools/gate.py --model 32s --scale x2

Upscales a hundred pictures that no photograph resembles, some of kinds that no training has (see
tools/data/patches.py), and holds the brightness of SR to that of LR over blocks of 12x12 LR pixels. Prints
the worst of each kind; exit status 1 if a picture fails.

With --checkpoint PATH --measure FOLDER, the range of DRA, beyond which ops.limit_dra() drops it, is first
measured on photographs of the folder, best such as the weights were not trained on, and written into the
config.json beside the checkpoint. train.py does so by itself, on its validation photographs.
"""
import argparse
import collections
import functools
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from model import MODELS, SCALES, tensor_name
from tools.checkpoints import checkpoint_config, find_checkpoint
from tools.command import UserError, fraction, run_main
from tools.data.patches import TRAINED, UNSEEN
from tools.data.photographs import hold_out, load_pair
from tools.files import short_path, write_json
from tools.network import Network, choose_variant
from tools.options import add_checkpoint, add_gpu, add_limit
from utils import downscale, find_dataset, luma, read_image, to_uint8

import numpy as np

BLOCK = 12  # side in LR pixels
# grey levels of 256 that brightness may be off, on average and in any block
LARGEST_MEAN, LARGEST_BLOCK = 12, 70
# side in LR pixels; how many in all: DRA varies more on patches than on whole pictures
PATCH, PATCHES = 32, 1000
MARGIN = 1.0  # share of the range of DRA that it is widened by on both sides

# in grey levels, the mean and the largest difference of brightness of a picture; infinite if SR is not finite
Deviation = collections.namedtuple("Deviation", "mean largest")


@functools.lru_cache(maxsize=None)
def hard_pictures(count=100, side=96, seed=0):
    """[(kind, uint8 RGB [side, side, 3])] of every kind in turn, made of photographs of Sample, halved."""
    random = np.random.RandomState(seed)
    photographs = [downscale(image[:image.shape[0] // 2 * 2, :image.shape[1] // 2 * 2], 2) for image in (
        read_image(pair.hr) for pair in find_dataset("Sample", 2, None).pairs)]
    pictures = []
    for i in range(count):
        texture = (TRAINED + UNSEEN)[i % len(TRAINED + UNSEEN)]
        photograph = photographs[random.randint(len(photographs))]
        y, x = (random.randint(size - side + 1) for size in photograph.shape[:2])
        crop = np.ascontiguousarray(photograph[y:y + side, x:x + side])
        pictures.append((texture.__name__, texture(crop, random)))
    return pictures


def deviation(sr, lr):
    """The Deviation of SR [s H, s W, 3], white being 1, from its LR, uint8 [H, W, 3]."""
    if not np.isfinite(sr).all():
        return Deviation(np.inf, np.inf)
    means = []
    for y, side in (luma(to_uint8(255 * sr)), BLOCK * sr.shape[0] // lr.shape[0]), (luma(lr), BLOCK):
        height, width = (size // side for size in y.shape)
        means.append(y[:height * side, :width * side].reshape(height, side, width, side).mean((1, 3)))
    difference = np.abs(means[0] - means[1])
    return Deviation(difference.mean(), difference.max())


def judge(run, pictures):
    """{kind: [Deviation]} of run(picture, uint8 [1, H, W, 3]) -> SR [1, s H, s W, 3] on hard_pictures()."""
    found = collections.OrderedDict()
    for kind, picture in pictures:
        found.setdefault(kind, []).append(deviation(run(picture[None])[0], picture))
    return found


def judge_network(network, pictures):
    """As judge(), of a Network."""
    return judge(lambda picture: network.session.run(network.sr, {network.lr: np.float32(picture) / 255}),
                 pictures)


def failures(found):
    """How many pictures of judge() are not sane."""
    return sum(picture.mean > LARGEST_MEAN or picture.largest > LARGEST_BLOCK
               for pictures in found.values() for picture in pictures)


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


def write_ranges(prefix, model, scale, folder, share):
    """Write the range of DRA on about a share of the photographs below a folder beside a checkpoint."""
    pairs = (load_pair(path, SCALES[scale]) for path in hold_out(folder, share)[1])
    images = [pair[0] for pair in pairs if not isinstance(pair, UserError)]
    names = [tensor_name(k, "pooled") for k in range(1, MODELS[model].drags + 1)]
    with Network(model, scale, prefix, -1, limit=False) as network:
        ranges = measure_dra(
            lambda batch: network.session.run(names, {network.lr: np.float32(batch) / 255}), images)
    path = os.path.join(os.path.dirname(prefix), "config.json")
    write_json(path, dict(checkpoint_config(prefix), model=model, scale=scale, dra_ranges=ranges))
    print("%d photographs -> %s" % (len(images), short_path(path)))


def main(argv=None):
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add_checkpoint(parser)
    add_limit(parser)
    add_gpu(parser, -1)
    parser.add_argument("--measure", metavar="DIR", help="first measure the range of DRA on the photographs "
                        "below this folder, and write it beside --checkpoint")
    parser.add_argument("--share", type=fraction(float), default=0.03, metavar="S",
                        help="about this share of them is used (default 0.03)")
    args = parser.parse_args(argv)
    if args.measure and not args.checkpoint:
        parser.error("--measure needs --checkpoint")
    model, scale = choose_variant(args.model, args.scale, args.checkpoint)
    prefix = find_checkpoint(model, scale, args.checkpoint)
    if args.measure:
        write_ranges(prefix, model, scale, args.measure, args.share)
    with Network(model, scale, prefix, args.gpu, limit=not args.no_limit) as network:
        found = judge_network(network, hard_pictures())
    print("%-16s %8s %8s %12s %12s" % ("kind", "pictures", "failed", "mean", "largest"))
    for kind, pictures in found.items():
        means, largest = zip(*pictures)
        print("%-16s %8d %8d %12.1f %12.1f" % (
            kind, len(pictures), failures({kind: pictures}), max(means), max(largest)))
    failed = failures(found)
    print("DRSAN-%s %s: %d of %d pictures fail" % (model, scale, failed, sum(map(len, found.values()))))
    return 1 if failed else 0


if __name__ == "__main__":
    run_main(main)
