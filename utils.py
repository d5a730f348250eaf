"""What surrounds the network: images, MATLAB's bicubic, metrics, data sets, sessions and checkpoints."""
import contextlib
import functools
import glob
import hashlib
import json
import os
import sys
from collections import namedtuple

import numpy as np
import scipy.sparse
from PIL import Image

from model import model_variables
from ops import tf


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


# ---------------------------------------------------------------------------------------------------------- images

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
_noticed = set()


def _notice_once(text):
    if text not in _noticed:
        _noticed.add(text)
        print("note: " + text, file=sys.stderr)


def read_image(path):
    """Read an image file as 8-bit RGB, uint8 [H, W, 3].

    Gray is repeated to three channels, 16 bits are scaled to 8 (65535 to 255), palettes are expanded, and alpha is dropped
    (with one notice a run). Raises UserError that names the file if it cannot be read.
    """
    try:
        with Image.open(path) as image:
            if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
                _notice_once("the alpha channel is dropped (first seen in %s)" % path)
            if image.mode.startswith("I"):  # 16-bit gray; Pillow itself reads 16-bit RGB as 8-bit
                gray = to_uint8(np.asarray(image, np.float64) / 257)
                return np.repeat(gray[:, :, None], 3, axis=2)
            if image.mode in ("LA", "La"):
                image = image.convert("L")
            elif image.mode in ("P", "PA"):
                image = image.convert("RGBA")
            return np.array(image.convert("RGB"))
    except Exception as error:  # a damaged file can make Pillow raise nearly anything
        raise UserError("cannot read the image %s: %s" % (path, error or type(error).__name__))


def save_image(path, image):
    """Write uint8 [H, W, 3] as PNG under a temporary name, then rename it to `path`. Raises UserError."""
    temporary = path + ".tmp"
    try:
        Image.fromarray(image).save(temporary, format="PNG")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError("cannot write %s: %s" % (path, error.strerror or error))


def to_uint8(x):
    """The one conversion to 8 bits: values in [0, 255], clipped and rounded half up as MATLAB does, as uint8."""
    return np.floor(np.clip(x, 0, 255) + 0.5).astype(np.uint8)


def list_images(folder):
    """The image files in `folder`, sorted by name; subfolders are not searched."""
    return sorted(path for path in glob.glob(os.path.join(glob.escape(folder), "*"))
                  if path.lower().endswith(IMAGE_SUFFIXES))


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


def score(sr, hr, scale):
    """(PSNR, SSIM) of an SR image by the paper's protocol; both uint8 RGB [H, W, 3].

    HR is cropped at the bottom and right to SR's size; `scale` pixels are cropped from every border of both; the metrics
    are those of Y in float64. Raises UserError if what is left is smaller than SSIM's window of 11x11.
    """
    height, width = sr.shape[:2]
    if min(height, width) < 11 + 2 * scale:
        raise UserError("an image of %dx%d pixels is too small to be evaluated at x%d: at least %d a side are needed"
                        % (width, height, scale, 11 + 2 * scale))
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
    its name is that of the folder. Raises UserError if there is no such folder or no image in it.
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
    pairs = []
    for path in files:
        stem, suffix = os.path.splitext(os.path.basename(path))
        pairs.append(Pair(stem, path, os.path.join(lr_dir, pattern % (stem, suffix)) if published else None))
    origin = "%d images of %s, LR %s" % (len(pairs), hr_dir, "of " + lr_dir if published else "by imresize")
    return DataSet(name, pairs, origin)


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


def checkpoint_prefix(path):
    """The prefix of a TensorFlow V2 checkpoint named by its prefix, its .index file or its folder, or None."""
    if os.path.isdir(path):
        prefix = tf.train.latest_checkpoint(path)
        if prefix:
            return prefix
        indexes = glob.glob(os.path.join(glob.escape(path), "*.index"))  # its state file may name another machine's path
        return indexes[0][:-len(".index")] if len(indexes) == 1 else None
    prefix = path[:-len(".index")] if path.endswith(".index") else path
    return prefix if os.path.exists(prefix + ".index") else None


