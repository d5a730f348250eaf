"""Kill tasks of a cluster on this machine: python tests/soak_cluster.py FOLDER PHOTOS [--kills 20] [--steps 8000]

A chief, two workers and a parameter server train a tiny network. One of them at random is killed in each part of the training and
started again within five seconds. In the end all must end by themselves, with exit status 0, and the loss must be that of one
process that trained alone. The last line says what came out.
"""
import argparse
import collections
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TASKS = ("chief", 0), ("worker", 0), ("worker", 1), ("ps", 0)


def start(args, name, threads, config=None):
    """train.py with the tiny network as a process that trains in <folder>/<name> and writes to a log beside it."""
    command = [sys.executable, os.path.join(ROOT, "tests", "train_tiny.py"), "--gpu", "-1", "--recipe", "fast", "--batch", "3",
               "--patch", "12", "--workers", "1", "--threads", str(threads), "--save-minutes", "0.05", "--log-every", "20",
               "--valid-every", str(args.steps // 10), "--steps", str(args.steps), "--data", args.photos,
               "--valid", os.path.join(args.photos, "deeper"), "--run", os.path.join(args.folder, name)]
    environment = dict(os.environ, TF_CONFIG=json.dumps(config)) if config else os.environ
    with open(os.path.join(args.folder, name + ".txt"), "a") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def read_log(args, name):
    """The records of a run's log that have a loss."""
    path = os.path.join(args.folder, name, "log.jsonl")
    if not os.path.exists(path):
        return []
    with open(path) as file:
        records = [json.loads(line) for line in file if line.endswith("\n")]
    return [record for record in records if "loss" in record]


def final_loss(args, name):
    """The mean loss of the last tenth of the steps."""
    return np.mean([record["loss"] for record in read_log(args, name) if record["step"] > 0.9 * args.steps])


def soak(args):
    """Train with kills; returns {task: kills}. Every task has ended, or is killed."""
    sockets = [socket.socket() for _ in TASKS]
    for one in sockets:
        one.bind(("localhost", 0))
    cluster = collections.defaultdict(list)
    for (job, _), one in zip(TASKS, sockets):
        cluster[job].append("localhost:%d" % one.getsockname()[1])
        one.close()

    def start_task(task):
        return start(args, "cluster", 1, {"cluster": cluster, "task": {"type": task[0], "index": task[1]}})

    processes, killed = {task: start_task(task) for task in TASKS}, collections.Counter()
    try:
        for i in range(args.kills):
            moment = (i + random.uniform(0.5, 1)) * args.steps / (args.kills + 1)
            wait_until(lambda: read_log(args, "cluster")[-1:] and read_log(args, "cluster")[-1]["step"] >= moment, args.patience)
            task = random.choice(TASKS)
            killed[task] += 1
            print("%5.0f s, step %d: %s:%d is killed" % ((time.time() - begun, moment) + task), flush=True)
            processes[task].send_signal(signal.SIGKILL)
            processes[task].wait()
            time.sleep(random.uniform(0, 5))
            processes[task] = start_task(task)
        wait_until(lambda: all(process.poll() is not None for process in processes.values()), args.patience)
    finally:
        for process in processes.values():
            process.kill()
    assert [process.wait() for process in processes.values()] == [0] * len(TASKS), "a task failed, or was left behind"
    return killed


def wait_until(condition, seconds):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, "the cluster hangs"
        time.sleep(0.5)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("photos")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--patience", type=int, default=300, help="seconds in which the training must have gone on")
    args = parser.parse_args()
    random.seed(0)
    os.makedirs(args.folder)
    begun = time.time()
    killed = soak(args)
    seconds = time.time() - begun
    assert start(args, "alone", 3).wait() == 0
    losses = [final_loss(args, name) for name in ("alone", "cluster")]
    print("%d kills in %.1f minutes (%s); no task left behind; final loss %.5f, alone %.5f" % (
        sum(killed.values()), seconds / 60, ", ".join("%s:%d %d" % (task + (killed[task],)) for task in TASKS),
        losses[1], losses[0]))
    assert abs(losses[1] / losses[0] - 1) < 0.02
