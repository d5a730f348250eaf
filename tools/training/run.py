"""The folder of a run: its config, the lines of its log, the state from which it resumes, its best weights.

train.py fills it by a Run and a Meter; what stands beside them serves any framework.
"""
import contextlib
import glob
import io
import json
import os
import shutil
import time

from model import model_variables
from ops import tf
from tools.checkpoints import checkpoint_errors, checkpoint_prefix, load_values
from tools.command import UserError, cpu_count, notice_once, say
from tools.files import read_json, replacing, to_json, write_json
from tools.runtime import error_reason, list_gpus

import numpy as np
from PIL import Image
from tqdm import tqdm

PATHS = "init_from", "valid"  # values of a config that are paths, or may be
# keys of log.jsonl, and what they are called in figures
CURVES = {"loss": "Training loss (mean absolute error)", "psnr": "Validation PSNR of Y (dB)"}
HEALTH = {"gradient_norm": "Norm of the gradient", "largest_dra": "Largest |DRA|",
          "kernel_rms": "RMS of the kernels"}
# and in TensorBoard, where the figures of the paper have its names
TAGS = {"loss": "Loss", "rate": "Learning_rate", "psnr": "PSNR_mean", "psnr_held_out": "PSNR_held_out",
        "gradient_norm": "Gradient_norm", "skipped": "Skipped_steps", "largest_dra": "Largest_DRA",
        "kernel_rms": "Kernel_RMS", "gate": "Gate"}


