"""Train DRSAN on a folder of photographs: python train.py --gpu 0 --model 32s --scale x2 --data data/DIV2K/DIV2K_train_HR

A run lives in runs/<model>_<scale>: config.json, log.jsonl, state/ (the training state, from which the same command resumes)
and best/ (the weights with the best validation PSNR, to be evaluated by test.py --checkpoint).
"""
import argparse
import collections
import concurrent.futures
import functools
import json
import os
import queue
import signal
import threading
import time

import numpy as np
from tqdm import tqdm

from model import MODELS, SCALES, drsan, model_variables
from ops import tf
from utils import (IMAGE_SUFFIXES, UserError, crop_to_multiple, downscale, find_dataset, open_session, read_image,
                   read_pair, run_main, save_weights, score, to_uint8)

# --------------------------------------------------------------------------------------------------------- recipes

Recipe = collections.namedtuple("Recipe", "rate schedule warmup steps batch patch ema")

PAPER_RATE = {  # read from the published training graphs; 32l exists for x2 only, at x3 and x4 it takes those of 32m
    "x2": {"32s": 2e-4, "32m": 2e-4, "32l": 2e-4, "48s": 2e-4, "48m": 2e-4},
    "x3": {"32s": 2e-4, "32m": 5e-5, "32l": 5e-5, "48s": 1e-4, "48m": 1e-4},
    "x4": {"32s": 2e-4, "32m": 1e-4, "32l": 1e-4, "48s": 2e-4, "48m": 1e-4},
}


def make_recipe(name, model, scale):
    """The recipe `paper` (every published value; the number of steps is not known) or `fast` (for hours of a CPU)."""
    if name == "paper":
        return Recipe(PAPER_RATE[scale][model], "halve", 0, 1000000, 16, 48, 0)
    return Recipe(1e-3, "cosine", 200, 15000, 16, 32, 0.999)


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


# ------------------------------------------------------------------------------------------------------------ data

def load_pair(path, scale):
    """(LR, HR) of one photograph, uint8 RGB, or the UserError that says why it cannot be used."""
    try:
        hr = crop_to_multiple(read_image(path), scale)
        return downscale(hr, scale), hr
    except UserError as error:
        return error


def load_photographs(folder, scale, patch, workers):
    """All photographs below `folder` as a list of (LR, HR) in memory, uint8 RGB, LR made by imresize.

    Those that cannot be read, or are smaller than a patch (in LR pixels), are named and left out. Raises UserError if none is
    left.
    """
    paths = sorted(os.path.join(parent, file) for parent, _, files in os.walk(folder) for file in files
                   if file.lower().endswith(IMAGE_SUFFIXES))
    photographs = []
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


class Sampler(object):
    """Random batches of patches: uniform over all positions in all photographs, and over the 8 flips and rotations."""

    def __init__(self, photographs, scale, batch, patch, seed):
        self.photographs, self.scale, self.batch, self.patch, self.seed = photographs, scale, batch, patch, seed
        positions = [(lr.shape[0] - patch + 1) * (lr.shape[1] - patch + 1) for lr, _ in photographs]
        self.share = np.cumsum(positions) / np.sum(positions)

    def __call__(self, step):
        """The batch of a step, a function of seed and step alone: LR [batch, p, p, 3], HR [batch, sp, sp, 3], uint8."""
        random, s, p = np.random.RandomState([self.seed, step]), self.scale, self.patch
        lr_batch, hr_batch = [], []
        for _ in range(self.batch):
            lr, hr = self.photographs[np.searchsorted(self.share, random.rand())]
            y, x = random.randint(lr.shape[0] - p + 1), random.randint(lr.shape[1] - p + 1)
            quarter_turns, mirror = random.randint(4), random.randint(2)
            for image, f, images in (lr, 1, lr_batch), (hr, s, hr_batch):
                image = np.rot90(image[f * y:f * (y + p), f * x:f * (x + p)], quarter_turns)
                images.append(image[:, ::-1] if mirror else image)
        return np.stack(lr_batch), np.stack(hr_batch)


def prefetch(function, first, last, depth=4):
    """Yield function(i) for i in range(first, last), computed ahead in a thread."""
    results = queue.Queue(depth)

    def work():
        for i in range(first, last):
            results.put(function(i))

    threading.Thread(target=work, daemon=True).start()
    for _ in range(first, last):
        yield results.get()


# ----------------------------------------------------------------------------------------------------------- graph

Training = collections.namedtuple("Training", "lr hr rate sr loss step train averages")


