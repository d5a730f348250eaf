"""Parts: tar files of photographs as WebP, for transport, each a fair sample of all. Written, listed and read here.

What is trained on them is for ../gpu/tiles.py; pack_tiles.py writes them.
"""
import concurrent.futures
import glob
import io
import json
import os
import random
import tarfile

from tools.command import UserError, cpu_count
from tools.data.photographs import hold_out
from tools.files import replacing, write_json
from utils import list_images, read_image

from PIL import Image

HELD_OUT = "held_out.json"  # beside parts: the names of the photographs that they leave out
BATCH = 64         # images that are encoded ahead
OVERHEAD = 12288   # bytes of a tar file besides its data: a member's header and padding, and the end


def webp_quality(text):
    """The type of an option that takes the quality of WebP, of 0 to 100. Raises ValueError."""
    if not 0 <= int(text) <= 100:
        raise ValueError(text)
    return int(text)


def encode(path, side=None, quality=None):
    """The image file as WebP bytes, lossless or, with `quality`, of 0 to 100, lossy; with `side`, the centre of side x side pixels
    or less."""
    image = read_image(path)
    height, width = image.shape[:2]
    if side:
        top, left = max(0, height - side) // 2, max(0, width - side) // 2
        image = image[top:top + side, left:left + side]
    data = io.BytesIO()
    kind = dict(lossless=True, method=3, quality=50) if quality is None else dict(method=2, quality=quality)
    Image.fromarray(image).save(data, "WEBP", **kind)
    return data.getvalue()


def choose_photographs(folder, share, seed):
    """The image files below `folder` but for the share that is held out, in random order, and the names below it of those held
    out; `share` as of hold_out(). Raises UserError."""
    kept, held_out = hold_out(folder, share)
    return random.Random(seed).sample(kept, len(kept)), [os.path.relpath(path, folder) for path in held_out]


def write_held_out(folder, names):
    """Write down beside parts which photographs they leave out for validation."""
    os.makedirs(folder, exist_ok=True)
    write_json(os.path.join(folder, HELD_OUT), names)


def read_held_out(folder):
    """The names of the photographs that the parts in a folder leave out for validation; [] if that was not written down.
    Raises UserError if it cannot be read."""
    path = os.path.join(folder, HELD_OUT)
    if not os.path.exists(path):
        return []
    try:
        with open(path) as file:
            return list(json.load(file))
    except (OSError, ValueError, TypeError) as error:
        raise UserError("cannot read %s: %s: copy it anew" % (path, error))


def encode_all(paths, side=None, quality=None):
    """Yield (name, WebP bytes) of images in their order, encoded in threads, some ahead."""
    with concurrent.futures.ThreadPoolExecutor(cpu_count()) as pool:
        for i in range(0, len(paths), BATCH):
            batch = paths[i:i + BATCH]
            for path, data in zip(batch, pool.map(lambda path: encode(path, side, quality), batch)):
                yield os.path.splitext(os.path.basename(path))[0] + ".webp", data


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


def write_parts(files, paths, mebibytes):
    """Write (name, bytes) pairs to the paths, one after the other, in tar files of so many MiB at most, until either is used up;
    each is told in a line."""
    for path, part in zip(paths, split_parts(files, mebibytes * 2 ** 20)):
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        write_part(path, part)
        print("%s: %d images, %.1f MiB" % (path, len(part), os.path.getsize(path) / 2 ** 20), flush=True)


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
