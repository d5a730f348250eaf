"""Convert weights between JAX and TensorFlow: python tools/gpu/convert.py SOURCE TARGET

    python tools/gpu/convert.py runs/jax_32s_x2/state.npz runs/imported/32s_x2
    python tools/gpu/convert.py checkpoints/x2/32s runs/32s_x2.npz

The first makes a checkpoint of a training: its weights (moving averages, if it keeps them), a config.json
that says how they were trained, and their log.jsonl. The second makes a file for train_jax.py --init-from.

Here are also the files of a training with JAX, which need neither JAX nor TensorFlow. Each holds weights
under their names in checkpoints; what belongs to a weight has a suffix of SLOTS.
"""
import argparse
import json
import os
import shutil
import sys
import zipfile
from types import SimpleNamespace

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from model import SCALES, drsan, model_variables
from ops import tf
from tools.checkpoints import (find_checkpoint, history_of, load_values, read_weights, save_weights,
                               training_history)
from tools.command import UserError, run_main
from tools.data.photographs import open_valid
from tools.files import check_writable, replacing, write_json, write_npz
from tools.runtime import open_session
from tools.training.graph import validate

import numpy as np

SLOTS = "/AdamOptimizer", "/AdamOptimizer_1", "/Muon", "/ExponentialMovingAverage"
MOMENT1, MOMENT2, MUON, AVERAGE = SLOTS
NPZ_ERRORS = OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile  # of a damaged file, or another kind


def latest_weights(state):
    """{name: array} of the weights to evaluate: their moving averages if the training keeps them."""
    names = [name for name in state if name.startswith("DRAN/") and not name.endswith(SLOTS)]
    return {name: state.get(name + AVERAGE, state[name]) for name in names}


def save_state(path, state, config, trained):
    """Write a state, {name: array}, all or nothing. config: what a run was begun with; trained: how it went.

    Raises UserError, and keeps the file that was there, if a weight is not finite.
    """
    if not all(np.isfinite(array).all() for name, array in state.items() if name.startswith("DRAN/")):
        raise UserError("the weights are not finite at step %d: lower --rate, in another --run%s" % (
            state["step"], "; %s keeps the last good state" % path if os.path.exists(path) else ""))
    write_npz(path, dict(state, config=json.dumps(config), trained=json.dumps(trained)))


def load_state(path):
    """(state, config, trained) as save_state() wrote them. Raises UserError."""
    try:
        with np.load(path) as file:
            state = dict(file)
        state["step"]
        return state, json.loads(str(state.pop("config"))), json.loads(str(state.pop("trained")))
    except NPZ_ERRORS as error:
        raise UserError("cannot read %s: %s: copy it anew, or give another file or --run" % (path, error))


def trained_config(state, config, trained):
    """The config.json of a state's weights: how they were trained."""
    steps = int(state["step"])
    trained = {key: trained[key] for key in ("trained_seconds", "framework", "device")}
    return dict(config, trained_steps=steps, steps=config["steps"] or steps, **trained)


def read_start(path):
    """(weights, history) of a file of save_state() or export_weights(): {name: array}, and the configs of all
    trainings that led to them. Raises UserError."""
    state, config, trained = load_state(path)
    history = history_of(trained_config(state, config, trained), path) if trained else config["history"]
    return latest_weights(state), history


def import_weights(path, folder):
    """Make a checkpoint in `folder` of a state.npz; returns a line that says so. Raises UserError."""
    state, *how = load_state(path)
    config, weights = trained_config(state, *how), latest_weights(state)
    model, scale = config["model"], config["scale"]
    valid = open_valid("Sample", [], SCALES[scale], None)["psnr"][1]
    with tf.Graph().as_default(), open_session([-1]) as session:
        lr = tf.placeholder(tf.uint8, [None, None, None, 3], "LR")
        graph = SimpleNamespace(lr=lr, sr=drsan(tf.cast(lr, tf.float32) / 255, model, scale))
        load_values(session, model_variables(), [weights[variable.op.name] for variable in model_variables()])
        psnr, _ = validate(session, graph, valid, SCALES[scale])
        prefix = save_weights(session, folder, model, scale)
    write_json(os.path.join(folder, "config.json"),
               dict(config, valid="Sample", validation_psnr=round(psnr, 4)))
    log = os.path.join(os.path.dirname(path), "log.jsonl")
    if os.path.exists(log):
        with replacing(os.path.join(folder, "log.jsonl")) as temporary:
            shutil.copyfile(log, temporary)
    return "%s: %s %s after %d steps, %.3f dB on Sample" % (
        prefix, model, scale, config["trained_steps"], psnr)


def export_weights(checkpoint, path):
    """Write the weights of a checkpoint, named as in find_checkpoint(); returns a line that says so. Raises
    UserError."""
    prefix = find_checkpoint(None, None, checkpoint)
    weights = read_weights(prefix)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    save_state(path, dict(weights, step=0), {"history": training_history(prefix)}, {})
    return "%s: %d variables of %s" % (path, len(weights), prefix)


def main(argv=None):
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("source", metavar="SOURCE", help="state.npz of a run of train_jax.py, or a "
                        "checkpoint by its prefix, .index file or folder")
    parser.add_argument("target", metavar="TARGET", help="folder for a checkpoint, or a file ending in .npz")
    args = parser.parse_args(argv)
    back = args.source.endswith(".npz")
    if back == args.target.endswith(".npz"):
        parser.error("one of SOURCE and TARGET ends in .npz: the file for JAX")
    check_writable([args.target] if back else [], [] if back else [args.target])
    print((import_weights if back else export_weights)(args.source, args.target))


if __name__ == "__main__":
    run_main(main)
