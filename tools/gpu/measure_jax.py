"""Measure how fast train_jax.py trains: python tools/gpu/measure_jax.py --graph runs/graphs/32s_x2.json

Prints the device's two ceilings (a large copy, a large matrix product) and, for each setting, the steps per second and
the two limits on them: arithmetic/s, if the convolutions ran at the rate of the matrix product, and traffic/s, if their
operands and results were moved once each at the bandwidth of the copy. No file is written but with --trace.
"""
import argparse
import itertools
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from tools.command import run_main
from tools.gpu.train_jax import PRECISIONS, l1_loss, new_state, read_graph_file, read_weights, run_steps, stack_tiles
from tools.training.recipes import make_recipe

import jax
import jax.numpy as jnp
import numpy as np


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
    dtype, product = PRECISIONS[precision]
    x = jax.random.normal(jax.random.key(0), (side, side), dtype)
    with jax.default_matmul_precision(product):
        multiply = jax.jit(jnp.dot)
        return 2 * side ** 3 / fastest(lambda: multiply(x, x))


def convolution_costs(graph, weights, precision, batch, patch):
    """(floating-point operations, bytes of operands and results) of all convolutions in a training step."""
    side, dtype = patch * graph.factor, PRECISIONS[precision][0]
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graph", required=True, nargs="+", metavar="JSON")
    parser.add_argument("--precision", nargs="+", default=["tf32", "bfloat16"], choices=list(PRECISIONS))
    parser.add_argument("--batch", type=int, nargs="+", default=[16])
    parser.add_argument("--patch", type=int, default=48)
    parser.add_argument("--dispatch", type=int, default=200, metavar="STEPS")
    parser.add_argument("--copy", type=int, default=2048, metavar="MEBIBYTES", help="size of the array that is copied")
    parser.add_argument("--product", type=int, default=8192, metavar="SIDE", help="of the matrices that are multiplied")
    parser.add_argument("--trace", metavar="DIR", help="write a profile of one dispatch of each setting")
    args = parser.parse_args()
    bandwidth, rates = copy_rate(args.copy), {name: product_rate(args.product, name) for name in args.precision}
    print("%s, jax %s: copy %.4g GB/s; product %s TFLOP/s" % (
        jax.devices()[0].device_kind, jax.__version__, bandwidth / 1e9,
        ", ".join("%s %.4g" % (name, rate / 1e12) for name, rate in rates.items())), flush=True)
    print("%-8s %-9s %5s %9s %9s %9s %12s %12s" % (
        "graph", "precision", "batch", "compile s", "steps/s", "images/s", "arithmetic/s", "traffic/s"))
    for path, precision, batch in itertools.product(args.graph, args.precision, args.batch):
        graph, weights = read_graph_file(path), read_weights(path)
        scale = graph.factor
        recipe = make_recipe("fast", graph.model, graph.scale)._replace(batch=batch, patch=args.patch)
        random = np.random.RandomState(0)
        pairs = [tuple(random.randint(256, size=(side, side, 3)).astype(np.uint8)
                       for side in (2 * args.patch, 2 * args.patch * scale)) for _ in range(16)]
        tiles, rates_of_steps = stack_tiles(pairs, args.patch), np.full(args.dispatch, 1e-4, np.float32)
        state = jax.device_put(new_state(weights, recipe, 0))
        before = time.time()
        program = run_steps.lower(graph, recipe, precision, state, tiles, rates_of_steps).compile()
        compiled = time.time() - before

        def dispatch():
            nonlocal state
            state, losses = program(state, tiles, rates_of_steps)
            return losses

        speed = args.dispatch / fastest(dispatch, 3)
        operations, size = convolution_costs(graph, weights, precision, batch, args.patch)
        print("%-8s %-9s %5d %9.1f %9.4g %9.4g %12.4g %12.4g" % (
            graph.model + graph.scale, precision, batch, compiled, speed, speed * batch, rates[precision] / operations,
            bandwidth / size), flush=True)
        if args.trace:
            with jax.profiler.trace(args.trace):
                jax.block_until_ready(dispatch())


if __name__ == "__main__":
    run_main(main)
