"""README.md: its length, and its commands and Python blocks, which run here and print what it shows."""
import os
import re
import shutil
import subprocess
import sys

from conftest import ROOT
from utils import find_dataset, read_image, save_image

import numpy as np
import pytest

with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
    README = file.read()
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", README, re.M | re.S)
NOT_RUN = {  # commands that need a network, a GPU or minutes, by what they contain
    "--download": "the authors' weights", "--data data/DIV2K": "days", "-m venv": "the installation",
    "requirements.txt | ": "another Python", "--gpu 0 --model 32s --scale x2 --dataset Set5": "Set5"}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the project, with a photo.jpg of 600x400 pixels."""
    folder = tmp_path_factory.mktemp("copy") / "clone"
    left_out = shutil.ignore_patterns(".*", "runs", "out", "tests", "__pycache__")
    shutil.copytree(ROOT, str(folder), ignore=lambda path, names: left_out(path, names) | (
        {"data"} if path == ROOT else set()))
    photograph = find_dataset("Sample", 2, "").pairs[2].hr  # of this size
    save_image(str(folder / "photo.png"), read_image(photograph))
    shutil.move(str(folder / "photo.png"), str(folder / "photo.jpg"))  # what it is, its content says
    return folder


def run(clone, *command):
    """Run a command in the folder; returns what it prints."""
    process = subprocess.Popen(command, cwd=str(clone), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


def split_numbers(text):
    """(text without times and decimal numbers, these numbers)."""
    text, pattern = re.sub(r"[\d.]+ s\b|[\d.]+ megapixels/s", "-", text), r"\d+\.\d+"
    return re.sub(pattern, "-", text), [float(number) for number in re.findall(pattern, text)]


def test_length():
    assert len(README.splitlines()) <= 150
    assert not [line for line in README.splitlines() if len(line) > 110 and not line.startswith("|")]


def test_what_is_not_run_is_there():
    for part in NOT_RUN:
        assert part in README


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_blocks_run_as_printed(clone, block):
    kind, text, shown = BLOCKS[block]
    printed = ""
    if kind == "python":
        printed, shown = run(clone, sys.executable, "-c", text), re.search(r"# (\(.*\n)", text).group(1)
    for line in text.splitlines() if kind == "sh" else ():
        command = line.replace(".venv/bin/python ", "python ")
        if any(part in line for part in NOT_RUN):
            continue
        assert command.startswith("python "), command
        shutil.rmtree(str(clone / "out"), ignore_errors=True)
        printed += run(clone, sys.executable, *command.split("#")[0].split()[1:])
    if shown:
        (words, numbers), (shown_words, shown_numbers) = split_numbers(printed), split_numbers(shown)
        assert words == shown_words
        np.testing.assert_allclose(numbers, shown_numbers, rtol=0, atol=1.1e-3)  # TensorFlows round


def test_commands_leave_the_clone_clean():
    """What they write is ignored by git."""
    with open(os.path.join(ROOT, ".gitignore")) as file:
        ignored = file.read().split()
    for written in "/runs/", "/out/", "/photo.jpg", "/data/", "/.venv*/":
        assert written in ignored


def test_links_lead_somewhere():
    for folder in "", "figures", "checkpoints", "tools", os.path.join("tools", "gpu"):
        path = os.path.join(ROOT, folder, "README.md")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", re.sub("`[^`]*`", "", text)):
            target = os.path.join(os.path.dirname(path), target) if target else path
            assert os.path.exists(target), (path, target)
            if anchor:
                with open(target, encoding="utf-8") as file:
                    titles = re.findall(r"^#+ (.*)$", file.read(), re.MULTILINE)
                anchors = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
                assert anchor in anchors, (path, anchor)
