"""Image files of any kind as arrays, for data sets, training and people's pictures: depth, transparency,
color space and orientation are normalised here.

Pillow reads nearly all. 16 bits of color, of which it has the upper 8, are put together here, and TIFF is
read in tiff.py where it has more.
"""
import contextlib
import glob
import io
import os
import sys
from collections import namedtuple

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

# color: uint8 or uint16 [H, W, 3] or, if it is gray, [H, W, 1]; alpha: of the same type, [H, W], or None;
# profile: of ICC, bytes or None; notes: what of the pixels is changed or left out, in words; exif: of Pillow,
# or None; dpi: (x, y) or None; unkept: what else the file says that no SR image gets, in words
Picture = namedtuple("Picture", "color alpha profile notes exif dpi unkept")
Picture.__new__.__defaults__ = None, None, ()  # of the last three

LARGEST_TEXT = 2 ** 26  # bytes of a compressed text or profile in PNG; all of a file have four times as many
PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = LARGEST_TEXT, 4 * LARGEST_TEXT
DARK = 2 ** 12  # what is below it in 16 bits is nearly black, or was made of fewer bits
ORIENTATION, EXIF_IFD, GPS_IFD, XMP_TAG = 274, 0x8769, 0x8825, 700  # tags of EXIF
XMP_TEXT, SRGB_GAMMA = "XML:com.adobe.xmp", 0.45455  # in PNG
GRAY_STEP = {"1": 255, "L;2": 85, "L;4": 17}  # Pillow scales gray of fewer bits, but no transparent value
DEEP_COLOR = ("LA;16B",) + tuple(name + ";16" + order for name in ("RGB", "RGBA") for order in "BLN")
LOWER_BYTES = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}


def decode(file):
    """The first image of a file, upright, as a Picture. file: a path, or a binary file that can seek.

    Signed integers are taken as unsigned, 32 bits are expected within the range of 16, and floating point
    within [0, 1], which becomes 16 bits. Raises nearly anything for a damaged file, and ValueError, in words.
    """
    with contextlib.suppress() if hasattr(file, "read") else open(file, "rb") as opened:
        picture = _decode_stream(opened or file)
    brightest = picture.color.max() if picture.color.size and picture.color.dtype == np.uint16 else 0
    if 0 < brightest < DARK:
        picture.notes.append("its brightest value is %.1g %% of white: if it has fewer bits than its file, "
                             "scale its values" % (brightest / 655.35))
    return picture


def _decode_stream(stream):
    from tools import tiff  # which needs this module
    page = tiff.first_page(stream)
    notes = tiff.page_notes(page) if page else []
    if page and not tiff.is_for_pillow(page):
        try:
            return tiff.decode_page(page, stream, notes)
        except tiff.NoCodec:  # Pillow has those of libtiff
            pass
    try:
        image = _open(stream)
    except Image.UnidentifiedImageError:
        if page:
            return tiff.decode_page(page, stream, notes)
        raise ValueError("it is in no image format that Pillow %s knows, as HEIC and camera raw are none: "
                         "convert it to TIFF or PNG" % Image.__version__)
    try:
        return _decode_image(image, stream, notes)
    except OSError as error:
        if image.format not in ("JPEG", "MPO") or "truncated" not in str(error):
            raise
    stream = _with_end(stream)
    return _decode_image(_open(stream), stream, ["its end is missing, but all rows are there"])


def _open(stream):
    """The Pillow image of a file, from its start."""
    stream.seek(0)
    return Image.open(stream)


def _with_end(stream):
    """A JPEG file without its end, with one. Raises ValueError if pixels are missing, too: they then depend
    on what stands in the place of their data."""
    stream.seek(0)
    content = stream.read().rstrip(b"\xff")
    files = [io.BytesIO(content + filling + b"\xff\xd9") for filling in (b"", b"\x55" * 64)]
    rows, others = (np.asarray(_open(file)) for file in files)
    different = (rows != others).reshape(len(rows), -1).any(axis=1)
    if different.any():
        raise ValueError("it is truncated: it ends in row %d of %d" % (different.argmax() + 1, len(rows)))
    return files[0]


