"""One training with JAX, from where its state was left to its end: it runs, logs, validates and saves."""
import os
import signal
import time

from model import SCALES
from tools.files import to_json
from tools.gpu.network import upscale, variable_shapes
from tools.gpu.schedule import next_rates
from tools.gpu.state import averaged_weights, load_state, save_state
from tools.gpu.tiles import stack_tiles
from tools.gpu.training import Setup, new_state, run_steps
from tools.training.history import divergence, format_progress, resume_log, say
from tools.training.recipes import MAX_SKIPPED
from tools.weights import describe_transfer, initial_weights, transfer
from utils import mean_scores, psnr_y, to_uint8

import jax
import numpy as np


class Trainer(object):
    """A run in training."""

    def __init__(self, args, recipe, run, photographs, valid):
        """args, run: of train_jax.py. photographs: (LR, HR) pairs. valid: as open_valid() gives it."""
        self.args, self.recipe, self.run, self.valid = args, recipe, run, valid
        self.setup = Setup(args.model, args.scale, recipe, args.precision)
        self.total = 60 * args.minutes if args.minutes else None
        state = run.state or new_state(recipe, self.first_weights(), args.seed)
        self.step, self.programs, self.pace = int(state["step"]), {}, None
        self.last_skipped, self.stopped = [], 0
        self.log_path = os.path.join(args.run, "log.jsonl")
        resume_log(self.log_path, self.step)
        self.state, self.tiles = jax.device_put(state), stack_tiles(photographs, recipe.patch)
        mebibytes = (self.tiles.lr.nbytes + self.tiles.hr.nbytes) >> 20
        say("%s, with %d MiB of photographs" % (jax.devices()[0].device_kind, mebibytes))
        self.share, self.begun = 0, time.time()
        if run.trained:
            self.share, self.begun = run.trained["share"], self.begun - run.trained["trained_seconds"]
            say("resumed at step %d" % self.step)

    def first_weights(self):
        """{name: array} to begin with: drawn, or as far as they fit those of --init-from."""
        own = initial_weights(variable_shapes(self.args.model, self.args.scale), self.args.seed)
        if self.run.start is None:
            return own
        weights, taken = transfer(self.run.start, own, self.args.init_from)
        say(describe_transfer(taken, own, self.args.init_from))
        return weights

    @property
    def seconds(self):
        """How long the run has been trained, with validation and saving, but without compiling."""
        return time.time() - self.begun

    @property
    def done(self):
        return self.share >= 1 if self.total else self.step >= self.recipe.steps

    def stop(self, number, _):
        """End after this dispatch; a handler of signals."""
        self.stopped = number

    def train(self):
        """Train to the end, or until Ctrl-C or SIGTERM; returns the exit status, then 130 or 143.

        Raises Divergence, and leaves a state from which the same command goes on.
        """
        for number in signal.SIGINT, signal.SIGTERM:
            signal.signal(number, self.stop)
        saved = time.time()
        with open(self.log_path, "a", buffering=1) as self.log:
            while not self.done and not self.stopped:
                validated = self.step // self.args.valid_every
                self.dispatch()
                if self.valid and (self.done or validated < self.step // self.args.valid_every):
                    self.validate()
                if time.time() - saved > 60 * self.args.save_minutes and not any(self.last_skipped[-1:]):
                    self.save()
                    saved = time.time()
        self.save()
        if self.done:
            say("done: %s" % self.run.path)
            return 0
        say("stopped at step %d; the same command resumes" % self.step)
        return 128 + self.stopped

    def compiled(self, rates):
        """The program of as many steps as there are rates."""
        if len(rates) not in self.programs:
            before = time.time()
            self.programs[len(rates)] = run_steps.lower(self.setup, self.state, self.tiles, rates).compile()
            self.begun += time.time() - before
        return self.programs[len(rates)]

    def dispatch(self):
        """Train and log the next steps, in one call of the device."""
        rates, self.share = next_rates(
            self.recipe, self.total, self.step, self.seconds, self.pace, self.args.dispatch)
        program, before = self.compiled(rates), time.time()
        self.state, values = program(self.state, self.tiles, rates)
        losses, norms, skipped = map(np.asarray, values)
        self.step, self.pace = self.step + len(rates), (time.time() - before) / len(rates)
        self.last_skipped = (self.last_skipped + list(skipped))[-MAX_SKIPPED:]
        if self.last_skipped == [True] * MAX_SKIPPED:
            self.give_up(losses[-1], norms[-1])
        loss = np.nan if skipped.all() else np.mean(losses[~skipped])
        speed = self.recipe.batch / self.pace
        steps = self.recipe.steps or self.step + int(max(0, self.total - self.seconds) / self.pace)
        say(format_progress(
            self.step, self.recipe._replace(steps=steps), loss, rates[-1], speed, 0, skipped.sum()))
        self.write(rate=float("%.4g" % rates[-1]), skipped=int(skipped.sum()), loss=round(float(loss), 6),
                   gradient_norm=float("%.4g" % np.median(norms)), images_per_second=round(speed, 2))

    def write(self, **record):
        """Add a record to the log."""
        self.log.write(to_json(dict(record, step=self.step, seconds=round(self.seconds, 1))) + "\n")

    def validate(self):
        """Print and log what the averaged weights reach on the validation sets."""
        weights, record, (model, scale, *_) = averaged_weights(self.state), {}, self.setup
        for key, (_, pairs) in self.valid.items():
            images = [to_uint8(np.asarray(upscale(weights, lr[None], model, scale)[0])) for lr, _ in pairs]
            psnr = [(psnr_y(sr, hr, SCALES[scale]),) for sr, (_, hr) in zip(images, pairs)]
            record[key] = round(mean_scores(psnr)[0], 4)
        say("step %7d  PSNR of %s" % (self.step, ", ".join(
            "%s %.3f dB" % (name, record[key]) for key, (name, _) in self.valid.items())))
        self.write(**record)

    def save(self):
        """Write the state. Raises UserError, and keeps the one before, if a weight is not finite."""
        save_state(self.run.path, jax.device_get(self.state), self.run.config, dict(
            trained_seconds=round(self.seconds, 3), share=self.share, framework="JAX %s" % jax.__version__,
            device=jax.devices()[0].device_kind))

    def give_up(self, loss, norm):
        """Raise Divergence, since MAX_SKIPPED steps in a row were bad, the last one with this loss and norm.

        The last state gets the step reached, so that the same command goes on with other patches.
        """
        if os.path.exists(self.run.path):
            kept, config, trained = load_state(self.run.path)
            save_state(self.run.path, dict(kept, step=np.int32(self.step)), config, trained)
        else:
            self.save()
        raise divergence(self.step, loss, norm, self.run.path)
