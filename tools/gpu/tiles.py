"""Photographs on the device, and random patches that are cut from them there, within compiled steps."""
from collections import namedtuple

from tools.command import UserError
from tools.data.patches import detail

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# lr, hr: uint8 [images, H, W, 3], padded to one size; the padding is never drawn. ends: int32 [images], the
# number of positions of a patch in an image and those before it; columns: int32 [images], in one of its rows.
Tiles = namedtuple("Tiles", "lr hr ends columns")
Patches = namedtuple("Patches", "tile y x turn")  # int32 [batch] each; y and x in LR pixels; turn: 3 bits


def stack(images):
    """uint8 images [H, W, 3] as in Tiles."""
    height, width = np.max([image.shape[:2] for image in images], axis=0)
    stacked = np.zeros([len(images), height, width, 3], np.uint8)
    for padded, image in zip(stacked, images):
        padded[:image.shape[0], :image.shape[1]] = image
    return jnp.asarray(stacked)


def stack_tiles(pairs, patch):
    """Tiles of (LR, HR) pairs, none smaller than a patch, of `patch` LR pixels a side. Raises UserError."""
    rows, columns = np.transpose([lr.shape[:2] for lr, _ in pairs]) - patch + 1
    ends = np.cumsum(rows * columns)
    if ends[-1] >= 2 ** 31:
        raise UserError("the photographs have %d positions of a patch, 2^31 or more: give fewer" % ends[-1])
    return Tiles(stack([lr for lr, _ in pairs]), stack([hr for _, hr in pairs]),
                 jnp.asarray(ends, jnp.int32), jnp.asarray(columns, jnp.int32))


def draw_patches(key, tiles, batch):
    """Random Patches, uniform over all positions and over the 8 flips and rotations."""
    position_key, turn_key = jax.random.split(key)
    position = jax.random.randint(position_key, [batch], 0, tiles.ends[-1])
    tile = jnp.searchsorted(tiles.ends, position, side="right", method="compare_all")
    y, x = jnp.divmod(position - jnp.where(tile > 0, tiles.ends[tile - 1], 0), tiles.columns[tile])
    return Patches(tile, y, x, jax.random.randint(turn_key, [batch], 0, 8))


def draw_detailed_patches(key, tiles, recipe):
    """The Patches of a step, those with the most detail of recipe.candidates each."""
    patches = draw_patches(key, tiles, recipe.candidates * recipe.batch)
    if recipe.candidates == 1:
        return patches
    details = detail(cut(tiles.lr, patches, recipe.patch, 1).astype(jnp.float32), jnp)
    best = details.reshape(recipe.batch, recipe.candidates).argmax(axis=1)
    return Patches(*[values[recipe.candidates * jnp.arange(recipe.batch) + best] for values in patches])


def cut(images, patches, patch, factor):
    """The pixels of Patches in the LR images of Tiles (factor 1), or in the HR images, not turned."""
    size = 1, factor * patch, factor * patch, 3
    return jax.vmap(lambda tile, y, x: lax.dynamic_slice(images, (tile, factor * y, factor * x, 0), size)[0])(
        patches.tile, patches.y, patches.x)


def cut_patches(tiles, patches, patch, factor):
    """The batch of some Patches: LR [batch, p, p, 3] and HR [batch, s p, s p, 3], uint8."""
    turn, batches = patches.turn[:, None, None, None], []
    for batch in cut(tiles.lr, patches, patch, 1), cut(tiles.hr, patches, patch, factor):
        batch = jnp.where(turn & 1, batch[:, ::-1], batch)
        batch = jnp.where(turn & 2, batch[:, :, ::-1], batch)
        batches.append(jnp.where(turn & 4, batch.swapaxes(1, 2), batch))
    return batches
