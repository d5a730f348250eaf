"""Upscaling of images of any size within a stated memory, whole or in tiles, by a restored network."""
import os
import tempfile
from collections import namedtuple

from model import MODELS, tensor_name
from ops import tf
from tools.command import UserError
from tools.compute import can_compile
from tools.runtime import free_memory, gpu_memory, resident_memory
from utils import strips, to_uint8

import numpy as np
from tqdm import tqdm

# slices: of a side, with the halo on it, and of `read` what is `own`
Span = namedtuple("Span", "own read inner")
LARGEST_TILE = 256      # pixels a side; on a CPU, larger ones take more memory and no less time
SMALLEST_TILE = 16      # smaller ones are nearly all halo
COMPILED_FROM = 500000  # pixels of images of one size; for fewer, compiling takes longer than it saves
MOST_SIZES = 64         # of images that a network is compiled for: each takes 4 MiB that are never freed
OVERHEAD = 2 ** 26      # bytes that running any network takes, besides those of its feature maps
COMPILING = 2 ** 27     # bytes that compiling it takes
SANE = -16, 17          # SR beyond this is that of a network that has exploded


class Store:
    """A float32 array of zeros in memory or, if `folder` is given, in a temporary file there without a name.

    limited: in how many DRAGs the DRA was replaced when SR was made (see ops.limit_dra). Raises UserError if
    the disk is too full.
    """

    def __init__(self, shape, folder=None):
        self.shape, self.limited, self._file = tuple(shape), 0, None
        if not folder:
            self._array = np.zeros(self.shape, np.float32)
            return
        size = 4 * int(np.prod(self.shape, dtype=np.int64))
        try:
            self._file = tempfile.TemporaryFile(dir=folder)
            if hasattr(os, "posix_fallocate"):  # or a full disk kills the process on writing a page
                os.posix_fallocate(self._file.fileno(), 0, size)
            self._file.truncate(size)
        except OSError as error:
            raise UserError("cannot keep %.2f GiB in %s: %s" % (size / 2 ** 30, folder, error.strerror))

    def array(self):
        """The array. Call it for each use and keep none: pages of a file are memory until it is let go."""
        return np.memmap(self._file, np.float32, "r+", shape=self.shape) if self._file else self._array


def to_image(store):
    """The Store of SR as an 8-bit image, uint8 [H, W, 3]. Works in strips, as the Store may be on disk."""
    return np.concatenate([to_uint8(255 * store.array()[rows]) for rows in strips(*store.shape[:2])])


def check_sane(store):
    """Raise UserError if SR in a Store is not finite, or leaves SANE, as nothing bounds the DRA of DRSAN."""
    parts = [(part.min(), part.max()) for part in (store.array()[rows] for rows in strips(*store.shape[:2]))]
    low, high = np.min(parts), np.max(parts)  # NaN if there is one anywhere
    if not (low >= SANE[0] and high <= SANE[1]):
        raise UserError("DRSAN explodes on this picture: SR is from %.3g to %.3g, where 0 is black and 1 is "
                        "white: take other weights, or leave out --no-limit" % (low, high))


def limited_notes(store):
    """[], or a line that says that DRA was left out when the SR in a Store was made."""
    if not store.limited:
        return []
    return ["it has textures unlike those of photographs: DRA is limited in %d of the DRAGs" % store.limited]


