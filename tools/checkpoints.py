"""TensorFlow V2 checkpoints with the authors' variable names: found, read into DRSAN, and written.

What the config.json beside one says of its training is read here, too. Runs, which have optimizer slots, are
in training/runs.py.
"""
import collections
import contextlib
import glob
import json
import os
import re

from model import MODELS, SCALES, Variant, model_variables
from ops import UPSAMPLING, tf
from tools.command import UserError, notice_once
from tools.files import file_digest, script, short_path
from tools.runtime import error_reason
from tools.training.history import history_of
from tools.weights import describe_transfer, roles, transfer

import numpy as np

SHIPPED = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "checkpoints")
PATTERN_CHARACTERS = set("*?[")  # characters in paths that TensorFlow expands without need


def checkpoint_prefix(path):
    """The prefix of a TensorFlow V2 checkpoint named by its prefix, one of its files, its folder or the
    folder of its run, of which it is the best one, or the last one; or None."""
    if os.path.isdir(path):
        with contextlib.suppress(ValueError):  # a state file that is empty
            # latest_checkpoint() would take its path for a pattern
            state = tf.train.get_checkpoint_state(path)
            if state and os.path.exists(state.model_checkpoint_path + ".index"):
                return state.model_checkpoint_path
        # its state file may name another machine's path
        indexes = glob.glob(os.path.join(glob.escape(path), "*.index"))
        if len(indexes) == 1:
            return indexes[0][:-len(".index")]
        below = [os.path.join(path, name) for name in ("best", "state")] if not indexes else []
        return next(filter(None, map(checkpoint_prefix, filter(os.path.isdir, below))), None)
    prefix = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path)
    return prefix if os.path.exists(prefix + ".index") else None


def find_checkpoint(model, scale, path=None):
    """The prefix of the checkpoint at `path`, by default the one shipped for model and scale. Raises
    UserError, also for a path that TensorFlow cannot read."""
    prefix = checkpoint_prefix(os.path.join(SHIPPED, scale, model) if path is None else path)
    if prefix and set(prefix) & PATTERN_CHARACTERS:
        raise UserError("TensorFlow takes the characters *?[ in %s for a pattern: rename the folder" % prefix)
    if prefix:
        return prefix
    if path is not None:
        raise UserError("no checkpoint at %s: expected a prefix, an .index file, or the folder of one "
                        "checkpoint or of a run" % path)
    shipped = " ".join("%s_%s" % (model, scale) for scale, model in shipped_checkpoints(SHIPPED)) or "none"
    authors = "the authors' are evaluated by %s --checkpoint authors --download" % script("test.py")
    if model == "32l" and scale != "x2":
        authors = "the paper publishes none"
    raise UserError("no weights for %s %s in %s (there: %s); %s; train it with: "
                    "python %s --model %s --scale %s --data FOLDER" % (
                        model, scale, short_path(SHIPPED), shipped, authors,
                        script("train.py"), model, scale))


def shipped_checkpoints(folder):
    """{(scale, model): prefix} of the checkpoints in <folder>/<scale>/<model>, in the order of the tables."""
    found = collections.OrderedDict()
    for scale in SCALES:
        for model in MODELS:
            path = os.path.join(folder, scale, model)
            prefix = os.path.isdir(path) and checkpoint_prefix(path)
            if prefix:
                found[scale, model] = prefix
    return found


def checkpoint_config(prefix):
    """What the config.json beside a checkpoint says of its training; {} without one, as with the authors'."""
    try:
        with open(os.path.join(os.path.dirname(prefix), "config.json")) as file:
            return dict(json.load(file))
    except (OSError, ValueError, TypeError):
        return {}


