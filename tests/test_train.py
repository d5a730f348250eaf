"""Runs of train.py: they stop, resume, validate, and say what is wrong; within this process where they
can."""
import argparse
import json
import os
import re
import resource
import shutil
import signal
import threading
import time

import train
from conftest import ROOT, TINY, WHOLE, authors_record, call, fork, read_log, start, state_values
from model import MODELS, Variant, drsan, model_variables
from ops import tf
from tools import checkpoints, command, gate, plot_training, runtime
from tools.command import UserError
from tools.data.photographs import hold_out, in_threads
from tools.files import locked
from tools.training import cluster, graph, run as run_module
from tools.training.recipes import make_recipe

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def tiny(photographs, tmp_path, monkeypatch, capsys):
    """Run train.py with tiny settings and a tiny network in the folder `run`: (exit status, stdout,
    stderr)."""
    monkeypatch.setitem(MODELS, "32s", Variant(channels=16, drags=1, blocks=1))
    monkeypatch.setattr(cluster, "can_compile", lambda: False)  # it takes longer than these trainings
    monkeypatch.setattr(gate, "PATCHES", 20)
    monkeypatch.setattr(graph, "hard_pictures", lambda count, side: gate.hard_pictures(2, 24))
    monkeypatch.setattr(command, "_noticed", set())

    def run(*extra, data=("--data", photographs)):
        arguments = ["--run", tmp_path / "run", "--valid", photographs / "deeper", *data] + TINY + list(extra)
        return call(monkeypatch, capsys, train.main, *arguments)
    return run


def best_config(run):
    return json.loads((run / "best" / "config.json").read_text())


# processes: signals, and what a kill leaves

def test_a_run_stops_and_resumes(photographs, tmp_path, tiny):
    """Also where nothing reads what it prints any more, and its terminal is gone."""
    run, options, reached = tmp_path / "run", ("--steps", "100000", "--threads", "1"), 0
    for number in signal.SIGHUP, signal.SIGINT:
        process = start(photographs, run, *options)
        lines = [process.stdout.readline().decode()]
        while "step" not in lines[-1] or "PSNR" not in lines[-1] or "resumed" in lines[-1]:
            lines.append(process.stdout.readline().decode())
            assert process.poll() is None, "".join(lines)
        assert not reached or "resumed at step %d," % reached in "".join(lines)
        if number == signal.SIGHUP:
            process.stdout.close()
            while read_log(run)[-1]["step"] < int(lines[-1].split()[1]) + 8:  # it goes on
                time.sleep(0.05)
        process.send_signal(number)
        assert process.wait() == 128 + number
        before, reached = reached, int(state_values(run)["Variable"])
        assert reached > before
    assert "stopped at step %d; the same command resumes\n" % reached in process.stdout.read().decode()
    steps = [record["step"] for record in read_log(run) if "loss" in record]
    assert steps == sorted(set(steps)) and steps[-1] > before
    status, _, err = tiny("--steps", 200)
    assert status == 1 and "was started with steps = 100000, not 200" in err
    assert "--init-from %s --run DIR" % (run / "best") in err


def test_a_signal_ends_the_reading_of_photographs(photographs, tmp_path):
    (photographs / "0.jpg").write_bytes(b"nothing")
    noise = np.random.RandomState(0).randint(0, 256, (1500, 2000, 3)).astype(np.uint8)
    Image.fromarray(noise).save(str(photographs / "1.jpg"))
    for i in range(2, 300):
        os.link(str(photographs / "1.jpg"), str(photographs / ("%d.jpg" % i)))
    process = start(photographs, tmp_path / "run", "--workers", "2", start_new_session=True)
    assert process.stdout.readline().startswith(b"left out: cannot read the image")
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C of a terminal
    assert process.communicate()[0] == b"stopped\n" and process.returncode == 130


