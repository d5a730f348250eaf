"""People's pictures, of any mode, depth, profile and orientation: found, and read with what else their files
hold."""
import contextlib
import glob
import os
import sys
import warnings
from collections import OrderedDict, namedtuple

from tools import images
from tools.command import UserError, quiet_stderr
from tools.images import Picture, is_file, is_image_file, unreadable

from PIL import Image

# durations: in ms; loop: how often, 0 is for ever, None once; lossless: whether it is a WebP file without
# loss
Animation = namedtuple("Animation", "pictures durations loop lossless")
ANIMATED = {"GIF": "gif", "PNG": "png", "WEBP": "webp"}  # formats of Pillow: suffix
# suffixes of pictures that people have and that Pillow does not read without plugins
UNREAD = (".heic .heif .hif .jxl .dng .cr2 .cr3 .crw .nef .nrw .arw .srf .raf .orf .rw2 .pef .srw .3fr .iiq "
          ".erf .x3f").split()


def find_pictures(inputs, output):
    """The image files that test.py --input names, each once: (paths, lines that say what was not found).

    Of folders and patterns, files with the suffix of an image format are taken, without hidden ones;
    subfolders are not searched; a note says what is left out. Raises UserError if the SR images would be put
    among their inputs, where the next run would find them.
    """
    Image.init()  # .mpo is opened by the plugin of JPEG; other suffixes are only written
    suffixes = [suffix for suffix, name in Image.EXTENSION.items() if name in Image.OPEN or suffix == ".mpo"]
    paths, errors = OrderedDict(), []
    for name in inputs:
        folder = name if os.path.isdir(name) else os.path.dirname(name)
        if is_file(name):
            paths[os.path.abspath(name)] = name
            continue
        try:
            found = ([os.path.join(name, entry) for entry in os.listdir(name)] if folder == name
                     else glob.glob(name))
        except OSError as error:
            errors.append("cannot read the folder %s: %s" % (name, error.strerror))
            continue
        found = sorted(path for path in found if not os.path.basename(path).startswith("."))
        if found and os.path.realpath(folder or ".") == os.path.realpath(output):
            raise UserError("--output %s is the folder of the input: choose another" % output)
        pictures = [path for path in found if is_image_file(path, suffixes)]
        left_out = _left_out(set(found) - set(pictures))
        if not pictures:
            reason = "URLs are not read: download it" if "://" in name else (
                "standard input is not read: name a file" if name == "-" else left_out)
            errors.append("no image at %s%s" % (name, reason and ": " + reason))
        elif left_out:
            print("note: %s: %s" % (name, left_out), file=sys.stderr)
        paths.update((os.path.abspath(path), path) for path in pictures)
    return list(paths.values()), errors


def _left_out(paths):
    """What these paths are that are not taken for pictures, in words; "" if there are none."""
    folders = sum(map(os.path.isdir, paths))
    unread = [os.path.basename(path) for path in paths if os.path.splitext(path)[1].lower() in UNREAD]
    kinds = (("subfolders", folders), ("no image files", len(paths) - folders - len(unread)),
             ("HEIC, JPEG XL or camera raw, which are not read", " ".join(sorted(unread))))
    found = ["%s (%s)" % kind for kind in kinds if kind[1]]
    return "left out: " + ", ".join(found) if found else ""


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


def _look(path, question):
    """question(image) of an image file that Pillow has opened, of which it has read the head alone; None if
    it cannot open it, which is said when it is read."""
    try:
        with quiet_stderr(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                return question(image)
    except Exception:
        return None


def is_animated(image):
    return getattr(image, "n_frames", 1) > 1


def picture_size(path, frames):
    """(width, height) by the head of an image file; None if it does not tell, or is an animation whose
    `frames` are all wanted."""
    return _look(path, lambda image: None if frames and is_animated(image) else image.size)


def animation_suffix(path):
    """The suffix of the format of an animation, one of ANIMATED; None for any other file."""
    return _look(path, lambda image: ANIMATED.get(image.format) if is_animated(image) else None)


def is_lossless(path):
    """Whether a file is an animation of WebP whose first frame is stored without loss."""
    with open(path, "rb") as file:
        content = file.read()
    first = content.find(b"ANMF")  # the frame: its size and place, and then its content
    return content[8:12] == b"WEBP" and content[first + 24:first + 28] == b"VP8L"


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
            color, alpha, profile = images.pixels(image, [])
            color = _spread_color(color.repeat(3 // color.shape[2], axis=2), alpha)
            exif = images.read_exif(image.getexif)
            unkept = images.find_unkept(image, exif)
            pictures.append(images.upright(Picture(color, alpha, profile, [], exif, None, unkept)))
            durations.append(image.info.get("duration", 0))
        return Animation(pictures, durations, loop, is_lossless(path))


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
