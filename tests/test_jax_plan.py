"""tools/gpu/: plans of several trainings, their time, and how a plan goes on after any end of its process."""
import concurrent.futures
import csv
import json
import os
import random as random_module
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="the tools that train with JAX need it: pip install jax (Python 3.11 or later)")
jax.config.update("jax_disable_most_optimizations", True)  # most of the time goes into compiling

from conftest import ROOT, call, read_log
from jax_tools import save_images, start_training, textures
import test as evaluation
from model import MODELS, Variant
from ops import tf
from tools.checkpoints import checkpoint_config, checkpoint_prefix
from tools.data.parts import write_held_out
from tools.gpu import import_weights, plan, plan_run, programs, schedule, train_jax, trainer, trial
from tools.gpu.export_graph import export_graph
from tools.gpu.files import Trained, read_trained, write_trained
from tools.gpu.tiles import TileStore
from tools.training.recipes import learning_rate, make_recipe
from tools.weights import initial_weights, transfer
from tools.command import UserError
from tools.files import locked, write_json

FAST = make_recipe("fast", "32s", "x2")
PLAN = [{"name": "first", "model": "32s", "scale": "x2", "share": 2, "start": "scratch"},
        {"name": "larger", "model": "32s", "scale": "x3", "share": 1, "start": "first", "rate": 5e-4},
        {"name": "deeper", "model": "32m", "scale": "x2", "share": 1, "start": "first", "rate": 5e-4}]


# the schedule

def follow_clock(recipe, total, dispatch, step_seconds):
    """Train by a fake clock, where a step takes step_seconds(step): the rates of all steps, and the seconds in the end."""
    clock, step, seconds, pace, share, rates = schedule.ClockSchedule(recipe, total), 0, 0.0, None, 0, []
    while not clock.is_done(step, share):
        these, share = clock.rates(step, seconds, pace, dispatch)
        assert len(these) == dispatch and these.dtype == np.float32
        took = sum(step_seconds(step + i) for i in range(dispatch))
        step, seconds, pace = step + dispatch, seconds + took, took / dispatch
        rates += list(these)
    return np.array(rates), seconds


@pytest.mark.parametrize("total, pace", [(100, 0.01), (1000, 0.01), (100, 0.1)])
def test_rates_follow_the_clock(total, pace):
    """At a constant speed, they are those of as many steps as fit, and end at 0 within half a dispatch of the time."""
    rates, seconds = follow_clock(FAST, total, 20, lambda step: pace)
    assert abs(seconds - total) <= 20 * pace / 2 + 1e-6
    assert rates[-1] == 0
    expected = [learning_rate(FAST._replace(steps=round(total / pace)), i) for i in range(len(rates))]
    assert np.max(np.abs(rates[20:] - expected[20:])) < 1e-3 * 21 * pace / total * np.pi
    assert list(rates[:3]) == pytest.approx([1e-3 * (i + 1) / 201 for i in range(3)])  # the warm-up is one of steps


def test_rates_follow_a_device_that_changes_its_speed():
    """Half of the time is half of the cosine, however many steps that were."""
    rates, seconds = follow_clock(FAST, 300, 10, lambda step: 0.1 if step < 1500 else 0.02)
    assert abs(seconds - 300) < 1 and rates[-1] == 0
    assert rates[1500] == pytest.approx(5e-4, rel=0.02)
    assert len(rates) == pytest.approx(1500 + 150 / 0.02, rel=0.01)
    jump = 1e-3 * np.pi / 2 * 10 * 0.1 / 300  # where it turned out that a dispatch had used less time than expected
    assert np.all(np.diff(rates[200:]) <= jump) and np.sum(np.diff(rates[200:]) > 0) == 1


def test_a_training_shorter_than_a_dispatch_ends_annealed():
    for total in 0, 0.5, 3:
        rates, _ = follow_clock(FAST._replace(warmup=0), total, 20, lambda step: 1)
        assert rates[-1] == 0 and np.all(np.diff(rates[-20:]) <= 0) and len(rates) <= 40


def test_halving_by_the_clock():
    paper = make_recipe("paper", "32s", "x2")
    assert [learning_rate(paper, 0, share) for share in (0, 0.19, 0.21, 0.5, 0.99)] == [2e-4, 2e-4, 1e-4, 5e-5, 1.25e-5]


