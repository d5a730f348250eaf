"""TIFF files that Pillow reads not or as something else, read by tifffile: 16 bits of min-is-white, planes,
more channels than color and alpha, floating point of 64 bits. Which of its pages and channels a picture is,
of any TIFF."""
import logging

from tools.images import Picture, read_exif, to_rgb, to_unsigned, upright, XMP_TAG

import numpy as np
from PIL import Image

HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ICC_PROFILE, RESOLUTION_UNIT, RESOLUTIONS, DNG_VERSION = 34675, 296, (282, 283), 50706  # tags
MINISWHITE, MINISBLACK, RGB, SEPARATED = 0, 1, 2, 5  # photometrics; the last is CMYK


class NoCodec(Exception):
    """tifffile needs another package for the compression of a file."""


def first_page(stream):
    """The first page of a TIFF file by tifffile; None if it is none, or damaged."""
    if stream.read(4) not in HEADS:
        return None
    import tifffile  # here, since it takes a while, and few files need it
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    stream.seek(0)
    try:
        page = tifffile.TiffFile(stream).pages[0]
        return page if page.imagewidth and page.imagelength and page.samplesperpixel and _bits(page) else None
    except Exception:  # what it raises for a damaged file is anything
        return None


def _bits(page):
    """The largest number of bits of the samples of a page."""
    return int(np.max(page.bitspersample))


def _channels(page):
    """(samples of color; kind of alpha that follows, 1: color is multiplied by it, 2: it is not, 0: none;
    samples that are neither) of a page of gray or RGB; of other pages, none are left over."""
    color = 3 if page.photometric == RGB else 1
    if page.photometric not in (MINISWHITE, MINISBLACK, RGB) or page.samplesperpixel <= color:
        return color, 0, 0
    kind = int(page.extrasamples[0]) if page.extrasamples else 2 * (color == 3)
    return color, kind % 3, page.samplesperpixel - color - (kind in (1, 2))


def is_for_pillow(page):
    """Whether Pillow reads all that is wanted of a page."""
    return _bits(page) <= 8 and page.sampleformat == 1 and page.planarconfig != 2 and not _channels(page)[2]


def page_notes(page):
    """Notes on what of its file the first page is. Raises ValueError if that is the preview of a camera raw
    file."""
    file = page.parent
    try:
        pages = list(file.pages)
        stated = int((file.imagej_metadata or {}).get("images", 1))  # of large stacks, page 1 is alone
    except Exception:  # damaged
        pages, stated = [page], 1
    file.filehandle.seek(8)
    is_preview = page.is_reduced and (len(pages) > 1 or page.subifds)
    if DNG_VERSION in page.tags or file.filehandle.read(2) == b"CR" or is_preview:
        raise ValueError("it is a camera raw file (DNG, NEF, ARW, CR2), or another one that begins with a "
                         "preview: develop it, and save it as TIFF or PNG")
    count, left_out = max(sum(not other.is_reduced for other in pages), stated), _channels(page)[2]
    notes = ["the first of %d pages" % count] if count > 1 else []
    return notes + ["%d of its %d channels: the others are neither color nor alpha" % (
        page.samplesperpixel - left_out, page.samplesperpixel)] * bool(left_out)


def decode_page(page, stream, notes):
    """The Picture of a page; notes: of page_notes(). Raises NoCodec, and as images.decode()."""
    shape, bits = (page.imagelength, page.imagewidth, page.samplesperpixel), _bits(page)
    if shape[0] * shape[1] > (Image.MAX_IMAGE_PIXELS or float("inf")):
        raise Image.DecompressionBombError("%dx%d pixels" % shape[1::-1])
    if page.photometric not in (MINISWHITE, MINISBLACK, RGB, SEPARATED):
        raise ValueError("its %d-bit TIFF color space (photometric %d) is not read: convert it to RGB" % (
            bits, page.photometric))
    try:
        array = page.asarray()
    except (ImportError, ValueError, KeyError) as error:
        raise NoCodec(str(error)) if "imagecodecs" in str(error) or isinstance(error, KeyError) else error
    is_planar = page.planarconfig == 2
    array = array.reshape(shape[2:] + shape[:2]).transpose(1, 2, 0) if is_planar else array.reshape(shape)
    (count, kind, _), exif, alpha = _channels(page), _read_tags(stream), None
    count = 4 if page.photometric == SEPARATED else count
    if shape[2] < count:
        raise ValueError("it has %d samples, expected %d" % (shape[2], count))
    samples, profile = to_unsigned(array[:, :, :count + (kind > 0)], bits), exif.get(ICC_PROFILE)
    color, top = samples[:, :, :count], np.iinfo(samples.dtype).max
    if page.photometric == SEPARATED:
        notes = notes + ["its %d bits become 8" % bits] * (bits > 8)
        cmyk = np.floor(color * (255.0 / top) + 0.5).astype(np.uint8)
        color, profile = np.array(to_rgb(Image.fromarray(cmyk, "CMYK"), profile, notes)), None
    elif page.photometric == MINISWHITE:
        color = top - color
    if kind:
        alpha = samples[:, :, count]
    if kind == 1:
        whole = np.minimum(np.round(color * (float(top) / np.maximum(alpha, 1))[:, :, None]), top)
        color = whole.astype(samples.dtype)
    return upright(Picture(color, alpha, profile, notes, exif, _dpi(exif), ("XMP data",) * (XMP_TAG in exif)))


def _read_tags(stream):
    """The tags of the first page of a file, which EXIF's are some of; empty if they cannot be read."""
    exif = Image.Exif()
    stream.seek(0)
    tags = read_exif(lambda: exif.load_from_fp(stream) or exif)
    return tags if tags is not None else Image.Exif()  # of BigTIFF in an old Pillow, or damaged


def _dpi(exif):
    """(x, y) dots per inch of the tags of a file, or None."""
    unit = {2: 1, 3: 2.54}.get(exif.get(RESOLUTION_UNIT, 2))  # inch, cm
    try:
        return tuple(float(exif[tag]) * unit for tag in RESOLUTIONS)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
