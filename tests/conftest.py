"""Shared by all tests: options, golden inputs, and ways to run the scripts as a user does."""
import json
import os
import subprocess
import sys
import tempfile
import zlib

import numpy as np
import pytest
from PIL import Image

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import test as evaluation
import utils
from forked import Forked
from model import MODELS, Variant, drsan, model_variables
from ops import tf
from tools import checkpoints
from tools import command
from tools.command import run_main

command.owns_process = True  # most tests work in the default graph
GOLDEN = os.path.join(ROOT, "tests", "golden")


def pytest_configure():
    """Each worker of pytest-xdist keeps to its own core: threads that share cores wait for each other."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker[len("gw"):]) % len(cores)]})


def pytest_addoption(parser):
    parser.addoption("--data-dir", help="benchmark images: also check the bicubic table on those found there")
    parser.addoption("--other-python", help="with the other TensorFlow: also exchange checkpoints with it")


FIRST_STATES = {}  # of the generators of random numbers of test modules


@pytest.fixture(autouse=True)
def reseed(request):
    """A module's `random` begins anew for each test."""
    random = getattr(request.module, "random", None)
    if isinstance(random, np.random.RandomState):
        random.set_state(FIRST_STATES.setdefault(request.module, random.get_state()))


@pytest.fixture(autouse=True)
def fresh_graph():
    tf.reset_default_graph()
    tf.set_random_seed(0)


@pytest.fixture
def weights(tmp_path):
    """A checkpoint of an untrained 32s x2."""
    drsan(tf.placeholder(tf.float32, [None, None, None, 3]), "32s", "x2")
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        return checkpoints.save_weights(session, str(tmp_path / "weights"), "32s", "x2")


@pytest.fixture
def run(monkeypatch, capsys):
    """Run test.py with these arguments: (exit status, stdout, stderr)."""
    return lambda *arguments: call(monkeypatch, capsys, evaluation.main, "--gpu", -1, *arguments)


def golden_weight(name, shape):
    """The made-up weights for which tests/golden holds the outputs of the published graphs."""
    n = int(np.prod(shape))
    w = np.sin(zlib.crc32(name.encode()) % 997 + 0.37 * np.arange(n))
    gain = np.sqrt(1.2 / np.prod(shape[:-1])) if len(shape) == 4 else 0.1
    return (gain * w).astype(np.float32).reshape(shape)


def golden_image(h, w):
    y, x, c = np.meshgrid(np.arange(h), np.arange(w), np.arange(3), indexing="ij")
    return (0.5 + 0.5 * np.sin(0.7 * y + 0.3 * x * (c + 1) + 0.11 * x * y)).astype(np.float32)[None]


def golden_contract(name):
    with open(os.path.join(GOLDEN, name + ".json")) as file:
        return json.load(file)


def call(monkeypatch, capture, main, *arguments):
    """Run main() as a command with these arguments, within this process but from an empty graph: (exit
    status, stdout, stderr).

    capture: the fixture capsys or, for the output of other processes as well, capfd.
    """
    tf.reset_default_graph()
    monkeypatch.setattr(sys, "argv", ["command"] + [str(argument) for argument in arguments])
    with pytest.raises(SystemExit) as stop:
        run_main(main)
    out, err = capture.readouterr()
    assert "Traceback" not in err
    return stop.value.code or 0, out, err


