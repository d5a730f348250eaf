"""Image files of any kind as arrays: depth, polarity, planes, transparency, color space and orientation are normalised here, for
data sets, training and people's pictures alike.

Pillow reads nearly all. It has no 16 bits for color, and reads some TIFF files (16 bits of min-is-white, planes, floating point of
64 bits) not or as something else: those are read by tifffile. Nothing here needs the rest of the project.
"""
import contextlib
import io
import logging
import sys
from collections import namedtuple

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

# color: uint8 or uint16 [H, W, 3] or, if it is gray, [H, W, 1]; alpha: of the same type, [H, W], or None;
# profile: of ICC, bytes or None; notes: what of the pixels is changed or left out, in words; exif: of Pillow, or
# None; dpi: (x, y) or None; unkept: what else the file says that no SR image gets, in words
Picture = namedtuple("Picture", "color alpha profile notes exif dpi unkept")
Picture.__new__.__defaults__ = None, None, ()  # of the last three

LARGEST_TEXT = 2 ** 26  # bytes of a compressed text or profile in PNG; all texts of a file together have four times as many
PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = LARGEST_TEXT, 4 * LARGEST_TEXT
TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ORIENTATION, EXIF_IFD, GPS_IFD = 274, 0x8769, 0x8825  # tags of EXIF
# what is to be done with the pixels of an orientation
UPRIGHT = {2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.swapaxes(0, 1),
           6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: np.rot90}
ICC_PROFILE, RESOLUTION_UNIT, RESOLUTIONS = 34675, 296, (282, 283)  # tags of TIFF
MINISWHITE, MINISBLACK, RGB, PALETTE, SEPARATED = 0, 1, 2, 3, 5  # photometrics of TIFF; the last is CMYK
DNG_VERSION, XMP_TAG, XMP_TEXT = 50706, 700, "XML:com.adobe.xmp"
SRGB_GAMMA = 0.45455  # as PNG says it
DARK = 2 ** 12        # what is below it in 16 bits is nearly black, or was made of fewer bits
GRAY_STEP = {"1": 255, "L;2": 85, "L;4": 17}  # Pillow scales gray of fewer bits to 8, but not the value that is transparent
DEEP_COLOR = ("LA;16B",) + tuple(channels + ";16" + order for channels in ("RGB", "RGBA") for order in "BLN")
LOWER_BYTES = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}


def decode(file):
    """The first image of a file, upright, as a Picture. file: a path, or a binary file that can seek.

    Signed integers are taken as unsigned, 32 bits are expected within the range of 16, and floating point within
    [0, 1], which becomes 16 bits. Raises nearly anything for a damaged file; ValueError, in words, for what is sound
    but has no brightness, or is the preview of a camera raw file.
    """
    with contextlib.ExitStack() as stack:
        stream = file if hasattr(file, "read") else stack.enter_context(open(file, "rb"))
        picture = _decode_stream(stream, stack)
    brightest = picture.color.max() if picture.color.size and picture.color.dtype == np.uint16 else 0
    if 0 < brightest < DARK:
        picture.notes.append("its brightest value is %.1g %% of white: if it has fewer bits than its file, scale its "
                             "values" % (brightest / 655.35))
    return picture


def _decode_stream(stream, stack):
    """The Picture of a file; stack: closes what is opened."""
    page = _first_page(stream)
    notes = [] if page is None else _page_notes(page)
    if page is not None and (max(_bits(page)) > 8 or page.sampleformat != 1 or page.planarconfig == 2
                             or _samples_left_out(page)):
        try:
            return _decode_page(page, stream, notes)
        except _NoCodec:  # Pillow has those of libtiff
            pass
    stream.seek(0)
    try:
        image = stack.enter_context(Image.open(stream))
    except Image.UnidentifiedImageError:
        if page is None:
            raise ValueError("it is in no image format that Pillow %s knows%s" % (Image.__version__, _name(stream)))
        return _decode_page(page, stream, notes)
    try:
        return _decode_image(image, stream, notes)
    except OSError as error:
        if image.format not in ("JPEG", "MPO") or "truncated" not in str(error):
            raise
    stream = _with_end(stream)
    picture = _decode_image(stack.enter_context(Image.open(stream)), stream, [])
    return picture._replace(notes=picture.notes + ["its end is missing, but all rows are there"])


def _name(stream):
    """What a file is that Pillow does not know, as the end of an error."""
    stream.seek(0)
    head = stream.read(12)
    kind = ("HEIC or HEIF" if head[4:8] == b"ftyp" and head[8:10] in (b"he", b"mi", b"ms") else
            "a camera raw file" if head[4:12] == b"ftypcrx " or head[:8] == b"FUJIFILM" or head[:4] == b"IIRO" else "")
    return kind and "; it is %s: convert it to TIFF or PNG" % kind


