"""What evaluation needs, without TensorFlow: images of data sets, MATLAB's bicubic, PSNR and SSIM on Y, and the data sets; before
them, what every command needs: errors, types of options, and files that are whole at any time.

People's pictures are read in tools/pictures/, checkpoints in tools/checkpoints.py, sessions are opened in tools/runtime.py.
"""
import concurrent.futures
import contextlib
import errno
import functools
import glob
import hashlib
import io
import json
import os
import sys
import tempfile
from collections import OrderedDict, namedtuple

import numpy as np
import scipy.sparse

from tools import images

try:
    import imageio.v2 as imageio
except ImportError:  # that of Python 3.6 has one interface
    import imageio
try:
    import fcntl
except ImportError:  # Windows, where two processes that write to one folder at once are not kept apart
    fcntl = None


INSTALL = "pip install -r requirements.txt (tensorflow-gpu 1.8 needs CUDA 9; README.md names the other way)"
STRIP = 2 ** 20  # pixels that are worked on at once where a large image would need several times its own memory


class UserError(Exception):
    """Something the user can mend; the message is one line that says what is wrong, where, and what to do next."""


def open_standard_files():
    """Give stdin, stdout and stderr a file where they have been closed (2>&-), or else the next file that is opened would get what
    is printed, or printing would fail."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", errors="backslashreplace"))


open_standard_files()  # before anything else is imported that prints


def escape_unprintable():
    """Print what the encoding of stdout or stderr does not have, as names of files, with escapes."""
    for name in "stdout", "stderr":
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        elif getattr(stream, "errors", "backslashreplace") != "backslashreplace":  # Python 3.6; sys.__stdout__ keeps the file open
            stream.flush()
            setattr(sys, name, io.TextIOWrapper(stream.buffer, stream.encoding, "backslashreplace", line_buffering=True))


def run_main(main):
    """Call main() as a command: a UserError, and what the system refuses (a full disk, a folder that is gone), becomes one line
    on stderr and exit status 1, Ctrl-C exit status 130."""
    escape_unprintable()
    try:
        sys.exit(main())
    except UserError as error:
        print("error: %s" % error, file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print("error: %s" % refusal(error), file=sys.stderr)
        sys.exit(1)
    except ImportError as error:
        print("error: %s: %s" % (str(error).strip().splitlines()[-1], INSTALL), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


WRITE_ERRORS = errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS


def refusal(error):
    """What the system refused, from an OSError, in one line."""
    reason = error.strerror or str(error)
    if error.errno in WRITE_ERRORS:
        return "cannot write %s: %s" % (error.filename or "a file", reason)
    return "%s: %s" % (error.filename, reason) if error.filename else reason


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


@contextlib.contextmanager
def locked(folder, doing, option):
    """Within this context no other process does the same in the folder, which is made if it is not there.

    doing: in words, as "trains in"; option: that names another folder. Raises UserError if another process has it already.
    """
    os.makedirs(folder, exist_ok=True)
    try:
        lock = lock_file(os.path.join(folder, ".lock"), wait=False)
    except BlockingIOError:
        raise UserError("another process %s %s: wait for it, or give another %s" % (doing, folder, option))
    with lock:
        yield


@contextlib.contextmanager
def quiet_stderr():
    """Drop what is written to the file descriptor of stderr: libraries in C and C++, as TensorFlow on import, write
    lines there that no setting turns off. An exception still says what it says."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as dropped:
        os.dup2(dropped.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def cpu_count():
    """The processors that this process may use; `taskset` and schedulers can leave it fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def process_pool(workers):
    """A pool of processes; Windows can wait for no more than 61."""
    return concurrent.futures.ProcessPoolExecutor(min(workers, 61) if os.name == "nt" else workers)


# ----------------------------------------------------------------------------------------------------------- files

LONGEST_NAME = 255  # bytes of the name of a file, on all usual file systems


@contextlib.contextmanager
def replacing(path):
    """A temporary name beside `path`: what is written there within this context is renamed to `path` at its end, and removed if
    the context ends by an exception, so that `path` is whole at any time."""
    folder, name = os.path.split(path)
    temporary = path + ".tmp"
    if len(os.fsencode(name)) > LONGEST_NAME - 4:
        temporary = os.path.join(folder, hashlib.sha256(os.fsencode(name)).hexdigest() + ".tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def check_writable(folders=(), files=()):
    """Raise UserError unless these folders can be made and these files written, None left out; nothing of it is kept.

    To be called before the work whose results a read-only or full target would lose.
    """
    for path, folder in [(one, one) for one in folders if one] + [(one, os.path.dirname(one)) for one in files if one]:
        folder = os.path.abspath(folder)
        while not os.path.lexists(folder):
            folder = os.path.dirname(folder)
        try:
            if path in files and os.path.isdir(path):
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(bytes(4096))  # a full disk still takes names
        except OSError as error:
            raise UserError("cannot write %s: %s" % (path, error.strerror))


def short_path(path):
    """A path as it is shown: relative to the current folder, or absolute if that is shorter or on another drive."""
    absolute = os.path.abspath(path)
    try:
        return min(os.path.relpath(path), absolute, key=len)
    except ValueError:
        return absolute


def to_json(value, **options):
    """A value as a text of JSON, with null for infinities and NaN, which JSON does not have; options: of json.dumps()."""
    def known(value):
        if isinstance(value, dict):
            return {key: known(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [known(item) for item in value]
        return None if isinstance(value, float) and not np.isfinite(value) else value
    return json.dumps(known(value), sort_keys=True, allow_nan=False, **options)


def script(path):
    """A script or folder of the project, named from its top, as it is called from the current folder."""
    return short_path(os.path.join(os.path.dirname(os.path.abspath(__file__)), *path.split("/")))


def write_json(path, value):
    """Write a value as JSON (see to_json), all or nothing."""
    with replacing(path) as temporary, open(temporary, "w") as file:
        file.write(to_json(value, indent=1) + "\n")


def write_npz(path, arrays):
    """Write a dict of arrays, all or nothing."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def file_digest(path, algorithm="sha256"):
    """Hexadecimal digits of a file: of hashlib's `algorithm`, or "git blob", the SHA-1 of "blob <size>\\0" and the content."""
    digest = hashlib.sha1(b"blob %d\0" % os.path.getsize(path)) if algorithm == "git blob" else hashlib.new(algorithm)
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------------- images

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".mpo", ".webp", ".tif", ".tiff", ".bmp")
_noticed = set()
_held = None  # within held_notices(), what would have been printed


