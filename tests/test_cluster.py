"""Clusters: tasks that share a batch, are lost and come back, and end by signals, with their chief or without it."""
import collections
import json
import os
import re
import signal
import socket
import threading

from conftest import start, state_values
from tools.command import UserError
from tools.runtime import list_gpus
from tools.training import cluster

import numpy as np
import pytest


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def read_lines_until(process, text):
    """The output of a process up to a line that contains the text."""
    lines = []
    while not lines or text not in lines[-1]:
        lines.append(process.stdout.readline().decode())
        assert lines[-1], "".join(lines)
    return lines


@pytest.fixture
def start_task(photographs, tmp_path):
    """start_task(job, options) starts the task of a cluster of chief, worker and ps; those that are left are killed in the end."""
    cluster = {job: ["localhost:%d" % port] for job, port in zip(("chief", "worker", "ps"), free_ports(3))}
    tasks = []

    def start_one(job, *options):
        config = {"cluster": cluster, "task": {"type": job, "index": 0}}
        options = ("--save-minutes", "0", "--threads", "1", "--batch", "4") + options
        tasks.append(start(photographs, tmp_path / "cluster", *options, env=dict(os.environ, TF_CONFIG=json.dumps(config))))
        return tasks[-1]

    def kill():
        for task in tasks:
            task.kill()
    watchdog = threading.Timer(300, kill)  # so that a cluster that hangs fails the test
    watchdog.start()
    yield start_one
    watchdog.cancel()
    kill()


def test_cluster_trains_as_one_machine_though_tasks_die(photographs, tmp_path, start_task):
    """All are stopped at once, as by a scheduler; the chief is interrupted while it waits for a worker that was killed; another
    worker is lost to the chief that goes on."""
    steps = "--steps", "96"
    tasks = [start_task(job, "--save-minutes", "60", *steps) for job in ("worker", "ps", "chief")]
    read_lines_until(tasks[2], "PSNR of")
    for task in tasks:
        task.send_signal(signal.SIGTERM)
    stopped = int(re.search("stopped at step ([0-9]+);", read_lines_until(tasks[2], "stopped at step")[-1]).group(1))
    assert [task.wait() for task in tasks] == [143, 143, 143]
    worker, ps, chief = [start_task(job, *steps) for job in ("worker", "ps", "chief")]
    read_lines_until(chief, "resumed at step %d," % stopped)
    read_lines_until(chief, "PSNR of")
    worker.kill()
    read_lines_until(chief, "waiting for /job:worker/task:0 at localhost:")
    chief.send_signal(signal.SIGINT)
    read_lines_until(chief, "stopped while /job:worker/task:0 was waited for; the same command resumes")
    assert chief.wait() == 130
    chief, worker = start_task("chief", *steps), start_task("worker", *steps)
    read_lines_until(chief, "resumed at step")
    worker.kill()
    worker.communicate()
    worker = start_task("worker", *steps)
    read_lines_until(chief, "lost a task of the cluster")  # TensorFlow 1.8 notices when it is back
    read_lines_until(chief, "resumed at step")
    read_lines_until(chief, "done")
    assert [process.wait() for process in (chief, worker, ps)] == [0, 0, 0]
    alone = start(photographs, tmp_path / "alone", "--save-minutes", "0", "--threads", "2", "--batch", "4", *steps)
    assert b"done" in alone.communicate()[0]
    alone, together = [state_values(tmp_path / name) for name in ("alone", "cluster")]
    assert sorted(alone) == sorted(together)
    for name in alone:
        np.testing.assert_allclose(together[name], alone[name], rtol=0, atol=1e-4, err_msg=name)


def test_signals_end_tasks_that_wait_for_others(start_task):
    """None of these sees another: the worker has no chief, the chief no parameter server."""
    worker, chief = start_task("worker"), start_task("chief")
    read_lines_until(worker, "serving as job:worker/task:0 at localhost:")
    worker.send_signal(signal.SIGINT)
    assert worker.communicate()[0] == b"stopped\n" and worker.returncode == 130
    read_lines_until(chief, "waiting for /job:")
    chief.send_signal(signal.SIGTERM)
    assert b"was waited for; the same command resumes" in chief.communicate()[0] and chief.returncode == 143


def test_tasks_end_without_a_chief(start_task):
    """It is gone too long, or has failed."""
    gone = start_task("worker", "--chief-timeout", "0.01")
    out = gone.communicate()[0].decode()
    assert re.search("error: no chief at localhost:[0-9]+ for 0.01 minutes: start it", out) and gone.returncode == 1
    others = [start_task("worker"), start_task("ps")]
    chief = start_task("chief", "--warmup", "0", "--rate", "1e9", "--steps", "100")
    assert b"error: the training diverges at step" in chief.communicate()[0] and chief.returncode == 1
    for task in others:
        assert task.communicate()[0].decode().splitlines()[1:] == ["error: the chief failed: it says why"] and task.returncode == 1