def _decode_image(image, stream, notes):
    """The Picture of an image that Pillow has opened, and whose file is `stream`."""
    tiles, count, is_tiff = image.tile, getattr(image, "n_frames", 1), image.format == "TIFF"
    if count > 1 and not is_tiff:
        words = {"PSD": "the merged picture of %d layers"}.get(image.format, "the first of %d frames")
        notes.append(words % count)
    rawmode = _rawmode(tiles[0]) if tiles else ""
    picture = to_picture(image, notes, rawmode)
    if rawmode in DEEP_COLOR:
        color, alpha = _sixteen_bits(image, tiles, stream)
        picture = picture._replace(color=color, alpha=alpha)
    elif ";16" in rawmode and picture.color.dtype == np.uint8:
        notes.append("its 16 bits are read as 8")
    if image.format == "PNG" and not picture.profile:
        notes += _color_notes(image.info, stream)
    if is_tiff:  # Pillow has turned it on loading
        return picture
    if picture.exif is None:
        notes.append("its EXIF orientation cannot be read")
    return upright(picture)


def to_picture(image, notes, rawmode=""):
    """The Picture of the current frame of a Pillow image, as deep as Pillow has it, and not turned."""
    exif = read_exif(image.getexif) if image.format == "TIFF" else None  # before Pillow closes the file
    color, alpha, profile = _pixels(image, notes, rawmode)
    exif = exif if image.format == "TIFF" else read_exif(image.getexif)
    return Picture(color, alpha, profile, notes, exif, image.info.get("dpi"), find_unkept(image, exif))


def _color_notes(info, stream):
    """Notes on what a PNG file says of its colors, and is not heeded."""
    stream.seek(0)
    space = tuple(stream.read(2 ** 16).split(b"IDAT")[0].partition(b"cICP")[2][:2])
    gamma = info.get("gamma", SRGB_GAMMA)
    if space not in ((), (1, 13)):  # that of sRGB
        return ["its color space (cICP %s) is taken for sRGB" % " ".join(map(str, space))]
    is_other = "srgb" not in info and abs(gamma - SRGB_GAMMA) > 0.01
    return ["its gamma of %g is taken for that of sRGB" % gamma] * is_other


def find_unkept(image, exif):
    """Picture.unkept of a Pillow image with this EXIF data, or None."""
    info, segments = image.info, getattr(image, "applist", ())  # the latter of JPEG
    texts = {key for key, value in info.items() if isinstance(value, str)} if image.format == "PNG" else set()
    xmp = "xmp" in info or XMP_TEXT in info or XMP_TAG in (exif or ()) or any(
        b"ns.adobe.com/xap" in content[:40] for _, content in segments)
    found = (("text", texts - {XMP_TEXT, "Raw profile type exif"}), ("XMP data", xmp),
             ("a comment", info.get("comment")), ("IPTC data", info.get("photoshop")))
    return tuple(words for words, is_there in found if is_there)


def read_exif(read):
    """The EXIF data that read() returns, with the folders in it that are read on demand; None if damaged."""
    try:
        exif = read()
        for folder in EXIF_IFD, GPS_IFD:
            exif.get_ifd(folder)
        return exif
    except Exception:  # damaged data make Pillow raise nearly anything; the pixels are sound
        return None


def upright(picture):
    """Apply the orientation of EXIF to a Picture."""
    orientation = picture.exif.get(ORIENTATION) if picture.exif is not None else None
    if orientation not in range(2, 9):
        return picture

    def turn(array):
        array = array.swapaxes(0, 1) if orientation > 4 else array
        array = array[::-1] if orientation in (3, 4, 7, 8) else array
        return np.ascontiguousarray(array[:, ::-1] if orientation in (2, 3, 6, 7) else array)

    alpha = None if picture.alpha is None else turn(picture.alpha)
    return picture._replace(color=turn(picture.color), alpha=alpha)


def _pixels(image, notes, rawmode):
    """(color, alpha, ICC profile), as in a Picture, of the current frame of a Pillow image."""
    image.load()
    profile, key = image.info.get("icc_profile") or None, image.info.get("transparency")
    if image.mode[0] in "IF":
        color = to_unsigned(np.asarray(image), 16)[:, :, None]
        return color, _keyed_alpha(color, key), profile
    if image.mode in ("CMYK", "LAB", "YCbCr", "HSV"):
        image, profile = to_rgb(image, profile, notes), None
    channels = 1 if image.mode in ("1", "L", "LA", "La") else 3
    image = image.convert("LA") if image.mode == "La" else image
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or image.mode == "P" and key is not None:
        rgba = np.array(image.convert("RGBA"))
        return rgba[:, :, :channels], rgba[:, :, 3], profile
    color = np.array(image.convert("L" if channels == 1 else "RGB")).reshape(image.size[::-1] + (channels,))
    if channels == 1:
        key = min(255, key * GRAY_STEP.get(rawmode, 1)) if isinstance(key, int) else None
    return color, _keyed_alpha(color, key), profile