def notice_once(text, where=None):
    """Print a note on stderr, if there has been none of this text; where: the file, which may be one of many, that it is about."""
    if _held is not None:
        _held.setdefault(text, where)
    elif text not in _noticed:
        _noticed.add(text)
        print("note: %s%s" % (text, " (first seen in %s)" % where if where else ""), file=sys.stderr)


@contextlib.contextmanager
def held_notices():
    """Within this context notices are not printed but collected: a dict, for notice_once(*item) in another process."""
    global _held
    kept, _held = _held, {}
    try:
        yield _held
    finally:
        _held = kept


def read_image(file, name=None):
    """Read an image file as 8-bit RGB, uint8 [H, W, 3]. file: a path, or a binary file of this name.

    Gray is repeated to three channels, 16 bits and floating point are scaled to 8 bits (65535 or 1.0 to 255), palettes are
    expanded, CMYK is converted, the orientation of EXIF is applied, and alpha is dropped (with one notice a run). Raises
    UserError that names the file if it cannot be read.
    """
    try:
        image = images.decode(file)
        color = image.color if image.color.dtype == np.uint8 else to_uint8(image.color / 257.0)
    except Exception as error:  # a damaged file can make Pillow raise nearly anything
        raise UserError(unreadable(name or file, error))
    if image.alpha is not None:
        notice_once("the alpha channel is dropped", name or file)
    return np.repeat(color, 3, axis=2) if color.shape[2] == 1 else color


def unreadable(name, error):
    """The one line that says why an image file could not be read."""
    words = " ".join(str(error).split()) or type(error).__name__
    if "MAX_TEXT" in words or "Decompressed" in words:  # of PngImagePlugin
        words = "its compressed text or profile has more than %d MiB: save it without" % (images.LARGEST_TEXT >> 20)
    return "cannot read the image %s: %s" % (name, words)