def test_the_last_tenth_of_bfloat16_is_tf32():
    assert [schedule.precision_of("bfloat16", share) for share in (0.1, 0.9, 0.91, 1)] == ["bfloat16"] * 2 + ["tf32"] * 2
    assert {schedule.precision_of(precision, 1) for precision in ("float32", "tf32")} == {"float32", "tf32"}


# plans

def test_the_shipped_plan_is_the_table_of_the_paper():
    """Each model at each scale once, but for 32l, which the paper has at x2 alone."""
    entries = plan.read_plan(os.path.join(ROOT, "tools", "gpu", "thirteen.json"))
    expected = {(model, scale) for model in ("32s", "32m", "48s", "48m") for scale in ("x2", "x3", "x4")} | {("32l", "x2")}
    assert {(entry.model, entry.scale) for entry in entries} == expected and len(entries) == 13
    assert [entry.name for entry in entries] == ["%s_%s" % (entry.model, entry.scale) for entry in entries]
    assert entries[0].name == "32s_x2" and sum(entry.share for entry in entries) == 100
    assert plan.time_for(entries[0], entries, 25 * 60) > 8 * 60
    assert {entry.name: entry.start for entry in entries if entry.scale == "x2"} == {
        "32s_x2": "scratch", "48s_x2": "scratch", "32m_x2": "32s_x2", "48m_x2": "48s_x2", "32l_x2": "32m_x2"}
    assert all(entry.start == entry.model + "_x2" for entry in entries if entry.scale != "x2")
    recipe = plan.recipe_of(entries[1], {"rate": 2e-4}, {"batch": 32})
    assert recipe == FAST._replace(steps=0, batch=32, patch=48, rate=2e-4)


@pytest.mark.parametrize("changes, message", [
    ({"share": 0}, "a share of 0 is no part"), ({"rates": 1}, "unknown key rates: expected name, model"),
    ({"start": "later"}, "starts from later, which is no earlier"), ({"name": "first"}, "the name 'first' is not new"),
    ({"name": "a/b"}, "no name of a file"), ({"precision": "half"}, "unknown precision half"), ({"batch": -1}, "-1"),
    ({"steps": 5}, "unknown key steps"), ({"share": "much"}, "not supported"), ({"scale": None}, "has no 'scale'")])
def test_a_wrong_plan_is_named(tmp_path, changes, message):
    second = {key: value for key, value in dict(PLAN[1], **changes).items() if value is not None}
    write_json(str(tmp_path / "plan.json"), [PLAN[0], second])
    with pytest.raises(UserError, match="training 2 of the plan .*plan.json.*%s" % re.escape(message)):
        plan.read_plan(str(tmp_path / "plan.json"))


def test_what_is_no_plan_is_named(tmp_path):
    for text in "", "{}", "[]", "[1]":
        (tmp_path / "plan.json").write_text(text)
        with pytest.raises(UserError, match="plan.json"):
            plan.read_plan(str(tmp_path / "plan.json"))


def test_time_goes_by_what_is_left():
    entries = [plan.Entry(name, "32s", "x2", share, "scratch", {}, None) for name, share in (("a", 3), ("b", 2), ("c", 1))]
    assert plan.time_for(entries[0], entries, 600) == 300
    assert plan.time_for(entries[1], entries[1:], 270) == 180  # 30 seconds went into compiling
    assert plan.time_for(entries[2], entries[2:], 80) == 80
    assert plan.time_for(entries[2], entries[2:], -5) == 0


# a plan in training

@pytest.fixture(scope="module")
def small():
    """Within this file, 32s and 32m are small."""
    kept = {name: MODELS[name] for name in ("32s", "32m")}
    MODELS.update({"32s": Variant(16, 1, 1), "32m": Variant(16, 2, 1)})
    yield
    MODELS.update(kept)


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory):
    """plan.json, graphs/, tiles/ and valid/ of PLAN."""
    folder = tmp_path_factory.mktemp("plan")
    write_json(str(folder / "plan.json"), PLAN)
    (folder / "graphs").mkdir()
    for entry in PLAN:
        with tf.Graph().as_default():
            name = "{model}_{scale}.json".format(**entry)
            write_json(str(folder / "graphs" / name), export_graph(entry["model"], entry["scale"]))
    save_images(folder / "tiles", textures(6, 48, 60))
    write_held_out(str(folder / "tiles"), ["a.png"])
    save_images(folder / "valid", textures(2, 48, 48))
    jax.config.update("jax_compilation_cache_dir", str(folder / "cache"))
    yield folder
    jax.config.update("jax_compilation_cache_dir", None)


