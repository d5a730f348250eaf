"""Put trained weights into checkpoints/: python tools/ship.py runs/32s_x2/best (or a folder by import_weights.py)

They become checkpoints/<scale>/<model>/DRSAN<model><scale>, under the authors' names and without optimiser slots, with
the config.json and log.jsonl of their run, the SHA-256 of their files, and, if the run started from shipped weights, what
trained those.
"""
import argparse
import json
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from model import SCALES, drsan  # noqa: E402
from ops import tf  # noqa: E402
from tools.checkpoints import checkpoint_prefix, restore_weights, save_weights  # noqa: E402
from tools.runtime import open_session  # noqa: E402
from utils import UserError, file_digest, run_main, short_path, write_json  # noqa: E402

CHECKPOINTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "checkpoints")


def read_config(folder):
    try:
        with open(os.path.join(folder, "config.json")) as file:
            config = json.load(file)
        config["model"], SCALES[config["scale"]], config["trained_before"]
        return config
    except (OSError, ValueError, KeyError) as error:
        raise UserError("no usable config.json in %s (%s): give the folder `best` of a run of train.py, or one by import_weights.py" % (folder, error))


def ship(folder, root):
    """Copy the checkpoint of `folder` below the folder `root`; returns its new prefix."""
    config = read_config(folder)
    prefix = checkpoint_prefix(folder)
    if not prefix:
        raise UserError("no checkpoint in %s" % folder)
    if config.get("without"):
        raise UserError("%s was trained without %s: ablations are not shipped" % (folder, config["without"]))
    target = os.path.join(root, config["scale"], config["model"])
    drsan(tf.placeholder(tf.float32, [None, None, None, 3]), config["model"], config["scale"])
    with open_session([-1]) as session:
        restore_weights(session, prefix)
        shutil.rmtree(target + ".tmp", ignore_errors=True)
        written = save_weights(session, target + ".tmp", config["model"], config["scale"])
    name = os.path.basename(written)
    config["sha256"] = {name + suffix: file_digest(written + suffix) for suffix in (".data-00000-of-00001", ".index")}
    write_json(os.path.join(target + ".tmp", "config.json"), config)
    for log in os.path.join(folder, "log.jsonl"), os.path.join(folder, os.pardir, "log.jsonl"):
        if os.path.exists(log):
            shutil.copy(log, target + ".tmp")
            break
    shutil.rmtree(target, ignore_errors=True)
    os.rename(target + ".tmp", target)
    return os.path.join(target, name)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", metavar="DIR", help="the folder `best` of a run of train.py, or one by import_weights.py")
    parser.add_argument("--to", default=CHECKPOINTS, metavar="DIR", help="default: checkpoints/ of the project")
    args = parser.parse_args()
    print(short_path(ship(args.folder, args.to)))


if __name__ == "__main__":
    run_main(main)
