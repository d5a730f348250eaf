"""What a training step is in JAX: its state, loss and optimizer, and many steps in one call of the device.

How long a training is, and what is kept of it, stands in trainer.py; recipes, for any framework, in ../training/recipes.py.
"""
import functools

from tools.gpu.files import AVERAGE, MOMENT1, MOMENT2, MUON, SLOTS, averaged_weights, weight_names
from tools.gpu.jax_graph import absolute, execute
from tools.gpu.tiles import cut_patches, draw_detailed_patches
from tools.training.recipes import MAX_LOSS, MAX_SKIPPED, MOMENTUM, NORMS, UPDATE_RMS, orthogonalize, uses_muon
from utils import mean_scores, psnr_y, to_uint8

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
ARITHMETIC = {  # of a precision (a key of schedule.PRECISIONS): the type of feature maps, and JAX's precision of float32 products
    "float32": (jnp.float32, "float32"),
    "tf32": (jnp.float32, "tensorfloat32"),
    "bfloat16": (jnp.bfloat16, "tensorfloat32"),
}


def new_state(weights, recipe, seed):
    """The state of a training before its first step, a dict of arrays named as in a training checkpoint of train.py; beside those,
    the random key, and how many steps have been skipped in a row."""
    state = {"Variable": np.int32(0), "skipped_in_a_row": np.int32(0), "beta1_power": np.float32(BETA1),
             "beta2_power": np.float32(BETA2), "random_key": np.asarray(jax.random.key_data(jax.random.key(seed)))}
    if recipe.skip_above:
        state["gradient_norms"] = np.full([NORMS], np.inf, np.float32)
    for name, value in weights.items():
        state[name] = value
        by_muon = recipe.optimizer == "muon" and uses_muon(value.shape)
        for slot in [MUON] if by_muon else [MOMENT1, MOMENT2]:
            state[name + slot] = np.zeros_like(value)
        if recipe.ema:
            state[name + AVERAGE] = value
    return state


def l1_loss(graph, weights, lr, hr, dtype):
    """Mean absolute error over RGB in [0, 1] of uint8 batches."""
    sr = execute(graph, weights, lr.astype(jnp.float32) / 255, dtype)
    return jnp.mean(absolute(hr.astype(jnp.float32) / 255 - sr))


def groups(state):
    """{name of a group: names of its weights} of a state: what Adam updates, and the kernels of one shape that Muon updates.

    A step works on each group as one array, since on a GPU an operation on a small array takes as long as one on a large array.
    """
    found = {}
    for name in weight_names(state):
        shape = "x".join(map(str, state[name].shape))
        found.setdefault("muon %s" % shape if name + MUON in state else "adam", []).append(name)
    return found


def pack(grouped, arrays, slots=("",)):
    """{group + slot: one array} of {weight + slot: array}: of Adam's a vector, of Muon's a stack of kernels."""
    packed = {}
    for group, names in grouped.items():
        for slot in slots:
            if names[0] + slot in arrays:
                values = [arrays[name + slot] for name in names]
                packed[group + slot] = jnp.concatenate([jnp.ravel(value) for value in values]) if group == "adam" else jnp.stack(values)
    return packed


def pack_state(grouped, state):
    """A state with weights and slots packed; what belongs to no weight stays as it is."""
    return dict(others(state), **pack(grouped, state, ("",) + SLOTS))


def others(state):
    """What belongs to no weight in a state."""
    return {name: value for name, value in state.items() if not name.startswith("DRAN/")}


def unpack(grouped, shapes, packed, slots=("",)):
    """{weight + slot: array}, the reverse of pack(). shapes: {weight: shape}."""
    arrays = {}
    for group, names in grouped.items():
        ends = np.cumsum([int(np.prod(shapes[name])) for name in names])
        for slot in slots:
            if group + slot in packed:
                values = jnp.split(packed[group + slot], ends[:-1]) if group == "adam" else packed[group + slot]
                arrays.update((name + slot, values[i].reshape(shapes[name])) for i, name in enumerate(names))
    return arrays


def muon_direction(momenta):
    """Muon's update of kernels of one shape, [n, h, w, c, f], for a learning rate of 1, as ops.muon_step makes it."""
    rows, columns = int(np.prod(momenta.shape[1:-1])), momenta.shape[-1]
    x = momenta.reshape(-1, rows, columns)
    x = x / (jnp.linalg.norm(x, axis=(1, 2), keepdims=True) + 1e-12)
    tall = rows > columns
    x = orthogonalize(x.swapaxes(1, 2) if tall else x, lambda a, b, transpose: a @ (b.swapaxes(1, 2) if transpose else b))
    return UPDATE_RMS * max(rows, columns) ** 0.5 * (x.swapaxes(1, 2) if tall else x).reshape(momenta.shape)


