"""Folders of photographs to train on: their files, those held out for validation, and all in memory."""
import concurrent.futures
import contextlib
import functools
import hashlib
import math
import os
import re
from collections import OrderedDict, deque

from tools.command import UserError, notice_once, say
from tools.files import read_csv
from utils import IMAGE_SUFFIXES, Pair, find_dataset, list_images, read_image, read_pair

from tqdm import tqdm

IMAGE_KINDS = "/".join(suffix[1:].upper() for suffix in IMAGE_SUFFIXES)


def load_pair(path, factor):
    """(LR, HR) of one photograph, uint8 RGB, or the UserError that says why it cannot be used."""
    try:
        return read_pair(Pair(path, path, None), factor)
    except UserError as error:
        return error


def in_threads(function, items, workers, ahead=4):
    """Yield function(item) of each item, in order, in so many threads, each some ahead, until closed."""
    pool, results = concurrent.futures.ThreadPoolExecutor(workers), deque()
    try:
        for item in items:
            results.append(pool.submit(function, item))
            if len(results) > ahead * workers:
                yield results.popleft().result()
        while results:
            yield results.popleft().result()
    finally:
        for result in results:
            result.cancel()
        pool.shutdown()


def list_photographs(folder):
    """The paths of all image files below `folder`, sorted. Links to folders are followed, but each folder is
    there once. Raises UserError if there are none."""
    found = {}
    for path, folders, _ in os.walk(folder, followlinks=True):
        folders.sort(key=lambda name: (os.path.islink(os.path.join(path, name)), name))  # real ones first
        if found.setdefault(os.path.realpath(path), path) != path:
            folders[:] = []
    paths = sorted(path for below in found.values() for path in list_images(below))
    if not paths:
        raise UserError("no training data below %s: expected %s images" % (folder, IMAGE_KINDS))
    return paths


def photograph_of(folder, paths):
    """{path: photograph} of image files below `folder`, whose manifest.csv says which are tiles of one."""
    photographs = {path: os.path.splitext(os.path.relpath(path, folder))[0] for path in paths}
    manifest = os.path.join(folder, "manifest.csv")
    try:
        for row in read_csv(manifest) if os.path.exists(manifest) else ():
            path = os.path.join(folder, row["file"])
            if path in photographs:
                photographs[path] = "%s/%s" % (row["repo"], row["path"])
    except (KeyError, TypeError) as error:
        raise UserError("%s is not the manifest of a photo set (%s): remove it, or build the set anew" % (
            manifest, error))
    return photographs


def hold_out(folder, share):
    """Divide the image files below `folder` into those for training and for validation, two sorted lists.

    About `share` of the photographs are held out: those whose name, or repository and path, has a SHA-256
    below this share of all. Of each, validation gets one tile, that in the middle of the list, and training
    none. Raises UserError if there are none, or no photograph is left on one of the sides.
    """
    paths, tiles = list_photographs(folder), {}
    if not share:
        return paths, []
    for path, photograph in sorted(photograph_of(folder, paths).items()):
        tiles.setdefault(photograph, []).append(path)
    held = {name for name in tiles
            if int(hashlib.sha256(os.fsencode(name)).hexdigest()[:8], 16) < share * 16 ** 8}
    if not 0 < len(held) < len(tiles):
        raise UserError("--valid-share %g holds out %d of the %d photographs below %s: give another share, "
                        "or leave it out" % (share, len(held), len(tiles), folder))
    return (sorted(path for name in tiles if name not in held for path in tiles[name]),
            sorted(tiles[name][len(tiles[name]) // 2] for name in held))


def note_lr_folders(folder, paths):
    """Note folders that seem to hold the LR images of a data set, which would be trained on as HR."""
    parts = {part for path in paths for part in os.path.dirname(os.path.relpath(path, folder)).split(os.sep)}
    found = sorted(part for part in parts if re.match(r"((.*_)?LR(_.*)?|x[234])\Z", part, re.IGNORECASE))
    if found:
        notice_once("%s holds folders named %s, whose images are trained on as HR, too: name the folder of "
                    "HR images by --data" % (folder, " ".join(found)))


def load_photographs(folder, factor, patch, workers, share=0):
    """The photographs below `folder`, without the share held out: [(LR, HR)], uint8 RGB, LR by imresize.

    Those that cannot be read, or are smaller than a patch (in LR pixels), are named and left out; UserError
    if all are.
    """
    paths, photographs, small = hold_out(folder, share)[0], [], 0
    note_lr_folders(folder, paths)
    load = functools.partial(load_pair, factor=factor)
    with contextlib.closing(in_threads(load, paths, workers)) as loaded:
        for path, pair in zip(paths, tqdm(loaded, "reading", len(paths), unit="photo", disable=None)):
            if isinstance(pair, UserError):
                say("left out: %s" % pair)
            elif min(pair[0].shape[:2]) < patch:
                small += 1
                say("left out: %s is smaller than a patch of %d LR pixels" % (path, patch))
            else:
                photographs.append(pair)
    if not photographs:
        raise UserError("no usable photograph below %s: %s" % (folder, (
            "%d of %d are smaller than %d pixels a side: lower --patch (%d LR pixels at x%d), or give larger "
            "ones" % (small, len(paths), patch * factor, patch, factor)) if small else
            "give --data a folder of %s images" % IMAGE_KINDS))
    return photographs


def describe_data(folder, list_files=list_photographs):
    """What config.json says of a folder of photographs, or of what else list_files(folder) finds there: its
    path, and a digest of the names and sizes of its files. Raises UserError if there are none."""
    digest = hashlib.sha256()
    paths = list(filter(os.path.exists, list_files(folder)))  # not links that lead nowhere
    for path in paths:
        digest.update(os.fsencode("%s %d\n" % (os.path.relpath(path, folder), os.path.getsize(path))))
    return {"folder": folder, "files": len(paths), "sha256_of_names_and_sizes": digest.hexdigest()}


def open_valid(name, held_out, factor, data_dir):
    """{key in the log: (name, (LR, HR) pairs)} of the validation sets.

    They are the data set of this name, if any, and the photographs held out; the last one judges which
    weights are the best. Raises UserError if an image of the data set is too small for PSNR and SSIM, or
    cannot be read; a photograph of which this is so is named and left out, unless it is the last one.
    """
    sets, judged = OrderedDict(), []
    if name:
        pairs = find_dataset(name, factor, data_dir).pairs
        sets["psnr"] = name, [read_valid(pair, factor) for pair in pairs]
    for path in held_out:
        try:
            judged.append(read_valid(Pair(path, path, None), factor))
        except UserError as error:
            say("left out: %s" % error)
    if judged:
        sets["psnr_held_out"] = "held-out photographs", judged
    elif held_out:
        raise UserError("none of the %d photographs that --valid-share holds out can be validated on: give "
                        "another share, or larger photographs" % len(held_out))
    return sets


def read_valid(pair, factor):
    """(LR, HR) of a Pair, uint8 RGB. Raises UserError with the file if it is too small for PSNR and SSIM."""
    lr, hr = read_pair(pair, factor)
    needed = 2 * factor + factor * math.ceil(11 / factor)  # the border, and SSIM's window of 11
    if min(hr.shape[:2]) < needed:
        height, width = read_image(pair.hr).shape[:2]
        raise UserError("%s has %dx%d pixels: at x%d, an image of at least %d a side is needed to validate on"
                        % (pair.hr, width, height, factor, needed))
    return lr, hr
