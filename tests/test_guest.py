"""load_model in other people's programs: what is theirs stays as it is."""
import os
import re
import subprocess
import sys

import pytest

from conftest import ROOT, run_script

GUEST = os.path.join(ROOT, "tests", "guest.py")


def test_everything_of_theirs_works_beside_and_no_line_is_lost():
    status, out, err = run_script(GUEST, ROOT)
    assert status == 0 and out.splitlines()[-1] == "a good guest", err
    count = int(out.splitlines()[0].split()[1])
    # a line may come in the middle of one that TensorFlow writes in pieces
    assert re.findall(r"line (\d+)\n", err) == [str(i) for i in range(count)]


@pytest.mark.parametrize("options", [["-OO"]] + ([["-P"]] if sys.version_info >= (3, 11) else []))
def test_commands_run_without_docstrings_and_without_their_folder(options):
    for script in "test.py", "train.py", "tools/ship.py":
        process = subprocess.run([sys.executable] + options + [os.path.join(ROOT, script), "--help"],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.returncode == 0 and b"usage" in process.stdout, process.stderr


def test_a_module_of_theirs_with_a_name_of_ours_is_named(tmp_path):
    (tmp_path / "utils.py").write_text("")
    (tmp_path / "program.py").write_text(
        "import sys\nimport utils\nsys.path.insert(0, %r)\nimport tools.network\n" % ROOT)
    status, _, err = run_script(tmp_path / "program.py")
    last = err.splitlines()[-1]
    assert status == 1 and ROOT in last
    assert last.startswith("ImportError: the module utils is %s" % (tmp_path / "utils.py"))
