"""Put trained weights into checkpoints/: python tools/ship.py runs/32s_x2/best

The folder is `best` of a run, or one by convert.py. Its weights become
checkpoints/<scale>/<model>/DRSAN<model><scale>, without optimiser slots, with the config.json and log.jsonl
of their run, the SHA-256 of their files, and, if the run started from shipped weights, what trained those.
Weights that are there already are replaced by better ones; --replace replaces them by any.
"""
import argparse
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


def validation(config):
    """(PSNR in dB or None, what it was measured on, in words, the names of that) by the config.json beside
    weights. Held-out photographs are the same if their names are."""
    psnr, names = config.get("validation_psnr"), config.get("held_out")
    if config.get("valid_share"):
        return psnr, "%s photographs held out" % (len(names) if names else "unknown"), names
    valid = config.get("valid", "Sample")  # the first runs did not write it down
    return psnr, valid, valid


def check_better(config, target, replace):
    """Print what the weights reach and what those at `target` do, if there are any; unless `replace`, raise
    UserError if they are worse, or if that is not known."""
    prefix = os.path.isdir(target) and checkpoint_prefix(target)
    if not prefix:
        return
    (new, new_name, new_set), (old, old_name, old_set) = map(validation, (config, checkpoint_config(prefix)))
    figures = ["unknown" if psnr is None else "%.3f dB on %s" % (psnr, name)
               for psnr, name in ((new, new_name), (old, old_name))]
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
        path = short_path(prefix)
        raise UserError("%s fails on %d of %d hard pictures, which %s --checkpoint %s lists: train it with "
                        "--textures" % (path, failed, len(pictures), script("tools/gate.py"), path))


def ship(folder, root, replace=False):
    """Copy the checkpoint of `folder` below `root`; returns its new prefix. replace: even if it is worse."""
    prefix = checkpoint_prefix(folder)
    config = checkpoint_config(prefix) if prefix else {}
    if config.get("scale") not in SCALES or not {"model", "trained_before"} <= set(config):
        raise UserError("no checkpoint with a usable config.json in %s: give the folder `best` of a run of "
                        "train.py, or one by convert.py" % folder)
    if config.get("without"):
        raise UserError("%s was trained without %s: ablations are not shipped" % (folder, config["without"]))
    target = os.path.join(root, config["scale"], config["model"])
    new, old = target + ".tmp", target + ".old"
    if os.path.exists(old) and not os.path.exists(target):  # killed between the two renames below
        os.rename(old, target)
    check_better(config, target, replace)
    check_gate(prefix, config)
    drsan(tf.placeholder(tf.float32, [None, None, None, 3]), config["model"], config["scale"])
    shutil.rmtree(new, ignore_errors=True)
    with open_session([-1]) as session:
        restore_weights(session, prefix)
        written = save_weights(session, new, config["model"], config["scale"])
    config["sha256"] = {os.path.basename(written) + suffix: file_digest(written + suffix)
                        for suffix in (".data-00000-of-00001", ".index")}
    write_json(os.path.join(new, "config.json"), config)
    logs = [os.path.join(place, "log.jsonl") for place in (folder, os.path.join(folder, os.pardir))]
    for log in list(filter(os.path.exists, logs))[:1]:
        shutil.copy(log, new)
    if os.path.exists(target):  # at any moment both are whole under some name
        shutil.rmtree(old, ignore_errors=True)
        os.rename(target, old)
    os.rename(new, target)
    shutil.rmtree(old, ignore_errors=True)
    return os.path.join(target, os.path.basename(written))


def main(argv=None):
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", metavar="DIR",
                        help="the folder `best` of a run of train.py, or one by convert.py")
    parser.add_argument("--to", default=SHIPPED, metavar="DIR", help="default: checkpoints/ of the project")
    parser.add_argument("--replace", action="store_true",
                        help="replace weights that are better, or not known to be worse")
    args = parser.parse_args(argv)
    check_writable([args.to])
    print(short_path(ship(args.folder, args.to, args.replace)))


if __name__ == "__main__":
    run_main(main)
