"""Recipes as numbers, and the learning rate."""
from model import MODELS, SCALES
from tools.training.recipes import Recipe, learning_rate, make_recipe

import pytest


def test_paper_recipe():
    rates = {(model, scale): make_recipe("paper", model, scale).rate for model in MODELS for scale in SCALES}
    assert {rates[model, "x2"] for model in MODELS} == {2e-4}
    assert [rates[model, "x3"] for model in ("32s", "48s", "48m", "32m")] == [2e-4, 1e-4, 1e-4, 5e-5]
    assert [rates[model, "x4"] for model in ("32s", "48s", "32m", "48m")] == [2e-4, 2e-4, 1e-4, 1e-4]
    assert make_recipe("paper", "32s", "x2")._replace(steps=0) == Recipe(
        2e-4, "halve", 0, 0, 16, 48, 1, 0, 0, "adam", 0, 0)


def test_learning_rate():
    paper = make_recipe("paper", "32s", "x2")
    assert [learning_rate(paper, step) for step in (0, 199999, 200000, 399999, 400000)] == [
        2e-4, 2e-4, 1e-4, 1e-4, 5e-5]
    fast = Recipe(1e-3, "cosine", 9, 1000, 16, 32, 1, 0, 0.999, "muon", 1, 10)
    assert learning_rate(fast, 0) == pytest.approx(1e-4)
    assert learning_rate(fast, 4) == pytest.approx(5e-4, rel=1e-3)
    assert learning_rate(fast, 250) == pytest.approx(1e-3 * (0.5 + 0.5 ** 1.5))
    assert learning_rate(fast, 500) == pytest.approx(5e-4)
    assert 0 < learning_rate(fast, 999) < 1e-8