def _keyed_alpha(color, key):
    """The alpha of an image of which one color is transparent; None if `key` is None."""
    if key is None or np.ndim(key) and len(key) != color.shape[2]:
        return None
    top = np.iinfo(color.dtype).max
    return np.where((color == np.asarray(key)).all(axis=2), 0, top).astype(color.dtype)


def _rawmode(tile):
    """How the samples of a tile of Pillow lie in the file, as "RGB;16B"."""
    arguments = tile[3] if len(tile) > 3 else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _with_rawmode(tile, rawmode):
    arguments = (rawmode,) + tile[3][1:] if isinstance(tile[3], tuple) else rawmode
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else tile[:3] + (arguments,)


def _sixteen_bits(image, tiles, stream):
    """(color, alpha) of a loaded 8-bit image of Pillow whose file has 16 bits, of which it has the upper
    bytes. The lower ones are what it takes for upper ones when told that their order is the other one."""
    rawmode, upper = _rawmode(tiles[0]), np.asarray(image)
    gray = rawmode == "LA;16B"
    other = "RGBA" if gray else rawmode[:-4] + LOWER_BYTES[rawmode[-4:]]  # of gray with alpha, all four bytes
    second = _open(stream)
    second.tile = [_with_rawmode(tile, other) for tile in tiles]
    second.load()
    lower = np.asarray(second)
    upper, lower, channels = (lower[:, :, ::2], lower[:, :, 1::2], 1) if gray else (upper, lower, 3)
    samples = upper.astype(np.uint16) * 256 + lower
    if samples.shape[2] > channels:
        return samples[:, :, :channels], samples[:, :, channels]
    return samples, _keyed_alpha(samples, image.info.get("transparency"))


def to_rgb(image, profile, notes):
    """Convert from a color space that is not written to sRGB, by its profile, or else Pillow's formula."""
    if profile or image.mode == "LAB":
        try:
            source = ImageCms.createProfile("LAB") if image.mode == "LAB" else io.BytesIO(profile)
            rgb = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            notes.append("converted from %s to sRGB" % image.mode + " by its profile" * (image.mode != "LAB"))
            return rgb
        except (ImageCms.PyCMSError, ImportError):  # a damaged profile, or a Pillow without LittleCMS
            pass
    notes.append("converted from %s to RGB without a profile" % image.mode)
    return image.convert("RGB")


def to_unsigned(values, bits):
    """Numbers, of which `bits` are used, as uint8 or uint16 of full range. Raises ValueError for others."""
    real = values.dtype.kind == "f"
    dtype = np.uint8 if bits <= 8 and not real else np.uint16
    top, peak = np.iinfo(dtype).max, 1 if real else 2 ** min(bits, 16) - 1
    if real and np.isnan(values).any():
        raise ValueError("%d of its %d values are NaN: replace them" % (np.isnan(values).sum(), values.size))
    if values.size and not (values.min() >= 0 and values.max() <= peak):
        raise ValueError("its values reach from %g to %g, expected from 0 to %d: scale them, and save them "
                         "with 8 or 16 bits" % (values.min(), values.max(), peak))
    scaled = values if peak == top else np.floor(values.astype(np.float64) * (float(top) / peak) + 0.5)
    return scaled.astype(dtype)


# ------------------------------------------------------------------------------------------------- files

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".mpo", ".webp", ".tif", ".tiff", ".bmp")


def unreadable(name, error):
    """The one line that says why an image file could not be read."""
    words = " ".join(str(error).split()) or type(error).__name__
    if os.path.islink(name) and not os.path.exists(name):
        words = "it is a link to %s, which is not there: get it (git annex get, dvc pull)" % os.readlink(name)
    if "MAX_TEXT" in words or "Decompressed" in words:  # of PngImagePlugin
        words = "its compressed text or profile has more than %d MiB: save it without" % (LARGEST_TEXT >> 20)
    return "cannot read the image %s: %s" % (name, words)


def is_file(path):
    """Whether this is a file, or a link to one that is not there, which is an error when it is read."""
    return os.path.isfile(path) or os.path.islink(path) and not os.path.exists(path)


def is_image_file(path, suffixes=IMAGE_SUFFIXES):
    """Whether this is a file, an image by its suffix, that is not hidden: macOS puts a ._a.jpg by a.jpg."""
    name = os.path.basename(path)
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes and is_file(path)


def list_images(folder):
    """The image files in `folder`, sorted by name; subfolders are not searched."""
    return sorted(filter(is_image_file, glob.glob(os.path.join(glob.escape(folder), "*"))))