def _with_end(stream):
    """A JPEG file whose end is missing, with one. Raises ValueError that says in which row the pixels end, if they do.

    Where pixels are missing, they depend on what stands in the place of their data.
    """
    stream.seek(0)
    content = stream.read().rstrip(b"\xff")
    files = [io.BytesIO(content + filling + b"\xff\xd9") for filling in (b"", b"\x55" * 64)]
    one, other = [np.asarray(Image.open(file)).reshape(-1, Image.open(file).width) for file in files]
    different = (one != other).any(axis=1)
    if different.any():
        rows = Image.open(files[0]).height
        raise ValueError("it is truncated: it ends in row %d of %d" % (
            different.argmax() * rows // len(different) + 1, rows))
    return files[0]


def _decode_image(image, stream, notes):
    """The Picture of an image that Pillow has opened, and whose file is `stream`; notes: on its pages, of TIFF."""
    notes, tiles, count = list(notes), image.tile, getattr(image, "n_frames", 1)
    if count > 1 and image.format != "TIFF":
        notes.append(("the merged picture of %d layers" if image.format == "PSD" else "the first of %d frames") % count)
    rawmode = _rawmode(tiles[0]) if tiles else ""
    exif = read_exif(image) if image.format == "TIFF" else None  # before Pillow closes the file
    color, alpha, profile = pixels(image, notes, rawmode)
    if rawmode in DEEP_COLOR:
        color, alpha = _sixteen_bits(image, tiles, stream)
    elif color.dtype == np.uint8:
        stream.seek(0)
        bits = 16 if ";16" in rawmode else _stated_bits(image.format, tiles, stream.read(2 ** 16) + bytes(64))
        notes += ["its %d bits are read as 8" % bits] if bits > 8 else []
    notes += _color_notes(image, stream)
    if image.format != "TIFF":
        exif = read_exif(image)
        notes += [] if exif is not None else ["its EXIF orientation cannot be read"]
    picture = Picture(color, alpha, profile, notes, exif, image.info.get("dpi"), find_unkept(image, exif))
    return picture if image.format == "TIFF" else upright(picture)  # Pillow has turned it on loading


def _stated_bits(name, tiles, head):
    """The bits of a sample by the head of a file whose format, of this name, Pillow reads as 8 bits."""
    if name == "SGI":
        return 8 * head[3]
    if name == "JPEG2000":  # after the start and SIZ, two numbers of 2 bytes, eight of 4, and one of 2
        return (head[head.find(b"\xff\x4f\xff\x51") + 42] & 127) + 1
    if name == "AVIF":
        return 10 if head[head.find(b"av1C") + 6] & 64 else 8
    if name == "PPM" and isinstance(tiles[0][3], tuple):  # the largest value
        return int(tiles[0][3][1]).bit_length()
    return 8


def _color_notes(image, stream):
    """Notes on what a PNG file says of its colors besides the profile, and what is not heeded."""
    if image.format != "PNG" or image.info.get("icc_profile"):
        return []
    stream.seek(0)
    head = stream.read(2 ** 16).split(b"IDAT")[0]
    space = tuple(head.partition(b"cICP")[2][:2])
    gamma = image.info.get("gamma", SRGB_GAMMA)
    if space not in ((), (1, 13)):  # sRGB
        return ["its color space (cICP %s) is taken for sRGB" % " ".join(map(str, space))]
    return ["its gamma of %g is taken for that of sRGB" % gamma] if (
        abs(gamma - SRGB_GAMMA) > 0.01 and "srgb" not in image.info) else []


def find_unkept(image, exif):
    """Picture.unkept of a Pillow image with this EXIF data, or None."""
    info = image.info
    texts = {key for key, value in info.items() if isinstance(value, str)} if image.format == "PNG" else set()
    xmp = info.get("xmp") or XMP_TEXT in info or XMP_TAG in (exif or ()) or any(
        b"ns.adobe.com/xap" in content[:40] for _, content in getattr(image, "applist", ()))
    found = (("text", texts - {XMP_TEXT, "Raw profile type exif"}), ("XMP data", xmp), ("a comment", info.get("comment")),
             ("IPTC data", info.get("photoshop")))
    return tuple(words for words, there in found if there)


def read_exif(image):
    """The EXIF data of a Pillow image, with the folders in it that are read on demand; None if they are damaged."""
    return _load_exif(image.getexif)


def _load_exif(read):
    """The EXIF data that read() returns; see read_exif."""
    try:
        exif = read()
        for folder in EXIF_IFD, GPS_IFD:
            exif.get_ifd(folder)
        return exif
    except Exception:  # damaged data make Pillow raise nearly anything; the pixels are sound
        return None


def upright(picture):
    """Apply the orientation of EXIF to a Picture."""
    turn = UPRIGHT.get(picture.exif.get(ORIENTATION)) if picture.exif is not None else None
    if turn is None:
        return picture
    alpha = None if picture.alpha is None else np.ascontiguousarray(turn(picture.alpha))
    return picture._replace(color=np.ascontiguousarray(turn(picture.color)), alpha=alpha)


def pixels(image, notes, rawmode=""):
    """(color, alpha, ICC profile), as in a Picture, of the current frame of a Pillow image, as deep as Pillow has it."""
    image.load()
    profile, key = image.info.get("icc_profile") or None, image.info.get("transparency")
    if image.mode[0] in "IF":
        color = _unsigned(np.asarray(image), 16)[:, :, None]
        return color, _keyed_alpha(color, key), profile
    if image.mode in ("CMYK", "LAB", "YCbCr", "HSV"):
        image, profile = _to_rgb(image, profile, notes), None
    gray = image.mode in ("1", "L", "LA", "La")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or image.mode == "P" and key is not None:
        rgba = np.array(image.convert("RGBA"))
        return rgba[:, :, :1 if gray else 3], rgba[:, :, 3], profile
    color = np.array(image.convert("L" if gray else "RGB"))
    if gray:
        color = color[:, :, None]
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
    """(color, alpha) of a loaded 8-bit image of Pillow whose file has 16 bits, of which it has the upper bytes.

    The lower bytes are what Pillow takes for the upper ones when told that their order is the other one.
    """
    rawmode, upper = _rawmode(tiles[0]), np.asarray(image)
    gray = rawmode == "LA;16B"
    other = "RGBA" if gray else rawmode[:-4] + LOWER_BYTES[rawmode[-4:]]  # of gray with alpha, all four bytes
    stream.seek(0)
    with Image.open(stream) as second:
        second.tile = [_with_rawmode(tile, other) for tile in tiles]
        second.load()
        lower = np.asarray(second)
    if gray:
        samples = lower[:, :, ::2].astype(np.uint16) * 256 + lower[:, :, 1::2]
    else:
        samples = upper.astype(np.uint16) * 256 + lower
    channels = 1 if gray else 3
    if samples.shape[2] > channels:
        return samples[:, :, :channels], samples[:, :, channels]
    return samples, _keyed_alpha(samples, image.info.get("transparency"))


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


def _unsigned(values, bits):
    """Numbers of any type, of which `bits` are used, as uint8 or uint16 of full range. Raises ValueError if they are beyond it."""
    real = values.dtype.kind == "f"
    dtype = np.uint8 if bits <= 8 and not real else np.uint16
    top, peak = np.iinfo(dtype).max, 1 if real else 2 ** min(bits, 16) - 1
    if real and np.isnan(values).any():
        raise ValueError("%d of its %d values are NaN: replace them" % (np.isnan(values).sum(), values.size))
    if values.size and not (values.min() >= 0 and values.max() <= peak):
        raise ValueError("its values reach from %g to %g, expected from 0 to %d: scale them, and save them with 8 or 16 bits" % (
            values.min(), values.max(), peak))
    return values.astype(dtype) if peak == top else np.floor(values.astype(np.float64) * (float(top) / peak) + 0.5).astype(dtype)


# ------------------------------------------------------------------------------------------------- TIFF by tifffile

class _NoCodec(Exception):
    """tifffile needs another package for the compression of a file."""


def _first_page(stream):
    """The first page of a TIFF file by tifffile; None if it is none, or damaged."""
    if stream.read(4) not in TIFF_HEADS:
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
    """The bits of the samples of a page, one or as many as it has samples."""
    return page.bitspersample if isinstance(page.bitspersample, tuple) else (page.bitspersample,)


def _page_notes(page):
    """Notes on what of a TIFF file its first page is. Raises ValueError if that is the preview of a camera raw file."""
    file = page.parent
    file.filehandle.seek(8)
    raw = DNG_VERSION in page.tags or file.filehandle.read(2) == b"CR"
    try:
        pages = list(file.pages)
        stated = int((file.imagej_metadata or {}).get("images", 1))  # of which ImageJ writes one alone, if it is large
    except Exception:  # damaged
        pages, stated = [page], 1
    if raw or page.is_reduced and (len(pages) > 1 or page.subifds):
        raise ValueError("it is a camera raw file (DNG, NEF, ARW, CR2), or another one that begins with a preview: "
                         "develop it, and save it as TIFF or PNG")
    count = max(sum(not other.is_reduced for other in pages), stated)
    left_out = _samples_left_out(page)
    return ["the first of %d pages" % count] * (count > 1) + (["%d of its %d channels: the others are neither color nor "
            "alpha" % (page.samplesperpixel - left_out, page.samplesperpixel)] if left_out else [])


def _alpha_kind(page):
    """What the first sample after the color of a page of gray or RGB is, of TIFF's ExtraSamples: 1, alpha that the color
    is multiplied by, 2, alpha that it is not, 0, something else or nothing."""
    if page.samplesperpixel <= _channels(page):
        return 0
    return int(page.extrasamples[0]) if page.extrasamples else 2 * (page.photometric == RGB)


def _channels(page):
    return 3 if page.photometric == RGB else 1


def _samples_left_out(page):
    """How many samples of a page of gray or RGB are neither color nor alpha."""
    if page.photometric not in (MINISWHITE, MINISBLACK, RGB):
        return 0
    return max(page.samplesperpixel - _channels(page) - (_alpha_kind(page) in (1, 2)), 0)


def _decode_page(page, stream, notes):
    """The Picture of a page of tifffile; notes: on the page. Raises _NoCodec."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit and page.imagewidth * page.imagelength > limit:
        raise Image.DecompressionBombError("%dx%d pixels" % (page.imagewidth, page.imagelength))
    try:
        array = page.asarray()
    except (ImportError, ValueError, KeyError) as error:
        raise _NoCodec(str(error)) if "imagecodecs" in str(error) or isinstance(error, KeyError) else error
    shape = (page.imagelength, page.imagewidth, page.samplesperpixel)
    if page.planarconfig == 2:
        array = array.reshape(shape[2:] + shape[:2]).transpose(1, 2, 0)
    array, notes, exif = array.reshape(shape), list(notes), _page_exif(stream)
    profile = exif.get(ICC_PROFILE)
    bits = max(_bits(page))
    if page.photometric == PALETTE:
        color, alpha = page.colormap[:, array[:, :, 0]].transpose(1, 2, 0), None
    elif page.photometric == SEPARATED:
        if array.shape[2] < 4:
            raise ValueError("it has %d samples, expected 4" % array.shape[2])
        cmyk = _unsigned(array[:, :, :4], bits)
        cmyk = cmyk if cmyk.dtype == np.uint8 else np.floor(cmyk / 257.0 + 0.5).astype(np.uint8)
        notes += ["its %d bits become 8" % bits] if bits > 8 else []
        color, alpha = np.array(_to_rgb(Image.fromarray(np.ascontiguousarray(cmyk), "CMYK"), profile, notes)), None
        profile = None
    elif page.photometric in (MINISWHITE, MINISBLACK, RGB):
        color, alpha = _split_alpha(_unsigned(array, bits), page)
    else:
        raise ValueError("its %d-bit TIFF color space (photometric %d) is not read: convert it to RGB" % (bits, page.photometric))
    unkept = ("XMP data",) if XMP_TAG in exif else ()
    return upright(Picture(color, alpha, profile, notes, exif, _page_dpi(exif), unkept))


def _split_alpha(samples, page):
    """(color, alpha) of the unsigned samples of a page of gray or RGB."""
    channels, top = _channels(page), np.iinfo(samples.dtype).max
    if samples.shape[2] < channels:
        raise ValueError("it has %d samples, expected %d" % (samples.shape[2], channels))
    color = samples[:, :, :channels]
    color = top - color if page.photometric == MINISWHITE else color
    kind = _alpha_kind(page)
    if kind not in (1, 2):
        return color, None
    alpha = samples[:, :, channels]
    if kind == 1:
        whole = np.minimum(np.round(color * (float(top) / np.maximum(alpha, 1))[:, :, None]), top)
        color = whole.astype(samples.dtype)
    return color, alpha


def _page_exif(stream):
    """The tags of the first page of a TIFF file, which EXIF's are some of; empty if they cannot be read."""
    exif = Image.Exif()
    stream.seek(0)
    tags = _load_exif(lambda: exif.load_from_fp(stream) or exif)
    return tags if tags is not None else Image.Exif()  # of BigTIFF in an old Pillow, or damaged


def _page_dpi(exif):
    """(x, y) dots per inch of the tags of a TIFF file, or None."""
    unit = {2: 1, 3: 2.54}.get(exif.get(RESOLUTION_UNIT, 2))  # inch, cm
    try:
        return tuple(float(exif[tag]) * unit for tag in RESOLUTIONS)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
