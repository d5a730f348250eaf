"""Make a checkpoint of a training with JAX: python tools/gpu/import_weights.py runs/jax_32s_x2/state.npz DIR

DIR gets the weights (moving averages, if the training keeps them), a config.json that says how they were
trained, and their log.jsonl. test.py --checkpoint evaluates them, and ship.py puts them into checkpoints/.
"""
import argparse
import os
import shutil
import sys
from collections import namedtuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from model import SCALES, drsan, model_variables
from ops import tf
from tools.checkpoints import load_values, save_weights
from tools.command import run_main
from tools.data.photographs import open_valid
from tools.files import check_writable, replacing, write_json
from tools.gpu.state import averaged_weights, load_state, trained_config
from tools.runtime import open_session
from tools.training.graph import validate

Graph = namedtuple("Graph", "lr sr")  # what validate() takes: a placeholder of uint8, and SR


def import_weights(path, folder):
    """Make a checkpoint in `folder` of a state.npz; returns its prefix and its config. Raises UserError."""
    state, *how = load_state(path)
    config, weights = trained_config(state, *how), averaged_weights(state)
    model, scale = config["model"], config["scale"]
    valid = open_valid("Sample", [], SCALES[scale], None)["psnr"][1]
    with tf.Graph().as_default(), open_session([-1]) as session:
        lr = tf.placeholder(tf.uint8, [None, None, None, 3], "LR")
        graph = Graph(lr, drsan(tf.cast(lr, tf.float32) / 255, model, scale))
        load_values(session, model_variables(), [weights[variable.op.name] for variable in model_variables()])
        psnr, _ = validate(session, graph, valid, SCALES[scale])
        # what else is measured of the weights goes into config here
        config.update(valid="Sample", validation_psnr=round(psnr, 4))
        prefix = save_weights(session, folder, model, scale)
    write_json(os.path.join(folder, "config.json"), config)
    log = os.path.join(os.path.dirname(path), "log.jsonl")
    if os.path.exists(log):
        with replacing(os.path.join(folder, "log.jsonl")) as temporary:
            shutil.copyfile(log, temporary)
    return prefix, config


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("state", metavar="NPZ", help="the state.npz of a run of train_jax.py")
    parser.add_argument("folder", metavar="DIR", help="where the checkpoint goes")
    args = parser.parse_args(argv)
    check_writable([args.folder])
    prefix, config = import_weights(args.state, args.folder)
    print("%s: %s %s after %d steps, %.3f dB on Sample" % (
        prefix, config["model"], config["scale"], config["trained_steps"], config["validation_psnr"]))


if __name__ == "__main__":
    run_main(main)
