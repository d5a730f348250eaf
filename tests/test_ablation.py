"""tools/paper/ablation.py: which networks it trains and evaluates, and that the README shows what it writes."""
import collections
import json
import os
import subprocess
import sys

import test as evaluation
import train
import utils
from conftest import call
from tools.command import UserError
from tools.files import CsvLog
from tools.paper import ablation, results as results_module
from tools.paper.results import FIGURES, replace_block

import numpy as np
import pytest

PSNR = {None: 34.0, "dra": 33.9, "dynamics": 34.0625, "rsa": 33.5}


def result(network="whole", dataset="Set5", psnr=34.0, ssim=0.95, seed=0):
    return ablation.Result(network, seed, 2500, 368427, 84.9, 0.018125, dataset, psnr, ssim)


def test_readme_shows_what_the_tool_writes():
    with open(os.path.join(FIGURES, "README.md"), encoding="utf-8") as file:
        readme = file.read()
    results = ablation.read_results(os.path.join(FIGURES, "ablation.csv"))
    assert readme == replace_block(readme, ablation.to_markdown(results), "ablation"), (
        "run: python tools/paper/ablation.py --redraw --update")


def test_shipped_table_is_of_all_networks():
    results = ablation.read_results(os.path.join(FIGURES, "ablation.csv"))
    networks = [network.name for network in ablation.NETWORKS]
    assert list(collections.OrderedDict.fromkeys(one.network for one in results)) == networks
    datasets = {(one.network, one.seed): [] for one in results}
    for one in results:
        datasets[one.network, one.seed].append(one.dataset)
    assert len({one.steps for one in results}) == 1 and all(names[:5] == list(utils.DATASETS) for names in datasets.values())


def test_table():
    results = [result(psnr=33.99), result(dataset="B100", psnr=31), result(psnr=34.01, ssim=0.951, seed=1),
               result(dataset="B100", psnr=31, seed=1), result("without RSA", psnr=33.5, ssim=0.9601),
               result("without RSA", dataset="B100", psnr=31.004)]
    assert ablation.to_markdown(results).splitlines() == [
        "|  | seeds | parameters | multi-adds | training loss | Set5 | B100 |", "|---|---|---|---|---|---|---|",
        "| whole | 2 | 368,427 | 84.90 G | 0.01812 | 34.000 \u00b1 0.014 / 0.9505 | 31.000 \u00b1 0.000 / 0.9500 |",
        "| without RSA | 1 | 368,427 | 84.90 G | 0.01812 | 33.500 / 0.9601<br>-0.500 / +0.0096 | 31.004 / 0.9500<br>+0.004 / +0.0000 |"]


