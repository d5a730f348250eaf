"""Export DRSAN for use without this project: python tools/pictures/export.py --model 32s --scale x2

Writes to OUTPUT/DRSAN32sx2 + suffix, in each case from LR, float32 RGB in [0, 1], [N, H, W, 3] of any N, H
and W, to SR, not clipped:
  .pb            a frozen GraphDef, tensors LR:0 and SR:0
  _saved_model   a SavedModel, signature serving_default
  .onnx          an ONNX model, by tf2onnx (Python 3.9 or later)
Each is loaded and run on two photographs, and gets its name if the outputs are the checkpoint's to 1e-5.
"""
import argparse
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from ops import tf
from tools.checkpoints import find_checkpoint
from tools.command import UserError, quiet_stderr, run_main
from tools.files import check_writable
from tools.network import Network, choose_variant
from tools.options import add_checkpoint, add_limit
from tools.pictures.tiles import network_input
from tools.runtime import open_session
from utils import find_dataset, read_image

import numpy as np

TOLERANCE = 1e-5
OPSET = 17  # of ONNX


class MissingPackage(UserError):
    """A package is not installed that one format alone needs."""


def import_optional(name):
    """Import a package that the export to ONNX alone needs. Raises MissingPackage: how to install it."""
    try:
        with quiet_stderr():
            return __import__(name, fromlist=["*"])
    except ImportError as error:
        raise MissingPackage("%s: the export to ONNX needs Python 3.9 or later and: "
                             "pip install tf2onnx onnxruntime" % error)


def write_frozen(path, frozen):
    with open(path, "wb") as file:
        file.write(frozen.SerializeToString())


def run_frozen(path, images):
    graph_def = tf.GraphDef()
    with open(path, "rb") as file:
        graph_def.ParseFromString(file.read())
    with tf.Graph().as_default():
        tf.import_graph_def(graph_def, name="")
        with open_session([-1]) as session:
            return [session.run("SR:0", {"LR:0": image}) for image in images]


def write_saved_model(path, frozen):
    with tf.Graph().as_default():  # of constants alone: TensorFlow 2 warns of variables of TensorFlow 1
        lr, sr = tf.import_graph_def(frozen, name="", return_elements=["LR:0", "SR:0"])
        with open_session([-1]) as session:
            tf.saved_model.simple_save(session, path, {"LR": lr}, {"SR": sr})


def run_saved_model(path, images):
    with tf.Graph().as_default(), open_session([-1]) as session:
        signature = tf.saved_model.loader.load(session, ["serve"], path).signature_def["serving_default"]
        lr, sr = signature.inputs["LR"].name, signature.outputs["SR"].name
        return [session.run(sr, {lr: image}) for image in images]


def write_onnx(path, frozen):
    converter = import_optional("tf2onnx.convert")
    import_optional("onnxruntime")  # before the work, since run_onnx needs it
    with quiet_stderr():
        converter.from_graph_def(frozen, name="DRSAN", input_names=["LR:0"], output_names=["SR:0"],
                                 opset=OPSET, output_path=path)


def run_onnx(path, images):
    session = import_optional("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    return [session.run(["SR:0"], {"LR:0": image})[0] for image in images]


EXPORTS = {
    "frozen": (".pb", write_frozen, run_frozen),
    "saved_model": ("_saved_model", write_saved_model, run_saved_model),
    "onnx": (".onnx", write_onnx, run_onnx),
}


def freeze(session):
    """The GraphDef that leads to SR in the graph of a session, with its variables as constants."""
    with session.graph.as_default():
        return tf.graph_util.convert_variables_to_constants(session, session.graph.as_graph_def(), ["SR"])


def photographs():
    """Two network inputs of different sizes, of which the second is a batch."""
    images = [network_input(read_image(pair.hr)) for pair in find_dataset("Sample", 1, None).pairs[:2]]
    crops = [image[:, 100:196, 100:175] for image in images]
    return [crops[0], np.concatenate(crops)[:, 10:50, 5:69]]


def remove(path):
    """Remove a file or folder if it is there."""
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.remove(path)


def export(network, frozen, name, path):
    """Write one of EXPORTS under a temporary name, check it, and rename it to `path`. Returns the largest
    difference of SR. Raises UserError if that is above TOLERANCE."""
    _, write, run = EXPORTS[name]
    images, temporary = photographs(), path + ".tmp"
    remove(temporary)
    try:
        write(temporary, frozen)
        expected = [network.session.run(network.sr, {network.lr: image}) for image in images]
        difference = max(np.abs(sr - other).max() for sr, other in zip(run(temporary, images), expected))
        if not difference <= TOLERANCE:
            raise UserError("%s is not kept: its output differs by %.1e" % (path, difference))
        remove(path)
        os.replace(temporary, path)
    finally:
        remove(temporary)
    return difference


def main(argv=None):
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add_checkpoint(parser)
    add_limit(parser)
    parser.add_argument("--format", nargs="+", choices=list(EXPORTS),
                        help="default: all that the installed packages allow")
    parser.add_argument("--output", default=os.path.join("runs", "export"), metavar="DIR",
                        help="default runs/export")
    args = parser.parse_args(argv)
    check_writable([args.output])
    model, scale = choose_variant(args.model, args.scale, args.checkpoint)
    prefix = find_checkpoint(model, scale, args.checkpoint)
    with Network(model, scale, prefix, -1, limit=not args.no_limit) as network:
        frozen = freeze(network.session)
        os.makedirs(args.output, exist_ok=True)
        for name in args.format or list(EXPORTS):
            path = os.path.join(args.output, "DRSAN%s%s%s" % (model, scale, EXPORTS[name][0]))
            try:
                difference = export(network, frozen, name, path)
            except MissingPackage as error:
                if args.format:
                    raise
                print("%s is left out: %s" % (name, error), file=sys.stderr)
                continue
            print("%-45s largest difference %.1e" % (path, difference), flush=True)


if __name__ == "__main__":
    run_main(main)
