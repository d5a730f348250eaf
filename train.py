"""Train DRSAN on a folder of photographs: python train.py --gpu 0 --model 32s --scale x2 --data data/DIV2K/DIV2K_train_HR

A run lives in runs/<model>_<scale>: config.json, log.jsonl, state/ (the training state, from which the same command resumes)
and best/ (the weights with the best validation PSNR, to be evaluated by test.py --checkpoint).
"""
import argparse
import collections
import concurrent.futures
import contextlib
import csv
import functools
import glob
import hashlib
import io
import json
import os
import queue
import shutil
import signal
import threading
import time

import numpy as np
from PIL import Image
from tqdm import tqdm

from model import ABLATIONS, MODELS, SCALES, dra_values, drsan, model_variables
from ops import tf
from utils import (IMAGE_SUFFIXES, PATTERN, Pair, UserError, check_size, checkpoint_errors, checkpoint_prefix,
                   find_checkpoint, find_dataset, fraction, load_values, lock_file, not_negative, open_session, positive, read_pair,
                   run_main, score, session_config, to_uint8, training_history, transfer_weights, write_json)

# --------------------------------------------------------------------------------------------------------- recipes

Recipe = collections.namedtuple("Recipe", "rate schedule warmup steps batch patch candidates ema optimizer decay skip_above")
OPTIMIZERS = ("adam", "muon")

PAPER_RATE = {  # read from the published training graphs; 32l exists for x2 only, at x3 and x4 it takes those of 32m
    "x2": {"32s": 2e-4, "32m": 2e-4, "32l": 2e-4, "48s": 2e-4, "48m": 2e-4},
    "x3": {"32s": 2e-4, "32m": 5e-5, "32l": 5e-5, "48s": 1e-4, "48m": 1e-4},
    "x4": {"32s": 2e-4, "32m": 1e-4, "32l": 1e-4, "48s": 2e-4, "48m": 1e-4},
}


def make_recipe(name, model, scale):
    """The recipe `paper` (every published value; the number of steps is not known) or `fast` (for hours of a CPU)."""
    if name == "paper":
        return Recipe(PAPER_RATE[scale][model], "halve", 0, 1000000, 16, 48, 1, 0, "adam", 0, 0)
    return Recipe(1e-3, "cosine", 200, 30000, 8, 32, 3, 0.999, "muon", 1, 10)


