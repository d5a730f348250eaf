"""What a device can do, what a training step asks of it, and where its time goes: for measure_jax.py.

A program is timed as a whole by trial.py where only the fastest is wanted.
"""
import collections
import glob
import os
import time

from tools.gpu.files import weight_names
from tools.gpu.tiles import cut_patches, draw_detailed_patches
from tools.gpu.training import ARITHMETIC, groups, guarded_update, l1_loss, pack_state

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def fastest(function, repeats=5):
    """The least number of seconds that a call takes whose result is waited for; one call before is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        before = time.time()
        jax.block_until_ready(function())
        seconds.append(time.time() - before)
    return min(seconds[1:])


def copy_rate(mebibytes):
    """Bytes per second, read and written, of a copy on the device."""
    x = jnp.arange(mebibytes << 18, dtype=jnp.float32)
    add = jax.jit(lambda x: x + 1)
    return 2 * x.nbytes / fastest(lambda: add(x))


def product_rate(side, precision):
    """Floating-point operations per second of a product of random matrices."""
    dtype, product = ARITHMETIC[precision]
    x = jax.random.normal(jax.random.key(0), (side, side), dtype)
    with jax.default_matmul_precision(product):
        multiply = jax.jit(jnp.dot)
        return 2 * side ** 3 / fastest(lambda: multiply(x, x))


def convolution_costs(graph, weights, precision, batch, patch):
    """(floating-point operations, bytes of operands and results) of all convolutions in a training step."""
    side, dtype = patch * graph.factor, ARITHMETIC[precision][0]
    lr, hr = np.zeros([batch, patch, patch, 3], np.uint8), np.zeros([batch, side, side, 3], np.uint8)
    program = jax.make_jaxpr(jax.grad(lambda weights: l1_loss(graph, weights, lr, hr, dtype)))(weights)
    operations = size = 0
    for equation in program.eqns:
        if equation.primitive.name == "conv_general_dilated":
            (x, kernel), (y,) = equation.invars, equation.outvars
            filters = kernel.aval.shape[equation.params["dimension_numbers"].rhs_spec[0]]
            operations += 2 * y.aval.size * kernel.aval.size // filters
            size += sum(array.aval.size * array.aval.dtype.itemsize for array in (x, kernel, y))
    return operations, size


def time_parts(graph, recipe, precision, state, tiles, steps):
    """{part of a step: seconds of one}, each part alone in a loop of so many steps on the device.

    The parts are drawing and cutting the patches, the loss, the loss and its gradient, and the optimizer with the average of the
    weights; what a whole step takes beyond patches, gradient and optimizer is lost between them.
    """
    dtype, product = ARITHMETIC[precision]
    weights, grouped = {name: state[name] for name in weight_names(state)}, groups(state)

    def patches(key):
        drawn = draw_detailed_patches(key, tiles, recipe.batch, recipe.patch, recipe.candidates)
        return cut_patches(tiles, drawn, recipe.patch, graph.factor)

    lr, hr = patches(jax.random.key(0))

    def loss(weights):
        return l1_loss(graph, weights, lr, hr, dtype)

    def draw(carry, i):
        return sum(jnp.sum(batch, dtype=jnp.int32) for batch in patches(jax.random.fold_in(jax.random.key(0), carry % 7 + i)))

    def shifted(carry):  # other weights in every step, or the loop's body would be moved out of it
        return {name: value + carry * 1e-9 for name, value in weights.items()}

    bodies = collections.OrderedDict([
        ("patches", (draw, jnp.int32(0))),
        ("forward", (lambda carry, i: loss(shifted(carry)), jnp.float32(0))),
        ("gradient", (lambda carry, i: jax.tree.reduce(lambda a, b: a + jnp.sum(b), jax.grad(loss)(shifted(carry)), jnp.float32(0)),
                      jnp.float32(0))),
        ("optimizer", (lambda packed, i: guarded_update(
            packed, {group: packed[group] * 1e-3 for group in grouped}, jnp.float32(0.1), jnp.float32(1e-4), recipe)[0],
                       pack_state(grouped, state)))])
    seconds = {}
    for name, (body, first) in bodies.items():
        with jax.default_matmul_precision(product):
            loop = jax.jit(lambda first, body=body: lax.scan(lambda carry, i: (body(carry, i), None), first, jnp.arange(steps))[0])
            seconds[name] = fastest(lambda: loop(first), 3) / steps
    return seconds


def kernel_times(folder):
    """[(seconds, calls, name)] of the kernels in the last trace below a folder, the longest first; [] if it has none of a GPU.

    A kernel is an event on a stream of a device, so that what is found on a CPU does not count.
    """
    paths = sorted(glob.glob(os.path.join(glob.escape(folder), "**", "*.xplane.pb"), recursive=True), key=os.path.getmtime)
    totals = collections.defaultdict(lambda: [0.0, 0])
    for plane in jax.profiler.ProfileData.from_file(paths[-1]).planes if paths else []:
        for line in plane.lines if plane.name.startswith("/device:GPU") else []:
            for event in line.events if line.name.startswith("Stream") else []:
                totals[event.name][0] += event.duration_ns / 1e9
                totals[event.name][1] += 1
    return sorted(((seconds, calls, name) for name, (seconds, calls) in totals.items()), reverse=True)
