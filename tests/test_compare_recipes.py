"""tools/compare_recipes.py: what it takes for a candidate, and what it refuses before photographs are loaded."""
import os
import re
import shutil

from conftest import ROOT, call
from model import MODELS, Variant
from tools import compare_recipes, runtime
from tools.command import UserError
from tools.data.photographs import hold_out
from tools.files import write_json
from utils import find_dataset, read_image

import pytest
from PIL import Image


@pytest.fixture
def run(monkeypatch, capsys):
    """Run compare_recipes.py with these arguments: (exit status, stderr)."""
    return lambda *arguments: call(monkeypatch, capsys, lambda: compare_recipes.compare(compare_recipes.parse_args()),
                                   "--data", "nowhere", *arguments)[::2]


def test_candidates(run):
    assert compare_recipes.parse_candidate("batch=4,rate=1e-3,warmup=0,ema=0,optimizer=adam,decay=0.5,skip_above=0") == dict(
        batch=4, rate=1e-3, warmup=0, ema=0, optimizer="adam", decay=0.5, skip_above=0)
    for text in "batch=0", "patch=-8", "candidates=0", "rate=nan", "ema=1", "warmup=-1", "decay=-1", "optimizer=sgd", "batch":
        status, err = run(text)
        assert status == 2 and "invalid parse_candidate value: '%s'" % text in err
    status, err = run("steps=9")
    assert status == 2 and "unknown value steps: expected batch, candidates, decay, ema, optimizer, patch, rate, schedule, skip_above, warmup" in err


def test_bfloat16_is_refused_at_once_where_there_is_none(run, monkeypatch):
    monkeypatch.setattr(runtime, "has_bfloat16", lambda: False)
    status, err = run("batch=4", "--precision", "bfloat16")
    assert status == 1 and "cannot convolve in bfloat16: leave out --precision, or use TensorFlow 2\n" in err


def test_candidates_are_trained_and_compared(monkeypatch, capsys, tmp_path):
    """The same candidate gives the same twice, and a strong weight decay smaller kernels; the best on the held-out is first."""
    monkeypatch.setitem(MODELS, "32s", Variant(channels=16, drags=1, blocks=1))
    for i, pair in enumerate(find_dataset("Sample", 2, "").pairs):
        Image.fromarray(read_image(pair.hr)[100:200, 100:220]).save(str(tmp_path / ("%d.png" % i)))
    share = next(i / 100 for i in range(1, 100) if len(held_out(str(tmp_path), i / 100)) == 1)
    status, out, err = call(
        monkeypatch, capsys, lambda: compare_recipes.compare(compare_recipes.parse_args()), "--data", tmp_path,
        "--pixels", 0.004, "--valid", tmp_path, "--valid-share", share, "--workers", 1, "--threads", 1,
        "batch=2,patch=12,warmup=0", "batch=2,patch=12,warmup=0", "batch=2,patch=12,warmup=0,decay=100")
    assert status == 0, err
    lines = out.splitlines()
    first, again, decayed = [[float(value) for value in re.findall(r"[-+]?\d+\.\d+(?:e-?\d+)?", line)[:2]] for line in lines
                             if line.startswith("done: ")]
    assert first == again != decayed
    table = [line.split() for line in lines[-3:]]
    assert [row[3] for row in table] == ["14"] * 3  # 4,000 pixels in patches of 2 x 144
    assert sorted((float(row[1]) for row in table), reverse=True) == [float(row[1]) for row in table]
    rms = {" ".join(row[8:]): float(row[6]) for row in table}
    assert rms["batch 2, decay 100.0, patch 12, warmup 0"] < 0.8 * rms["batch 2, patch 12, warmup 0"]


@pytest.mark.parametrize("seen", [True, False])
def test_weights_that_have_seen_the_held_out_are_noted(monkeypatch, capsys, tmp_path, seen):
    for name in "ab":
        Image.new("RGB", (32, 32)).save(str(tmp_path / (name + ".png")))
    share = next(i / 100 for i in range(1, 100) if len(held_out(str(tmp_path), i / 100)) == 1)
    (kept,), (held,) = hold_out(str(tmp_path), share)
    start = tmp_path / "start"
    shutil.copytree(os.path.join(ROOT, "checkpoints", "x2", "32s"), str(start))
    write_json(str(start / "config.json"), dict(model="32s", scale="x2", trained_before=[],
                                                held_out=[os.path.basename(kept if seen else held)]))
    status, _, err = call(
        monkeypatch, capsys, lambda: compare_recipes.compare(compare_recipes.parse_args()), "--data", tmp_path,
        "--valid-share", share, "--workers", 1, "--init-from", start, "patch=500")
    assert status == 1 and "smaller than 1000 pixels a side" in err
    assert ("may have been trained on photographs that are held out here" in err) == seen


def held_out(folder, share):
    try:
        return hold_out(folder, share)[1]
    except UserError:
        return []
