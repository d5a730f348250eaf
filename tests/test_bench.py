"""tools/bench.py: every row is there, and other runtimes compute the same network."""
import mmap
import re

from ops import tf
from tools import bench
from tools.network import Network
from tools.runtime import resident_memory, why_no_bfloat16

import numpy as np
import pytest


@pytest.fixture
def network(small_checkpoint, monkeypatch):
    """A Network of a small 32s with random weights, which bench.py opens in the place of the shipped one."""
    def load_model(model, scale, checkpoint, gpu, tile, precision):
        opened = Network("32s", "x2", small_checkpoint, -1, precision=precision)
        opened.make_upscaler(tile)
        return opened
    monkeypatch.setattr(bench, "load_model", load_model)
    with load_model("32s", "x2", None, -1, None, "float32") as opened:
        yield opened


def test_every_row_is_printed(network, monkeypatch, capsys):
    monkeypatch.setattr(bench, "SIDE", 64)
    monkeypatch.setattr(bench, "costs", lambda model, scale: (0, 84.9))
    monkeypatch.setattr(bench, "exported", lambda network, lr: [("another", lambda: None)])
    # as many seconds as there are rows before it, and one
    monkeypatch.setattr(bench, "median_seconds", lambda functions, runs: [
        function() or 1.0 for function in functions] and [1.0 + i for i in range(len(functions))])
    bench.main(["--size", "12", "--sizes", "20", "16", "--batch", "2", "--patch", "8", "--runs", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"DRSAN-32s x2 on .+, \d+ processors$", lines[0])
    names = [re.sub("  .*", "", line.strip()).strip() for line in lines[2:]]
    precisions = ["float32", "bfloat16"][:1 if why_no_bfloat16() else 2]
    own = ["TensorFlow %s, %s" % (tf.__version__, precision) for precision in precisions]
    products = ["product of matrices, " + precision for precision in precisions]
    assert names == (["sizes", "16x16", "20x20"] + products + ["infer"] + own + ["another"] + products
                     + ["train"] + own + products)
    peaks = [int(line.split()[-1]) for line in lines[3:5]]
    assert 0 < peaks[0] <= peaks[1] and lines[4].split()[1:3] == ["2.000", "%.2f" % (2e6 / 400)]


def test_share_is_that_of_the_product_in_the_same_precision(monkeypatch, capsys):
    rows = [bench.Timed("ours", "bfloat16", 1000, None, None),
            bench.Timed("large", "float32", 500, None, 3 * 2**20)]
    monkeypatch.setitem(bench.TIMINGS, "train", lambda args, closing: rows)
    monkeypatch.setattr(bench, "products", lambda closing: [
        bench.Timed("product", precision, None, None, None) for precision in ("float32", "bfloat16")])
    monkeypatch.setattr(bench, "SIDE", 1000)  # 2e9 operations
    monkeypatch.setattr(bench, "median_seconds", lambda functions, runs: [0.5, 1, 4, 2])
    bench.print_rows("train", 1e5, type("args", (), {"runs": 1}))
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    # 3 * 1e5 * 1000 / 0.5 is 0.6e9 a second, of 2e9 / 2 in bfloat16
    assert shown == [["train"], ["ours", "0.500", "500.00", "1", "60", "%", "-"],
                     ["large", "1.000", "2000.00", "0", "30", "%", "3"],
                     ["product", "4.000", "0", "100", "%", "-"], ["product", "2.000", "1", "100", "%", "-"]]


def test_times_and_memory_are_measured(monkeypatch):
    clock, seconds = [0], iter([50, 7, 60, 7, 1, 8, 2, 8, 3, 9])  # of a and b in turn, two runs not counted

    def work():
        clock[0] += next(seconds)
    with monkeypatch.context() as patch:
        patch.setattr(bench.time, "perf_counter", lambda: clock[0])
        assert list(bench.median_seconds([work, work], 3)) == [2, 8]
    before = bench.peak_memory()
    more = 2 ** 26 + max(before - resident_memory(), 0)  # above the peak so far
    memory = mmap.mmap(-1, more)  # not by malloc, which may have kept what was freed
    np.frombuffer(memory, np.uint8)[:] = 1
    assert 0.9 * 2 ** 26 <= bench.peak_memory() - before <= 1.5 * 2 ** 26


def test_other_runtimes_compute_the_same_network(network):
    lr = np.random.RandomState(0).rand(2, 9, 7, 3).astype(np.float32)
    for name, run in bench.exported(network, lr):
        expected = network.session.run(network.sr, {network.lr: lr})
        np.testing.assert_allclose(list(run())[0] if isinstance(run(), list) else list(run().values())[0],
                                   expected, rtol=1e-4, atol=1e-4, err_msg=name)