def dra_ranges(prefix, model):
    """The range of DRA in the config.json beside a checkpoint (see tools/dra_range.py), as drsan() takes it;
    None if there is none, as with the authors'. Raises UserError if it is not that of the model."""
    ranges = checkpoint_config(prefix).get("dra_ranges")
    _, drags, blocks = MODELS[model]
    if ranges is not None and np.shape(ranges) != (drags, 2, blocks * (blocks + 1) // 2):
        raise UserError("dra_ranges in the config.json beside %s are not those of DRSAN-%s: "
                        "measure them by %s" % (prefix, model, script("tools/dra_range.py")))
    return ranges


def identify(prefix):
    """(model, scale) of a checkpoint, from the config.json beside it or, without one, from the shapes of its
    variables. Raises UserError."""
    config = checkpoint_config(prefix)
    if config.get("model") in MODELS and config.get("scale") in SCALES:
        return config["model"], config["scale"]
    with checkpoint_errors(prefix):
        shapes = tf.train.NewCheckpointReader(prefix).get_variable_to_shape_map()
    channels = shapes.get("DRAN/conv2d/kernel", [0])[-1]
    drags = sum(name.endswith("prelualpha") for name in shapes)
    slopes = sum(name.startswith("DRAN/conv_block1_pReLU_") and name.endswith("alpha") for name in shapes)
    variant = Variant(channels, drags, slopes // 2)
    factors = [shapes[name][-1] // channels for name, role in roles(shapes).items()
               if (role.stage, role.part) == ("upsampler", "kernel")] if channels else []
    models = [model for model in MODELS if MODELS[model] == variant]
    scales = [scale for scale in SCALES
              if sorted(factors) == [factor ** 2 for factor in UPSAMPLING[SCALES[scale]]]]
    if not (models and scales):
        raise UserError("%s is no checkpoint of DRSAN: it has not the variables of any of its models"
                        % prefix)
    return models[0], scales[0]


def training_history(prefix):
    """The configs of all trainings that led to a checkpoint, in order; of unknown weights, their path."""
    return history_of(checkpoint_config(prefix), prefix)


def note_seen(prefix, held_out):
    """Note that the weights of a checkpoint may have been trained on photographs that are held out now,
    unless each training that led to them held these out, too. held_out: paths below the photographs' folder.
    """
    if any(not set(held_out) <= set(config.get("held_out") or ()) for config in training_history(prefix)):
        notice_once("%s may have been trained on photographs that are held out here: it seems better on them "
                    "than it is, and so does what is close to it" % short_path(prefix))


def _check_sha256(prefix):
    """Say so if a file of the checkpoint is not the one whose SHA-256 stands in the config.json beside it."""
    folder, name = os.path.split(prefix)
    for file, digest in sorted(checkpoint_config(prefix).get("sha256", {}).items()):
        path = os.path.join(folder, file)
        if file.startswith(name + ".") and os.path.exists(path) and file_digest(path) != digest:
            notice_once("%s is not the file that was trained: its SHA-256 differs from that in config.json"
                        % path)


def _check_ablation(prefix, without):
    """Raise UserError if a checkpoint was trained without another part than `without` (None: with all)."""
    trained = checkpoint_config(prefix).get("without")
    if trained != without:
        reason = "with all parts of the network: leave out --without"
        if trained:
            reason = "without %s: it needs test.py --without %s" % (trained, trained)
        raise UserError("%s was trained %s" % (prefix, reason))


def restore_weights(session, prefix, without=None):
    """Load the variables of DRSAN in the default graph from a checkpoint; whatever else it holds is ignored.

    without: as in drsan(). Raises UserError if the checkpoint is that of another ablation, and names the
    first variable that it lacks or has in another shape.
    """
    _check_ablation(prefix, without)
    _check_sha256(prefix)
    with checkpoint_errors(prefix):
        reader = tf.train.NewCheckpointReader(prefix)
        shapes = reader.get_variable_to_shape_map()
        for variable in model_variables():
            name, shape = variable.op.name, variable.shape.as_list()
            if shapes.get(name) != shape:
                found = "has %s" % shapes[name] if name in shapes else "is missing"
                raise UserError("%s is a checkpoint of another model or scale: %s should have the shape %s, "
                                "but %s" % (prefix, name, shape, found))
        load_values(session, model_variables(), [reader.get_tensor(v.op.name) for v in model_variables()])


def transfer_weights(session, prefix):
    """Load what a checkpoint of another scale or depth has in common with DRSAN (see weights.transfer).

    Returns the names taken, the names not taken, and a line that says so. Raises UserError if the checkpoint
    is not DRSAN's, or its features have another number of channels, so that nothing can be taken.
    """
    source = read_weights(prefix)
    variables = model_variables()
    own = collections.OrderedDict(zip([variable.op.name for variable in variables], session.run(variables)))
    values, taken = transfer(source, own, prefix)
    load_values(session, variables, [values[name] for name in own])
    return taken, [name for name in own if name not in taken], describe_transfer(taken, own, prefix)


def read_weights(prefix):
    """{name: array} of DRSAN in a checkpoint. Raises UserError if it is an ablation's, or damaged."""
    _check_ablation(prefix, None)
    with checkpoint_errors(prefix):
        reader = tf.train.NewCheckpointReader(prefix)
        return {name: reader.get_tensor(name) for name in roles(reader.get_variable_to_shape_map())}


@contextlib.contextmanager
def checkpoint_errors(prefix):
    """Turn what TensorFlow raises while it reads a checkpoint into a UserError that names it."""
    try:
        yield
    # the last two by TensorFlow 2's reader
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        raise UserError("cannot read the checkpoint %s: %s" % (prefix, error_reason(error)))


def load_values(session, variables, values):
    """Assign arrays to variables in one call, without new operations in the graph."""
    initializers = [variable.initializer for variable in variables]
    session.run(initializers, {initializer.inputs[1]: value
                               for initializer, value in zip(initializers, values)})


def save_weights(session, folder, model, scale):
    """Write the variables of DRSAN, without slots, as the one checkpoint of `folder`; returns its prefix."""
    os.makedirs(folder, exist_ok=True)
    saver = tf.train.Saver(model_variables(), save_relative_paths=True)
    return saver.save(session, os.path.join(folder, "DRSAN%s%s" % (model, scale)), write_meta_graph=False)
