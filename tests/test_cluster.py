"""Clusters: tasks that share a batch, are lost and come back, and end by signals; what TF_CONFIG says, and
who sets it."""
import collections
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading

import train
from conftest import ROOT, WHOLE, call, fork, state_values
from tools.command import UserError
from tools.runtime import list_gpus
from tools.training import cluster, tf_config

import numpy as np
import pytest


def read_lines_until(process, text):
    """The output of a process up to a line that contains the text."""
    lines = []
    while not lines or text not in lines[-1]:
        lines.append(process.stdout.readline().decode())
        assert lines[-1], "".join(lines)
    return lines


@pytest.fixture
def start_task(photographs, tmp_path):
    """start_task(job, options) starts the task of a cluster of chief, worker and ps; what is left is killed
    in the end."""
    sockets, tasks = [socket.socket() for _ in range(3)], []
    for free in sockets:
        free.bind(("localhost", 0))
    ports = [free.getsockname()[1] for free in sockets]
    addresses = {job: ["localhost:%d" % port] for job, port in zip(("chief", "worker", "ps"), ports)}
    for free in sockets:
        free.close()

    def start_one(job, *options):
        config = {"cluster": addresses, "task": {"type": job, "index": 0}}
        options = ("--save-minutes", "0", "--threads", "1", "--batch", "4") + options
        tasks.append(fork(photographs, tmp_path / "cluster", *options, TF_CONFIG=json.dumps(config)))
        return tasks[-1]

    def kill():
        for task in tasks:
            task.kill()
    watchdog = threading.Timer(600, kill)  # so that a cluster that hangs fails the test
    watchdog.start()
    yield start_one
    watchdog.cancel()
    kill()


def test_cluster_trains_as_one_machine_though_tasks_die(photographs, tmp_path, start_task):
    """A worker is killed and comes back; all are stopped at once, as by a scheduler, and started again."""
    steps = WHOLE + ("--steps", "48", "--valid-every", "12")
    alone = fork(photographs, tmp_path / "alone", "--threads", "2", "--batch", "4", *steps)
    worker, ps, chief = [start_task(job, *steps) for job in ("worker", "ps", "chief")]
    read_lines_until(chief, "PSNR of")
    worker.kill()
    read_lines_until(chief, "waiting for /job:worker/task:0 at localhost:")
    worker = start_task("worker", *steps)
    read_lines_until(chief, "lost a task of the cluster")  # TensorFlow 1.8 notices when it is back
    read_lines_until(chief, "resumed at step")
    read_lines_until(chief, "PSNR of")
    for task in worker, ps, chief:
        task.send_signal(signal.SIGTERM)
    line = read_lines_until(chief, "stopped at step")[-1]
    stopped = re.search("stopped at step ([0-9]+);", line).group(1)
    assert [task.wait() for task in (worker, ps, chief)] == [143, 143, 143]
    worker, ps, chief = [start_task(job, *steps) for job in ("worker", "ps", "chief")]
    read_lines_until(chief, "resumed at step %s," % stopped)
    read_lines_until(chief, "done")
    assert [task.wait() for task in (worker, ps, chief)] == [0, 0, 0]
    assert b"done" in alone.communicate()[0]
    alone, together = [state_values(tmp_path / name) for name in ("alone", "cluster")]
    assert sorted(alone) == sorted(together)
    for name in alone:
        np.testing.assert_allclose(together[name], alone[name], rtol=0, atol=1e-4, err_msg=name)


def test_tasks_end_that_wait_for_others(start_task):
    """By a signal, though none of these sees another; or since the chief is gone too long, or has failed."""
    ps = start_task("ps")
    read_lines_until(ps, "serving as job:ps/task:0 at localhost:")
    ps.send_signal(signal.SIGINT)
    assert ps.communicate()[0] == b"stopped\n" and ps.returncode == 130
    chief = start_task("chief")
    read_lines_until(chief, "waiting for /job:")
    chief.send_signal(signal.SIGTERM)
    assert b"was waited for; the same command resumes" in chief.communicate()[0] and chief.returncode == 143
    gone = start_task("worker", "--chief-timeout", "0.01")
    assert re.search(b"error: no chief at localhost:[0-9]+ for 0.01 minutes: start it", gone.communicate()[0])
    assert gone.returncode == 1
    others = [start_task("worker"), start_task("ps")]
    chief = start_task("chief", "--warmup", "0", "--rate", "1e9", "--steps", "100")
    assert b"error: the training diverges at step" in chief.communicate()[0] and chief.returncode == 1
    for task in others:
        lines = task.communicate()[0].decode().splitlines()
        assert lines[1:] == ["error: the chief failed: it says why"] and task.returncode == 1


