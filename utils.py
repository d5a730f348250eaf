"""What evaluation needs, without TensorFlow: images of data sets, MATLAB's bicubic, PSNR and SSIM on Y, and the data sets.

People's pictures are read in tools/pictures/, checkpoints in tools/checkpoints.py, sessions are opened in tools/runtime.py; what is not
about images stands in tools/command.py and tools/files.py.
"""
import contextlib
import functools
import glob
import os
from collections import OrderedDict, namedtuple

from tools import images
from tools.command import UserError, notice_once
from tools.files import replacing, script

import numpy as np
import scipy.sparse

STRIP = 2 ** 20  # pixels that are worked on at once where a large image would need several times its own memory


# ---------------------------------------------------------------------------------------------------------- images

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".mpo", ".webp", ".tif", ".tiff", ".bmp")


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
    try:  # here, since little needs this package
        import imageio.v2 as imageio
    except ImportError:  # that of Python 3.6 has one interface
        import imageio
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


def broken_links(folder):
    """The links in `folder` with names of images that lead to no file, sorted: git-annex and DVC leave them for what is not fetched."""
    return sorted(path for path in glob.glob(os.path.join(glob.escape(folder), "*"))
                  if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES and os.path.islink(path) and not os.path.exists(path))


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