def options(folder, out, minutes=0.2):
    return [str(text) for text in (
        "--plan", folder / "plan.json", "--data", folder / "tiles", "--valid", folder / "valid", "--out", out, "--minutes", minutes,
        "--batch", 4, "--patch", 8, "--warmup", 5, "--dispatch", 10, "--precision", "tf32", "--save-minutes", 0, "--workers", 1)]


def read_summary(out):
    with open(str(out / "summary.csv"), newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def trained(folder):
    """The folder of PLAN, trained by processes that were killed at random moments until it was done, and the last one's output."""
    out, random, kills, used = folder / "out", random_module.Random(1), 0, 0
    while True:
        process = start_training(options(folder, out, (used + 10) / 60), stderr=subprocess.STDOUT)
        printed = ""
        if kills < 4:
            for line in process.stdout:
                printed += line
                if line.startswith("step"):
                    break
            time.sleep(random.uniform(0, 1.5))
            process.kill()
        printed += process.communicate()[0]
        if process.returncode:
            assert process.returncode == -signal.SIGKILL, printed
            kills += 1
        elif printed.splitlines()[-1].startswith("done: "):
            break
        for path in list(out.glob("*.npz")) + list(out.glob("*/state.npz")):
            read_trained(str(path))  # whole at any moment
        before, used = used, json.loads((out / "progress.json").read_text())["seconds"]
        assert used > before
    assert kills >= 1
    return out, printed


def test_a_plan_killed_at_random_moments_is_completed(trained):
    out, printed = trained
    assert printed.splitlines()[-1] == "done: %s" % out and "Traceback" not in printed
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) == [
        "cache", "deeper.npz", "first.npz", "larger.npz", "progress.json", "summary.csv"]
    summary = read_summary(out)
    assert list(summary) == ["first", "larger", "deeper"]
    for name, row in summary.items():
        weights, config, log = read_trained(str(out / (name + ".npz")))
        records = [json.loads(line) for line in log.splitlines()]
        steps = [record["step"] for record in records]
        assert steps == list(range(10, steps[-1] + 1, 10)) and records[-1]["rate"] == 0
        assert row["status"] == "done" and int(row["steps"]) == steps[-1] == config["steps"] == config["trained_steps"]
        assert float(row["psnr"]) == records[-1]["psnr"] > 10
        assert float(row["megapixels"]) == pytest.approx(steps[-1] * 4 * 64 / 1e6, abs=1e-3)
        assert all(value.dtype == np.float32 for value in weights.values())
        assert config["trained_seconds"] == pytest.approx(float(row["seconds"]), abs=1)
    first, larger = (read_trained(str(out / (name + ".npz"))).config for name in ("first", "larger"))
    assert larger["init_from"] == "first" and [one["scale"] for one in larger["trained_before"]] == ["x2"]
    assert first["init_from"] is None and first["trained_before"] == [] and larger["seed"] == first["seed"] + 1
    assert larger["rate"] == 5e-4 and first["rate"] == 1e-3
    assert first["held_out"] == larger["held_out"] == larger["trained_before"][0]["held_out"] == ["a.png"]


