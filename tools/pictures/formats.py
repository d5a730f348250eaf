"""Files of people's pictures: read with all that they hold, composed from what the network makes of them, and
written, alone or as the frames of an animation. FORMATS is the table of what is written."""
import contextlib
import struct
import warnings
import zlib
from collections import namedtuple

from tools import images
from tools.command import UserError, quiet_stderr
from tools.files import replacing
from tools.images import EXIF_IFD, GPS_IFD, unreadable
from tools.pictures.tiles import cut_side, enlarge, to_gray
from utils import imresize, to_integers, to_uint8

import numpy as np
from PIL import Image

# side: the most pixels a side; has_alpha, has_16_bits: whether it can hold them
Format = namedtuple("Format", "suffixes side has_alpha has_16_bits")
FORMATS = {
    "png": Format([".png"], 2 ** 31 - 1, True, True),
    "webp": Format([".webp"], 16383, True, False),
    "jpeg": Format([".jpg", ".jpeg"], 65500, False, False),
    "gif": Format([".gif"], 65535, True, False),  # of animations alone
}
QUALITY = 95     # of webp and jpeg, where none is given
ALPHA_REACH = 4  # pixels of alpha around a strip that its bicubic upscaling looks at, and some

# durations: in ms; loop: how often, 0 is for ever, None once; lossless: whether it is WebP without loss
Animation = namedtuple("Animation", "pictures durations loop lossless")


# -------------------------------------------------------------------------------------------------- reading

def read_picture(path, megapixels):
    """Read an image file of any kind that Pillow or tifffile reads; returns a Picture.

    The orientation of EXIF is applied. Fully transparent pixels get the color of the nearest other one.
    Raises UserError that names the file if it cannot be read or has more than `megapixels`.
    """
    with _reading(path, megapixels):
        picture = images.decode(path)
        if not picture.color.size:
            raise ValueError("it has no pixels")
    return picture._replace(color=_spread_color(picture.color, picture.alpha))


