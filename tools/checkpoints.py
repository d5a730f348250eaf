"""TensorFlow V2 checkpoints with the authors' variable names: found, read into DRSAN, and written; what the
config.json beside one says of its training; and what a network takes from one of another scale or depth.

Runs, whose states have optimizer slots, are in training/run.py.
"""
import collections
import contextlib
import glob
import json
import os
import re

from model import MODELS, SCALES, Variant, model_variables
from ops import UPSAMPLING, tf
from tools import ROOT
from tools.command import UserError, notice_once
from tools.files import file_digest, script, short_path
from tools.runtime import error_reason

import numpy as np

SHIPPED = os.path.join(ROOT, "checkpoints")
FIRST = "DRAN/conv2d/kernel"  # whose last dimension is the number of channels of the features
PATTERN_CHARACTERS = set("*?[")  # characters in paths that TensorFlow expands without need


def checkpoint_prefix(path):
    """The prefix of a TensorFlow V2 checkpoint named by its prefix, one of its files, its folder or the
    folder of its run, of which it is the best one, or the last one; or None."""
    if not os.path.isdir(path):
        prefix = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path)
        return prefix if os.path.exists(prefix + ".index") else None
    with contextlib.suppress(ValueError):  # a state file that is empty
        state = tf.train.get_checkpoint_state(path)  # latest_checkpoint() would take its path for a pattern
        if state and os.path.exists(state.model_checkpoint_path + ".index"):
            return state.model_checkpoint_path
    indexes = glob.glob(os.path.join(glob.escape(path), "*.index"))  # the state may name another machine's
    if len(indexes) == 1:
        return indexes[0][:-len(".index")]
    below = [os.path.join(path, name) for name in ("best", "state")] if not indexes else []
    return next(filter(None, map(checkpoint_prefix, filter(os.path.isdir, below))), None)


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
    raise UserError("no weights for %s %s in %s (there: %s); %s; train it with: python %s --model %s --scale "
                    "%s --data FOLDER" % (model, scale, short_path(SHIPPED), shipped, authors,
                                          script("train.py"), model, scale))


def shipped_checkpoints(folder):
    """{(scale, model): prefix} of the checkpoints in <folder>/<scale>/<model>, in the order of the tables."""
    places = [(scale, model) for scale in SCALES for model in MODELS
              if os.path.isdir(os.path.join(folder, scale, model))]
    found = [(place, checkpoint_prefix(os.path.join(folder, *place))) for place in places]
    return collections.OrderedDict((place, prefix) for place, prefix in found if prefix)


def checkpoint_config(prefix):
    """What the config.json beside a checkpoint says of its training; {} without one, as with the authors'."""
    try:
        with open(os.path.join(os.path.dirname(prefix), "config.json")) as file:
            return dict(json.load(file))
    except (OSError, ValueError, TypeError):
        return {}


