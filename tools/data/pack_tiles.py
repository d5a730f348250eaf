"""Pack a folder of images for transport: python tools/data/pack_tiles.py data/photos runs/tiles

OUT, cleared of older parts, gets part-000.tar, part-001.tar, ...: the images as lossless WebP in random order, so that
each part is a fair sample of all. train_jax.py reads such parts, and plain image files beside them.
"""
import argparse
import concurrent.futures
import glob
import io
import os
import random
import sys
import tarfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from tools.command import UserError, cpu_count, run_main
from tools.files import check_writable, replacing
from tools.options import add_data_dir
from utils import find_dataset, list_images, read_image

from PIL import Image

BATCH = 64         # images that are encoded ahead
OVERHEAD = 12288   # bytes of a tar file besides its data: a member's header and padding, and the end


def encode(path, side):
    """The image file as lossless WebP bytes; with `side`, the centre of side x side pixels or less."""
    image = read_image(path)
    height, width = image.shape[:2]
    if side:
        top, left = max(0, height - side) // 2, max(0, width - side) // 2
        image = image[top:top + side, left:left + side]
    data = io.BytesIO()
    Image.fromarray(image).save(data, "WEBP", lossless=True, method=3, quality=50)
    return data.getvalue()


def write_part(path, files):
    """Write [(name, bytes)] as a tar file, without dates and owners: the same files give the same bytes."""
    with replacing(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as part:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            part.addfile(info, io.BytesIO(data))


def split_parts(files, limit):
    """Group (name, bytes) into lists whose tar files have at most `limit` bytes, or hold one file."""
    part, size = [], OVERHEAD
    for name, data in files:
        if part and size + len(data) + 1024 > limit:  # 1024: header and padding
            yield part
            part, size = [], OVERHEAD
        part.append((name, data))
        size += len(data) + 1024
    if part:
        yield part


def list_parts(folder):
    """The parts in a folder, in order."""
    return sorted(glob.glob(os.path.join(glob.escape(folder), "part-*.tar")))


def read_files(folder):
    """Yield (name, bytes) of all images in the parts of a folder, then of its image files. Raises UserError."""
    parts, images = list_parts(folder), list_images(folder)
    if not parts and not images:
        raise UserError("no part-000.tar and no image in %s: make parts by tools/data/pack_tiles.py" % folder)
    for path in parts:
        try:
            with tarfile.open(path) as part:
                for member in part:
                    yield "%s in %s" % (member.name, path), part.extractfile(member).read()
        except (OSError, tarfile.TarError) as error:
            raise UserError("cannot read %s: %s" % (path, error))
    for path in images:
        with open(path, "rb") as file:
            yield path, file.read()


def decode(name, data):
    """uint8 RGB [H, W, 3] of an image file's bytes. Raises UserError with the name."""
    return read_image(io.BytesIO(data), name)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", metavar="DIR", help="a folder of images, or the name of a data set: Sample, ...")
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--mebibytes", type=float, default=50, help="of a part at most")
    parser.add_argument("--parts", type=int, metavar="N", help="stop after N parts")
    parser.add_argument("--side", type=int, metavar="PIXELS", help="keep only the centre of each image, for validation")
    add_data_dir(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the order")
    args = parser.parse_args()
    check_writable([args.out])
    paths = [pair.hr for pair in find_dataset(args.source, 1, args.data_dir).pairs]
    paths = random.Random(args.seed).sample(paths, len(paths))
    os.makedirs(args.out, exist_ok=True)
    for old in list_parts(args.out):
        os.remove(old)

    def files(pool):
        for i in range(0, len(paths), BATCH):
            batch = paths[i:i + BATCH]
            for path, data in zip(batch, pool.map(lambda path: encode(path, args.side), batch)):
                yield os.path.splitext(os.path.basename(path))[0] + ".webp", data

    with concurrent.futures.ThreadPoolExecutor(cpu_count()) as pool:
        for number, part in enumerate(split_parts(files(pool), args.mebibytes * 2 ** 20)):
            if number == args.parts:
                break
            path = os.path.join(args.out, "part-%03d.tar" % number)
            write_part(path, part)
            print("%s: %d images, %.1f MiB" % (path, len(part), os.path.getsize(path) / 2 ** 20), flush=True)


if __name__ == "__main__":
    run_main(main)