@contextlib.contextmanager
def writing(path):
    """As replacing(), for images: what the system or the format refuses becomes a UserError that names `path`."""
    try:
        with replacing(path) as temporary:
            yield temporary
    except (OSError, ValueError) as error:
        raise UserError("cannot write %s: %s" % (path, getattr(error, "strerror", None) or error))


def save_image(path, image):
    """Write uint8 [H, W, 3] as PNG under a temporary name, then rename it to `path`. Raises UserError."""
    with writing(path) as temporary, open(temporary, "wb") as file:
        file.write(imageio.imwrite("<bytes>", image, format="PNG", compression=6))


def to_uint8(x):
    """The one conversion to 8 bits: values in [0, 255], clipped and rounded half up as MATLAB does, as uint8."""
    return to_integers(x, np.uint8)


def to_integers(x, dtype):
    return np.floor(np.clip(x, 0, np.iinfo(dtype).max) + 0.5).astype(dtype)


def is_image_file(path, suffixes=IMAGE_SUFFIXES):
    """Whether this is a file, by its suffix an image, that is not hidden: macOS puts a ._a.jpg, which is none, beside a.jpg."""
    return (not os.path.basename(path).startswith(".") and os.path.splitext(path)[1].lower() in suffixes
            and os.path.isfile(path))  # not a folder, nor a pipe that would be waited for


def list_images(folder):
    """The image files in `folder`, sorted by name; subfolders are not searched."""
    return sorted(path for path in glob.glob(os.path.join(glob.escape(folder), "*")) if is_image_file(path))


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


def imresize(image, scale, convert=np.asarray):
    """MATLAB's imresize(image, scale), bicubic with antialiasing, in float64 and not rounded.

    image: [H, W, C] of any number type and range; returns [ceil(scale H), ceil(scale W), C], float64 or whatever `convert` makes
    of the float64 values: with to_uint8, it is what MATLAB returns for a uint8 image. Works in strips, so that little memory is
    taken beside that of the result.
    """
    image = np.asarray(image)
    height, width, channels = image.shape
    vertical, horizontal = _resize_matrix(height, scale), _resize_matrix(width, scale)
    return np.concatenate([convert(_resize_strip(image, vertical[rows], horizontal)) for rows in strips(
        vertical.shape[0], int(max(width, horizontal.shape[0]) / min(scale, 1)))])


def _resize_strip(image, vertical, horizontal):
    """The rows of imresize's result that the rows of the matrix `vertical` give, float64 [rows, sW, C]."""
    first, last = vertical.indices.min(), vertical.indices.max() + 1  # the rows of the image that they are made of
    width, channels = image.shape[1:]
    strip = vertical[:, first:last].dot(image[first:last].reshape(last - first, -1).astype(np.float64))
    strip = strip.reshape(-1, width, channels).transpose(1, 0, 2)     # [W, rows, C]
    rows = strip.shape[1]
    return horizontal.dot(strip.reshape(width, -1)).reshape(-1, rows, channels).transpose(1, 0, 2)


