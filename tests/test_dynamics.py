"""tools/paper/dynamics.py: what varies and what does not, on a network whose DRA values are known."""
import contextlib
import os

import utils
from conftest import ROOT, call
from tools.paper import attention, dynamics
from tools.pictures.tiles import to_image

import numpy as np
import pytest

random = np.random.RandomState(3)


def test_values_and_scores_are_those_of_the_network(network, tmp_path):
    for i in range(2):
        image = random.randint(0, 256, (64, 64, 3)).astype(np.uint8)
        utils.save_image(str(tmp_path / ("%d.png" % i)), image)
    dataset = utils.find_dataset(str(tmp_path), 2, "")
    row = dynamics.measure(network, dataset)
    pairs = [utils.read_pair(pair, 2) for pair in dataset.pairs]
    values = np.array([attention.fetch(network, network.dra[0], lr[None]).ravel() for lr, _ in pairs])
    assert row.images == 2 and values.shape == (2, 3)
    assert row.size == pytest.approx(np.sqrt((values ** 2).mean()), rel=1e-6)
    assert row.between == pytest.approx(np.sqrt((np.abs(values[0] - values[1]) ** 2 / 4).mean()), rel=1e-6)
    fixed = [attention.fetch_sr(network, lr, [values.mean(0)[None, None, None]]) for lr, _ in pairs]
    plain = [attention.fetch_sr(network, lr) for lr, _ in pairs]
    for psnr, images in (row.fixed, fixed), (row.psnr, plain):
        assert psnr == pytest.approx(np.mean([utils.psnr_y(sr, hr, 2) for sr, (_, hr) in zip(images, pairs)]))
    # LR of 32x32 is one window: the same network, and nothing varies within an image
    assert (row.within_32, row.within_48) == (0, 0)
    assert [row.windows_32, row.windows_48] == pytest.approx([row.psnr] * 2, abs=1e-3)


def test_each_window_has_its_own_values(network):
    """In the middle of windows, beyond what convolutions reach, SR is that of a network with the DRA values
    of the window."""
    image = random.randint(0, 256, (48, 96, 3)).astype(np.uint8)
    image[:, 48:] //= 4
    upscaler = dynamics.WindowUpscaler(network, 48)
    sr = to_image(upscaler(image))
    (values,), reach = upscaler.values, 2 * (upscaler.halo(1) + 2)
    assert values.shape == (2, 3) and np.abs(values[0] - values[1]).min() > 1e-3
    for i, columns in enumerate((slice(0, 96 - reach), slice(96 + reach, 192))):
        expected = attention.fetch_sr(network, image, [values[i][None, None, None]])
        other = attention.fetch_sr(network, image, [values[1 - i][None, None, None]])
        assert np.abs(sr[:, columns].astype(int) - expected[:, columns]).max() <= 1
        assert np.abs(sr[:, columns].astype(int) - other[:, columns]).max() > 1


def row(dataset="Set5"):
    return dynamics.Dynamics("0123", dataset, 5, 0.5, 0.05, 0.0125, 0.01, 37.0, 36.9, 37.012, 36.998)


def test_command(tmp_path, monkeypatch, capsys):
    opened = []

    @contextlib.contextmanager
    def open_network(*arguments):
        opened.append(arguments)
        yield type("Network", (), {"factor": 2})
    monkeypatch.setattr(dynamics, "open_network", open_network)
    monkeypatch.setattr(dynamics, "measure", lambda network, dataset: row(dataset.name))

    def run(*arguments):
        return call(monkeypatch, capsys, dynamics.main, "--data-dir", tmp_path, "--output", tmp_path,
                    *arguments)

    shipped = os.path.join(ROOT, "checkpoints", "x3", "48s")
    assert run("--dataset", "Sample", "--checkpoint", shipped)[0] == 0
    status, out, err = run("--dataset", "Sample", "Set5", "--gpu", -1)
    assert (status, err) == (0, "") and opened == [("48s", "x3", shipped, 0), ("32s", "x2", None, -1)]
    assert "Set5 is left out: " in out and "Sample: PSNR 37.000, with fixed DRA values 36.900\n" in out
    assert dynamics.DYNAMICS.read(str(tmp_path / "dynamics.csv")) == [row("Sample")]
    assert (tmp_path / "dynamics.md").read_text().splitlines()[2] == (
        "| Sample | 5 | 0.500 | 10.0 % | 2.5 % | 2.0 % | 37.000 | -0.100 | +0.012 | -0.002 |")
    assert run("--dataset", "Set5")[::2] == (1, "error: no data set of Set5 is present in %s\n" % tmp_path)