def test_killed_and_resumed_equals_uninterrupted_to_the_bit(photographs, tmp_path):
    """Weights, optimiser state, averages, skipped steps and log, with half of the batch in each of two
    threads."""
    options = WHOLE + ("--steps", "72", "--threads", "2", "--skip-above", "1", "--valid-every", "24")
    whole, random = fork(photographs, tmp_path / "whole", *options), np.random.RandomState(0)
    options += "--save-minutes", "0"
    run, saved = tmp_path / "broken", 0

    def last_state():
        return max([int(path.stem.split("-")[1]) for path in run.glob("state/state-*.index")] or [0])
    for _ in range(2):
        broken = fork(photographs, run, *options)
        while last_state() <= saved:
            assert broken.poll() is None
            time.sleep(0.02)
        time.sleep(0.1 * random.rand())
        broken.kill()
        broken.communicate()
        before, saved = saved, int(state_values(run)["Variable"])
        assert saved > before and json.loads((run / "config.json").read_text())  # whole, and no older
    for name in "state-1.index", "state-1.data-00000-of-00001":  # as a kill after a save leaves them
        (run / "state" / name).touch()
    (run / "state" / "checkpoint").write_text(  # a whole path, which it may have
        'model_checkpoint_path: "%s"\n' % (run / "state" / ("state-%d" % saved)))
    out = fork(photographs, os.path.relpath(str(run), ROOT), *options).communicate()[0]
    assert b"resumed at step %d," % saved in out and b"done" in out and b"done" in whole.communicate()[0]
    whole, broken = [state_values(tmp_path / name) for name in ("whole", "broken")]
    assert sorted(whole) == sorted(broken)
    assert len(whole) == 4 * 21 - 6 + 4  # Muon, of six kernels, has one slot where Adam has two
    for name in whole:
        np.testing.assert_array_equal(whole[name], broken[name])
    logs = [[{key: record.get(key) for key in ("step", "rate", "psnr", "skipped")} for record in read_log(
        tmp_path / name)] for name in ("whole", "broken")]
    assert logs[0] == logs[1] and sum(record["skipped"] or 0 for record in logs[0]) > 0
    assert {path.name for path in (run / "state").iterdir()} == {
        "checkpoint", "state-72.data-00000-of-00001", "state-72.index"}


# what is recorded, evaluated and refused

def test_an_ablation_is_recorded_and_evaluated(photographs, tmp_path, run, tiny):
    status, out, err = tiny("--without", "dynamics", "--steps", 8)
    assert status == 0 and out.endswith("done: %s\n" % (tmp_path / "run" / "best")), err
    config = best_config(tmp_path / "run")
    assert [config[key] for key in ("model", "steps", "rate", "without")] == ["32s", 8, 1e-3, "dynamics"]
    options = ["--checkpoint", tmp_path / "run" / "best", "--dataset", photographs / "deeper"]
    assert "was trained without dynamics: it needs test.py --without dynamics" in run(*options)[2]
    status, out, err = run("--without", "dynamics", *options)
    assert status == 0 and "17,684 parameters" in out, err  # 17,988 with the DRM
    assert float(out.split("mean")[1].split()[0]) == pytest.approx(config["validation_psnr"], abs=1e-3)
    assert "was started with without = dynamics, not None" in tiny("--steps", 8)[2]


@pytest.mark.parametrize("instructions", [True, False])
def test_bfloat16_is_recorded_or_refused(tmp_path, monkeypatch, tiny, instructions):
    monkeypatch.setattr(runtime, "cpu_has_bfloat16", lambda: instructions)
    status, _, err = tiny("--precision", "bfloat16", "--steps", 8)
    if not runtime.why_no_bfloat16():
        assert status == 0 and ("note: this processor has no" in err) == (not instructions), err
        assert best_config(tmp_path / "run")["precision"] == "bfloat16"
    else:
        assert status == 1 and err == "error: %s\n" % runtime.why_no_bfloat16(), err
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options, status, message", [
    (["--data", "DATA", "--patch", 500], 1, "2 of 2 are smaller than 1000 pixels a side: lower --patch"),
    (["--data", "nowhere"], 1, "no training data below nowhere"),
    ([], 2, "give photographs by --data or records by --records"),
    (["--records", "a", "--candidates", 2], 2, "--candidates goes with --data"),
    (["--records", "a", "--valid-share", 0.5], 2, "--valid-share goes with --data"),
    (["--data", "a", "--batch", 0], 2, "argument --batch: invalid positive int value"),
    (["--data", "a", "--ema", 1], 2, "argument --ema: invalid fraction float value"),
    (["--data", "a", "--warmup", -1], 2, "argument --warmup: invalid not negative int value"),
    (["--data", "a", "--pairs", 8, "--shards", 16], 2, "--pairs 8 cannot fill --shards 16"),
    (["--data", "a", "--run", "runs/a[1]"], 2, "--run runs/a[1]: TensorFlow takes")])
