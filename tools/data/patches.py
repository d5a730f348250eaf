"""Random batches of patches of photographs in memory."""
import collections
import queue
import threading

from tools.data.textures import TRAINED
from utils import bicubic

import numpy as np


def detail(patch, numpy=np):
    """How much detail [..., H, W, C] has: the mean absolute difference of neighbours in rows and columns.

    patch: of a type that holds differences, so not uint8; one pixel has no detail. numpy: the library used.
    """
    return sum((numpy.abs(numpy.diff(patch, axis=axis)).mean(axis=(-3, -2, -1))
                for axis in (-3, -2) if patch.shape[axis] > 1), numpy.zeros(patch.shape[:-3]))


# lr, hr: a photograph; y, x: of the corner of a patch in LR pixels
Position = collections.namedtuple("Position", "lr hr y x")


class Sampler(object):
    """Random batches of patches: uniform over all positions in all photographs, and 8 flips and rotations.

    With several candidates, the one with the most detail of so many such positions: flat patches teach little
    (S. Wang et al., SamplingAug, arXiv 2111.15185). With `textures`, that share of the patches becomes a hard
    texture (see textures.py); its HR is what bicubic makes of its LR.
    """

    def __init__(self, photographs, factor, batch, patch, seed, candidates=1, textures=0):
        self.photographs, self.factor, self.seed = photographs, factor, seed
        self.batch, self.patch = batch, patch
        self.candidates, self.textures = candidates, textures
        positions = [(lr.shape[0] - patch + 1) * (lr.shape[1] - patch + 1) for lr, _ in photographs]
        self.share = np.cumsum(positions) / np.sum(positions)

    def _draw(self, random):
        """A random Position."""
        lr, hr = self.photographs[np.searchsorted(self.share, random.rand())]
        y, x = (random.randint(side - self.patch + 1) for side in lr.shape[:2])
        return Position(lr, hr, y, x)

    def _detail(self, position):
        y, x = position.y, position.x
        return detail(position.lr[y:y + self.patch, x:x + self.patch].astype(np.int16))

    def __call__(self, step, batch=None):
        """The batch of a step, of seed and step alone: uint8 LR [batch, p, p, 3], HR [batch, sp, sp, 3]."""
        random, s, p = np.random.RandomState([self.seed, step]), self.factor, self.patch
        lr_batch, hr_batch = [], []
        for _ in range(self.batch if batch is None else batch):
            drawn = [self._draw(random) for _ in range(self.candidates)]
            if self.candidates > 1:
                drawn.sort(key=self._detail)
            lr, hr, y, x = drawn[-1]
            lr, hr = lr[y:y + p, x:x + p], hr[s * y:s * (y + p), s * x:s * (x + p)]
            if self.textures and random.rand() < self.textures:
                lr = TRAINED[random.randint(len(TRAINED))](np.ascontiguousarray(lr), random)
                hr = bicubic(lr, s)
            quarter_turns, mirror = random.randint(4), random.randint(2)
            for image, images in (lr, lr_batch), (hr, hr_batch):
                image = np.rot90(image, quarter_turns)
                images.append(image[:, ::-1] if mirror else image)
        return np.stack(lr_batch), np.stack(hr_batch)


def prefetch(function, first, last, depth=4):
    """Yield function(i) for i in range(first, last), computed ahead in a thread until it is closed."""
    results, closed = queue.Queue(depth), threading.Event()

    def put(item):
        while not closed.is_set():
            try:
                return results.put(item, timeout=0.1)
            except queue.Full:
                pass

    def work():
        try:
            for i in range(first, last):
                if closed.is_set():
                    return
                put((function(i), None))
        except Exception as error:
            put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        for _ in range(first, last):
            result, error = results.get()
            if error:
                raise error
            yield result
    finally:
        closed.set()
