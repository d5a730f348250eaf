"""Upscale damaged picture files: python tests/fuzz_images.py [--count 2000]

Files of eight formats are changed at random, by a seed, and go the way of test.py --input, with a network
that repeats pixels. Each must become an SR image of the right size or an error of one line, within ten
seconds. Prints a line for each format; the exit status is 1 if a file did neither, or hangs or crashes.
"""
import argparse
import faulthandler
import io
import os
import struct
import sys
import tempfile
import time
import warnings
import zlib

import numpy as np
import skimage.data
import tifffile
from PIL import Image

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from tools.command import UserError
from tools.pictures import tiles
from tools.pictures.formats import write_deep_png
from tools.pictures.upscale import upscale_file

LIMIT = 10  # seconds for a file
MODES = {  # format: modes, options of writing
    "png": (["RGB", "L", "P", "RGBA", "LA", "1"], [{}, {"optimize": True}]),
    "jpeg": (["RGB", "L", "CMYK"], [{}, {"progressive": True}]),
    "tiff": (["RGB", "L", "CMYK", "RGBA"], [{}, {"compression": "tiff_lzw"}]),
    "webp": (["RGB", "RGBA"], [{}, {"lossless": True}]),
    "gif": (["P", "L"], [{}]),
    "psd": (["RGB"], [{}]),
    "bmp": (["RGB", "L", "P", "1"], [{}]),
    "avif": (["RGB", "RGBA"], [{}]),
}


class Repeat:
    """In place of an Upscaler: every pixel becomes 2x2."""
    factor = 2

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __call__(self, image):
        sr = tiles.Store((2 * image.shape[0], 2 * image.shape[1], 3))
        sr.array()[...] = tiles.network_input(image)[0].repeat(2, axis=0).repeat(2, axis=1)
        return sr


def psd(rgb, layers=0):
    """The bytes of a PSD file whose merged picture is this uint8 RGB [H, W, 3], and whose layers are as large
    and gray: header, no color data and resources, layers, and the merged picture in planes."""
    height, width = rgb.shape[:2]
    records = channels = b""
    for i in range(layers):
        plane = b"\0\0" + bytes(bytearray([i])) * (height * width)
        records += struct.pack(">iiiiH", 0, 0, height, width, 3)
        records += b"".join(struct.pack(">HI", channel, len(plane)) for channel in range(3))
        records += b"8BIMnorm\xff\0\0\0" + struct.pack(">I", 12) + b"\0" * 8 + b"\1a\0\0"
        channels += 3 * plane
    info = struct.pack(">h", layers) + records + channels if layers else b""
    section = struct.pack(">I", len(info)) + info + b"\0" * 4 if layers else b""
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, height, width, 8, 3)
    pixels = rgb.transpose(2, 0, 1).tobytes()
    return header + b"\0" * 8 + struct.pack(">I", len(section)) + section + b"\0\0" + pixels


def originals(name):
    """Small sound files of a format, as bytes; none if Pillow does not write it."""
    photograph = Image.fromarray(skimage.data.astronaut()[40:52, 180:196])
    Image.init()
    if name == "avif" and "AVIF" not in Image.SAVE:
        return []
    files = []
    for mode in MODES[name][0] if name != "psd" else ():
        for options in MODES[name][1]:
            file, exif = io.BytesIO(), Image.Exif()
            exif[274], exif[315] = 6, "A"
            exif = {"exif": exif if name == "tiff" else exif.tobytes()} if name not in ("gif", "bmp") else {}
            photograph.convert(mode).save(file, format=name, **dict(exif, **options))
            files.append(file.getvalue())
    rgb = np.asarray(photograph)
    if name == "psd":
        files += [psd(rgb), psd(rgb, 2)]
    if name in ("gif", "webp", "png"):
        frames = [photograph, photograph.transpose(Image.FLIP_TOP_BOTTOM)]
        file = io.BytesIO()
        frames[0].save(file, format=name, save_all=True, append_images=frames[1:], duration=50)
        files.append(file.getvalue())
    if name == "tiff":
        for array, photometric in ((rgb.astype(np.uint16) * 257, "rgb"),
                                   (rgb[:, :, 0].astype(np.uint16), "miniswhite"),
                                   (rgb[:, :, 0] / np.float32(255), "minisblack")):
            file = io.BytesIO()
            tifffile.imwrite(file, array, photometric=photometric)
            files.append(file.getvalue())
    if name == "png":
        file = io.BytesIO()
        write_deep_png(file, rgb.astype(np.uint16) * 257, None, None, (72, 72))
        files.append(file.getvalue())
    return files


