"""Runs of train.py: they stop, resume, validate, and say what is wrong."""
import io
import json
import os
import re
import resource
import shutil
import signal
import sys
import threading
import time

import train
from conftest import TINY, authors_record, call, read_log, run_script, start, state_values
from model import MODELS, Variant, drsan, model_variables
from ops import tf
from tools import checkpoints, command, runtime
from tools.command import UserError
from tools.data import patches
from tools.data.photographs import hold_out
from tools.files import lock_file
from tools.training import cluster, graph
from tools.training.graph import build_training
from tools.training.recipes import make_recipe
from tools.weights import initial_weights, transfer

import numpy as np
import pytest
from PIL import Image

ADAM = make_recipe("paper", "32s", "x2")
bfloat16 = pytest.mark.skipif(not runtime.has_bfloat16(), reason="this TensorFlow has no convolutions in bfloat16")


@pytest.fixture
def tiny(photographs, tmp_path, monkeypatch, capsys):
    """Run train.py within this process, with tiny settings and a tiny network, in the folder `run`: (exit status, stdout, stderr)."""
    monkeypatch.setitem(MODELS, "32s", Variant(channels=16, drags=1, blocks=1))
    monkeypatch.setattr(cluster, "can_compile", lambda: False)  # it takes longer than these trainings

    def run(*extra):
        arguments = ["--run", tmp_path / "run", "--valid", photographs / "deeper"] + TINY + list(extra)
        return call(monkeypatch, capsys, train.main, *arguments)
    return run


def test_run_is_evaluated(photographs, tmp_path):
    """The script, with the network of its name."""
    run = tmp_path / "run"
    out = start(photographs, run, "--steps", "8", "--threads", "1", script="train.py").communicate()[0].decode()
    assert out.splitlines()[-1] == "done: %s" % (run / "best"), out
    status, out, err = run_script("test.py", "--gpu", -1, "--checkpoint", run / "best", "--dataset", photographs / "deeper")
    assert status == 0, err
    best = max(record["psnr"] for record in read_log(run) if "psnr" in record)
    assert float(out.split("mean")[1].split()[0]) == pytest.approx(best, abs=1e-3)


def test_run_stops_and_resumes(photographs, tmp_path, tiny):
    """Also where nothing reads what it prints any more, and its terminal is gone."""
    run, options, reached = tmp_path / "run", ("--steps", "100000", "--threads", "1"), 0
    for number, status in (signal.SIGHUP, 129), (signal.SIGINT, 130):
        process = start(photographs, run, *options)
        lines = []
        while not lines or "PSNR" not in lines[-1] or "resumed" in lines[-1]:
            lines.append(process.stdout.readline().decode())
            assert process.poll() is None, "".join(lines)
        assert not reached or "resumed at step %d," % reached in "".join(lines)
        if number == signal.SIGHUP:
            process.stdout.close()
            first = lines[-1].split()[1]
            while read_log(run)[-1]["step"] < int(first) + 8:  # it goes on
                time.sleep(0.05)
        process.send_signal(number)
        assert process.wait() == status
        before, reached = reached, int(state_values(run)["Variable"])
        assert reached > before
    assert "stopped at step %d; the same command resumes\n" % reached in process.stdout.read().decode()
    config = json.loads((run / "config.json").read_text())
    assert config["model"] == "32s" and config["steps"] == 100000 and config["rate"] == 1e-3
    steps = [record["step"] for record in read_log(run) if "loss" in record]
    assert steps == sorted(set(steps)) and steps[-1] > before
    status, out, err = tiny("--data", photographs, "--steps", 200)
    assert status == 1 and "was started with steps = 100000, not 200, and the learning rate of cosine depends on it" in err


def test_a_signal_ends_the_reading_of_photographs(photographs, tmp_path):
    (photographs / "0.jpg").write_bytes(b"nothing")
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (1500, 2000, 3)).astype(np.uint8)).save(str(photographs / "1.jpg"))
    for i in range(2, 300):
        os.link(str(photographs / "1.jpg"), str(photographs / ("%d.jpg" % i)))
    process = start(photographs, tmp_path / "run", "--workers", "2", start_new_session=True)
    assert process.stdout.readline().startswith(b"left out: cannot read the image")
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C of a terminal
    assert process.communicate()[0] == b"stopped\n" and process.returncode == 130
    with pytest.raises(ProcessLookupError):  # nothing is left
        os.killpg(process.pid, 0)


