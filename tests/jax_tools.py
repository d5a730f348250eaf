"""What the tests of tools/gpu/ share: weights, images, and train_jax.py in a process of its own."""
import os
import subprocess
import sys

import numpy as np
from PIL import Image

from conftest import ROOT, golden_weight
from model import model_variables
from tools.gpu import import_weights


def load_golden(session):
    weights = {v.op.name: golden_weight(v.op.name, v.shape.as_list()) for v in model_variables()}
    import_weights.load_variables(session, weights)
    return weights


def load_random(session, random):
    """Weights as at the start of a training, but biases and slopes that are not zero."""
    weights = {}
    for variable in model_variables():
        shape = variable.shape.as_list()
        limit = np.sqrt(6 / (np.prod(shape[:2]) * sum(shape[2:]))) if len(shape) == 4 else 0.1
        weights[variable.op.name] = random.uniform(-limit, limit, shape).astype(np.float32)
    import_weights.load_variables(session, weights)
    return weights


def textures(count, height, width):
    """uint8 RGB images that a network can learn to sharpen: waves of random direction and wavelength."""
    random, images = np.random.RandomState(1), []
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    for _ in range(count):
        a, b, phase = random.uniform(-0.6, 0.6), random.uniform(-0.6, 0.6), random.uniform(0, 6)
        images.append(np.round(127.5 + 100 * np.sin(a * y + b * x + phase + 0.3 * c)).astype(np.uint8))
    return images


def save_images(folder, images):
    os.makedirs(str(folder))
    for i, image in enumerate(images):
        Image.fromarray(image).save(os.path.join(str(folder), "%d.png" % i))
    return str(folder)


WITHOUT_TENSORFLOW = """import runpy, sys
sys.modules.update(tensorflow=None, skimage=None)  # their import fails
sys.argv = sys.argv[1:]
sys.path[0] = %r
runpy.run_path(sys.argv[0], run_name="__main__")""" % os.path.join(ROOT, "tools", "gpu")


def start_training(arguments, stderr=subprocess.PIPE):
    """train_jax.py as a process of its own, in which TensorFlow and scikit-image are missing."""
    return subprocess.Popen([sys.executable, "-c", WITHOUT_TENSORFLOW, os.path.join(ROOT, "tools", "gpu", "train_jax.py")]
                            + [str(argument) for argument in arguments], stdout=subprocess.PIPE, stderr=stderr,
                            universal_newlines=True)


def train(arguments):
    """What train_jax.py prints, in a process of its own."""
    process = start_training(arguments)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out
