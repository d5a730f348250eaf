"""Write weights for train_jax.py: python tools/gpu/export_weights.py checkpoints/x2/32s runs/32s_x2.npz"""
import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from tools.checkpoints import find_checkpoint, read_weights, training_history
from tools.command import run_main
from tools.files import check_writable
from tools.gpu.state import save_state


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="prefix, .index file or folder")
    parser.add_argument("out", metavar="NPZ", help="the file to write")
    args = parser.parse_args(argv)
    check_writable(files=[args.out])
    prefix = find_checkpoint(None, None, args.checkpoint)
    weights = read_weights(prefix)
    os.makedirs(os.path.dirname(args.out) or ".", exist_ok=True)
    save_state(args.out, dict(weights, step=0), {"history": training_history(prefix)}, {})
    print("%s: %d variables of %s" % (args.out, len(weights), prefix))


if __name__ == "__main__":
    run_main(main)
