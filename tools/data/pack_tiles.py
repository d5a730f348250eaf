"""Pack a folder of images for transport: python tools/data/pack_tiles.py data/photos runs/tiles

OUT, cleared of older parts, gets part-000.tar, part-001.tar, ...: the images as WebP in random order, so that each part is a fair
sample of all, and held_out.json, the names of those that --valid-share leaves out. train_jax.py reads such parts, and plain image
files beside them.
"""
import argparse
import itertools
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from tools.command import positive, run_main
from tools.data.parts import choose_photographs, encode_all, list_parts, webp_quality, write_held_out, write_parts
from tools.files import check_writable
from tools.options import add_valid_share


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", metavar="DIR", help="a folder of photographs")
    parser.add_argument("out", metavar="OUT", help="folder that the parts go to")
    parser.add_argument("--mebibytes", type=positive(float), default=50, help="of a part at most")
    parser.add_argument("--parts", type=positive(int), metavar="N", help="stop after N parts")
    parser.add_argument("--quality", type=webp_quality, metavar="Q", help="lossy WebP, of 0 to 100 (default: lossless)")
    parser.add_argument("--side", type=positive(int), metavar="PIXELS", help="keep only the centre of each image, for validation")
    add_valid_share(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the order")
    args = parser.parse_args()
    check_writable([args.out])
    paths, held_out = choose_photographs(args.source, args.valid_share, args.seed)
    write_held_out(args.out, held_out)
    for old in list_parts(args.out):
        os.remove(old)
    numbers = range(args.parts) if args.parts else itertools.count()
    write_parts(encode_all(paths, args.side, args.quality), (os.path.join(args.out, "part-%03d.tar" % i) for i in numbers),
                args.mebibytes)


if __name__ == "__main__":
    run_main(main)
