"""A training step by the optimizer of a recipe: Adam, Muon for the kernels, and steps that are skipped."""
from model import model_variables
from ops import tf
from tools.training.recipes import MAX_LOSS, MOMENTUM, NORMS, UPDATE_RMS, orthogonalize, uses_muon

import numpy as np


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
            by_muon.append((variable, muon_momentum(variable), gradient))
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


def muon_momentum(kernel):
    """The variable <kernel>/Muon."""
    with tf.colocate_with(kernel):
        return tf.Variable(tf.zeros(kernel.shape), trainable=False, name=kernel.op.name + "/Muon")


def muon_step(kernel, momentum, gradient, rate, decay):
    """The operation that updates a kernel W [kh, kw, in, out] by Muon with Nesterov's momentum and decoupled
    weight decay: W <- W - rate (O + decay W), where O is the orthogonal update (J. Liu et al., arXiv
    2502.16982, equation 3)."""
    height, width, inputs, outputs = kernel.shape.as_list()
    rows, columns = height * width * inputs, outputs
    with tf.colocate_with(kernel):
        new = momentum.assign(MOMENTUM * momentum + (1 - MOMENTUM) * gradient)
        x = tf.reshape(MOMENTUM * new + (1 - MOMENTUM) * gradient, [rows, columns])
        x = x / (tf.norm(x) + 1e-12)
        tall = rows > columns
        x = orthogonalize(tf.transpose(x) if tall else x,
                          lambda a, b, transpose: tf.matmul(a, b, transpose_b=transpose))
        x = (UPDATE_RMS * max(rows, columns) ** 0.5) * (tf.transpose(x) if tall else x)
        update = tf.reshape(x, kernel.shape)
        return kernel.assign_sub(rate * (update + decay * kernel if decay else update))


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
