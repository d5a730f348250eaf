"""tools/paper/ablation.py: which networks it trains and evaluates, and that the README shows it."""
import os
import subprocess
import sys

import test as evaluation
import train
import utils
from conftest import call
from tools.files import CsvLog, to_json
from tools.paper import ablation, results as results_module
from tools.paper.results import FIGURES, replace_block

import numpy as np
import pytest

PSNR = {None: 34.0, "dra": 33.9, "dynamics": 34.0625, "rsa": 33.5}
ORDER = [("whole_seed0", None, 0), ("without_dra_seed0", "dra", 0), ("without_dynamics_seed0", "dynamics", 0),
         ("without_rsa_seed0", "rsa", 0), ("whole_seed1", None, 1), ("without_dra_seed1", "dra", 1),
         ("whole_seed2", None, 2), ("without_dra_seed2", "dra", 2)]


def test_readme_shows_the_shipped_table_of_all_networks():
    with open(os.path.join(FIGURES, "README.md"), encoding="utf-8") as file:
        readme = file.read()
    results = ablation.RESULTS.read(os.path.join(FIGURES, "ablation.csv"))
    advice = "run: python tools/paper/ablation.py --redraw --update"
    assert readme == replace_block(readme, ablation.to_markdown(results), "ablation"), advice
    trainings = {(ablation.NETWORKS[training.without], training.seed) for training in ablation.TRAININGS}
    assert {(one.network, one.seed) for one in results} == trainings
    assert len({one.steps for one in results}) == 1