def build_training(model, scale, ema):
    """Build the training graph: L1 loss, Adam as published, and with `ema` > 0 a moving average of the weights.

    Variables are named as in the published training graphs: the step is Variable, Adam's slots are <name>/AdamOptimizer and
    <name>/AdamOptimizer_1, and beta1_power and beta2_power.
    """
    lr = tf.placeholder(tf.uint8, [None, None, None, 3], "LR")
    hr = tf.placeholder(tf.uint8, [None, None, None, 3], "HR")
    rate = tf.placeholder(tf.float32, [], "rate")
    sr = drsan(tf.cast(lr, tf.float32) / 255, model, scale)
    loss = tf.reduce_mean(tf.abs(tf.cast(hr, tf.float32) / 255 - sr), name="Loss")
    step = tf.Variable(0, trainable=False, name="Variable")
    train = tf.train.AdamOptimizer(rate, 0.9, 0.999, 1e-8, name="AdamOptimizer").minimize(loss, global_step=step)
    averages = []
    if ema:
        with tf.control_dependencies([train]):
            average = tf.train.ExponentialMovingAverage(ema, num_updates=step)
            train = average.apply(model_variables())
        averages = [average.average(variable) for variable in model_variables()]
    return Training(lr, hr, rate, sr, loss, step, train, averages)


class averaged_weights(object):
    """Within this context the model has the averages of its weights, if the training keeps them."""

    def __init__(self, session, training):
        self.session, self.averages = session, training.averages

    def load(self, values):
        for variable, value in zip(model_variables(), values):
            variable.load(value, self.session)

    def __enter__(self):
        if self.averages:
            self.weights = self.session.run(model_variables())
            self.load(self.session.run(self.averages))

    def __exit__(self, *error):
        if self.averages:
            self.load(self.weights)


def validate(session, training, pairs, scale):
    """Mean PSNR of Y over (LR, HR) pairs."""
    values = []
    for lr, hr in pairs:
        sr = session.run(training.sr, {training.lr: lr[None]})[0]
        values.append(score(to_uint8(255 * sr), hr, scale)[0])
    return float(np.mean(values))


# ------------------------------------------------------------------------------------------------------------ runs

def write_json(path, value):
    """Write `value` to a temporary name, then rename it to `path`."""
    with open(path + ".tmp", "w") as file:
        json.dump(value, file, indent=1, sort_keys=True)
        file.write("\n")
    os.replace(path + ".tmp", path)


def open_run(folder, config):
    """Make the folder of a run, or check that the run in it was started with the same config. Raises UserError."""
    path = os.path.join(folder, "config.json")
    if os.path.exists(path):
        with open(path) as file:
            started = json.load(file)
        for key in sorted(set(started) | set(config)):
            if started.get(key) != config.get(key):
                raise UserError("%s was started with %s = %r, not %r: give the same options, or another --run"
                                % (folder, key, started.get(key), config.get(key)))
    else:
        os.makedirs(folder, exist_ok=True)
        write_json(path, config)