def animation_format(path):
    """The name of the format of an animation, of those in FORMATS that have them; None for any other file."""
    try:  # what cannot be read is said when it is
        with quiet_stderr(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                is_animated = image.format in ("GIF", "PNG", "WEBP") and image.n_frames > 1
                return image.format.lower() if is_animated else None
    except Exception:
        return None


def read_frames(path, megapixels):
    """Read all frames of an animation, as an Animation of 8-bit RGB. Raises UserError as read_picture(); the
    limit is for all frames together."""
    pictures, durations = [], []
    with _reading(path, megapixels), Image.open(path) as image:
        if image.format == "GIF" and int(Image.__version__.split(".")[0]) < 9:
            raise ValueError("Pillow %s does not compose the frames of GIF rightly: take Python 3.9 or "
                             "later, or leave out --frames" % Image.__version__)
        loop, first = image.info.get("loop"), int(image.info.get("default_image", 0))  # no frame of APNG
        if Image.MAX_IMAGE_PIXELS and image.width * image.height * image.n_frames > Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError("in %d frames" % image.n_frames)
        for frame in range(first, image.n_frames):
            image.seek(frame)
            picture = images.to_picture(image, [])
            color = picture.color.repeat(3 // picture.color.shape[2], axis=2)
            pictures.append(images.upright(picture._replace(color=_spread_color(color, picture.alpha))))
            durations.append(image.info.get("duration", 0))
        with open(path, "rb") as file:
            content = file.read()
        start = content.find(b"ANMF") + 24  # of what is in the first frame of WebP, after its size and place
        return Animation(pictures, durations, loop, content[start:start + 4] == b"VP8L")


@contextlib.contextmanager
def _reading(path, megapixels):
    """Within this context Pillow warns of nothing and refuses images with more than `megapixels`; whatever is
    raised becomes a UserError that names the file."""
    kept = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None if megapixels == float("inf") else int(megapixels * 1e6)
    try:
        with warnings.catch_warnings(), quiet_stderr():  # libtiff writes there
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError("%s has more than %g megapixels%s: raise the limit by --max-megapixels" % (
            path, megapixels, " " + str(error) if str(error).startswith("in ") else ""))
    except Exception as error:  # a damaged file can make Pillow raise nearly anything
        raise UserError(unreadable(path, error))
    finally:
        Image.MAX_IMAGE_PIXELS = kept


def _spread_color(color, alpha):
    """Give the fully transparent pixels, whose color is arbitrary, the color of the nearest other pixel."""
    hidden = alpha == 0 if alpha is not None else None
    if hidden is None or not hidden.any() or hidden.all():
        return color
    import scipy.ndimage  # here, since it takes a while, and few pictures need it
    nearest = scipy.ndimage.distance_transform_edt(hidden, return_distances=False, return_indices=True)
    return color[tuple(nearest)]


# -------------------------------------------------------------------------------------------------- writing

def fit_format(picture, name):
    """What of a Picture the format of this name can hold."""
    color, alpha, notes = picture.color, picture.alpha, picture.notes
    if color.dtype == np.uint16 and not FORMATS[name].has_16_bits:
        alpha = alpha if alpha is None else to_uint8(alpha / 257.0)
        color, notes = to_uint8(color / 257.0), notes + ["its 16 bits become 8: %s has no more" % name]
    if alpha is not None and not FORMATS[name].has_alpha:
        opacity = alpha[:, :, None] / np.float32(255)
        color, alpha = to_uint8(color * opacity + 255 * (1 - opacity)), None
        notes = notes + ["its transparency becomes white: %s has none" % name]
    return picture._replace(color=color, alpha=alpha, notes=notes)


def compose(sr, picture, factor):
    """The image of a Picture from the Store of its SR, in the type and with the channels of the Picture:
    [H, W, C], of which the last is alpha if it has one, upscaled by bicubic. Gray is the luma of SR.

    Works in strips, so that little is held beside the result.
    """
    (height, width, channels), has_alpha = picture.color.shape, picture.alpha is not None
    dtype = picture.color.dtype
    image = np.empty((factor * height, factor * width, channels + has_alpha), dtype)
    for span in cut_side(height, 64, ALPHA_REACH):
        own, strip = enlarge(span.own, factor), np.array(sr.array()[enlarge(span.own, factor)])
        strip = to_gray(strip) if channels == 1 else strip
        image[own, :, :channels] = to_integers(np.iinfo(dtype).max * strip, dtype)
        if has_alpha:
            alpha = imresize(picture.alpha[span.read, :, None], factor)
            image[own, :, channels:] = to_integers(alpha[enlarge(span.inner, factor)], dtype)
    return image


def to_pillow(image):
    """What compose() made as an image of Pillow, which has no 16 bits of color and alpha."""
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


# tags of EXIF that are kept: of the picture, its resolution, camera, software, date, artist, copyright,
# Windows' title to subject; the others say how the file is laid out, or are the orientation, which has been
# applied
KEPT_TAGS = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432) + tuple(range(0x9C9B, 0x9CA0))
SIZE_TAGS = 0xA002, 0xA003       # width and height
DROPPED_TAGS = {0x927C, 0xA005}  # the maker's note, whose offsets would not hold, and a folder of its own
LARGEST_EXIF = 65533 - 6         # bytes that JPEG can hold


def metadata(picture, factor, strip):
    """({"exif": the EXIF data that is to be kept, as bytes, "dpi": (x, y) dots per inch}, as far as there are
    any; notes) for a Picture's SR; nothing to `strip` it. The size of the image in it becomes that of SR."""
    if strip:
        return {}, []
    kept, notes = {}, ["not kept: " + ", ".join(picture.unkept)] if picture.unkept else []
    try:
        dpi = tuple(float(value) for value in picture.dpi or ())
        if len(dpi) == 2 and all(1 <= value <= 65535 for value in dpi):
            kept["dpi"] = dpi
    except (TypeError, ValueError, ZeroDivisionError):
        pass
    try:
        exif, source = Image.Exif(), picture.exif or {}
        for tag in set(KEPT_TAGS) & set(source):
            exif[tag] = source[tag]
        for folder in {EXIF_IFD, GPS_IFD} & set(source):
            values = {tag: value for tag, value in source.get_ifd(folder).items() if tag not in DROPPED_TAGS}
            sizes = zip(SIZE_TAGS, picture.color.shape[1::-1])  # no tags of GPS
            values.update((tag, factor * size) for tag, size in sizes if tag in values)
            exif[folder] = values
        data = exif.tobytes() if len(exif) else b""
    except Exception:  # damaged EXIF data makes Pillow raise nearly anything
        data = None
    if data is None or len(data) > LARGEST_EXIF:
        notes.append("its EXIF data cannot be kept")
    elif data:
        kept["exif"] = data
    return kept, notes


def save_images(path, name, composed, pictures, factor, args, animation=None):
    """Write what compose() made of Pictures in the format of this name, of an Animation all frames, with the
    profile and, but for args.strip, EXIF data and resolution of the first. WebP has loss where the Animation
    has it, or args.quality is given. Returns notes. Raises UserError, and ValueError for what the format
    refuses."""
    options, notes = metadata(pictures[0], factor, args.strip)
    has_alpha = any(picture.alpha is not None for picture in pictures)
    if composed[0].dtype == np.uint16 and composed[0].shape[2] > 1:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            write_deep_png(file, composed[0], pictures[0].profile, **options)
        return notes
    images = [to_pillow(image) for image in composed]
    if name in ("webp", "jpeg"):
        options["quality"] = args.quality or QUALITY
    if name == "jpeg":
        options["subsampling"] = 0  # chroma as fine as luma
    if animation:
        images = [to_frame(image, name, has_alpha) for image in images]
        if name == "gif":
            options = {"disposal": 2, "transparency": 255} if has_alpha else {}
        if name == "webp":
            options["lossless"] = animation.lossless and args.quality is None
        if animation.loop is not None:
            options["loop"] = animation.loop
        options.update(save_all=True, append_images=images[1:],
                       duration=[int(round(duration)) for duration in animation.durations])
    with replacing(path) as temporary:
        images[0].save(temporary, format=name, icc_profile=pictures[0].profile, **options)
    return notes


def write_deep_png(file, samples, profile, exif=None, dpi=None):
    """Write uint16 [H, W, C] as PNG, row by row, which pypng does and Pillow cannot."""
    import png  # here, since little needs this package

    class Writer(png.Writer):
        def write_preamble(self, outfile):
            super().write_preamble(outfile)
            if profile:
                png.write_chunk(outfile, b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile))
            if dpi:
                density = [int(value / 0.0254 + 0.5) for value in dpi]  # a meter
                png.write_chunk(outfile, b"pHYs", struct.pack(">IIB", *density + [1]))
            if exif:
                png.write_chunk(outfile, b"eXIf", exif[6:] if exif.startswith(b"Exif\0\0") else exif)

    height, width, channels = samples.shape
    writer = Writer(width, height, greyscale=channels < 3, alpha=channels % 2 == 0, bitdepth=16)
    writer.write_packed(file, (row.astype(">u2").tobytes() for row in samples))


def to_frame(image, name, has_alpha):
    """An image as the frame of an animation: of GIF, with 255 colors of its own and a transparent one."""
    if name != "gif":
        return image.convert("RGBA" if has_alpha else "RGB")
    frame = image.convert("RGB").convert("P", palette=Image.ADAPTIVE, colors=255)
    if has_alpha:
        frame.paste(255, mask=image.convert("RGBA").split()[3].point(lambda alpha: 255 * (alpha < 128)))
    return frame
