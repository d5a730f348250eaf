"""What a run says of itself, for any framework: its config, the lines of its log, and whether a command may go on with it."""
import contextlib
import datetime
import io
import json
import os
import sys
import time

from tools.command import UserError, notice_once
from tools.files import replacing
from tools.training.recipes import make_recipe

import numpy as np
from tqdm import tqdm


class _Lasting(io.FileIO):
    """stdout or stderr, whose reader may go away: then what is written is dropped."""

    def write(self, data):
        try:
            return super(_Lasting, self).write(data)
        except OSError as error:
            if self.fileno() == 1:
                notice_once("cannot print (%s): the training goes on, and log.jsonl has its lines" % error.strerror)
            return len(data)


def outlive_readers():
    """Let no reader of stdout and stderr that goes away, as `head` or a lost ssh, end this process."""
    for name in "stdout", "stderr":
        stream = getattr(sys, name)
        setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(_Lasting(stream.fileno(), "w", closefd=False)),
                                            stream.encoding, "backslashreplace", line_buffering=True))


def say(text):
    """Print a line, above the progress bar if there is one."""
    tqdm.write(text)
    sys.stdout.flush()


def format_progress(step, recipe, loss, rate, speed, waited, skipped):
    """The line of the log: mean loss since the line before, learning rate, images/s, share of the time spent on waiting for data,
    and how many steps were skipped, if any."""
    seconds = (recipe.steps - step) * recipe.batch / speed
    return "step %7d/%d  loss %.5f  rate %.2e  %6.1f images/s  wait %4.1f %%  left %d:%02d:%02d%s" % (
        step, recipe.steps, loss, rate, speed, 100 * waited, seconds // 3600, seconds // 60 % 60, seconds % 60,
        "  skipped %d" % skipped if skipped else "")


LONG = 2 * 24 * 3600  # seconds of a CPU, above which the recipe for CPUs is named


def format_plan(config, recipe, step, seconds, on_cpu):
    """What is said of a training that is at a step, when it is known how many seconds a step takes: how long the rest takes, and
    how long by the recipe `fast` if that is absurd for a CPU."""
    left = (recipe.steps - step) * seconds
    text = "%.2f s a step: about %s for the %d steps that are left" % (
        seconds, datetime.timedelta(seconds=round(left)), recipe.steps - step)
    if on_cpu and left > LONG and config["recipe"] != "fast":
        fast = make_recipe("fast", config["model"], config["scale"])
        pixels = [one.batch * one.patch ** 2 for one in (fast, recipe)]
        text += "\nnote: that is a plan for GPUs; --recipe fast, for CPUs, takes about %s here" % datetime.timedelta(
            seconds=round(fast.steps * seconds * pixels[0] / pixels[1]))
    return text


def resume_log(path, step):
    """Cut log.jsonl to complete lines of steps up to `step`, since what was logged after the state was saved is done again.

    A line that is damaged, as by a power cut, is named and left out. The file is rewritten by rename, and made empty if it is
    missing. Returns its records as a list of dicts.
    """
    lines, records = [], []
    if os.path.exists(path):
        with open(path, errors="replace") as file:
            lines = [line for line in file if line.endswith("\n")]
    for number, line in enumerate(lines):
        try:
            record = json.loads(line)
            if record["step"] <= step:
                records.append((line, record))
        except (ValueError, KeyError, TypeError):
            notice_once("line %d of %s is damaged, and left out" % (number + 1, path))
    with replacing(path) as temporary, open(temporary, "w") as file:
        file.writelines(line for line, _ in records)
    return [record for _, record in records]


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
        if not same and key == "data" and old and new:
            raise UserError("%s was started with %s: give the same, or begin another run from its weights by --init-from %s "
                            "--run DIR" % (run, describe_change(old, new), os.path.join(run, "best")))
        if not same:
            raise UserError("%s was started with %s = %s, not %s: give the same options, or another --run" % (run, key, old, new))


def describe_change(old, new):
    """In words, how the data of a config differ from what they are now, both as describe_data() gives them."""
    if old["files"] != new["files"]:
        return "%d files of %s, and now there are %d in %s" % (old["files"], old["folder"], new["files"], new["folder"])
    return "files of other names or sizes than the %d that are in %s now" % (new["files"], new["folder"])


