"""tools/bench.py: what it measures, and how it prints it."""
import argparse
import io
import mmap
import sys
import time

import ops
from conftest import call
from model import MODELS
from ops import tf
from tools import bench, runtime, xla
from tools.pictures import tiles, timing, upscale as upscale_module

import numpy as np
from PIL import Image

random = np.random.RandomState(7)


def test_benchmark_of_sizes(tmp_path, capsys):
    options = argparse.Namespace(model="32s", scale="x2", gpu=[-1], sizes=[40, 24], tile=16, runs=2)
    rows = bench.time_sizes(options)
    assert [row[0] for row in rows] == [24, 40] and all(row[1] > 0 for row in rows)
    assert rows[1][3] - rows[0][3] == tiles.bytes_per_pixel(MODELS["32s"], 2) * ((16 + 22) ** 2 - 24 ** 2)
    results = [{"tensorflow": "2.0",
                "sizes": {"tiles": rows, "whole": [[100, 0.2, 3 * 2 ** 20, 4 * 2 ** 20]]}}]
    bench.print_sizes(results)
    row = capsys.readouterr().out.splitlines()[2]
    assert row.split() == "100x100 whole, TensorFlow 2.0 0.20 20.00 3 4".split()
    bench.plot_sizes(results, 16, str(tmp_path / "plots" / "a.png"))
    assert Image.open(str(tmp_path / "plots" / "a.png")).size == (1200, 456)


def test_benchmark_measures_every_variant(monkeypatch):
    """Tiny, and once: the published PReLU is ours, every variant gives a time, and the operations of a step
    are named."""
    monkeypatch.setitem(MODELS, "32s", MODELS["32s"]._replace(channels=8, drags=1, blocks=1))
    options = argparse.Namespace(model="32s", scale="x2", gpu=[-1], threads=1, size=12, batch=2, patch=8,
                                 runs=1)
    stderr = io.StringIO()
    stderr.isatty = lambda: True
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        patch.setattr(bench, "peers", lambda options: {"another": lambda: time.sleep(0.001)})
        times = {what: bench.time_variants(options, what) for what in ("infer", "train")}
    own = ["ours", "published"] + (["bfloat16"] if runtime.has_bfloat16() else [])
    compiled = ["compiled", "compiled bfloat16"] if xla.can_compile() else []
    # three runs each
    assert ", train:   0%" in stderr.getvalue() and "0/%d [" % (3 * len(own)) in stderr.getvalue()
    assert list(times["infer"]) == ["another"] + own + compiled and list(times["train"]) == own
    assert all(seconds > 0 for one in times.values() for seconds in one.values())
    waited, shares = bench.profile_training(options)
    assert 0 <= waited <= 1 and 0.5 < sum(shares.values()) <= 1 + 1e-9
    assert any("Conv2D" in name for name in shares)
    x = tf.constant(random.randn(2, 3, 4, 5).astype(np.float32))
    with tf.variable_scope("a"):
        ours = ops.prelu(x, "slope")  # which time_variants() has put back
    with tf.variable_scope("b"):
        published = bench.published_prelu(x, "slope")
    with tf.Session() as session:
        for variable in tf.trainable_variables()[-2:]:
            variable.load(np.float32([-1, 0, 0.25, 1, 3]), session)
        np.testing.assert_allclose(*session.run([ours, published]), rtol=1e-6, atol=1e-7)
        expected = np.where(session.run(x) > 0, session.run(x),
                            session.run(x) * np.float32([-1, 0, 0.25, 1, 3]))
        np.testing.assert_allclose(session.run(ours), expected, rtol=1e-6)


def test_benchmark_of_pictures(monkeypatch, capsys):
    """Which phases a start has, and for how long the network is busy."""
    time_process, photographs, commands = timing.time_process, timing.photographs, []

    # what is in the interpreter with the phases runs, the two whole commands do not
    def time_scripts(*arguments):
        commands.append(arguments)
        return time_process(*arguments) if arguments[0] == "-c" else (len(commands), "")

    monkeypatch.setattr(timing, "time_process", time_scripts)
    monkeypatch.setattr(timing, "photographs", lambda count, width,
                        height: photographs(count, width // 4, height // 4))
    monkeypatch.setattr(timing, "upscale", lambda args, scales, build: upscale_module.upscale(
        args, scales, lambda scale: (time.sleep(0.05), build(scale))[1]))
    options = argparse.Namespace(model="32s", scale="x2", runs=1, pictures=2)
    result = timing.measure_pictures(options)
    assert commands[0] == ("test.py", "--help") and commands[1][0] == "test.py" and "--input" in commands[1]
    assert len(commands) == 3
    assert list(result["startup"]) == ["help", "picture"] + list(timing.PHASES)
    assert result["startup"]["help"] == 1 and result["startup"]["picture"] == 2
    assert all(seconds > 0 for seconds in result["startup"].values())
    assert 0 < result["pictures"][1] < 1 and result["pictures"][0] > 0.05
    startup = dict(zip(timing.PHASES, (0.1, 0.2, 0.3, 0.4, 0.5)), help=0.6, picture=2)
    bench.print_pictures({"startup": startup, "pictures": (12.345, 0.98765), "tensorflow": "2.0"}, options)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "TensorFlow 2.0: test.py --help takes 0.60 s, --input of one picture of 100x100 2.00 s: Python 0.10 "
        "s, modules 0.20 s, TensorFlow 0.30 s, network 0.40 s, upscaling 0.50 s",
        "2 pictures of 600x400 take 12.3 s, the network is busy for 98.8 % of it"]


def test_peak_memory_is_that_of_this_process():
    before = bench.peak_memory()
    more = 2 ** 26 + max(before - tiles.resident_memory(), 0)  # above the peak so far
    memory = mmap.mmap(-1, more)  # not by malloc, which may have kept what was freed
    np.frombuffer(memory, np.uint8)[:] = 1
    assert 0.9 * 2 ** 26 <= bench.peak_memory() - before <= 1.5 * 2 ** 26


def test_benchmark_of_another_python_says_why_it_failed(tmp_path, monkeypatch, capsys):
    python, measured = tmp_path / "python", []
    monkeypatch.setattr(bench, "measure", measured.append)

    def error():
        status, _, err = call(monkeypatch, capsys, lambda: bench.bench(bench.parse_args()), "--python",
                              python)
        assert status == 1 and err.count("\n") == 1
        return err

    assert "No such file" in error() and not measured
    python.write_text("#!/bin/sh\necho >&2 no tensorflow\nexit 1\n")
    python.chmod(0o755)
    assert error() == ("error: %s -c failed: no tensorflow: --python takes interpreters that can import "
                       "tensorflow\n" % python)
    assert not measured
    python.write_text("#!/bin/sh\n[ $1 = -c ] && echo 2.0 && exit\n"
                      "echo >&2 Traceback\necho >&2 killed\nexit 1\n")
    assert error() == "error: %s %s failed: killed\n" % (python, bench.__file__) and len(measured) == 1
