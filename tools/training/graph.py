"""The training graph: DRSAN, the L1 loss, a step of a recipe's optimizer; and how weights are validated."""
import collections
import contextlib

from model import MODELS, dra_values, drsan, model_variables
from ops import tf
from tools.checkpoints import load_values, transfer_weights
from tools.command import UserError
from tools.compute import convolving_in
from tools.dra_range import measure_dra
from tools.gate import hard_pictures, judge
from tools.training.optimizer import optimize_by
from utils import mean_scores, psnr_y, to_uint8

import numpy as np


# dra: of each DRAG of the network of `sr`; dra_ranges: what they are limited by, a placeholder
# [DRAGs, 2, paths] that limits nothing by default; both None for an ablation
# norm: of the gradient; skipped: whether the step was; largest_dra, kernel_rms: what shows early that a
# training diverges
Training = collections.namedtuple(
    "Training", "lr hr rate sr dra dra_ranges loss step train averages norm skipped largest_dra kernel_rms")


def build_training(model, scale, recipe, devices=("",), without=None, precision="float32", compiled=False):
    """Build the Training of a Recipe: its optimizer on the L1 loss, and with `ema` averages of the weights.

    With several `devices`, each computes the gradient for an equal part of the batch. without: of an ablation
    (see drsan). precision, compiled: of a step (see convolving_in); `sr`, for validation, of a batch of any
    size, is always computed in float32, and not compiled.

    Variables are named as in the published training graphs: the step is Variable, Adam's slots are
    <name>/AdamOptimizer and <name>/AdamOptimizer_1, and beta1_power and beta2_power.
    """
    lr = tf.placeholder(tf.uint8, [None, None, None, 3], "LR")
    hr = tf.placeholder(tf.uint8, [None, None, None, 3], "HR")
    rate = tf.placeholder(tf.float32, [], "rate")
    losses = []
    for device, lr_part, hr_part in zip(devices, tf.split(lr, len(devices)), tf.split(hr, len(devices))):
        with tf.device(device), convolving_in(precision, compiled):
            sr = drsan(tf.cast(lr_part, tf.float32) / 255, model, scale, without)
            losses.append(tf.reduce_mean(tf.abs(tf.cast(hr_part, tf.float32) / 255 - sr)))
    dra = [tf.reduce_max(tf.abs(values)) for values in dra_values()] or [tf.ones([])]
    ranges = limits = dra_of_sr = None
    if not without:
        ranges = no_limits(model)
        limits = [tf.unstack(drag) for drag in tf.unstack(ranges)]
    sr = drsan(tf.cast(lr, tf.float32) / 255, model, scale, without, limits)
    if not without:
        dra_of_sr = dra_values()[-MODELS[model].drags:]
    loss = tf.identity(tf.add_n(losses) / len(losses), "Loss")
    step = tf.Variable(0, trainable=False, name="Variable")
    train, norm, skipped, averages = optimize_by(recipe, rate, loss, step)
    kernels = [variable for variable in model_variables() if len(variable.shape) == 4]
    kernel_rms = tf.sqrt(2 * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
                         / sum(kernel.shape.num_elements() for kernel in kernels))
    return Training(lr, hr, rate, sr, dra_of_sr, ranges, loss, step, train, averages, norm, skipped,
                    tf.reduce_max(tf.stack(dra)), kernel_rms)


def no_limits(model):
    """A placeholder for drsan()'s dra_ranges, whose default limits nothing that is finite."""
    _, drags, blocks = MODELS[model]
    rows = np.finfo(np.float32).max * np.float32([[-1], [1]])
    default = np.tile(rows, [drags, 1, blocks * (blocks + 1) // 2])
    return tf.placeholder_with_default(default, default.shape, "dra_ranges")


def start_from(session, training, prefix):
    """Load the weights, and their averages with them, from a checkpoint of this or of another scale or depth;
    returns a line that says what was taken. Raises UserError as transfer_weights."""
    _, _, message = transfer_weights(session, prefix)
    if training.averages:
        load_values(session, training.averages, session.run(model_variables()))
    return message


@contextlib.contextmanager
def averaged_weights(session, training):
    """Within this context the model has the averages of its weights, if the training keeps them."""
    if not training.averages:
        yield
        return
    weights, averages = session.run([model_variables(), training.averages])
    load_values(session, model_variables(), averages)
    try:
        yield
    finally:
        load_values(session, model_variables(), weights)


def validate(session, training, pairs, factor):
    """Mean PSNR of Y over (LR, HR) pairs (see mean_scores), and SR. Raises UserError if memory is short."""
    try:
        images = [to_uint8(255 * session.run(training.sr, {training.lr: lr[None]})[0]) for lr, _ in pairs]
    except tf.errors.ResourceExhaustedError:
        raise UserError("not enough memory to upscale an image of %s: give --valid smaller ones" % " x ".join(
            map(str, max(lr.shape[:2] for lr, _ in pairs))))
    return mean_scores([(psnr_y(sr, hr, factor),) for sr, (_, hr) in zip(images, pairs)])[0], images


def judge_dra(session, training, pairs):
    """(the dra_ranges of the weights on (LR, HR) pairs, see tools/dra_range.py; within them, by how many grey
    levels the brightness of SR is off on the worst of some hard pictures, see tools/gate.py).

    (None, None) for an ablation.
    """
    if training.dra is None:
        return None, None
    ranges = measure_dra(lambda lr: session.run(training.dra, {training.lr: lr}), [lr for lr, _ in pairs])
    found = judge(lambda lr: session.run(training.sr, {training.lr: lr, training.dra_ranges: ranges}),
                  hard_pictures(28, 48))
    return ranges, max(picture.mean for kind in found.values() for picture in kind)