def update(state, gradients, rate, recipe):
    """The packed state after a step of Adam by TensorFlow's formula (epsilon outside the bias correction), of Muon for the kernels
    that have its momentum, with decoupled weight decay, and with an `ema` of the moving averages, whose decay is at most
    (1 + step) / (10 + step)."""
    step = state["Variable"] + 1
    adam_rate = rate * jnp.sqrt(1 - state["beta2_power"]) / (1 - state["beta1_power"])
    ema = jnp.minimum(recipe.ema, (1. + step) / (10. + step))
    state = dict(state, Variable=step,
                 beta1_power=state["beta1_power"] * BETA1, beta2_power=state["beta2_power"] * BETA2)
    for name, gradient in gradients.items():
        if name + MUON in state:
            state[name + MUON] = momentum = MOMENTUM * state[name + MUON] + (1 - MOMENTUM) * gradient
            direction = muon_direction(MOMENTUM * momentum + (1 - MOMENTUM) * gradient)
            state[name] = state[name] - rate * (direction + recipe.decay * state[name])
            continue
        m, v = state[name + MOMENT1], state[name + MOMENT2]
        state[name + MOMENT1] = m = m + (gradient - m) * (1 - BETA1)
        state[name + MOMENT2] = v = v + (gradient ** 2 - v) * (1 - BETA2)
        state[name] = state[name] - adam_rate * m / (jnp.sqrt(v) + EPSILON)
    if recipe.ema:
        for name in gradients:
            average = state[name + AVERAGE]
            state[name + AVERAGE] = average - (1 - ema) * (average - state[name])
    return state


def guarded_update(state, gradients, loss, rate, recipe):
    """The packed state after a step that is skipped if it is bad, as ops.is_bad says; the norm of its gradient; and whether it was.

    Once MAX_SKIPPED steps in a row were bad, the state stays as it is.
    """
    norm = jnp.sqrt(sum(jnp.sum(gradient ** 2) for gradient in gradients.values()))
    finite = (loss < MAX_LOSS) & jnp.isfinite(norm)
    bad, noted = ~finite, {}
    if recipe.skip_above:
        norms = state["gradient_norms"]
        bad |= ~(norm <= recipe.skip_above * jnp.sort(norms)[NORMS // 2])
        noted["gradient_norms"] = jnp.where(finite, jnp.append(norms[1:], norm), norms)
    in_a_row = jnp.where(bad, state["skipped_in_a_row"] + 1, 0)
    skipped = dict(state, Variable=state["Variable"] + 1, skipped_in_a_row=in_a_row, **noted)
    updated = dict(update(state, gradients, rate, recipe), skipped_in_a_row=in_a_row, **noted)
    stopped = state["skipped_in_a_row"] >= MAX_SKIPPED
    return {name: jnp.where(stopped, state[name], jnp.where(bad, skipped[name], updated[name])) for name in state}, norm, bad


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def run_steps(graph, recipe, precision, state, tiles, rates):
    """One training step for each of `rates`, all on the device; returns the new state, and the losses, the norms of the gradients
    and whether each step was skipped.

    graph, recipe (a Recipe) and precision (a key of ARITHMETIC) are compiled in; the memory of `state` is taken over.
    """
    dtype, convolution = ARITHMETIC[precision]
    grouped, shapes = groups(state), {name: state[name].shape for name in weight_names(state)}
    key = jax.random.wrap_key_data(state["random_key"])
    keys = jax.vmap(lambda i: jax.random.fold_in(key, state["Variable"] + i))(jnp.arange(len(rates)))
    patches = jax.vmap(lambda key: draw_detailed_patches(key, tiles, recipe.batch, recipe.patch, recipe.candidates))(
        keys)  # before the loop: few, large kernels

    def step(state, inputs):
        rate, patches = inputs
        lr, hr = cut_patches(tiles, patches, recipe.patch, graph.factor)
        weights = unpack(grouped, shapes, state)
        loss, gradients = jax.value_and_grad(lambda weights: l1_loss(graph, weights, lr, hr, dtype))(weights)
        state, norm, skipped = guarded_update(state, pack(grouped, gradients), loss, rate, recipe)
        return state, (loss, norm, skipped)

    with jax.default_matmul_precision(convolution):
        packed, values = lax.scan(step, pack_state(grouped, state), (rates, patches))
    return dict({name: packed[name] for name in others(state)}, **unpack(grouped, shapes, packed, ("",) + SLOTS)), values


@functools.partial(jax.jit, static_argnums=0)
def upscale(graph, weights, lr):
    """SR in [0, 255], not clipped, of a uint8 batch, in float32."""
    with jax.default_matmul_precision("float32"):
        return 255 * execute(graph, weights, lr.astype(jnp.float32) / 255)


def validate(graph, state, pairs):
    """Mean PSNR of Y over (LR, HR) pairs (see utils.scored_luma and mean_scores)."""
    weights, values = averaged_weights(state), []
    for lr, hr in pairs:
        sr = to_uint8(np.asarray(upscale(graph, weights, lr[None])[0]))
        values.append((psnr_y(sr, hr, graph.factor),))
    return mean_scores(values)[0]
