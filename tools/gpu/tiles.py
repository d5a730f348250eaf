"""Training images on the device: read once, kept there as uint8, and cut into random patches there, for jit-compiled steps.

What a part is and how it is written stands in ../data/parts.py; what is done with the patches in training.py.
"""
import concurrent.futures
import functools
import multiprocessing
from collections import namedtuple

from tools.command import UserError
from tools.data.parts import decode, read_files, read_held_out
from tools.data.patches import detail
from utils import crop_to_multiple, downscale

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Tiles = namedtuple("Tiles", "lr hr ends columns")


def _read_image(file, factors):
    """An image, uint8 RGB, and [LR] of it by imresize for each of the factors; file: as read_files() yields it."""
    hr = decode(*file)
    return hr, [downscale(crop_to_multiple(hr, factor), factor) for factor in factors]


def read_images(folder, factors, workers):
    """[(HR, [LR for each of the factors])] of all images in a folder of parts or images, uint8 RGB. Raises UserError.

    HR is not cropped. The work is done by so many processes; a new one has no part in what this one has opened.
    """
    read = functools.partial(_read_image, factors=factors)
    if workers == 1:
        return list(map(read, read_files(folder)))
    with concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(read, read_files(folder), chunksize=8))


def load_pairs(folder, factor, workers):
    """[(LR, HR)] of all images in a folder of parts or images, uint8 RGB, LR made by imresize. Raises UserError."""
    return [(lr, crop_to_multiple(hr, factor)) for hr, (lr,) in read_images(folder, [factor], workers)]


def stack(images):
    """Images [H, W, 3] as one array on the device, [images, H, W, 3], padded at the bottom and right to one size."""
    height, width = np.max([image.shape[:2] for image in images], axis=0)
    stacked = np.zeros([len(images), height, width, 3], np.uint8)
    for padded, image in zip(stacked, images):
        padded[:image.shape[0], :image.shape[1]] = image
    return jnp.asarray(stacked)


def number_positions(sizes, patch):
    """(ends, columns) of Tiles whose LR images have these sizes (H, W). Raises UserError if none holds a patch of `patch` LR pixels
    a side, or there are too many positions."""
    rows, columns = np.maximum(np.asarray(sizes).T - patch + 1, 0)
    positions = rows.astype(np.int64) * columns
    small, ends = np.sum(positions == 0), np.cumsum(positions)
    if small:
        print("left out: %d tiles smaller than a patch of %d LR pixels" % (small, patch))
    if not ends[-1]:
        raise UserError("no tile is as large as a patch of %d LR pixels" % patch)
    if ends[-1] >= 2 ** 31:
        raise UserError("too many tiles: %d positions of a patch, at most 2^31 - 1 can be numbered" % ends[-1])
    return jnp.asarray(ends, jnp.int32), jnp.asarray(np.maximum(columns, 1), jnp.int32)


def stack_tiles(pairs, patch):
    """Tiles of (LR, HR) pairs in device memory. Raises UserError as number_positions().

    lr, hr: uint8, padded to one size. ends: int32 [tiles], the number of positions of a patch in this tile and those
    before it; columns: int32 [tiles], those in one row. Both are of the true sizes: padding is never drawn.
    """
    return Tiles(stack([lr for lr, _ in pairs]), stack([hr for _, hr in pairs]),
                 *number_positions([lr.shape[:2] for lr, _ in pairs], patch))


class TileStore(object):
    """The images of a folder for several scales: each is decoded once, and HR is on the device once."""

    def __init__(self, folder, factors, workers):
        """Read them. factors: of all scales that Tiles will be asked of."""
        self.held_out = read_held_out(folder)  # the names of the photographs that are kept for validation
        images = read_images(folder, factors, workers)
        self.images = len(images)
        self.pixels = sum(hr.shape[0] * hr.shape[1] for hr, _ in images)
        self._hr = stack([hr for hr, _ in images])
        self._lr = {factor: stack([lr[i] for _, lr in images]) for i, factor in enumerate(factors)}
        self._sizes = {factor: [lr[i].shape[:2] for _, lr in images] for i, factor in enumerate(factors)}

    @functools.lru_cache(maxsize=None)
    def tiles(self, factor, patch):
        """Tiles for one of the scales and patches of so many LR pixels a side. Raises UserError as number_positions()."""
        return Tiles(self._lr[factor], self._hr, *number_positions(self._sizes[factor], patch))

    @property
    def mebibytes(self):
        """What they take on the device."""
        return sum(array.nbytes for array in [self._hr] + list(self._lr.values())) >> 20


Patches = namedtuple("Patches", "tile y x turn")  # int32 [batch] each; y and x in LR pixels; turn: 3 bits


def draw_patches(key, tiles, batch):
    """Random Patches: uniform over all positions in all tiles, and over the 8 flips and rotations."""
    position_key, turn_key = jax.random.split(key)
    position = jax.random.randint(position_key, [batch], 0, tiles.ends[-1])
    tile = jnp.searchsorted(tiles.ends, position, side="right", method="compare_all")
    offset = position - jnp.where(tile > 0, tiles.ends[tile - 1], 0)
    return Patches(tile, offset // tiles.columns[tile], offset % tiles.columns[tile],
                   jax.random.randint(turn_key, [batch], 0, 8))


def draw_detailed_patches(key, tiles, batch, patch, candidates):
    """Patches with the most detail of so many candidates each, as patches.Sampler takes them."""
    patches = draw_patches(key, tiles, candidates * batch)
    if candidates == 1:
        return patches
    details = detail(cut(tiles.lr, patches, patch, 1).astype(jnp.float32), jnp).reshape(batch, candidates)
    best = candidates * jnp.arange(batch) + details.argmax(axis=1)
    return Patches(*[values[best] for values in patches])


def cut(images, patches, patch, factor):
    """The pixels of some Patches in the LR images of Tiles (factor 1) or in the HR images (the factor of the scale), not turned."""
    size = 1, factor * patch, factor * patch, 3
    return jax.vmap(lambda tile, y, x: lax.dynamic_slice(images, (tile, factor * y, factor * x, 0), size)[0])(
        patches.tile, patches.y, patches.x)


def cut_patches(tiles, patches, patch, factor):
    """The batch of some Patches: LR [batch, p, p, 3] and HR [batch, s p, s p, 3], uint8."""
    turn, batches = patches.turn[:, None, None, None], []
    for images, times in (tiles.lr, 1), (tiles.hr, factor):
        batch = cut(images, patches, patch, times)
        batch = jnp.where(turn & 1, batch[:, ::-1], batch)
        batch = jnp.where(turn & 2, batch[:, :, ::-1], batch)
        batches.append(jnp.where(turn & 4, batch.swapaxes(1, 2), batch))
    return batches
