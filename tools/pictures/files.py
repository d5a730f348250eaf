"""People's pictures, of any mode, depth, profile and orientation: found, read, and composed from what the network makes of them.

Images of data sets, which are 8-bit RGB, are read by utils.py.
"""
import contextlib
import glob
import io
import os
import sys
import warnings
from collections import OrderedDict, namedtuple

import numpy as np
import scipy.ndimage
from PIL import Image, ImageCms, ImageOps

from tools.pictures.tiles import cut, enlarge
from utils import UserError, deep_gray, imresize, quiet_stderr, to_integers, to_uint8

Picture = namedtuple("Picture", "color alpha profile notes")
FORMATS = {"png": 2 ** 31 - 1, "webp": 16383, "jpeg": 65500}  # what is written: the most pixels a side
ALPHA_REACH = 4  # pixels of alpha around a strip that its bicubic upscaling looks at, and some


def find_pictures(inputs, output):
    """The image files that test.py --input names, each once: (paths, lines that say what was not found or left out).

    Of folders and patterns, files with the suffix of an image format are taken; subfolders are not searched. Raises
    UserError if the SR images would be put among their inputs, where the next run would find them.
    """
    Image.init()
    suffixes = [suffix for suffix, format_ in Image.EXTENSION.items() if format_ in Image.OPEN]  # others are only written
    paths, errors = OrderedDict(), []
    for name in inputs:
        folder = name if os.path.isdir(name) else os.path.dirname(name)
        if os.path.isfile(name):
            paths[os.path.abspath(name)] = name
            continue
        try:
            found = [os.path.join(name, entry) for entry in os.listdir(name)] if folder == name else glob.glob(name)
        except OSError as error:
            errors.append("cannot read the folder %s: %s" % (name, error.strerror))
            continue
        if found and os.path.realpath(folder or ".") == os.path.realpath(output):
            raise UserError("--output %s is the folder of the input: choose another" % output)
        images = [path for path in sorted(found) if os.path.splitext(path)[1].lower() in suffixes]
        if not images:
            errors.append("no image at %s" % name)
        elif len(images) < len(found):
            print("note: %d of %d entries of %s are not images by their suffix" % (
                len(found) - len(images), len(found), name), file=sys.stderr)
        paths.update((os.path.abspath(path), path) for path in images)
    return list(paths.values()), errors


def read_picture(path, megapixels):
    """Read an image file of any kind that Pillow reads; returns a Picture.

    color: uint8 or (gray only) uint16, [H, W, 3] or, if it is gray, [H, W, 1]; alpha: uint8 [H, W] or None; profile: of
    ICC, bytes or None; notes: what of the file is changed or left out, in words. The orientation of EXIF is applied.
    Fully transparent pixels get the color of the nearest other one. Raises UserError that names the file if it cannot
    be read or has more than `megapixels`.
    """
    notes = []
    try:
        with warnings.catch_warnings(), _pixel_limit(megapixels), quiet_stderr():  # libtiff writes there
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                color, alpha, profile = _decode(image, notes)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError("%s has more than %g megapixels: raise the limit by --max-megapixels" % (path, megapixels))
    except Exception as error:  # a damaged file can make Pillow raise nearly anything
        raise UserError("cannot read the image %s: %s" % (path, " ".join(str(error).split()) or type(error).__name__))
    if not color.size:
        raise UserError("cannot read the image %s: it has no pixels" % path)
    if alpha is not None:
        color = _spread_color(color, alpha)
    return Picture(color, alpha, profile, notes)


@contextlib.contextmanager
def _pixel_limit(megapixels):
    """Let Pillow warn of images with more than `megapixels`."""
    kept, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, int(megapixels * 1e6)
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = kept