def test_table():
    first = ablation.Result("whole", 0, 2500, 368427, 84.9, 0.018125, "Set5", 33.99, 0.95)
    results = [first, first._replace(psnr=34.01, ssim=0.951, seed=1),
               first._replace(network="without RSA", psnr=33.5, ssim=0.9601)]
    assert ablation.to_markdown(results).splitlines() == [
        "|  | seeds | parameters | multi-adds | training loss | Set5 |", "|---|---|---|---|---|---|",
        "| whole | 2 | 368,427 | 84.90 G | 0.01812 | 34.000 \u00b1 0.014 / 0.9505 |",
        "| without RSA | 1 | 368,427 | 84.90 G | 0.01812 | 33.500 / 0.9601<br>-0.500 / +0.0096 |"]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run ablation.py with these arguments, with train.py and test.py replaced by `scripts`, a dict of
    functions that take what the real parser makes of the command: (exit status, stdout, stderr)."""
    def run_with(scripts, *arguments):
        def start(command):
            name = os.path.basename(command[1])
            monkeypatch.setattr(sys, "argv", command[1:])
            return scripts[name]({"train.py": train, "test.py": evaluation}[name].parse_args())
        monkeypatch.setattr(subprocess, "call", start)
        return call(monkeypatch, capsys, ablation.main, *arguments)
    return run_with


def test_trains_what_is_left_and_evaluates_all(tmp_path, run, monkeypatch):
    trained, evaluated, stopped, others = [], [], [], tmp_path / "others"
    photos, held = str(tmp_path / "photos"), ["a.png", os.path.join("b", "c.png")]
    for path in [str(others / "a.png")] + [os.path.join(photos, name) for name in held]:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        utils.save_image(path, np.full((40, 40, 3), len(path), np.uint8))
    monkeypatch.setattr(ablation, "hold_out", lambda *_: ([], [os.path.join(photos, name) for name in held]))

    def fake_train(args):
        assert (args.model, args.scale, args.recipe, args.precision) == ("32s", "x2", "fast", "bfloat16")
        assert args.records == str(tmp_path / "runs" / "records")
        if args.prepare:
            assert (args.data, args.pairs, args.seed, args.valid_share) == (photos, 40 * 8, 0, 0.01)
            return 0
        assert (args.data, args.steps, args.valid) == (None, 40, str(tmp_path / "runs" / "held_out"))
        assert sorted(os.listdir(args.valid)) == ["a.png", "b_c.png"]
        trained.append((os.path.basename(args.run), args.without, args.seed))
        os.makedirs(args.run)
        loss, is_third = 0.01 * len(trained), len(trained) == 3  # which is stopped before it is validated
        with open(os.path.join(args.run, "log.jsonl"), "w") as file:
            for step, value in (36, 1.0), (38, loss), (40, loss + 0.02):
                file.write(to_json({"step": step, "loss": value}) + "\n")
            file.write("" if is_third else '{"step": 40, "psnr": 30}\n')
        return 143 if is_third else 0

    def fake_test(args):
        if len(evaluated) == 10 and not stopped:  # the first time
            stopped.append(args.checkpoint)
            return 130
        dataset, = args.dataset
        assert args.precision == "bfloat16"
        evaluated.append((args.checkpoint, dataset))
        seed = int(os.path.dirname(args.checkpoint)[-1])
        mean = evaluation.Scores(PSNR[args.without] + seed, 0.95, 30, 0.9)
        log = CsvLog(args.csv, evaluation.COLUMNS)
        for image in "a", "mean":
            log.add(("32s", "x2", os.path.basename(dataset), image) + mean)
        return 0

    arguments = ["--data", photos, "--steps", 40, "--runs", tmp_path / "runs", "--output", tmp_path,
                 "--data-dir", tmp_path, "--dataset", "Sample", others, "Set5", "--precision", "bfloat16"]
    scripts = {"train.py": fake_train, "test.py": fake_test}
    status, _, err = run(scripts, *arguments)
    assert status == 1 and "error: stopped when training the network without its dynamics" in err
    with open(str(tmp_path / "runs" / "without_dynamics_seed0" / "log.jsonl"), "a") as file:
        file.write('{"step": 40, "psnr": 30}\n')
    status, out, err = run(scripts, *arguments)
    assert status == 1 and "error: stopped when evaluating the network without RSA: the same" in err
    assert "training 4 of 8: without RSA, seed 0\n" in out and "training 3" not in out
    assert "evaluating 4 of 8" in out and "evaluating 5" not in out
    status, out, err = run(scripts, *arguments)
    assert (status, err) == (0, "") and "training" not in out and "evaluating 3" not in out
    assert trained == ORDER
    datasets = "Sample", str(others), str(tmp_path / "runs" / "held_out")
    assert evaluated == [(str(tmp_path / "runs" / name / "best"), dataset) for name, _, _ in ORDER
                         for dataset in datasets]  # each once

    results = ablation.RESULTS.read(str(tmp_path / "ablation.csv"))
    results = [one for one in results if one.dataset == "held_out"]
    expected = [(seed, PSNR[without] + seed) for _, without, seed in ORDER]
    assert [(one.seed, one.psnr) for one in results] == expected
    np.testing.assert_allclose([one.loss for one in results], 0.01 * np.arange(2, 10))
    # DRM of a DRAG: conv1x1 32 to 16, slopes, conv1x1 16 to 10; in its place, for constants, 10 values
    drm = 32 * 16 + 16 + 16 + 16 * 10 + 10
    expected = [368427, 368427 - 4 * drm, 368427 - 4 * (drm - 10), 368427]
    assert [one.parameters for one in results][:4] == expected
    text = (tmp_path / "ablation.md").read_text(encoding="utf-8")
    assert "| whole | 3 | 368,427 | 84.90 G | 0.05333 |" + 3 * " 35.000 \u00b1 1.000 / 0.9500 |" in text
    shown = "a\n<!-- ablation:begin -->\n%s<!-- ablation:end -->\nb\n"
    (tmp_path / "README.md").write_text(shown % "")
    for module in ablation, results_module:
        monkeypatch.setattr(module, "FIGURES", str(tmp_path), raising=False)
    assert run({}, "--redraw", "--update")[0] == 0
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == shown % text


def test_failures(tmp_path, run, monkeypatch):
    monkeypatch.setattr(ablation, "hold_out", lambda folder, share: ([], []))
    assert run({})[0] == 2
    arguments = "--data", "photos", "--runs", tmp_path, "--output", tmp_path
    for scripts, words, message in [
            ({}, ("--redraw", "--output", tmp_path), "error: cannot read"),
            ({"train.py": lambda args: 1}, arguments, "train.py failed when writing the records"),
            ({"train.py": lambda args: not args.prepare}, arguments, "failed when training the network")]:
        status, _, err = run(scripts, *words)
        assert status == 1 and message in err