def find_checkpoint(model, scale, path=None):
    """The prefix of the checkpoint at `path`, by default the one shipped for model and scale. Raises UserError."""
    shipped = os.path.join(os.path.dirname(os.path.abspath(__file__)), "checkpoints", scale, model)
    prefix = checkpoint_prefix(path or shipped)
    if prefix:
        return prefix
    if path:
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


def _check_sha256(prefix):
    """Say so if a file of the checkpoint is not the one whose SHA-256 stands in the config.json beside it."""
    folder, name = os.path.split(prefix)
    try:
        with open(os.path.join(folder, "config.json")) as file:
            recorded = json.load(file).get("sha256", {})
    except (OSError, ValueError, AttributeError):
        return  # not a checkpoint of this project
    for file, digest in sorted(recorded.items()):
        path = os.path.join(folder, file)
        if file.startswith(name + ".") and os.path.exists(path) and file_sha256(path) != digest:
            _notice_once("%s is not the file that was trained: its SHA-256 differs from that in config.json" % path)


def restore_weights(session, prefix):
    """Load the variables of DRSAN in the default graph from a checkpoint; whatever else it holds is ignored.

    Raises UserError that names the first variable that the checkpoint lacks or has in another shape.
    """
    _check_sha256(prefix)
    with _checkpoint_errors(prefix):
        shapes = tf.train.NewCheckpointReader(prefix).get_variable_to_shape_map()
        for variable in model_variables():
            name, shape = variable.op.name, variable.shape.as_list()
            if shapes.get(name) != shape:
                raise UserError("%s is a checkpoint of another model or scale: %s should have the shape %s, but %s" % (
                    prefix, name, shape, "has %s" % shapes[name] if name in shapes else "is missing"))
        tf.train.Saver(model_variables()).restore(session, prefix)


def transfer_weights(session, prefix):
    """Load what a checkpoint of another scale or depth has in common with DRSAN in the default graph.

    A variable is taken if it has the same role (see _roles) and shape: x0, the DRAGs that both have, the convolution before the
    skip, the output convolution, and the upsampler of the same scale. Returns the names taken and the names not taken.
    """
    with _checkpoint_errors(prefix):
        reader = tf.train.NewCheckpointReader(prefix)
        there = {role: name for name, role in _roles(reader.get_variable_to_shape_map()).items()}
        roles = _roles(variable.op.name for variable in model_variables())
        taken, values = [], []
        for variable in model_variables():
            name = there.get(roles[variable.op.name])
            value = reader.get_tensor(name) if name else None
            if value is not None and list(value.shape) == variable.shape.as_list():
                taken.append(variable)
                values.append(value)
    load_values(session, taken, values)
    names = [variable.op.name for variable in taken]
    return names, [variable.op.name for variable in model_variables() if variable.op.name not in names]


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
            roles[name] = (part, "upsampler", convolutions - 1 - upsampler, i - upsampler)
        else:
            roles[name] = (part, "output")
    return roles


@contextlib.contextmanager
def _checkpoint_errors(prefix):
    try:
        yield
    except (tf.errors.OpError, ValueError, RuntimeError) as error:  # TensorFlow 2's reader raises RuntimeError
        raise UserError("cannot read the checkpoint %s: %s" % (prefix, str(error).splitlines()[0]))


def load_values(session, variables, values):
    """Assign arrays to variables in one call, without new operations in the graph."""
    initializers = [variable.initializer for variable in variables]
    session.run(initializers, {initializer.inputs[1]: value for initializer, value in zip(initializers, values)})


def save_weights(session, folder, model, scale):
    """Write the variables of DRSAN, without optimiser slots, as the one checkpoint of `folder`; returns its prefix."""
    os.makedirs(folder, exist_ok=True)
    saver = tf.train.Saver(model_variables())
    return saver.save(session, os.path.join(folder, "DRSAN%s%s" % (model, scale)), write_meta_graph=False)


def write_json(path, value):
    """Write `value` under a temporary name, then rename it to `path`."""
    with open(path + ".tmp", "w") as file:
        json.dump(value, file, indent=1, sort_keys=True)
        file.write("\n")
    os.replace(path + ".tmp", path)
