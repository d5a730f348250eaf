"""A training step in JAX: its state, loss and optimizer, and many steps in one call of the device."""
import functools
from collections import namedtuple

from tools.gpu.convert import AVERAGE, MOMENT1, MOMENT2, MUON
from tools.gpu.blocks import apply_drsan
from tools.training.recipes import MAX_LOSS, MOMENTUM, NORMS, UPDATE_RMS, orthogonalize, uses_muon

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
Setup = namedtuple("Setup", "model scale recipe precision")  # what is compiled into run_steps()


def new_state(recipe, weights):
    """The state of a training before its first step, {name: array}, named as in checkpoints of train.py."""
    state = {"step": np.int32(0), "beta1_power": np.float32(BETA1), "beta2_power": np.float32(BETA2),
             "gradient_norms": np.full([NORMS], np.inf, np.float32)}
    for name, value in weights.items():
        state[name] = value
        by_muon = recipe.optimizer == "muon" and uses_muon(value.shape)
        for slot in [MUON] if by_muon else [MOMENT1, MOMENT2]:
            state[name + slot] = np.zeros_like(value)
        if recipe.ema:
            state[name + AVERAGE] = value
    return state


def l1_loss(setup, weights, lr, hr):
    """Mean absolute error over RGB in [0, 1]."""
    sr = apply_drsan(weights, lr.astype(jnp.float32) / 255, setup.model, setup.scale, setup.precision)
    error = hr.astype(jnp.float32) / 255 - sr
    return jnp.mean(error * lax.stop_gradient(jnp.sign(error)))  # at 0, jnp.abs has the gradient 1


def muon_directions(momenta):
    """Muon's updates of kernels, {name: momentum}, for a learning rate of 1, as the optimizer of train.py
    makes them."""
    by_shape, directions = {}, {}
    for name, momentum in momenta.items():
        by_shape.setdefault(momentum.shape, []).append(name)
    for shape, names in by_shape.items():  # together, since each product alone would leave a GPU idle
        x = jnp.stack([momenta[name].reshape(-1, shape[-1]) for name in names])
        rows, columns = x.shape[1:]
        x = x / (jnp.linalg.norm(x, axis=(1, 2), keepdims=True) + 1e-12)
        x = x.swapaxes(1, 2) if rows > columns else x
        x = orthogonalize(x, lambda a, b, transpose: a @ (b.swapaxes(1, 2) if transpose else b))
        x = UPDATE_RMS * max(rows, columns) ** 0.5 * (x.swapaxes(1, 2) if rows > columns else x)
        directions.update(zip(names, x.reshape((-1,) + shape)))
    return directions


def update(state, gradients, rate, recipe):
    """The state after a step of Adam, with epsilon outside the bias correction as in TensorFlow, and of Muon.

    The decay of the moving averages is at most (1 + step) / (10 + step).
    """
    step, new, momenta = state["step"] + 1, {}, {}
    adam_rate = rate * jnp.sqrt(1 - state["beta2_power"]) / (1 - state["beta1_power"])
    for name, gradient in gradients.items():
        if name + MUON in state:
            new[name + MUON] = momentum = MOMENTUM * state[name + MUON] + (1 - MOMENTUM) * gradient
            momenta[name] = MOMENTUM * momentum + (1 - MOMENTUM) * gradient
        else:
            new[name + MOMENT1] = m = BETA1 * state[name + MOMENT1] + (1 - BETA1) * gradient
            new[name + MOMENT2] = v = BETA2 * state[name + MOMENT2] + (1 - BETA2) * gradient ** 2
            new[name] = state[name] - adam_rate * m / (jnp.sqrt(v) + EPSILON)
    for name, direction in muon_directions(momenta).items():
        new[name] = state[name] - rate * (direction + recipe.decay * state[name])
    if recipe.ema:
        decay = jnp.minimum(recipe.ema, (1. + step) / (10. + step))
        for name in gradients:
            new[name + AVERAGE] = decay * state[name + AVERAGE] + (1 - decay) * new[name]
    return dict(state, step=step, beta1_power=state["beta1_power"] * BETA1,
                beta2_power=state["beta2_power"] * BETA2, **new)


def guarded_update(state, gradients, loss, rate, recipe):
    """(state, norm of the gradient, whether the step was skipped: its loss or norm is not finite, or too
    large).

    A skipped step changes nothing but the number of steps and the norms that are noted.
    """
    norm = jnp.sqrt(sum(jnp.sum(gradient ** 2) for gradient in gradients.values()))
    finite, norms = (loss < MAX_LOSS) & jnp.isfinite(norm), state["gradient_norms"]
    limit = recipe.skip_above * jnp.sort(norms)[NORMS // 2] if recipe.skip_above else jnp.inf
    bad = ~(finite & (norm <= limit))
    updated = update(state, gradients, rate, recipe)
    kept = {name: jnp.where(bad, state[name], updated[name]) for name in state}
    noted = jnp.where(finite, jnp.append(norms[1:], norm), norms)
    return dict(kept, step=updated["step"], gradient_norms=noted), norm, bad


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def run_steps(setup, state, rates, lr, hr):
    """One training step for each of `rates`, all on the device. The memory of `state` is taken over.

    lr, hr: uint8 [steps, batch, p, p, 3] and [steps, batch, s p, s p, 3]. Returns the new state, and (losses,
    norms of the gradients, whether each step was skipped).
    """
    def step(state, inputs):
        rate, lr, hr = inputs
        weights = {name: state[name] for name in state if name + MUON in state or name + MOMENT1 in state}
        loss, gradients = jax.value_and_grad(lambda weights: l1_loss(setup, weights, lr, hr))(weights)
        state, norm, skipped = guarded_update(state, gradients, loss, rate, setup.recipe)
        return state, (loss, norm, skipped)

    with jax.default_matmul_precision("tensorfloat32"):  # of float32, where a GPU has it
        return lax.scan(step, state, (rates, lr, hr))