def test_results_survive_writing(tmp_path):
    path = str(tmp_path / "ablation.csv")
    results = [result(), result("without RSA", psnr=33.1234)]
    ablation.write_results(path, results)
    assert ablation.read_results(path) == results
    (tmp_path / "bad.csv").write_text("network\nwhole\n")
    with pytest.raises(UserError, match="bad.csv is not a table of this tool"):
        ablation.read_results(str(tmp_path / "bad.csv"))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run ablation.py with these arguments, with train.py and test.py replaced by calls of `scripts`, a dict of functions that take
    what the real parser makes of the command: (exit status, stdout, stderr)."""
    def run_with(scripts, *arguments):
        def start(command):
            name = os.path.basename(command[1])
            monkeypatch.setattr(sys, "argv", command[1:])
            return scripts[name]({"train.py": train, "test.py": evaluation}[name].parse_args())
        monkeypatch.setattr(subprocess, "call", start)
        return call(monkeypatch, capsys, lambda: ablation.make_ablation(ablation.parse_args()), *arguments)
    return run_with


def test_trains_what_is_left_and_evaluates_all(tmp_path, run, monkeypatch):
    trained, evaluated, stopped, others = [], [], [], tmp_path / "others"
    photos, held = str(tmp_path / "photos"), ["a.png", os.path.join("b", "c.png")]
    for path in [str(others / "a.png")] + [os.path.join(photos, name) for name in held]:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        utils.save_image(path, np.full((40, 40, 3), len(path), np.uint8))
    monkeypatch.setattr(ablation, "hold_out", lambda folder, share: ([], [os.path.join(folder, name) for name in held]))

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
        with open(os.path.join(args.run, "log.jsonl"), "w") as file:
            loss = 0.01 * len(trained)
            for record in ({"step": 36, "loss": 1.0, "seconds": 1}, {"step": 38, "loss": loss, "seconds": 150},
                           {"step": 40, "loss": loss + 0.02, "seconds": 200}):
                file.write(json.dumps(record) + "\n")
            if len(trained) != 3:  # the third is stopped
                file.write('{"step": 40, "psnr": 30, "seconds": 200}\n')
        return 143 if len(trained) == 3 else 0

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
    assert status == 1 and "error: stopped in the training of the network without its dynamics: learned constants: the same command goes on" in err
    third = tmp_path / "runs" / "without_dynamics_seed0" / "log.jsonl"
    third.write_text(third.read_text() + '{"step": 40, "psnr": 30, "seconds": 200}\n')
    status, out, err = run(scripts, *arguments)
    assert status == 1 and "error: stopped in the evaluation of the network without RSA: the same command goes on" in err
    assert "training 4 of 8: without RSA, seed 0; the training of all takes about 0:16:40 yet\n" in out
    assert "training 8 of 8: without DRA: plain sums, seed 2; the training of all takes about 0:03:20 yet\n" in out
    assert "training 3" not in out and "evaluating 4 of 8: without RSA, seed 0\n" in out and "evaluating 5" not in out
    status, out, err = run(scripts, *arguments)
    assert (status, err) == (0, "") and "training" not in out and "evaluating 5 of 8" in out and "evaluating 3" not in out
    assert trained == [("whole_seed0", None, 0), ("without_dra_seed0", "dra", 0), ("without_dynamics_seed0", "dynamics", 0),
                       ("without_rsa_seed0", "rsa", 0), ("whole_seed1", None, 1), ("without_dra_seed1", "dra", 1),
                       ("whole_seed2", None, 2), ("without_dra_seed2", "dra", 2)]
    assert evaluated == [(str(tmp_path / "runs" / name / "best"), dataset) for name, _, _ in trained for dataset in (
        "Sample", str(others), str(tmp_path / "runs" / "held_out"))]  # each once

    results = ablation.read_results(str(tmp_path / "ablation.csv"))
    assert [one.psnr for one in results if one.dataset == "others"] == [34.0, 33.9, 34.0625, 33.5, 35.0, 34.9, 36.0, 35.9]
    results = [one for one in results if one.dataset == "held_out"]
    assert [one.seed for one in results] == [0, 0, 0, 0, 1, 1, 2, 2]
    np.testing.assert_allclose([one.loss for one in results], 0.01 * np.arange(2, 10))
    # DRM of a DRAG: conv1x1 32 to 16, slopes, conv1x1 16 to 10; in its place, for constants, 10 values
    drm = 32 * 16 + 16 + 16 + 16 * 10 + 10
    assert [one.parameters for one in results][:4] == [368427, 368427 - 4 * drm, 368427 - 4 * (drm - 10), 368427]
    text = (tmp_path / "ablation.md").read_text(encoding="utf-8")
    assert "| whole | 3 | 368,427 | 84.90 G | 0.05333 |" + 3 * " 35.000 \u00b1 1.000 / 0.9500 |" in text
    assert "| without RSA | 1 | 368,427 | 84.90 G | 0.05000 |" + 3 * " 33.500 / 0.9500<br>-1.500 / +0.0000 |" in text
    (tmp_path / "README.md").write_text(u"a\n<!-- ablation:begin -->\n<!-- ablation:end -->\nb\n")
    monkeypatch.setattr(ablation, "FIGURES", str(tmp_path))
    monkeypatch.setattr(results_module, "FIGURES", str(tmp_path))
    assert run({}, "--redraw", "--update")[0] == 0
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "a\n<!-- ablation:begin -->\n%s<!-- ablation:end -->\nb\n" % text


def test_failures(tmp_path, run, monkeypatch):
    monkeypatch.setattr(ablation, "hold_out", lambda folder, share: ([], []))
    assert run({})[0] == 2
    status, _, err = run({}, "--redraw", "--output", tmp_path)
    assert status == 1 and "error: cannot read" in err
    status, _, err = run({"train.py": lambda args: 1}, "--data", "photos", "--runs", tmp_path)
    assert status == 1 and "error: train.py failed for the records" in err
    status, _, err = run({"train.py": lambda args: not args.prepare}, "--data", "photos", "--runs", tmp_path)
    assert status == 1 and "error: train.py failed for the training of the network whole" in err