def run_script(*arguments):
    """Run a script of the project as a user does: (exit status, stdout, stderr)."""
    command = [sys.executable] + [str(argument) for argument in arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def photographs(tmp_path):
    """A folder with two photographs of scikit-image's, in a subfolder, and its path."""
    folder = tmp_path / "photographs" / "deeper"
    folder.mkdir(parents=True)
    for pair in utils.find_dataset("Sample", 2, "").pairs[1:3]:
        Image.fromarray(utils.read_image(pair.hr)[100:221, 80:222]).save(str(folder / (pair.name + ".png")))
    return tmp_path / "photographs"


# Adam alone makes half as many operations as all that `fast` has
TINY = ["--gpu", "-1", "--recipe", "fast", "--optimizer", "adam", "--ema", "0", "--batch", "2",
        "--patch", "12", "--log-every", "4", "--valid-every", "8", "--workers", "1"]
WHOLE = "--optimizer", "muon", "--ema", "0.999"


def start(photographs, run, *extra, **kwargs):
    """train.py as a process, with tiny settings and a tiny network; kwargs: of Popen."""
    command = [sys.executable, os.path.join("tests", "train_tiny.py")]
    return subprocess.Popen(command + tiny_options(photographs, run, extra), cwd=ROOT, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, **kwargs)


def fork(photographs, run, *extra, **environment):
    """As start(), with further variables of the environment, but as a Forked."""
    output = os.path.join(tempfile.mkdtemp(dir=str(photographs.parent)), "output")
    return Forked(tiny_options(photographs, run, extra), environment, output)


def tiny_options(photographs, run, extra):
    options = ["--data", photographs, "--run", run, "--valid", photographs / "deeper"] + TINY + list(extra)
    return [str(option) for option in options]


def read_log(run):
    """The records of the log of a run."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def state_values(run):
    """{name: value} of the last state of a run."""
    reader = tf.train.NewCheckpointReader(tf.train.latest_checkpoint(str(run / "state")))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


# of the tests of tools/gpu/

@pytest.fixture(scope="module")
def tiny_model():
    """Within a file there is a model `tiny`, which has every block of the others."""
    MODELS["tiny"] = Variant(16, 1, 2)
    yield
    del MODELS["tiny"]


@pytest.fixture
def random():
    return np.random.RandomState(0)


@pytest.fixture
def session():
    with tf.Graph().as_default(), tf.Session() as session:
        yield session


def authors_record(path, scale, patch, count):
    """Records as the authors' files have them, written by TensorFlow; returns their pairs."""
    random, pairs = np.random.RandomState(5), []
    with tf.python_io.TFRecordWriter(str(path)) as writer:
        for _ in range(count):
            lr = random.randint(0, 256, (patch, patch, 3)).astype(np.uint8)
            hr = random.randint(0, 256, (scale * patch, scale * patch, 3)).astype(np.uint8)
            pairs.append((lr, hr))
            feature = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.tobytes()]))
                       for key, value in (("image", lr), ("label", hr))}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return pairs


@pytest.fixture
def small_network(monkeypatch):
    """A 32s of 8 channels, one DRAG and two RBs, for tests that are not about the network."""
    monkeypatch.setitem(MODELS, "32s", Variant(channels=8, drags=1, blocks=2))


@pytest.fixture
def small_checkpoint(small_network, tmp_path):
    """The prefix of a checkpoint of small_network at x2, of random weights that keep the signal."""
    draw, prefix = np.random.RandomState(1), str(tmp_path / "small" / "weights")
    with tf.Graph().as_default(), tf.Session() as session:
        drsan(tf.placeholder(tf.float32, [None, None, None, 3]), "32s", "x2")
        for variable in model_variables():
            shape = variable.shape.as_list()
            gain = np.sqrt(1.5 / np.prod(shape[:-1])) if len(shape) == 4 else 0.3
            variable.load(gain * draw.randn(*shape), session)
        os.mkdir(os.path.dirname(prefix))
        tf.train.Saver(model_variables()).save(session, prefix, write_meta_graph=False)
    return prefix


@pytest.fixture
def network(small_checkpoint, monkeypatch):
    """What open_network() of the figures returns, but of small_checkpoint, which is the shipped one."""
    from tools.paper import attention  # here, since matplotlib takes a while
    monkeypatch.setattr(attention, "find_checkpoint", lambda *_: small_checkpoint)
    with attention.open_network("32s", "x2", None, -1) as opened:
        yield opened
