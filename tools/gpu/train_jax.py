"""Train DRSAN with JAX: python tools/gpu/train_jax.py --model 32s --scale x2 --data data/photos --recipe fast

TensorFlow is not needed: jax, numpy, scipy, pillow and tqdm are. A run lives in runs/jax_<model>_<scale>:
log.jsonl, and state.npz, from which the same command goes on. import_weights.py makes a checkpoint of it.
"""
import argparse
import importlib.util
import os
import sys
from collections import namedtuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from model import SCALES
from tools.compute import PRECISIONS
from tools.command import UserError, cpu_count, not_negative, positive, run_main
from tools.data.photographs import describe_data, hold_out, load_photographs, open_valid
from tools.files import check_writable, locked
from tools.gpu.state import load_state, read_start
from tools.options import add_data_dir, add_valid_share, add_variant
from tools.training.history import check_same_config, say
from tools.training.recipes import add_recipe_options, choose_recipe

# path: of its state; config: what it was begun with; state, trained: as load_state() gives them, or None;
# start: weights to begin with, or None
Run = namedtuple("Run", "path config state trained start")


def open_run(args, recipe, held_out):
    """The Run that the options name. Raises UserError if it was begun with others."""
    path, state, trained, start = os.path.join(args.run, "state.npz"), None, None, None
    config = dict(
        recipe._asdict(), steps=recipe.steps or None, model=args.model, scale=args.scale, recipe=args.recipe,
        seed=args.seed, init_from=args.init_from, precision=args.precision, data=describe_data(args.data),
        held_out=[os.path.relpath(photograph, args.data) for photograph in held_out], trained_before=[])
    if os.path.exists(path):
        state, begun, trained = load_state(path)
        check_same_config(args.run, begun, config)
        config["trained_before"] = begun["trained_before"]
    elif args.init_from is not None:
        start, config["trained_before"] = read_start(args.init_from)
    return Run(path, config, state, trained, start)


def train(args):
    """What the command does; returns the exit status."""
    if importlib.util.find_spec("jax") is None:
        raise UserError("JAX is needed: pip install jax (Python 3.11 or later)")
    check_writable([args.run])
    recipe, factor = choose_recipe(args, args.model, args.scale), SCALES[args.scale]
    if args.minutes:
        recipe = recipe._replace(steps=0)  # their number is not known
    with locked(args.run, "trains in", "--run"):
        held_out = hold_out(args.data, args.valid_share)[1]
        run = open_run(args, recipe, held_out)
        valid = open_valid(args.valid, held_out, factor, args.data_dir)
        photographs = load_photographs(args.data, factor, recipe.patch, args.workers, args.valid_share)
        say("recipe %s: %s" % (args.recipe, ", ".join("%s %s" % item for item in recipe._asdict().items())))
        from tools.gpu.trainer import Trainer  # JAX, after the processes that read: its threads bear no fork
        try:
            return Trainer(args, recipe, run, photographs, valid).train()
        except RuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise UserError("the device's memory is too small: lower --batch, or give fewer photographs")


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_variant(parser)
    data = parser.add_argument_group("data")
    data.add_argument("--data", required=True, metavar="DIR", help="photographs, searched recursively")
    data.add_argument("--valid", metavar="NAME",
                      help="Sample, which needs scikit-image, or a folder (default: only what is held out)")
    add_valid_share(data)
    add_data_dir(data)
    add_recipe_options(parser)
    run = parser.add_argument_group("run")
    run.add_argument("--minutes", type=positive(float),
                     help="how long to train, in place of --steps; compiling does not count")
    run.add_argument("--run", metavar="DIR", help="its folder (default runs/jax_<model>_<scale>)")
    run.add_argument("--init-from", metavar="NPZ",
                     help="start from other weights: a state.npz, or a file by export_weights.py")
    run.add_argument("--seed", type=not_negative(int), default=0, metavar="N",
                     help="of initial weights and patches (default 0)")
    run.add_argument("--valid-every", type=positive(int), default=5000, metavar="STEPS", help="default 5000")
    run.add_argument("--save-minutes", type=not_negative(float), default=2, metavar="MINUTES",
                     help="between two states, from which a killed run resumes (default 2)")
    run.add_argument("--precision", default="float32", choices=PRECISIONS,
                     help="of the blocks' convolutions (default float32)")
    run.add_argument("--dispatch", type=positive(int), default=100, metavar="STEPS",
                     help="that run on the device without a pause, then a line of log (default 100)")
    run.add_argument("--workers", type=positive(int), default=cpu_count(), metavar="N",
                     help="processes that read photographs (default: one for each processor)")
    args = parser.parse_args(argv)
    if args.steps and args.minutes:
        parser.error("give --steps or --minutes")
    if args.textures:
        parser.error("--textures is for train.py alone")
    args.run = args.run or os.path.join("runs", "jax_%s_%s" % (args.model, args.scale))
    return args


def main(argv=None):
    return train(parse_args(argv))


if __name__ == "__main__":
    run_main(main)
