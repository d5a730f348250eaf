"""What surrounds the network: images, MATLAB's bicubic, metrics, data sets, sessions, checkpoints, and tiles."""
import contextlib
import functools
import glob
import hashlib
import io
import json
import os
import sys
import tempfile
import warnings
from collections import OrderedDict, namedtuple

import numpy as np
import scipy.ndimage
import scipy.sparse
from PIL import Image, ImageCms, ImageOps
from tqdm import tqdm

from model import MODELS, SCALES, model_variables
from ops import quiet_stderr, tf

try:
    import fcntl
except ImportError:  # Windows, where two processes that write to one folder at once are not kept apart
    fcntl = None


class UserError(Exception):
    """Something the user can mend; the message is one line that says what is wrong, where, and what to do next."""


def run_main(main):
    """Call main() as a command: a UserError, and what the system refuses (a full disk, a folder that is gone), becomes one line
    on stderr and exit status 1, Ctrl-C exit status 130."""
    try:
        sys.exit(main())
    except (UserError, OSError) as error:
        print("error: %s" % error, file=sys.stderr)
        sys.exit(1)
    except ImportError as error:
        print("error: %s: pip install -r requirements.txt (tensorflow-gpu 1.8 needs CUDA 9; README.md names the other way)"
              % str(error).strip().splitlines()[-1], file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


def positive(kind):
    """The type of an option that takes a positive number of this kind."""
    return _bounded(kind, "positive", lambda number: number > 0)


def not_negative(kind):
    """The type of an option that takes zero or a positive number of this kind."""
    return _bounded(kind, "not negative", lambda number: number >= 0)


def fraction(kind):
    """The type of an option that takes a number of this kind from 0 to below 1."""
    return _bounded(kind, "fraction", lambda number: 0 <= number < 1)


def _bounded(kind, words, accepts):
    def convert(text):
        if not accepts(kind(text)):
            raise ValueError(text)
        return kind(text)
    convert.__name__ = "%s %s" % (words, kind.__name__)
    return convert


def lock_file(path, wait):
    """Open a file that this process alone holds until it closes it or ends, made if it is not there.

    If another process holds it, wait for it to end, or else raise BlockingIOError.
    """
    file = open(path, "w")
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.close()
        raise
    return file


# ---------------------------------------------------------------------------------------------------------- images

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
_noticed = set()


def _notice_once(text):
    if text not in _noticed:
        _noticed.add(text)
        print("note: " + text, file=sys.stderr)


def read_image(path):
    """Read an image file as 8-bit RGB, uint8 [H, W, 3].

    Gray is repeated to three channels, 16 bits and floating point are scaled to 8 bits (65535 or 1.0 to 255), palettes are
    expanded, and alpha is dropped (with one notice a run). Raises UserError that names the file if it cannot be read.
    """
    try:
        with Image.open(path) as image:
            if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
                _notice_once("the alpha channel is dropped (first seen in %s)" % path)
            if image.mode[0] in "IF":  # deep gray; Pillow itself reads 16-bit RGB as 8-bit
                gray = to_uint8(_deep_gray(np.asarray(image)) / 257.0)
                return np.repeat(gray[:, :, None], 3, axis=2)
            if image.mode in ("LA", "La"):
                image = image.convert("L")
            elif image.mode in ("P", "PA"):
                image = image.convert("RGBA")
            return np.array(image.convert("RGB"))
    except Exception as error:  # a damaged file can make Pillow raise nearly anything
        raise UserError("cannot read the image %s: %s" % (path, error or type(error).__name__))


def save_image(path, image, **options):
    """Write uint8 [H, W, 3] or a Pillow image under a temporary name, then rename it to `path`. Raises UserError.

    options: of Pillow's Image.save(); the format is PNG if they name none.
    """
    temporary = path + ".tmp"
    try:
        try:
            image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
            image.save(temporary, **dict({"format": "PNG"}, **options))
            os.replace(temporary, path)
        finally:
            if os.path.exists(temporary):
                os.remove(temporary)
    except (OSError, ValueError) as error:
        raise UserError("cannot write %s: %s" % (path, getattr(error, "strerror", None) or error))


def to_uint8(x):
    """The one conversion to 8 bits: values in [0, 255], clipped and rounded half up as MATLAB does, as uint8."""
    return _to_integers(x, np.uint8)


def _to_integers(x, dtype):
    return np.floor(np.clip(x, 0, np.iinfo(dtype).max) + 0.5).astype(dtype)


def list_images(folder):
    """The image files in `folder`, sorted by name; subfolders are not searched."""
    return sorted(path for path in glob.glob(os.path.join(glob.escape(folder), "*"))
                  if path.lower().endswith(IMAGE_SUFFIXES))


# -------------------------------------------------------------------------------------------- pictures of users

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
        return _deep_gray(np.asarray(image))[:, :, None], None, profile
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


def _deep_gray(gray):
    """Gray of 16 bits, or of 32 bits or floating point within the range of 16 bits or [0, 1], as uint16."""
    peak = 1 if gray.dtype.kind == "f" else 65535
    if gray.size and not (gray.min() >= 0 and gray.max() <= peak):
        raise ValueError("its values reach from %g to %g, expected from 0 to %d" % (gray.min(), gray.max(), peak))
    return _to_integers(gray * 65535.0, np.uint16) if peak == 1 else gray.astype(np.uint16)


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


def compose(sr, picture, scale):
    """The Pillow image of a Picture from the Store of its SR, in the depth and with the channels of the Picture.

    Gray is the luma of SR; alpha is upscaled by bicubic. Works in strips, so that little is held beside the result.
    """
    height, width, channels = picture.color.shape
    dtype = picture.color.dtype
    mode = ("L" if channels == 1 else "RGB") + ("A" if picture.alpha is not None else "")
    mode = "I;16" if dtype == np.uint16 else mode
    image = Image.new(mode, (scale * width, scale * height))
    for start in range(0, height, 64):
        span = cut(start, min(start + 64, height), height, ALPHA_REACH)
        strip = np.array(sr.array()[enlarge(span.own, scale)])
        strip = strip.dot(np.float32([[0.299], [0.587], [0.114]])) if channels == 1 else strip
        strip = _to_integers(np.iinfo(dtype).max * strip, dtype)
        if picture.alpha is not None:
            alpha = to_uint8(imresize(picture.alpha[span.read, :, None], scale))
            strip = np.concatenate([strip, alpha[enlarge(span.inner, scale)]], axis=2)
        image.paste(Image.fromarray(strip[:, :, 0] if strip.shape[2] == 1 else strip), (0, scale * start))
    return image


# --------------------------------------------------------------------------------------------------------- bicubic

def _cubic(x):
    """Keys' cubic convolution kernel with a = -0.5."""
    x = np.abs(x)
    return np.where(x <= 1, (1.5 * x - 2.5) * x ** 2 + 1, np.where(x < 2, ((-0.5 * x + 2.5) * x - 4) * x + 2, 0))


@functools.lru_cache(maxsize=64)
def _resize_matrix(size, scale):
    """The linear map of imresize along one side of length `size`, a sparse [ceil(size * scale), size] matrix."""
    resized = int(np.ceil(round(size * scale, 9)))      # round(): 3 * (1/3) may be off by one part in 10^16
    shrink = min(scale, 1)                              # antialiasing widens the kernel when shrinking
    taps = int(np.ceil(4 / shrink)) + 2
    center = (np.arange(resized) + 0.5) / scale - 0.5   # of each output sample, in input samples
    first = np.floor(center - 2 / shrink).astype(int) + 1
    index = first[:, None] + np.arange(-1, taps - 1)    # [resized, taps]
    weight = _cubic(shrink * (center[:, None] - index))
    weight /= weight.sum(axis=1, keepdims=True)
    index = index % (2 * size)                          # symmetric padding: 0 1 2 2 1 0 0 1 2 ...
    index = np.where(index < size, index, 2 * size - 1 - index)
    row = np.repeat(np.arange(resized), taps)
    return scipy.sparse.csr_matrix((weight.ravel(), (row, index.ravel())), shape=(resized, size))


def imresize(image, scale):
    """MATLAB's imresize(image, scale), bicubic with antialiasing, in float64 and not rounded.

    image: [H, W, C] of any number type and range; returns float64 [ceil(scale H), ceil(scale W), C]. to_uint8() of the
    result is what MATLAB returns for a uint8 image.
    """
    image = np.asarray(image, np.float64)
    height, width, channels = image.shape
    image = _resize_matrix(height, scale).dot(image.reshape(height, -1))
    image = image.reshape(-1, width, channels).transpose(1, 0, 2)     # [W, sH, C]
    rows = image.shape[1]
    image = _resize_matrix(width, scale).dot(image.reshape(width, -1))
    return image.reshape(-1, rows, channels).transpose(1, 0, 2)       # [sH, sW, C]


def crop_to_multiple(image, scale):
    """Crop [H, W, ...] at the bottom and right so that both sides are multiples of `scale`."""
    height, width = image.shape[:2]
    return image[:height - height % scale, :width - width % scale]


def downscale(hr, scale):
    """The protocol's LR image of an HR image whose sides are multiples of `scale`: uint8 -> uint8."""
    return to_uint8(imresize(hr, 1.0 / scale))


def bicubic(lr, scale):
    """Bicubic upscaling of an LR image, the base line of every table: uint8 -> uint8."""
    return to_uint8(imresize(lr, scale))


# --------------------------------------------------------------------------------------------------------- metrics

def luma(rgb):
    """Y of ITU-R BT.601 as in MATLAB's rgb2ycbcr: RGB in [0, 255] -> float64 in [16, 235], not rounded."""
    return np.asarray(rgb, np.float64).dot([65.481, 128.553, 24.966]) / 255 + 16


def psnr(y1, y2):
    """Peak signal-to-noise ratio in dB of two images in [0, 255]; inf if they are equal."""
    mse = np.mean((np.asarray(y1, np.float64) - y2) ** 2)
    return float(10 * np.log10(255 ** 2 / mse)) if mse else float("inf")


def ssim(y1, y2):
    """SSIM of two float64 images in [0, 255] (Wang et al. 2004): 11x11 Gaussian, sigma 1.5, valid region."""
    from skimage.metrics import structural_similarity  # here, as in find_dataset, since little needs this package
    return float(structural_similarity(y1, y2, data_range=255, gaussian_weights=True, sigma=1.5, K1=0.01, K2=0.03,
                                       use_sample_covariance=False))


def check_size(sr, scale):
    """Raise UserError if an SR image is too small for score()."""
    height, width = sr.shape[:2]
    if min(height, width) < 11 + 2 * scale:
        raise UserError("an image of %dx%d pixels is too small to be evaluated at x%d: at least %d a side are needed"
                        % (width, height, scale, 11 + 2 * scale))


def score(sr, hr, scale):
    """(PSNR, SSIM) of an SR image by the paper's protocol; both uint8 RGB [H, W, 3].

    HR is cropped at the bottom and right to SR's size; `scale` pixels are cropped from every border of both; the metrics
    are those of Y in float64. Raises UserError if what is left is smaller than SSIM's window of 11x11.
    """
    check_size(sr, scale)
    height, width = sr.shape[:2]
    inner = slice(scale, height - scale), slice(scale, width - scale)
    y_sr, y_hr = luma(sr[inner]), luma(hr[:height, :width][inner])
    return psnr(y_sr, y_hr), ssim(y_sr, y_hr)


# ------------------------------------------------------------------------------------------------------- data sets

DataSet = namedtuple("DataSet", "name pairs origin")  # pairs: of Pair; origin: in words, where HR and LR come from
Pair = namedtuple("Pair", "name hr lr")               # paths; lr is None where it is made from HR by imresize

DATASETS = ("Sample", "Set5", "Set14", "B100", "Urban100")
SAMPLE = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")  # in scikit-image's package


def download_command(name, data_dir):
    """The command that downloads `name` to data_dir."""
    return "python tools/download.py %s%s" % (name, "" if data_dir == "data" else " --data-dir " + data_dir)


def find_dataset(name, scale, data_dir):
    """Find the images of a data set, one of DATASETS or the path of a folder of HR images, for `scale`.

    Under `data_dir` two layouts are known, the authors' (HR/Set5/baby.png, x2/Set5/baby.png) and EDSR's
    (Set5/HR/baby.png, Set5/LR_bicubic/X2/babyx2.png). Without the folder of LR images, LR is made from HR. Returns a DataSet;
    its name is that of the folder. Raises UserError if there is no such folder or no image in it, or two of the same name.
    """
    if name == "Sample":
        import skimage.data
        folder = os.path.dirname(skimage.data.__file__)
        pairs = [Pair(os.path.splitext(file)[0], os.path.join(folder, file), None) for file in SAMPLE]
        return DataSet(name, pairs, "%d photographs of scikit-image, LR by imresize" % len(pairs))
    if name in DATASETS:
        layouts = [(os.path.join(data_dir, "HR", name), os.path.join(data_dir, "x%d" % scale, name), "%s%s"),
                   (os.path.join(data_dir, name, "HR"), os.path.join(data_dir, name, "LR_bicubic", "X%d" % scale),
                    "%%sx%d%%s" % scale)]
    else:
        layouts, name = [(name, "", "")], os.path.basename(os.path.abspath(name))
    advice = "; get them with: " + download_command(name, data_dir) if name in DATASETS else ""
    found = [layout for layout in layouts if os.path.isdir(layout[0])]
    if not found:
        raise UserError("no images of %s: there is no folder %s%s" % (name, " or ".join(hr for hr, _, _ in layouts), advice))
    hr_dir, lr_dir, pattern = found[0]
    files = list_images(hr_dir)
    if not files:
        raise UserError("no image in %s: expected files ending in %s%s" % (hr_dir, " ".join(IMAGE_SUFFIXES), advice))
    published = os.path.isdir(lr_dir)
    pairs = OrderedDict()
    for path in files:
        stem, suffix = os.path.splitext(os.path.basename(path))
        if stem in pairs:
            raise UserError("%s and %s have the same name but for the suffix: rename one" % (pairs[stem].hr, path))
        pairs[stem] = Pair(stem, path, os.path.join(lr_dir, pattern % (stem, suffix)) if published else None)
    origin = "%d images of %s, LR %s" % (len(pairs), hr_dir, "of " + lr_dir if published else "by imresize")
    return DataSet(name, list(pairs.values()), origin)


def read_pair(pair, scale):
    """Read a Pair: (LR, HR), both uint8 RGB; HR is cropped to `scale` times LR's size. Raises UserError."""
    hr = read_image(pair.hr)
    if pair.lr is None:
        hr = crop_to_multiple(hr, scale)
        if not hr.size:
            raise UserError("%s is smaller than %d pixels" % (pair.hr, scale))
        return downscale(hr, scale), hr
    if not os.path.exists(pair.lr):
        raise UserError("%s has no LR image %s: add it, or remove the folder to have LR made from HR" % (pair.hr, pair.lr))
    lr = read_image(pair.lr)
    expected = hr.shape[0] // scale, hr.shape[1] // scale
    if lr.shape[:2] != expected:
        raise UserError("%s has %dx%d pixels, but %dx%d belong to %s at x%d"
                        % (pair.lr, lr.shape[1], lr.shape[0], expected[1], expected[0], pair.hr, scale))
    return lr, crop_to_multiple(hr, scale)


# ------------------------------------------------------------------------------------- sessions and checkpoints

def open_session(gpus, target="", **config):
    """A session on the GPUs with these indices, on the CPU if there is none (one line says so) or for [-1].

    target: of the tf.train.Server whose cluster the session spans. config: further fields of tf.ConfigProto.
    """
    session = tf.Session(target, config=session_config(gpus, **config))
    found = sum(device.device_type == "GPU" for device in session.list_devices())
    if gpus[0] >= 0 and found < len(gpus):
        _notice_once("GPU %s is not available to TensorFlow %s: running on %s" % (
            ",".join(map(str, gpus)), tf.__version__, "%d GPU" % found if found else "the CPU"))
    return session


def session_config(gpus, **config):
    """The tf.ConfigProto of a process that sees the GPUs with these indices alone, and takes their memory as needed."""
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
    config = tf.ConfigProto(allow_soft_placement=True, **config)
    config.gpu_options.allow_growth = True
    return config


PATTERN = set("*?[")  # characters in paths that TensorFlow expands without need


def checkpoint_prefix(path):
    """The prefix of a TensorFlow V2 checkpoint named by its prefix, its .index file or its folder, or None."""
    if os.path.isdir(path):
        with contextlib.suppress(ValueError):  # a state file that is empty
            state = tf.train.get_checkpoint_state(path)  # latest_checkpoint() would take its path for a pattern
            if state and os.path.exists(state.model_checkpoint_path + ".index"):
                return state.model_checkpoint_path
        indexes = glob.glob(os.path.join(glob.escape(path), "*.index"))  # its state file may name another machine's path
        return indexes[0][:-len(".index")] if len(indexes) == 1 else None
    prefix = path[:-len(".index")] if path.endswith(".index") else path
    return prefix if os.path.exists(prefix + ".index") else None


def find_checkpoint(model, scale, path=None):
    """The prefix of the checkpoint at `path`, by default the one shipped for model and scale. Raises UserError, also for a path
    that TensorFlow cannot read."""
    shipped = os.path.join(os.path.dirname(os.path.abspath(__file__)), "checkpoints", scale, model)
    prefix = checkpoint_prefix(shipped if path is None else path)
    if prefix and set(prefix) & PATTERN:
        raise UserError("TensorFlow takes the characters *?[ in %s for a pattern: rename the folder" % prefix)
    if prefix:
        return prefix
    if path is not None:
        raise UserError("no checkpoint at %s: expected a prefix, an .index file or a folder with one checkpoint" % path)
    train = "train it with: python train.py --model %s --scale %s --data FOLDER" % (model, scale)
    if model == "32l" and scale != "x2":
        train = "the paper publishes none for 32l at %s; %s" % (scale, train)
    raise UserError("no checkpoint for %s %s in %s: %s" % (model, scale, os.path.relpath(shipped), train))


def file_sha256(path):
    """The SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def checkpoint_config(prefix):
    """What stands in the config.json beside a checkpoint: how it was trained; {} if there is none, as with the authors'."""
    try:
        with open(os.path.join(os.path.dirname(prefix), "config.json")) as file:
            return dict(json.load(file))
    except (OSError, ValueError, TypeError):
        return {}


def training_history(prefix):
    """The configs of all trainings that led to a checkpoint, the first one first; that of unknown weights is their path alone."""
    config = checkpoint_config(prefix)
    if "trained_before" not in config:
        return [{"checkpoint": prefix}]
    return config.pop("trained_before") + [{key: value for key, value in config.items() if key != "sha256"}]


def _check_sha256(prefix):
    """Say so if a file of the checkpoint is not the one whose SHA-256 stands in the config.json beside it."""
    folder, name = os.path.split(prefix)
    for file, digest in sorted(checkpoint_config(prefix).get("sha256", {}).items()):
        path = os.path.join(folder, file)
        if file.startswith(name + ".") and os.path.exists(path) and file_sha256(path) != digest:
            _notice_once("%s is not the file that was trained: its SHA-256 differs from that in config.json" % path)


def _check_ablation(prefix, without):
    """Raise UserError if a checkpoint was trained without another part of the network than `without` (None: with all)."""
    trained = checkpoint_config(prefix).get("without")
    if trained != without:
        raise UserError("%s was trained %s" % (prefix, "without %s: it needs test.py --without %s" % (trained, trained)
                                               if trained else "with all parts of the network: leave out --without"))


def restore_weights(session, prefix, without=None):
    """Load the variables of DRSAN in the default graph from a checkpoint; whatever else it holds is ignored.

    without: as in drsan(). Raises UserError if the checkpoint is that of another ablation, and names the first variable that it
    lacks or has in another shape.
    """
    _check_ablation(prefix, without)
    _check_sha256(prefix)
    with checkpoint_errors(prefix):
        reader = tf.train.NewCheckpointReader(prefix)
        shapes = reader.get_variable_to_shape_map()
        for variable in model_variables():
            name, shape = variable.op.name, variable.shape.as_list()
            if shapes.get(name) != shape:
                raise UserError("%s is a checkpoint of another model or scale: %s should have the shape %s, but %s" % (
                    prefix, name, shape, "has %s" % shapes[name] if name in shapes else "is missing"))
        load_values(session, model_variables(), [reader.get_tensor(v.op.name) for v in model_variables()])


def transfer_weights(session, prefix):
    """Load what a checkpoint of another scale or depth has in common with DRSAN in the default graph.

    A variable is taken if it has the same role (see _roles) and shape: x0, the DRAGs that both have, the convolution before the
    skip, and the output convolution. The upsampler of another scale is taken, too, with its sub-pixels interpolated. What is new
    starts as initialised, but where it can, it passes on what it gets (see neutral_value), so that training starts from an image
    and does not spoil what was taken. Returns the names taken, the names not taken, and a line that says so. Raises UserError if
    the checkpoint is not DRSAN's, or its features have another number of channels, so that nothing can be taken.
    """
    _check_ablation(prefix, None)
    with checkpoint_errors(prefix):
        reader = tf.train.NewCheckpointReader(prefix)
        shapes = reader.get_variable_to_shape_map()
        there = {role: name for name, role in _roles(shapes).items()}
        first = model_variables()[0]
        if shapes.get(first.op.name) != first.shape.as_list():
            raise UserError("nothing can be taken from %s: its %s %s, and this model's has %s" % (
                prefix, first.op.name, "has the shape %s" % shapes[first.op.name] if first.op.name in shapes else "is missing",
                first.shape.as_list()))
        channels = first.shape.as_list()[-1]
        roles = _roles(variable.op.name for variable in model_variables())
        names, fresh, variables, values = [], [], [], []
        for variable in model_variables():
            role, shape = roles[variable.op.name], variable.shape.as_list()
            value = reader.get_tensor(there[role]) if role in there else None
            if value is not None and "upsampler" in role:
                value = resample_subpixels(value, shape, channels)
            if value is not None and list(value.shape) == shape:
                names.append(variable.op.name)
            else:
                fresh.append(variable.op.name)
                value = neutral_value(role, shape, channels)
            if value is not None:
                variables.append(variable)
                values.append(value)
    load_values(session, variables, values)
    return names, fresh, "%d variables taken from %s%s" % (
        len(names), prefix, ", %d not: %s" % (len(fresh), " ".join(fresh)) if fresh else "")


def resample_subpixels(value, shape, channels):
    """The kernel or bias of a sub-pixel convolution, [..., r r channels], for another factor r: of this shape.

    Each of its r x r sub-pixels is interpolated linearly between those of `value`, the outermost repeated beyond.
    """
    old, new = (int(round((size // channels) ** 0.5)) for size in (value.shape[-1], shape[-1]))
    centers = [(np.arange(r) + 0.5) / r for r in (old, new)]
    weights = np.stack([np.interp(centers[1], centers[0], row) for row in np.eye(old)], 1)  # [new, old]
    value = value.reshape(value.shape[:-1] + (old, old, -1))
    value = np.einsum("ia,jb,...abc->...ijc", weights, weights, value)
    return value.reshape(value.shape[:-3] + (-1,))


def neutral_value(role, shape, channels):
    """The kernel of a new convolution that passes on what it gets, or None where there is none.

    The last of a DRAG, over the concatenated features [x, f_1, ...], has one that gives x; a second upsampling has bilinear
    interpolation by 2.
    """
    if role[:2] == ("kernel", "upsampler"):
        taps = np.array([[0.25, 0.75, 0], [0, 0.75, 0.25]])  # [sub-pixel, tap]
        return np.einsum("iy,jx,cd->yxcijd", taps, taps, np.eye(channels)).reshape(shape)
    if role[:2] == ("kernel", "body") and shape[0] == 1 and shape[2] > shape[3] == channels:
        return np.eye(shape[2], channels).reshape(shape)
    return None


def _roles(names):
    """{name: role} of DRSAN's variables among `names`; a role does not depend on depth and scale as the name conv2d_46 does."""
    names = {name for name in names if name.startswith("DRAN/") and not name.endswith(
        ("/AdamOptimizer", "/AdamOptimizer_1", "/ExponentialMovingAverage"))}
    drags = sum(name.endswith("prelualpha") for name in names)
    per_drag = sum(name.startswith("DRAN/conv_block1_pReLU_") for name in names) + 3
    convolutions = sum(name.endswith("/kernel") for name in names)
    upsampler = 1 + drags * per_drag + 1
    roles = {}
    for name in names:
        layer, _, part = name[len("DRAN/"):].partition("/")
        if not part:
            roles[name] = name  # a slope, numbered by its DRAG
            continue
        i = int(layer[len("conv2d_"):] or 0)
        if i < upsampler - 1:
            roles[name] = (part, "body", i)
        elif i < upsampler:
            roles[name] = (part, "before the skip")
        elif i < convolutions - 1:
            roles[name] = (part, "upsampler", i - upsampler)
        else:
            roles[name] = (part, "output")
    return roles


@contextlib.contextmanager
def checkpoint_errors(prefix):
    """Turn what TensorFlow raises while it reads a checkpoint into a UserError that names it."""
    try:
        yield
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:  # the last two by TensorFlow 2's reader
        raise UserError("cannot read the checkpoint %s: %s" % (prefix, str(error).splitlines()[0]))


def load_values(session, variables, values):
    """Assign arrays to variables in one call, without new operations in the graph."""
    initializers = [variable.initializer for variable in variables]
    session.run(initializers, {initializer.inputs[1]: value for initializer, value in zip(initializers, values)})


def save_weights(session, folder, model, scale):
    """Write the variables of DRSAN, without optimiser slots, as the one checkpoint of `folder`; returns its prefix."""
    os.makedirs(folder, exist_ok=True)
    saver = tf.train.Saver(model_variables(), save_relative_paths=True)
    return saver.save(session, os.path.join(folder, "DRSAN%s%s" % (model, scale)), write_meta_graph=False)


def write_json(path, value):
    """Write `value` under a temporary name, then rename it to `path`."""
    with open(path + ".tmp", "w") as file:
        json.dump(value, file, indent=1, sort_keys=True)
        file.write("\n")
    os.replace(path + ".tmp", path)


# ------------------------------------------------------------------------------- upscaling within a stated memory

Span = namedtuple("Span", "own read inner")  # slices: of a side, with the halo on it, and of `read` what is `own`
LARGEST_TILE = 256   # pixels a side; on a CPU, larger ones take more memory and no less time
SMALLEST_TILE = 16   # smaller ones are nearly all halo
OVERHEAD = 2 ** 26   # bytes that running any network takes, besides those of its feature maps


class Store(object):
    """A float32 array of zeros in memory or, if `folder` is given, in a temporary file there that has no name.

    Raises UserError if the disk is too full.
    """

    def __init__(self, shape, folder=None):
        self.shape = tuple(shape)
        self._array = self._file = None
        if folder is None:
            self._array = np.zeros(self.shape, np.float32)
        else:
            size = 4 * int(np.prod(self.shape, dtype=np.int64))
            try:
                self._file = tempfile.TemporaryFile(dir=folder)
                if hasattr(os, "posix_fallocate"):  # or a full disk would kill the process when a page is written
                    os.posix_fallocate(self._file.fileno(), 0, size)
                self._file.truncate(size)
            except OSError as error:
                raise UserError("cannot keep %.2f GiB in %s: %s" % (size / 2 ** 30, folder, error.strerror))

    def array(self):
        """The array. Call it for each use and keep no reference: pages of a file count as memory until it is let go."""
        return self._array if self._file is None else np.memmap(self._file, np.float32, "r+", shape=self.shape)


def cut(start, stop, size, halo):
    """The Span [start, stop) of a side of `size` pixels; the halo ends at the border, where SAME convolutions pad."""
    first = max(start - halo, 0)
    return Span(slice(start, stop), slice(first, min(stop + halo, size)), slice(start - first, stop - first))


def enlarge(span, scale):
    """The slice of an SR image that belongs to a slice of its LR image."""
    return slice(scale * span.start, scale * span.stop)


def tiles(height, width, side, halo):
    """Cut an image into nearly equal tiles of at most side x side pixels: Spans whose fields are (rows, columns)."""
    def spans(size):
        count = -(-size // side)
        return [cut(size * i // count, size * (i + 1) // count, size, halo) for i in range(count)]
    return [Span(*zip(rows, columns)) for rows in spans(height) for columns in spans(width)]


def _dihedral(image, t):
    """View t of the 8 that flips and a transposition make of [H, W, C]."""
    image = image.transpose(1, 0, 2) if t & 4 else image
    image = image[::-1] if t & 2 else image
    return image[:, ::-1] if t & 1 else image


def network_input(image):
    """uint8 or uint16 [H, W, 3], or [H, W, 1] for gray, as the network takes it: float32 [1, H, W, 3] in [0, 1]."""
    return np.repeat(image[None] / np.float32(np.iinfo(image.dtype).max), 3 // image.shape[2], axis=3)


class Upscaler(object):
    """Upscales images of any size by a restored network within a stated memory.

    lr, sr: placeholder and output of the network in `session`. tile: the most pixels a side of a tile, or None: the
    whole image where it fits. memory: the bytes that this process may take (on a GPU: of its memory), or None: 4/5 of
    what is free. ensemble: average over the 8 flips and transpositions. folder: for temporary files, where memory does
    not do.

    The result does not depend on the tiles (to 1e-5): the DRM pools over the whole image, so the network runs DRAG by
    DRAG over all tiles, with the halo that its convolutions need, and the sums over all tiles become the DRA values of
    the next pass. All of it is parts of one graph, cut off at its named tensors.
    """

    def __init__(self, session, lr, sr, model, scale, tile=None, memory=None, ensemble=False, folder=None):
        self.session, self.lr, self.sr, self.scale = session, lr, sr, SCALES[scale]
        self.variant = MODELS[model]
        self.tile, self.ensemble, self.folder = tile, ensemble, folder or tempfile.gettempdir()
        gpu = gpu_memory(session)
        self.host = (0.8 * free_memory() if memory is None or gpu else memory - resident_memory()) - OVERHEAD
        self.device = (memory or 0.8 * gpu) if gpu else None

    def __call__(self, image):
        """Upscale uint8 or uint16 [H, W, 3 or 1 (gray)]; returns a Store of SR, float32 [s H, s W, 3].

        White is 1 in SR, which is not clipped. Raises UserError if the memory does not suffice.
        """
        height, width = image.shape[:2]
        side, on_disk = self.plan(height, width)
        views = range(8 if self.ensemble else 1)
        try:
            sr = self._store(height * self.scale, width * self.scale, 3, on_disk)
            for view in views:
                def add(region, values):
                    _dihedral(sr.array(), view)[region] += values / len(views)
                self._run(_dihedral(image, view), side, on_disk, add)
            return sr
        except (tf.errors.ResourceExhaustedError, MemoryError):
            raise UserError("not enough memory for an LR image of %dx%d pixels%s: try a smaller --tile, or --gpu -1" % (
                width, height, " in tiles of %d" % side if side else ""))

    def plan(self, height, width):
        """(side of the tiles, or None for the whole image; whether what grows with the image goes to disk)."""
        pixels, per_pixel = height * width, bytes_per_pixel(self.variant, self.scale)
        stores = (12 * self.scale ** 2 + 8 * self.variant.channels) * pixels  # SR, and the features between passes
        spare = self.host - 4 * self.scale ** 2 * pixels                      # without the picture that is written
        if not self.tile and per_pixel * pixels < (self.device or spare):
            return None, False
        on_disk = stores > spare / 2
        room = self.device or (spare if on_disk else spare - stores)
        halo = self.halo(self.variant.drags)
        largest = max(height, width) if self.device else LARGEST_TILE
        side = self.tile or min(int(max(room / per_pixel, 0) ** 0.5) - 2 * halo, largest)
        if side < SMALLEST_TILE and not self.tile:
            more = per_pixel * (SMALLEST_TILE + 2 * halo) ** 2 - room
            raise UserError("not enough memory for an LR image of %dx%d pixels: %.2f GiB more are needed" % (
                width, height, more / 2 ** 30))
        return side, on_disk

    def halo(self, k):
        """Pixels around a tile on which pass k depends: 3x3 convolutions, and in the last those after the DRAGs."""
        if k == 0:
            return 1
        return 2 * self.variant.blocks + (3 if k == self.variant.drags else 1)

    def _store(self, height, width, channels, on_disk):
        return Store((height, width, channels), self.folder if on_disk else None)

    def _run(self, image, side, on_disk, add):
        """Run the network on one image; add(region, values) takes the parts of SR, region being (rows, columns)."""
        if side is None:
            add(Ellipsis, self.session.run(self.sr, {self.lr: network_input(image)})[0])
            return
        height, width = image.shape[:2]
        source, target = (self._store(height, width, self.variant.channels, on_disk) for _ in range(2))
        dra = None
        for k in range(self.variant.drags + 1):
            dra = self._pass(k, image, side, dra, source, target, add)
            source, target = target, source

    def _pass(self, k, image, side, dra, source, target, add):
        """Pass k over all tiles: DRAG k with these DRA values, from the features in `source` to those in `target`.

        Pass 0 has no DRAG, and pass 1 makes the features that it reads. Returns the DRA values of DRAG k + 1; the last
        pass makes SR instead.
        """
        last = k == self.variant.drags
        fetches = [self.sr] if last else ["DRAN/DRAG%d/DRM:0" % (k + 1)] + ["DRAN/DRAG%d/features:0" % k] * (k > 0)
        total = 0
        for tile in tqdm(tiles(image.shape[0], image.shape[1], side, self.halo(k)), unit="tile", leave=False,
                         disable=None, desc="pass %d of %d" % (k + 1, self.variant.drags + 1)):
            feed = {self.lr: network_input(image[tile.read])}
            if k > 0:
                feed["DRAN/DRAG%d/DRA:0" % k] = dra
            if k > 1:
                feed["DRAN/DRAG%d/features:0" % (k - 1)] = source.array()[tile.read][None]
            results = self.session.run(fetches, feed)
            if last:
                inner = tuple(enlarge(span, self.scale) for span in tile.inner)
                add(tuple(enlarge(span, self.scale) for span in tile.own), results[0][0][inner])
                continue
            total = total + results[0][0][tile.inner].sum(axis=(0, 1), dtype=np.float64)
            if k > 0:
                target.array()[tile.own] = results[1][0][tile.inner]
        return np.reshape(total, [1, 1, 1, -1]) / (image.shape[0] * image.shape[1])


def bytes_per_pixel(variant, scale):
    """Bytes of memory that the network takes for a pixel of the LR image on a CPU, an upper bound of what was measured.

    Feature maps of f float32 channels that live at the same time: some of LR's size, three of SR's in the upsampler.
    TensorFlow 1 holds more of them.
    """
    maps = 24 + 12 * scale ** 2 if tf.__version__.startswith("1.") else 10 + 3 * scale ** 2
    return 4 * variant.channels * maps


def resident_memory():
    """Bytes of memory that this process takes; 2^29 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 2 ** 29


def free_memory():
    """Bytes of memory that are free on this machine or in its control group; 2^32 where the system does not say."""
    try:
        free = 1024 * int(_read_fields("/proc/meminfo")["MemAvailable:"])
    except OSError:
        return 2 ** 32
    for folder, limit, used, cache in (
            ("/sys/fs/cgroup/", "memory.max", "memory.current", "file"),
            ("/sys/fs/cgroup/memory/", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache")):
        try:
            limit, used = (int(open(folder + name).read()) for name in (limit, used))
            free = min(free, limit - used + int(_read_fields(folder + "memory.stat")[cache]))
        except (OSError, ValueError):  # no such control group, or one without a limit
            pass
    return free


def _read_fields(path):
    """{first word: second word} of the lines of a file."""
    with open(path) as file:
        return dict(line.split()[:2] for line in file)


def gpu_memory(session):
    """Bytes of memory of the smallest GPU of a session, 0 without one."""
    return min([device.memory_limit_bytes for device in session.list_devices() if device.device_type == "GPU"] or [0])
