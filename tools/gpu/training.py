"""A training step in JAX: patches of photographs on the device, loss and optimizer; many steps in a call."""
import functools
from collections import namedtuple

from model import SCALES
from tools.command import UserError
from tools.data.patches import detail
from tools.gpu.convert import AVERAGE, MOMENT1, MOMENT2, MUON
from tools.gpu.network import apply_drsan
from tools.training.recipes import MAX_LOSS, MOMENTUM, NORMS, UPDATE_RMS, orthogonalize, uses_muon

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
Setup = namedtuple("Setup", "model scale recipe precision")  # what is compiled into run_steps()
# lr, hr: uint8 [images, H, W, 3], padded to one size; the padding is never drawn. ends: int32 [images], the
# number of positions of a patch in an image and those before it; columns: int32 [images], in one of its rows.
Tiles = namedtuple("Tiles", "lr hr ends columns")
Patches = namedtuple("Patches", "tile y x turn")  # int32 [batch] each; y and x in LR pixels; turn: 3 bits


# -------------------------------------------------------------------------------------------------- patches

def stack_tiles(pairs, patch):
    """Tiles of (LR, HR) pairs, none smaller than a patch, of `patch` LR pixels a side. Raises UserError."""
    rows, columns = np.transpose([lr.shape[:2] for lr, _ in pairs]) - patch + 1
    ends = np.cumsum(rows * columns)
    if ends[-1] >= 2 ** 31:
        raise UserError("the photographs have %d positions of a patch, 2^31 or more: give fewer" % ends[-1])
    stacks = []
    for images in zip(*pairs):
        height, width = np.max([image.shape[:2] for image in images], axis=0)
        stacks.append(np.zeros([len(images), height, width, 3], np.uint8))
        for padded, image in zip(stacks[-1], images):
            padded[:image.shape[0], :image.shape[1]] = image
    return Tiles(*map(jnp.asarray, stacks + [ends.astype(np.int32), columns.astype(np.int32)]))


def draw_patches(key, tiles, recipe):
    """The Patches of a step, those with the most detail of recipe.candidates each, which are uniform over all
    positions and over the 8 flips and rotations."""
    position_key, turn_key = jax.random.split(key)
    count = [recipe.batch * recipe.candidates]
    position = jax.random.randint(position_key, count, 0, tiles.ends[-1])
    tile = jnp.searchsorted(tiles.ends, position, side="right", method="compare_all")
    y, x = jnp.divmod(position - jnp.where(tile > 0, tiles.ends[tile - 1], 0), tiles.columns[tile])
    patches = Patches(tile, y, x, jax.random.randint(turn_key, count, 0, 8))
    if recipe.candidates == 1:
        return patches
    details = detail(read_pixels(tiles.lr, patches, recipe.patch, 1).astype(jnp.float32), jnp)
    best = details.reshape(recipe.batch, recipe.candidates).argmax(axis=1)
    return Patches(*[values[recipe.candidates * jnp.arange(recipe.batch) + best] for values in patches])


def read_pixels(images, patches, patch, factor):
    """The pixels of Patches in the LR images of Tiles (factor 1), or in the HR images, not turned."""
    size = 1, factor * patch, factor * patch, 3
    return jax.vmap(lambda tile, y, x: lax.dynamic_slice(images, (tile, factor * y, factor * x, 0), size)[0])(
        patches.tile, patches.y, patches.x)


def read_batch(tiles, patches, patch, factor):
    """The batch of some Patches: LR [batch, p, p, 3] and HR [batch, s p, s p, 3], uint8."""
    turn, batches = patches.turn[:, None, None, None], []
    for images, size in (tiles.lr, 1), (tiles.hr, factor):
        batch = read_pixels(images, patches, patch, size)
        batch = jnp.where(turn & 1, batch[:, ::-1], batch)
        batch = jnp.where(turn & 2, batch[:, :, ::-1], batch)
        batches.append(jnp.where(turn & 4, batch.swapaxes(1, 2), batch))
    return batches


# ---------------------------------------------------------------------------------------------------- steps

def new_state(recipe, weights, seed):
    """The state of a training before its first step, {name: array}, named as in checkpoints of train.py."""
    state = {"step": np.int32(0), "beta1_power": np.float32(BETA1), "beta2_power": np.float32(BETA2),
             "gradient_norms": np.full([NORMS], np.inf, np.float32),
             "random_key": np.asarray(jax.random.key_data(jax.random.key(seed)))}
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
def run_steps(setup, state, tiles, rates):
    """One training step for each of `rates`, all on the device. The memory of `state` is taken over.

    Returns the new state, and (losses, norms of the gradients, whether each step was skipped).
    """
    recipe, key = setup.recipe, jax.random.wrap_key_data(state["random_key"])
    keys = jax.vmap(lambda i: jax.random.fold_in(key, state["step"] + i))(jnp.arange(len(rates)))
    patches = jax.vmap(lambda key: draw_patches(key, tiles, recipe))(keys)  # in few, large kernels

    def step(state, inputs):
        rate, patches = inputs
        lr, hr = read_batch(tiles, patches, recipe.patch, SCALES[setup.scale])
        weights = {name: state[name] for name in state if name + MUON in state or name + MOMENT1 in state}
        loss, gradients = jax.value_and_grad(lambda weights: l1_loss(setup, weights, lr, hr))(weights)
        state, norm, skipped = guarded_update(state, gradients, loss, rate, recipe)
        return state, (loss, norm, skipped)

    with jax.default_matmul_precision("tensorfloat32"):  # of float32, where a GPU has it
        return lax.scan(step, state, (rates, patches))