def test_a_signal_waits_for_the_chief(monkeypatch):
    """Until it has ended, or GRACE is over; without it, for so many minutes."""
    now, chief_is_there, ends = [100.0], [True], []
    monkeypatch.setattr(cluster.time, "time", lambda: now[0])
    monkeypatch.setattr(cluster, "answers", lambda address: chief_is_there[0])
    monkeypatch.setattr(cluster, "end", lambda status, message: ends.append((now[0], status)))
    first, second, third = [cluster.watch_chief("chief:1", minutes) for minutes in (9, 9, 1)]
    for now[0] in 200, 200 + cluster.GRACE:
        first(signal.SIGTERM)
    assert not ends
    now[0] += 1
    first(signal.SIGTERM)
    chief_is_there[0] = False
    second(signal.SIGINT)
    for now[0] in 160, 161:
        third(None)
    assert ends == [(201 + cluster.GRACE, 143), (201 + cluster.GRACE, 130), (161, 1)]


def test_each_task_computes_on_its_own_gpus():
    """The GPUs of a parameter server are nobody's."""
    Device = collections.namedtuple("Device", "name device_type")
    Session = collections.namedtuple("Session", "list_devices")
    places = ("ps", 0, 0), ("ps", 0, 1), ("worker", 1, 0), ("worker", 1, 1), ("worker", 0, 0)
    devices = ["/job:chief/replica:0/task:0/device:CPU:0"] + [
        "/job:%s/replica:0/task:%d/device:GPU:%d" % place for place in places]
    session = Session(lambda: [Device(name, name.split(":")[-2]) for name in devices])
    tasks = ["/job:chief/task:0", "/job:worker/task:0", "/job:worker/task:1"]
    gpus = [[], ["/job:worker/task:0/gpu:0"], ["/job:worker/task:1/gpu:0", "/job:worker/task:1/gpu:1"]]

    def found():
        return collections.OrderedDict((task, list_gpus(session, task)) for task in tasks)
    assert list(found().values()) == gpus and cluster.split_batch(found(), 4) == tasks[:2] + gpus[2]
    devices[1:] = devices[1:3]
    assert cluster.split_batch(found(), 2) == [tasks[0]] * 2 + [tasks[1]] * 2 + [tasks[2]] * 2
    devices[:] = ["/job:localhost/replica:0/task:0/device:GPU:%d" % i for i in range(2)]
    assert cluster.split_batch({"": list_gpus(session)}, 4) == ["/gpu:0", "/gpu:1"]
    del devices[1]
    assert cluster.split_batch({"": list_gpus(session)}, 4) == [""]


@pytest.mark.parametrize("batch, advice", [(16, "15 or 18"), (2, "3")])
def test_a_batch_that_machines_cannot_share(batch, advice):
    addresses = {"chief": ["localhost:1"], "worker": ["localhost:2", "localhost:3"]}
    message = "a batch of %d cannot be split over 3 machines: give --batch %s$" % (batch, advice)
    with pytest.raises(UserError, match=message):
        cluster.Devices([-1], 1, batch, cluster.Cluster(addresses, "chief", 0))


def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen(1)
        addresses = {"chief": ["localhost:%d" % taken.getsockname()[1]], "ps": ["localhost:1"]}
        message = "cannot serve at %s of TF_CONFIG: another process listens" % addresses["chief"][0]
        with pytest.raises(UserError, match=message):
            cluster.start_server(cluster.Cluster(addresses, "chief", 0), [-1])


# TF_CONFIG

TASK = ', "task": {"type": "%s", "index": %d}}'
TWO = {"chief": ["a:1"], "worker": ["b:2"]}


@pytest.mark.parametrize("config, expected", [
    ("", None), ("null", None), ('{"environment": "cloud"}', None), ('{"cluster": {}, "task": {}}', None),
    ('{"cluster": {"worker": ["a:1"]}' + TASK % ("worker", 0), None),
    ('{"cluster": {"worker": ["a:1", "b:2"]}' + TASK % ("worker", 0), (TWO, "chief", 0)),
    ('{"cluster": {"worker": ["a:1", "b:2"]}' + TASK % ("worker", 1), (TWO, "worker", 0)),
    ('{"cluster": {"worker": ["a:1"], "ps": ["b:2"]}' + TASK % ("ps", 0), (
        {"chief": ["a:1"], "ps": ["b:2"]}, "ps", 0)),
    ('{"cluster": {"master": ["a:1"], "worker": ["b:2"]}' + TASK % ("master", 0), (TWO, "chief", 0))])