def mutate(content, random):
    """Change, remove, insert or repeat some bytes of a file."""
    content = bytearray(content)
    for _ in range(random.randint(1, 6)):
        if len(content) < 2:
            break
        start = random.randint(0, len(content) if random.rand() < 0.5 else min(len(content), 80))
        stop = start + random.randint(1, 9)
        kind = random.randint(5)
        if kind == 0:
            content[start:stop] = bytearray(random.randint(0, 256, stop - start).tolist())
        elif kind == 1:
            content[start] ^= 1 << random.randint(8)
        elif kind == 2:
            del content[start:stop]
        elif kind == 3:
            content[start:start] = content[start:stop]
        elif random.rand() < 0.3 and start > 8:
            del content[start:]
    return bytes(content)


def with_checksums(content):
    """A PNG file whose chunks have the right checksums, so that what is in them is looked at."""
    start, content = 8, bytearray(content)
    while start + 12 <= len(content):
        stop = start + 8 + struct.unpack(">I", content[start:start + 4])[0]
        if stop + 4 > len(content):
            break
        content[stop:stop + 4] = struct.pack(">I", zlib.crc32(bytes(content[start + 4:stop])) & 0xffffffff)
        start = stop + 4
    return bytes(content)


def attempt(path, output, frames):
    """Upscale a file: "written", "refused", or what is wrong, in words."""
    args = argparse.Namespace(format="png", quality=None, overwrite=False, skip_existing=False, frames=frames,
                              strip=False, max_megapixels=0.1)
    try:
        (height, width), _, _ = upscale_file(Repeat(), path, output, args)
    except UserError as error:
        named = path in str(error) and "\n" not in str(error)
        return "refused" if named else "a message of more lines or without a name: %r" % error
    except Exception as error:
        return "%s: %s" % (type(error).__name__, error)
    with Image.open(output) as image:
        right = image.size == (2 * width, 2 * height)
    os.remove(output)
    return "written" if right else "an SR image of %dx%d pixels" % image.size


def try_files(name, count, seed):
    """Outcomes of the first mutations of a format: [(number, outcome of attempt(), seconds)]."""
    warnings.simplefilter("ignore")
    sources, outcomes = originals(name), []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(count) if sources else ():
            random = np.random.RandomState([seed, sum(map(ord, name)), i])
            path, before = os.path.join(folder, "a." + name), time.time()
            content = mutate(sources[i % len(sources)], random)
            with open(path, "wb") as file:
                file.write(with_checksums(content) if name == "png" and random.randint(4) else content)
            faulthandler.dump_traceback_later(LIMIT, exit=True)
            frames = i % 3 == 0
            suffix = {"gif": "gif", "webp": "webp"}.get(name, "png") if frames else "png"
            outcomes.append((i, attempt(path, os.path.join(folder, "sr." + suffix), frames),
                             time.time() - before))
            faulthandler.cancel_dump_traceback_later()
    return outcomes


def campaign(count, seed):
    """{format: outcomes of try_files()} of `count` files in all."""
    return {name: try_files(name, -(-count // len(MODES)), seed) for name in MODES}


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=2000, help="files in all (default 2000)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    faulthandler.enable()
    failures = 0
    for name, outcomes in campaign(args.count, args.seed).items():
        wrong = [outcome for outcome in outcomes if outcome[1] not in ("written", "refused")]
        counts = [sum(outcome[1] == word for outcome in outcomes) for word in ("written", "refused")]
        print("%-5s %5d files: %4d written, %4d refused, %d wrong, %.2f s at most" % (
            name, len(outcomes), counts[0], counts[1], len(wrong),
            max([outcome[2] for outcome in outcomes] or [0])), flush=True)
        for number, words, _ in wrong:
            print("      file %d: %s" % (number, words))
        failures += len(wrong)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
