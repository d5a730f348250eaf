"""What a run says of itself, for any framework: its config, the lines of its log, and who may go on with
it."""
import contextlib
import json
import os
import sys
import time

from tools.command import UserError, notice_once
from tools.files import replacing
from tools.training.recipes import make_recipe

import numpy as np
from tqdm import tqdm

LONG = 2  # days of a CPU, above which the recipe for CPUs is named
PATHS = "init_from", "valid"  # values of a config that are paths, or may be
# keys of log.jsonl, and what they are called in figures
CURVES = {"loss": "Training loss (mean absolute error)", "psnr": "Validation PSNR of Y (dB)"}
HEALTH = {"gradient_norm": "Norm of the gradient", "largest_dra": "Largest |DRA|",
          "kernel_rms": "RMS of the kernels"}


def say(text):
    """Print a line, above the progress bar if there is one. Where nothing reads it any more, as after `|
    head` or in a lost terminal, this is noted once, and printing ends, not the training."""
    try:
        tqdm.write(text)
        sys.stdout.flush()
    except OSError as error:
        silence = os.open(os.devnull, os.O_WRONLY)
        for number in [1, 2] if os.path.sameopenfile(1, 2) else [1]:
            os.dup2(silence, number)
        notice_once("cannot print (%s): the training goes on, and log.jsonl has its lines" % error.strerror)


def format_progress(step, recipe, loss, rate, speed, waited, skipped):
    """The line of the log: mean loss since the line before, learning rate, images/s, share of the time spent
    on waiting for data, and how many steps were skipped, if any."""
    left = (recipe.steps - step) * recipe.batch / speed
    return "step %7d/%d  loss %.5f  rate %.2e  %6.1f images/s  wait %4.1f %%  left %d:%02d:%02d%s" % (
        step, recipe.steps, loss, rate, speed, 100 * waited, left // 3600, left // 60 % 60, left % 60,
        "  skipped %d" % skipped if skipped else "")


def format_hint(config, recipe, step, speed):
    """What is said of a training on a CPU that is at a step and takes so many images/s: how long the recipe
    `fast` takes, if the rest takes days; else None."""
    days = (recipe.steps - step) * recipe.batch / speed / 86400
    if days < LONG or config["recipe"] == "fast":
        return None
    fast = make_recipe("fast", config["model"], config["scale"])
    share = fast.batch * fast.patch ** 2 / (recipe.batch * recipe.patch ** 2)
    return "note: this takes %.0f days, a plan for GPUs; --recipe fast, for CPUs, about %.1f hours here" % (
        days, fast.steps * recipe.batch / speed * share / 3600)


class Meter(object):
    """What the next line of the log is made of: the steps since the last one. On a terminal, also a bar over
    all steps, as long as the meter's context lasts."""

    def __init__(self, run, recipe, step, on_cpu):
        self.run, self.recipe, self.hints = run, recipe, on_cpu
        self.bar = tqdm(total=recipe.steps, initial=step, unit="step", leave=False, disable=None)
        self._begin()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bar.close()

    def _begin(self):
        self.losses, self.norms, self.skipped, self.waited, self.begun = [], [], 0, 0.0, time.time()

    @contextlib.contextmanager
    def waiting(self):
        """Time that is spent within this context is spent on waiting for data."""
        before = time.time()
        yield
        self.waited += time.time() - before

    @contextlib.contextmanager
    def paused(self):
        """Time that is spent within this context does not count: speed is that of training alone."""
        before = time.time()
        yield
        self.begun += time.time() - before

    def add(self, loss, norm, skipped):
        """Note a step; the loss and the norm of one that was skipped may be anything and do not count."""
        self.skipped += bool(skipped)
        if not skipped:
            self.losses.append(float(loss))
            self.norms.append(float(norm))
        self.bar.update()

    def log(self, step, rate):
        """Print the line and write the record, and begin the next one."""
        seconds, steps = time.time() - self.begun, len(self.losses) + self.skipped
        self.run.seconds += seconds
        speed, waited = steps * self.recipe.batch / seconds, self.waited / seconds
        loss = np.mean(self.losses) if self.losses else np.nan
        say(format_progress(step, self.recipe, loss, rate, speed, waited, self.skipped))
        hint = format_hint(self.run.config, self.recipe, step, speed) if self.hints else None
        self.hints = False  # one line says it
        if hint:
            say(hint)
        record = dict(step=step, rate=float("%.4g" % rate), seconds=round(self.run.seconds, 1),
                      skipped=self.skipped, images_per_second=round(speed, 2), data_wait=round(waited, 4))
        if self.losses:
            record.update(loss=round(loss, 6), gradient_norm=float("%.4g" % np.median(self.norms)))
        self.run.log(record)
        self._begin()


