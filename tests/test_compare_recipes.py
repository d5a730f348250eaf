"""tools/compare_recipes.py: what it takes for a candidate, and what it refuses before photographs are loaded."""
import pytest

import train
from conftest import call
from tools import compare_recipes


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
    monkeypatch.setattr(train, "has_bfloat16", lambda: False)
    status, err = run("batch=4", "--precision", "bfloat16")
    assert status == 1 and "cannot convolve in bfloat16: leave out --precision, or use TensorFlow 2\n" in err
