"""tools/paper/ablation.py: which networks it trains and evaluates, and that the README shows what it writes."""
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
from tools.paper import ablation
from tools.paper.results import FIGURES, replace_block

import numpy as np
import pytest

PSNR = {None: 34.0, "dra": 33.9, "dynamics": 34.0625, "rsa": 33.5}


def result(network="whole", dataset="Set5", psnr=34.0, ssim=0.95):
    return ablation.Result(network, 2500, 368427, 84.9, 0.018125, dataset, psnr, ssim)


def test_readme_shows_what_the_tool_writes():
    with open(os.path.join(FIGURES, "README.md"), encoding="utf-8") as file:
        readme = file.read()
    results = ablation.read_results(os.path.join(FIGURES, "ablation.csv"))
    assert readme == replace_block(readme, ablation.to_markdown(results), "ablation"), (
        "run: python tools/paper/ablation.py --redraw --update")


def test_shipped_table_is_of_all_networks():
    results = ablation.read_results(os.path.join(FIGURES, "ablation.csv"))
    networks = [network.name for network in ablation.NETWORKS.values()]
    assert [one.network for one in results if one.dataset == "Sample"] == networks
    assert len({one.steps for one in results}) == 1 and len(results) == len(networks) * len(utils.DATASETS)


def test_table():
    results = [result(), result(dataset="B100", psnr=31), result("without RSA", psnr=33.5, ssim=0.9601),
               result("without RSA", dataset="B100", psnr=31.004)]
    assert ablation.to_markdown(results).splitlines() == [
        "|  | parameters | multi-adds | training loss | Set5 | B100 |", "|---|---|---|---|---|---|",
        "| whole | 368,427 | 84.90 G | 0.01812 | 34.00 / 0.9500 | 31.00 / 0.9500 |",
        "| without RSA | 368,427 | 84.90 G | 0.01812 | 33.50 / 0.9601<br>-0.50 / +0.0101 | 31.00 / 0.9500<br>+0.00 / +0.0000 |"]


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
    others.mkdir()
    utils.save_image(str(others / "a.png"), np.zeros((40, 40, 3), np.uint8))

    def fake_train(args):
        assert (args.model, args.scale, args.recipe, args.records) == ("32s", "x2", "fast", str(tmp_path / "runs" / "records"))
        if args.prepare:
            assert (args.data, args.pairs, args.seed) == ("photos", 40 * 8, 0)
            return 0
        assert (args.data, args.steps) == (None, 40)
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
        if len(evaluated) == 7 and not stopped:  # the first time
            stopped.append(args.checkpoint)
            return 130
        dataset, = args.dataset
        evaluated.append((args.checkpoint, dataset))
        mean = evaluation.Scores(PSNR[args.without], 0.95, 30, 0.9)
        log = CsvLog(args.csv, evaluation.COLUMNS)
        for image in "a", "mean":
            log.add(("32s", "x2", os.path.basename(dataset), image) + mean)
        return 0

    arguments = ["--data", "photos", "--steps", 40, "--runs", tmp_path / "runs", "--output", tmp_path,
                 "--data-dir", tmp_path, "--dataset", "Sample", others, "Set5"]
    scripts = {"train.py": fake_train, "test.py": fake_test}
    status, _, err = run(scripts, *arguments)
    assert status == 1 and "error: stopped in the training of the network without DRA: plain sums: the same command goes on" in err
    third = tmp_path / "runs" / "without_dra" / "log.jsonl"
    third.write_text(third.read_text() + '{"step": 40, "psnr": 30, "seconds": 200}\n')
    status, out, err = run(scripts, *arguments)
    assert status == 1 and "error: stopped in the evaluation of the network without its dynamics: learned constants: the same command goes on" in err
    assert "training 4 of 5: without its dynamics: learned constants; the training of all takes about 0:06:40 yet\n" in out
    assert "training 5 of 5: without RSA; the training of all takes about 0:03:20 yet\n" in out and "training 3" not in out
    assert "evaluating 4 of 5: without its dynamics: learned constants\n" in out and "evaluating 5" not in out
    status, out, err = run(scripts, *arguments)
    assert (status, err) == (0, "") and "training" not in out and "evaluating 5 of 5" in out and "evaluating 3" not in out
    assert trained == [("whole", None, 0), ("whole_seed1", None, 1), ("without_dra", "dra", 0),
                       ("without_dynamics", "dynamics", 0), ("without_rsa", "rsa", 0)]
    assert evaluated == [(str(tmp_path / "runs" / name / "best"), dataset) for name, _, _ in trained for dataset in (
        "Sample", str(others))]  # each once

    results = ablation.read_results(str(tmp_path / "ablation.csv"))
    assert [one.psnr for one in results if one.dataset == "others"] == [34.0, 34.0, 33.9, 34.0625, 33.5]
    results = [one for one in results if one.dataset == "Sample"]
    assert [one.loss for one in results] == [0.02, 0.03, 0.04, 0.05, 0.06]
    # DRM of a DRAG: conv1x1 32 to 16, slopes, conv1x1 16 to 10; in its place, for constants, 10 values
    drm = 32 * 16 + 16 + 16 + 16 * 10 + 10
    assert [one.parameters for one in results] == [368427, 368427, 368427 - 4 * drm, 368427 - 4 * (drm - 10), 368427]
    text = (tmp_path / "ablation.md").read_text()
    assert "| without RSA | 368,427 | 84.90 G | 0.06000 |" + 2 * " 33.50 / 0.9500<br>-0.50 / +0.0000 |" in text
    (tmp_path / "README.md").write_text(u"a\n<!-- ablation:begin -->\n<!-- ablation:end -->\nb\n")
    monkeypatch.setattr(ablation, "FIGURES", str(tmp_path))
    assert run({}, "--redraw", "--update")[0] == 0
    assert (tmp_path / "README.md").read_text() == "a\n<!-- ablation:begin -->\n%s<!-- ablation:end -->\nb\n" % text


def test_failures(tmp_path, run):
    assert run({})[0] == 2
    status, _, err = run({}, "--redraw", "--output", tmp_path)
    assert status == 1 and "error: cannot read" in err
    status, _, err = run({"train.py": lambda args: 1}, "--data", "photos", "--runs", tmp_path)
    assert status == 1 and "error: train.py failed for the records" in err
    status, _, err = run({"train.py": lambda args: not args.prepare}, "--data", "photos", "--runs", tmp_path)
    assert status == 1 and "error: train.py failed for the training of the network whole" in err
