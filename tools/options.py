"""Options that several commands have, and their types."""
import os

from model import MODELS, SCALES
from tools.compute import PRECISIONS
from tools.command import fraction
from tools.files import script


def gpu(text):
    """The type of an option that takes the index of a GPU, or "cpu" or -1 for the CPU."""
    return -1 if text == "cpu" else int(text)


def gpus(text):
    """The type of an option that takes indices of GPUs, as "0,1", or "cpu" or -1 for the CPU: a list."""
    return [gpu(index) for index in text.split(",")]


def scale_name(text):
    """The type of an option that takes a scale, "x2" or 2."""
    return "x" + text if text.isdigit() else text


def add_gpu(parser, default=0):
    """The option --gpu of commands that run the network on one device."""
    parser.add_argument("--gpu", type=gpu, default=default, metavar="I",
                        help="index of the GPU, cpu or -1 for the CPU (default %s)" % (
                            "cpu" if default < 0 else default))


def add_precision(parser):
    """The option --precision of commands that can compute in bfloat16."""
    parser.add_argument("--precision", default="float32", choices=PRECISIONS,
                        help="of the blocks' convolutions (default float32); bfloat16 is for processors and "
                             "GPUs that have it, and needs TensorFlow 2")


def add_variant(parser):
    """The options --model and --scale of commands that work on one network."""
    parser.add_argument("--model", default="32s", choices=list(MODELS), help="default 32s")
    parser.add_argument("--scale", type=scale_name, default="x2", choices=list(SCALES), help="default x2")


def add_checkpoint(parser):
    """The options --model, --scale and --checkpoint of commands that run a network, for choose_variant()."""
    parser.add_argument("--model", choices=list(MODELS), help="default: that of --checkpoint, or else 32s")
    parser.add_argument("--scale", type=scale_name, choices=list(SCALES),
                        help="default: that of --checkpoint, or else x2")
    parser.add_argument("--checkpoint", metavar="PATH",
                        help="prefix, .index file or folder (default: the shipped one)")


def add_limit(parser):
    """The option --no-limit of commands that run weights."""
    parser.add_argument("--no-limit", action="store_true",
                        help="the network as published, whose DRA nothing bounds: hard textures can explode")


def add_valid_share(parser):
    """The option --valid-share of commands that read photographs to train on."""
    parser.add_argument("--valid-share", type=fraction(float), default=0, metavar="S",
                        help="hold out about this share of the photographs, to judge weights by (default 0)")


def add_data_dir(parser):
    """The option --data-dir of commands that read data sets."""
    parser.add_argument("--data-dir", type=os.path.expanduser, metavar="DIR",
                        default="data" if os.path.isdir("data") else script("data"),
                        help="where the data sets are (default: the folder data here or, without one, "
                             "beside the scripts)")
