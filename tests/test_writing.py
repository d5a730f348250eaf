"""Targets that cannot be written are found before any work, by one function and in one wording."""
import errno
import os
import re
import resource
import runpy
import sys

from conftest import ROOT
from tools.command import UserError, run_main
from tools.files import check_writable

import pytest


def test_what_cannot_be_written_is_known_before(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    check_writable([str(tmp_path / "a" / "b"), None], [str(tmp_path / "c" / "d.csv"), str(tmp_path / "file"), None])
    monkeypatch.chdir(tmp_path)
    check_writable(["runs"], ["d.csv"])
    assert os.listdir(str(tmp_path)) == ["file"] and (tmp_path / "file").read_text() == "kept"
    for folders, files, message in [(["file/run"], [], "cannot write file/run: Not a directory"),
                                    (["file"], [], "cannot write file: Not a directory"),
                                    ([], ["file/a.png"], "cannot write file/a.png: Not a directory"),
                                    ([], [str(tmp_path)], "cannot write %s: Is a directory" % tmp_path),
                                    (["/proc/run"], [], "cannot write /proc/run: ")]:
        with pytest.raises(UserError, match=re.escape(message)):
            check_writable(folders, files)


def test_a_full_disk_is_known_before(tmp_path):
    """A limit on the size of files stands for it."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(UserError) as error:
            check_writable([str(tmp_path / "run")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(error.value) == "cannot write %s: File too large" % (tmp_path / "run")


def test_what_the_system_refuses_is_said_in_one_wording(capsys):
    for error, expected in [(OSError(errno.EROFS, "Read-only file system", "runs"), "cannot write runs: Read-only file system"),
                            (OSError(errno.ENOSPC, "No space left on device"), "cannot write a file: No space left on device"),
                            (OSError(errno.ENOENT, "No such file or directory", "a.csv"), "a.csv: No such file or directory"),
                            (OSError("odd"), "odd")]:
        def main(error=error):
            raise error
        with pytest.raises(SystemExit):
            run_main(main)
        assert capsys.readouterr().err == "error: %s\n" % expected


@pytest.mark.parametrize("command", [
    "train.py --data nowhere --run TARGET", "train.py --data nowhere --prepare --records TARGET", "test.py --output TARGET",
    "test.py --csv TARGET", "tools/ship.py nowhere --to TARGET",
    "tools/plot_training.py nowhere --output TARGET", "tools/data/make_photo_set.py nowhere TARGET",
    "tools/gpu/train_jax.py --data nowhere --run TARGET", "tools/paper/tables.py --output TARGET",
    "tools/paper/figures.py dra --output TARGET", "tools/paper/ablation.py --data nowhere --runs TARGET",
    "tools/pictures/export.py --checkpoint nowhere --out TARGET"])
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
    assert re.match("error: cannot write %s(.png)?: Not a directory\n$" % re.escape(str(tmp_path / "file" / "a")), err), err