def learning_rate(recipe, step):
    """The learning rate of the step with that number, from 0.

    `halve`: halved every 200,000 steps (staircase). `cosine`: half a cosine from the start rate to 0 at `recipe.steps`. The
    first `recipe.warmup` steps rise linearly to it.
    """
    if recipe.schedule == "halve":
        rate = recipe.rate * 0.5 ** (step // 200000)
    else:
        rate = recipe.rate * 0.5 * (1 + np.cos(np.pi * min(step / recipe.steps, 1)))
    return rate * min(1, (step + 1) / (recipe.warmup + 1))


RECIPE_OPTIONS = collections.OrderedDict((  # the values of a Recipe: their type, or what they can be, and their meaning
    ("rate", (positive(float), "start of the learning rate")),
    ("schedule", (("halve", "cosine"), "how the learning rate falls")),
    ("warmup", (not_negative(int), "steps in which the learning rate rises to its start")),
    ("steps", (positive(int), "of the training")),
    ("batch", (positive(int), "patches a step")),
    ("patch", (positive(int), "side of the LR patches")),
    ("candidates", (positive(int), "the patch with the most detail of so many random ones is taken")),
    ("ema", (fraction(float), "decay of the average of weights, below 1, 0 for none")),
    ("optimizer", (OPTIMIZERS, "muon leaves to adam what are no kernels between features")),
    ("decay", (not_negative(float), "weight decay of the kernels that muon updates, 0 for none")),
    ("skip_above", (not_negative(float), "skip steps with a gradient of more than so many times the usual norm, 0 for none")),
))


def add_recipe_options(parser):
    """The options --recipe, and one for every value of it."""
    parser.add_argument("--recipe", default="paper", choices=["paper", "fast"])
    for key, (kind, words) in RECIPE_OPTIONS.items():
        choice = dict(choices=kind) if isinstance(kind, tuple) else dict(type=kind, metavar="N")
        parser.add_argument("--" + key.replace("_", "-"), help=words, **choice)


def choose_recipe(args, model, scale):
    """The Recipe that the options name."""
    recipe = make_recipe(args.recipe, model, scale)
    return recipe._replace(**{key: getattr(args, key) for key in Recipe._fields if getattr(args, key) is not None})


def format_progress(step, recipe, loss, rate, speed, waited, skipped):
    """The line of the log: mean loss since the line before, learning rate, images/s, share of the time spent on waiting for data,
    and how many steps were skipped, if any."""
    seconds = (recipe.steps - step) * recipe.batch / speed
    return "step %7d/%d  loss %.5f  rate %.2e  %6.1f images/s  wait %4.1f %%  left %d:%02d:%02d%s" % (
        step, recipe.steps, loss, rate, speed, 100 * waited, seconds // 3600, seconds // 60 % 60, seconds % 60,
        "  skipped %d" % skipped if skipped else "")


# ------------------------------------------------------------------------------------------------------------ data

def load_pair(path, scale):
    """(LR, HR) of one photograph, uint8 RGB, or the UserError that says why it cannot be used."""
    try:
        return read_pair(Pair(path, path, None), scale)
    except UserError as error:
        return error


def list_photographs(folder):
    """The paths of all image files below `folder`, sorted."""
    return sorted(os.path.join(parent, file) for parent, _, files in os.walk(folder) for file in files
                  if file.lower().endswith(IMAGE_SUFFIXES))


def photograph_of(folder):
    """{path: photograph} of all image files below `folder`: tiles that manifest.csv says are of one photograph have the same."""
    photographs = {path: os.path.splitext(os.path.relpath(path, folder))[0] for path in list_photographs(folder)}
    manifest = os.path.join(folder, "manifest.csv")
    if os.path.exists(manifest):
        try:
            with open(manifest, newline="") as file:
                for row in csv.DictReader(file):
                    path = os.path.join(folder, row["file"])
                    if path in photographs:
                        photographs[path] = "%s/%s" % (row["repo"], row["path"])
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise UserError("%s is not the manifest of a photo set (%s): remove it, or build the set anew" % (manifest, error))
    return photographs


def hold_out(folder, share):
    """Divide the image files below `folder` into those for training and those for validation, two sorted lists of paths.

    About `share` of the photographs are held out: those whose name, or repository and path, has a SHA-256 below this share of
    all. Of each, validation gets one tile, that in the middle of the list, and training none. Raises UserError if no photograph
    is left on one of the sides.
    """
    tiles = {}
    for path, photograph in sorted(photograph_of(folder).items()):
        tiles.setdefault(photograph, []).append(path)
    held = {name for name in tiles if int(hashlib.sha256(os.fsencode(name)).hexdigest()[:8], 16) < share * 16 ** 8}
    if share and not 0 < len(held) < len(tiles):
        raise UserError("--valid-share %g holds out %d of the %d photographs below %s: give another share, or leave it out" % (
            share, len(held), len(tiles), folder))
    return (sorted(path for name in tiles if name not in held for path in tiles[name]),
            sorted(tiles[name][len(tiles[name]) // 2] for name in held))


def load_photographs(folder, scale, patch, workers, share=0):
    """The photographs below `folder` as a list of (LR, HR) in memory, uint8 RGB, LR made by imresize, but for the share that is
    held out.

    Those that cannot be read, or are smaller than a patch (in LR pixels), are named and left out. Raises UserError if none is
    left.
    """
    paths, photographs = hold_out(folder, share)[0], []
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        loaded = pool.map(functools.partial(load_pair, scale=scale), paths, chunksize=4)
        for path, pair in zip(paths, tqdm(loaded, "reading", len(paths), unit="photo", disable=None)):
            if isinstance(pair, UserError):
                print("left out: %s" % pair)
            elif min(pair[0].shape[:2]) < patch:
                print("left out: %s is smaller than a patch of %d LR pixels" % (path, patch))
            else:
                photographs.append(pair)
    if not photographs:
        raise UserError("no usable photograph below %s: give --data a folder of %s images" % (folder, "/".join(
            suffix[1:].upper() for suffix in IMAGE_SUFFIXES)))
    return photographs


def detail(patch, numpy=np):
    """How much detail [..., H, W, C] has: mean absolute difference of horizontal neighbours, plus that of vertical ones.

    patch: of a type that holds differences, so not uint8. numpy: the library to compute with.
    """
    return sum(numpy.abs(numpy.diff(patch, axis=axis)).mean(axis=(-3, -2, -1)) for axis in (-3, -2))


class Sampler(object):
    """Random batches of patches: uniform over all positions in all photographs, and over the 8 flips and rotations.

    With several candidates, the one with the most detail of so many such positions: flat patches teach little (S. Wang et al.,
    SamplingAug, arXiv 2111.15185).
    """

    def __init__(self, photographs, scale, batch, patch, seed, candidates=1):
        self.photographs, self.scale, self.batch, self.patch, self.seed = photographs, scale, batch, patch, seed
        self.candidates = candidates
        positions = [(lr.shape[0] - patch + 1) * (lr.shape[1] - patch + 1) for lr, _ in photographs]
        self.share = np.cumsum(positions) / np.sum(positions)

    def _draw(self, random):
        """One of the photographs as (LR, HR), and (y, x) of a patch in LR."""
        lr, hr = self.photographs[np.searchsorted(self.share, random.rand())]
        return lr, hr, random.randint(lr.shape[0] - self.patch + 1), random.randint(lr.shape[1] - self.patch + 1)

    def __call__(self, step, batch=None):
        """The batch of a step, a function of seed and step alone: LR [batch, p, p, 3], HR [batch, sp, sp, 3], uint8."""
        random, s, p = np.random.RandomState([self.seed, step]), self.scale, self.patch
        lr_batch, hr_batch = [], []
        for _ in range(self.batch if batch is None else batch):
            drawn = [self._draw(random) for _ in range(self.candidates)]
            if self.candidates > 1:
                drawn.sort(key=lambda one: detail(one[0][one[2]:one[2] + p, one[3]:one[3] + p].astype(np.int16)))
            lr, hr, y, x = drawn[-1]
            quarter_turns, mirror = random.randint(4), random.randint(2)
            for image, f, images in (lr, 1, lr_batch), (hr, s, hr_batch):
                image = np.rot90(image[f * y:f * (y + p), f * x:f * (x + p)], quarter_turns)
                images.append(image[:, ::-1] if mirror else image)
        return np.stack(lr_batch), np.stack(hr_batch)


# --------------------------------------------------------------------------------------------------------- records

# Pairs of patches as TFRecords in the authors' format: features `image` (LR) and `label` (HR), raw bytes of uint8 RGB.
RECORD_OVERHEAD = 16  # bytes of a TFRecord beside its data: length, its checksum, and the checksum of the data


def write_records(sampler, folder, pairs, shards):
    """Write `pairs` random pairs of a Sampler to `shards` files in `folder`; those that are there already are kept.

    Each file appears under its name once it is complete, and depends on the sampler's seed and its own number alone: an
    interrupted call is continued by the same call. Raises UserError if the disk has no room for them.
    """
    s, p = sampler.scale, sampler.patch
    sizes = [pairs * (i + 1) // shards - pairs * i // shards for i in range(shards)]
    paths = [os.path.join(folder, "train_SR_aug_X%d_%d-%05d-of-%05d.tfrecord" % (s, pairs, i, shards)) for i in range(shards)]
    missing = [i for i in range(shards) if not os.path.exists(paths[i])]
    needed = sum(sizes[i] for i in missing) * (3 * p * p * (1 + s * s) + 64)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError("%s has %.1f GB free, but the records need %.1f GB: lower --pairs" % (folder, free / 1e9, needed / 1e9))

    def write(i):
        with tf.python_io.TFRecordWriter(paths[i] + ".tmp") as writer:
            for lr, hr in zip(*sampler(i, sizes[i])):
                features = {"image": lr, "label": hr}
                writer.write(tf.train.Example(features=tf.train.Features(feature={
                    key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.tobytes()]))
                    for key, value in features.items()})).SerializeToString(deterministic=True))
        os.replace(paths[i] + ".tmp", paths[i])

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(write, i) for i in missing]
        for future in tqdm(concurrent.futures.as_completed(futures), "writing", len(missing), unit="file", disable=None):
            try:
                future.result()
            except (tf.errors.OpError, OSError) as error:
                for other in futures:
                    other.cancel()
                raise UserError("cannot write records to %s: %s" % (folder, str(error).splitlines()[0]))


def records_config(folder):
    """How a folder of records was written, as its records.json says; {} if it has none, as the authors' records."""
    path = os.path.join(folder, "records.json")
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        return json.load(file)


class RecordSampler(object):
    """Batches from TFRecords in the authors' format, each pair once in an epoch, in an order of its own every epoch."""

    def __init__(self, folder, scale, batch, patch, seed):
        """folder: of *.tfrecord files, of which every record has the same size. Raises UserError if it has none."""
        self.scale, self.batch, self.patch, self.seed = scale, batch, patch, seed
        self.files = [open(path, "rb") for path in sorted(glob.glob(os.path.join(glob.escape(folder), "*.tfrecord")))]
        if not self.files:
            raise UserError("no *.tfrecord in %s: give --data to write them from photographs" % folder)
        first = self.files[0].read(RECORD_OVERHEAD)
        if len(first) < RECORD_OVERHEAD:
            raise UserError("%s is too short to hold a record: write it again" % self.files[0].name)
        self.length = int(np.frombuffer(first[:8], np.uint64)[0])
        self.lock, self.places = threading.Lock(), []
        for i, file in enumerate(self.files):
            size = os.path.getsize(file.name)
            if size % (self.length + RECORD_OVERHEAD):
                raise UserError("%s does not consist of records of %d bytes, as the first does: write it again"
                                % (file.name, self.length))
            self.places += [(i, offset) for offset in range(0, size, self.length + RECORD_OVERHEAD)]
        self._read(0)  # so that records of another scale or patch are an error now

    def _read(self, index):
        i, offset = self.places[index]
        with self.lock:
            self.files[i].seek(offset + 12)
            data = self.files[i].read(self.length)
        lr, hr = self.patch, self.patch * self.scale
        try:
            feature = tf.train.Example.FromString(data).features.feature
            return (np.frombuffer(feature["image"].bytes_list.value[0], np.uint8).reshape(lr, lr, 3),
                    np.frombuffer(feature["label"].bytes_list.value[0], np.uint8).reshape(hr, hr, 3))
        except Exception as error:  # of protobuf, in either version, or of NumPy
            raise UserError("%s: the record at byte %d is no pair of %dx%d and %dx%d patches: %s" % (
                self.files[i].name, offset, lr, lr, hr, hr, str(error).splitlines()[0] if str(error) else "damaged"))

    @functools.lru_cache(maxsize=2)
    def _order(self, epoch):
        return np.random.RandomState([self.seed, epoch]).permutation(len(self.places))

    def __call__(self, step):
        """The batch of a step, a function of seed and step alone: LR [batch, p, p, 3], HR [batch, sp, sp, 3], uint8."""
        positions = range(step * self.batch, (step + 1) * self.batch)
        pairs = [self._read(self._order(i // len(self.places))[i % len(self.places)]) for i in positions]
        return tuple(np.stack(images) for images in zip(*pairs))


def prefetch(function, first, last, depth=4):
    """Yield function(i) for i in range(first, last), computed ahead in a thread."""
    results = queue.Queue(depth)

    def work():
        try:
            for i in range(first, last):
                results.put((function(i), None))
        except Exception as error:
            results.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    for _ in range(first, last):
        result, error = results.get()
        if error:
            raise error
        yield result


# ----------------------------------------------------------------------------------------------------------- graph

# Muon (K. Jordan et al., 2024, https://kellerjordan.github.io/posts/muon): the momentum of a kernel, a matrix whose columns are
# the output channels, is replaced by the nearest matrix with singular values of about 1, so that no direction of it is lost
# beside the strongest.
MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # of the polynomial that brings singular values in (0, 1] to about 1 in 5 rounds
# root mean square of the entries of an update for a learning rate of 1, whatever the kernel's shape. Adam's have about 0.2 (J. Liu
# et al., arXiv 2502.16982, section 2.2); here, kernels do best with four times the learning rate of what is left to Adam.
UPDATE_RMS = 0.8


def uses_muon(shape):
    """Whether a variable of this shape is for Muon: a kernel between features, with 16 or more channels on both sides."""
    return len(shape) == 4 and min(shape[2:]) >= 16


def orthogonalize(x, matmul):
    """x, [m, n] with m <= n and a Frobenius norm of 1, with its singular values brought to between 0.7 and 1.2.

    matmul(a, b, transpose): a b, or a b^T; of any library.
    """
    a, b, c = NEWTON_SCHULZ
    for _ in range(5):
        gram = matmul(x, x, True)
        x = a * x + matmul(b * gram + c * matmul(gram, gram, False), x, False)
    return x


def muon_momentum(kernel):
    """The variable <kernel>/Muon."""
    with tf.colocate_with(kernel):
        return tf.Variable(tf.zeros(kernel.shape), trainable=False, name=kernel.op.name + "/Muon")


def muon_step(kernel, momentum, gradient, rate, decay):
    """The operation that updates a kernel W [kh, kw, in, out] by Muon with Nesterov's momentum and decoupled weight decay:
    W <- W - rate (O + decay W), where O is the orthogonal update (J. Liu et al., arXiv 2502.16982, equation 3)."""
    height, width, inputs, outputs = kernel.shape.as_list()
    rows, columns = height * width * inputs, outputs
    with tf.colocate_with(kernel):
        new = momentum.assign(MOMENTUM * momentum + (1 - MOMENTUM) * gradient)
        x = tf.reshape(MOMENTUM * new + (1 - MOMENTUM) * gradient, [rows, columns])
        x = x / (tf.norm(x) + 1e-12)
        tall = rows > columns
        x = orthogonalize(tf.transpose(x) if tall else x, lambda a, b, transpose: tf.matmul(a, b, transpose_b=transpose))
        x = (UPDATE_RMS * max(rows, columns) ** 0.5) * (tf.transpose(x) if tall else x)
        update = tf.reshape(x, kernel.shape) + decay * kernel if decay else tf.reshape(x, kernel.shape)
        return kernel.assign_sub(rate * update)


# A step that cannot be good is skipped, which costs one step: applied, it can cost the training.
MAX_LOSS = 10   # RGB is in [0, 1]: a larger loss, or none that is a number, is that of a network that has exploded
NORMS = 101     # the last norms of gradients, of which the median is taken
MAX_SKIPPED = 5  # in a row: then training stops


def is_bad(loss, norm, skip_above):
    """Whether a step is to be skipped, a boolean tensor: its loss or the norm of its gradient is not finite, or the norm is more than
    `skip_above` times (0: no limit) the median of the last NORMS finite ones, for which the limit waits until there are half as many.

    With a limit, the norms are the variable `gradient_norms`; evaluating the tensor adds this step's.
    """
    finite = tf.logical_and(loss < MAX_LOSS, tf.is_finite(norm))
    if not skip_above:
        return tf.logical_not(finite)
    norms = tf.Variable(tf.fill([NORMS], np.float32(np.inf)), trainable=False, name="gradient_norms")
    limit = skip_above * tf.nn.top_k(norms, NORMS // 2 + 1)[0][-1]
    bad = tf.logical_not(tf.logical_and(finite, norm <= limit))
    with tf.control_dependencies([bad]):
        noted = norms.assign(tf.where(finite, tf.concat([norms[1:], [norm]], 0), norms))
    with tf.control_dependencies([noted]):
        return tf.identity(bad)


def optimize_by(recipe, rate, loss, step):
    """A training step by the optimizer of a Recipe; Muon leaves to Adam what is not for it.

    Returns the operation, which also counts `step`, the norm of the gradient of all variables together, whether the step was
    skipped (see is_bad), and the moving averages of the variables, [] without. A skipped step changes no variable but `step`.
    """
    adam = tf.train.AdamOptimizer(rate, 0.9, 0.999, 1e-8, name="AdamOptimizer")
    pairs = adam.compute_gradients(loss, colocate_gradients_with_ops=True)
    norm = tf.global_norm([gradient for gradient, _ in pairs])
    skipped = is_bad(loss, norm, recipe.skip_above)
    by_adam, by_muon = [], []
    for gradient, variable in pairs:
        if recipe.optimizer == "muon" and uses_muon(variable.shape.as_list()):
            by_muon.append((variable, muon_momentum(variable), gradient))
        else:
            by_adam.append((gradient, variable))
    average = tf.train.ExponentialMovingAverage(recipe.ema, num_updates=step) if recipe.ema else None

    def apply():
        with tf.name_scope(None):  # the names of variables made here are the published ones, not below that of the condition
            updates = [muon_step(*one, rate=rate, decay=recipe.decay) for one in by_muon]
            train = tf.group(adam.apply_gradients(by_adam), *updates)
            if not average:
                return train
            with tf.control_dependencies([train]):
                return average.apply(model_variables())

    with tf.control_dependencies([step.assign_add(1)]):
        train = tf.cond(skipped, tf.no_op, apply)
    return train, norm, skipped, [average.average(variable) for variable in model_variables()] if average else []


def bfloat16_kernels(getter, name, **kwargs):
    """A custom getter of variable scopes under which conv2d computes in bfloat16, forward and backward: kernels are rounded to
    it wherever they are used, while the variables, biases, sums and all between the convolutions stay float32."""
    variable = getter(name, **kwargs)
    return tf.cast(variable, tf.bfloat16) if name.endswith("/kernel") else variable


def has_bfloat16():
    """Whether this TensorFlow has convolutions in bfloat16."""
    return not tf.__version__.startswith("1.")


def cpu_has_bfloat16():
    """Whether the processor has instructions for bfloat16; True where the system does not say."""
    try:
        with open("/proc/cpuinfo") as file:
            return "bf16" in file.read()
    except OSError:
        return True


def check_precision(precision):
    """Raise UserError if this TensorFlow cannot train in one of PRECISIONS."""
    if precision == "bfloat16" and not has_bfloat16():
        raise UserError("TensorFlow %s cannot convolve in bfloat16: leave out --precision, or use TensorFlow 2" % tf.__version__)


PRECISIONS = {"float32": None, "bfloat16": bfloat16_kernels}  # of convolutions -> custom getter of the model's variables
# norm: of the gradient; skipped: whether the step was; largest_dra, kernel_rms: what shows early that a training diverges
Training = collections.namedtuple("Training", "lr hr rate sr loss step train averages norm skipped largest_dra kernel_rms")


def build_training(model, scale, recipe, devices=("",), without=None, precision="float32"):
    """Build the Training of a Recipe: its optimizer on the L1 loss, and with `ema` a moving average of the weights.

    With several `devices`, each computes the gradient for an equal part of the batch. without: of an ablation (see drsan).
    precision: of the convolutions of a step; `sr`, for validation, of a batch of any size, is always computed in float32.

    Variables are named as in the published training graphs: the step is Variable, Adam's slots are <name>/AdamOptimizer and
    <name>/AdamOptimizer_1, and beta1_power and beta2_power.
    """
    lr = tf.placeholder(tf.uint8, [None, None, None, 3], "LR")
    hr = tf.placeholder(tf.uint8, [None, None, None, 3], "HR")
    rate = tf.placeholder(tf.float32, [], "rate")
    losses = []
    for device, lr_part, hr_part in zip(devices, tf.split(lr, len(devices)), tf.split(hr, len(devices))):
        with tf.device(device), tf.variable_scope(tf.get_variable_scope(), custom_getter=PRECISIONS[precision]):
            sr = drsan(tf.cast(lr_part, tf.float32) / 255, model, scale, without)
            losses.append(tf.reduce_mean(tf.abs(tf.cast(hr_part, tf.float32) / 255 - sr)))
    dra = [tf.reduce_max(tf.abs(values)) for values in dra_values()] or [tf.ones([])]
    sr = drsan(tf.cast(lr, tf.float32) / 255, model, scale, without)
    loss = tf.identity(tf.add_n(losses) / len(losses), "Loss")
    step = tf.Variable(0, trainable=False, name="Variable")
    train, norm, skipped, averages = optimize_by(recipe, rate, loss, step)
    kernels = [variable for variable in model_variables() if len(variable.shape) == 4]
    kernel_rms = tf.sqrt(2 * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
                         / sum(kernel.shape.num_elements() for kernel in kernels))
    return Training(lr, hr, rate, sr, loss, step, train, averages, norm, skipped, tf.reduce_max(tf.stack(dra)), kernel_rms)


@contextlib.contextmanager
def averaged_weights(session, training):
    """Within this context the model has the averages of its weights, if the training keeps them."""
    if not training.averages:
        yield
        return
    weights, averages = session.run([model_variables(), training.averages])
    load_values(session, model_variables(), averages)
    try:
        yield
    finally:
        load_values(session, model_variables(), weights)


def validate(session, training, pairs, scale):
    """Mean PSNR of Y over (LR, HR) pairs, and the SR images. Raises UserError if the memory does not do for one."""
    try:
        images = [to_uint8(255 * session.run(training.sr, {training.lr: lr[None]})[0]) for lr, _ in pairs]
    except tf.errors.ResourceExhaustedError:
        raise UserError("not enough memory to upscale an image of %s: give --valid smaller ones" % " x ".join(
            map(str, max(lr.shape[:2] for lr, _ in pairs))))
    return float(np.mean([score(sr, hr, scale)[0] for sr, (_, hr) in zip(images, pairs)])), images


# ------------------------------------------------------------------------------------------------------------ runs

def describe_data(folder):
    """What config.json says of a folder of photographs or records: its path, and a digest of the names and sizes of its files.

    Raises UserError if there are none.
    """
    digest = hashlib.sha256()
    paths = list_photographs(folder) or sorted(glob.glob(os.path.join(glob.escape(folder), "*.tfrecord")))
    if not paths:
        raise UserError("no training data below %s: expected %s images" % (
            folder, "/".join(suffix[1:].upper() for suffix in IMAGE_SUFFIXES)))
    for path in paths:
        digest.update(("%s %d\n" % (os.path.relpath(path, folder), os.path.getsize(path))).encode())
    return {"folder": folder, "files": len(paths), "sha256_of_names_and_sizes": digest.hexdigest()}


def resume_log(path, step):
    """Cut log.jsonl to complete lines of steps up to `step`, since what was logged after the state was saved is done again.

    The file is rewritten by rename, and made empty if it is missing. Returns its records as a list of dicts.
    """
    lines = []
    if os.path.exists(path):
        with open(path) as file:
            lines = [line for line in file if line.endswith("\n") and json.loads(line)["step"] <= step]
    with open(path + ".tmp", "w") as file:
        file.writelines(lines)
    os.replace(path + ".tmp", path)
    return [json.loads(line) for line in lines]


PATHS = "init_from", "valid"  # values of a config that are paths, or may be


def check_same_config(run, started, config):
    """Raises UserError that names the first key in which the config that a run was started with differs from this one.

    What does not change the training may differ: how a path is spelled, where the data are, how many steps are planned if the
    learning rate does not depend on it, and the history of the weights, as the checkpoint that the run started from may have been
    replaced since.
    """
    for key in sorted((set(started) | set(config)) - {"trained_before"}):
        old, new = started.get(key), config.get(key)
        if key in PATHS and old and new:
            same = os.path.abspath(old) == os.path.abspath(new)
        elif key == "data" and old and new:
            same = dict(old, folder=None) == dict(new, folder=None)
        else:
            same = old == new or (key == "steps" and config["schedule"] == "halve")
        if not same and key == "steps" and config["schedule"] == started["schedule"]:
            raise UserError("%s was started with steps = %s, not %s, and the learning rate of %s depends on it: give the same, or "
                            "begin another run from its weights by --init-from %s --run DIR" % (
                                run, old, new, config["schedule"], os.path.join(run, "best")))
        if not same:
            raise UserError("%s was started with %s = %s, not %s: give the same options, or another --run" % (run, key, old, new))


class Run(object):
    """The folder of a run: config.json, log.jsonl and TensorBoard's summaries, the last state, the best weights."""

    def __init__(self, folder, config):
        """Check that the run in the folder, if it has come to any weights, was started with the same config. Raises UserError."""
        self.folder, self.config = folder, dict(config)
        self.state, self.best = os.path.join(folder, "state"), os.path.join(folder, "best")
        self.judged_by = "psnr_held_out" if config["valid_share"] else "psnr"  # the key of the PSNR in the log that `best` is of
        path = os.path.join(folder, "config.json")
        if os.path.exists(path) and any(map(checkpoint_prefix, (self.state, self.best))):
            with open(path) as file:
                started = json.load(file)
            check_same_config(folder, started, config)
            self.config["trained_before"] = started.get("trained_before")

    @contextlib.contextmanager
    def alone(self):
        """Within this context no other process trains in the folder. Raises UserError if one does already."""
        os.makedirs(self.folder, exist_ok=True)
        try:
            lock = lock_file(os.path.join(self.folder, ".lock"), wait=False)
        except BlockingIOError:
            raise UserError("another process trains in %s: wait for it, or give another --run" % self.folder)
        with lock:
            yield

    def build(self, device):
        """Add what saves and initialises the variables of the default graph; files are written by the given device's host."""
        for folder in self.state, self.best:
            os.makedirs(folder, exist_ok=True)
            for left in glob.glob(os.path.join(glob.escape(folder), "*temp*")):  # by a run that was killed while it saved
                shutil.rmtree(left) if os.path.isdir(left) else os.remove(left)
        write_json(os.path.join(self.folder, "config.json"), self.config)
        with tf.device(device):
            self.state_saver, self.best_saver = (
                tf.train.Saver(variables, max_to_keep=1, save_relative_paths=True)  # so that the folder can be moved
                for variables in (tf.global_variables(), model_variables()))
        for saver, folder in (self.state_saver, self.state), (self.best_saver, self.best):
            known = tf.train.get_checkpoint_state(folder)
            saver.recover_last_checkpoints(known.all_model_checkpoint_paths if known else [])  # to delete them in time
        self.initialize = tf.global_variables_initializer()
        self.summaries = tf.summary.FileWriter(self.folder)

    def open(self, session, step):
        """Restore the last state into the variables of the default graph, or initialise them; returns the step reached."""
        self.session = session
        if self.restore_state():
            pass
        elif glob.glob(os.path.join(glob.escape(self.state), "*.index")):
            raise UserError("%s holds several states, and its file `checkpoint` names none of them: remove all but the last one"
                            % self.state)
        else:
            session.run(self.initialize)
        self.step = int(session.run(step))
        self.best_psnr, self.seconds = -np.inf, 0.0
        path = os.path.join(self.folder, "log.jsonl")
        for record in resume_log(path, self.step):
            self.best_psnr = max(self.best_psnr, record.get(self.judged_by, -np.inf))
            self.seconds = record["seconds"]
        self.log_file = open(path, "a", buffering=1)
        return self.step

    def log(self, record, images=()):
        """Append a record to log.jsonl and to TensorBoard's summaries, where its figures have the paper's names."""
        self.log_file.write(json.dumps(record, sort_keys=True) + "\n")
        values = [tf.Summary.Value(tag=tag, simple_value=record[key]) for key, tag in (
            ("loss", "Loss"), ("rate", "Learning_rate"), ("psnr", "PSNR_mean"), ("psnr_held_out", "PSNR_held_out"),
            ("gradient_norm", "Gradient_norm"), ("skipped", "Skipped_steps"), ("largest_dra", "Largest_DRA"),
            ("kernel_rms", "Kernel_RMS")) if key in record]
        for i, image in enumerate(images):
            png = io.BytesIO()
            Image.fromarray(image).save(png, "PNG")
            values.append(tf.Summary.Value(tag="SR/%d" % i, image=tf.Summary.Image(
                height=image.shape[0], width=image.shape[1], colorspace=3, encoded_image_string=png.getvalue())))
        self.summaries.add_summary(tf.Summary(value=values), record["step"])
        self.summaries.flush()

    def restore_state(self):
        """Load the last state into the variables of the default graph; returns whether there is one."""
        latest = checkpoint_prefix(self.state)
        if latest:
            with checkpoint_errors(latest):
                reader = tf.train.NewCheckpointReader(latest)
                load_values(self.session, tf.global_variables(),
                            [reader.get_tensor(variable.op.name) for variable in tf.global_variables()])
        return bool(latest)

    def save_state(self, step):
        """Save everything that the run continues from. Raises UserError, and keeps the last state, if that is not possible."""
        self._save(self.state_saver, os.path.join(self.state, "state"), step)

    def save_best(self, step, psnr):
        """Save the weights as the best so far, with what they are in config.json beside them."""
        self.best_psnr = psnr
        self._save(self.best_saver, os.path.join(self.best, "DRSAN%s%s" % (self.config["model"], self.config["scale"])), step)
        write_json(os.path.join(self.best, "config.json"), dict(
            self.config, trained_steps=step, trained_seconds=round(self.seconds), validation_psnr=round(psnr, 4),
            framework="TensorFlow %s" % tf.__version__,
            device="GPU" if any(d.device_type == "GPU" for d in self.session.list_devices()) else "%d CPUs" % os.cpu_count()))

    def _save(self, saver, prefix, step):
        try:
            saver.save(self.session, prefix, global_step=step, write_meta_graph=False)
        except (tf.errors.OpError, OSError, ValueError) as error:
            raise UserError("cannot save step %d as %s: %s; the one before is kept" % (step, prefix, str(error).splitlines()[0]))


def open_photographs(args, recipe):
    """The Sampler of the photographs below --data."""
    photographs = load_photographs(args.data, SCALES[args.scale], recipe.patch, args.workers, args.valid_share)
    print("%d photographs, %.1f megapixels" % (
        len(photographs), sum(hr.shape[0] * hr.shape[1] for _, hr in photographs) / 1e6), flush=True)
    return Sampler(photographs, SCALES[args.scale], recipe.batch, recipe.patch, args.seed, recipe.candidates)


def open_records(args, recipe):
    """The RecordSampler of the records in --records, which are first written from --data if that is given and they are not
    complete."""
    if args.data:
        os.makedirs(args.records, exist_ok=True)
        wanted = dict(data=describe_data(args.data), valid_share=args.valid_share, scale=args.scale, patch=recipe.patch, candidates=recipe.candidates,
                      seed=args.seed, pairs=args.pairs, shards=args.shards)
        started = records_config(args.records)
        if not started and glob.glob(os.path.join(glob.escape(args.records), "*.tfrecord")):
            raise UserError("%s holds records that were not written here: leave out --data to train on them, or give another "
                            "--records" % args.records)
        if started:
            different = sorted(key for key in wanted if started.get(key) != wanted[key])
            if different:
                raise UserError("%s holds records with another %s: give another --records" % (args.records, ", ".join(different)))
        else:
            write_json(os.path.join(args.records, "records.json"), wanted)
        done = glob.glob(os.path.join(glob.escape(args.records), "*-of-%05d.tfrecord" % args.shards))
        if len(done) < args.shards:
            write_records(open_photographs(args, recipe), args.records, args.pairs, args.shards)
    sampler = RecordSampler(args.records, SCALES[args.scale], recipe.batch, recipe.patch, args.seed)
    pairs = records_config(args.records).get("pairs", len(sampler.places))
    if len(sampler.places) != pairs:
        raise UserError("%s holds %d of %d pairs: give --data and the options that it was started with to write the rest" % (
            args.records, len(sampler.places), pairs))
    print("%d pairs in %d files of %s" % (pairs, len(sampler.files), args.records), flush=True)
    return sampler


# --------------------------------------------------------------------------------------------------------- devices

Cluster = collections.namedtuple("Cluster", "addresses type index")  # addresses: {type: [host:port, ...]}


def read_cluster():
    """The Cluster that the environment variable TF_CONFIG describes, and this process's task in it; None without it."""
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        config = json.loads(text)
        cluster = Cluster(config["cluster"], config["task"]["type"], int(config["task"]["index"]))
        cluster.addresses[cluster.type][cluster.index]
        cluster.addresses["chief"][0]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError("TF_CONFIG lacks %s: expected {\"cluster\": {\"chief\": [HOST:PORT], \"worker\": [HOST:PORT, ...], "
                        "\"ps\": [HOST:PORT, ...]}, \"task\": {\"type\": \"worker\", \"index\": 0}}" % error)
    return cluster


def start_server(cluster, args, **config):
    """This process's tf.train.Server. Raises UserError if its address cannot be used."""
    try:
        return tf.train.Server(cluster.addresses, cluster.type, cluster.index, config=session_config(args.gpu, **config))
    except tf.errors.OpError as error:
        raise UserError("cannot serve at %s of TF_CONFIG: %s" % (
            cluster.addresses[cluster.type][cluster.index], str(error).splitlines()[0]))


def task_done(task):
    """A queue of one task of the cluster, which the chief fills when training is done."""
    with tf.device(task + "/cpu:0"):
        return tf.FIFOQueue(1, tf.bool, [()], shared_name="done")


def serve(cluster, args):
    """Be a worker or a parameter server: compute what the chief asks for until it says that training is done."""
    task = "/job:%s/task:%d" % (cluster.type, cluster.index)
    server = start_server(cluster, args)
    print("serving as %s at %s" % (task[1:], cluster.addresses[cluster.type][cluster.index]), flush=True)
    with tf.Session(server.target, config=tf.ConfigProto(device_filters=[task])) as session:
        session.run(task_done(task).dequeue())


class Devices(object):
    """What shares a batch, in equal parts: the GPUs, or the threads of the CPU; in a cluster, those of chief and workers.

    One part of the batch a thread takes a quarter less time than operations that are themselves split over threads, and
    gives the same sums in every run.
    """

    def __init__(self, args, batch, cluster=None):
        tasks, self.others = [""], []
        if cluster:
            names = {job: ["/job:%s/task:%d" % (job, i) for i in range(len(addresses))]
                     for job, addresses in cluster.addresses.items()}
            tasks = names["chief"] + names.get("worker", [])
            self.others = names.get("worker", []) + names.get("ps", [])
        parts = max(n for n in range(1, args.threads + 1) if batch % (n * len(tasks)) == 0)
        config = dict(intra_op_parallelism_threads=args.threads // parts, inter_op_parallelism_threads=args.threads)
        self.server = start_server(cluster, args, **config) if cluster else None
        self.connect = functools.partial(open_session, args.gpu, self.server.target if cluster else "", **config)
        with self.connect() as session:  # in a cluster, as soon as all tasks are there
            gpus = sum(device.device_type == "GPU" for device in session.list_devices()) // len(tasks)
        self.on_cpu = not gpus
        local = ["/gpu:%d" % i for i in range(gpus)] if gpus > 1 else [""] * (1 if gpus else parts)
        self.names = [task + name for task in tasks for name in local]
        if batch % len(self.names):
            raise UserError("a batch of %d cannot be split over %d devices: change --batch" % (batch, len(self.names)))
        self.chief = tasks[0]
        if cluster:
            stores = names.get("ps") or names["chief"]
            self.names = [tf.train.replica_device_setter(
                len(stores), stores[0].rpartition("/task")[0], name, ps_ops=["VariableV2", "Variable"]) for name in self.names]


# -------------------------------------------------------------------------------------------------------- training

def train(args):
    cluster = read_cluster()
    if cluster and cluster.type != "chief":
        return serve(cluster, args)
    check_precision(args.precision)
    scale = SCALES[args.scale]
    recipe = choose_recipe(args, args.model, args.scale)
    if args.records:
        sampler = open_records(args, recipe)
        recipe = recipe._replace(candidates=records_config(args.records).get("candidates", 1))
        if args.prepare:
            return
    folder = args.run or os.path.join("runs", "%s_%s" % (args.model, args.scale))
    begins = args.init_from is not None and not checkpoint_prefix(os.path.join(folder, "state"))
    start = find_checkpoint(args.model, args.scale, args.init_from) if begins else None
    held_out = hold_out(args.data, args.valid_share)[1] if args.valid_share else []
    run = Run(folder, dict(
        recipe._asdict(), model=args.model, scale=args.scale, recipe=args.recipe, seed=args.seed, init_from=args.init_from,
        trained_before=training_history(start) if start else [], without=args.without, precision=args.precision,
        valid=args.valid, valid_share=args.valid_share, held_out=[os.path.relpath(path, args.data) for path in held_out],
        data=describe_data(args.records or args.data)))
    valid = open_valid(args.valid, held_out, scale, args.data_dir)
    if not args.records:
        sampler = open_photographs(args, recipe)
    print("recipe %s: %s" % (args.recipe, ", ".join("%s %s" % item for item in recipe._asdict().items())), flush=True)
    with run.alone():
        train_run(run, start, sampler, recipe, valid, cluster, args)


def open_valid(name, held_out, scale, data_dir):
    """{key in the log: (name, (LR, HR) pairs)} of the validation sets: the data set of this name, and the photographs held out.

    The last of them judges which weights are the best. Raises UserError if an image is too small for PSNR and SSIM.
    """
    sets = collections.OrderedDict(psnr=(name, find_dataset(name, scale, data_dir).pairs))
    if held_out:
        sets["psnr_held_out"] = "held-out photographs", [Pair(path, path, None) for path in held_out]
    for key, (name, pairs) in sets.items():
        sets[key] = name, [read_pair(pair, scale) for pair in pairs]
        for _, hr in sets[key][1]:
            check_size(hr, scale)
    return sets


def train_run(run, start, sampler, recipe, valid, cluster, args):
    """Train a Run from its last state, or else from the checkpoint `start` (None: initial weights), until it is done or stopped."""
    devices = Devices(args, recipe.batch, cluster)
    if args.precision == "bfloat16" and devices.on_cpu and not cpu_has_bfloat16():
        print("note: this processor has no instructions for bfloat16: a step takes many times as long as in float32", flush=True)
    tf.set_random_seed(args.seed)
    training = build_training(args.model, args.scale, recipe, devices.names, args.without, args.precision)
    run.build(devices.chief)
    finish = [task_done(task).enqueue(True) for task in devices.others]
    tf.get_default_graph().finalize()
    stop = []
    for number in signal.SIGINT, signal.SIGTERM:
        signal.signal(number, lambda received, _: stop.append(received))
    while True:
        try:
            with devices.connect() as session:
                step = optimize(session, training, recipe, sampler, valid, run, start, stop, args)
                if step == recipe.steps:
                    session.run(finish)
            break
        except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
            if not cluster:
                raise
            print("lost a task of the cluster (%s): going on from the last state when all are there" % (
                str(error).splitlines()[0]), flush=True)
    print("stopped at step %d; the same command resumes" % step if stop else "done: %s" % run.best)


def start_or_resume(session, training, run, start, judge):
    """Bring the run into the variables; returns the step from which it goes on. judge: what the best weights are the best on."""
    step = run.open(session, training.step)
    if step:
        print("resumed at step %d, %s" % (step, "best PSNR of %s %.3f dB" % (judge, run.best_psnr) if np.isfinite(run.best_psnr)
                                          else "before its first validation"), flush=True)
    elif start:
        _, _, message = transfer_weights(session, start)
        if training.averages:
            load_values(session, training.averages, session.run(model_variables()))
        print(message, flush=True)
    return step


class Meter(object):
    """What the next line of the log is made of: the steps since the last one."""

    def __init__(self, run, recipe):
        self.run, self.recipe = run, recipe
        self._begin()

    def _begin(self):
        self.losses, self.norms, self.skipped, self.waited, self.begun = [], [], 0, 0.0, time.time()

    def pause(self, seconds):
        """Leave out this time, so that the speed is that of training alone."""
        self.begun += seconds

    def add(self, loss, norm, skipped):
        """Note a step; the loss and the norm of one that was skipped may be anything and do not count."""
        self.skipped += bool(skipped)
        if not skipped:
            self.losses.append(float(loss))
            self.norms.append(float(norm))

    def log(self, step, rate):
        """Print the line and write the record, and begin the next one."""
        seconds, steps = time.time() - self.begun, len(self.losses) + self.skipped
        self.run.seconds += seconds
        speed, waited = steps * self.recipe.batch / seconds, self.waited / seconds
        loss = np.mean(self.losses) if self.losses else np.nan
        print(format_progress(step, self.recipe, loss, rate, speed, waited, self.skipped), flush=True)
        record = dict(step=step, rate=float("%.4g" % rate), seconds=round(self.run.seconds, 1), skipped=self.skipped,
                      images_per_second=round(speed, 2), data_wait=round(waited, 4))
        if self.losses:
            record.update(loss=round(loss, 6), gradient_norm=float("%.4g" % np.median(self.norms)))
        self.run.log(record)
        self._begin()


def validate_run(session, training, valid, step, feed, run, scale):
    """Print and log what the averaged weights reach on the validation sets, and save them if they are the best so far."""
    dra, rms = session.run([training.largest_dra, training.kernel_rms], feed)
    record = dict(step=step, seconds=round(run.seconds, 1), largest_dra=float("%.4g" % dra), kernel_rms=float("%.4g" % rms))
    with averaged_weights(session, training):
        for key, (_, pairs) in valid.items():
            psnr, images = validate(session, training, pairs, scale)
            record[key] = round(psnr, 4)
        better = psnr > run.best_psnr
        if better:
            run.save_best(step, psnr)
    print("step %7d  PSNR of %s, best %.3f dB" % (step, ", ".join(
        "%s %.3f dB" % (name, record[key]) for key, (name, _) in valid.items()), run.best_psnr), flush=True)
    run.log(record, [image[:128, :128] for image in images[:4]] if better else ())


def is_sound(session, training, applied):
    """Whether the weights have a loss on the patches of the step that made them; the loss of that step was of those before it.

    applied: what was fed to the last step that was not skipped; None, for weights as they were loaded, is sound.
    """
    return applied is None or session.run(training.loss, applied) < MAX_LOSS


def give_up(session, training, applied, step, loss, norm, run):
    """Raise UserError for a training that has diverged, and leave a state from which the same command goes on, if there is a good
    one: with the weights of now if they are sound, else with those last saved, and in either case with the patches after `step`."""
    what = "the training diverges at step %d, with a loss of %.4g and a gradient norm of %.4g" % (step, loss, norm)
    if not is_sound(session, training, applied):
        if not run.restore_state():
            raise UserError("%s: lower --rate, in another --run" % what)
        load_values(session, [training.step], [step])
    run.save_state(step)
    raise UserError("%s: the same command goes on with other patches from the last good weights, saved in %s; if it ends here "
                    "again, lower --rate, in another --run" % (what, run.state))


def optimize(session, training, recipe, sampler, valid, run, start, stop, args):
    """Train from the run's last state to recipe.steps, or until `stop` is not empty; returns the step reached, which is saved."""
    judge = list(valid.values())[-1][0]
    step = first = start_or_resume(session, training, run, start, judge)
    batches, meter, saved = prefetch(sampler, step, recipe.steps), Meter(run, recipe), time.time()
    applied, in_a_row = None, 0
    while step < recipe.steps and not stop:
        before = time.time()
        lr, hr = next(batches)
        meter.waited += time.time() - before
        rate = learning_rate(recipe, step)
        feed = {training.lr: lr, training.hr: hr, training.rate: rate}
        try:
            _, loss, norm, skipped = session.run([training.train, training.loss, training.norm, training.skipped], feed)
        except tf.errors.ResourceExhaustedError:
            raise UserError("not enough memory for step %d: lower --batch or --patch" % step)
        step += 1
        meter.add(loss, norm, skipped)
        applied, in_a_row = (applied, in_a_row + 1) if skipped else (feed, 0)
        if in_a_row == MAX_SKIPPED:
            give_up(session, training, applied, step, loss, norm, run)
        if step % args.log_every == 0 or step == recipe.steps:
            meter.log(step, rate)
        if step % args.valid_every == 0 or step == recipe.steps:
            before = time.time()
            validate_run(session, training, valid, step, feed, run, SCALES[args.scale])
            meter.pause(time.time() - before)
        if time.time() - saved > 60 * args.save_minutes and is_sound(session, training, applied):
            run.save_state(step)
            saved = time.time()
    if step > first:
        if not is_sound(session, training, applied):
            give_up(session, training, applied, step, loss, norm, run)
        run.save_state(step)
    return step


def parse_gpus(text):
    return [int(index) for index in text.split(",")]


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", type=parse_gpus, default=[0], metavar="I[,J...]",
                        help="index of the GPU, -1 for the CPU; the batch is split over several")
    parser.add_argument("--model", default="32s", choices=list(MODELS))
    parser.add_argument("--scale", default="x2", choices=list(SCALES))
    parser.add_argument("--without", choices=ABLATIONS, help="train an ablation: without DRA, its dynamics, or RSA")
    parser.add_argument("--init-from", metavar="CHECKPOINT", help="start from the weights of another scale or depth")
    parser.add_argument("--data", metavar="DIR", help="photographs, searched recursively")
    parser.add_argument("--records", metavar="DIR", help="train on TFRecords, first written here from --data if that is given")
    parser.add_argument("--prepare", action="store_true", help="only write the records")
    parser.add_argument("--pairs", type=positive(int), default=80000, help="how many records to write (default 80000)")
    parser.add_argument("--shards", type=positive(int), default=16, help="in how many files (default 16)")
    parser.add_argument("--run", metavar="DIR", help="default runs/<model>_<scale>")
    add_recipe_options(parser)
    parser.add_argument("--precision", default="float32", choices=list(PRECISIONS),
                        help="of convolutions; bfloat16 is for the processors that have it, and needs TensorFlow 2")
    parser.add_argument("--seed", type=not_negative(int), default=0)
    parser.add_argument("--valid", default="Sample", help="data set for validation")
    parser.add_argument("--valid-share", type=fraction(float), default=0, metavar="S",
                        help="hold out about this share of the photographs, and call best what is the best on them")
    parser.add_argument("--data-dir", default="data", metavar="DIR", help="where data sets are found")
    parser.add_argument("--valid-every", type=positive(int), default=1000, metavar="STEPS")
    parser.add_argument("--log-every", type=positive(int), default=100, metavar="STEPS")
    parser.add_argument("--save-minutes", type=not_negative(float), default=10)
    parser.add_argument("--threads", type=positive(int), default=os.cpu_count(), help="of TensorFlow on the CPU (default: all)")
    parser.add_argument("--workers", type=positive(int), default=os.cpu_count(), help="processes that read photographs")
    args = parser.parse_args()
    if not (args.data or args.records):
        parser.error("give photographs by --data or records by --records")
    if args.without and args.init_from:
        parser.error("--without trains from scratch, without --init-from")
    if args.prepare and not (args.data and args.records):
        parser.error("--prepare needs --data and --records")
    if args.candidates and not args.data:
        parser.error("--candidates goes with --data: records hold the patches that were chosen")
    if args.valid_share and not args.data:
        parser.error("--valid-share goes with --data: it holds out photographs")
    if args.pairs < args.shards:
        parser.error("--pairs %d cannot fill --shards %d" % (args.pairs, args.shards))
    if args.run and set(args.run) & PATTERN:
        parser.error("--run %s: TensorFlow takes the characters *?[ for a pattern" % args.run)
    return args


if __name__ == "__main__":
    run_main(lambda: train(parse_args()))
