"""tools/data/make_photo_set.py: what it cuts, what it leaves out and names, and the list."""
import os
import subprocess

from conftest import ROOT, call
from tools.data import make_photo_set
from tools.data.photographs import photograph_of
from tools.files import file_digest, read_csv
from utils import read_image

import numpy as np
import pytest
from PIL import Image


def texture(seed, size=(400, 320), cells=(40, 32)):
    """A colored image of random blobs, so many in x and y, that is like no other; more are more detail."""
    noise = np.random.RandomState(seed).randint(0, 256, cells[::-1] + (3,)).astype(np.uint8)
    return Image.fromarray(noise).resize(size, Image.BICUBIC)


@pytest.fixture
def snapshots(tmp_path, monkeypatch):
    """A folder with a snapshot of owner/one; the list has its photographs, and others that are not there."""
    repository = tmp_path / "snapshots" / "owner+one" / "repo"
    repository.mkdir(parents=True)
    pictures = [("a", texture(0)), ("b", texture(1)), ("c", texture(2, (360, 200)))]
    for name, image in pictures:
        image.save(str(repository / (name + ".jpg")), quality=90)
    (repository / "d.jpg").write_bytes(b"no photograph")
    for command in (["init", "-q"], ["add", "."],
                    ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "photographs"]):
        subprocess.check_call(["git"] + command, cwd=str(repository))
    lines = ["repository,path,blob,downscale"]
    for name in "abcd":
        blob = file_digest(str(repository / (name + ".jpg")), "git blob")
        lines.append("owner/one,%s.jpg,%s,%s" % (name, blob, 1 if name == "c" else 2))
    lines += ["owner/one,gone.jpg,%040d,1" % 1, "owner/two,x.jpg,%040d,1" % 2, "owner/two,y.jpg,%040d,1" % 3]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    monkeypatch.setattr(make_photo_set, "LIST", str(tmp_path / "list.csv"))
    monkeypatch.setattr(make_photo_set, "TILE", 96)
    return tmp_path / "snapshots"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run make_photo_set.py with these arguments: (exit status, stdout, stderr)."""
    return lambda *arguments: call(monkeypatch, capsys, make_photo_set.main, *arguments + ("--workers", 1))


def detail(pixels):
    """The mean absolute Laplacian of luma."""
    y = np.asarray(Image.fromarray(pixels).convert("L"), float)
    return np.abs(4 * y[1:-1, 1:-1] - y[:-2, 1:-1] - y[2:, 1:-1] - y[1:-1, :-2] - y[1:-1, 2:]).mean()


def test_photographs_become_tiles(snapshots, tmp_path, run, monkeypatch):
    out, exclude = tmp_path / "out", tmp_path / "benchmark" / "HR"
    exclude.mkdir(parents=True)
    texture(1).resize((300, 240), Image.BICUBIC).save(str(exclude / "b.png"))
    photos = {name: Image.open(str(snapshots / "owner+one" / "repo" / (name + ".jpg"))) for name in "ac"}
    a = np.asarray(photos["a"].resize((200, 160), Image.LANCZOS))
    a_tiles = [a[top:top + 72, left:left + 96] for top in (8, 80) for left in (4, 100)]
    c = np.asarray(photos["c"])
    c_tiles = [c[top:top + 96, left:left + 84] for top in (4, 100) for left in (12, 96, 180, 264)]
    threshold = sorted(detail(tile) for tile in a_tiles + c_tiles)[3] - 1e-3  # three are flatter
    monkeypatch.setattr(make_photo_set, "MIN_DETAIL", threshold)
    out.mkdir()
    (out / "manifest.csv").write_text("file,repo,path\nold_0001_000.png,a,b\n../list.csv,a,b")
    for name in "old_0001_000.png", "DSC_1234_001.png":
        (out / name).write_bytes(b"old")

    status, text, _ = run(snapshots, out, "--exclude", tmp_path / "benchmark")
    assert status == 0 and (tmp_path / "list.csv").exists()
    rows = read_csv(str(out / "manifest.csv"))
    blobs = {row["path"]: row["blob"] for row in read_csv(str(tmp_path / "list.csv"))}
    kept = [("%s.jpg" % name, number, tile) for name, tiles in (("a", a_tiles), ("c", c_tiles))
            for number, tile in enumerate(tiles) if detail(tile) >= threshold]
    assert len(rows) == len(kept) == 9
    for row, (path, number, tile) in zip(rows, kept):
        assert row["file"] == "owner+one_%s_%03d.png" % (blobs[path][:8], number)
        assert (row["repo"], row["path"], row["blob"]) == ("owner/one", path, blobs[path])
        assert (int(row["height"]), int(row["width"])) == tile.shape[:2]
        np.testing.assert_array_equal(read_image(str(out / row["file"])), tile)
    files = [row["file"] for row in rows]
    assert sorted(os.listdir(str(out))) == sorted(["DSC_1234_001.png", "manifest.csv"] + files)
    photographs = photograph_of(str(out), [str(out / file) for file in files])
    assert set(photographs.values()) == {"owner/one/a.jpg", "owner/one/c.jpg"}
    megapixels = sum(tile.shape[0] * tile.shape[1] for _, _, tile in kept) / 1e6
    assert text.splitlines() == [
        "benchmark: b.jpg of owner/one", "undecodable: d.jpg of owner/one", "missing: gone.jpg of owner/one",
        "missing: x.jpg of owner/two", "missing: y.jpg of owner/two",
        "2 used, 3 missing, 1 undecodable, 1 benchmark: 9 tiles, %.1f megapixels" % megapixels]

    bare = tmp_path / "bare" / "owner+one" / "repo"  # gives the same
    subprocess.check_call(["git", "clone", "-q", "--bare", str(snapshots / "owner+one" / "repo"), str(bare)])
    assert run(tmp_path / "bare", tmp_path / "again", "--exclude", tmp_path / "benchmark")[0] == 0
    assert (tmp_path / "again" / "manifest.csv").read_bytes() == (out / "manifest.csv").read_bytes()
    text = run(tmp_path / "bare", tmp_path / "again")[1]
    assert text.endswith("\n3 used, 3 missing, 1 undecodable, 0 benchmark: 13 tiles, 0.1 megapixels\n")


def test_no_repository_is_an_error_before_an_older_set_is_removed(snapshots, tmp_path, run):
    assert run(snapshots, tmp_path / "out", "--exclude", snapshots)[0] == 2  # has no PNG
    status, _, err = run(tmp_path / "nowhere", tmp_path / "out")
    assert status == 1
    assert err == "error: no <owner>+<name>/repo in %s: clone the repositories of %s there\n" % (
        tmp_path / "nowhere", tmp_path / "list.csv")
    assert not (tmp_path / "out").exists()


def test_the_list():
    rows = read_csv(os.path.join(ROOT, "checkpoints", "photographs.csv"))
    assert len(rows) == len({row["blob"] for row in rows}) == len({row["blob"][:8] for row in rows}) == 1760
    assert len({row["repository"] for row in rows}) == 38
    assert {row["downscale"] for row in rows} == {"1", "2", "2.5"}
    bsds = [row["path"] for row in rows if row["repository"] == "BIDS/BSDS500"]
    assert len(bsds) == 398 and not any("/val/" in path for path in bsds)  # B100
    assert "BSDS500/data/images/train/302003.jpg" not in bsds  # Set5's "woman" is cut from it
