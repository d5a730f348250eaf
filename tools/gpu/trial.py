"""Which precision and batch train the fastest on this device: measured once, before a plan is trained.

How far a speed is from what the device could do, and where the time goes, is for measure_jax.py.
"""
import concurrent.futures
import itertools
import math
import time
from collections import namedtuple

from tools.gpu.training import new_state
from tools.training.recipes import learning_rate

import jax
import numpy as np

BATCHES = 64, 32, 16
PRECISIONS = "bfloat16", "tf32", "float32"  # those that are likely to win come first
COMPILING = 90     # seconds, after which what is not compiled is left out
LOSS_STEPS = 500   # over which bfloat16 must have the loss of TF32 ...
LOSS_FACTOR = 1.01  # ... times this, at most

Setting = namedtuple("Setting", "precision batch")


class Trial(object):
    """Runs settings of one training, from its beginning, on the device.

    start: the weights. recipe: a Recipe, whose batch is replaced. tiles: Tiles. seed: of patches, the same for all.
    """

    def __init__(self, graph, recipe, start, tiles, programs, dispatch, seed):
        self.graph, self.recipe, self.start, self.tiles, self.programs = graph, recipe, start, tiles, programs
        self.dispatch, self.seed = dispatch, seed

    def _arguments(self, setting):
        recipe = self.recipe._replace(batch=setting.batch)
        return self.graph, recipe, setting.precision, new_state(self.start, recipe, self.seed), self.tiles, self.dispatch

    def request(self, setting):
        """A Future of the program of a setting."""
        return self.programs.request(*self._arguments(setting))

    def run(self, setting, dispatches):
        """Seconds of each of so many dispatches, and the losses of all their steps but those skipped."""
        program, state = self.programs.get(*self._arguments(setting)), jax.device_put(self._arguments(setting)[3])
        seconds, losses = [], []
        for i in range(dispatches):
            steps = range(i * self.dispatch, (i + 1) * self.dispatch)
            rates = np.array([learning_rate(self.recipe, step, 0) for step in steps], np.float32)
            before = time.time()
            state, (loss, _, skipped) = program(state, self.tiles, rates)
            losses.append(np.asarray(loss)[~np.asarray(skipped)])
            seconds.append(time.time() - before)
        return seconds, np.concatenate(losses)


def measure_settings(trial, settings):
    """{Setting: LR pixels a second}, each over one dispatch after one that does not count; those not compiled in time are named."""
    futures = {setting: trial.request(setting) for setting in settings}
    if not concurrent.futures.wait(futures.values(), COMPILING).done:
        concurrent.futures.wait(futures.values(), return_when=concurrent.futures.FIRST_COMPLETED)
    speeds = {}
    for setting in settings:
        if futures[setting].done():
            seconds = trial.run(setting, 2)[0][1]
            steps = trial.dispatch / seconds
            speeds[setting] = steps * setting.batch * trial.recipe.patch ** 2
            print("%-8s batch %3d: %8.2f steps/s, %7.3f million LR pixels/s" % (setting + (steps, speeds[setting] / 1e6)),
                  flush=True)
        else:
            futures[setting].cancel()
            print("%-8s batch %3d: not compiled within %d s, left out" % (setting + (COMPILING,)), flush=True)
    return speeds


def bfloat16_is_as_good(trial, setting):
    """Whether the mean loss over the first LOSS_STEPS steps of a setting in bfloat16 is that in TF32, but for LOSS_FACTOR."""
    dispatches = math.ceil(LOSS_STEPS / trial.dispatch)
    losses = [np.mean(trial.run(setting._replace(precision=precision), dispatches)[1]) for precision in ("bfloat16", "tf32")]
    print("mean loss over %d steps: bfloat16 %.6f, tf32 %.6f" % ((dispatches * trial.dispatch,) + tuple(losses)), flush=True)
    return bool(losses[0] <= LOSS_FACTOR * losses[1])


def choose_setting(trial, precision=None, batch=None):
    """The fastest Setting per LR pixel, of those that the arguments leave open; none is run if both are given."""
    settings = [Setting(*values) for values in itertools.product(
        [precision] if precision else PRECISIONS, [batch] if batch else BATCHES)]
    if len(settings) == 1:
        return settings[0]
    speeds = measure_settings(trial, settings)
    best = max(speeds, key=speeds.get)
    if best.precision == "bfloat16" and not precision and not bfloat16_is_as_good(trial, best):
        others = [setting for setting in speeds if setting.precision != "bfloat16"]
        best = max(others, key=speeds.get) if others else best._replace(precision="tf32")
    print("chosen: %s, batch %d" % best, flush=True)
    return best
