"""What evaluation needs, without TensorFlow: images, MATLAB's bicubic, PSNR and SSIM on Y, data sets."""
import functools
import os
from collections import namedtuple

from tools.command import UserError, notice_once
from tools.files import replacing, script, short_path
from tools.images import IMAGE_SUFFIXES, decode, list_images, unreadable

import numpy as np
import scipy.sparse
from PIL import Image

STRIP = 2 ** 20  # pixels that are worked on at once, or a large image would need several times its own memory


# --------------------------------------------------------------------------------------------------- images

def read_image(file, name=None):
    """Read an image file as 8-bit RGB, uint8 [H, W, 3]. file: a path, or a binary file of this name.

    Gray is repeated to three channels, 16 bits and floating point are scaled to 8 bits (65535 or 1.0 to 255),
    palettes are expanded, CMYK is converted, the orientation of EXIF is applied, and alpha is dropped. What
    is changed or left out is noted, each once a run. Raises UserError that names the file if it cannot be
    read.
    """
    try:
        image = decode(file)
        color = image.color if image.color.dtype == np.uint8 else to_uint8(image.color / 257.0)
    except Exception as error:  # a damaged file can make Pillow raise nearly anything
        raise UserError(unreadable(name or file, error))
    for note in image.notes + ["the alpha channel is dropped"] * (image.alpha is not None):
        notice_once(note, name or file)
    return np.repeat(color, 3, axis=2) if color.shape[2] == 1 else color