def resume_log(path, step):
    """Cut log.jsonl to its lines of steps up to `step`, since what came after the saved state is done again.

    A line that is damaged, as by a power cut, is named and left out. The file is rewritten by rename, and
    made empty if it is missing. Returns its records as a list of dicts.
    """
    lines, records = [], []
    if os.path.exists(path):
        with open(path, errors="replace") as file:
            lines = [line for line in file if line.endswith("\n")]
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if record["step"] <= step:
                records.append((line, record))
        except (ValueError, KeyError, TypeError):
            notice_once("line %d of %s is damaged, and left out" % (number, path))
    with replacing(path) as temporary, open(temporary, "w") as file:
        file.writelines(line for line, _ in records)
    return [record for _, record in records]


def read_curves(run):
    """{key: (steps, values)} of a run's log.jsonl for the keys of CURVES and HEALTH; the validation PSNR is
    that of the held-out photographs where there are any. Raises UserError."""
    path = os.path.join(run, "log.jsonl")
    try:
        with open(path) as file:
            records = [json.loads(line) for line in file]
    except (OSError, ValueError) as error:
        raise UserError("cannot read %s: %s" % (path, error))
    curves = {key: ((), ()) for key in list(CURVES) + list(HEALTH)}
    judge = "psnr_held_out" if any("psnr_held_out" in record for record in records) else "psnr"
    for key in curves:
        source = judge if key == "psnr" else key
        points = [(record["step"], record[source]) for record in records if record.get(source) is not None]
        curves[key] = tuple(zip(*points)) or ((), ())
    return curves


def check_same_config(run, started, config):
    """Raises UserError that names the first key in which the config that a run was started with differs from
    this.

    What does not change the training may differ: how a path is spelled, where the data are, how many steps
    are planned if the learning rate does not depend on it, and the history of the weights, as the checkpoint
    that the run started from may have been replaced since.
    """
    another = "begin another run from its weights by --init-from %s --run DIR" % os.path.join(run, "best")
    for key in sorted((set(started) | set(config)) - {"trained_before"}):
        old, new = started.get(key), config.get(key)
        if old == new or not (old or new) or (key == "steps" and config["schedule"] == "halve"):
            continue
        if key in PATHS and old and new and os.path.abspath(old) == os.path.abspath(new):
            continue
        if key == "data" and old and new:
            if dict(old, folder=None) == dict(new, folder=None):
                continue
            raise UserError("%s was started with other data, %d files of %s, and now there are %d in %s: "
                            "give the same, or %s" % (
                                run, old["files"], old["folder"], new["files"], new["folder"], another))
        if key == "steps" and config["schedule"] == started["schedule"]:
            raise UserError("%s was started with steps = %s, not %s, and the learning rate of %s depends on "
                            "it: give the same, or %s" % (run, old, new, config["schedule"], another))
        raise UserError("%s was started with %s = %s, not %s: give the same options, or another --run" % (
            run, key, old, new))


def history_of(config, origin):
    """The configs of all trainings that led to weights with this config, the first one first; of unknown
    weights, where they are from is all that is known."""
    if "trained_before" not in config:
        return [{"checkpoint": origin}]
    left_out = "sha256", "trained_before", "dra_ranges"
    own = {key: value for key, value in config.items() if key not in left_out}
    return config["trained_before"] + [own]


class Divergence(UserError):
    """A training has come to weights that it does not get away from."""


def divergence(step, loss, norm, saved=None):
    """The Divergence of a training that diverges at a step with this loss and gradient norm; saved: where the
    weights are from which it can go on, None if there are none."""
    goes_on = "" if saved is None else (
        "the same command goes on with other patches from the last good weights, saved in %s; if it ends "
        "here again, "
        % saved)
    return Divergence("the training diverges at step %d, with a loss of %.4g and a gradient norm of %.4g: "
                      "%slower --rate, in another --run" % (step, loss, norm, goes_on))
