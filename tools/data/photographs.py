"""Folders of photographs to train on: their files, those held out for validation, and all in memory."""
import concurrent.futures
import contextlib
import functools
import glob
import hashlib
import math
import os
import re
from collections import OrderedDict

from tools.command import UserError, notice_once
from tools.files import read_csv
from tools.training.history import say
from utils import IMAGE_SUFFIXES, Pair, find_dataset, list_images, read_image, read_pair

from tqdm import tqdm

KINDS = "/".join(suffix[1:].upper() for suffix in IMAGE_SUFFIXES)


def load_pair(path, factor):
    """(LR, HR) of one photograph, uint8 RGB, or the UserError that says why it cannot be used."""
    try:
        return read_pair(Pair(path, path, None), factor)
    except UserError as error:
        return error


def in_threads(function, items, workers):
    """Yield function(item) of each item, in order, called in so many threads; no call begins once closed."""
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    futures = [pool.submit(function, item) for item in items]
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()
        pool.shutdown()


def list_photographs(folder):
    """The paths of all image files below `folder`, sorted; links to files that are not there are left out."""
    return sorted(path for below in folders_below(folder) for path in list_images(below)
                  if os.path.exists(path))


def folders_below(folder):
    """`folder` and all folders below it; links to folders are followed, but each folder is there once."""
    found, waiting, links = OrderedDict(), [folder], []
    while waiting or links:
        path = waiting.pop() if waiting else links.pop(0)  # real folders first
        if found.setdefault(os.path.realpath(path), path) == path and os.path.isdir(path):
            for entry in os.scandir(path):
                if entry.is_dir():
                    (links if entry.is_symlink() else waiting).append(entry.path)
            links.sort()
    return list(found.values())


def photograph_of(folder, paths):
    """{path: photograph} of image files below `folder`, whose manifest.csv says which are tiles of one."""
    photographs = {path: os.path.splitext(os.path.relpath(path, folder))[0] for path in paths}
    manifest = os.path.join(folder, "manifest.csv")
    if os.path.exists(manifest):
        rows = read_csv(manifest)
        try:
            for row in rows:
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
    paths = list_photographs(folder)
    if not paths:
        raise no_images(folder)
    if not share:
        return paths, []
    tiles = {}
    for path, photograph in sorted(photograph_of(folder, paths).items()):
        tiles.setdefault(photograph, []).append(path)
    held = {name for name in tiles
            if int(hashlib.sha256(os.fsencode(name)).hexdigest()[:8], 16) < share * 16 ** 8}
    if not 0 < len(held) < len(tiles):
        raise UserError("--valid-share %g holds out %d of the %d photographs below %s: give another share, "
                        "or leave it out" % (share, len(held), len(tiles), folder))
    return (sorted(path for name in tiles if name not in held for path in tiles[name]),
            sorted(tiles[name][len(tiles[name]) // 2] for name in held))


def no_images(folder):
    """The UserError for a folder that has nothing to train on."""
    return UserError("no training data below %s: expected %s images%s" % (
        folder, KINDS, describe_broken_links(folder, ", but there are %s")))


def broken_links(folder):
    """The links in `folder` with names of images that lead to no file, sorted: git-annex and DVC leave them
    for what is not fetched."""
    return [path for path in list_images(folder) if not os.path.exists(path)]


def describe_broken_links(folder, words):
    """In these words, with %s for how many and which, the links below `folder` that lead nowhere, or ""."""
    links = [path for below in folders_below(folder) for path in broken_links(below)]
    text = "%d links to pictures that are not there, the first %s: fetch them (git annex get, dvc pull)"
    return words % (text % (len(links), links[0])) if links else ""


def note_lr_folders(folder, paths):
    """Note folders that seem to hold the LR images of a data set, which would be trained on as HR."""
    parts = {part for path in paths for part in os.path.dirname(os.path.relpath(path, folder)).split(os.sep)}
    found = sorted(part for part in parts if re.match(r"((.*_)?LR(_.*)?|x[234])\Z", part, re.IGNORECASE))
    if found:
        notice_once("%s holds folders named %s, whose images are trained on as HR, too: name the folder of "
                    "HR images by --data" % (folder, " ".join(found)))


def load_photographs(folder, factor, patch, workers, share=0):
    """The photographs below `folder`, without the share held out: [(LR, HR)], uint8 RGB, LR by imresize.

    Those that cannot be read, or are smaller than a patch (in LR pixels), are named and left out. Raises
    UserError if none is left.
    """
    paths, photographs, small = hold_out(folder, share)[0], [], 0
    note_lr_folders(folder, paths)
    broken = describe_broken_links(folder, "left out: %s")
    if broken:
        notice_once(broken)
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
    if small and not photographs:
        raise UserError("%d of the %d photographs below %s are smaller than %d pixels a side, and no other "
                        "can be used: lower --patch (%d LR pixels at x%d), or give larger ones" % (
                            small, len(paths), folder, patch * factor, patch, factor))
    if not photographs:
        raise UserError("no usable photograph below %s: give --data a folder of %s images" % (folder, KINDS))
    return photographs


def describe_data(folder):
    """What config.json says of a folder of photographs or records: its path, and a digest of the names and
    sizes of its files. Raises UserError if there are none."""
    digest = hashlib.sha256()
    paths = list_photographs(folder) or sorted(glob.glob(os.path.join(glob.escape(folder), "*.tfrecord")))
    if not paths:
        raise no_images(folder)
    for path in paths:
        digest.update(os.fsencode("%s %d\n" % (os.path.relpath(path, folder), os.path.getsize(path))))
    return {"folder": folder, "files": len(paths), "sha256_of_names_and_sizes": digest.hexdigest()}


def open_valid(name, held_out, factor, data_dir):
    """{key in the log: (name, (LR, HR) pairs)} of the validation sets.

    They are the data set of this name, if any, and the photographs held out; the last one judges which
    weights are the best. Raises UserError if an image of the data set is too small for PSNR and SSIM, or
    cannot be read; a photograph of which this is so is named and left out, unless it is the last one.
    """
    sets = OrderedDict()
    if name:
        pairs = find_dataset(name, factor, data_dir).pairs
        sets["psnr"] = name, [read_valid(pair, factor) for pair in pairs]
    judged = []
    for path in held_out:
        try:
            judged.append(read_valid(Pair(path, path, None), factor))
        except UserError as error:
            say("left out: %s" % error)
    if held_out and not judged:
        raise UserError("none of the %d photographs that --valid-share holds out can be validated on: give "
                        "another share, or larger photographs" % len(held_out))
    if judged:
        sets["psnr_held_out"] = "held-out photographs", judged
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
