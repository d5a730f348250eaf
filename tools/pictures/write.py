"""People's pictures are written: composed from what the network makes of them, in the depth and with the
channels of the original, its profile, EXIF data and resolution, alone or as the frames of an animation."""
import struct
import zlib

from tools.files import replacing
from tools.images import EXIF_IFD, GPS_IFD
from tools.pictures.tiles import cut, enlarge, to_gray
from utils import imresize, to_integers, to_uint8

import numpy as np
from PIL import Image

FORMATS = {"png": 2 ** 31 - 1, "webp": 16383, "jpeg": 65500}  # what is written: the most pixels a side
LARGEST_SIDE = dict(FORMATS, gif=65535)
SUFFIX_FORMATS = {".png": "png", ".webp": "webp", ".jpg": "jpeg", ".jpeg": "jpeg"}
QUALITY = 95     # of webp and jpeg, where none is given
ALPHA_REACH = 4  # pixels of alpha around a strip that its bicubic upscaling looks at, and some
# tags of EXIF that are kept: of the picture, its resolution, camera, software, date, artist, copyright,
# Windows' title to subject; the others say how the file is laid out, or are the orientation, which has been
# applied
KEPT_TAGS = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432) + tuple(range(0x9C9B, 0x9CA0))
SIZE_TAGS = 0xA002, 0xA003       # width and height
DROPPED_TAGS = {0x927C, 0xA005}  # the maker's note, whose offsets would not hold, and a folder of its own
LARGEST_EXIF = 65533 - 6         # bytes that JPEG can hold


def fit_format(picture, name):
    """What of a Picture the format, one of FORMATS, can hold: JPEG has no alpha, and PNG alone has 16
    bits."""
    color, alpha, notes = picture.color, picture.alpha, picture.notes
    if name != "png" and color.dtype == np.uint16:
        alpha = alpha if alpha is None else to_uint8(alpha / 257.0)
        color, notes = to_uint8(color / 257.0), notes + ["its 16 bits become 8: %s has no more" % name]
    if name == "jpeg" and alpha is not None:
        opacity = alpha[:, :, None] / np.float32(255)
        color, alpha = to_uint8(color * opacity + 255 * (1 - opacity)), None
        notes = notes + ["its transparency becomes white: jpeg has none"]
    return picture._replace(color=color, alpha=alpha, notes=notes)


def compose(sr, picture, factor):
    """The image of a Picture from the Store of its SR, in the depth and with the channels of the Picture: of
    Pillow or, where that has no 16 bits (color, alpha), uint16 [H, W, C] with the highest byte first.

    Gray is the luma of SR; alpha is upscaled by bicubic. Works in strips, so that little is held beside the
    result.
    """
    height, width, channels = picture.color.shape
    dtype, size, has_alpha = picture.color.dtype, (factor * width, factor * height), picture.alpha is not None
    if dtype == np.uint16 and (channels > 1 or has_alpha):
        image = np.empty(size[::-1] + (channels + has_alpha,), ">u2")
    else:
        mode = "I;16" if dtype == np.uint16 else ("L" if channels == 1 else "RGB") + "A" * has_alpha
        image = Image.new(mode, size)
    for span in cut(height, 64, ALPHA_REACH):
        strip = np.array(sr.array()[enlarge(span.own, factor)])
        strip = to_gray(strip) if channels == 1 else strip
        strip = to_integers(np.iinfo(dtype).max * strip, dtype)
        if has_alpha:
            alpha = to_integers(imresize(picture.alpha[span.read, :, None], factor), dtype)
            strip = np.concatenate([strip, alpha[enlarge(span.inner, factor)]], axis=2)
        if isinstance(image, np.ndarray):
            image[enlarge(span.own, factor)] = strip
        else:
            strip = strip[:, :, 0] if strip.shape[2] == 1 else strip
            image.paste(Image.fromarray(strip), (0, factor * span.own.start))
    return image


def metadata(picture, factor, strip):
    """({"exif": the EXIF data that is to be kept, as bytes, "dpi": (x, y) dots per inch}, as far as there are
    any; notes) for a Picture's SR; nothing to `strip` it.

    The size of the image in it becomes that of SR. Orientation, thumbnail and maker's note are left out.
    """
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


def write_deep_png(file, samples, profile, exif=None, dpi=None):
    """Write uint16 [H, W, C], highest byte first, as PNG, row by row, which pypng does and Pillow cannot."""
    import png  # here, since little needs this package

    class Writer(png.Writer):
        def write_preamble(self, outfile):
            super(Writer, self).write_preamble(outfile)
            if profile:
                png.write_chunk(outfile, b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile))
            if dpi:
                density = [int(value / 0.0254 + 0.5) for value in dpi]  # a meter
                png.write_chunk(outfile, b"pHYs", struct.pack(">IIB", *density + [1]))
            if exif:
                png.write_chunk(outfile, b"eXIf", exif[6:] if exif.startswith(b"Exif\0\0") else exif)

    height, width, channels = samples.shape
    writer = Writer(width, height, greyscale=channels < 3, alpha=channels % 2 == 0, bitdepth=16)
    writer.write_packed(file, (row.tobytes() for row in samples))


def save_picture(path, image, picture, factor, args):
    """Write what compose() made of a Picture, with its profile and, but for args.strip, EXIF data and
    resolution, as args.format. Returns notes. Raises UserError, and ValueError for what the format
    refuses."""
    options, notes = metadata(picture, factor, args.strip)
    with replacing(path) as temporary:
        if isinstance(image, np.ndarray):
            with open(temporary, "wb") as file:
                write_deep_png(file, image, picture.profile, **options)
            return notes
        if args.format != "png":
            options["quality"] = args.quality or QUALITY
        if args.format == "jpeg":
            options["subsampling"] = 0  # chroma as fine as luma
        image.save(temporary, format=args.format, icc_profile=picture.profile, **options)
    return notes


def save_animation(path, frames, animation, suffix, factor, args):
    """Write composed frames, a generator of 8-bit Pillow images, with durations, loop and, but for
    args.strip, EXIF data of an Animation; without loss where it has none, unless args.quality is given.
    Returns and raises as save_picture()."""
    first, has_alpha = animation.pictures[0], any(picture.alpha is not None for picture in animation.pictures)
    frames = [_frame(image, suffix, has_alpha) for image in frames]
    options, notes = metadata(first, factor, args.strip)
    if suffix == "gif":
        options = {"disposal": 2, "transparency": 255} if has_alpha else {}
    if suffix == "webp":
        lossless = animation.lossless and args.quality is None
        options.update(quality=args.quality or QUALITY, lossless=lossless)
    if animation.loop is not None:
        options["loop"] = animation.loop
    durations = [int(round(duration)) for duration in animation.durations]
    with replacing(path) as temporary:
        frames[0].save(temporary, format=suffix, save_all=True, append_images=frames[1:], duration=durations,
                       icc_profile=first.profile, **options)
    return notes


def _frame(image, suffix, has_alpha):
    """A composed image as the frame of an animation: of GIF, with 255 colors of its own and a transparent
    one."""
    if suffix != "gif":
        return image.convert("RGBA" if has_alpha else "RGB")
    frame = image.convert("RGB").convert("P", palette=Image.ADAPTIVE, colors=255)
    if has_alpha:
        frame.paste(255, mask=image.convert("RGBA").split()[3].point(lambda alpha: 255 * (alpha < 128)))
    return frame