def test_what_cannot_be_leaves_no_run(photographs, tmp_path, tiny, options, status, message):
    found, _, err = tiny(*[photographs if option == "DATA" else option for option in options], data=())
    assert found == status and message in err and not (tmp_path / "run").exists()


def test_resuming_is_about_the_training_not_the_spelling(photographs, tmp_path, tiny):
    options = ["--schedule", "halve", "--valid", photographs / "deeper"]
    assert tiny("--steps", 4, *options)[0] == 0
    moved, relative = tmp_path / "moved", os.path.relpath(str(photographs))
    shutil.copytree(str(photographs), str(moved))
    for data, steps in (relative + os.sep, 6), (moved, 8):
        options[3] = os.path.join(relative, "deeper")
        status, out, err = tiny("--data", data, "--steps", steps, *options)
        assert status == 0 and "resumed at step" in out and "done" in out, err
    (moved / "deeper" / "coffee.png").unlink()
    status, _, err = tiny("--data", moved, "--steps", 12, *options)
    assert "data = 2 files of %s, not 1 files of %s: give" % (moved, moved) in err
    assert "was started with schedule = halve, not cosine" in tiny("--steps", 12, "--schedule", "cosine")[2]
    assert "was started with valid = " in tiny("--steps", 12, *options[:2], "--valid", "Sample")[2]
    starts = [(event.session_log.status, event.step) for path in sorted((tmp_path / "run").glob("*tfevents*"))
              for event in tf.train.summary_iterator(str(path)) if event.HasField("session_log")]
    assert starts == [(tf.SessionLog.START, step) for step in (4, 6)]  # TensorBoard is told of it


def test_runs_that_begin_within_a_second_keep_their_events(tmp_path):
    for step in range(6):
        with tf.Graph().as_default():
            tf.get_variable("DRAN/weight", [1])
            run = run_module.Run(str(tmp_path), {"valid_share": 0})
            run.build("/cpu:0")
            run.summaries.add_summary(tf.Summary(), step)
            run.summaries.close()
    steps = [event.step for path in tmp_path.glob("*tfevents*")
             for event in tf.train.summary_iterator(str(path)) if event.HasField("summary")]
    assert sorted(steps) == list(range(6))


