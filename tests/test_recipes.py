"""Recipes, as options and numbers, and the learning rate."""
import argparse

import train
from conftest import call
from model import MODELS, SCALES
from tools.training import history
from tools.training.recipes import Recipe, learning_rate, make_recipe

import pytest


def test_paper_recipe():
    rates = {(model, scale): make_recipe("paper", model, scale).rate for model in MODELS for scale in SCALES}
    assert {rates[model, "x2"] for model in MODELS} == {2e-4}
    assert [rates[model, "x3"] for model in ("32s", "48s", "48m", "32m")] == [2e-4, 1e-4, 1e-4, 5e-5]
    assert [rates[model, "x4"] for model in ("32s", "48s", "32m", "48m")] == [2e-4, 2e-4, 1e-4, 1e-4]
    assert make_recipe("paper", "32s", "x2")._replace(steps=0) == Recipe(2e-4, "halve", 0, 0, 16, 48, 1, 0, 0, "adam", 0, 0)


def test_learning_rate():
    paper = make_recipe("paper", "32s", "x2")
    assert [learning_rate(paper, step) for step in (0, 199999, 200000, 399999, 400000)] == [2e-4, 2e-4, 1e-4, 1e-4, 5e-5]
    fast = Recipe(1e-3, "cosine", 9, 1000, 16, 32, 1, 0, 0.999, "muon", 1, 10)
    assert learning_rate(fast, 0) == pytest.approx(1e-4)
    assert learning_rate(fast, 4) == pytest.approx(5e-4, rel=1e-3)
    assert learning_rate(fast, 500) == pytest.approx(5e-4)
    assert learning_rate(fast, 999) < 1e-8


def test_the_recipe_for_cpus_is_named_where_a_training_takes_days(monkeypatch, capsys):
    """With the first line of the log, whose speed is that of steps alone."""
    now = [1000.0]
    run = argparse.Namespace(config=dict(recipe="paper", model="32s", scale="x2"), seconds=0, log=lambda _: None)
    monkeypatch.setattr(history.time, "time", lambda: now[0])
    meter = history.Meter(run, make_recipe("paper", "32s", "x2"), 10, on_cpu=True)
    for _ in range(10):
        now[0] += 0.5
        meter.add(0.1, 1, False)
        with meter.paused():
            now[0] += 100
    meter.log(20, 1e-3)
    line, note = capsys.readouterr().out.splitlines()  # 32 images/s
    assert line.startswith("step      20/1000000  loss 0.10000  rate 1.00e-03    32.0 images/s  wait  0.0 %  left 138:53:10")
    # fast: 30,000 steps of 8 x 32^2 pixels instead of 16 x 48^2
    assert note == "note: this takes 6 days, a plan for GPUs; --recipe fast, for CPUs, about 0.9 hours here"
    meter.add(0.1, 1, False)
    now[0] += 0.5
    meter.log(21, 1e-3)
    assert "note" not in capsys.readouterr().out
    for kind, speed in ("paper", 200), ("fast", 0.1):
        assert not history.format_hint(dict(run.config, recipe=kind), make_recipe(kind, "32s", "x2"), 0, speed)


@pytest.mark.parametrize("option", ["--rate", "--steps", "--batch", "--patch", "--candidates"])
def test_values_of_recipes_are_positive(option, monkeypatch, capsys):
    status, _, err = call(monkeypatch, capsys, train.parse_args, "--data", "photos", option, 0)
    assert status == 2 and "argument %s: invalid positive" % option in err


@pytest.mark.parametrize("options, message", [
    (["--ema", 1], "argument --ema: invalid fraction float value"),
    (["--warmup", -1], "argument --warmup: invalid not negative int value"),
    (["--seed", -1], "argument --seed: invalid not negative int value"),
    (["--pairs", 8, "--shards", 16], "--pairs 8 cannot fill --shards 16"),
    (["--run", "runs/a[1]"], "--run runs/a[1]: TensorFlow takes"),
])
def test_options_that_cannot_be(options, message, monkeypatch, capsys):
    status, _, err = call(monkeypatch, capsys, train.parse_args, "--data", "photos", *options)
    assert status == 2 and message in err
