"""Make a checkpoint of a state of train_jax.py: python tools/gpu/import_weights.py runs/jax_32s_x2/state.npz DIR

Written are the moving averages of the weights if the training keeps them, after a comparison of the outputs of
TensorFlow and JAX on a photograph, a config.json that says how they were trained, and the log.jsonl of their training;
ship.py takes the folder.
"""
import argparse
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from model import SCALES, model_variables
from tools.checkpoints import load_values, save_weights
from tools.command import UserError, run_main
from tools.files import write_json
from tools.gpu.export_graph import export_graph
from tools.gpu.jax_graph import read_graph
from tools.gpu.train_jax import averaged_weights, load_state, upscale
from tools.runtime import open_session
from utils import find_dataset, read_pair

import numpy as np

TOLERANCE = 1e-5  # of the outputs in [0, 1]: the order of float32 sums differs


def load_variables(session, weights):
    """Set the variables of DRSAN in the default graph. Raises UserError if names or shapes are not the contract's."""
    shapes = {variable.op.name: tuple(variable.shape.as_list()) for variable in model_variables()}
    if shapes != {name: value.shape for name, value in weights.items()}:
        raise UserError("the training state does not have the variables of its model: export the graph again")
    load_values(session, model_variables(), [weights[variable.op.name] for variable in model_variables()])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("state", metavar="NPZ")
    parser.add_argument("folder", metavar="DIR", help="where the checkpoint goes")
    args = parser.parse_args()
    state, config, trained = load_state(args.state)
    weights = averaged_weights(state)
    graph = read_graph(export_graph(config["model"], config["scale"]))
    session = open_session([-1])
    load_variables(session, weights)
    scale = SCALES[config["scale"]]
    lr = read_pair(find_dataset("Sample", scale, None).pairs[0], scale)[0][None, :128, :128]
    sr = session.run(graph.output + ":0", {graph.input + ":0": lr.astype(np.float32) / 255})
    difference = float(np.max(np.abs(sr - np.asarray(upscale(graph, weights, lr)) / 255)))
    if not difference < TOLERANCE:
        raise UserError("the outputs of TensorFlow and JAX differ by %g: no checkpoint is written" % difference)
    prefix = save_weights(session, args.folder, config["model"], config["scale"])
    write_json(os.path.join(args.folder, "config.json"), dict(config, trained_steps=int(state["Variable"]), **trained))
    log = os.path.join(os.path.dirname(args.state), "log.jsonl")
    if os.path.exists(log):
        shutil.copy(log, args.folder)
    print("%s: %s %s after %d steps; the outputs of TensorFlow and JAX differ by at most %.1e" % (
        prefix, config["model"], config["scale"], state["Variable"], difference))


if __name__ == "__main__":
    run_main(main)