def history_of(config, origin):
    """The configs of all trainings that led to weights with this config, the first one first; of unknown weights, where they are
    from is all that is known."""
    if "trained_before" not in config:
        return [{"checkpoint": origin}]
    return config["trained_before"] + [{key: value for key, value in config.items() if key not in ("sha256", "trained_before")}]


class Divergence(UserError):
    """A training has come to weights that it does not get away from."""


def divergence(step, loss, norm, saved=None):
    """The Divergence of a training that diverges at a step with this loss and gradient norm; saved: where it can go on from, if it
    can."""
    goes_on = "" if saved is None else ("the same command goes on with other patches from the last good weights, saved in %s; if it "
                                        "ends here again, " % saved)
    return Divergence("the training diverges at step %d, with a loss of %.4g and a gradient norm of %.4g: %slower --rate, in another "
                      "--run" % (step, loss, norm, goes_on))


PLAN_SECONDS = 5  # of steps, after which it is said how long the rest takes


class Meter(object):
    """What the next line of the log is made of: the steps since the last one. On a terminal, also a progress bar over all steps,
    as long as the meter's context lasts."""

    def __init__(self, run, recipe, step, on_cpu):
        self.run, self.recipe, self.on_cpu = run, recipe, on_cpu
        self.bar = tqdm(total=recipe.steps, initial=step, unit="step", leave=False, disable=None)
        self.step, self.started, self.warm = step, time.time(), None  # warm: after the first step, which takes longer
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
        """Time that is spent within this context does not count, so that the speed is that of training alone."""
        before = time.time()
        yield
        seconds = time.time() - before
        self.begun += seconds
        if self.started:
            self.started, self.warm = self.started + seconds, self.warm + seconds

    def add(self, loss, norm, skipped):
        """Note a step; the loss and the norm of one that was skipped may be anything and do not count."""
        self.skipped += bool(skipped)
        if not skipped:
            self.losses.append(float(loss))
            self.norms.append(float(norm))
        self.step += 1
        self.bar.update()
        if self.started:
            self._say_plan(time.time())

    def _say_plan(self, now):
        """Say once how long the rest takes."""
        late = now - self.started > PLAN_SECONDS
        if not self.warm:
            self.warm, self.first = now, self.step
            if late:
                say("the first step took %.1f s, with what is prepared in it" % (now - self.started))
        elif late:
            seconds = (now - self.warm) / (self.step - self.first)
            say(format_plan(self.run.config, self.recipe, self.step, seconds, self.on_cpu))
            self.started = None

    def log(self, step, rate):
        """Print the line and write the record, and begin the next one."""
        seconds, steps = time.time() - self.begun, len(self.losses) + self.skipped
        self.run.seconds += seconds
        speed, waited = steps * self.recipe.batch / seconds, self.waited / seconds
        loss = np.mean(self.losses) if self.losses else np.nan
        say(format_progress(step, self.recipe, loss, rate, speed, waited, self.skipped))
        record = dict(step=step, rate=float("%.4g" % rate), seconds=round(self.run.seconds, 1), skipped=self.skipped,
                      images_per_second=round(speed, 2), data_wait=round(waited, 4))
        if self.losses:
            record.update(loss=round(loss, 6), gradient_norm=float("%.4g" % np.median(self.norms)))
        self.run.log(record)
        self._begin()


# keys of log.jsonl, and what they are called in the figure
CURVES = {"loss": "Training loss (mean absolute error)", "psnr": "Validation PSNR of Y (dB)"}
HEALTH = {"gradient_norm": "Norm of the gradient", "largest_dra": "Largest |DRA|", "kernel_rms": "RMS of the kernels"}


def read_curves(run):
    """{key: (steps, values)} of a run's log.jsonl for the keys of CURVES and HEALTH; the validation PSNR is that of the held-out
    photographs where there are any. Raises UserError."""
    path = os.path.join(run, "log.jsonl")
    try:
        with open(path) as file:
            records = [json.loads(line) for line in file]
    except (OSError, ValueError) as error:
        raise UserError("cannot read %s: %s" % (path, error))
    curves = {}
    held_out = any("psnr_held_out" in record for record in records)
    for key in list(CURVES) + list(HEALTH):
        source = "psnr_held_out" if key == "psnr" and held_out else key
        points = [(record["step"], record[source]) for record in records if record.get(source) is not None]
        curves[key] = tuple(zip(*points)) if points else ((), ())
    return curves
