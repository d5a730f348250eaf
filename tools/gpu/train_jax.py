"""Train DRSAN with JAX: python tools/gpu/train_jax.py --model 32s --scale x2 --data data/photos --recipe fast

TensorFlow is not needed: jax, numpy, scipy, pillow and tqdm are. A run lives in runs/jax_<model>_<scale>:
log.jsonl, and state.npz, from which the same command goes on. convert.py makes a checkpoint of it.
"""
import argparse
import itertools
import os
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from model import SCALES
from tools.checkpoints import transfer
from tools.command import UserError, cpu_count, not_negative, positive, run_main, say
from tools.compute import PRECISIONS
from tools.data.patches import Sampler
from tools.data.photographs import describe_data, hold_out, in_threads, load_photographs, open_valid
from tools.files import check_writable, locked, to_json
from tools.gpu.convert import latest_weights, load_state, read_start, save_state
from tools.options import add_data_dir, add_valid_share, add_variant
from tools.training.recipes import (MAX_SKIPPED, add_recipe_options, choose_recipe, initial_weights,
                                    learning_rate)
from tools.training.run import Divergence, Meter, check_same_config, resume_log
from utils import mean_scores, psnr_y, to_uint8

import numpy as np

try:
    import jax
    from tools.gpu.blocks import apply_to_uint8, variable_shapes
    from tools.gpu.step import Setup, new_state, run_steps
except ImportError:
    jax = None


def next_rates(recipe, total, step, seconds, pace, dispatch):
    """(rates, share): float32 rates of the next steps, and which share of the training is done after them.

    total: seconds that the training takes, or None if it takes recipe.steps. step, seconds: used so far.
    pace: seconds a step, or 0 if that is not known yet. dispatch: how many rates; by steps, at most.

    By the clock, the rate reaches its end, for a cosine 0, in the dispatch that should end nearest to total.
    """
    if total is None:
        last = min(step + dispatch, recipe.steps)
        return np.float32([learning_rate(recipe, i) for i in range(step, last)]), last / recipe.steps
    begin, length = min(seconds / total, 1), dispatch * pace / total
    end = begin + length if begin + 1.5 * length < 1 else 1
    shares = begin + (end - begin) * np.arange(1, dispatch + 1) / dispatch
    return np.float32([learning_rate(recipe, step + i, share) for i, share in enumerate(shares)]), end


