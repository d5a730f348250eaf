"""Put trained weights into checkpoints/: python tools/ship.py runs/32s_x2/best

The folder is `best` of a run, or one by convert.py. Its weights become
checkpoints/<scale>/<model>/DRSAN<model><scale>, under the authors' names and without optimiser slots, with
the config.json and log.jsonl of their run, the SHA-256 of their files, and, if the run started from shipped
weights, what trained those. Weights that are there already are replaced by better ones; --replace replaces
them by any.
"""
import argparse
import json
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from model import SCALES, drsan
from ops import tf
from tools.checkpoints import SHIPPED, checkpoint_config, checkpoint_prefix, restore_weights, save_weights
from tools.command import UserError, run_main
from tools.files import check_writable, file_digest, script, short_path, write_json
from tools.gate import failures, hard_pictures, judge_network
from tools.network import Network
from tools.runtime import open_session


def read_config(folder):
    try:
        with open(os.path.join(folder, "config.json")) as file:
            config = json.load(file)
        config["model"], SCALES[config["scale"]], config["trained_before"]
        return config
    except (OSError, ValueError, KeyError) as error:
        raise UserError("no usable config.json in %s (%s): give the folder `best` of a run of train.py, or "
                        "one by convert.py" % (folder, error))


def validation(config):
    """(PSNR in dB or None, what it was measured on, in words, the names of that) by the config.json beside
    weights. Held-out photographs are the same if their names are.
    """
    psnr, names = config.get("validation_psnr"), config.get("held_out")
    if config.get("valid_share"):
        return psnr, "%s photographs held out" % (len(names) if names else "unknown"), names
    # the first runs did not write down `valid`
    return psnr, config.get("valid", "Sample"), config.get("valid", "Sample")


def check_better(config, target, replace):
    """Print what the weights reach and what those at `target` do, if there are any; unless `replace`, raise
    UserError if they are worse, or if that is not known."""
    prefix = os.path.isdir(target) and checkpoint_prefix(target)
    if not prefix:
        return
    shipped = checkpoint_config(prefix)
    (new, new_name, new_set), (old, old_name, old_set) = validation(config), validation(shipped)
    figures = ["%.3f dB on %s" % figure if figure[0] is not None else "unknown"
               for figure in ((new, new_name), (old, old_name))]
    print("PSNR: %s; of the weights in %s: %s" % (figures[0], short_path(target), figures[1]), flush=True)
    known = None not in (new, old, new_set) and new_set == old_set
    if not replace and not (known and new >= old):
        reason = "these weights are worse" if known else "which weights are better is not known"
        raise UserError("%s: give --replace to put them into %s all the same" % (reason, short_path(target)))


def check_gate(prefix, config):
    """Raise UserError if weights fail tools/gate.py."""
    pictures = hard_pictures()
    with Network(config["model"], config["scale"], prefix, -1) as network:
        failed = failures(judge_network(network, pictures))
    if failed:
        raise UserError("%s fails on %d of %d hard pictures, which %s --checkpoint %s lists: "
                        "train it with --textures" % (
                            short_path(prefix), failed, len(pictures), script("tools/gate.py"),
                            short_path(prefix)))


def swap(new, target):
    """Put the folder `new` in the place of `target`. At any moment both are whole under some name."""
    old = target + ".old"
    if os.path.exists(target):
        shutil.rmtree(old, ignore_errors=True)
        os.rename(target, old)
    os.rename(new, target)
    shutil.rmtree(old, ignore_errors=True)


def ship(folder, root, replace=False):
    """Copy the checkpoint of `folder` below `root`; returns its new prefix. replace: even if it is worse."""
    config = read_config(folder)
    prefix = checkpoint_prefix(folder)
    if not prefix:
        raise UserError("no checkpoint in %s" % folder)
    if config.get("without"):
        raise UserError("%s was trained without %s: ablations are not shipped" % (folder, config["without"]))
    target = os.path.join(root, config["scale"], config["model"])
    if os.path.exists(target + ".old") and not os.path.exists(target):  # killed in the middle of a swap
        os.rename(target + ".old", target)
    check_better(config, target, replace)
    check_gate(prefix, config)
    drsan(tf.placeholder(tf.float32, [None, None, None, 3]), config["model"], config["scale"])
    with open_session([-1]) as session:
        restore_weights(session, prefix)
        shutil.rmtree(target + ".tmp", ignore_errors=True)
        written = save_weights(session, target + ".tmp", config["model"], config["scale"])
    name = os.path.basename(written)
    config["sha256"] = {name + suffix: file_digest(written + suffix)
                        for suffix in (".data-00000-of-00001", ".index")}
    write_json(os.path.join(target + ".tmp", "config.json"), config)
    for log in os.path.join(folder, "log.jsonl"), os.path.join(folder, os.pardir, "log.jsonl"):
        if os.path.exists(log):
            shutil.copy(log, target + ".tmp")
            break
    swap(target + ".tmp", target)
    return os.path.join(target, name)


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", metavar="DIR",
                        help="the folder `best` of a run of train.py, or one by convert.py")
    parser.add_argument("--to", default=SHIPPED, metavar="DIR",
                        help="default: checkpoints/ of the project")
    parser.add_argument("--replace", action="store_true",
                        help="replace weights that are better, or not known to be worse")
    args = parser.parse_args()
    check_writable([args.to])
    print(short_path(ship(args.folder, args.to, args.replace)))


if __name__ == "__main__":
    run_main(main)