def cut_side(size, largest, halo):
    """Cut a side of `size` pixels into nearly equal Spans of at most `largest`.

    All of them read equally many, so that a network is compiled once for them: at least the halo, which ends
    at the border, where SAME convolutions pad.
    """
    count = -(-size // largest)
    length = min(-(-size // count) + 2 * halo, size)
    for i in range(count):
        start, stop = size * i // count, size * (i + 1) // count
        first = min(max(start - halo, 0), size - length)
        yield Span(slice(start, stop), slice(first, first + length), slice(start - first, stop - first))


def enlarge(span, factor):
    """The slice of an SR image that belongs to a slice of its LR image."""
    return slice(factor * span.start, factor * span.stop)


def cut_image(height, width, side, halo):
    """Cut an image into tiles of at most side x side pixels (see cut_side): Spans of (rows, columns)."""
    return [Span(*zip(rows, columns))
            for rows in cut_side(height, side, halo) for columns in cut_side(width, side, halo)]


def _dihedral(image, t):
    """View t of the 8 that flips and a transposition make of [H, W, C]."""
    image = image.transpose(1, 0, 2) if t & 4 else image
    image = image[::-1] if t & 2 else image
    return image[:, ::-1] if t & 1 else image


def network_input(image):
    """An image as the network takes it: float32 [1, H, W, 3] in [0, 1].

    image: uint8, uint16 or, in [0, 1], floating point [H, W, 3], or [H, W, 1] for gray.
    """
    white = 1 if image.dtype.kind == "f" else np.iinfo(image.dtype).max
    return np.repeat(image[None].astype(np.float32) / np.float32(white), 3 // image.shape[2], axis=3)


def to_gray(sr):
    """The luma [H, W, 1] of SR of a gray image, whose three channels are nearly equal."""
    return sr.dot(np.float32([[0.299], [0.587], [0.114]]))


class Upscaler:
    """Upscales images of any size by a Network within a stated memory.

    tile: the most pixels a side of a tile, or None: the whole image where it fits. memory: the GiB that this
    process may take (on a GPU: of its memory), or None: 4/5 of what is free. ensemble: average over the 8
    flips and transpositions. folder: for temporary files, if the memory is too small.

    The result does not depend on the tiles (to 1e-5): the DRM pools over the whole image, so the network runs
    DRAG by DRAG over all tiles, with the halo that its convolutions need, and the sums over all tiles become
    the DRA values of the next pass. All of it is parts of one graph, cut off at its named tensors.
    """

    def __init__(self, network, tile=None, memory=None, ensemble=False, folder=None):
        self.network, self.session, self.factor = network, network.session, network.factor
        self.variant, self.tile, self.ensemble = MODELS[network.model], tile, ensemble
        self.folder = folder or tempfile.gettempdir()
        gpu, memory = gpu_memory(self.session), memory and memory * 2 ** 30
        self.host = (0.8 * free_memory() if memory is None or gpu else memory - resident_memory()) - OVERHEAD
        self.device = (memory or 0.8 * gpu) if gpu else None

    def __call__(self, image):
        """The Store of SR, float32 [s H, s W, 3], of an image (see network_input).

        White is 1 in SR, which is not clipped. Raises UserError without the memory, or if SR is not sane.
        """
        height, width = image.shape[:2]
        compiled = self.note_size(height, width)
        side, on_disk = self.plan(height, width, image.dtype.itemsize, compiled)
        scope = self.network.build_compiled() if compiled else ""
        views = range(8 if self.ensemble else 1)
        try:
            sr = Store((height * self.factor, width * self.factor, 3), on_disk and self.folder)
            for view in views:
                def add(region, values):
                    _dihedral(sr.array(), view)[region] += values / len(views)
                limited = self._run(_dihedral(image, view), side, on_disk, add, scope)
                sr.limited = max(sr.limited, limited)
            check_sane(sr)
            return sr
        except (tf.errors.ResourceExhaustedError, MemoryError):
            raise UserError("not enough memory for an LR image of %dx%d pixels%s: try a smaller --tile, or "
                            "--gpu -1" % (width, height, " in tiles of %d" % side if side else ""))

    def note_size(self, height, width):
        """Note an image of this size; returns whether the network for it is compiled. Compiling takes half a
        second for each new size; it is done for MOST_SIZES, once COMPILED_FROM pixels of a size have come."""
        size, compiled, pixels = (height, width), self.network.compiled_sizes, self.network.pixels_of_size
        pixels[size] += height * width
        if pixels[size] < COMPILED_FROM or self.device or not can_compile():
            return False
        if len(compiled) < MOST_SIZES:
            compiled.add(size)
        return size in compiled

    def plan(self, height, width, depth=1, compiled=False):
        """(side of the tiles, or None for the whole image; whether what grows with the image goes to disk).

        depth: the bytes of a sample of the picture that is written. compiled: as of note_size().
        """
        pixels, per_pixel = height * width, bytes_per_pixel(self.variant, self.factor)
        # SR, and the features between passes
        stores = (12 * self.factor ** 2 + 8 * self.variant.channels) * pixels
        # what is held beside SR: the picture that is written; in evaluation, 8 bits of SR, HR and bicubic
        written = (9 + 4 * (depth - 1)) * self.factor ** 2 * pixels
        spare = self.host - written - COMPILING * compiled
        if not self.tile and per_pixel * pixels < (self.device or spare):
            return None, False
        on_disk = stores > spare / 2
        room = self.device or (spare if on_disk else spare - stores)
        halo = self.halo(self.variant.drags)
        largest = max(height, width) if self.device else LARGEST_TILE
        side = self.tile or min(int(max(room / per_pixel, 0) ** 0.5) - 2 * halo, largest)
        if side < SMALLEST_TILE and not self.tile:
            more = per_pixel * (SMALLEST_TILE + 2 * halo) ** 2 - room
            raise UserError("not enough memory for an LR image of %dx%d pixels: %.2f GiB more are needed" % (
                width, height, more / 2 ** 30))
        return side, on_disk

    def halo(self, k):
        """Pixels around a tile on which pass k depends, by its 3x3 convolutions; the last has two more."""
        if k == 0:
            return 1
        return 2 * self.variant.blocks + (3 if k == self.variant.drags else 1)

    def _run(self, image, side, on_disk, add, scope):
        """Run the network in a name scope on one image; add(region, values) takes the parts of SR, each for
        its region (rows, columns). Returns in how many DRAGs the DRA was replaced."""
        drags = self.variant.drags
        if side is None:
            names = [tensor_name(k, "limited", scope) for k in range(1, drags + 1)]
            sr, limited = self.session.run([scope + "DRAN/SR:0", names if self.network.dra_ranges else []],
                                           {self.network.lr: network_input(image)})
            add(Ellipsis, sr[0])
            return int(np.sum(limited))
        shape = image.shape[:2] + (self.variant.channels,)
        source, target = (Store(shape, on_disk and self.folder) for _ in range(2))
        dra, limited = None, 0
        for k in range(drags + 1):
            dra, replaced = self._pass(k, image, side, dra, source, target, add, scope)
            source, target, limited = target, source, limited + replaced
        return limited

    def _pass(self, k, image, side, dra, source, target, add, scope):
        """Pass k over all tiles: DRAG k with these DRA values, from the features in `source` to `target`.

        Pass 0 has no DRAG, and pass 1 makes the features that it reads. Returns the DRA values of DRAG k + 1,
        as pool(), or None from the last pass, which makes SR; and whether those of DRAG k were replaced.
        """
        last = k == self.variant.drags
        fetches = [scope + "DRAN/SR:0" if last else tensor_name(k + 1, "DRM", scope)]
        if k > 0 and not last:
            fetches.append(tensor_name(k, "features", scope))
        if k > 0 and self.network.dra_ranges:
            fetches.append(tensor_name(k, "limited", scope))
        replaced, sums, tiles = False, [], cut_image(*image.shape[:2], side, self.halo(k))
        for i, tile in enumerate(tqdm(tiles, unit="tile", leave=False, disable=None,
                                      desc="pass %d of %d" % (k + 1, self.variant.drags + 1))):
            feed = {self.network.lr: network_input(image[tile.read])}
            if k > 0:
                feed[tensor_name(k, "pooled", scope)] = dra[i][None, None, None]
            if k > 1:
                feed[tensor_name(k - 1, "features", scope)] = source.array()[tile.read][None]
            results = self.session.run(fetches, feed)
            replaced = k > 0 and bool(self.network.dra_ranges) and bool(results[-1].any())
            if last:
                inner = tuple(enlarge(span, self.factor) for span in tile.inner)
                add(tuple(enlarge(span, self.factor) for span in tile.own), results[0][0][inner])
                continue
            sums.append(results[0][0][tile.inner].sum(axis=(0, 1), dtype=np.float64))
            if k > 0:
                target.array()[tile.own] = results[1][0][tile.inner]
        if last:
            return None, replaced
        pixels = [[np.prod([side.stop - side.start for side in tile.own])] for tile in tiles]
        return self.pool(np.array(sums), np.array(pixels)), replaced

    def pool(self, sums, pixels):
        """The DRA values of each tile [tiles, paths]: the mean over the whole image, as in the network.

        sums: over each tile, of what the DRM pools [tiles, paths]. pixels: their number, [tiles, 1].
        """
        return np.broadcast_to(sums.sum(0) / pixels.sum(), sums.shape)


def bytes_per_pixel(variant, factor):
    """Bytes of memory that the network takes for an LR pixel on a CPU, an upper bound of what was measured.

    Feature maps of f float32 channels that live at the same time: some of LR's size, three of SR's in the
    upsampler. TensorFlow 1 holds more of them.
    """
    maps = 24 + 12 * factor ** 2 if tf.__version__.startswith("1.") else 10 + 3 * factor ** 2
    return 4 * variant.channels * maps
