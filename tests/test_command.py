"""What commands have in common: what is missing, processors, GPUs, files, and where data sets are."""
import argparse
import os
import runpy
import subprocess
import sys

from conftest import ROOT, run_script
from ops import tf
from tools import command, runtime
from tools.files import short_path, to_json
from tools.options import add_data_dir
from utils import download_command

import numpy as np
import pytest

COMMANDS = [os.path.join(folder, name) for folder, _, names in os.walk(ROOT) for name in names
            if name.endswith(".py") and "tests" not in folder and ".venv" not in folder
            and "if __name__" in open(os.path.join(folder, name), encoding="utf-8").read()]
THIS = tuple(sys.version_info)


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: os.path.relpath(path, ROOT))
@pytest.mark.parametrize("version", [(3, 5, 10), (3, 8, 18), THIS])
def test_another_python_and_missing_packages_are_one_line(path, version):
    """By an interpreter without packages (-S), which says that it is of that version."""
    code = "import runpy, sys; sys.version_info = %r; runpy.run_path(%r, run_name='__main__')"
    status, out, err = run_script("-S", "-c", code % (version, path))
    expected = "the package numpy is not installed: pip install -r" if version == THIS else (
        "DRSAN runs on Python 3.6, and on 3.9 or later; this is %d.%d: " % version[:2])
    assert (status, out, len(err.splitlines())) == (1, "", 1) and err.startswith("error: " + expected)


@pytest.mark.parametrize("main, handler", [("train.py", "SIG_DFL"), (".venv/a.py", "default_int_handler")])
def test_ctrl_c_while_a_command_imports_has_no_traceback(main, handler):
    """It ends the process at once, until run_main() begins; other people's programs keep their handler."""
    code = """import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
sys.modules["__main__"].__file__ = %r
from tools import command
assert signal.getsignal(signal.SIGINT) == signal.%s
command.run_main(lambda: signal.getsignal(signal.SIGINT) != signal.default_int_handler)"""
    assert run_script("-c", code % (os.path.join(ROOT, main), handler)) == (0, "", "")


@pytest.mark.parametrize("error", [None, IndexError, OSError])
def test_ctrl_c_is_told_by_what_fails_after_it(capsys, error):
    """As in TensorFlow 1.8, whose stack of graphs can be empty when Ctrl-C comes while it is entered."""
    def main():
        try:
            raise KeyboardInterrupt
        finally:
            if error:
                raise error("pop from empty list")
    with pytest.raises(SystemExit) as stopped:
        command.run_main(main)
    assert (stopped.value.code, capsys.readouterr().err) == (130, "stopped\n")


def test_an_error_of_the_project_itself_has_a_traceback():
    with pytest.raises(IndexError):
        command.run_main(lambda: [].pop())


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: os.path.relpath(path, ROOT))
def test_every_option_is_explained(path, monkeypatch):
    unexplained = []

    def parse(parser, *_):
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for subcommand in action.choices.values():
                    parse(subcommand)
            elif not action.help:
                unexplained.append(action.option_strings or action.dest)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda *arguments: sys.exit(parse(*arguments)))
    monkeypatch.setattr(sys, "argv", [path])
    monkeypatch.syspath_prepend(ROOT)
    with pytest.raises(SystemExit):
        runpy.run_path(path, run_name="__main__")
    assert not unexplained


def test_json_has_no_infinity():
    value = {"b": [1, float("nan"), (2.5, -float("inf"))], "a": np.float64("inf"), "c": "Infinity"}
    assert to_json(value) == '{"a": null, "b": [1, null, [2.5, null]], "c": "Infinity"}'


def test_processors_and_processes(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 6}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert command.cpu_count() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert command.cpu_count() == 8
    monkeypatch.setattr(command.concurrent.futures, "ProcessPoolExecutor", lambda workers: workers)
    for system, workers in ("posix", 100), ("nt", 61):
        monkeypatch.setattr(command, "os", type("os", (), {"name": system}))
        assert command.process_pool(100) == workers and command.process_pool(7) == 7


def test_paths_are_shown_relative_or_absolute(monkeypatch):
    assert short_path(os.path.join(os.getcwd(), "a", "b")) == os.path.join("a", "b")

    def other_drive(path):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")
    monkeypatch.setattr(os.path, "relpath", other_drive)
    assert short_path("a") == os.path.abspath("a")


def test_data_sets_are_here_or_beside_the_scripts(monkeypatch, tmp_path):
    def data_dir():
        parser = argparse.ArgumentParser()
        add_data_dir(parser)
        return parser.parse_args([]).data_dir
    monkeypatch.chdir(os.path.join(ROOT, "tools", "paper"))
    assert data_dir() == os.path.join("..", "..", "data")
    assert download_command("Set5", data_dir()) == "python ../data/download.py Set5 --data-dir ../../data"
    monkeypatch.chdir(tmp_path)
    assert data_dir() == os.path.join(ROOT, "data")
    (tmp_path / "data").mkdir()
    assert data_dir() == "data"
    script = os.path.join(ROOT, "tools", "data", "download.py")
    assert download_command("Set5", "data") == "python %s Set5" % script


@pytest.mark.parametrize("gpus, given, expected", [
    ([0], None, "0"), ([-1], None, "-1"), ([0, 2], None, "0,2"), ([0], "3", "3"), ([1], "4,5", "5"),
    ([1, 0], " 4, 5", "5,4"), ([-1], "4,5", "-1"), ([1], "3", "-1"), ([0], "", "-1"), ([0], "-1", "-1"),
    ([1], "GPU-8f2c,GPU-77aa", "GPU-77aa"), ([0, 1], "GPU-8f2c", "GPU-8f2c")])
def test_gpus_count_within_what_a_scheduler_gives(gpus, given, expected, monkeypatch):
    monkeypatch.setattr(runtime, "GIVEN_GPUS", given)
    for order in "FASTEST_FIRST", "":
        monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "elsewhere")
        if not order:
            monkeypatch.delenv("CUDA_DEVICE_ORDER")
        for _ in range(2):  # the second session counts as the first
            runtime.session_config(gpus)
            assert os.environ["CUDA_VISIBLE_DEVICES"] == expected
        assert os.environ["CUDA_DEVICE_ORDER"] == (order or "PCI_BUS_ID")


@pytest.mark.skipif(tf.__version__.startswith("1."), reason="TensorFlow 1 does not look for them")
def test_tensorflow_does_not_load_what_is_not_needed():
    """Nor is it missing afterwards; what has been imported before stays."""
    code = ("import %s\nfrom tools import command\ncommand.owns_process = True\n"
            "from ops import tf\ntf.__version__\nimport sys\n"
            "print([name in sys.modules for name in ('matplotlib', 'jax')])\n"
            "import matplotlib\nprint('matplotlib' in sys.modules)")
    for first, found in ("sys", False), ("matplotlib", True):
        out = subprocess.check_output([sys.executable, "-c", code % first], cwd=ROOT).decode()
        assert out.splitlines() == [str([found, False]), "True"]