class Run(object):
    """The folder of a run: config.json, log.jsonl, TensorBoard's summaries, the last state, the best weights.
    """

    def __init__(self, folder, config):
        """Raises UserError if the run in the folder has come to any weights, and was started with another
        config."""
        self.folder, self.config = folder, dict(config)
        self.state, self.best = os.path.join(folder, "state"), os.path.join(folder, "best")
        self.judged_by = "psnr_held_out" if config["valid_share"] else "psnr"  # of which `best` is the best
        self.log_file = None
        if any(map(checkpoint_prefix, (self.state, self.best))):
            started = read_json(os.path.join(folder, "config.json"), "remove it to go on with the options of "
                                "this command (those of the run are in %s, too)" % self.best)
            if started:
                check_same_config(folder, started, config)
                self.config["trained_before"] = started.get("trained_before")

    def build(self, device):
        """Add what saves and initialises the variables of the default graph; this device's host writes the
        files. What a run that was killed has left is removed."""
        self.device, self.savers = device, {}
        for folder, variables in (self.state, tf.global_variables()), (self.best, model_variables()):
            os.makedirs(folder, exist_ok=True)
            for left in glob.glob(os.path.join(glob.escape(folder), "*temp*")):
                shutil.rmtree(left) if os.path.isdir(left) else os.remove(left)
            with tf.device(device):  # the folder can be moved
                saver = tf.train.Saver(variables, max_to_keep=1, save_relative_paths=True)
            kept = checkpoint_prefix(folder)
            for path in glob.glob(os.path.join(glob.escape(folder), "*-*.*")) if kept else ():
                # a kill came between the next one and its removal
                if os.path.splitext(os.path.basename(path))[0] != os.path.basename(kept):
                    os.remove(path)
            saver.recover_last_checkpoints([kept] if kept else [])  # so that it deletes it in time
            self.savers[folder] = saver
        write_json(os.path.join(self.folder, "config.json"), self.config)
        self.initialize = tf.global_variables_initializer()
        written = glob.glob(os.path.join(glob.escape(self.folder), "*tfevents*"))
        # TensorFlow 1.8 names the file by the second: a run that is resumed within it would overwrite the last
        self.summaries = tf.summary.FileWriter(self.folder, filename_suffix=".%d" % len(written))

    def open(self, session, step):
        """Restore the last state into the variables of the default graph, or initialise them.

        step: the variable that counts; returns its value. Raises UserError if a state cannot be read.
        """
        self.session = session
        if not self.restore_state():
            if glob.glob(os.path.join(glob.escape(self.state), "*.index")):
                raise UserError("%s holds several states, and its file `checkpoint` names none of them: "
                                "remove all but the last one" % self.state)
            session.run(self.initialize)
        self.step = int(session.run(step))
        self.best_psnr, self.seconds = -np.inf, 0.0
        path = os.path.join(self.folder, "log.jsonl")
        for record in resume_log(path, self.step):
            if record.get(self.judged_by) is not None:
                self.best_psnr = max(self.best_psnr, record[self.judged_by])
            self.seconds = record["seconds"]
        if self.log_file:  # of the session before, which lost a task of its cluster
            self.log_file.close()
        self.log_file = open(path, "a", buffering=1)
        if self.step:  # TensorBoard drops what an interrupted process wrote of later steps
            self.summaries.add_session_log(tf.SessionLog(status=tf.SessionLog.START), self.step)
        return self.step

    def log(self, record, images=()):
        """Append a record to log.jsonl and, with these uint8 [H, W, 3], to TensorBoard's summaries."""
        self.log_file.write(to_json(record) + "\n")
        values = [tf.Summary.Value(tag=TAGS[key], simple_value=record[key]) for key in TAGS if key in record]
        for i, image in enumerate(images):
            png = io.BytesIO()
            Image.fromarray(image).save(png, "PNG")
            values.append(tf.Summary.Value(tag="SR/%d" % i, image=tf.Summary.Image(
                height=len(image), width=len(image[0]), colorspace=3, encoded_image_string=png.getvalue())))
        self.summaries.add_summary(tf.Summary(value=values), record["step"])
        self.summaries.flush()

    def restore_state(self):
        """Load the last state into the variables of the default graph; returns whether there is one."""
        latest = checkpoint_prefix(self.state)
        if latest:
            try:
                with checkpoint_errors(latest):
                    reader = tf.train.NewCheckpointReader(latest)
                    values = [reader.get_tensor(variable.op.name) for variable in tf.global_variables()]
            except UserError as error:
                best = "from the best weights by --init-from %s " % self.best
                raise UserError("%s; begin another run %s--run DIR" % (
                    error, best if checkpoint_prefix(self.best) else "by "))
            load_values(self.session, tf.global_variables(), values)
        return bool(latest)

    def save_state(self, step):
        """Save everything that the run continues from. Raises UserError as save()."""
        self.save(self.state, "state", step)

    def save_best(self, step, psnr, dra_ranges):
        """Save the weights as the best so far; config.json beside them says how they were trained, what they
        reach, and the range of their DRA."""
        self.best_psnr = psnr
        self.save(self.best, "DRSAN%(model)s%(scale)s" % self.config, step)
        write_json(os.path.join(self.best, "config.json"), dict(
            self.config, trained_steps=step, trained_seconds=round(self.seconds),
            validation_psnr=round(psnr, 4), framework="TensorFlow %s" % tf.__version__,
            device="GPU" if list_gpus(self.session, self.device) else "%d CPUs" % cpu_count(),
            **({"dra_ranges": dra_ranges} if dra_ranges else {})))

    def save(self, folder, name, step):
        """Save what a folder is for. Raises UserError, and keeps what was saved before, if it cannot."""
        prefix = os.path.join(folder, name)
        try:
            self.savers[folder].save(self.session, prefix, global_step=step, write_meta_graph=False)
        except (tf.errors.OpError, OSError, ValueError) as error:
            raise UserError("cannot save step %d as %s: %s; the one before is kept" % (
                step, prefix, error_reason(error)))


class Meter(object):
    """Measures the steps since the last line of the log, and writes the next one. On a terminal, it shows a
    bar over all steps, as long as its context lasts."""

    def __init__(self, run, recipe, step):
        self.run, self.recipe = run, recipe
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
        record = dict(step=step, rate=float("%.4g" % rate), seconds=round(self.run.seconds, 1),
                      skipped=self.skipped, images_per_second=round(speed, 2), data_wait=round(waited, 4))
        if self.losses:
            record.update(loss=round(loss, 6), gradient_norm=float("%.4g" % np.median(self.norms)))
        self.run.log(record)
        self._begin()


