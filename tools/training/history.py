"""What a run says of itself, for any framework: its config, the lines of its log, and whether a command may go on with it."""
import contextlib
import json
import os
import time

import numpy as np

from utils import UserError, replacing


def format_progress(step, recipe, loss, rate, speed, waited, skipped):
    """The line of the log: mean loss since the line before, learning rate, images/s, share of the time spent on waiting for data,
    and how many steps were skipped, if any."""
    seconds = (recipe.steps - step) * recipe.batch / speed
    return "step %7d/%d  loss %.5f  rate %.2e  %6.1f images/s  wait %4.1f %%  left %d:%02d:%02d%s" % (
        step, recipe.steps, loss, rate, speed, 100 * waited, seconds // 3600, seconds // 60 % 60, seconds % 60,
        "  skipped %d" % skipped if skipped else "")


def resume_log(path, step):
    """Cut log.jsonl to complete lines of steps up to `step`, since what was logged after the state was saved is done again.

    The file is rewritten by rename, and made empty if it is missing. Returns its records as a list of dicts.
    """
    lines = []
    if os.path.exists(path):
        with open(path) as file:
            lines = [line for line in file if line.endswith("\n") and json.loads(line)["step"] <= step]
    with replacing(path) as temporary, open(temporary, "w") as file:
        file.writelines(lines)
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


def divergence(step, loss, norm, saved=None):
    """The UserError of a training that diverges at a step with this loss and gradient norm; saved: where it can go on from, if it
    can."""
    goes_on = "" if saved is None else ("the same command goes on with other patches from the last good weights, saved in %s; if it "
                                        "ends here again, " % saved)
    return UserError("the training diverges at step %d, with a loss of %.4g and a gradient norm of %.4g: %slower --rate, in another "
                     "--run" % (step, loss, norm, goes_on))


class Meter(object):
    """What the next line of the log is made of: the steps since the last one."""

    def __init__(self, run, recipe):
        self.run, self.recipe = run, recipe
        self._begin()

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
        self.begun += time.time() - before

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