def test_ablation_is_recorded_and_asked_for(photographs, tmp_path, run, tiny):
    status, out, err = tiny("--data", photographs, "--without", "dynamics", "--steps", 8)
    assert status == 0 and "done" in out, err
    config = json.loads((tmp_path / "run" / "best" / "config.json").read_text())
    assert config["without"] == "dynamics"
    options = ["--checkpoint", tmp_path / "run" / "best", "--dataset", photographs / "deeper"]
    status, out, err = run(*options)
    assert status == 1 and "was trained without dynamics: it needs test.py --without dynamics" in err
    status, out, err = run("--without", "dynamics", *options)
    assert status == 0 and "17,684 parameters" in out, err  # 17,988 with the DRM
    assert float(out.split("mean")[1].split()[0]) == pytest.approx(config["validation_psnr"], abs=1e-3)
    status, out, err = tiny("--data", photographs, "--steps", 8)
    assert status == 1 and "was started with without = dynamics, not None" in err


@pytest.mark.parametrize("instructions", [True, False])
def test_bfloat16_is_recorded_or_refused(photographs, tmp_path, monkeypatch, tiny, instructions):
    monkeypatch.setattr(command, "_noticed", set())
    monkeypatch.setattr(runtime, "cpu_has_bfloat16", lambda: instructions)
    status, out, err = tiny("--data", photographs, "--precision", "bfloat16", "--steps", 8)
    if runtime.has_bfloat16():
        assert status == 0 and "done" in out and ("note: this processor has no" in err) == (not instructions), err
        assert json.loads((tmp_path / "run" / "best" / "config.json").read_text())["precision"] == "bfloat16"
    else:
        assert status == 1 and err.startswith("error: TensorFlow 1.8.0 cannot convolve in bfloat16"), err
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_over_the_steps_on_a_terminal(photographs, tiny, monkeypatch, terminal):
    stderr = io.StringIO()
    stderr.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stderr)
    assert tiny("--data", photographs, "--steps", 8)[0] == 0
    assert ("0/8 [" in stderr.getvalue()) == ("step" in stderr.getvalue()) == terminal


def test_bad_data_leaves_no_run(photographs, tmp_path, tiny):
    for data, message in [(tmp_path / "nowhere", "no training data below"), (photographs, "2 of the 2 photographs below")]:
        status, out, err = tiny("--data", data, "--patch", 500)
        assert status == 1 and message in err
        assert not (tmp_path / "run").exists()
    status, out, err = tiny()
    assert status == 2 and "give photographs by --data or records by --records" in err


def test_exploding_weights_are_not_kept(photographs, tmp_path, tiny):
    """Whatever step it happens after: the loss of a step is that of the weights before it."""
    options = ["--data", photographs, "--warmup", 0, "--save-minutes", 0]
    status, out, err = tiny("--steps", 1000, "--rate", 1e9, *options)
    assert status == 1 and "the training diverges at step 6, with a loss of " in err and "lower --rate, in another --run\n" in err
    assert not [name for name in os.listdir(str(tmp_path / "run" / "state")) if name.endswith(".index")]
    status, out, err = tiny("--steps", 8, "--rate", 1e-3, *options)  # nothing was kept, so the options may change
    assert status == 0 and "done" in out, err
    assert max(np.abs(value).max() for name, value in state_values(tmp_path / "run").items() if "/" in name) < 10


def test_after_an_explosion_the_last_good_weights_go_on(photographs, tmp_path, tiny, monkeypatch):
    options = ["--data", photographs, "--steps", 16, "--save-minutes", 0]
    monkeypatch.setattr(train, "learning_rate", lambda recipe, step: 1e9 if step == 5 else 1e-3)
    status, out, err = tiny("--steps", 5, *options[:2])
    assert status == 0
    kept = state_values(tmp_path / "run")
    shutil.rmtree(str(tmp_path / "run"))
    status, out, err = tiny(*options)
    assert status == 1 and "the training diverges at step 11, with" in err and "the same command goes on with other patches" in err
    values = state_values(tmp_path / "run")
    assert values.pop("Variable") == 11 and kept.pop("Variable") == 5 and set(values) == set(kept)
    for name in values:
        np.testing.assert_array_equal(values[name], kept[name])
    status, out, err = tiny(*options)
    assert status == 0 and "resumed at step 11," in out and "done" in out, err