def test_a_completed_plan_is_imported_and_evaluated(trained, folder, tmp_path, run_tool, monkeypatch, capsys):
    for name, scale in ("first", "x2"), ("larger", "x3"), ("deeper", "x2"):
        with tf.Graph().as_default():
            run_tool(import_weights, trained[0] / (name + ".npz"), tmp_path / name)
        prefix = checkpoint_prefix(str(tmp_path / name))
        assert checkpoint_config(prefix)["framework"] == "JAX %s" % jax.__version__
        reader, weights = tf.train.NewCheckpointReader(prefix), read_trained(str(trained[0] / (name + ".npz"))).weights
        assert set(reader.get_variable_to_shape_map()) == set(weights)
        for key, value in weights.items():
            np.testing.assert_array_equal(reader.get_tensor(key), value)
        assert len(read_log(tmp_path / name)) == int(read_summary(trained[0])[name]["steps"]) / 10
        capsys.readouterr()
        status, out, err = call(monkeypatch, capsys, evaluation.main, "--gpu", -1, "--model", "32m" if name == "deeper" else "32s",
                                "--scale", scale, "--dataset", folder / "valid", "--checkpoint", tmp_path / name)
        assert status == 0, err
        average = [line for line in out.splitlines() if line.startswith(("mean", "average"))][0].split()
        assert float(average[1]) == pytest.approx(float(read_summary(trained[0])[name]["psnr"]), abs=0.01)


def test_a_completed_plan_is_not_trained_again(trained, folder):
    process = start_training(options(folder, trained[0]), stderr=subprocess.STDOUT)
    assert process.communicate()[0].splitlines()[-4:] == ["%s is done" % name for name in ("first", "larger", "deeper")] + [
        "done: %s" % trained[0]]


def test_one_process_trains_in_a_folder(folder, tmp_path):
    with locked(str(tmp_path), "trains in", "--out"):
        process = start_training(options(folder, tmp_path), stderr=subprocess.PIPE)
        assert process.communicate()[1] == "error: another process trains in %s: wait for it, or give another --out\n" % tmp_path
        assert process.returncode == 1


class FakePrograms(programs.Programs):
    """Programs on a device where a step takes 0.25 seconds, and compiling one second, of its own clock."""

    def __init__(self):
        super().__init__([], 1)
        self.now, self.known = 1000.0, set()

    def get(self, *args):
        program = super().get(*args)
        self.now += args[0] not in self.known
        self.known.add(args[0])

        def run(state, tiles, rates):
            self.now += 0.25 * len(rates)
            return program(state, tiles, rates)
        return run


def plan_run_of(folder, out, seconds, entries=None):
    device, store = FakePrograms(), TileStore(str(folder / "tiles"), [2, 3], 1)
    options = trainer.Options(2, [], sys.maxsize, 60, {"folder": "tiles", "files": 6}, lambda: device.now, [])
    settings = plan_run.PlanSettings(str(out), str(folder / "graphs"), seconds, {"batch": 2, "patch": 8, "warmup": 0}, "float32", 7)
    out.mkdir(exist_ok=True)
    entries = entries or plan.read_plan(str(folder / "plan.json"))
    return plan_run.PlanRun(entries, settings, (store, {}), device, options, device.now)


def test_time_used_is_remembered(folder, tmp_path):
    run = plan_run_of(folder, tmp_path / "out", 16)
    assert run.run() == []
    used = json.loads((tmp_path / "out" / "progress.json").read_text())
    trained = [used["trainings"][name] for name in ("first", "larger", "deeper")]
    assert used["seconds"] == pytest.approx(16, abs=0.25)  # half a dispatch
    # shares 2, 1 and 1, of what is left after a second of compiling: of 15; of 15 - 7.5 - 1; of 6.5 - 3.25 - 1
    assert [one["total"] for one in trained] == pytest.approx([7.5, 3.25, 2.25], abs=0.3)
    assert all(abs(one["seconds"] - one["total"]) <= 0.26 and one["steps"] == round(4 * one["seconds"]) for one in trained)
    assert plan_run_of(folder, tmp_path / "out", 16).used() == used["seconds"]
    # what is not done gets what is left, and weights are asked for where they are missing
    used["trainings"]["deeper"] = {}
    write_json(str(tmp_path / "out" / "progress.json"), used)
    os.remove(str(tmp_path / "out" / "deeper.npz"))
    shutil.move(str(tmp_path / "out" / "first.npz"), str(tmp_path / "first.npz"))
    with pytest.raises(UserError, match="deeper starts from .*first.npz, which is not there: bring it back"):
        plan_run_of(folder, tmp_path / "out", 19).run()
    shutil.move(str(tmp_path / "first.npz"), str(tmp_path / "out" / "first.npz"))
    assert plan_run_of(folder, tmp_path / "out", 19).run() == []
    assert json.loads((tmp_path / "out" / "progress.json").read_text())["trainings"]["deeper"]["total"] == pytest.approx(2, abs=0.3)