def test_what_platforms_set(config, expected, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    assert cluster.read_cluster() == expected


@pytest.mark.parametrize("config", [
    "nothing", "3", '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}}',
    '{"cluster": {"ps": ["a:1", "b:1"]}' + TASK % ("ps", 0),
    '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}' + TASK % ("worker", 1),
    '{"cluster": {"chief": ["a:1"], "worker": [["b:1"]]}' + TASK % ("chief", 0),
    '{"cluster": {"chief": ["a"], "worker": ["b:1"]}' + TASK % ("chief", 0)])
def test_a_config_that_is_no_cluster(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UserError) as stop:
        cluster.read_cluster()
    expected = "TF_CONFIG is not the JSON of a cluster and of a task in it, but %.80s: expected {" % config
    assert str(stop.value).startswith(expected)


SLURM = {"SLURM_JOB_ID": "1234567", "SLURM_STEP_NODELIST": "gpu[07-09]", "SLURM_STEP_NUM_TASKS": "3",
         "SLURM_NODEID": "1", "SLURM_ARRAY_TASK_ID": "3"}
COMMANDS = {  # stand-ins for what a scheduler's machine has
    "scontrol": "#!/bin/sh\n[ \"$*\" = 'show hostnames gpu[07-09]' ] && printf 'gpu07\\ngpu08\\ngpu09\\n'\n",
    "srun": "#!/bin/sh\nshift\nexec \"$@\"\n",
    "python": "#!/bin/sh\n[ $1 = train.py ] && echo \"$TF_CONFIG\" && echo \"$*\" && exit\nexec '%s' \"$@\"\n"
              % sys.executable}


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """COMMANDS, which come first in the PATH."""
    for name, text in COMMANDS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", "%s:%s" % (tmp_path, os.environ["PATH"]))


def test_roles_of_hosts():
    hosts, addresses = ["a", "b", "c", "d"], {"chief": ["a:7"], "worker": ["b:7", "c:7"], "ps": ["d:7"]}
    roles = ("chief", 0), ("worker", 0), ("worker", 1), ("ps", 0)
    assert [tf_config.make_config(hosts, i, 7, 1) for i in range(4)] == [
        {"cluster": addresses, "task": {"type": job, "index": index}} for job, index in roles]
    for index, servers in (4, 1), (-1, 1), (0, 4):
        message = "host %d of 4, with %d parameter servers, is none" % (index, servers)
        with pytest.raises(UserError, match=message):
            tf_config.make_config(hosts, index, 7, servers)


def test_slurm(commands, monkeypatch, capsys):
    def run(*arguments):
        return call(monkeypatch, capsys, tf_config.main, *arguments)
    status, _, err = run()
    assert status == 1 and "no task of Slurm: 'SLURM_STEP_NODELIST' is not as srun sets it" in err
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    status, out, _ = run("--ps", 1)
    monkeypatch.setenv("TF_CONFIG", out)
    assert status == 0 and cluster.read_cluster() == (
        {"chief": ["gpu07:24567"], "worker": ["gpu08:24567"], "ps": ["gpu09:24567"]}, "worker", 0)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "6")
    assert run()[2] == "error: 6 tasks on 3 nodes: give srun --ntasks-per-node=1\n"
    monkeypatch.setenv("SLURM_STEP_NODELIST", "nowhere")
    assert run()[2].startswith("error: scontrol cannot say which hosts nowhere are: ")
    assert run("--hosts", "a", "b")[0] == 2


@pytest.mark.parametrize("kind", ["bash", "yaml"])
def test_the_jobs_of_the_readme(kind, commands):
    """TF_CONFIG, and the options of train.py, that their shell commands come to."""
    with open(os.path.join(ROOT, "tools", "README.md")) as file:
        text = re.search("```%s\n(.*?)```" % kind, file.read(), re.DOTALL).group(1)
    hosts, port, scale, environment = ["gpu07", "gpu08", "gpu09"], 24567, "x3", SLURM
    if kind == "yaml":
        text = re.search('"(.*?)"', text, re.DOTALL).group(1)
        hosts, port, scale = ["drsan-%d.drsan" % i for i in range(3)], 4000, "x2"
        environment = {"JOB_COMPLETION_INDEX": "1"}
    config, command = subprocess.check_output(
        ["bash", "-c", text], cwd=ROOT, env=dict(os.environ, **environment)).decode().splitlines()
    assert json.loads(config) == tf_config.make_config(hosts, 1, port, 1)
    args = train.parse_args(command.split()[1:])
    assert (args.scale, args.data) == (scale, "data/DIV2K/DIV2K_train_HR")
