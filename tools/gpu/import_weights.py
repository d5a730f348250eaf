"""Make a checkpoint of what train_jax.py trained: python tools/gpu/import_weights.py runs/jax_32s_x2/state.npz DIR

Written are the moving averages of the weights if the training keeps them, after a comparison of the outputs of
TensorFlow and JAX on a photograph, a config.json that says how they were trained, and the log.jsonl of their training;
ship.py takes the folder.
"""
import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from tools.command import UserError, run_main
from tools.files import replacing, write_json
from tools.gpu import require_jax
from utils import find_dataset, mean_scores, psnr_y, read_pair, to_uint8

import numpy as np

TOLERANCE = 1e-5  # of the outputs in [0, 1]: the order of float32 sums differs


def load_variables(session, weights):
    """Set the variables of DRSAN in the default graph. Raises UserError if names or shapes are not the contract's."""
    from model import model_variables
    from tools.checkpoints import load_values
    shapes = {variable.op.name: tuple(variable.shape.as_list()) for variable in model_variables()}
    if shapes != {name: value.shape for name, value in weights.items()}:
        raise UserError("the training state does not have the variables of its model: export the graph again")
    load_values(session, model_variables(), [weights[variable.op.name] for variable in model_variables()])


def largest_difference(session, graph, weights):
    """Between the outputs of TensorFlow, whose weights are loaded, and of JAX for a photograph, in [0, 1]."""
    from tools.gpu.training import upscale
    lr = read_pair(find_dataset("Sample", graph.factor, None).pairs[0], graph.factor)[0][None, :128, :128]
    sr = session.run(graph.output + ":0", {graph.input + ":0": lr.astype(np.float32) / 255})
    return float(np.max(np.abs(sr - np.asarray(upscale(graph, weights, lr)) / 255)))


def sample_psnr(session, graph):
    """Mean PSNR of Y on Sample, by which ship.py compares weights; train_jax.py has validated on other images."""
    scores = []
    for pair in find_dataset("Sample", graph.factor, None).pairs:
        lr, hr = read_pair(pair, graph.factor)
        sr = session.run(graph.output + ":0", {graph.input + ":0": lr[None].astype(np.float32) / 255})[0]
        scores.append((psnr_y(to_uint8(255 * sr), hr, graph.factor),))
    return mean_scores(scores)[0]


def import_weights(path, folder):
    """Make a checkpoint in `folder` of an .npz by train_jax.py; returns a line that says what was made. Raises UserError."""
    from tools.checkpoints import save_weights
    from tools.gpu.export_graph import export_graph
    from tools.gpu.files import read_trained
    from tools.gpu.jax_graph import read_graph
    from tools.runtime import open_session
    weights, config, log = read_trained(path)
    graph = read_graph(export_graph(config["model"], config["scale"]))
    session = open_session([-1])
    load_variables(session, weights)
    difference = largest_difference(session, graph, weights)
    if not difference < TOLERANCE:
        raise UserError("the outputs of TensorFlow and JAX differ by %g: no checkpoint is written" % difference)
    prefix = save_weights(session, folder, config["model"], config["scale"])
    config = dict(config, valid="Sample", validation_psnr=round(sample_psnr(session, graph), 4))
    write_json(os.path.join(folder, "config.json"), config)
    if log:
        with replacing(os.path.join(folder, "log.jsonl")) as temporary, open(temporary, "w") as file:
            file.write(log)
    return "%s: %s %s after %d steps, %.3f dB on Sample; the outputs of TensorFlow and JAX differ by at most %.1e" % (
        prefix, config["model"], config["scale"], config["trained_steps"], config["validation_psnr"], difference)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trained", metavar="NPZ", help="a state.npz")
    parser.add_argument("folder", metavar="DIR", help="where the checkpoint goes")
    args = parser.parse_args()
    require_jax()
    print(import_weights(args.trained, args.folder))


if __name__ == "__main__":
    run_main(main)