def test_no_time_left(folder, tmp_path, capsys):
    assert plan_run_of(folder, tmp_path / "out", 0).run() == []
    assert capsys.readouterr().out.splitlines() == ["no time is left for %s: give more --minutes" % name for name in (
        "first", "larger", "deeper")]


def test_what_diverges_is_left_out_with_what_starts_from_it(folder, tmp_path, monkeypatch, capsys):
    train, tried = plan_run.PlanRun.train, []

    def diverge(self, entry):
        tried.append(entry.name)
        if entry.name == "first":
            raise plan_run.Divergence("the loss is much too large")
        train(self, entry)
    monkeypatch.setattr(plan_run.PlanRun, "train", diverge)
    entries = plan.read_plan(str(folder / "plan.json"))
    entries[2] = entries[2]._replace(start="scratch")
    assert plan_run_of(folder, tmp_path / "out", 4, entries=entries).run() == ["first", "larger"]
    assert tried == ["first"] * plan_run.ATTEMPTS + ["deeper"]
    assert {name: row["status"] for name, row in read_summary(tmp_path / "out").items()} == {
        "first": "diverges", "larger": "waiting", "deeper": "done"}
    assert "larger is left out, since it starts from first" in capsys.readouterr().out


def test_starts_are_those_of_the_transfer(folder, tmp_path):
    """From an earlier training, or from a checkpoint as prepare.py writes it: the function that train.py uses, and its history."""
    run = plan_run_of(folder, tmp_path / "out", 10)
    graph = run.graphs["deeper"]
    source = initial_weights(run.graphs["first"].variables, 3)
    own = initial_weights(graph.variables, 7)
    expected = transfer(source, own, "first")[0]
    config = {"model": "32s", "trained_before": [{"checkpoint": "older"}], "sha256": {}}
    write_trained(run.weights_path("first"), Trained(source, config, ""))
    write_trained(plan.start_path(str(folder / "graphs"), "checkpoints/x2/32s"), Trained(source, {}, ""))
    for start, history in [("first", [{"checkpoint": "older"}, {"model": "32s"}]),
                           ("checkpoints/x2/32s", [{"checkpoint": "checkpoints/x2/32s"}])]:
        weights, before = run.start(run.plan[2]._replace(start=start))
        assert before == history and list(weights) == list(own)
        for name, value in expected.items():
            assert weights[name].tobytes() == value.tobytes(), name
    assert any((expected[name] != own[name]).any() for name in own)


# the choice of a setting

def test_a_stop_does_not_wait_for_the_compiler(monkeypatch):
    """Neither while a program is needed, nor at the end of the process."""
    stop, release = [], threading.Event()
    monkeypatch.setattr(programs.Programs, "_compile", lambda self, *args: release.wait(60))
    waiting = programs.Programs(stop, 1)
    threading.Timer(0.5, lambda: stop.append(signal.SIGTERM)).start()
    tiles = np.zeros([1])
    with pytest.raises(programs.Stopped):
        waiting.get("graph", "recipe", "tf32", tiles, [tiles], 5)
    left = []
    monkeypatch.setattr(programs.os, "_exit", left.append)
    waiting.leave(False)
    waiting.leave(True)
    assert left == [143, 0]
    release.set()
    assert waiting.request("graph", "recipe", "tf32", tiles, [tiles], 5).result() is True
    assert (waiting.leave(False), waiting.leave(True), left) == (143, 0, [143, 0])


class FakeTrial(object):
    """A device of which speed and losses are known."""

    dispatch, recipe = 100, FAST._replace(patch=48)

    def __init__(self, pace, losses):
        self.pace, self.losses, self.runs = pace, losses, []

    def request(self, setting):
        future = concurrent.futures.Future()
        if self.pace(setting):
            future.set_result(None)
        return future

    def run(self, setting, dispatches):
        self.runs.append((setting, dispatches))
        return [100.0] + [100 * self.pace(setting)] * (dispatches - 1), np.full(100 * dispatches, self.losses[setting.precision])


def pace(setting):
    """Seconds a step: a fixed part, and one for each image."""
    return 2e-3 + setting.batch * {"bfloat16": 1e-4, "tf32": 2e-4, "float32": 8e-4}[setting.precision]


