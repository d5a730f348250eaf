"""tools/paper/dynamics.py: what varies and what does not, on networks whose DRA values are known, and the
table that is shipped."""
import contextlib
import os

import utils
from conftest import ROOT, call
from model import MODELS
from tools.paper import attention, dynamics
from tools.paper.results import FIGURES, replace_block
from tools.pictures.tiles import to_image

import numpy as np
import pytest

random = np.random.RandomState(3)


@pytest.fixture
def network(small_checkpoint, monkeypatch):
    """A Network of random weights, as open_network() returns it, but of a small 32s."""
    monkeypatch.setattr(attention, "find_checkpoint", lambda *_: small_checkpoint)
    with attention.open_network("32s", "x2", None, -1) as opened:
        yield opened


@pytest.fixture
def dataset(tmp_path):
    """Two images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(2):
        utils.save_image(str(folder / ("%d.png" % i)), random.randint(0, 256, (64, 64, 3)).astype(np.uint8))
    return utils.find_dataset(str(folder), 2, "")


def test_values_and_scores_are_those_of_the_network(network, dataset):
    row = dynamics.measure(network, dataset)
    pairs = [utils.read_pair(pair, 2) for pair in dataset.pairs]
    values = np.array([attention.fetch(network, network.dra[0], lr[None]).ravel() for lr, _ in pairs])
    assert row.images == 2 and values.shape == (2, 3)
    assert row.size == pytest.approx(np.sqrt((values ** 2).mean()), rel=1e-6)
    assert row.between == pytest.approx(np.sqrt((np.abs(values[0] - values[1]) ** 2 / 4).mean()), rel=1e-6)
    fixed = [attention.upscale(network, lr, [values.mean(0)[None, None, None]]) for lr, _ in pairs]
    plain = [attention.upscale(network, lr) for lr, _ in pairs]
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
    upscaler = dynamics.WindowUpscaler(network.session, network.lr, network.sr, "32s", "x2", 48)
    sr = to_image(upscaler(image))
    (values,), reach = upscaler.values, 2 * (upscaler.halo(1) + 2)
    assert values.shape == (2, 3) and np.abs(values[0] - values[1]).min() > 1e-3
    for i, columns in enumerate((slice(0, 96 - reach), slice(96 + reach, 192))):
        expected = attention.upscale(network, image, [values[i][None, None, None]])
        other = attention.upscale(network, image, [values[1 - i][None, None, None]])
        assert np.abs(sr[:, columns].astype(int) - expected[:, columns]).max() <= 1
        assert np.abs(sr[:, columns].astype(int) - other[:, columns]).max() > 1
    # of more DRAGs, the values of the second depend on what the first makes of the other window
    assert MODELS["32s"].drags == 1


def row(dataset="Set5", **values):
    return dynamics.Dynamics("0123", dataset, 5, 0.5, 0.05, 0.0125, 0.01, 37.0, 36.9, 37.012,
                             36.998)._replace(**values)


def test_table(tmp_path):
    path = str(tmp_path / "dynamics.csv")
    dynamics.DYNAMICS.write(path, [row(), row("B100")])
    assert dynamics.DYNAMICS.read(path) == [row(), row("B100")]
    assert dynamics.to_markdown([row()]).splitlines()[2] == (
        "| Set5 | 5 | 0.500 | 10.0 % | 2.5 % | 2.0 % | 37.000 | -0.100 | +0.012 | -0.002 |")


def test_readme_shows_what_the_tool_writes():
    with open(os.path.join(FIGURES, "README.md"), encoding="utf-8") as file:
        readme = file.read()
    table = dynamics.to_markdown(dynamics.DYNAMICS.read(os.path.join(FIGURES, "dynamics.csv")))
    advice = "run: python tools/paper/dynamics.py --redraw --update"
    assert readme == replace_block(readme, table, "dynamics"), advice


def test_command(tmp_path, monkeypatch, capsys):
    measured = []
    monkeypatch.setattr(dynamics, "open_network", contextlib.contextmanager(
        lambda *arguments: (yield arguments)))
    monkeypatch.setattr(
        dynamics, "measure", lambda network, dataset: measured.append(
            (network, dataset.name)) or row(dataset.name))

    def run(*arguments):
        return call(monkeypatch, capsys, dynamics.main, *arguments)

    status, out, err = run("--dataset", "Sample", "Set5", "--data-dir", tmp_path, "--output", tmp_path,
                           "--gpu", -1)
    assert (status, err) == (0, "") and measured == [(("32s", "x2", None, -1), "Sample")]
    assert "Set5 is left out: " in out and "Sample: PSNR 37.000, with fixed DRA values 36.900\n" in out
    assert (tmp_path / "dynamics.md").read_text() == dynamics.to_markdown([row("Sample")])
    shipped = os.path.join(ROOT, "checkpoints", "x3", "48s")
    assert run("--dataset", "Sample", "--checkpoint", shipped, "--output", tmp_path)[0] == 0
    assert measured[1:] == [(("48s", "x3", shipped, 0), "Sample")]
    status, out, err = run("--dataset", "Set5", "--data-dir", tmp_path, "--output", tmp_path)
    assert status == 1 and err == "error: no data set of Set5 is present in %s\n" % tmp_path
