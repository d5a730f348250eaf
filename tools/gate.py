"""Whether weights stay sane on hard pictures: python tools/gate.py --model 32s --scale x2

Upscales a hundred pictures that no photograph resembles, some of kinds that no training has (see
tools/data/textures.py), and holds the brightness of SR to that of LR over blocks of 12x12 LR pixels. Prints
the worst of each kind; exit status 1 if a picture fails.
"""
import argparse
import collections
import functools
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from tools.checkpoints import find_checkpoint
from tools.command import run_main
from tools.data.textures import TRAINED, UNSEEN
from tools.network import Network, choose_variant
from tools.options import add_checkpoint, add_gpu, add_limit
from utils import downscale, find_dataset, luma, read_image, to_uint8

import numpy as np

BLOCK = 12  # side in LR pixels
# grey levels of 256 that brightness may be off, on average and in any block
LARGEST_MEAN, LARGEST_BLOCK = 12, 70

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


def block_means(y):
    """The means of an image [H, W] over its blocks; [H / BLOCK, W / BLOCK]."""
    height, width = (side // BLOCK for side in y.shape)
    return y[:height * BLOCK, :width * BLOCK].reshape(height, BLOCK, width, BLOCK).mean((1, 3))


def deviation(sr, lr):
    """The Deviation of SR [s H, s W, 3], white being 1, from its LR, uint8 [H, W, 3]."""
    if not np.isfinite(sr).all():
        return Deviation(np.inf, np.inf)
    factor = sr.shape[0] // lr.shape[0]
    y = luma(to_uint8(255 * sr)).reshape(lr.shape[0], factor, lr.shape[1], factor).mean((1, 3))
    difference = np.abs(block_means(y) - block_means(luma(lr)))
    return Deviation(difference.mean(), difference.max())


def passes(picture):
    """Whether a picture of this Deviation is sane."""
    return picture.mean <= LARGEST_MEAN and picture.largest <= LARGEST_BLOCK


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
    return sum(not passes(picture) for kind in found.values() for picture in kind)


def main(argv=None):
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add_checkpoint(parser)
    add_limit(parser)
    add_gpu(parser, -1)
    args = parser.parse_args(argv)
    model, scale = choose_variant(args.model, args.scale, args.checkpoint)
    prefix = find_checkpoint(model, scale, args.checkpoint)
    with Network(model, scale, prefix, args.gpu, limit=not args.no_limit) as network:
        found = judge_network(network, hard_pictures())
    print("%-16s %8s %8s %12s %12s" % ("kind", "pictures", "failed", "mean", "largest"))
    for kind, pictures in found.items():
        print("%-16s %8d %8d %12.1f %12.1f" % (
            kind, len(pictures), failures({kind: pictures}), max(picture.mean for picture in pictures),
            max(picture.largest for picture in pictures)))
    print("DRSAN-%s %s: %d of %d pictures fail" % (
        model, scale, failures(found), sum(map(len, found.values()))))
    return 1 if failures(found) else 0


if __name__ == "__main__":
    run_main(main)