@pytest.mark.parametrize("losses, pinned, expected", [
    ({"bfloat16": 0.0301, "tf32": 0.03}, {}, ("bfloat16", 64)),
    ({"bfloat16": 0.0304, "tf32": 0.03}, {}, ("tf32", 64)),
    ({"bfloat16": np.nan, "tf32": 0.03}, {}, ("tf32", 64)),
    ({"bfloat16": 0.0301, "tf32": 0.03}, {"batch": 16}, ("bfloat16", 16)),
    ({"bfloat16": 9, "tf32": 0.03}, {"precision": "bfloat16"}, ("bfloat16", 64))])
def test_the_fastest_setting_whose_loss_is_sound_is_chosen(losses, pinned, expected, capsys):
    device = FakeTrial(pace, dict(losses, float32=0.03))
    assert trial.choose_setting(device, **pinned) == expected
    loss_runs = [run for run in device.runs if run[1] == 5]  # 500 steps
    assert [setting.precision for setting, _ in loss_runs] == ([] if "precision" in pinned else ["bfloat16", "tf32"])
    if not pinned:
        assert "bfloat16 batch  16:   277.78 steps/s,  10.240 million LR pixels/s" in capsys.readouterr().out


def test_a_pinned_setting_is_not_measured():
    device = FakeTrial(pace, {})
    assert trial.choose_setting(device, "tf32", 16) == ("tf32", 16) and device.runs == []


def test_what_is_not_compiled_in_time_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr(trial, "COMPILING", 0.1)
    device = FakeTrial(lambda setting: 0 if setting.batch == 64 else pace(setting), {"bfloat16": 1, "tf32": 1, "float32": 1})
    assert trial.choose_setting(device) == ("bfloat16", 32)
    assert "tf32     batch  64: not compiled within 0 s, left out" in capsys.readouterr().out


def test_a_setting_is_measured_on_the_device(folder, tmp_path, monkeypatch):
    """With what a plan has, small; and it is measured once."""
    monkeypatch.setattr(trial, "BATCHES", (2,))
    monkeypatch.setattr(trial, "PRECISIONS", ("tf32", "float32"))
    run = plan_run_of(folder, tmp_path / "out", 10)
    run.settings = run.settings._replace(precision=None, pinned={"patch": 8, "warmup": 0})
    chosen = run.chosen()
    assert chosen.precision in ("tf32", "float32") and chosen.batch == 2
    monkeypatch.setattr(plan_run, "choose_setting", None)
    assert plan_run_of(folder, tmp_path / "out", 10).chosen() == chosen


# the commands

@pytest.mark.parametrize("name", ["train_jax", "measure_jax", "import_weights"])
def test_commands_without_jax(name):
    without = ("import runpy, sys; sys.modules['jax'] = None; sys.argv = sys.argv[1:]; "
               "runpy.run_path(sys.argv[0], run_name='__main__')")
    path = os.path.join(ROOT, "tools", "gpu", name + ".py")
    arguments = {"train_jax": ["--graph", "g", "--data", "d"], "measure_jax": ["--graph", "g"], "import_weights": ["n", "d"]}[name]
    for given, status, expected in (["--help"], 0, "usage: "), (arguments, 1, "error: JAX is needed: pip install jax"):
        process = subprocess.Popen([sys.executable, "-c", without, path] + given, cwd=ROOT, universal_newlines=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate()
        assert process.returncode == status
        assert (out if status == 0 else err).startswith(expected) and (status == 0 or len(err.splitlines()) == 1)


@pytest.mark.parametrize("arguments, message", [
    (["--plan", "p"], "--plan needs --out and --minutes"), ([], "one of the arguments --plan --graph is required"),
    (["--plan", "p", "--out", "o", "--minutes", "1", "--steps", "5"], "--run, --steps and --schedule go with --graph"),
    (["--graph", "g", "--steps", "5", "--minutes", "1"], "give --steps or --minutes"),
    (["--graph", "g", "--out", "o"], "--out and --graphs go with --plan")])
def test_options_that_do_not_go_together(arguments, message, run_tool, capsys):
    with pytest.raises(SystemExit) as stop:
        run_tool(train_jax, "--data", "d", *arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err
