"""Train an exported graph with JAX: python tools/gpu/train_jax.py --graph runs/graphs/32s_x2.json --data TILES

TensorFlow is not needed: jax, numpy, scipy, pillow and tqdm are. The same command goes on from where it was stopped or killed.
The training lives in runs/jax_<model>_<scale>, in state.npz and log.jsonl.
"""
import argparse
import os
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from tools.command import UserError, cpu_count, not_negative, positive, run_main
from tools.files import locked
from tools.gpu import require_jax
from tools.gpu.schedule import PRECISIONS, ClockSchedule, StepSchedule
from tools.training.recipes import add_recipe_options, choose_recipe


def stop_on_signals():
    """A list that SIGINT and SIGTERM add to, and do nothing else."""
    stop = []
    for number in signal.SIGINT, signal.SIGTERM:
        signal.signal(number, lambda received, _: stop.append(received))
    return stop


def make_options(args, store, valid):
    """The Options of all trainings of this command."""
    from tools.gpu.trainer import Options
    return Options(args.dispatch, valid, args.valid_every, 60 * args.save_minutes,
                   {"folder": args.data, "files": store.images}, time.time, stop_on_signals())


def describe(store):
    """Print what is trained on, and where."""
    import jax
    print("%s; %d tiles, %.1f megapixels, %d MiB on the device" % (
        jax.devices()[0].device_kind, store.images, store.pixels / 1e6, store.mebibytes), flush=True)


def train_graph(args):
    """Train the graph --graph in the folder --run."""
    from tools.gpu.files import read_arrays
    from tools.gpu.jax_graph import load_graph
    from tools.gpu.programs import Programs
    from tools.gpu.tiles import TileStore, load_pairs
    from tools.gpu.trainer import Job, Trainer
    graph = load_graph(args.graph)
    recipe = choose_recipe(args, graph.model, graph.scale)
    schedule = StepSchedule(recipe)
    if args.minutes is not None:
        recipe = recipe._replace(steps=0)
        schedule = ClockSchedule(recipe, 60 * args.minutes)
    run = args.run or os.path.join("runs", "jax_%s_%s" % (graph.model, graph.scale))
    weights = os.path.splitext(args.graph)[0] + ".npz"
    with locked(run, "trains in", "--run"):
        store = TileStore(args.data, [graph.factor], args.workers)
        config = dict(recipe._asdict(), steps=recipe.steps or None, model=graph.model, scale=graph.scale, recipe=args.recipe,
                      seed=args.seed, init_from=graph.init_from, trained_before=graph.trained_before, held_out=store.held_out)
        job = Job(run, graph, recipe, args.precision, args.seed,
                  lambda: read_arrays(weights, "the weights", "write them by export_graph.py"), config)
        options = make_options(args, store, load_pairs(args.valid, graph.factor, args.workers) if args.valid else [])
        programs = Programs(options.stop)
        trainer = Trainer(job, store.tiles(graph.factor, recipe.patch), programs, options)
        describe(store)
        print("%s; recipe %s: %s" % (job.precision, args.recipe, ", ".join("%s %s" % item for item in recipe._asdict().items())),
              flush=True)
        done = trainer.train(schedule)
    print("done: %s" % trainer.state_path if done else "stopped at step %d; the same command resumes" % trainer.step)
    return programs.leave(done)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graph", required=True, metavar="JSON", help="a file by export_graph.py, with its .npz beside it")
    parser.add_argument("--data", required=True, metavar="DIR", help="parts by pack_tiles.py, or images")
    parser.add_argument("--minutes", type=not_negative(float),
                        help="how long to train, in place of --steps, compiling not counted. The learning rate ends at 0 then, "
                             "however fast the device is")
    parser.add_argument("--run", metavar="DIR", help="its folder (default runs/jax_<model>_<scale>)")
    parser.add_argument("--valid", metavar="DIR", help="held-out images in the same form as --data, of few sizes: each is compiled")
    parser.add_argument("--valid-every", type=positive(int), default=5000, metavar="STEPS", help="default 5000")
    add_recipe_options(parser)
    parser.add_argument("--seed", type=not_negative(int), default=0, help="of initial weights and patches (default 0)")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of convolutions (default float32)")
    parser.add_argument("--dispatch", type=positive(int), default=100, metavar="STEPS",
                        help="run on the device without a pause, then a line of log; --steps should be a multiple")
    parser.add_argument("--save-minutes", type=not_negative(float), default=1, metavar="MINUTES",
                        help="between two states (default 1)")
    parser.add_argument("--workers", type=positive(int), default=cpu_count(), help="processes that read images")
    args = parser.parse_args()
    if args.steps is not None and args.minutes is not None:
        parser.error("give --steps or --minutes")
    return args


def main():
    args = parse_args()
    require_jax()
    return train_graph(args)


if __name__ == "__main__":
    run_main(main)