def _decode(image, notes):
    """(color, alpha, ICC profile) of an opened image, as in a Picture; appends to `notes`."""
    if getattr(image, "n_frames", 1) > 1:
        notes.append("the first of %d frames" % image.n_frames)
        image.seek(0)
    if not image.mode.startswith("I") and any(";16" in str(tile[3]) for tile in image.tile):
        notes.append("its 16-bit color is read as 8-bit")  # Pillow has no other
    image.load()
    image = _upright(image, notes)
    profile = image.info.get("icc_profile") or None
    if image.mode[0] in "IF":
        if "transparency" in image.info:
            notes.append("its transparency is dropped")
        return deep_gray(np.asarray(image))[:, :, None], None, profile
    if image.mode in ("CMYK", "LAB", "YCbCr", "HSV"):
        image, profile = _to_rgb(image, profile, notes), None
    gray = image.mode in ("1", "L", "LA", "La")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = np.array(image.convert("RGBA"))
        return rgba[:, :, :1 if gray else 3], rgba[:, :, 3], profile
    if gray:
        return np.array(image.convert("L"))[:, :, None], None, profile
    return np.array(image.convert("RGB")), None, profile


def _upright(image, notes):
    """Apply the orientation of EXIF."""
    if image.format == "TIFF":  # Pillow has done so on loading
        return image
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data; the pixels are sound
        notes.append("its EXIF orientation cannot be read")
        return image


def _to_rgb(image, profile, notes):
    """Convert from a color space that is not written: to sRGB by the profile, or by Pillow's formula without one."""
    if profile or image.mode == "LAB":
        try:
            source = ImageCms.createProfile("LAB") if image.mode == "LAB" else io.BytesIO(profile)
            rgb = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            notes.append("converted from %s to sRGB%s" % (image.mode, "" if image.mode == "LAB" else " by its profile"))
            return rgb
        except (ImageCms.PyCMSError, ImportError):  # a damaged profile, or a Pillow without LittleCMS
            pass
    notes.append("converted from %s to RGB without a profile" % image.mode)
    return image.convert("RGB")


def _spread_color(color, alpha):
    """Give the fully transparent pixels, whose color is arbitrary, the color of the nearest other pixel."""
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return color
    nearest = scipy.ndimage.distance_transform_edt(hidden, return_distances=False, return_indices=True)
    return color[tuple(nearest)]


def fit_format(picture, name):
    """What of a Picture the format, one of FORMATS, can hold: JPEG has no alpha, and PNG alone has 16 bits."""
    color, alpha, profile, notes = picture
    if name != "png" and color.dtype == np.uint16:
        color, notes = to_uint8(color / 257.0), notes + ["its 16 bits become 8: %s has no more" % name]
    if name == "jpeg" and alpha is not None:
        opacity = alpha[:, :, None] / np.float32(255)
        color, alpha = to_uint8(color * opacity + 255 * (1 - opacity)), None
        notes = notes + ["its transparency becomes white: jpeg has none"]
    return Picture(color, alpha, profile, notes)


def compose(sr, picture, factor):
    """The Pillow image of a Picture from the Store of its SR, in the depth and with the channels of the Picture.

    Gray is the luma of SR; alpha is upscaled by bicubic. Works in strips, so that little is held beside the result.
    """
    height, width, channels = picture.color.shape
    dtype = picture.color.dtype
    mode = ("L" if channels == 1 else "RGB") + ("A" if picture.alpha is not None else "")
    mode = "I;16" if dtype == np.uint16 else mode
    image = Image.new(mode, (factor * width, factor * height))
    for start in range(0, height, 64):
        span = cut(start, min(start + 64, height), height, ALPHA_REACH)
        strip = np.array(sr.array()[enlarge(span.own, factor)])
        strip = strip.dot(np.float32([[0.299], [0.587], [0.114]])) if channels == 1 else strip
        strip = to_integers(np.iinfo(dtype).max * strip, dtype)
        if picture.alpha is not None:
            alpha = to_uint8(imresize(picture.alpha[span.read, :, None], factor))
            strip = np.concatenate([strip, alpha[enlarge(span.inner, factor)]], axis=2)
        image.paste(Image.fromarray(strip[:, :, 0] if strip.shape[2] == 1 else strip), (0, factor * start))
    return image