def test_a_run_that_cannot_go_on_is_one_line(tmp_path, tiny):
    """While another process trains, from a state, a config or a log that is damaged, and onto a full disk."""
    run, options = tmp_path / "run", ["--steps", 8]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)  # TensorFlow reports a full disk in the same way
    resource.setrlimit(resource.RLIMIT_FSIZE, (50000, limits[1]))
    try:
        status, _, err = tiny(*options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert status == 1 and re.search(r"cannot save step 8 as .*DRSAN32sx2: .*File too large; the", err), err
    assert tiny(*options)[0] == 0
    with locked(str(run), "trains in", "--run"):
        assert "another process trains in %s" % run in tiny(*options)[2]
    data, index = run / "state" / "state-8.data-00000-of-00001", run / "state" / "state-8.index"
    whole = data.read_bytes()
    data.write_bytes(whole[:1000])
    status, _, err = tiny(*options)
    assert status == 1 and "cannot read the checkpoint" in err
    assert "begin another run from the best weights by --init-from %s --run DIR\n" % (run / "best") in err
    data.write_bytes(whole)
    shutil.copy(str(index), str(run / "state" / "state-4.index"))
    (run / "state" / "checkpoint").unlink()
    assert "holds several states, and its file `checkpoint` names none of them" in tiny(*options)[2]
    (run / "state" / "state-4.index").unlink()
    lines = (run / "log.jsonl").read_text().splitlines(True)
    (run / "log.jsonl").write_text(lines[0] + '{"step": 6, "lo\n' + "".join(lines[1:]))
    (run / "state" / "checkpoint").write_text("")
    status, out, err = tiny(*options)
    assert status == 0 and "resumed at step 8," in out, err
    assert (run / "log.jsonl").read_text() == "".join(lines)
    assert "note: line 2 of %s is damaged, and left out\n" % (run / "log.jsonl") in err
    (run / "config.json").write_text((run / "config.json").read_text()[:50])
    status, _, err = tiny(*options)
    assert status == 1 and "cannot read %s: " % (run / "config.json") in err and "; remove it to go on" in err


def test_runs_that_start_from_weights(tmp_path, weights, tiny):
    """A start that failed is not in the way; the history is that of the start, which may be gone later."""
    status, _, err = tiny("--steps", 8, "--init-from", tmp_path / "nowhere")
    assert status == 1 and "no checkpoint at" in err and not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"init_from": "nowhere"}')
    status, _, err = tiny("--steps", 4)
    first = best_config(tmp_path / "run")
    assert status == 0 and first["trained_before"] == [], err
    status, _, err = tiny("--steps", 4, "--init-from", weights)  # of the whole 32s, not of the tiny one
    assert status == 1 and "was started with init_from = None, not" in err
    status, _, err = tiny("--steps", 4, "--init-from", weights, "--run", tmp_path / "other")
    assert status == 1 and "nothing can be taken from %s: its DRAN/conv2d/kernel has the" % weights in err
    options = ["--steps", 8, "--init-from", tmp_path / "run" / "best", "--run", tmp_path / "second"]
    status, out, err = tiny(*options)
    assert status == 0 and "21 variables taken from %s" % (tmp_path / "run" / "best") in out, err
    shutil.rmtree(str(tmp_path / "run"))
    assert tiny(*options)[0] == 0  # resumed, though nothing is left to do
    first = {key: value for key, value in first.items() if key not in ("trained_before", "dra_ranges")}
    for path in "config.json", "best/config.json":
        assert json.loads((tmp_path / "second" / path).read_text())["trained_before"] == [first]


def test_best_is_best_on_the_held_out(photographs, tmp_path, run, tiny):
    """Neither photographs nor records hold what is held out."""
    def held_out(share):
        try:
            return hold_out(str(photographs), share)[1]
        except UserError:  # it takes none or all
            return []
    share = next(percent / 100 for percent in range(1, 100) if len(held_out(percent / 100)) == 1)
    options = [*WHOLE, "--valid-share", share, "--steps", 16]
    status, out, err = tiny(*options)
    assert status == 0 and "1 photographs, " in out and "held-out photographs" in out, err
    config = best_config(tmp_path / "run")
    held = os.path.join(str(photographs), config["held_out"][0])
    assert [held] == held_out(share) and config["valid_share"] == share
    records = read_log(tmp_path / "run")
    assert config["validation_psnr"] == max(record["psnr_held_out"] for record in records if "psnr" in record)
    (tmp_path / "held").mkdir()
    shutil.copy(held, str(tmp_path / "held"))
    out = run("--checkpoint", tmp_path / "run" / "best", "--dataset", tmp_path / "held")[1]
    assert float(out.split("mean")[1].split()[0]) == pytest.approx(config["validation_psnr"], abs=1e-3)
    line = "resumed at step 16, best PSNR of held-out photographs %.3f dB" % config["validation_psnr"]
    assert line in tiny(*options)[1]
    out = tiny(*options, "--records", tmp_path / "records", "--pairs", 4, "--shards", 1, "--prepare")[1]
    assert "1 photographs, " in out and json.loads(
        (tmp_path / "records" / "records.json").read_text())["valid_share"] == share


