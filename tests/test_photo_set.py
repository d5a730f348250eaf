"""tools/data/make_photo_set.py: which photographs of a git repository it takes, what it cuts from them, and what it leaves alone."""
import csv
import hashlib
import os
import subprocess

from conftest import call
from tools.data import make_photo_set
from utils import read_image

import numpy as np
import pytest
from PIL import Image


def texture(seed, size=(400, 320), cells=(40, 32)):
    """A colored image of random blobs, so many in x and y, that is like no other; more of them are more detail."""
    noise = np.random.RandomState(seed).randint(0, 256, cells[::-1] + (3,)).astype(np.uint8)
    return Image.fromarray(noise).resize(size, Image.BICUBIC)


@pytest.fixture
def snapshots(tmp_path, monkeypatch):
    """A folder with a snapshot of owner/one, the one source; the photographs are in tmp_path/one/photos."""
    source = make_photo_set.Source("one", "owner/one", ("photos",), 2, min_megapixels=0.05)
    monkeypatch.setattr(make_photo_set, "SOURCES", {"one": source})
    photos = tmp_path / "one" / "photos"
    photos.mkdir(parents=True)
    pictures = [("a", texture(0)), ("b", texture(0).resize((360, 288), Image.BICUBIC)), ("c", texture(1)),
                ("d", texture(2, cells=(10, 8))), ("e", texture(3).convert("L")), ("f", texture(4, (200, 220)))]
    for name, image in pictures:
        image.save(str(photos / (name + ".jpg")), quality=90)
    (photos / "g.JPG").write_bytes(b"no photograph")
    (photos / "note.txt").write_bytes(b"not looked at")
    texture(5).save(str(tmp_path / "one" / "elsewhere.jpg"))
    for command in (["init", "-q"], ["add", "."],
                    ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "photographs"],
                    ["clone", "-q", "--bare", ".", str(tmp_path / "snapshots" / "owner+one" / "repo")]):
        subprocess.check_call(["git"] + command, cwd=str(tmp_path / "one"))
    return tmp_path / "snapshots"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run make_photo_set.py with these arguments: (exit status, stdout, stderr)."""
    return lambda *arguments: call(monkeypatch, capsys, make_photo_set.main, *arguments + ("--workers", 1))


def test_photographs_become_tiles(snapshots, tmp_path, run):
    out, exclude = tmp_path / "out", tmp_path / "benchmark" / "HR"
    exclude.mkdir(parents=True)
    texture(1).resize((300, 240), Image.BICUBIC).save(str(exclude / "c.png"))
    out.mkdir()
    for name in "DSC_1234_001.png", "one_0009_000.png", "manifest.csv":
        (out / name).write_bytes(b"old")
    status, text, _ = run(snapshots, out, "--tile", 96, "--exclude", tmp_path / "benchmark")
    assert status == 0
    # 200x160 pixels give two tiles side by side; of the four of a and d, the flattest 15 % is the one with the least detail
    with open(str(out / "manifest.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows][:2] == ["one_0000_000.png", "one_0000_001.png"]
    assert len(rows) == 3 and rows[2]["file"] in ("one_0003_000.png", "one_0003_001.png")
    for row, name in zip(rows, ["a.jpg", "a.jpg", "d.jpg"]):
        data = (tmp_path / "one" / "photos" / name).read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        assert (row["repo"], row["path"], row["blob"]) == ("owner/one", "photos/" + name, blob)
        tile = Image.open(str(out / row["file"]))
        assert tile.size == (96, 96) == (int(row["width"]), int(row["height"]))
        y = np.asarray(tile.convert("L"), float)
        laplacian = 4 * y[1:-1, 1:-1] - y[:-2, 1:-1] - y[2:, 1:-1] - y[1:-1, :-2] - y[1:-1, 2:]
        assert float(row["detail"]) == pytest.approx(np.abs(laplacian).mean(), abs=1e-4)
    photo = Image.open(str(tmp_path / "one" / "photos" / "a.jpg")).resize((200, 160), Image.LANCZOS)
    np.testing.assert_array_equal(read_image(str(out / "one_0000_001.png")), np.asarray(photo)[32:128, 100:196])
    assert sorted(os.listdir(str(out))) == sorted(["DSC_1234_001.png", "manifest.csv"] + [row["file"] for row in rows])
    head, counts = text.splitlines()[0].split(), text.splitlines()[1].split()
    assert dict(zip(head[1:8], map(int, counts[1:8]))) == dict(
        used=2, missing=0, undecodable=1, unsuitable=1, gray=1, benchmark=1, duplicate=1)
    assert counts[0] == "one" and counts[8:10] == ["3", "0.0"]

    again = tmp_path / "again"  # the most detailed alone
    assert run(snapshots, again, "--tile", 96, "--exclude", tmp_path / "benchmark", "--megapixels", 0.01)[0] == 0
    chosen = [row for row in rows if row["file"].startswith("one_0000")]
    best = max(chosen, key=lambda row: float(row["detail"]))["file"]
    assert sorted(os.listdir(str(again))) == ["manifest.csv", best]
    assert (again / best).read_bytes() == (out / best).read_bytes()


def test_failures(snapshots, tmp_path, run, monkeypatch):
    assert run(snapshots, tmp_path / "out", "--tile", 0)[0] == 2
    assert run(snapshots, tmp_path / "out", "--sources", "two")[0] == 2
    two = make_photo_set.Source("two", "owner/two", (".",), 1)
    monkeypatch.setitem(make_photo_set.SOURCES, "two", two)
    git_dir = snapshots / "owner+two" / "repo"
    status, _, err = run(snapshots, tmp_path / "out")
    assert status == 1 and err == (
        "error: 1 of 2 snapshots are missing in %s: git clone --bare https://github.com/owner/two %s\n" % (snapshots, git_dir))
    git_dir.mkdir(parents=True)
    status, _, err = run(snapshots, tmp_path / "out")
    assert status == 1 and err.startswith("error: cannot list the photographs in %s: fatal: " % git_dir) and err.count("\n") == 1
    assert not (tmp_path / "out").exists()