def dra_ranges(prefix, model):
    """The range of DRA in the config.json beside a checkpoint (see tools/gate.py), as drsan() takes it; None
    if there is none, as with the authors'. Raises UserError if it is not that of the model."""
    ranges = checkpoint_config(prefix).get("dra_ranges")
    _, drags, blocks = MODELS[model]
    if ranges is not None and np.shape(ranges) != (drags, 2, blocks * (blocks + 1) // 2):
        raise UserError("dra_ranges in the config.json beside %s are not those of DRSAN-%s: measure them by "
                        "%s --measure" % (prefix, model, script("tools/gate.py")))
    return ranges


# part: kernel, bias or the name of a slope; stage: body, skip (the convolution before it), upsampler, output,
# or None for a slope; index: of a convolution in its stage
Role = collections.namedtuple("Role", "part stage index")


def roles(names):
    """{name: Role} of DRSAN's variables among `names`: what a variable is for, whatever the depth and the
    scale make of the number in its name."""
    names = {name for name in names if name.startswith("DRAN/") and not name.endswith(
        ("/AdamOptimizer", "/AdamOptimizer_1", "/ExponentialMovingAverage"))}
    drags = sum(name.endswith("prelualpha") for name in names)
    per_drag = sum(name.startswith("DRAN/conv_block1_pReLU_") for name in names) + 3
    skip, last = 1 + drags * per_drag, sum(name.endswith("/kernel") for name in names) - 1
    found = {}
    for name in names:
        layer, _, part = name[len("DRAN/"):].partition("/")
        number = int(layer[len("conv2d_"):] or 0) if part else None  # in order of creation: conv2d is 0
        if not part:
            found[name] = Role(layer, None, 0)  # a slope, whose name has the number of its DRAG
        elif number < skip:
            found[name] = Role(part, "body", number)
        elif number in (skip, last):
            found[name] = Role(part, "skip" if number == skip else "output", 0)
        else:
            found[name] = Role(part, "upsampler", number - skip - 1)
    return found


def identify(prefix):
    """(model, scale) of a checkpoint, from the config.json beside it or, without one, from the shapes of its
    variables. Raises UserError."""
    config = checkpoint_config(prefix)
    if config.get("model") in MODELS and config.get("scale") in SCALES:
        return config["model"], config["scale"]
    with checkpoint_errors(prefix):
        shapes = tf.train.NewCheckpointReader(prefix).get_variable_to_shape_map()
    channels = shapes.get(FIRST, [0])[-1]
    drags = sum(name.endswith("prelualpha") for name in shapes)
    slopes = sum(name.startswith("DRAN/conv_block1_pReLU_") and name.endswith("alpha") for name in shapes)
    factors = [shapes[name][-1] // channels for name, role in roles(shapes).items()
               if (role.stage, role.part) == ("upsampler", "kernel")] if channels else []
    models = [model for model in MODELS if MODELS[model] == Variant(channels, drags, slopes // 2)]
    scales = [scale for scale in SCALES
              if sorted(factors) == [factor ** 2 for factor in UPSAMPLING[SCALES[scale]]]]
    if not (models and scales):
        raise UserError("%s is no checkpoint of DRSAN: it has not the variables of any of its models"
                        % prefix)
    return models[0], scales[0]


def history_of(config, origin):
    """The configs of all trainings that led to weights with this config, in order; of unknown weights, where
    they are from is all that is known."""
    if "trained_before" not in config:
        return [{"checkpoint": origin}]
    left_out = "sha256", "trained_before", "dra_ranges"
    return config["trained_before"] + [{key: config[key] for key in config if key not in left_out}]


def training_history(prefix):
    """As history_of(), of a checkpoint."""
    return history_of(checkpoint_config(prefix), prefix)


def note_seen(prefix, held_out):
    """Note that the weights of a checkpoint may have been trained on photographs that are held out now,
    unless each training that led to them held these out, too. held_out: paths below the data's folder."""
    if any(not set(held_out) <= set(config.get("held_out") or ()) for config in training_history(prefix)):
        notice_once("%s may have been trained on photographs that are held out here: it seems better on them "
                    "than it is, and so does what is close to it" % short_path(prefix))


def check_ablation(prefix, without):
    """Raise UserError if a checkpoint was trained without another part than `without` (None: with all)."""
    trained = checkpoint_config(prefix).get("without")
    if trained != without:
        with_all = "with all parts of the network: leave out --without"
        raise UserError("%s was trained %s" % (
            prefix, "without {0}: it needs test.py --without {0}".format(trained) if trained else with_all))


def restore_weights(session, prefix, without=None):
    """Load the variables of DRSAN in the default graph from a checkpoint; whatever else it holds is ignored.

    without: as in drsan(). Says so if a file is not the one whose SHA-256 stands in config.json. Raises
    UserError if the checkpoint is that of another ablation, and names the first variable that it lacks or has
    in another shape.
    """
    check_ablation(prefix, without)
    for name, digest in sorted(checkpoint_config(prefix).get("sha256", {}).items()):
        path = os.path.join(os.path.dirname(prefix), name)
        if path.startswith(prefix + ".") and os.path.exists(path) and file_digest(path) != digest:
            notice_once("%s is not the file that was trained: its SHA-256 differs from that in config.json"
                        % path)
    variables = model_variables()
    with checkpoint_errors(prefix):
        reader = tf.train.NewCheckpointReader(prefix)
        shapes = reader.get_variable_to_shape_map()
        for variable in variables:
            name, shape = variable.op.name, variable.shape.as_list()
            if shapes.get(name) != shape:
                found = "has %s" % shapes[name] if name in shapes else "is missing"
                raise UserError("%s is a checkpoint of another model or scale: %s should have the shape %s, "
                                "but %s" % (prefix, name, shape, found))
        load_values(session, variables, [reader.get_tensor(variable.op.name) for variable in variables])


def read_weights(prefix):
    """{name: array} of DRSAN in a checkpoint. Raises UserError if it is an ablation's, or damaged."""
    check_ablation(prefix, None)
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


def transfer_weights(session, prefix):
    """Load what a checkpoint of another scale or depth has in common with DRSAN (see transfer).

    Returns the names taken, and a line that says so. Raises UserError as transfer() and read_weights().
    """
    variables = model_variables()
    own = collections.OrderedDict(zip([variable.op.name for variable in variables], session.run(variables)))
    values, taken, message = transfer(read_weights(prefix), own, prefix)
    load_values(session, variables, [values[name] for name in own])
    return taken, message


def transfer(source, own, origin):
    """({name: array} that a network starts with from one of another scale or depth, the names taken, a line
    that says so). All are arrays, for any framework.

    source: {name: array}, and origin, where it is from, in words. own: {name: array}, the initial weights of
    the network. A variable is taken if it has the same Role and shape: x0, the DRAGs that both have, the
    convolution before the skip, and the output convolution. The upsampler of another scale is taken, too,
    with its sub-pixels interpolated. What is new stays as it was initialised, but where it can, it passes on
    what it gets (see neutral_value), so that training starts from an image and does not spoil what was taken.
    Raises UserError if nothing can be taken, as the features have another number of channels.
    """
    shape = own[FIRST].shape
    if FIRST not in source or source[FIRST].shape != shape:
        found = "has the shape %s" % list(source[FIRST].shape) if FIRST in source else "is missing"
        raise UserError("nothing can be taken from %s: its %s %s, and this model's has %s" % (
            origin, FIRST, found, list(shape)))
    channels, own_roles = shape[-1], roles(own)
    by_role, values, taken = {role: source[name] for name, role in roles(source).items()}, {}, []
    for name in own:
        role, shape = own_roles[name], own[name].shape
        value = by_role.get(role)
        if value is not None and role.stage == "upsampler":
            value = resample_subpixels(value, shape, channels)
        if value is not None and value.shape == shape:
            taken.append(name)
        else:
            value = neutral_value(role, shape, channels)
        values[name] = (own[name] if value is None else value).astype(own[name].dtype)
    new = [name for name in own if name not in taken]
    left = ", %d not: %s" % (len(new), " ".join(new[:4] + ["..."] * (len(new) > 4))) if new else ""
    return values, taken, "%d variables taken from %s%s" % (len(taken), origin, left)


def resample_subpixels(value, shape, channels):
    """The kernel or bias of a sub-pixel convolution, [..., r r channels], for another factor r: `shape`. Each
    of its r x r sub-pixels is interpolated linearly between those of `value`; the outermost repeat."""
    old, new = (int(round((size // channels) ** 0.5)) for size in (value.shape[-1], shape[-1]))
    centers = [(np.arange(r) + 0.5) / r for r in (old, new)]
    weights = np.stack([np.interp(centers[1], centers[0], row) for row in np.eye(old)], 1)  # [new, old]
    value = value.reshape(value.shape[:-1] + (old, old, -1))
    value = np.einsum("ia,jb,...abc->...ijc", weights, weights, value)
    return value.reshape(value.shape[:-3] + (-1,))


def neutral_value(role, shape, channels):
    """The kernel of a new convolution that passes on what it gets, or None where there is none: the last of a
    DRAG, over [x, f_1, ...], has one that gives x; a second upsampling has bilinear interpolation by 2."""
    if role.part == "kernel" and role.stage == "upsampler":
        taps = np.array([[0.25, 0.75, 0], [0, 0.75, 0.25]])  # [sub-pixel, tap]
        return np.einsum("iy,jx,cd->yxcijd", taps, taps, np.eye(channels)).reshape(shape)
    if role.part == "kernel" and role.stage == "body" and shape[0] == 1 and shape[2] > shape[3] == channels:
        return np.eye(shape[2], channels).reshape(shape)
    return None
