"""Measure how fast train_jax.py trains: python tools/gpu/measure_jax.py --graph runs/graphs/32s_x2.json

Prints the device's two ceilings (a large copy, a large matrix product) and, for each setting, the steps per second and
the two limits on them: arithmetic/s, if the convolutions ran at the rate of the matrix product, and traffic/s, if their
operands and results were moved once each at the bandwidth of the copy. --parts times the parts of a step, --trace its kernels.
No file is written but with --trace.
"""
import argparse
import itertools
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from tools.command import positive, run_main
from tools.gpu import require_jax
from tools.gpu.plan import PRECISIONS
from tools.training.recipes import make_recipe
from tools.weights import initial_weights

import numpy as np

KERNELS = 25  # of a trace, that are printed


def random_tiles(patch, factor):
    """Tiles of noise: the values do not matter to the speed."""
    from tools.gpu.tiles import stack_tiles
    random = np.random.RandomState(0)
    return stack_tiles([tuple(random.randint(256, size=(side, side, 3)).astype(np.uint8)
                              for side in (2 * patch, 2 * patch * factor)) for _ in range(16)], patch)


def measure_setting(args, graph, precision, batch, ceilings):
    """Print the row of one setting, and what is asked for beside it. ceilings: operations/s and bytes/s of the device."""
    import jax
    from tools.gpu.device import convolution_costs, fastest, kernel_times, time_parts
    from tools.gpu.training import new_state, run_steps
    recipe = make_recipe("fast", graph.model, graph.scale)._replace(batch=batch, patch=args.patch)
    weights = initial_weights(graph.variables, 0)
    tiles, rates = random_tiles(args.patch, graph.factor), np.full(args.dispatch, 1e-4, np.float32)
    state = jax.device_put(new_state(weights, recipe, 0))
    before = time.time()
    program = run_steps.lower(graph, recipe, precision, state, tiles, rates).compile()
    compiled = time.time() - before

    def dispatch():
        nonlocal state
        state, losses = program(state, tiles, rates)
        return losses

    speed = args.dispatch / fastest(dispatch, 3)
    operations, size = convolution_costs(graph, weights, precision, batch, args.patch)
    print("%-8s %-9s %5d %9.1f %9.4g %11.4g %12.4g %12.4g" % (
        graph.model + graph.scale, precision, batch, compiled, speed, speed * batch * args.patch ** 2 / 1e6,
        ceilings[0] / operations, ceilings[1] / size), flush=True)
    if args.parts:
        parts = time_parts(graph, recipe, precision, state, tiles, args.dispatch)
        print("    ms a step: " + ", ".join("%s %.3f" % (name, 1e3 * seconds) for name, seconds in parts.items())
              + ", whole %.3f" % (1e3 / speed), flush=True)
    if args.trace:
        with jax.profiler.trace(args.trace):
            jax.block_until_ready(dispatch())
        kernels = [(1e3 * seconds / args.dispatch, calls / args.dispatch, name)
                   for seconds, calls, name in kernel_times(args.trace)]
        print("    %d kernels a step busy for %.3f ms of %.3f" % (
            sum(calls for _, calls, _ in kernels), sum(milliseconds for milliseconds, _, _ in kernels), 1e3 / speed))
        for milliseconds, calls, name in kernels[:KERNELS]:
            print("    %8.4f ms a step in %6.1f calls: %s" % (milliseconds, calls, name[:90]), flush=True)


def measure(args):
    import jax
    from tools.gpu.device import copy_rate, product_rate
    from tools.gpu.jax_graph import load_graph
    bandwidth, rates = copy_rate(args.copy), {name: product_rate(args.product, name) for name in args.precision}
    print("%s, jax %s: copy %.4g GB/s; product %s TFLOP/s" % (
        jax.devices()[0].device_kind, jax.__version__, bandwidth / 1e9,
        ", ".join("%s %.4g" % (name, rate / 1e12) for name, rate in rates.items())), flush=True)
    print("%-8s %-9s %5s %9s %9s %11s %12s %12s" % (
        "graph", "precision", "batch", "compile s", "steps/s", "LR Mpixel/s", "arithmetic/s", "traffic/s"))
    for path, precision, batch in itertools.product(args.graph, args.precision, args.batch):
        measure_setting(args, load_graph(path), precision, batch, (rates[precision], bandwidth))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graph", required=True, nargs="+", metavar="JSON", help="files by export_graph.py")
    parser.add_argument("--precision", nargs="+", default=["tf32", "bfloat16"], choices=PRECISIONS,
                        help="default tf32 bfloat16")
    parser.add_argument("--batch", type=positive(int), nargs="+", default=[16], metavar="N", help="patches a step (default 16)")
    parser.add_argument("--patch", type=positive(int), default=48, metavar="N", help="side of the LR patches in pixels (default 48)")
    parser.add_argument("--dispatch", type=positive(int), default=100, metavar="STEPS",
                        help="in one call of the device (default 100)")
    parser.add_argument("--copy", type=positive(int), default=2048, metavar="MEBIBYTES", help="size of the array that is copied")
    parser.add_argument("--product", type=positive(int), default=8192, metavar="SIDE", help="of the matrices that are multiplied")
    parser.add_argument("--parts", action="store_true", help="also time patches, loss, gradient and optimizer alone")
    parser.add_argument("--trace", metavar="DIR", help="also write a profile of one dispatch of each setting, and list its kernels")
    args = parser.parse_args()
    require_jax()
    measure(args)


if __name__ == "__main__":
    run_main(main)
