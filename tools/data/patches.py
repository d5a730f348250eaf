"""Random batches of patches of photographs in memory, and hard textures, which no photograph has and on which
DRA can explode.

A texture is a function (photograph, random) -> picture, both uint8 RGB [H, W, 3]; random is a RandomState.
TRAINED are those of the recipe's option --textures; UNSEEN are never trained on, so that tools/gate.py can
judge weights by them.
"""
import collections

from utils import bicubic

import numpy as np
from PIL import Image, ImageDraw


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
    texture; its HR is what bicubic makes of its LR.
    """

    def __init__(self, photographs, factor, batch, patch, seed, candidates=1, textures=0):
        self.photographs, self.factor, self.batch, self.patch = photographs, factor, batch, patch
        self.seed, self.candidates, self.textures = seed, candidates, textures
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


# --------------------------------------------------------------------------------------------------- textures

def _gray(values):
    """Brightness [H, W] in [0, 1] or booleans as a gray picture."""
    return np.repeat(np.uint8(255 * np.asarray(values) + 0.5)[:, :, None], 3, axis=2)


def _two_colors(mask, random):
    """A picture of two colors where a mask [H, W] is true and false: black and white, or any two."""
    colors = random.randint(256, size=(2, 3)) if random.randint(2) else np.array([[0] * 3, [255] * 3])
    return np.where(mask[:, :, None], *colors).astype(np.uint8)


def _brightness(photograph):
    return photograph.mean(axis=2) / 255


def _rows_and_columns(photograph):
    return np.mgrid[:photograph.shape[0], :photograph.shape[1]]


def _wave(photograph, period, angle):
    """The phase [H, W], in periods, of a plane wave over the photograph; angle in radians."""
    y, x = _rows_and_columns(photograph)
    return (x * np.cos(angle) + y * np.sin(angle)) / period


def dithered(photograph, random):
    """Error diffusion to 1 bit (Floyd and Steinberg), of gray as a fax, or of each color."""
    if random.randint(2):
        return np.asarray(Image.fromarray(photograph).convert("1").convert("RGB"))
    return np.stack([np.asarray(Image.fromarray(photograph[:, :, c]).convert("1").convert("L"))
                     for c in range(3)], 2)


def quantized(photograph, random):
    """Two to four levels a color."""
    steps = random.randint(1, 4)
    return np.uint8(np.floor(photograph / 255.0 * steps + 0.5) * 255 / steps)


def stripes(photograph, random):
    """Stripes one to three pixels wide, along the axes or the diagonals."""
    y, x = _rows_and_columns(photograph)
    dy, dx = ((1, 0), (0, 1), (1, 1), (1, -1))[random.randint(4)]
    return _two_colors((dy * y + dx * x) // random.randint(1, 4) % 2 == 0, random)


def checkerboard(photograph, random):
    """Squares of one to three pixels."""
    y, x = _rows_and_columns(photograph) // random.randint(1, 4)
    return _two_colors((y + x) % 2 == 0, random)


def zone_plate(photograph, random):
    """Rings around a random point, whose frequency rises with the radius."""
    shape = photograph.shape[:2]
    y, x = _rows_and_columns(photograph)
    center = random.rand(2) * shape
    radius2 = (y - center[0]) ** 2 + (x - center[1]) ** 2
    return _gray(0.5 + 0.5 * np.cos(np.pi * random.uniform(0.5, 1.5) * radius2 / max(shape)))


def halftone(photograph, random):
    """A screen of black dots, as in print."""
    period, angle = random.uniform(2.5, 6), random.uniform(0, np.pi)
    waves = [np.cos(2 * np.pi * _wave(photograph, period, angle + turn)) for turn in (0, np.pi / 2)]
    return _gray(_brightness(photograph) > 0.5 + 0.25 * sum(waves))


def random_pixels(photograph, random):
    """Noise of black and white, of eight colors, or of all."""
    kind, shape = random.randint(3), photograph.shape
    if kind == 0:
        return _gray(random.rand(*shape[:2]) < 0.5)
    if kind == 1:
        return np.uint8(255 * (random.rand(*shape) < 0.5))
    return random.randint(256, size=shape).astype(np.uint8)


def inset(photograph, random):
    """A square of another texture, a third of the side, within the photograph."""
    texture = TRAINED[random.randint(len(TRAINED) - 1)](photograph, random)
    picture, side = photograph.copy(), max(min(photograph.shape[:2]) // 3, 1)
    y, x = (random.randint(size - side + 1) for size in photograph.shape[:2])
    picture[y:y + side, x:x + side] = texture[y:y + side, x:x + side]
    return picture


def text(photograph, random):
    """Lines of random characters in 1 bit, as a scanned page."""
    height, width = photograph.shape[:2]
    page = Image.new("1", (width, height), 1)
    for y in range(0, height, 11):
        codes = random.randint(33, 123, size=width // 4)
        ImageDraw.Draw(page).text((0, y), "".join(chr(code) for code in codes))
    return 255 - _gray(page) if random.randint(2) else _gray(page)


def moire(photograph, random):
    """Two fine gratings over each other."""
    gratings = [np.cos(2 * np.pi * _wave(photograph, random.uniform(2, 3.3), random.uniform(0, np.pi))) > 0
                for _ in range(2)]
    return _gray(gratings[0] & gratings[1])


def scan_lines(photograph, random):
    """Every other row darkened, as on a screen."""
    picture = photograph.copy()
    picture[::2] = picture[::2] * random.uniform(0, 0.5)
    return picture


def ordered_dither(photograph, random):
    """1 bit by a threshold matrix (B. E. Bayer, 1973) of 2x2, 4x4 or 8x8."""
    matrix = np.zeros([1, 1])
    for _ in range(random.randint(1, 4)):
        matrix = np.block([[4 * matrix, 4 * matrix + 2], [4 * matrix + 3, 4 * matrix + 1]])
    y, x = _rows_and_columns(photograph) % len(matrix)
    return _gray(_brightness(photograph) > (matrix[y, x] + 0.5) / matrix.size)


def grain(photograph, random):
    """Strong gray noise, as of a fast film."""
    noise = random.normal(0, random.uniform(20, 80), photograph.shape[:2])
    return np.clip(photograph + noise[:, :, None], 0, 255).astype(np.uint8)


def noisy_channel(photograph, random):
    """Noise in the place of one color."""
    picture = photograph.copy()
    picture[:, :, random.randint(3)] = random.randint(256, size=photograph.shape[:2])
    return picture


TRAINED = dithered, quantized, stripes, checkerboard, zone_plate, halftone, random_pixels, inset
UNSEEN = text, moire, scan_lines, ordered_dither, grain, noisy_channel
