"""One training with JAX, from where its state was left to its end: the loop that runs, logs, validates and saves.

What a step is stands in training.py, what the files are in files.py, how long a training is in schedule.py.
"""
import os
from collections import namedtuple

from tools.command import UserError
from tools.files import to_json
from tools.gpu.files import load_state, save_state
from tools.gpu.programs import Stopped
from tools.gpu.schedule import precision_of
from tools.gpu.training import new_state, validate
from tools.training.history import check_same_config, divergence, format_progress, resume_log
from tools.training.recipes import MAX_SKIPPED

import jax
import numpy as np

# folder: where state and log are; start: a function that gives the weights to begin with; config: what a run was started with
Job = namedtuple("Job", "folder graph recipe precision seed start config")
# dispatch: steps that run on the device without a pause; valid: (LR, HR) pairs, or []; valid_every: steps; save_seconds: between
# two states; data: what config.json says of them; clock: in seconds; stop: a list that is no longer empty once training is to end
Options = namedtuple("Options", "dispatch valid valid_every save_seconds data clock stop")


class Trainer(object):
    """A Job in training. Its `seconds` are those of its loop, saving and validating included, compiling not."""

    def __init__(self, job, tiles, programs, options):
        """Begin it, or open what was left of it. Raises UserError if that was begun with another config."""
        self.job, self.tiles, self.programs, self.options = job, tiles, programs, options
        os.makedirs(job.folder, exist_ok=True)
        self.state_path, self.log_path = (os.path.join(job.folder, name) for name in ("state.npz", "log.jsonl"))
        self.seconds, self.share, self.config = 0.0, 0.0, dict(job.config)
        if os.path.exists(self.state_path):
            state, started, trained = load_state(self.state_path)
            check_same_config(self.state_path, started, self.config)
            state["skipped_in_a_row"] = np.int32(0)
            self.config["trained_before"] = started["trained_before"]
            self.seconds, self.share = trained["trained_seconds"], trained["share"]
        else:
            state = new_state(job.start(), job.recipe, job.seed)
        self.step = int(state["Variable"])
        self.state = jax.device_put(state)
        self.records = resume_log(self.log_path, self.step)
        self.best = max((record["psnr"] for record in self.records if record.get("psnr") is not None), default=-np.inf)
        self.pace, self.ended, self.saved = None, None, self.options.clock()  # ended: the last dispatch
        if self.step:
            best = ", best validation PSNR %.3f dB" % self.best if self.best > -np.inf else ""
            print("resumed at step %d%s" % (self.step, best), flush=True)

    def request_programs(self, schedule):
        """Have compiled what the training begins with, and wait for it; what it ends with is compiled meanwhile."""
        rates, share = schedule.rates(self.step, self.seconds, self.pace, self.options.dispatch)
        if not schedule.is_done(self.step, self.share):
            self._program(precision_of(self.job.precision, share), len(rates))
            self.programs.request_ahead(self.job.graph, self.job.recipe, precision_of(self.job.precision, 1), self.state,
                                        self.tiles, len(rates))

    def _program(self, precision, steps):
        return self.programs.get(self.job.graph, self.job.recipe, precision, self.state, self.tiles, steps)

    def train(self, schedule, progress=lambda: None):
        """Train to the end of the schedule, or until stopped; returns whether it is done. progress: is called after every dispatch.

        Raises Divergence, and leaves a state from which the same command goes on.
        """
        clock, options, log = self.options.clock, self.options, open(self.log_path, "a", buffering=1)
        with log:
            while not schedule.is_done(self.step, self.share) and not options.stop:
                rates, share = schedule.rates(self.step, self.seconds, self.pace, options.dispatch)
                precision = precision_of(self.job.precision, share)
                try:
                    program = self._program(precision, len(rates))
                except Stopped:
                    break
                before = clock()
                record, skipped = self._dispatch(program, rates, before)
                record["precision"] = precision
                self.share, self.pace = share, (clock() - before) / len(rates)
                self._tell(record, schedule.expected_steps(self.step, self.seconds, self.pace))
                if options.valid and (self.step // options.valid_every > (self.step - len(rates)) // options.valid_every
                                      or share >= 1):
                    self._validate(record)
                self.records.append(record)
                log.write(to_json(record) + "\n")
                self.seconds += clock() - before
                if clock() - self.saved > options.save_seconds and not skipped:
                    before = clock()
                    self.save()
                    self.seconds += clock() - before
                progress()
        self.save()
        return schedule.is_done(self.step, self.share)

    def _dispatch(self, program, rates, before):
        """Run the program; returns the record for the log, and whether the last step was skipped."""
        first = self.step
        self.state, values = program(self.state, self.tiles, rates)
        losses, norms, skipped = map(np.asarray, values)
        after = self.options.clock()
        if self.state["skipped_in_a_row"] >= MAX_SKIPPED:
            last = int(self.state["Variable"]) - first - 1
            self.give_up(first + last + 1, losses[last], norms[last])
        self.step = first + len(rates)
        waited = (before - self.ended) / (after - self.ended) if self.ended else 0
        self.ended = after
        record = dict(step=self.step, data_wait=round(waited, 4), rate=float("%.4g" % rates[-1]), skipped=int(skipped.sum()),
                      images_per_second=round(len(rates) * self.job.recipe.batch / (after - before), 2),
                      time=round(after, 1), seconds=round(self.seconds + after - before, 1))
        if not skipped.all():
            record.update(loss=round(float(np.mean(losses[~skipped])), 6),
                          gradient_norm=float("%.4g" % np.median(norms[~skipped])))
        return record, skipped[-1]

    def _tell(self, record, steps):
        """Print the line of the log."""
        print(format_progress(record["step"], self.job.recipe._replace(steps=steps), record.get("loss", np.nan), record["rate"],
                              record["images_per_second"], record["data_wait"], record["skipped"]), flush=True)

    def _validate(self, record):
        value = validate(self.job.graph, self.state, self.options.valid)
        self.best = max(self.best, value)
        record["psnr"] = round(value, 4)
        print("step %7d  PSNR %.3f dB, best %.3f dB" % (self.step, value, self.best), flush=True)

    def save(self):
        """Write the state. Raises UserError, and keeps the one before, if its weights are not finite."""
        save_state(self.state_path, jax.device_get(self.state), self.config, dict(
            trained_seconds=round(self.seconds, 3), share=self.share, precision=self.job.precision,
            framework="JAX %s" % jax.__version__, device=jax.devices()[0].device_kind, data=self.options.data))
        self.saved = self.options.clock()

    def give_up(self, step, loss, norm):
        """Raise Divergence for a training of which MAX_SKIPPED steps in a row were bad, the last one with this loss and norm.

        The last state, if there is one, gets the step reached, so that the same command goes on from its weights with the patches
        that come next; else the weights of now are saved.
        """
        if os.path.exists(self.state_path):
            kept, config, trained = load_state(self.state_path)
            save_state(self.state_path, dict(kept, Variable=np.int32(step)), config, trained)
        else:
            self.save()
        raise divergence(step, loss, norm, self.state_path)
