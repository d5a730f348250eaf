"""Draw the paper's figures from this project's models: python tools/paper/figures.py structure

NAME is one of structure, signal-flow (drawings of the graph), dra, swap, crops, rsa (of a trained model) and trade-off
(of the tables). Each writes figures/NAME.png, the two drawings NAME.svg as well. An image is named by its data set and
name, Sample/chelsea, or by its path; a patch of it by x,y,width,height in HR pixels behind a colon:
Sample/chelsea:100,80,96,64.
"""
import argparse
import collections
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
from model import MODELS
from tools.command import positive, run_main
from tools.files import check_writable, short_path
from tools.network import choose_variant
from tools.options import add_checkpoint, add_data_dir, add_gpu, add_variant
from tools.paper import drawings
from tools.paper.attention import draw_dra, draw_rsa, draw_swap
from tools.paper.canvas import STYLE, save
from tools.paper.comparison import draw_crops, draw_trade_off
from tools.paper.results import FIGURES
from utils import BENCHMARKS

from matplotlib import pyplot

DRAWINGS = ("structure", "signal-flow")


def draw_structure(args):
    """The network and one of its DRAGs."""
    return drawings.structure(args.model, args.scale)


def draw_signal_flow(args):
    """One DRSA with its DRM."""
    return drawings.signal_flow(args.model)


DRAW = collections.OrderedDict([
    ("structure", draw_structure), ("signal-flow", draw_signal_flow), ("dra", draw_dra), ("swap", draw_swap),
    ("trade-off", draw_trade_off), ("crops", draw_crops), ("rsa", draw_rsa)])


def draw(args):
    """Draw the figure that the arguments name, write it, and return the paths."""
    check_writable(files=[args.output + ".png"])
    os.makedirs(os.path.dirname(args.output) or ".", exist_ok=True)
    if "checkpoint" in args:
        args.model, args.scale = choose_variant(args.model, args.scale, args.checkpoint)
    with pyplot.rc_context(STYLE):
        return save(DRAW[args.name](args), args.output, ("png", "svg") if args.name in DRAWINGS else ("png",))


def drsa_number(text):
    """K.N, as 2.1, as a pair of integers."""
    drag, block = text.split(".")
    return int(drag), int(block)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="name", metavar="NAME")
    commands.required = True
    for name, function in DRAW.items():
        command = commands.add_parser(name, help=function.__doc__.splitlines()[0].rstrip("."))
        target = command.add_mutually_exclusive_group()
        target.add_argument("--output", default=os.path.join("runs", "figures", name), metavar="PATH",
                            help="without an ending (default: runs/figures/%s)" % name)
        target.add_argument("--update", action="store_true", help="draw the project's own: figures/%s" % name)
        if name == "structure":
            add_variant(command)
        elif name == "signal-flow":
            command.add_argument("--model", default="32s", choices=list(MODELS), help="default 32s")
        elif name != "trade-off":
            add_checkpoint(command)
            add_gpu(command)
            add_data_dir(command)
        add_own_options(name, command.add_argument)
    args = parser.parse_args()
    args.output = os.path.join(FIGURES, args.name) if args.update else args.output
    if args.name == "crops" and args.paper and args.checkpoint:
        parser.error("--paper is of three scales: it takes the shipped checkpoints")
    return args


def add_own_options(name, add):
    """The options that only figure `name` has; add: add_argument of its parser."""
    if name == "dra":
        add("--drag", type=int, default=1, metavar="K", help="which DRAG (default 1)")
        add("--dataset", nargs="+", default=["Sample"], metavar="NAME", help="where patches are from (default Sample)")
        add("--side", type=positive(int), default=32, help="of a patch in LR pixels (default 32)")
        add("--groups", type=positive(int), default=3, help="clusters of patches (default 3)")
        add("--patches", type=positive(int), default=5, help="shown of each group, nearest to its mean (default 5)")
    elif name == "swap":
        add("--patch", default="Sample/astronaut:137,357,70,70", help="default %(default)s")
        add("--donors", nargs="+", metavar="PATCH", help="default: three of Sample", default=[
            "Sample/chelsea:40,200,70,70", "Sample/motorcycle_left:350,40,70,70", "Sample/rocket:565,60,70,70"])
    elif name == "crops":
        add("--crops", nargs="+", metavar="PATCH", help="default: three of Sample", default=[
            "Sample/astronaut:128,354,84,56", "Sample/motorcycle_left:545,300,84,56", "Sample/chelsea:115,80,84,56"])
        add("--paper", action="store_true", help="the paper's three images, at x2, x3 and x4")
    elif name == "rsa":
        add("--patch", default="Sample/motorcycle_left:114,160,150,100", help="default %(default)s")
        add("--at", type=drsa_number, default=(1, 1), metavar="K.N", help="DRSA whose channels are shown (default 1.1)")
        add("--channels", nargs="+", type=int, metavar="C", help="default: the three that vary most")
    elif name == "trade-off":
        add("--dataset", default="Set5", choices=BENCHMARKS, help="default Set5")


def main():
    for path in draw(parse_args()):
        print("wrote %s" % short_path(path))


if __name__ == "__main__":
    run_main(main)
