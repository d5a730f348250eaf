"""What a training leaves on the disk: state.npz, from which it goes on.

It holds arrays under the names of checkpoints, and texts of JSON; no framework is needed to read them. import_weights.py makes
a checkpoint of it.
"""
import json
import os
import zipfile
from collections import namedtuple

from tools.command import UserError
from tools.files import write_npz

import numpy as np

MOMENT1, MOMENT2, MUON, AVERAGE = SLOTS = "/AdamOptimizer", "/AdamOptimizer_1", "/Muon", "/ExponentialMovingAverage"
NPZ_ERRORS = OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile  # of what is no .npz, a damaged one or one of others


def weight_names(state):
    """The names of the weights in a state."""
    return sorted(name for name in state if name.startswith("DRAN/") and not name.endswith(SLOTS))


def averaged_weights(state):
    """The weights to evaluate, by name: their moving averages if the training keeps them."""
    return {name: state.get(name + AVERAGE, state[name]) for name in weight_names(state)}


def read_arrays(path, what, advice):
    """All arrays of an .npz, by name. what: it is, and advice: what to do if it cannot be read, in words. Raises UserError."""
    try:
        with np.load(path) as file:
            return dict(file)
    except NPZ_ERRORS as error:
        raise UserError("cannot read %s %s: %s: %s" % (what, path, error, advice))


def save_state(path, state, config, trained):
    """Write the state, a dict of NumPy arrays, to one .npz, with config, what the run was started with, and trained, how it
    went, as JSON under these names. Raises UserError, and keeps the file that was there, if the weights are not finite."""
    if not all(np.isfinite(state[name]).all() for name in weight_names(state)):
        raise UserError("the weights are not finite at step %d: lower --rate, in another --run%s" % (
            state["Variable"], "; %s keeps the last good state" % path if os.path.exists(path) else ""))
    write_npz(path, dict(state, config=json.dumps(config, sort_keys=True), trained=json.dumps(trained, sort_keys=True)))


def load_state(path):
    """(state, config, trained) as save_state wrote them. Raises UserError."""
    advice = "copy it anew, or begin again in another --run"
    state = read_arrays(path, "the training state", advice)
    try:
        return state, json.loads(str(state.pop("config"))), json.loads(str(state.pop("trained")))
    except NPZ_ERRORS as error:
        raise UserError("cannot read the training state %s: %s: %s" % (path, error, advice))


# weights: to evaluate, {name: float32 array}; config: how they were trained, as in a config.json; log: the text of a log.jsonl
Trained = namedtuple("Trained", "weights config log")


def trained_of_state(path):
    """The Trained that a state.npz is, its log.jsonl beside it. Raises UserError."""
    state, config, trained = load_state(path)
    log_path, log, steps = os.path.join(os.path.dirname(path), "log.jsonl"), "", int(state["Variable"])
    if os.path.exists(log_path):
        with open(log_path) as file:
            log = file.read()
    config = dict(config, trained_steps=steps, **{key: value for key, value in trained.items() if key != "share"})
    if not config.get("steps"):  # their number was not planned
        config["steps"] = steps
    return Trained(averaged_weights(state), config, log)


def read_trained(path):
    """The Trained in a file of either kind. Raises UserError."""
    arrays = read_arrays(path, "the weights", "copy them anew")
    if "Variable" in arrays:
        return trained_of_state(path)
    try:
        return Trained({name: arrays[name] for name in weight_names(arrays)}, json.loads(str(arrays["config"])), str(arrays["log"]))
    except NPZ_ERRORS as error:
        raise UserError("%s holds no trained weights (%s): give a state.npz" % (path, error))