def test_an_infinite_psnr_is_null_in_the_log(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(graph, "psnr_y", lambda sr, hr, factor: float("inf"))
    assert tiny("--steps", 16)[0] == 0
    assert [record["psnr"] for record in read_log(tmp_path / "run") if "psnr" in record] == [None, None]
    assert "Infinity" not in (tmp_path / "run" / "log.jsonl").read_text()
    assert best_config(tmp_path / "run")["trained_steps"] == 16  # the last ones
    assert "resumed at step 16, before its first validation" in tiny("--steps", 16)[1]


def test_prepared_records_are_trained_on(tmp_path, tiny):
    folder = tmp_path / "records"
    options = ["--records", folder, "--pairs", 20, "--shards", 2]
    status, out, err = tiny("--prepare", *options)
    assert status == 0 and "20 pairs in 2 files" in out and not (tmp_path / "run").exists(), err
    status, out, err = tiny("--steps", 4, *options)
    assert status == 0 and "photographs," not in out and "done" in out, err
    assert "holds records with another seed, textures" in tiny("--seed", 1, "--textures", 0.5, *options)[2]
    (folder / "train_SR_aug_X2_20-00001-of-00002.tfrecord").unlink()
    assert "holds 10 of 20 pairs: give --data" in tiny("--records", folder, data=())[2]
    config = (folder / "records.json").read_text()
    (folder / "records.json").write_text(config[:20])
    assert "cannot read %s: " % (folder / "records.json") in tiny("--prepare", *options)[2]
    (folder / "records.json").unlink()
    assert "records that were not written here: leave out --data" in tiny("--prepare", *options)[2]
    assert sorted(os.listdir(str(folder))) == [".lock", "train_SR_aug_X2_20-00000-of-00002.tfrecord"]


def test_candidates_of_records_are_those_they_were_written_with(tmp_path, tiny):
    authors_record(tmp_path / "authors.tfrecord", 2, 12, 4)
    for folder, expected in ("one", 1), ("five", 5):
        status, out, err = tiny("--records", tmp_path, "--steps", 2, "--run", tmp_path / folder, data=())
        assert status == 0 and "candidates %d," % expected in out, err
        assert json.loads((tmp_path / folder / "config.json").read_text())["candidates"] == expected
        (tmp_path / "records.json").write_text('{"candidates": 5}')


# weights that explode

def test_exploding_weights_are_not_kept(tmp_path, tiny):
    """Whatever step it happens after: the loss of a step is that of the weights before it."""
    options = ["--warmup", 0, "--save-minutes", 0]
    status, _, err = tiny("--steps", 1000, "--rate", 1e9, *options)
    assert status == 1 and "the training diverges at step 6, with a loss of " in err
    assert err.endswith("lower --rate, in another --run\n")
    assert not list((tmp_path / "run" / "state").iterdir())
    assert tiny("--steps", 8, *options)[0] == 0  # nothing was kept, so the options may change


@pytest.mark.filterwarnings("error:invalid value:RuntimeWarning")
def test_after_an_explosion_the_last_good_weights_go_on(tmp_path, tiny, monkeypatch):
    options = [*WHOLE, "--steps", 16, "--save-minutes", 0]
    monkeypatch.setattr(train, "learning_rate", lambda recipe, step: 1e9 if step == 5 else 1e-3)
    assert tiny(*WHOLE, "--steps", 5, "--run", tmp_path / "five")[0] == 0
    status, _, err = tiny(*options)
    assert status == 1 and "the training diverges at step 11, with" in err
    assert "the same command goes on with other patches from the last good weights, saved in %s; if" % (
        tmp_path / "run" / "state") in err
    kept, values = state_values(tmp_path / "five"), state_values(tmp_path / "run")
    assert values.pop("Variable") == 11 and kept.pop("Variable") == 5 and set(values) == set(kept)
    for name in values:
        np.testing.assert_array_equal(values[name], kept[name])
    status, out, err = tiny(*options)
    assert status == 0 and "resumed at step 11," in out and "done" in out, err


@pytest.mark.parametrize("poisoned", [[5], [4, 6, 7, 8, 9, 10]])
def test_poisoned_steps_are_skipped_and_five_in_a_row_end_a_run(tmp_path, tiny, monkeypatch, poisoned):
    """Poisoned: the DRA values of these steps are NaN, as a bad patch may make them."""
    sampled, run = [], tf.Session.run

    def poisoned_run(session, fetches, feed_dict=None, **kwargs):
        if isinstance(fetches, list) and len(fetches) == 4 and fetches[1].name == "Loss:0":
            if sampled.pop(0) in poisoned:
                feed_dict = dict(feed_dict, **{"DRAN/DRAG1/DRA:0": np.full([2, 1, 1, 1], np.nan)})
        return run(session, fetches, feed_dict, **kwargs)

    def batches(function, steps, workers):
        for step in steps:
            sampled.append(step)
            yield function(step)

    monkeypatch.setattr(tf.Session, "run", poisoned_run)
    monkeypatch.setattr(train, "in_threads", batches)
    options = ["--steps", 12, "--threads", 1]
    status, out, err = tiny(*options)
    if len(poisoned) > 1:
        assert status == 1 and "diverges at step 11, with a loss of nan and a gradient norm of nan" in err
        status, out, err = tiny(*options)
        assert status == 0 and "resumed at step 11, best PSNR of" in out and "done" in out, err
    else:
        lines = [line for line in out.splitlines() if "loss" in line]
        assert not lines[0].endswith("skipped 1") and lines[1].endswith("  skipped 1"), err
        records = read_log(tmp_path / "run")
        assert [record["skipped"] for record in records if "loss" in record] == [0, 1, 0]
        assert all(record["gradient_norm"] > 0 for record in records if "loss" in record)
        assert records[-1]["largest_dra"] > 0 and 0.01 < records[-1]["kernel_rms"] < 1


# parts

def test_what_threads_compute_ahead_ends_with_its_generator():
    before, made = threading.active_count(), []
    batches = in_threads(lambda i: made.append(i) or i, range(5, 1000), 1)
    assert [next(batches) for _ in range(3)] == [5, 6, 7] and threading.active_count() == before + 1
    batches.close()
    assert threading.active_count() == before and len(made) < 20
    assert list(in_threads(abs, range(-3, 9), 2)) == [3, 2, 1] + list(range(9))
    with pytest.raises(ZeroDivisionError):
        next(in_threads(lambda i: i / 0, range(5, 1000), 1))


def test_speed_is_that_of_steps_alone(monkeypatch, capsys):
    now, records = [1000.0], []
    monkeypatch.setattr(run_module.time, "time", lambda: now[0])
    run = argparse.Namespace(seconds=0, log=records.append)
    meter = run_module.Meter(run, make_recipe("paper", "32s", "x2"), 10)
    for skipped in [False] * 9 + [True]:
        with meter.waiting():
            now[0] += 0.1
        now[0] += 0.4
        meter.add(np.nan if skipped else 0.1, 1, skipped)
        with meter.paused():
            now[0] += 100
    meter.log(20, 1e-3)
    assert capsys.readouterr().out.startswith(
        "step      20/1000000  loss 0.10000  rate 1.00e-03    32.0 images/s  wait 20.0 %  left 138:53:10")
    assert records[0]["images_per_second"] == 32 and records[0]["seconds"] == 5 and records[0]["skipped"] == 1


def test_ema_weights_are_swapped_in_and_out(small_network):
    training = graph.build_training("32s", "x2", make_recipe("paper", "32s", "x2")._replace(ema=0.9))
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        before = session.run(model_variables())
        checkpoints.load_values(session, training.averages, [np.ones_like(value) for value in before])
        with graph.averaged_weights(session, training):
            assert all((value == 1).all() for value in session.run(model_variables()))
        for ours, expected in zip(session.run(model_variables()), before):
            np.testing.assert_array_equal(ours, expected)


def test_transfer_of_weights(tmp_path, monkeypatch):
    """x2 to x4 and x3, and a deeper model from a shallower one: what is new passes on what it gets."""
    for model, variant in ("32s", (16, 1, 1)), ("32m", (16, 3, 1)), ("48s", (24, 1, 1)):
        monkeypatch.setitem(MODELS, model, Variant(*variant))

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
    before, upsampler, output = session.run(["DRAN/conv2d_%d/kernel:0" % i for i in (6, 7, 8)])
    session = build("32s", "x4")
    taken, message = checkpoints.transfer_weights(session, prefix)
    assert len(taken) == 21
    assert message == "21 variables taken from %s, 2 not: DRAN/conv2d_8/kernel DRAN/conv2d_8/bias" % prefix
    names = ["DRAN/conv2d_%d/kernel:0" % i for i in (6, 7, 9)]
    for ours, expected in zip(session.run(names), (before, upsampler, output)):
        np.testing.assert_array_equal(ours, expected)
    rows, columns = np.mgrid[:6, :8].astype(np.float32)
    ramp = (2 * rows + 3 * columns)[None, ..., None] * np.ones(16, np.float32)
    kernel, bias = session.run(["DRAN/conv2d_8/kernel:0", "DRAN/conv2d_8/bias:0"])
    assert not bias.any()
    with tf.Graph().as_default(), tf.Session() as other:  # bilinear interpolation of a ramp is a ramp
        larger = tf.nn.conv2d(tf.constant(ramp), kernel, [1, 1, 1, 1], "SAME")
        larger = other.run(tf.depth_to_space(larger, 2))
    rows, columns = (np.mgrid[:12, :16] - 0.5) / 2
    np.testing.assert_allclose(larger[0, 2:-2, 2:-2, 15], (2 * rows + 3 * columns)[2:-2, 2:-2], atol=1e-5)
    session = build("32s", "x3")
    assert checkpoints.transfer_weights(session, prefix)[1] == "21 variables taken from " + prefix
    ours = session.run("DRAN/conv2d_7/kernel:0").reshape([3, 3, 16, 3, 3, 16])
    corners = upsampler.reshape([3, 3, 16, 2, 2, 16])
    np.testing.assert_array_equal(ours[..., ::2, ::2, :], corners)
    np.testing.assert_allclose(ours[..., 0, 1, :], corners[..., 0, :, :].mean(axis=-2), atol=1e-6)
    np.testing.assert_allclose(ours[..., 1, 1, :], corners.mean(axis=(-3, -2)), atol=1e-6)
    session = build("48s", "x4")
    with pytest.raises(UserError, match=r"shape \[3, 3, 3, 16\], and this model's has \[3, 3, 3, 24\]"):
        checkpoints.transfer_weights(session, prefix)
    session = build("32m", "x2")  # two new DRAGs, each the identity
    taken, _ = checkpoints.transfer_weights(session, prefix)
    assert len(taken) == 21  # x0, a DRAG, the convolution before the skip, upsampler and output
    names = ["DRAN/conv2d_16/kernel:0", "DRAN/conv2d_18/kernel:0"]
    for ours, expected in zip(session.run(names), (before, output)):
        np.testing.assert_array_equal(ours, expected)
    np.testing.assert_allclose(session.run("DRAN/SR:0", {"LR:0": lr}), sr, atol=1e-6)


def test_plot_of_runs(tmp_path):
    (tmp_path / "run").mkdir()
    log = tmp_path / "run" / "log.jsonl"
    log.write_text('{"loss": 0.5, "step": 1}\n{"psnr": 30, "step": 1}\n{"loss": 0.4, "step": 2}\n')
    curves = plot_training.read_curves(str(tmp_path / "run"))
    assert curves["loss"] == ((1, 2), (0.5, 0.4)) and curves["psnr"] == ((1,), (30,))
    assert curves["kernel_rms"] == ((), ())
    log.write_text(log.read_text() + '{"psnr": 31, "psnr_held_out": 29, "kernel_rms": 0.1, "step": 2}\n')
    curves = plot_training.read_curves(str(tmp_path / "run"))
    assert curves["psnr"] == ((2,), (29,)) and curves["kernel_rms"] == ((2,), (0.1,))
    for name, health, height in ("a", False, 432), ("b", True, 864):  # three more panels below
        plot_training.plot([str(tmp_path / "run")], str(tmp_path / (name + ".png")), health)
        drawn = np.asarray(Image.open(str(tmp_path / (name + ".png"))).convert("RGB"), int)
        assert drawn.shape == (height, 1200, 3)
        assert (drawn[height - 432:].min(axis=2) < 100).any(axis=0).sum() > 600
    assert sorted(os.listdir(str(tmp_path))) == ["a.png", "b.png", "run"]
    with pytest.raises(UserError, match="cannot read .*nothing"):
        plot_training.plot([str(tmp_path / "nothing")], str(tmp_path / "b.png"))