def strips(height, width):
    """Slices of rows, STRIP pixels or a row each, that make up an image of this size."""
    rows = max(STRIP // width, 1)
    return [slice(first, min(first + rows, height)) for first in range(0, height, rows)]


def crop_to_multiple(image, factor):
    """Crop [H, W, ...] at the bottom and right so that both sides are multiples of `factor`."""
    height, width = image.shape[:2]
    return image[:height - height % factor, :width - width % factor]


def downscale(hr, factor):
    """The protocol's LR image of an HR image whose sides are multiples of `factor`: uint8 -> uint8."""
    return imresize(hr, 1.0 / factor, to_uint8)


def bicubic(lr, factor):
    """Bicubic upscaling of an LR image, the base line of every table: uint8 -> uint8."""
    return imresize(lr, factor, to_uint8)


# --------------------------------------------------------------------------------------------------------- metrics

def luma(rgb):
    """Y of ITU-R BT.601 as in MATLAB's rgb2ycbcr: RGB in [0, 255] -> float64 in [16, 235], not rounded."""
    return np.asarray(rgb, np.float64).dot([65.481, 128.553, 24.966]) / 255 + 16


def psnr(y1, y2):
    """Peak signal-to-noise ratio in dB of two images in [0, 255]; inf if they are equal."""
    return psnr_of(np.mean((np.asarray(y1, np.float64) - y2) ** 2))


def psnr_of(mse):
    """The PSNR in dB that belongs to a mean square error of values in [0, 255]; inf if that is 0."""
    return float(10 * np.log10(255 ** 2 / mse)) if mse else float("inf")


def ssim(y1, y2):
    """SSIM of two float64 images in [0, 255] (Wang et al. 2004): 11x11 Gaussian, sigma 1.5, valid region."""
    from skimage.metrics import structural_similarity  # here, as in find_dataset, since little needs this package
    return float(structural_similarity(y1, y2, data_range=255, gaussian_weights=True, sigma=1.5, K1=0.01, K2=0.03,
                                       use_sample_covariance=False))


def check_size(sr, factor):
    """Raise UserError if an SR image is too small for score()."""
    height, width = sr.shape[:2]
    if min(height, width) < 11 + 2 * factor:
        raise UserError("an image of %dx%d pixels is too small to be evaluated at x%d: at least %d a side are needed"
                        % (width, height, factor, 11 + 2 * factor))


def scored_luma(sr, hr, factor, overlap=0):
    """What of an SR image and its HR image is compared by the paper's protocol: the Y of both, float64, without the border.

    sr, hr: uint8 RGB [H, W, 3]. HR is cropped at the bottom and right to SR's size; `factor` pixels are cropped from every border.
    Yields (Y of SR, Y of HR) of strips, each of which begins with the last `overlap` rows of the one before.
    """
    height, width = (side - 2 * factor for side in sr.shape[:2])
    for rows in strips(height - overlap, width):
        inner = slice(factor + rows.start, factor + rows.stop + overlap), slice(factor, factor + width)
        yield luma(sr[inner]), luma(hr[inner])


def psnr_y(sr, hr, factor):
    """PSNR in dB of an SR image by the paper's protocol (see scored_luma), alone: SSIM takes most of the time of score()."""
    sums = [(np.sum((y1 - y2) ** 2), y1.size) for y1, y2 in scored_luma(sr, hr, factor)]
    return psnr_of(np.sum(sums, axis=0)[0] / np.sum(sums, axis=0)[1])


def score(sr, hr, factor):
    """(PSNR, SSIM) of an SR image by the paper's protocol (see scored_luma).

    Raises UserError if what is compared is smaller than SSIM's window of 11x11.
    """
    check_size(sr, factor)
    values, rows = zip(*[(ssim(y1, y2), len(y1) - 10) for y1, y2 in scored_luma(sr, hr, factor, 10)])
    return psnr_y(sr, hr, factor), float(np.average(values, weights=rows))


def mean_scores(scores):
    """The means of equally long tuples of figures, of which PSNR is infinite where two images are equal.

    A tuple with an infinite figure is left out, with a notice that counts them, unless all have one: a single flat image would
    make every mean infinite.
    """
    finite = [row for row in scores if np.isfinite(row).all()]
    if len(finite) < len(scores):
        notice_once("%d of %d images equal HR: %s" % (
            len(scores) - len(finite), len(scores), "their infinite PSNR is left out of the mean" if finite else "PSNR is infinite"))
    return tuple(float(value) for value in np.mean(finite or scores, axis=0))


# ------------------------------------------------------------------------------------------------------- data sets

DataSet = namedtuple("DataSet", "name pairs origin")  # pairs: of Pair; origin: in words, where HR and LR come from
Pair = namedtuple("Pair", "name hr lr")               # paths; lr is None where it is made from HR by imresize

BENCHMARKS = ("Set5", "Set14", "B100", "Urban100")  # the paper's
DATASETS = ("Sample",) + BENCHMARKS
SAMPLE = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")  # in scikit-image's package


def add_data_dir(parser):
    """The option --data-dir of commands that read data sets."""
    parser.add_argument("--data-dir", metavar="DIR", default="data" if os.path.isdir("data") else script("data"),
                        help="where the data sets are (default: the folder data here or, without one, beside the scripts)")


def download_command(name, data_dir):
    """The command that downloads `name` to data_dir."""
    return "python %s %s%s" % (script("tools/data/download.py"), name, "" if data_dir == "data" else " --data-dir " + data_dir)


def find_dataset(name, factor, data_dir):
    """Find the images of a data set, one of DATASETS or the path of a folder of HR images, for `factor`.

    Under `data_dir` two layouts are known, the authors' (HR/Set5/baby.png, x2/Set5/baby.png) and EDSR's
    (Set5/HR/baby.png, Set5/LR_bicubic/X2/babyx2.png). An LR image has the name of its HR image, with or without "x2", and any
    suffix; without the folder of LR images, LR is made from HR. Returns a DataSet; its name is that of the folder. Raises UserError
    if there is no such folder or no image in it, or two of the same name.
    """
    if name == "Sample":
        import skimage.data
        folder = os.path.dirname(skimage.data.__file__)
        pairs = [Pair(os.path.splitext(file)[0], os.path.join(folder, file), None) for file in SAMPLE]
        return DataSet(name, pairs, "%d photographs of scikit-image, LR by imresize" % len(pairs))
    if name in DATASETS:
        layouts = [(os.path.join(data_dir, "HR", name), os.path.join(data_dir, "x%d" % factor, name), "%s%s"),
                   (os.path.join(data_dir, name, "HR"), os.path.join(data_dir, name, "LR_bicubic", "X%d" % factor),
                    "%%sx%d%%s" % factor)]
    else:
        layouts, name = [(name, "", "")], os.path.basename(os.path.abspath(name))
    advice = "; get them with: " + download_command(name, data_dir) if name in DATASETS else ""
    found = [layout for layout in layouts if os.path.isdir(layout[0])]
    if not found:
        raise UserError("no images of %s: there is no folder %s%s" % (name, " or ".join(hr for hr, _, _ in layouts), advice))
    hr_dir, lr_dir, pattern = found[0]
    hr_files = _by_stem(hr_dir)
    if not hr_files:
        raise UserError("no image in %s: expected files ending in %s%s" % (hr_dir, " ".join(IMAGE_SUFFIXES), advice))
    published = os.path.isdir(lr_dir)
    lr_files, pairs = _by_stem(lr_dir) if published else {}, []
    for stem, path in hr_files.items():
        missing = os.path.join(lr_dir, pattern % (stem, os.path.splitext(path)[1])) if published else None
        pairs.append(Pair(stem, path, lr_files.get("%sx%d" % (stem, factor)) or lr_files.get(stem) or missing))
    origin = "%d images of %s, LR %s" % (len(pairs), hr_dir, "of " + lr_dir if published else "by imresize")
    return DataSet(name, pairs, origin)


def _by_stem(folder):
    """{name without suffix: path} of the images in a folder, in the order of list_images(). Raises UserError if two have the same
    name but for the suffix."""
    files = OrderedDict()
    for path in list_images(folder):
        other = files.setdefault(os.path.splitext(os.path.basename(path))[0], path)
        if other != path:
            raise UserError("%s and %s have the same name but for the suffix: rename one" % (other, path))
    return files


def read_pair(pair, factor):
    """Read a Pair: (LR, HR), both uint8 RGB; HR is cropped to `factor` times LR's size. Raises UserError."""
    hr = read_image(pair.hr)
    if pair.lr is None:
        hr = crop_to_multiple(hr, factor)
        if not hr.size:
            raise UserError("%s is smaller than %d pixels" % (pair.hr, factor))
        return downscale(hr, factor), hr
    if not os.path.exists(pair.lr):
        raise UserError("%s has no LR image %s: add it, or remove the folder to have LR made from HR" % (pair.hr, pair.lr))
    lr = read_image(pair.lr)
    expected = hr.shape[0] // factor, hr.shape[1] // factor
    if lr.shape[:2] != expected:
        raise UserError("%s has %dx%d pixels, but %dx%d belong to %s at x%d"
                        % (pair.lr, lr.shape[1], lr.shape[0], expected[1], expected[0], pair.hr, factor))
    return lr, crop_to_multiple(hr, factor)
