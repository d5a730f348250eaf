"""tools/paper/ablation.py: which networks it trains and evaluates, and the table of them."""
import os
import subprocess
import sys

import test as evaluation
import train
from conftest import call
from tools.files import CsvLog, to_json
from tools.paper import ablation, results as results_module

import numpy as np
import pytest

PSNR = {None: 34.0, "dra": 33.9, "dynamics": 34.0625, "rsa": 33.5}
ORDER = [("whole_seed0", None, 0), ("without_dra_seed0", "dra", 0), ("without_dynamics_seed0", "dynamics", 0),
         ("without_rsa_seed0", "rsa", 0), ("whole_seed1", None, 1), ("without_dra_seed1", "dra", 1),
         ("whole_seed2", None, 2), ("without_dra_seed2", "dra", 2)]


def test_table():
    first = ablation.Result("whole", 0, 2500, 368427, 84.9, 0.018125, "Set5", 33.99, 0.95)
    results = [first, first._replace(psnr=34.01, ssim=0.951, seed=1),
               first._replace(network="without RSA", psnr=33.5, ssim=0.9601)]
    assert ablation.ablation_table(results).splitlines() == [
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
    trained, evaluated, others = [], [], tmp_path / "others"
    others.mkdir()
    (others / "a.png").write_bytes(b"")

    def fake_train(args):
        assert (args.model, args.scale, args.recipe, args.precision) == ("32s", "x2", "fast", "bfloat16")
        assert (args.data, args.valid_share, args.steps, args.records) == ("photos", 0.01, 40, None)
        trained.append((os.path.basename(args.run), args.without, args.seed))
        os.makedirs(args.run)
        loss, is_third = 0.01 * len(trained), len(trained) == 3  # which is stopped before it is validated
        with open(os.path.join(args.run, "log.jsonl"), "w") as file:
            for step, value in (36, 1.0), (38, loss), (40, loss + 0.02):
                file.write(to_json({"step": step, "loss": value}) + "\n")
            file.write("" if is_third else '{"step": 40, "psnr": 30}\n')
        return 143 if is_third else 0

    def fake_test(args):
        assert (args.precision, args.dataset) == ("bfloat16", ["Sample", str(others)])
        evaluated.append(os.path.relpath(args.checkpoint, str(tmp_path / "runs")))
        log, seed = CsvLog(args.csv, evaluation.COLUMNS), int(os.path.dirname(args.checkpoint)[-1])
        for dataset, psnr in ("Sample", PSNR[args.without] + seed), ("others", 20.0):
            for image in "a", "mean":
                log.add(("32s", "x2", dataset, image, psnr if image == "mean" else 1, 0.95, 30, 0.9))
        return 0

    arguments = ["--data", "photos", "--steps", 40, "--runs", tmp_path / "runs", "--output", tmp_path,
                 "--data-dir", tmp_path, "--dataset", "Sample", others, "Set5", "--precision", "bfloat16"]
    scripts = {"train.py": fake_train, "test.py": fake_test}
    status, out, err = run(scripts, *arguments)
    assert status == 1 and "error: stopped when training 3 of 8: without its dynamics" in err
    assert "evaluating 2 of 8: without DRA: plain sums, seed 0\n" in out
    with open(str(tmp_path / "runs" / "without_dynamics_seed0" / "log.jsonl"), "a") as file:
        file.write('{"step": 40, "psnr": 30}\n')
    status, out, err = run(scripts, *arguments)
    assert (status, err) == (0, "") and "training 3" not in out and "training 4 of 8" in out
    assert trained == ORDER
    assert evaluated[2:] == [os.path.join(name, "best") for name, _, _ in ORDER]

    results = [result for result in ablation.RESULTS.read(str(tmp_path / "ablation.csv"))
               if result.dataset == "Sample"]
    expected = [(seed, PSNR[without] + seed) for _, without, seed in ORDER]
    assert [(result.seed, result.psnr) for result in results] == expected
    np.testing.assert_allclose([result.loss for result in results], 0.01 * np.arange(2, 10))
    # DRM of a DRAG: conv1x1 32 to 16, slopes, conv1x1 16 to 10; in its place, for constants, 10 values
    drm = 32 * 16 + 16 + 16 + 16 * 10 + 10
    expected = [368427, 368427 - 4 * drm, 368427 - 4 * (drm - 10), 368427]
    assert [result.parameters for result in results][:4] == expected
    text = (tmp_path / "ablation.md").read_text(encoding="utf-8")
    assert "| whole | 3 | 368,427 | 84.90 G | 0.05333 | 35.000 \u00b1 1.000 / 0.9500 | 20.000" in text
    shown = "a\n<!-- ablation:begin -->\n%s<!-- ablation:end -->\nb\n"
    (tmp_path / "README.md").write_text(shown % "")
    monkeypatch.setattr(results_module, "FIGURES", str(tmp_path))
    assert run({}, "--redraw", "--update")[0] == 0
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == shown % text

    scripts["train.py"] = lambda args: 1
    for arguments, status, message in [
            ([], 2, "give photographs by --data"), (["--redraw", "--output", "no"], 1, "error: cannot read"),
            (arguments[:5] + [tmp_path / "new"], 1, "error: train.py failed when training 1 of 8: whole")]:
        result = run(scripts, *arguments)
        assert result[0] == status and message in result[2]
