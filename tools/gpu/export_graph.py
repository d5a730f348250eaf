"""Write the graph that model.py builds as data, for jax_graph.py: python tools/gpu/export_graph.py --model 32s --scale x2

OUT/<model>_<scale>.json is the inference graph, for any batch and image size: the nodes in an order in which they can
be executed, with their inputs, attributes and constants. OUT/<model>_<scale>.npz has its variables under the names of
checkpoints.
"""
import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from model import SCALES, drsan, model_variables
from ops import tf
from tools.checkpoints import find_checkpoint, restore_weights, training_history, transfer_weights
from tools.command import run_main
from tools.files import write_json, write_npz
from tools.options import add_variant
from tools.runtime import open_session


def _attribute(value):
    """An AttrValue of TensorFlow as JSON, or None for types and shapes, which follow from the inputs."""
    kind = value.WhichOneof("value")
    if kind in ("i", "f", "b"):
        return getattr(value, kind)
    if kind == "s":
        return value.s.decode()
    if kind == "list":
        return list(value.list.i) or [text.decode() for text in value.list.s] or None
    if kind == "tensor":
        array = tf.make_ndarray(value.tensor)
        return {"dtype": array.dtype.name, "value": array.tolist()}
    return None


def describe_graph(lr, sr):
    """The part of a graph that leads from the placeholder lr to the tensor sr, as a value of JSON.

    The keys are input and output (names of nodes), nodes, a list of name, op (the TensorFlow operation type), inputs
    ("<node>" or "<node>:<index of its output>") and attributes, and variables, a list of name and shape.
    """
    nodes, variables = [], []
    for node in tf.graph_util.extract_sub_graph(lr.graph.as_graph_def(), [sr.op.name]).node:
        attributes = {key: _attribute(value) for key, value in node.attr.items() if key[0] != "_"}
        nodes.append({"name": node.name, "op": node.op,
                      "inputs": [name for name in node.input if not name.startswith("^")],
                      "attributes": {key: value for key, value in attributes.items() if value is not None}})
        if node.op == "VariableV2":
            variables.append([node.name, [dim.size for dim in node.attr["shape"].shape.dim]])
    return {"input": lr.op.name, "output": sr.op.name, "nodes": nodes, "variables": variables}


def exact_nodes(description):
    """The names of the nodes of DRSAN that are computed in float32 whatever the precision: the output convolution, and the sum with
    x0 with the two convolutions that it adds. Rounded to 8 bits of mantissa, a grey level of 255 could be half a level off.

    description: what describe_graph gives.
    """
    nodes = {node["name"]: node for node in description["nodes"]}
    waiting = [description["output"]] + [node["name"] for node in description["nodes"] if node["op"] in ("Add", "AddV2")]
    exact = set()
    while waiting:  # back from these to the next convolutions
        name = waiting.pop()
        if nodes[name]["op"] in ("Identity", "BiasAdd", "Add", "AddV2", "Conv2D"):
            exact.add(name)
            operands = {"Conv2D": 0, "BiasAdd": 1}.get(nodes[name]["op"], 2)
            waiting += nodes[name]["inputs"][:operands]
    return sorted(exact)


def export_graph(model, scale, init_from=None, trained_before=()):
    """Build DRSAN in the default graph; returns what describe_graph gives, with the arguments as further keys.

    init_from: the checkpoint that the weights will be from. trained_before: what training_history() says of it.
    """
    lr = tf.placeholder(tf.float32, [None, None, None, 3], "LR")
    description = describe_graph(lr, drsan(lr, model, scale))
    return dict(description, exact=exact_nodes(description), model=model, scale=scale, factor=SCALES[scale],
                init_from=init_from, trained_before=list(trained_before))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_variant(parser)
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--checkpoint", metavar="PATH", help="default: initial weights, drawn with --seed")
    weights.add_argument("--init-from", metavar="CHECKPOINT", help="initial weights from another scale or depth, as in train.py")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights (default 0)")
    parser.add_argument("--out", default=os.path.join("runs", "graphs"), metavar="DIR", help="default runs/graphs")
    args = parser.parse_args()
    tf.set_random_seed(args.seed)
    path = args.checkpoint or args.init_from
    start = path and find_checkpoint(args.model, args.scale, path)
    graph = export_graph(args.model, args.scale, path, training_history(start) if start else ())
    session = open_session([-1])
    session.run(tf.global_variables_initializer())
    if args.checkpoint:
        restore_weights(session, start)
    elif args.init_from:
        print(transfer_weights(session, start)[2])
    variables = {variable.op.name: session.run(variable) for variable in model_variables()}
    os.makedirs(args.out, exist_ok=True)
    path = os.path.join(args.out, "%s_%s" % (args.model, args.scale))
    write_npz(path + ".npz", variables)
    write_json(path + ".json", graph)
    print("%s.json: %d nodes of %d types; %s.npz: %d variables, %d values" % (
        path, len(graph["nodes"]), len({node["op"] for node in graph["nodes"]}), path, len(variables),
        sum(value.size for value in variables.values())))


if __name__ == "__main__":
    run_main(main)
