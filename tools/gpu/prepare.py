"""Prepare a lease of a machine for a plan: python tools/gpu/prepare.py --data data/photos

Needs TensorFlow, and no JAX. OUT/1 gets all that the first command needs beside the code: plan.json, graphs/ of all its models,
with the weights of checkpoints that it starts from, and the first part of tiles/; OUT/2, OUT/3, ... get a further part each.
With --back, what a lease brought back goes into OUT/1/back, as far as another needs it.
"""
import argparse
import json
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from tools.command import UserError, positive, run_main
from tools.data.parts import choose_photographs, encode_all, webp_quality, write_held_out, write_parts
from tools.files import check_writable, write_json
from tools.gpu.plan import SCRATCH, graph_path, read_plan, start_path
from tools.options import add_valid_share

PLAN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "thirteen.json")


def write_graphs(plan, folder):
    """Write the graph of every model and scale of a plan, and the weights of every checkpoint that it starts from."""
    from ops import tf
    from tools.checkpoints import checkpoint_config, find_checkpoint, read_weights
    from tools.gpu.export_graph import export_graph
    from tools.gpu.files import Trained, write_trained
    os.makedirs(folder, exist_ok=True)
    for entry in plan:
        with tf.Graph().as_default():
            write_json(graph_path(folder, entry), export_graph(entry.model, entry.scale))
    for entry in plan:
        if entry.start != SCRATCH and entry.start not in [one.name for one in plan]:
            prefix = find_checkpoint(entry.model, entry.scale, entry.start)
            write_trained(start_path(folder, entry.start), Trained(read_weights(prefix), checkpoint_config(prefix), ""))


def write_tiles(args):
    """Write the parts of the photographs, one for each upload, and which photographs they leave out."""
    paths, held_out = choose_photographs(args.data, args.valid_share, args.seed)
    write_held_out(os.path.join(args.out, "1", "tiles"), held_out)
    tiles = [os.path.join(args.out, str(i), "tiles", "part-%d-%03d.tar" % (args.seed, i)) for i in range(1, args.parts + 1)]
    write_parts(encode_all(paths, quality=args.quality), tiles, args.mebibytes)


def bring_back(plan, back, folder):
    """Copy from a lease's results what another goes on from: which trainings are done and how much time was used, the weights that
    later ones start from, and the state of the one that was not done. Raises UserError if `back` is no such results."""
    try:
        with open(os.path.join(back, "progress.json")) as file:
            trainings = json.load(file)["trainings"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError("%s does not hold the results of a plan (%s): unpack lease.tar.* there" % (back, error))
    open_ones = [entry for entry in plan if trainings.get(entry.name, {}).get("status") != "done"]
    os.makedirs(folder)
    names = ["progress.json"] + [entry.start + ".npz" for entry in open_ones] + [
        os.path.join(entry.name, file) for entry in open_ones for file in ("state.npz", "log.jsonl")]
    for name in sorted(set(names)):
        if os.path.exists(os.path.join(back, name)):
            os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
            shutil.copy(os.path.join(back, name), os.path.join(folder, name))
    print("still to be trained: %s" % (", ".join(entry.name for entry in open_ones) or "nothing"))


def folder_size(folder):
    """Bytes of all files below a folder."""
    return sum(os.path.getsize(os.path.join(parent, file)) for parent, _, files in os.walk(folder) for file in files)


def prepare(args):
    plan = read_plan(args.plan)
    check_writable([args.out])
    first = os.path.join(args.out, "1")
    if os.path.exists(args.out):
        if os.listdir(args.out) and not os.path.exists(os.path.join(first, "plan.json")):
            raise UserError("%s has other things in it than an earlier lease, which would be replaced: give another --out"
                            % args.out)
        shutil.rmtree(args.out)
    os.makedirs(first)
    shutil.copy(args.plan, os.path.join(first, "plan.json"))  # first, as the mark of a lease
    if args.back:
        bring_back(plan, args.back, os.path.join(first, "back"))
    write_graphs(plan, os.path.join(first, "graphs"))
    write_tiles(args)
    for name in sorted(os.listdir(args.out)):
        print("%s: %.1f MiB to upload" % (os.path.join(args.out, name), folder_size(os.path.join(args.out, name)) / 2 ** 20))


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", default=PLAN, metavar="JSON", help="default: thirteen.json")
    parser.add_argument("--data", required=True, metavar="DIR", help="a folder of photographs")
    parser.add_argument("--out", default=os.path.join("runs", "lease"), metavar="DIR",
                        help="an earlier lease there is replaced (default runs/lease)")
    parser.add_argument("--back", metavar="DIR", help="what a lease brought back, unpacked")
    parser.add_argument("--mebibytes", type=positive(float), default=40, help="of tiles, in one upload (default 40)")
    parser.add_argument("--parts", type=positive(int), default=3, metavar="N", help="so many uploads (default 3)")
    parser.add_argument("--quality", type=webp_quality, default=90, metavar="Q", help="of the tiles' WebP (default 90)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of photographs: another for another lease")
    add_valid_share(parser)
    return parser.parse_args()


if __name__ == "__main__":
    run_main(lambda: prepare(parse_args()))
