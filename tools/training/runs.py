"""The folder of a run of train.py: its config and log, the state from which it resumes, and its best
weights."""
import glob
import io
import json
import os
import shutil

from model import model_variables
from ops import tf
from tools.checkpoints import checkpoint_errors, checkpoint_prefix, load_values
from tools.command import UserError, cpu_count
from tools.files import to_json, write_json
from tools.runtime import error_reason, list_gpus
from tools.training.history import check_same_config, resume_log

import numpy as np
from PIL import Image

# keys of log.jsonl, and what they are called in TensorBoard, where the figures of the paper have its names
TAGS = {"loss": "Loss", "rate": "Learning_rate", "psnr": "PSNR_mean", "psnr_held_out": "PSNR_held_out",
        "gradient_norm": "Gradient_norm", "skipped": "Skipped_steps", "largest_dra": "Largest_DRA",
        "kernel_rms": "Kernel_RMS", "gate": "Gate"}


class Run(object):
    """The folder of a run: config.json, log.jsonl and TensorBoard's summaries, the last state, the best
    weights."""

    def __init__(self, folder, config):
        """Raises UserError if the run in the folder has come to any weights, and was started with another
        config."""
        self.folder, self.config = folder, dict(config)
        self.state, self.best = os.path.join(folder, "state"), os.path.join(folder, "best")
        self.judged_by = "psnr_held_out" if config["valid_share"] else "psnr"  # of which `best` is the best
        self.log_file = None
        path = os.path.join(folder, "config.json")
        if os.path.exists(path) and any(map(checkpoint_prefix, (self.state, self.best))):
            try:
                with open(path) as file:
                    started = dict(json.load(file))
            except (ValueError, TypeError) as error:
                raise UserError("cannot read %s: %s; remove it to go on with the options of this command "
                                "(those of the run are in %s, too)" % (
                                    path, error, os.path.join(self.best, "config.json")))
            check_same_config(folder, started, config)
            self.config["trained_before"] = started.get("trained_before")

    def build(self, device):
        """Add what saves and initialises the variables of the default graph; this device's host writes the
        files."""
        for folder in self.state, self.best:
            os.makedirs(folder, exist_ok=True)
            for left in glob.glob(os.path.join(glob.escape(folder), "*temp*")):  # by a run that was killed
                shutil.rmtree(left) if os.path.isdir(left) else os.remove(left)
        write_json(os.path.join(self.folder, "config.json"), self.config)
        self.device = device
        with tf.device(device):
            self.state_saver, self.best_saver = (
                tf.train.Saver(variables, max_to_keep=1, save_relative_paths=True)  # the folder can be moved
                for variables in (tf.global_variables(), model_variables()))
        for saver, folder in (self.state_saver, self.state), (self.best_saver, self.best):
            kept = checkpoint_prefix(folder)
            for path in glob.glob(os.path.join(glob.escape(folder), "*-*.*")) if kept else ():
                if os.path.splitext(path)[0] != kept:  # a kill came between the next one and its removal
                    os.remove(path)
            saver.recover_last_checkpoints([kept] if kept else [])  # so that it deletes it in time
        self.initialize = tf.global_variables_initializer()
        self.summaries = tf.summary.FileWriter(self.folder)

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
            height, width = image.shape[:2]
            values.append(tf.Summary.Value(tag="SR/%d" % i, image=tf.Summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=png.getvalue())))
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
        """Save everything that the run continues from. Raises UserError, and keeps the last state, if it
        cannot."""
        self._save(self.state_saver, os.path.join(self.state, "state"), step)

    def save_best(self, step, psnr, dra_ranges):
        """Save the weights as the best so far; config.json beside them says how they were trained, what they
        reach, and the range of their DRA."""
        self.best_psnr = psnr
        self._save(self.best_saver, os.path.join(self.best, "DRSAN%(model)s%(scale)s" % self.config), step)
        write_json(os.path.join(self.best, "config.json"), dict(
            self.config, trained_steps=step, trained_seconds=round(self.seconds),
            validation_psnr=round(psnr, 4), framework="TensorFlow %s" % tf.__version__,
            device="GPU" if list_gpus(self.session, self.device) else "%d CPUs" % cpu_count(),
            **({"dra_ranges": dra_ranges} if dra_ranges else {})))

    def _save(self, saver, prefix, step):
        try:
            saver.save(self.session, prefix, global_step=step, write_meta_graph=False)
        except (tf.errors.OpError, OSError, ValueError) as error:
            raise UserError("cannot save step %d as %s: %s; the one before is kept" % (
                step, prefix, error_reason(error)))