def format_seconds(seconds):
    return "%d:%02d:%02d" % (seconds // 3600, seconds // 60 % 60, seconds % 60)


def train(args):
    scale = SCALES[args.scale]
    recipe = make_recipe(args.recipe, args.model, args.scale)
    recipe = recipe._replace(**{key: getattr(args, key) for key in Recipe._fields if getattr(args, key) is not None})
    run = args.run or os.path.join("runs", "%s_%s" % (args.model, args.scale))
    open_run(run, dict(recipe._asdict(), model=args.model, scale=args.scale, recipe=args.recipe, data=args.data,
                       seed=args.seed))
    valid = [read_pair(pair, scale) for pair in find_dataset(args.valid, scale, args.data_dir).pairs]
    photographs = load_photographs(args.data, scale, recipe.patch, args.workers)
    print("%d photographs, %.1f megapixels; recipe %s: %s" % (
        len(photographs), sum(hr.shape[0] * hr.shape[1] for _, hr in photographs) / 1e6, args.recipe,
        ", ".join("%s %s" % item for item in recipe._asdict().items())), flush=True)
    sampler = Sampler(photographs, scale, recipe.batch, recipe.patch, args.seed)

    tf.set_random_seed(args.seed)
    training = build_training(args.model, args.scale, recipe.ema)
    saver = tf.train.Saver(max_to_keep=1)
    initialize = tf.global_variables_initializer()
    best_saver = tf.train.Saver(model_variables())
    session = open_session(args.gpu)
    session.graph.finalize()

    state = os.path.join(run, "state")
    latest = tf.train.latest_checkpoint(state)
    if latest:
        saver.restore(session, latest)
    else:
        session.run(initialize)
    first = step = int(session.run(training.step))
    log_path = os.path.join(run, "log.jsonl")
    best = -np.inf
    if os.path.exists(log_path):
        with open(log_path) as file:
            best = max([json.loads(line).get("psnr", best) for line in file] or [best])
    if latest:
        print("resumed at step %d, best validation PSNR %.3f dB" % (step, best), flush=True)

    stop = []
    for number in signal.SIGINT, signal.SIGTERM:
        signal.signal(number, lambda received, _: stop.append(received))

    def save():
        os.makedirs(state, exist_ok=True)
        saver.save(session, os.path.join(state, "state"), global_step=step, write_meta_graph=False)

    saved = logged = time.time()
    waited, losses = 0.0, []
    log = open(log_path, "a", buffering=1)
    batches = prefetch(sampler, step, recipe.steps)
    while step < recipe.steps and not stop:
        before = time.time()
        lr, hr = next(batches)
        waited += time.time() - before
        rate = learning_rate(recipe, step)
        _, loss = session.run([training.train, training.loss], {training.lr: lr, training.hr: hr, training.rate: rate})
        if not np.isfinite(loss):
            raise UserError("the loss is %s at step %d: lower --rate; %s keeps the last good state" % (loss, step, state))
        step += 1
        losses.append(float(loss))
        last = step == recipe.steps
        record = {}
        if step % args.log_every == 0 or last:
            seconds = time.time() - logged
            images = len(losses) * recipe.batch / seconds
            record = dict(step=step, loss=round(float(np.mean(losses)), 6), rate=float("%.4g" % rate),
                          images_per_second=round(images, 2), data_wait=round(waited / seconds, 4), time=round(time.time(), 1))
            print("step %7d/%d  loss %.5f  rate %.2e  %6.1f images/s  wait %4.1f %%  left %s" % (
                step, recipe.steps, record["loss"], rate, images, 100 * waited / seconds,
                format_seconds((recipe.steps - step) * recipe.batch / images)), flush=True)
            waited, losses, logged = 0.0, [], time.time()
        if step % args.valid_every == 0 or last:
            with averaged_weights(session, training):
                value = validate(session, training, valid, scale)
                record.update(step=step, psnr=round(value, 4))
                if value > best:
                    best = value
                    os.makedirs(os.path.join(run, "best"), exist_ok=True)
                    best_saver.save(session, os.path.join(run, "best", "DRSAN%s%s" % (args.model, args.scale)),
                                    write_meta_graph=False)
            print("step %7d  PSNR of %s %.3f dB, best %.3f dB" % (step, args.valid, value, best), flush=True)
            logged += time.time() - logged if not losses else 0
        if record:
            log.write(json.dumps(record, sort_keys=True) + "\n")
        if time.time() - saved > 60 * args.save_minutes:
            save()
            saved = time.time()
    if step > first:
        save()
    print("stopped at step %d; the same command resumes" % step if stop else "done: %s" % os.path.join(run, "best"))


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", type=int, default=0, help="index of the GPU, -1 for the CPU")
    parser.add_argument("--model", default="32s", choices=list(MODELS))
    parser.add_argument("--scale", default="x2", choices=list(SCALES))
    parser.add_argument("--data", required=True, metavar="DIR", help="photographs, searched recursively")
    parser.add_argument("--run", metavar="DIR", help="default runs/<model>_<scale>")
    parser.add_argument("--recipe", default="paper", choices=["paper", "fast"])
    parser.add_argument("--rate", type=float, help="start of the learning rate")
    parser.add_argument("--schedule", choices=["halve", "cosine"])
    parser.add_argument("--warmup", type=int, metavar="STEPS")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--patch", type=int, help="side of the LR patches")
    parser.add_argument("--ema", type=float, help="decay of the average of weights, 0 for none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--valid", default="Sample", help="data set for validation")
    parser.add_argument("--data-dir", default="data", metavar="DIR", help="where data sets are found")
    parser.add_argument("--valid-every", type=int, default=1000, metavar="STEPS")
    parser.add_argument("--log-every", type=int, default=100, metavar="STEPS")
    parser.add_argument("--save-minutes", type=float, default=10)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that read photographs")
    return parser.parse_args()


if __name__ == "__main__":
    run_main(lambda: train(parse_args()))
