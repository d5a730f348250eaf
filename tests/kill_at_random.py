"""Kill a training, or the preparation of records, at ten random moments: python tests/kill_at_random.py train|prepare FOLDER PHOTOS

After every kill, what is on the disk must be whole and no older than after the one before; in the end the job is done as if
it had never been interrupted. TensorFlow is imported once and every job is a fork, so that the moments of saving dominate.
"""
import glob
import json
import os
import random
import shutil
import signal
import sys
import time

import train_tiny  # noqa: F401: small, so that saving takes most of the time; and the path of the modules below

import train
import utils
from ops import tf


def fork(options):
    """A process that runs train.py with these options."""
    child = os.fork()
    if not child:
        sys.argv = ["train.py", "--gpu", "-1", "--recipe", "fast", "--batch", "2", "--patch", "12", "--valid-every", "2",
                    "--workers", "1", "--threads", "1", "--save-minutes", "0"] + options
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        utils.run_main(lambda: train.train(train.parse_args()))
        os._exit(0)
    return child


def finish(child):
    assert os.waitpid(child, 0)[1] == 0, "the job failed"


def kill(child, ready, moment):
    """Kill the child at a random moment within `moment` seconds after ready() has become true."""
    while not ready():
        assert os.waitpid(child, os.WNOHANG)[0] == 0, "the job ended early"
        time.sleep(0.001)
    time.sleep(random.uniform(0, moment))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def state_step(folder):
    """The step of the last state or of the best weights of a run, all of whose values can be read; -1 if there is none."""
    prefix = tf.train.latest_checkpoint(folder)
    if not prefix:
        return -1
    reader = tf.train.NewCheckpointReader(prefix)
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)
    return int(prefix.rpartition("-")[2])


def kill_training(folder, photographs):
    state, best = os.path.join(folder, "state"), os.path.join(folder, "best")
    options = ["--data", photographs, "--valid", os.path.join(photographs, "deeper"), "--run", folder, "--steps", "100000"]
    reached, log = -1, os.path.join(folder, "log.jsonl")
    for _ in range(10):
        first = reached
        kill(fork(options), lambda: state_step_safe(state) > first, 0.3)
        assert state_step(state) >= reached
        reached = state_step(state)
        if state_step(best) >= 0:
            with open(os.path.join(best, "config.json")) as file:
                json.load(file)
        with open(log) as file:
            assert all(json.loads(line) for line in file if line.endswith("\n"))
    print("killed 10 times, at step %d" % reached)


def state_step_safe(folder):
    """As state_step, while the run writes: files may go away between two looks."""
    try:
        return state_step(folder)
    except Exception:
        return -1


def kill_preparation(folder, photographs):
    options = ["--data", photographs, "--prepare", "--pairs", "20000", "--shards", "40", "--records"]
    whole = os.path.join(folder, "whole")
    start = time.time()
    finish(fork(options + [whole]))
    seconds = time.time() - start
    content = read_records(whole)
    assert len(content) == 40
    done, most, broken = {}, 0, os.path.join(folder, "broken")
    for _ in range(10):
        if len(done) == 40:
            shutil.rmtree(broken)
            done = {}
        before = len(done)
        kill(fork(options + [broken]), lambda: glob.glob(os.path.join(broken, "*.tmp")) or len(
            glob.glob(os.path.join(broken, "*.tfrecord"))) > before, seconds / 4)
        done = read_records(broken)
        most = max(most, len(done))
        assert len(done) >= before and all(content[name] == value for name, value in done.items())
    finish(fork(options + [broken]))
    assert read_records(broken) == content
    print("killed 10 times, with at most %d of 40 files there" % most)


def read_records(folder):
    records = {}
    for path in glob.glob(os.path.join(folder, "*.tfrecord")):
        with open(path, "rb") as file:
            records[os.path.basename(path)] = file.read()
    return records


if __name__ == "__main__":
    random.seed(0)
    {"train": kill_training, "prepare": kill_preparation}[sys.argv[1]](*sys.argv[2:])