@pytest.fixture
def poison(monkeypatch):
    """poison(*steps) makes the DRA values of these steps of a run of train.py with one thread NaN, as a bad patch may."""
    sampled, run = [], tf.Session.run

    def poisoned_run(session, fetches, feed_dict=None, **kwargs):
        if isinstance(fetches, list) and len(fetches) == 4 and fetches[1].name == "Loss:0" and sampled.pop(0) in steps:
            feed_dict = dict(feed_dict, **{"DRAN/DRAG1/DRA:0": np.full([2, 1, 1, 1], np.nan)})
        return run(session, fetches, feed_dict, **kwargs)

    def prefetch(function, first, last):
        for step in range(first, last):
            sampled.append(step)
            yield function(step)

    steps = set()
    monkeypatch.setattr(tf.Session, "run", poisoned_run)
    monkeypatch.setattr(train, "prefetch", prefetch)
    return lambda *poisoned: steps.update(poisoned)


def test_a_poisoned_step_is_counted(photographs, tmp_path, tiny, poison):
    poison(5)
    status, out, err = tiny("--data", photographs, "--steps", 8, "--threads", 1)
    assert status == 0 and "done" in out, err
    lines = [line for line in out.splitlines() if "loss" in line]
    assert not lines[0].endswith("skipped 1") and lines[1].endswith("  skipped 1")
    records = read_log(tmp_path / "run")
    assert [record["skipped"] for record in records if "loss" in record] == [0, 1]
    assert all(record["gradient_norm"] > 0 for record in records if "loss" in record)
    assert records[-1]["step"] == 8 and records[-1]["largest_dra"] > 0 and 0.01 < records[-1]["kernel_rms"] < 1


def test_five_poisoned_steps_stop_a_run_that_goes_on(photographs, tmp_path, tiny, poison):
    poison(4, 6, 7, 8, 9, 10)
    options = ["--data", photographs, "--steps", 16, "--threads", 1]
    status, out, err = tiny(*options)
    assert status == 1 and "the training diverges at step 11, with a loss of nan and a gradient norm of nan" in err
    assert "the same command goes on with other patches from the last good weights, saved in %s" % (tmp_path / "run" / "state") in err
    status, out, err = tiny(*options)
    assert status == 0 and "resumed at step 11, best PSNR of" in out and "done" in out, err
    records = read_log(tmp_path / "run")
    assert records[-1]["step"] == 16


def test_resuming_is_about_the_training_not_the_spelling(photographs, tmp_path, tiny):
    options = ["--schedule", "halve", "--valid", photographs / "deeper"]
    assert tiny("--data", photographs, "--steps", 4, *options)[0] == 0
    moved = tmp_path / "moved"
    photographs.rename(moved)
    moved.joinpath("deeper").rename(tmp_path / "deeper")  # the validation set stays a part of the training set
    shutil.copytree(str(tmp_path / "deeper"), str(moved / "deeper"))
    shutil.copytree(str(moved), str(photographs))
    for data, steps in (str(photographs) + os.sep, 6), (os.path.relpath(str(photographs)), 8), (moved, 9):
        status, out, err = tiny("--data", data, "--steps", steps, *options[:2], "--valid", os.path.relpath(str(options[3])))
        assert status == 0 and "resumed at step" in out and "done" in out, err
    (moved / "deeper" / "coffee.png").unlink()
    status, out, err = tiny("--data", moved, "--steps", 12, *options)
    assert status == 1 and "was started with other data, 2 files of %s, and now there are 1 in %s: give the same, or begin another run" % (
        moved, moved) in err
    status, out, err = tiny("--data", photographs, "--steps", 12, "--schedule", "cosine")
    assert status == 1 and "was started with schedule = halve, not cosine" in err


def test_a_cosine_is_not_made_longer(photographs, tmp_path, tiny):
    assert tiny("--data", photographs, "--steps", 4)[0] == 0
    status, out, err = tiny("--data", photographs, "--steps", 8)
    assert status == 1 and "was started with steps = 4, not 8, and the learning rate of cosine depends on it" in err
    assert "--init-from %s --run DIR" % (tmp_path / "run" / "best") in err
    assert tiny("--data", photographs, "--steps", 8, "--init-from", tmp_path / "run" / "best", "--run", tmp_path / "next")[0] == 0


