"""Train exported graphs with JAX: python tools/gpu/train_jax.py --plan tools/gpu/thirteen.json --data TILES --out DIR --minutes 60
(or one of them: --graph runs/graphs/32s_x2.json)

TensorFlow is not needed: jax, numpy, scipy, pillow and tqdm are. The same command goes on from where it was stopped or killed.
What a plan leaves in DIR is said in plan_run.py; one training lives in runs/jax_<model>_<scale>, in state.npz and log.jsonl.
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
from tools.gpu.plan import NOT_IN_PLANS, PRECISIONS, read_plan
from tools.gpu.schedule import ClockSchedule, StepSchedule
from tools.training.recipes import RECIPE_OPTIONS, add_recipe_options, choose_recipe


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


def train_plan(args):
    """Carry out --plan in the folder --out; returns the exit status."""
    begun, plan = time.time(), read_plan(args.plan)
    keep_programs(os.path.join(args.out, "cache"))
    from tools.gpu.plan_run import PlanRun, PlanSettings
    from tools.gpu.programs import Programs
    from tools.gpu.tiles import TileStore, load_pairs
    pinned = {key: getattr(args, key) for key in RECIPE_OPTIONS if getattr(args, key) is not None}
    graphs = args.graphs or os.path.join(os.path.dirname(os.path.abspath(args.data)), "graphs")
    settings = PlanSettings(args.out, graphs, 60 * args.minutes, pinned, args.precision, args.seed)
    with locked(args.out, "trains in", "--out"):
        factors = sorted({int(entry.scale[1:]) for entry in plan})
        store = TileStore(args.data, factors, args.workers)
        describe(store)
        valid = {factor: load_pairs(args.valid, factor, args.workers) for factor in factors} if args.valid else {}
        options = make_options(args, store, [])._replace(valid_every=sys.maxsize)
        programs = Programs(options.stop)
        run = PlanRun(plan, settings, (store, valid), programs, options, begun)
        failed, left = run.run(), [entry.name for entry in plan if not run.is_done(entry)]
    if failed:
        raise UserError("not trained: %s; the same command tries again" % ", ".join(failed))
    print("done: %s" % args.out if not left else "stopped; the same command goes on with %s" % left[0] if options.stop else
          "the time is used up; with more --minutes the same command goes on with %s" % left[0])
    return programs.leave(not left)


def keep_programs(folder):
    """Have JAX keep compiled programs in a folder, unless it has been told of one."""
    import jax
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", os.path.abspath(folder))


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
        job = Job(run, graph, recipe, args.precision or "float32", args.seed,
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
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--plan", metavar="JSON", help="train a list of models in order, as thirteen.json")
    what.add_argument("--graph", metavar="JSON", help="train one: a file by export_graph.py, with its .npz beside it")
    parser.add_argument("--data", required=True, metavar="DIR", help="parts by pack_tiles.py, or images")
    parser.add_argument("--minutes", type=not_negative(float),
                        help="with --plan, what all its commands may take together; with --graph, how long to train, in place of "
                             "--steps, compiling not counted. The learning rate ends at 0 then, however fast the device is")
    parser.add_argument("--out", metavar="DIR", help="of a plan: where its results go")
    parser.add_argument("--graphs", metavar="DIR", help="of a plan: what prepare.py wrote (default: `graphs` beside --data)")
    parser.add_argument("--run", metavar="DIR", help="of one training (default runs/jax_<model>_<scale>)")
    parser.add_argument("--valid", metavar="DIR", help="held-out images in the same form as --data, of few sizes: each is compiled")
    parser.add_argument("--valid-every", type=positive(int), default=5000, metavar="STEPS",
                        help="of one training; those of a plan are validated at their end")
    add_recipe_options(parser)
    parser.add_argument("--seed", type=not_negative(int), default=0, help="of initial weights and patches (default 0)")
    parser.add_argument("--precision", choices=PRECISIONS,
                        help="of convolutions (default: float32; of a plan, the fastest: it is measured, as is --batch)")
    parser.add_argument("--dispatch", type=positive(int), default=100, metavar="STEPS",
                        help="run on the device without a pause, then a line of log; --steps should be a multiple")
    parser.add_argument("--save-minutes", type=not_negative(float), default=1, metavar="MINUTES",
                        help="between two states (default 1)")
    parser.add_argument("--workers", type=positive(int), default=cpu_count(), help="processes that read images")
    args = parser.parse_args()
    if args.plan and (args.out is None or args.minutes is None):
        parser.error("--plan needs --out and --minutes")
    if args.plan and (args.run or any(getattr(args, key) is not None for key in NOT_IN_PLANS)):
        parser.error("--run, --steps and --schedule go with --graph, not with --plan")
    if args.graph and (args.out or args.graphs):
        parser.error("--out and --graphs go with --plan")
    if args.steps is not None and args.minutes is not None:
        parser.error("give --steps or --minutes")
    return args


def main():
    args = parse_args()
    require_jax()
    return (train_plan if args.plan else train_graph)(args)


if __name__ == "__main__":
    run_main(main)