def test_each_task_computes_on_its_own_gpus():
    """The GPUs of a parameter server are nobody's."""
    Device, Session = collections.namedtuple("Device", "name device_type"), collections.namedtuple("Session", "list_devices")
    devices = ["/job:chief/replica:0/task:0/device:CPU:0"] + ["/job:%s/replica:0/task:%d/device:GPU:%d" % place for place in (
        ("ps", 0, 0), ("ps", 0, 1), ("worker", 1, 0), ("worker", 1, 1), ("worker", 0, 0))]
    session = Session(lambda: [Device(name, name.split(":")[-2]) for name in devices])
    tasks = ["/job:chief/task:0", "/job:worker/task:0", "/job:worker/task:1"]
    found = collections.OrderedDict((task, list_gpus(session, task)) for task in tasks)
    assert list(found.values()) == [[], ["/job:worker/task:0/gpu:0"], ["/job:worker/task:1/gpu:0", "/job:worker/task:1/gpu:1"]]
    assert cluster.split_batch(found, 4) == ["/job:chief/task:0", "/job:worker/task:0"] + found[tasks[2]]
    devices[1:] = devices[1:3]
    found = collections.OrderedDict((task, list_gpus(session, task)) for task in tasks)
    assert cluster.split_batch(found, 2) == [tasks[0]] * 2 + [tasks[1]] * 2 + [tasks[2]] * 2
    devices[:] = ["/job:localhost/replica:0/task:0/device:GPU:%d" % i for i in range(2)]
    assert cluster.split_batch({"": list_gpus(session)}, 4) == ["/gpu:0", "/gpu:1"]
    del devices[1]
    assert cluster.split_batch({"": list_gpus(session)}, 4) == [""]


def test_a_batch_that_machines_cannot_share():
    addresses = {"chief": ["localhost:1"], "worker": ["localhost:2", "localhost:3"]}
    with pytest.raises(UserError, match="a batch of 16 cannot be split over 3 machines: give --batch 15 or 18$"):
        cluster.Devices([-1], 1, 16, cluster.Cluster(addresses, "chief", 0))
    with pytest.raises(UserError, match="a batch of 2 cannot be split over 3 machines: give --batch 3$"):
        cluster.Devices([-1], 1, 2, cluster.Cluster(addresses, "chief", 0))


TASK = '"task": {"type": "%s", "index": %d}}'


@pytest.mark.parametrize("config, expected", [
    ("", None), ("null", None), ('{"environment": "cloud"}', None), ('{"cluster": {}, "task": {}}', None),
    ('{"cluster": {"worker": ["a:1"]}, ' + TASK % ("worker", 0), None),
    ('{"cluster": {"worker": ["a:1", "b:2"]}, ' + TASK % ("worker", 0), ({"chief": ["a:1"], "worker": ["b:2"]}, "chief", 0)),
    ('{"cluster": {"worker": ["a:1", "b:2"]}, ' + TASK % ("worker", 1), ({"chief": ["a:1"], "worker": ["b:2"]}, "worker", 0)),
    ('{"cluster": {"worker": ["a:1"], "ps": ["b:2"]}, ' + TASK % ("ps", 0), ({"chief": ["a:1"], "ps": ["b:2"]}, "ps", 0)),
    ('{"cluster": {"master": ["a:1"], "worker": ["b:2"]}, ' + TASK % ("master", 0),
     ({"chief": ["a:1"], "worker": ["b:2"]}, "chief", 0))])
def test_what_platforms_set(config, expected, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    assert cluster.read_cluster() == expected


@pytest.mark.parametrize("config", [
    "nothing", "3", '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}}', '{"cluster": {"ps": ["a:1", "b:1"]}, ' + TASK % ("ps", 0),
    '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, ' + TASK % ("worker", 1),
    '{"cluster": {"chief": ["a:1"], "worker": [["b:1"]]}, ' + TASK % ("chief", 0),
    '{"cluster": {"chief": ["a"], "worker": ["b:1"]}, ' + TASK % ("chief", 0)])
def test_a_config_that_is_no_cluster(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UserError) as stop:
        cluster.read_cluster()
    assert str(stop.value).startswith("TF_CONFIG is not the JSON of a cluster and of a task in it, but %.80s: expected {" % config)


def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen(1)
        addresses = {"chief": ["localhost:%d" % taken.getsockname()[1]], "ps": ["localhost:1"]}
        with pytest.raises(UserError, match="cannot serve at %s of TF_CONFIG: another process listens at this port: end it, or" % (
                addresses["chief"][0])):
            cluster.start_server(cluster.Cluster(addresses, "chief", 0), [-1])
