"""Kill jobs at random moments: python tests/kill_at_random.py ROUNDS FOLDER PHOTOS

A job writes records and trains on them. In a round it is killed ten times, a third each while it prepares, trains and saves, and
started again each time; then it is let end. After a kill, what is on the disk must be whole and no older than before; in the end,
records, state, best weights and log must be those of a job that was never interrupted, to the bit. TensorFlow is imported once,
and every job is a fork, so that the moments of saving dominate.
"""
import collections
import glob
import json
import mmap
import os
import random
import shutil
import signal
import sys
import time

from train_tiny import train  # a small network, so that saving takes most of the time; and the path of the modules below
from ops import tf
from tools.command import run_main
from tools.data import records
from tools.training.runs import Run

PHASES = PREPARE, TRAIN, SAVE = range(3)
NONE_OF_THEM = 3
NAMES = "while preparing", "while training", "while saving"
LONGEST = 0.02, 0.2, 0.05  # seconds from when a phase is seen to the kill, or until it is looked again, at most
SHARDS = 60
STEPS = 150


def within(phase, function):
    """The function, which says in `now`, shared with the parent, that the process is in this phase."""
    def wrapped(*args):
        before, now[0] = now[0], phase
        try:
            return function(*args)
        finally:
            now[0] = before
    return wrapped


def fork(folder, photographs):
    """A job below this folder, as a process."""
    assert tf.__version__  # so that TensorFlow is imported here, before the fork
    now[0] = NONE_OF_THEM
    child = os.fork()
    if not child:
        sys.argv = ["train.py", "--gpu", "-1", "--recipe", "fast", "--batch", "2", "--patch", "12", "--log-every", "4",
                    "--valid-every", "10", "--workers", "1", "--threads", "1", "--save-minutes", "0", "--steps", str(STEPS),
                    "--data", photographs, "--records", os.path.join(folder, "records"), "--pairs", "6000", "--shards", str(SHARDS),
                    "--run", os.path.join(folder, "run"), "--valid", os.path.join(photographs, "deeper")]
        records.write_records = within(PREPARE, records.write_records)
        Run._save, Run.log, train.Trainer.optimize = (
            within(SAVE, Run._save), within(SAVE, Run.log), within(TRAIN, train.Trainer.optimize))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            run_main(train.main)
        except SystemExit as stop:
            os._exit(stop.code or 0)
    return child


def kill(child, phase, progressed):
    """Kill a job at a random moment of a phase, after progressed() has become true; returns the phase it was in then."""
    while not progressed() or now[0] != phase:
        assert not os.waitpid(child, os.WNOHANG)[0], "the job ended before it could be killed"
        time.sleep(random.uniform(0, LONGEST[phase]))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return now[0]


# records: {name: bytes}; step, values, best: what read_checkpoint() gives of the last state, and of the best weights; log: of dicts
Disk = collections.namedtuple("Disk", "records step values best log")


def read_files(pattern):
    content = {}
    for path in glob.glob(pattern):
        with open(path, "rb") as file:
            content[os.path.basename(path)] = file.read()
    return content


def read_checkpoint(folder):
    """(step, {name: bytes of the value}) of a checkpoint, all of whose values can be read; (-1, {}) if there is none."""
    prefix = tf.train.latest_checkpoint(folder)
    if not prefix:
        return -1, {}
    reader = tf.train.NewCheckpointReader(prefix)
    return (int(prefix.rpartition("-")[2]),
            {name: reader.get_tensor(name).tobytes() for name in reader.get_variable_to_shape_map()})


def read_disk(folder):
    """The Disk of a job. Raises an exception if anything but a temporary file or the last line of the log is not whole."""
    run = os.path.join(folder, "run")
    step, values = read_checkpoint(os.path.join(run, "state"))
    best = read_checkpoint(os.path.join(run, "best"))
    for path in glob.glob(os.path.join(run, "config.json")) + glob.glob(os.path.join(run, "best", "config.json")):
        with open(path) as file:
            json.load(file)
    lines = []
    if os.path.exists(os.path.join(run, "log.jsonl")):
        with open(os.path.join(run, "log.jsonl")) as file:
            lines = [json.loads(line) for line in file if line.endswith("\n")]
    log = [{key: line.get(key) for key in ("step", "rate", "psnr", "skipped")} for line in lines]
    return Disk(read_files(os.path.join(folder, "records", "*.tfrecord")), step, values, best, log)


def count_records(folder):
    return len(glob.glob(os.path.join(folder, "records", "*.tfrecord")))


def round_of_kills(folder, photographs, whole, plan):
    """Kill a job once in every phase of the plan, and let it end; returns the phases in which it was killed."""
    phases, disk = [], read_disk(folder)
    for phase in plan:
        if phase == PREPARE:
            def progressed(count=len(disk.records)):
                return count_records(folder) > count
        else:
            def progressed(step=disk.step):
                states = glob.glob(os.path.join(folder, "run", "state", "state-*.index"))
                return any(int(path[:-len(".index")].rpartition("-")[2]) > step for path in states)
        phases.append(kill(fork(folder, photographs), phase, progressed))
        before, disk = disk, read_disk(folder)
        assert set(disk.records) >= set(before.records), "records were lost"
        assert all(whole.records[name] == value for name, value in disk.records.items()), "records are not whole"
        assert disk.step >= before.step and disk.best[0] >= before.best[0], "a state was lost"
    assert os.waitpid(fork(folder, photographs), 0)[1] == 0, "the job failed"
    assert read_disk(folder) == whole, "the job did not come to what it comes to uninterrupted"
    shutil.rmtree(folder)
    return phases


def main(rounds, folder, photographs):
    whole, _ = os.path.join(folder, "whole"), tf.__version__  # imported now, and not by every job
    assert os.waitpid(fork(whole, photographs), 0)[1] == 0, "the job failed"
    expected, killed = read_disk(whole), collections.Counter()
    assert len(expected.records) == SHARDS and expected.step == STEPS and expected.best[1] and expected.log
    for i in range(int(rounds)):
        plan = 3 * [TRAIN, SAVE] + [PHASES[i % 3]]
        random.shuffle(plan)
        plan = 3 * [PREPARE] + sorted(plan, key=lambda phase: phase != PREPARE)  # which comes first, and is done once
        killed.update(round_of_kills(os.path.join(folder, "broken"), photographs, expected, plan))
        print("round %d: killed %s; 0 files lost, ended as uninterrupted" % (
            i + 1, ", ".join("%d %s" % (killed[phase], NAMES[phase]) for phase in PHASES)), flush=True)
    print("killed %d times" % sum(killed.values()))


if __name__ == "__main__":
    random.seed(0)
    now = mmap.mmap(-1, 1)  # the phase that the job is in
    main(*sys.argv[1:])