def save_image(path, image):
    """Write uint8 [H, W, 3] as PNG under a temporary name, then rename it to `path`. Raises UserError."""
    with replacing(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")


def to_uint8(x):
    """The one conversion to uint8: of values in [0, 255], clipped and rounded half up as MATLAB does."""
    return to_integers(x, np.uint8)


def to_integers(x, dtype):
    return np.floor(np.clip(x, 0, np.iinfo(dtype).max) + 0.5).astype(dtype)


# -------------------------------------------------------------------------------------------------- bicubic

def _cubic(x):
    """Keys' cubic convolution kernel with a = -0.5."""
    x = np.abs(x)
    far = np.where(x < 2, ((-0.5 * x + 2.5) * x - 4) * x + 2, 0)
    return np.where(x <= 1, (1.5 * x - 2.5) * x ** 2 + 1, far)


@functools.lru_cache(maxsize=64)
def _resize_matrix(size, scale):
    """The linear map of imresize along one side, a sparse matrix [ceil(size * scale), size]."""
    resized = int(np.ceil(size * scale))                # exact for all multiples of 1/2, 1/3 and 1/4
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

    image: [H, W, C] of any number type and range; returns [ceil(scale H), ceil(scale W), C], float64 or
    whatever `convert` makes of the float64 values: with to_uint8, it is what MATLAB returns for a uint8
    image. Works in strips, so that little memory is taken beside that of the result.
    """
    image = np.asarray(image)
    height, width, channels = image.shape
    vertical, horizontal = _resize_matrix(height, scale), _resize_matrix(width, scale)
    return np.concatenate([convert(_resize_strip(image, vertical[rows], horizontal)) for rows in strips(
        vertical.shape[0], int(max(width, horizontal.shape[0]) / min(scale, 1)))])


def _resize_strip(image, vertical, horizontal):
    """The rows of imresize's result that the rows of the matrix `vertical` give, float64 [rows, sW, C]."""
    first, last = vertical.indices.min(), vertical.indices.max() + 1  # of what they are made of
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


# -------------------------------------------------------------------------------------------------- metrics

def luma(rgb):
    """Y of ITU-R BT.601 as in MATLAB's rgb2ycbcr: RGB in [0, 255] -> float64 in [16, 235], not rounded."""
    return np.asarray(rgb, np.float64).dot([65.481, 128.553, 24.966]) / 255 + 16


def ssim(y1, y2):
    """SSIM of two float64 images in [0, 255] (Wang et al. 2004): 11x11 Gaussian, sigma 1.5, valid region."""
    from skimage.metrics import structural_similarity  # here, since little needs this package
    return float(structural_similarity(y1, y2, data_range=255, gaussian_weights=True, sigma=1.5, K1=0.01,
                                       K2=0.03, use_sample_covariance=False))


def scored_luma(sr, hr, factor, overlap=0):
    """What of an SR and its HR image is compared by the paper's protocol: Y of both, float64, without
    `factor` pixels at every border.

    sr, hr: uint8 RGB [H, W, 3]; HR is cropped at the bottom and right to SR's size. Yields (Y of SR, Y of HR)
    of strips, which begin with the last `overlap` rows of the one before.
    """
    height, width = (side - 2 * factor for side in sr.shape[:2])
    for rows in strips(height - overlap, width):
        inner = slice(factor + rows.start, factor + rows.stop + overlap), slice(factor, factor + width)
        yield luma(sr[inner]), luma(hr[inner])


def psnr_y(sr, hr, factor):
    """PSNR in dB of an SR image by the paper's protocol (see scored_luma); inf if it equals HR."""
    sums = [(np.sum((y1 - y2) ** 2), y1.size) for y1, y2 in scored_luma(sr, hr, factor)]
    error, pixels = np.sum(sums, axis=0)
    return float(10 * np.log10(255 ** 2 * pixels / error)) if error else float("inf")


def score(sr, hr, factor):
    """(PSNR, SSIM) of an SR image by the paper's protocol (see scored_luma). Raises UserError if what is
    compared is smaller than SSIM's window of 11x11."""
    height, width = sr.shape[:2]
    if min(height, width) < 11 + 2 * factor:
        raise UserError("an image of %dx%d pixels is too small to be evaluated at x%d: at least %d a side are"
                        " needed" % (width, height, factor, 11 + 2 * factor))
    values, rows = zip(*[(ssim(y1, y2), len(y1) - 10) for y1, y2 in scored_luma(sr, hr, factor, 10)])
    return psnr_y(sr, hr, factor), float(np.average(values, weights=rows))


def mean_scores(scores):
    """The means of equally long tuples of figures. One whose PSNR is infinite, as of flat images, is left
    out, with a notice that counts them, unless all are."""
    finite = [row for row in scores if np.isfinite(row).all()]
    if len(finite) < len(scores):
        effect = "their infinite PSNR is left out of the mean" if finite else "PSNR is infinite"
        notice_once("%d of %d images equal HR: %s" % (len(scores) - len(finite), len(scores), effect))
    return tuple(float(value) for value in np.mean(finite or scores, axis=0))


# ------------------------------------------------------------------------------------------------ data sets

DataSet = namedtuple("DataSet", "name pairs origin")  # pairs: of Pair; origin: of HR and LR, in words
Pair = namedtuple("Pair", "name hr lr")               # paths; lr is None where it is made from HR by imresize
Layout = namedtuple("Layout", "name hr lr")           # of a data set: the folders of its HR and its LR images

BENCHMARKS = ("Set5", "Set14", "B100", "Urban100")  # the paper's
DATASETS = ("Sample",) + BENCHMARKS
SAMPLE = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")


def download_command(name, data_dir):
    """The command that downloads `name` to data_dir."""
    words = ["python", script("tools/data/download.py"), name]
    return " ".join(words if data_dir == "data" else words + ["--data-dir", data_dir])


def find_layouts(name, factor, data_dir):
    """The Layouts that a data set of this name, or at this path, may have for `factor`.

    Two are known, the authors' (HR/Set5/baby.png, x2/Set5/baby.png) and EDSR's (Set5/HR/baby.png,
    Set5/LR_bicubic/X2/babyx2.png). A name is sought below data_dir. The path may be that of Set5, or of the
    folder of HR images in either; any other folder is one of HR images, without LR.
    """
    def authors(folder, own):
        return Layout(own, os.path.join(folder, "HR", own), os.path.join(folder, "x%d" % factor, own))

    def edsr(own, hr):
        return Layout(own, hr, os.path.join(hr[:-2] + "LR_bicubic", "X%d" % factor))

    if name in DATASETS or os.path.basename(name) == name and not os.path.isdir(name):
        return [authors(data_dir, name), edsr(name, os.path.join(data_dir, name, "HR"))]
    path = short_path(name)
    folder, own = os.path.split(os.path.abspath(name))
    above = os.path.basename(folder)
    if own.endswith("HR"):  # of DIV2K, DIV2K_train_HR
        return [edsr(above if own == "HR" else own, path)]
    return [edsr(own, os.path.join(path, "HR")),
            authors(short_path(os.path.dirname(folder)), own) if above == "HR" else Layout(own, path, "")]


def find_dataset(name, factor, data_dir):
    """The DataSet of a name, one of DATASETS or another, or of the path of a folder (see find_layouts).

    An LR image has the name of its HR image, with or without "x2", and any suffix; without the folder of LR
    images, LR is made from HR. Raises UserError if there are no images, or two of the same name.
    """
    if name == "Sample":
        import skimage.data
        folder = os.path.dirname(skimage.data.__file__)
        pairs = [Pair(file[:-4], os.path.join(folder, file), None) for file in SAMPLE]
        return DataSet(name, pairs, "%d photographs of scikit-image, LR by imresize" % len(pairs))
    advice = "; get them with: " + download_command(name, data_dir) if name in DATASETS else ""
    layouts = find_layouts(name, factor, data_dir)
    found = [layout for layout in layouts if os.path.isdir(layout.hr)]
    if not found:
        raise UserError("no images of %s: there is no folder %s%s" % (
            layouts[0].name, " or ".join(layout.hr for layout in layouts), advice))
    layout, hr_files = found[0], _by_stem(found[0].hr)
    if not hr_files:
        raise UserError("no image in %s (subfolders are not searched): expected files ending in %s%s" % (
            layout.hr, " ".join(IMAGE_SUFFIXES), advice))
    published, pairs = os.path.isdir(layout.lr), []
    lr_files = _by_stem(layout.lr) if published else {}
    for stem, path in hr_files.items():
        names = [stem + "x%d" % factor, stem][::1 if os.path.basename(layout.lr).startswith("X") else -1]
        missing = os.path.join(layout.lr, names[0] + os.path.splitext(path)[1]) if published else None
        pairs.append(Pair(stem, path, next((lr_files[name] for name in names if name in lr_files), missing)))
    lr_origin = "of " + layout.lr if published else "by imresize"
    return DataSet(layout.name, pairs, "%d images of %s, LR %s" % (len(pairs), layout.hr, lr_origin))


def _by_stem(folder):
    """{name without suffix: path} of the images in a folder. Raises UserError if two have the same name."""
    files = {}
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
        raise UserError("%s has no LR image %s: add it, or remove the folder to have LR made from HR" % (
            pair.hr, pair.lr))
    lr = read_image(pair.lr)
    expected = hr.shape[0] // factor, hr.shape[1] // factor
    if lr.shape[:2] != expected:
        raise UserError("%s has %dx%d pixels, but %dx%d belong to %s at x%d"
                        % (pair.lr, lr.shape[1], lr.shape[0], expected[1], expected[0], pair.hr, factor))
    return lr, crop_to_multiple(hr, factor)
