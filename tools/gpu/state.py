"""The files of a training with JAX, without JAX: state.npz, and weights to begin with.

Both hold weights under their names in checkpoints; what belongs to a weight has a suffix of SLOTS.
"""
import json
import os
import zipfile

from tools.command import UserError
from tools.files import write_npz
from tools.training.history import history_of

import numpy as np

SLOTS = "/AdamOptimizer", "/AdamOptimizer_1", "/Muon", "/ExponentialMovingAverage"
MOMENT1, MOMENT2, MUON, AVERAGE = SLOTS
NPZ_ERRORS = OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile  # of a damaged file, or another kind


def averaged_weights(state):
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
    """(weights, history) of a state.npz or a file by export_weights.py: {name: array}, and the configs of all
    trainings that led to them. Raises UserError."""
    state, config, trained = load_state(path)
    if "history" not in config:
        config["history"] = history_of(trained_config(state, config, trained), path)
    return averaged_weights(state), config["history"]
