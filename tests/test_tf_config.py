"""tools/training/tf_config.py: what a task is, from the variables of a scheduler; and the two jobs of tools/README.md."""
import json
import os
import re
import subprocess
import sys

import train
from conftest import ROOT, call
from tools.command import UserError
from tools.training import tf_config
from tools.training.cluster import read_cluster

import pytest

SLURM = {"SLURM_JOB_ID": "1234567", "SLURM_STEP_NODELIST": "gpu[07-09]", "SLURM_STEP_NUM_TASKS": "3", "SLURM_NODEID": "1",
         "SLURM_ARRAY_TASK_ID": "3"}
COMMANDS = {  # stand-ins for what a scheduler's machine has
    "scontrol": "#!/bin/sh\n[ \"$*\" = 'show hostnames gpu[07-09]' ] && printf 'gpu07\\ngpu08\\ngpu09\\n'\n",
    "srun": "#!/bin/sh\nshift\nexec \"$@\"\n",
    "python": "#!/bin/sh\n[ $1 = train.py ] && echo \"$TF_CONFIG\" && echo \"$*\" && exit\nexec '%s' \"$@\"\n" % sys.executable}


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """COMMANDS, which come first in the PATH."""
    for name, text in COMMANDS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", "%s:%s" % (tmp_path, os.environ["PATH"]))


@pytest.fixture
def run(monkeypatch, capsys):
    """Run tf_config.py with these arguments: (exit status, stdout, stderr)."""
    return lambda *arguments: call(monkeypatch, capsys, tf_config.main, *arguments)


def test_roles_of_hosts():
    hosts = ["a", "b", "c", "d"]
    cluster = {"chief": ["a:7"], "worker": ["b:7", "c:7"], "ps": ["d:7"]}
    assert [tf_config.make_config(hosts, i, 7, 1) for i in range(4)] == [{"cluster": cluster, "task": {
        "type": job, "index": index}} for job, index in (("chief", 0), ("worker", 0), ("worker", 1), ("ps", 0))]
    assert tf_config.make_config(["a"], 0, 7, 0) == {"cluster": {"chief": ["a:7"]}, "task": {"type": "chief", "index": 0}}
    for index, servers in (4, 1), (-1, 1), (0, 4):
        with pytest.raises(UserError, match="host %d of 4, with %d parameter servers, is none" % (index, servers)):
            tf_config.make_config(hosts, index, 7, servers)


def test_slurm(run, commands, monkeypatch):
    status, _, err = run()
    assert status == 1 and "no task of Slurm: 'SLURM_STEP_NODELIST' is not as srun sets it" in err
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    status, out, _ = run("--ps", 1)
    monkeypatch.setenv("TF_CONFIG", out)
    assert status == 0 and read_cluster() == (
        {"chief": ["gpu07:24567"], "worker": ["gpu08:24567"], "ps": ["gpu09:24567"]}, "worker", 0)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "6")
    assert run()[2] == "error: 6 tasks on 3 nodes: give srun --ntasks-per-node=1\n"
    monkeypatch.setenv("SLURM_STEP_NODELIST", "nowhere")
    assert run()[2].startswith("error: scontrol cannot say which hosts nowhere are: ")
    assert run("--hosts", "a", "b")[0] == 2


def run_job(text, environ):
    """(TF_CONFIG, the options of train.py) that the shell commands of a job come to."""
    config, command = subprocess.check_output(["bash", "-c", text], cwd=ROOT, env=dict(os.environ, **environ)).decode().splitlines()
    return json.loads(config), command.split()[1:]


@pytest.mark.parametrize("kind", ["bash", "yaml"])
def test_the_jobs_of_the_readme(kind, commands, monkeypatch):
    with open(os.path.join(ROOT, "tools", "README.md")) as file:
        text = re.search("```%s\n(.*?)```" % kind, file.read(), re.DOTALL).group(1)
    if kind == "bash":
        config, options = run_job(text, SLURM)
        hosts, port, scale = ["gpu07", "gpu08", "gpu09"], 24567, "x3"
    else:
        config, options = run_job(re.search('"(.*?)"', text, re.DOTALL).group(1), {"JOB_COMPLETION_INDEX": "1"})
        hosts, port, scale = ["drsan-%d.drsan" % i for i in range(3)], 4000, "x2"
    assert config == tf_config.make_config(hosts, 1, port, 1) and config["task"] == {"type": "worker", "index": 0}
    monkeypatch.setattr(sys, "argv", ["train.py"] + options)
    args = train.parse_args()
    assert (args.scale, args.data) == (scale, "data/DIV2K/DIV2K_train_HR")
