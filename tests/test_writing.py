"""Targets that cannot be written are found before any work, by one function and in one wording."""
import contextlib
import errno
import importlib.util
import os
import re
import resource
import runpy
import signal
import sys

from conftest import ROOT
from tools.command import UserError, run_main
from tools.files import CsvLog, check_writable, read_csv, replacing, write_text

import pytest


def test_what_cannot_be_written_is_known_before(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    check_writable([str(tmp_path / "a" / "b"), None],
                   [str(tmp_path / "c" / "d.csv"), str(tmp_path / "file"), None])
    monkeypatch.chdir(tmp_path)
    check_writable(["runs"], ["d.csv"])
    assert os.listdir(str(tmp_path)) == ["file"] and (tmp_path / "file").read_text() == "kept"
    for folders, files, message in [
            (["file/run"], [], "cannot write file/run: Not a directory"),
            (["file"], [], "cannot write file: Not a directory"),
            (["/proc/run"], [], "cannot write /proc/run: "),
            ([], ["file/a.png"], "cannot write file/a.png: Not a directory"),
            ([], [str(tmp_path)], "cannot write %s: Is a directory" % tmp_path)]:
        with pytest.raises(UserError, match=re.escape(message)):
            check_writable(folders, files)


def test_a_temporary_name_is_nobodys(tmp_path):
    """Neither a file of the user's, nor another process's; of the longest names, too."""
    for name in "a.png", "n" * 255:
        path, other = str(tmp_path / name), tmp_path / "a.png.tmp"
        other.write_text("mine")
        with replacing(path) as one, replacing(path) as two:
            for number, temporary in enumerate((one, two)):
                with open(temporary, "w") as file:
                    file.write(str(number))
                assert re.match(re.escape(name[:242]) + r"\.[0-9a-f]{8}\.tmp$", os.path.basename(temporary))
        with open(path) as file:
            assert file.read() == "0" and other.read_text() == "mine"
        with open(path) as reader:  # of the old file: the new one takes its name, and does not overwrite it
            write_text(path, "new")
            assert reader.read() == "0"
        with pytest.raises(UserError, match="cannot write .*: full$"), replacing(path) as temporary:
            open(temporary, "w").close()
            raise OSError("full")
    assert sorted(os.listdir(str(tmp_path))) == ["a.png", "a.png.tmp", "n" * 255]


@contextlib.contextmanager
def limited(size):
    """Within this context files have so many bytes at most, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("error, expected", [
    (OSError(errno.EROFS, "Read-only file system", "runs"), "cannot write runs: Read-only file system"),
    (OSError(errno.ENOSPC, "No space left on device"), "cannot write a file: No space left on device"),
    (OSError(errno.ENOENT, "No such file or directory", "a.csv"), "a.csv: No such file or directory"),
    (OSError("odd"), "odd")])
def test_what_the_system_refuses_is_said_in_one_wording(capsys, error, expected):
    def main():
        raise error
    with pytest.raises(SystemExit):
        run_main(main)
    assert capsys.readouterr().err == "error: %s\n" % expected


def test_a_full_disk_is_known_before_and_csv_keeps_its_rows(tmp_path):
    with pytest.raises(UserError, match="^cannot write %s: File too large$" % (tmp_path / "run")), limited(0):
        check_writable([str(tmp_path / "run")])
    log = CsvLog(str(tmp_path / "a.csv"), ("name", "value"))
    log.add((u"\u65e5\udce9", 1))
    log.add(("b", 2))
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with limited(os.path.getsize(log.path) + 5), pytest.raises(UserError, match="a.csv: File too large"):
            log.add(("ccccccccccc", 3))
    finally:
        signal.signal(signal.SIGXFSZ, handler)
    log.add(("d", 4))
    rows = [{"name": u"\u65e5\udce9", "value": "1"}, {"name": "b", "value": "2"}, {"name": "d", "value": "4"}]
    assert [dict(row) for row in read_csv(log.path)] == rows and os.listdir(str(tmp_path)) == ["a.csv"]


@pytest.mark.parametrize("command", [
    "train.py --data nowhere --run TARGET", "train.py --data nowhere --prepare --records TARGET",
    "test.py --output TARGET", "test.py --csv TARGET", "tools/ship.py nowhere --to TARGET",
    "tools/plot_training.py nowhere --output TARGET", "tools/data/make_photo_set.py nowhere TARGET",
    pytest.param("tools/gpu/train_jax.py --data nowhere --run TARGET", marks=pytest.mark.skipif(
        importlib.util.find_spec("jax") is None, reason="without JAX, that is said first")),
    "tools/paper/tables.py --output TARGET",
    "tools/paper/figures.py dra --output TARGET", "tools/paper/ablation.py --data nowhere --runs TARGET",
    "tools/pictures/export.py --checkpoint nowhere --output TARGET"])
def test_every_command_says_so_before_any_work(command, tmp_path, monkeypatch, capsys):
    """Before it finds out that there is no folder `nowhere`."""
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(sys, "argv", command.replace("TARGET", str(tmp_path / "file" / "a")).split())
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(sys.argv[0], run_name="__main__")
    out, err = capsys.readouterr()
    assert stop.value.code == 1 and not out
    assert re.match("error: cannot write %s(.png)?: Not a directory\n$"
                    % re.escape(str(tmp_path / "file" / "a")), err), err