def format_progress(step, recipe, loss, rate, speed, waited, skipped):
    """The line of the log: mean loss since the line before, learning rate, images/s, share of the time spent
    on waiting for data, and how many steps were skipped, if any."""
    left = (recipe.steps - step) * recipe.batch / speed
    return "step %7d/%d  loss %.5f  rate %.2e  %6.1f images/s  wait %4.1f %%  left %d:%02d:%02d%s" % (
        step, recipe.steps, loss, rate, speed, 100 * waited, left // 3600, left // 60 % 60, left % 60,
        "  skipped %d" % skipped if skipped else "")


def read_log(path):
    """The records of a log.jsonl, dicts. A line that is damaged, as by a power cut, is named and left out."""
    records = []
    with open(path, errors="replace") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
                if record["step"] >= 0:
                    records.append(record)
            except (ValueError, KeyError, TypeError):
                notice_once("line %d of %s is damaged, and left out" % (number, path))
    return records


def resume_log(path, step):
    """Cut log.jsonl, by rename, to its records of steps up to `step`, which are returned, since what came
    after the saved state is done again; it is made empty if it is missing."""
    records = read_log(path) if os.path.exists(path) else []
    records = [record for record in records if record["step"] <= step]
    with replacing(path) as temporary, open(temporary, "w") as file:
        file.writelines(to_json(record) + "\n" for record in records)
    return records


def read_curves(run):
    """{key: (steps, values)} of a run's log.jsonl for the keys of CURVES and HEALTH; the validation PSNR is
    that of the held-out photographs where there are any. Raises UserError."""
    try:
        records = read_log(os.path.join(run, "log.jsonl"))
    except OSError as error:
        raise UserError("cannot read the log of a run: %s" % error)
    judge = "psnr_held_out" if any("psnr_held_out" in record for record in records) else "psnr"
    curves = {}
    for key in [*CURVES, *HEALTH]:
        source = judge if key == "psnr" else key
        points = [(record["step"], record[source]) for record in records if record.get(source) is not None]
        curves[key] = tuple(zip(*points)) or ((), ())
    return curves


def check_same_config(run, started, config):
    """Raise UserError that names the first key in which the config that a run was started with differs.

    What does not change the training may differ: how a path is spelled, where the data are, how many steps
    are planned if the learning rate does not depend on it, and the history of the weights, as the checkpoint
    that the run started from may have been replaced since.
    """
    free = {"trained_before", "steps" if config["schedule"] == "halve" else None}
    for key in sorted((set(started) | set(config)) - free):
        old, new = started.get(key), config.get(key)
        same = old == new or not (old or new)
        if key in PATHS and old and new:
            same = os.path.abspath(old) == os.path.abspath(new)
        if key == "data" and old and new:
            same = dict(old, folder=None) == dict(new, folder=None)
            old, new = ["%(files)d files of %(folder)s" % data for data in (old, new)]
        if not same:
            raise UserError("%s was started with %s = %s, not %s%s: give the same, or begin another run from "
                            "its weights by --init-from %s --run DIR" % (
                                run, key, old, new, ", on which the learning rate depends" * (key == "steps"),
                                os.path.join(run, "best")))


class Divergence(UserError):
    """A training has come to weights that it does not get away from, with this loss and gradient norm; saved:
    where the weights are from which it can go on, None if there are none."""

    def __init__(self, step, loss, norm, saved=None):
        goes_on = "" if saved is None else (
            "the same command goes on with other patches from the last good weights, saved in %s; if it ends "
            "here again, " % saved)
        super().__init__("the training diverges at step %d, with a loss of %.4g and a gradient norm of %.4g: "
                         "%slower --rate, in another --run" % (step, loss, norm, goes_on))
