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
    assert make_recipe("paper", "32s", "x2")._replace(steps=0) == Recipe(2e-4, "halve", 0, 0, 16, 48, 1, 0, "adam", 0, 0)


def test_learning_rate():
    paper = make_recipe("paper", "32s", "x2")
    assert [learning_rate(paper, step) for step in (0, 199999, 200000, 399999, 400000)] == [2e-4, 2e-4, 1e-4, 1e-4, 5e-5]
    fast = Recipe(1e-3, "cosine", 9, 1000, 16, 32, 1, 0.999, "muon", 1, 10)
    assert learning_rate(fast, 0) == pytest.approx(1e-4)
    assert learning_rate(fast, 4) == pytest.approx(5e-4, rel=1e-3)
    assert learning_rate(fast, 500) == pytest.approx(5e-4)
    assert learning_rate(fast, 999) < 1e-8


def test_how_long_a_training_takes(monkeypatch, capsys):
    """Said once, after five seconds of steps, validations not counted, the first step neither; `fast` is named where it is days."""
    now, run = [1000.0], argparse.Namespace(config=dict(recipe="paper", model="32s", scale="x2"), seconds=0, log=lambda _: None)
    monkeypatch.setattr(history.time, "time", lambda: now[0])
    meter = history.Meter(run, make_recipe("paper", "32s", "x2"), 10, on_cpu=True)
    lines = []
    for i in range(10):
        now[0] += 2 if i == 0 else 0.5
        meter.add(0.1, 1, False)
        lines.append(capsys.readouterr().out)
        with meter.paused():
            now[0] += 100
    # 5.5 s after 8 steps; fast: 30,000 steps of 8 x 32^2 pixels instead of 16 x 48^2
    assert lines == 7 * [""] + ["0.50 s a step: about 5 days, 18:53:11 for the 999982 steps that are left\nnote: that is a plan "
                                "for GPUs; --recipe fast, for CPUs, takes about 0:55:33 here\n"] + 2 * [""]
    meter = history.Meter(run, make_recipe("fast", "32s", "x2"), 0, on_cpu=True)
    for seconds in 20, 2:
        now[0] += seconds
        meter.add(0.1, 1, False)
    assert capsys.readouterr().out == ("the first step took 20.0 s, with what is prepared in it\n"
                                       "2.00 s a step: about 16:39:56 for the 29998 steps that are left\n")
    for kind, seconds, on_cpu in ("paper", 0.1, True), ("paper", 0.5, False), ("fast", 100, True):
        text = history.format_plan(dict(run.config, recipe=kind), make_recipe(kind, "32s", "x2"), 0, seconds, on_cpu)
        assert "for the %d steps that are left" % make_recipe(kind, "32s", "x2").steps in text and "note" not in text


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
