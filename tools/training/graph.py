"""The training graph: DRSAN, the L1 loss, a step of the optimizer of a recipe, by Adam or Muon, and
steps that are skipped. And how weights are validated."""
import collections
import contextlib

from model import MODELS, dra_values, drsan, model_variables
from ops import tf
from tools.checkpoints import load_values
from tools.compute import convolving_in
from tools.gate import hard_pictures, judge, measure_dra
from tools.training.recipes import MAX_LOSS, MOMENTUM, NORMS, UPDATE_RMS, orthogonalize, uses_muon
from utils import mean_scores, psnr_y, to_uint8

import numpy as np

# dra: of each DRAG of the network of `sr`; dra_ranges: what they are limited by, a placeholder
# [DRAGs, 2, paths] that limits nothing finite by default; both None for an ablation
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
        _, drags, blocks = MODELS[model]
        rows = np.finfo(np.float32).max * np.float32([[-1], [1]])
        default = np.tile(rows, [drags, 1, blocks * (blocks + 1) // 2])
        ranges = tf.placeholder_with_default(default, default.shape, "dra_ranges")
        limits = [tf.unstack(drag) for drag in tf.unstack(ranges)]
    sr = drsan(tf.cast(lr, tf.float32) / 255, model, scale, without, limits)
    if not without:
        dra_of_sr = dra_values()[-drags:]
    loss = tf.identity(tf.add_n(losses) / len(losses), "Loss")
    step = tf.Variable(0, trainable=False, name="Variable")
    train, norm, skipped, averages = optimize_by(recipe, rate, loss, step)
    kernels = [variable for variable in model_variables() if len(variable.shape) == 4]
    kernel_rms = tf.sqrt(2 * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
                         / sum(kernel.shape.num_elements() for kernel in kernels))
    return Training(lr, hr, rate, sr, dra_of_sr, ranges, loss, step, train, averages, norm, skipped,
                    tf.reduce_max(tf.stack(dra)), kernel_rms)


def optimize_by(recipe, rate, loss, step):
    """A training step by the optimizer of a Recipe; Muon leaves to Adam what is not for it.

    Returns the operation, which also counts `step`, the norm of the gradient of all variables together,
    whether the step was skipped (see is_bad), and the moving averages of the variables, [] without. A skipped
    step changes no variable but `step`.
    """
    adam = tf.train.AdamOptimizer(rate, 0.9, 0.999, 1e-8, name="AdamOptimizer")
    pairs = adam.compute_gradients(loss, colocate_gradients_with_ops=True)
    norm = tf.global_norm([gradient for gradient, _ in pairs])
    skipped = is_bad(loss, norm, recipe.skip_above)
    by_adam, by_muon = [], []
    for gradient, variable in pairs:
        if recipe.optimizer == "muon" and uses_muon(variable.shape.as_list()):
            with tf.colocate_with(variable):
                name = variable.op.name + "/Muon"
                momentum = tf.Variable(tf.zeros(variable.shape), trainable=False, name=name)
            by_muon.append((variable, momentum, gradient))
        else:
            by_adam.append((gradient, variable))
    average = tf.train.ExponentialMovingAverage(recipe.ema, num_updates=step) if recipe.ema else None

    def apply():
        with tf.name_scope(None):  # variables made here have the published names, not below the condition's
            updates = [muon_step(kernel, momentum, gradient, rate, recipe.decay)
                       for kernel, momentum, gradient in by_muon]
            train = tf.group(adam.apply_gradients(by_adam), *updates)
            if not average:
                return train
            with tf.control_dependencies([train]):
                return average.apply(model_variables())

    with tf.control_dependencies([step.assign_add(1)]):
        train = tf.cond(skipped, tf.no_op, apply)
    averages = [average.average(variable) for variable in model_variables()] if average else []
    return train, norm, skipped, averages


def muon_step(kernel, momentum, gradient, rate, decay):
    """The operation that updates a kernel W [kh, kw, in, out] by Muon with Nesterov's momentum and decoupled
    weight decay: W <- W - rate (O + decay W), where O is the orthogonal update (J. Liu et al., arXiv
    2502.16982, equation 3)."""
    height, width, inputs, columns = kernel.shape.as_list()
    rows = height * width * inputs
    with tf.colocate_with(kernel):
        new = momentum.assign(MOMENTUM * momentum + (1 - MOMENTUM) * gradient)
        x = tf.reshape(MOMENTUM * new + (1 - MOMENTUM) * gradient, [rows, columns])
        x = x / (tf.norm(x) + 1e-12)
        tall = rows > columns
        x = orthogonalize(tf.transpose(x) if tall else x,
                          lambda a, b, transpose: tf.matmul(a, b, transpose_b=transpose))
        x = (UPDATE_RMS * max(rows, columns) ** 0.5) * (tf.transpose(x) if tall else x)
        return kernel.assign_sub(rate * (tf.reshape(x, kernel.shape) + decay * kernel))


def is_bad(loss, norm, skip_above):
    """Whether a step is to be skipped, a boolean tensor: its loss or the norm of its gradient is not finite,
    or the norm is more than `skip_above` times (0: no limit) the median of the last NORMS finite ones, for
    which the limit waits until there are half as many.

    With a limit, the norms are the variable `gradient_norms`; evaluating the tensor adds this step's.
    """
    finite = tf.logical_and(loss < MAX_LOSS, tf.is_finite(norm))
    if not skip_above:
        return tf.logical_not(finite)
    norms = tf.Variable(tf.fill([NORMS], np.float32(np.inf)), trainable=False, name="gradient_norms")
    limit = skip_above * tf.nn.top_k(norms, NORMS // 2 + 1)[0][-1]
    bad = tf.logical_not(tf.logical_and(finite, norm <= limit))
    with tf.control_dependencies([bad]):
        noted = norms.assign(tf.where(finite, tf.concat([norms[1:], [norm]], 0), norms))
    with tf.control_dependencies([noted]):
        return tf.identity(bad)


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
    """Mean PSNR of Y over (LR, HR) pairs (see mean_scores), and SR."""
    with np.errstate(invalid="ignore"):  # SR of weights that have exploded is NaN
        images = [to_uint8(255 * session.run(training.sr, {training.lr: lr[None]})[0]) for lr, _ in pairs]
    return mean_scores([(psnr_y(sr, hr, factor),) for sr, (_, hr) in zip(images, pairs)])[0], images


def judge_dra(session, training, pairs):
    """(the dra_ranges of the weights on (LR, HR) pairs; within them, by how many grey levels the brightness
    of SR is off on the worst of some hard pictures, see tools/gate.py). (None, None) for an ablation."""
    if training.dra is None:
        return None, None
    ranges = measure_dra(lambda lr: session.run(training.dra, {training.lr: lr}), [lr for lr, _ in pairs])
    found = judge(lambda lr: session.run(training.sr, {training.lr: lr, training.dra_ranges: ranges}),
                  hard_pictures(28, 48))
    return ranges, max(picture.mean for kind in found.values() for picture in kind)