class JaxTrainer(object):
    """A run from where its state was left, which trains, logs, validates and saves. seconds: of training, as
    its Meter counts them."""

    def __init__(self, args):
        """Read the photographs, and the state of the run that the options name. Raises UserError, also if it
        was begun with others."""
        self.args, self.factor = args, SCALES[args.scale]
        recipe = choose_recipe(args, args.model, args.scale)
        self.recipe = recipe._replace(steps=0) if args.minutes else recipe  # their number is not known
        self.total = 60 * args.minutes if args.minutes else None
        self.path, self.log_path = (os.path.join(args.run, name) for name in ("state.npz", "log.jsonl"))
        held_out = hold_out(args.data, args.valid_share)[1]
        self.config = dict(
            self.recipe._asdict(), steps=self.recipe.steps or None, data=describe_data(args.data),
            held_out=[os.path.relpath(photograph, args.data) for photograph in held_out], trained_before=[],
            **{key: getattr(args, key) for key in (
                "model", "scale", "recipe", "seed", "init_from", "precision")})
        self.share, self.seconds, self.pace, self.skips, self.stopped = 0, 0, 0, 0, 0
        if os.path.exists(self.path):
            state, begun, trained = load_state(self.path)
            check_same_config(args.run, begun, self.config)
            self.config["trained_before"] = begun["trained_before"]
            self.share, self.seconds = trained["share"], trained["trained_seconds"]
            say("resumed at step %d" % state["step"])
        else:
            state = new_state(self.recipe, self.first_weights())
        self.valid = open_valid(args.valid, held_out, self.factor, args.data_dir)
        say("recipe %s: %s" % (args.recipe, ", ".join("%s %s" % item for item in recipe._asdict().items())))
        photographs = load_photographs(args.data, self.factor, recipe.patch, args.workers, args.valid_share)
        self.sampler = Sampler(photographs, self.factor, recipe.batch, recipe.patch, args.seed,
                               recipe.candidates, recipe.textures)
        self.setup = Setup(args.model, args.scale, self.recipe, args.precision)
        self.step, self.programs = int(state["step"]), {}  # programs: by how many steps they take
        resume_log(self.log_path, self.step)
        self.state = jax.device_put(state)
        say("%d photographs, training on %s" % (len(photographs), jax.devices()[0].device_kind))

    def first_weights(self):
        """{name: array} to begin with: drawn, or as far as they fit those of --init-from."""
        args = self.args
        own = initial_weights(variable_shapes(args.model, args.scale), args.seed)
        if args.init_from is None:
            return own
        start, self.config["trained_before"] = read_start(args.init_from)
        weights, _, message = transfer(start, own, args.init_from)
        say(message)
        return weights

    @property
    def done(self):
        return self.share >= 1 if self.total else self.step >= self.recipe.steps

    def stop(self, number, _):
        """End after this dispatch; a handler of signals."""
        self.stopped = number

    def train(self):
        """Train to the end, or until Ctrl-C or SIGTERM; returns the exit status, then 130 or 143. Raises
        Divergence."""
        for number in signal.SIGINT, signal.SIGTERM:
            signal.signal(number, self.stop)
        saved = time.time()
        steps = range(self.step, self.recipe.steps or sys.maxsize)
        self.batches = in_threads(self.sampler, steps, 1, self.args.dispatch)
        with open(self.log_path, "a", buffering=1) as self.log_file, Meter(
                self, self.recipe, self.step) as self.meter:
            while not self.done and not self.stopped:
                validated = self.step // self.args.valid_every
                self.dispatch()
                with self.meter.paused():
                    if self.valid and (self.done or validated < self.step // self.args.valid_every):
                        self.validate()
                    if time.time() - saved > 60 * self.args.save_minutes and not self.skips:
                        self.save()
                        saved = time.time()
        self.save()
        say("done: %s" % self.path if self.done else
            "stopped at step %d; the same command resumes" % self.step)
        return 0 if self.done else 128 + self.stopped

    def dispatch(self):
        """Train and log the next steps, in one call of the device. Raises Divergence after MAX_SKIPPED bad
        ones in a row."""
        rates, self.share = next_rates(
            self.recipe, self.total, self.step, self.seconds, self.pace, self.args.dispatch)
        count, before = len(rates), self.seconds
        with self.meter.waiting():
            lr, hr = (np.stack(images) for images in zip(*itertools.islice(self.batches, count)))
        if count not in self.programs:
            with self.meter.paused():
                program = run_steps.lower(self.setup, self.state, rates, lr, hr)
                self.programs[count] = program.compile()
        self.state, values = self.programs[count](self.state, rates, lr, hr)
        for loss, norm, skipped in zip(*map(np.asarray, values)):
            self.step, self.skips = self.step + 1, self.skips + 1 if skipped else 0
            self.meter.add(loss, norm, skipped)
            if self.skips == MAX_SKIPPED:
                raise Divergence(self.step, loss, norm)
        if self.total:  # how many steps there will be is a guess
            left = max(0, self.total - self.seconds) / self.pace if self.pace else 0
            self.meter.recipe = self.recipe._replace(steps=self.step + int(left))
        self.meter.log(self.step, rates[-1])
        self.pace = (self.seconds - before) / count

    def log(self, record):
        """Add a record to log.jsonl."""
        self.log_file.write(to_json(record) + "\n")

    def validate(self):
        """Print and log what the averaged weights reach on the validation sets."""
        weights = latest_weights(self.state)
        record = dict(step=self.step, seconds=round(self.seconds, 1))
        for key, (name, pairs) in self.valid.items():
            images = [np.asarray(apply_to_uint8(weights, lr[None], self.args.model, self.args.scale)[0])
                      for lr, _ in pairs]
            psnr = [(psnr_y(to_uint8(sr), hr, self.factor),) for sr, (_, hr) in zip(images, pairs)]
            record[key] = round(mean_scores(psnr)[0], 4)
            say("step %7d  PSNR of %s %.3f dB" % (self.step, name, record[key]))
        self.log(record)

    def save(self):
        """Write the state. Raises UserError, and keeps the one before, if a weight is not finite."""
        save_state(self.path, jax.device_get(self.state), self.config, dict(
            trained_seconds=round(self.seconds, 3), share=self.share, framework="JAX %s" % jax.__version__,
            device=jax.devices()[0].device_kind))


def parse_args(argv):
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add_variant(parser)
    data = parser.add_argument_group("data")
    data.add_argument("--data", required=True, metavar="DIR", help="photographs, searched recursively")
    data.add_argument("--valid", metavar="NAME",
                      help="Sample, which needs scikit-image, or a folder (default: only what is held out)")
    add_valid_share(data)
    add_data_dir(data)
    add_recipe_options(parser)
    run = parser.add_argument_group("run")
    run.add_argument("--minutes", type=positive(float),
                     help="of training, in place of --steps; compiling, validation and saving do not count")
    run.add_argument("--run", metavar="DIR", help="its folder (default runs/jax_<model>_<scale>)")
    run.add_argument("--init-from", metavar="NPZ",
                     help="start from other weights: a state.npz, or a file by convert.py")
    run.add_argument("--precision", default="float32", choices=PRECISIONS,
                     help="of the blocks' convolutions (default float32)")
    for name, kind, default, words in (
            ("seed", not_negative(int), 0, "of initial weights and patches"),
            ("valid-every", positive(int), 5000, "steps between two validations"),
            ("save-minutes", not_negative(float), 2, "between two states, from which a killed run resumes"),
            ("dispatch", positive(int), 100, "steps on the device without a pause, then a line of log"),
            ("workers", positive(int), cpu_count(), "threads that read photographs")):
        run.add_argument("--" + name, type=kind, default=default, metavar="N",
                         help=words + " (default %(default)s)")
    args = parser.parse_args(argv)
    if args.steps and args.minutes:
        parser.error("give --steps or --minutes")
    args.run = args.run or os.path.join("runs", "jax_%s_%s" % (args.model, args.scale))
    return args


def main(argv=None):
    args = parse_args(argv)
    if jax is None:
        raise UserError("JAX is needed: pip install jax (Python 3.11 or later)")
    check_writable([args.run])
    with locked(args.run, "trains in", "--run"):
        try:
            return JaxTrainer(args).train()
        except RuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise UserError("the device's memory is too small: lower --batch or --dispatch")


if __name__ == "__main__":
    run_main(main)