def test_held_out_photographs(tmp_path):
    """Chosen by a hash of the name: the same ones in any order and anywhere; of tiles, all or none of a photograph."""
    folder = tmp_path / "a"
    folder.mkdir()
    for i in range(400):
        (folder / ("%03d.png" % i)).write_bytes(b"")
    kept, held = hold_out(str(folder), 0.1)
    assert len(kept) + len(held) == 400 and 25 <= len(held) <= 60 and not set(kept) & set(held)
    assert hold_out(str(folder), 0) == (sorted(kept + held), [])
    (folder / "000.png").unlink()
    assert set(hold_out(str(folder), 0.1)[1]) == set(held) - {str(folder / "000.png")}
    assert set(hold_out(str(folder), 0.2)[1]) > set(hold_out(str(folder), 0.1)[1])
    rows = ["%03d.png,someone/photos,%d.jpg" % (i, i // 8) for i in range(1, 400)]
    (folder / "manifest.csv").write_text("\n".join(["file,repo,path"] + rows))
    kept, held = hold_out(str(folder), 0.1)
    photograph = {str(folder / row.split(",")[0]): row.split(",")[2] for row in rows}
    assert len(held) == len({photograph[path] for path in held}) and not {photograph[path] for path in held} & {
        photograph[path] for path in kept}
    assert all(path == sorted(one for one in photograph if photograph[one] == photograph[path])[
        (8 if photograph[path] != "0.jpg" else 7) // 2] for path in held)
    assert len(kept) == 399 - sum(name in {photograph[path] for path in held} for name in photograph.values())
    for share in 0, 0.1:
        with pytest.raises(UserError, match="no training data below .*nowhere: expected"):
            hold_out(str(folder / "nowhere"), share)
    with pytest.raises(UserError, match="--valid-share 1e-06 holds out 0 of the 50 photographs below"):
        hold_out(str(folder), 1e-6)
    (folder / "manifest.csv").write_text("nothing")
    assert len(hold_out(str(folder), 0.1)[1]) > 25
    (folder / "manifest.csv").write_text("file,size\n001.png,3")
    with pytest.raises(UserError, match="manifest.csv is not the manifest of a photo set"):
        hold_out(str(folder), 0.1)


def test_best_is_best_on_the_held_out(photographs, tmp_path, run, tiny):
    """Neither photographs nor records hold what is held out."""
    shares = [share / 100 for share in range(1, 100) if len(hold_out_or_none(photographs, share / 100)) == 1]
    options = ["--data", photographs, "--valid-share", shares[0], "--steps", 16]
    status, out, err = tiny(*options)
    assert status == 0 and "1 photographs, " in out and "held-out photographs" in out, err
    config = json.loads((tmp_path / "run" / "best" / "config.json").read_text())
    held = os.path.join(str(photographs), config["held_out"][0])
    assert [held] == hold_out_or_none(photographs, shares[0]) and config["valid_share"] == shares[0]
    records = read_log(tmp_path / "run")
    assert config["validation_psnr"] == max(record["psnr_held_out"] for record in records if "psnr" in record)
    (tmp_path / "held").mkdir()
    shutil.copy(held, str(tmp_path / "held"))
    status, out, err = run("--checkpoint", tmp_path / "run" / "best", "--dataset", tmp_path / "held")
    assert float(out.split("mean")[1].split()[0]) == pytest.approx(config["validation_psnr"], abs=1e-3)
    assert "resumed at step 16, best PSNR of held-out photographs %.3f dB" % config["validation_psnr"] in tiny(*options)[1]
    status, out, err = tiny(*options + ["--records", tmp_path / "records", "--pairs", 4, "--shards", 1, "--prepare"])
    assert status == 0 and "1 photographs, " in out and json.loads(
        (tmp_path / "records" / "records.json").read_text())["valid_share"] == shares[0]
    status, out, err = tiny("--records", tmp_path / "records", "--valid-share", 0.5)
    assert status == 2 and "--valid-share goes with --data" in err
    assert tiny("--data", photographs, "--steps", 4, "--run", tmp_path / "all")[0] == 0
    for weights, seen in ("all", True), ("run", False):
        status, out, err = tiny(*options + ["--run", tmp_path / ("from_" + weights), "--init-from", tmp_path / weights / "best"])
        assert status == 0 and ("may have been trained on photographs that are held out" in err) == seen


def hold_out_or_none(photographs, share):
    """What is held out, or [] if this share takes none or all."""
    try:
        return hold_out(str(photographs), share)[1]
    except UserError:
        return []


def test_an_infinite_psnr_is_null_in_the_log(photographs, tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(graph, "psnr_y", lambda sr, hr, factor: float("inf"))
    assert tiny("--data", photographs, "--steps", 16)[0] == 0
    text = (tmp_path / "run" / "log.jsonl").read_text()
    assert [record["psnr"] for record in map(json.loads, text.splitlines()) if "psnr" in record] == [None, None]
    assert "Infinity" not in text + (tmp_path / "run" / "best" / "config.json").read_text()
    assert checkpoints.checkpoint_prefix(str(tmp_path / "run" / "best")).endswith("-16")  # the last ones
    assert "resumed at step 16, before its first validation" in tiny("--data", photographs, "--steps", 16)[1]


def test_a_failed_start_does_not_stand_in_the_way(photographs, tmp_path, weights, tiny):
    status, out, err = tiny("--data", photographs, "--steps", 8, "--init-from", tmp_path / "nowhere")
    assert status == 1 and "no checkpoint at" in err and not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"init_from": "nowhere"}')
    status, out, err = tiny("--data", photographs, "--steps", 8)
    assert status == 0 and "done" in out, err
    assert json.loads((tmp_path / "run" / "best" / "config.json").read_text())["trained_before"] == []
    status, out, err = tiny("--data", photographs, "--steps", 8, "--init-from", weights)  # of the whole 32s, not of the tiny one
    assert status == 1 and "was started with init_from = None, not" in err
    status, out, err = tiny("--data", photographs, "--steps", 8, "--init-from", weights, "--run", tmp_path / "other")
    assert status == 1 and "nothing can be taken from %s: its DRAN/conv2d/kernel has the shape [3, 3, 3, 32]" % weights in err


def test_history_is_that_of_the_start(photographs, tmp_path, tiny):
    """Also if the checkpoint that a run started from is not there any more when it resumes."""
    options = ["--data", photographs, "--steps", 8]
    assert tiny(*options)[0] == 0
    first = json.loads((tmp_path / "run" / "best" / "config.json").read_text())
    options += ["--init-from", tmp_path / "run" / "best", "--run", tmp_path / "second"]
    assert tiny(*options)[0] == 0
    shutil.rmtree(str(tmp_path / "run"))
    assert tiny(*options)[0] == 0  # resumed, though nothing is left to do
    for path in "config.json", "best/config.json":
        assert json.loads((tmp_path / "second" / path).read_text())["trained_before"] == [
            {key: value for key, value in first.items() if key != "trained_before"}]


def test_a_run_that_cannot_go_on_is_one_line(photographs, tmp_path, tiny):
    """With another validation set, while another process trains, and from a state that cannot be read."""
    options = ["--data", photographs, "--steps", 8]
    assert tiny(*options)[0] == 0
    status, out, err = tiny("--valid", "Sample", *options)
    assert status == 1 and "was started with valid = " in err and "not Sample" in err
    with lock_file(str(tmp_path / "run" / ".lock"), wait=False):
        status, out, err = tiny(*options)
        assert status == 1 and "another process trains in %s" % (tmp_path / "run") in err
    state = tmp_path / "run" / "state"
    data = (state / "state-8.data-00000-of-00001").read_bytes()
    (state / "state-8.data-00000-of-00001").write_bytes(data[:1000])
    status, out, err = tiny(*options)
    assert status == 1 and "cannot read the checkpoint" in err
    assert "begin another run from the best weights by --init-from %s --run DIR\n" % (tmp_path / "run" / "best") in err
    (state / "state-8.data-00000-of-00001").write_bytes(data)
    (state / "state-4.index").write_bytes((state / "state-8.index").read_bytes())
    (state / "checkpoint").unlink()
    status, out, err = tiny(*options)
    assert status == 1 and "holds several states, and its file `checkpoint` names none of them" in err
    (state / "state-4.index").unlink()
    status, out, err = tiny(*options)
    assert status == 0 and "resumed at step 8," in out, err
    (state / "checkpoint").write_text("")
    status, out, err = tiny(*options)
    assert status == 0 and "resumed at step 8," in out, err
    log, config = tmp_path / "run" / "log.jsonl", tmp_path / "run" / "config.json"
    lines = log.read_text().splitlines(True)
    log.write_text(lines[0] + '{"step": 6, "lo\n' + "".join(lines[1:]))
    status, out, err = tiny(*options)
    assert status == 0 and "note: line 2 of %s is damaged, and left out\n" % log in err and log.read_text() == "".join(lines)
    config.write_text(config.read_text()[:50])
    status, out, err = tiny(*options)
    assert status == 1 and "error: cannot read %s: " % config in err and "; remove it to go on with the options of this" in err
    config.unlink()
    assert tiny(*options)[0] == 0


def test_a_full_disk_is_named(photographs, tmp_path):
    """By a limit on the size of files, which stands for it: TensorFlow reports both in the same way."""
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))
    out = start(photographs, tmp_path / "run", "--steps", "8", preexec_fn=limit).communicate()[0].decode()
    assert re.search(r"\nerror: cannot save step 8 as .*best/DRSAN32sx2: .*; File too large; the one before is kept\n$", out), out


def test_prepared_records_are_trained_on(photographs, tmp_path, tiny):
    options = ["--data", photographs, "--records", tmp_path / "records", "--pairs", 20, "--shards", 2]
    status, out, err = tiny("--prepare", *options)
    assert status == 0 and "20 pairs in 2 files" in out and not (tmp_path / "run").exists(), err
    status, out, err = tiny("--steps", 12, *options)
    assert status == 0 and "photographs," not in out and "done" in out, err
    status, out, err = tiny("--seed", 1, *options)
    assert status == 1 and "holds records with another seed" in err
    status, out, err = tiny("--records", tmp_path / "records", "--candidates", 2)
    assert status == 2 and "--candidates goes with --data" in err
    (tmp_path / "records" / "train_SR_aug_X2_20-00001-of-00002.tfrecord").unlink()
    status, out, err = tiny("--records", tmp_path / "records")
    assert status == 1 and "holds 10 of 20 pairs: give --data" in err
    (tmp_path / "records" / "records.json").unlink()
    status, out, err = tiny("--prepare", *options)
    assert status == 1 and "holds records that were not written here: leave out --data" in err
    assert sorted(os.listdir(str(tmp_path / "records"))) == [".lock", "train_SR_aug_X2_20-00000-of-00002.tfrecord"]
    with lock_file(str(tmp_path / "records" / ".lock"), wait=False):
        status, out, err = tiny("--prepare", *options)
        assert status == 1 and "another process writes records to %s" % (tmp_path / "records") in err


def test_prefetching_ends_with_its_generator():
    before, made = threading.active_count(), []
    batches = patches.prefetch(lambda i: made.append(i) or i, 5, 1000)
    assert [next(batches) for _ in range(3)] == [5, 6, 7] and threading.active_count() == before + 1
    batches.close()
    deadline = time.time() + 10
    while threading.active_count() > before and time.time() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before and len(made) < 20

    def fails(i):
        raise ValueError("patch %d" % i)
    with pytest.raises(ValueError, match="patch 5"):
        next(patches.prefetch(fails, 5, 1000))


def test_tensorboard_is_told_where_a_run_resumed(photographs, tmp_path, tiny):
    options = ["--data", photographs, "--schedule", "halve", "--steps"]
    assert tiny(*options + [4])[0] == tiny(*options + [8])[0] == 0
    starts = [(event.session_log.status, event.step) for name in sorted(os.listdir(str(tmp_path / "run"))) if "tfevents" in name
              for event in tf.train.summary_iterator(str(tmp_path / "run" / name)) if event.HasField("session_log")]
    assert starts == [(tf.SessionLog.START, 4)]


def test_candidates_of_records_are_those_they_were_written_with(tmp_path, tiny):
    authors_record(tmp_path / "authors.tfrecord", 2, 12, 4)
    for folder, expected in ("one", 1), ("five", 5):
        status, out, err = tiny("--records", tmp_path, "--steps", 2, "--run", tmp_path / folder)
        assert status == 0 and "candidates %d," % expected in out, err
        assert json.loads((tmp_path / folder / "config.json").read_text())["candidates"] == expected
        (tmp_path / "records.json").write_text('{"candidates": 5}')


@pytest.mark.parametrize("threads", ["1", "2"])  # 2: each half of the batch in a thread of its own
def test_resumed_equals_uninterrupted_to_the_bit(photographs, tmp_path, threads):
    """Killed without warning, and resumed: the same weights, optimiser state, averages, skipped steps and log."""
    options = "--steps", "72", "--threads", threads, "--save-minutes", "0", "--skip-above", "1.2"
    whole = start(photographs, tmp_path / "whole", *options)
    broken = start(photographs, tmp_path / "broken", *options)
    while not (tmp_path / "broken" / "state" / "checkpoint").exists():
        assert broken.poll() is None
        time.sleep(0.01)
    broken.kill()
    broken.communicate()
    assert b"done" in whole.communicate()[0]
    resumed = start(photographs, tmp_path / "broken", *options)
    out = resumed.communicate()[0]
    assert b"resumed at step" in out and b"done" in out
    whole, broken = [state_values(tmp_path / name) for name in ("whole", "broken")]
    assert sorted(whole) == sorted(broken) and len(whole) == 4 * 21 - 6 + 4  # Muon, of six kernels, has one slot where Adam has two
    for name in whole:
        np.testing.assert_array_equal(whole[name], broken[name])
    logs = [[{key: record.get(key) for key in ("step", "rate", "psnr", "skipped")} for record in read_log(tmp_path / name)]
            for name in ("whole", "broken")]
    assert logs[0] == logs[1] and sum(record["skipped"] or 0 for record in logs[0]) > 0
    files = sorted(os.listdir(str(tmp_path / "broken" / "state")))
    assert {"checkpoint", "state-72.data-00000-of-00001", "state-72.index"} <= set(files)
    assert not [name for name in files if "temp" in name]


def test_killed_at_ten_random_moments(photographs, tmp_path):
    status, out, err = run_script(os.path.join("tests", "kill_at_random.py"), 1, tmp_path / "jobs", photographs)
    assert status == 0 and "0 files lost, ended as uninterrupted\nkilled 10 times" in out, out + err


def test_ema_weights_are_swapped_in_and_out(small_network, photographs):
    training = build_training("32s", "x2", ADAM._replace(ema=0.9))
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        before = session.run(model_variables())
        for variable in training.averages:
            variable.load(np.ones(variable.shape.as_list()), session)
        with graph.averaged_weights(session, training):
            assert all((value == 1).all() for value in session.run(model_variables()))
        for ours, expected in zip(session.run(model_variables()), before):
            np.testing.assert_array_equal(ours, expected)


def test_transfer_of_weights(tmp_path):
    """x2 to x4 and x3, and a deeper model from a shallower one: what is new passes on what it gets."""
    def build(model, scale):
        tf.reset_default_graph()
        drsan(tf.placeholder(tf.float32, [None, None, None, 3], "LR"), model, scale)
        session = tf.Session()
        session.run(tf.global_variables_initializer())
        return session

    session = build("32s", "x2")
    prefix = checkpoints.save_weights(session, str(tmp_path), "32s", "x2")
    lr = np.random.RandomState(0).rand(1, 10, 12, 3)
    sr = session.run("DRAN/SR:0", {"LR:0": lr})
    before, upsampler, output = session.run(["DRAN/conv2d_%d/kernel:0" % i for i in (45, 46, 47)])
    session = build("32s", "x4")
    taken, fresh, _ = checkpoints.transfer_weights(session, prefix)
    assert fresh == ["DRAN/conv2d_47/kernel", "DRAN/conv2d_47/bias"] and len(taken) == 132
    for ours, expected in zip(session.run(["DRAN/conv2d_%d/kernel:0" % i for i in (45, 46, 48)]), (before, upsampler, output)):
        np.testing.assert_array_equal(ours, expected)
    rows, columns = np.mgrid[:6, :8].astype(np.float32)
    ramp = (2 * rows + 3 * columns)[None, ..., None] * np.ones(32, np.float32)
    kernel, bias = session.run(["DRAN/conv2d_47/kernel:0", "DRAN/conv2d_47/bias:0"])
    assert not bias.any()
    with tf.Graph().as_default(), tf.Session() as other:  # bilinear interpolation of a ramp is a ramp
        larger = other.run(tf.depth_to_space(tf.nn.conv2d(tf.constant(ramp), kernel, [1, 1, 1, 1], "SAME"), 2))
    rows, columns = (np.mgrid[:12, :16] - 0.5) / 2
    np.testing.assert_allclose(larger[0, 2:-2, 2:-2, 31], (2 * rows + 3 * columns)[2:-2, 2:-2], atol=1e-5)
    session = build("32s", "x3")
    taken, fresh, message = checkpoints.transfer_weights(session, prefix)
    assert fresh == [] and len(taken) == 132 and message == "132 variables taken from " + prefix
    ours = session.run("DRAN/conv2d_46/kernel:0").reshape([3, 3, 32, 3, 3, 32])
    corners = upsampler.reshape([3, 3, 32, 2, 2, 32])
    np.testing.assert_array_equal(ours[..., ::2, ::2, :], corners)
    np.testing.assert_allclose(ours[..., 0, 1, :], corners[..., 0, :, :].mean(axis=-2), atol=1e-6)
    np.testing.assert_allclose(ours[..., 1, 1, :], corners.mean(axis=(-3, -2)), atol=1e-6)
    session = build("48s", "x4")
    with pytest.raises(UserError, match=r"has the shape \[3, 3, 3, 32\], and this model's has \[3, 3, 3, 48\]"):
        checkpoints.transfer_weights(session, prefix)
    session = build("32m", "x2")  # four new DRAGs, each the identity
    taken, fresh, message = checkpoints.transfer_weights(session, prefix)
    assert message == "132 variables taken from %s, %d not: %s" % (prefix, len(fresh), " ".join(fresh))
    assert len(taken) == 132  # x0, four DRAGs, the convolution before the skip, upsampler and output
    assert {name.split("/")[1] for name in fresh if "block" in name} == {
        "conv_block%d%s" % (k, suffix) for k in range(5, 9)
        for suffix in ["prelualpha"] + ["_pReLU_%dalpha" % j for j in range(1, 9)]}
    for ours, expected in zip(session.run(["DRAN/conv2d_89/kernel:0", "DRAN/conv2d_91/kernel:0"]), (before, output)):
        np.testing.assert_array_equal(ours, expected)
    np.testing.assert_allclose(session.run("DRAN/SR:0", {"LR:0": lr}), sr, atol=1e-6)


@pytest.mark.parametrize("model, scale", [("32s", "x3"), ("32s", "x4"), ("32m", "x2")])
def test_transfer_without_tensorflow_is_the_same(model, scale, tmp_path):
    """weights.transfer() on arrays gives every bit that transfer_weights() loads, and does not change what it is given."""
    with tf.Graph().as_default(), tf.Session() as session:
        drsan(tf.placeholder(tf.float32, [None, None, None, 3], "LR"), "32s", "x2")
        session.run(tf.global_variables_initializer())
        prefix = checkpoints.save_weights(session, str(tmp_path), "32s", "x2")
        source = {v.op.name: session.run(v) for v in model_variables()}
    drsan(tf.placeholder(tf.float32, [None, None, None, 3], "LR"), model, scale)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        own = {v.op.name: session.run(v) for v in model_variables()}
        before = {name: value.copy() for name, value in own.items()}
        expected_taken = checkpoints.transfer_weights(session, prefix)[0]
        values, taken = transfer(source, own, "here")
        assert taken == expected_taken and list(values) == list(own)
        for variable in model_variables():
            name, expected = variable.op.name, session.run(variable)
            assert values[name].dtype == expected.dtype and values[name].tobytes() == expected.tobytes(), name
            np.testing.assert_array_equal(own[name], before[name])
        shapes = {name: value.shape for name, value in own.items()}
        drawn = initial_weights(shapes, 3)
    for name, value in own.items():  # the same law as TensorFlow's initializers
        assert drawn[name].shape == value.shape and drawn[name].dtype == np.float32
        if not name.endswith("/kernel"):
            assert not value.any() and not drawn[name].any()
        elif value.size > 5000:
            np.testing.assert_allclose(np.abs(drawn[name]).max(), np.abs(value).max(), rtol=0.01)
            np.testing.assert_allclose(drawn[name].std(), value.std(), rtol=0.05)
    np.testing.assert_array_equal(initial_weights(shapes, 3)["DRAN/conv2d/kernel"], drawn["DRAN/conv2d/kernel"])


def test_plot_of_runs(tmp_path):
    from tools import plot_training
    (tmp_path / "run").mkdir()
    log = tmp_path / "run" / "log.jsonl"
    log.write_text('{"loss": 0.5, "step": 1}\n{"psnr": 30, "step": 1}\n{"loss": 0.4, "step": 2}\n')
    curves = plot_training.read_curves(str(tmp_path / "run"))
    assert curves["loss"] == ((1, 2), (0.5, 0.4)) and curves["psnr"] == ((1,), (30,)) and curves["kernel_rms"] == ((), ())
    plot_training.plot([str(tmp_path / "run")], str(tmp_path / "a.png"))
    assert Image.open(str(tmp_path / "a.png")).size == (1200, 432)
    log.write_text(log.read_text() + '{"psnr": 31, "psnr_held_out": 29, "largest_dra": 0.5, "kernel_rms": 0.1, "step": 2}\n')
    curves = plot_training.read_curves(str(tmp_path / "run"))
    assert curves["psnr"] == ((2,), (29,)) and curves["largest_dra"] == ((2,), (0.5,)) and curves["kernel_rms"] == ((2,), (0.1,))
    plot_training.plot([str(tmp_path / "run")], str(tmp_path / "b.png"), health=True)
    drawn = np.asarray(Image.open(str(tmp_path / "b.png")).convert("RGB"), int)
    assert drawn.shape == (864, 1200, 3) and (drawn[432:].min(axis=2) < 100).any(axis=0).sum() > 600  # three more panels below
    assert sorted(os.listdir(str(tmp_path))) == ["a.png", "b.png", "run"]
    with pytest.raises(UserError, match="cannot read .*nothing"):
        plot_training.plot([str(tmp_path / "nothing")], str(tmp_path / "b.png"))
