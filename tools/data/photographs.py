"""Folders of photographs to train on: which files they have, which of them are held out for validation, and all in memory."""
import functools
import glob
import hashlib
import os
import re
from collections import OrderedDict

from tools.command import UserError, held_notices, notice_once, process_pool
from tools.files import read_csv
from utils import IMAGE_SUFFIXES, Pair, check_size, find_dataset, list_images, read_pair

from tqdm import tqdm


def load_pair(path, factor):
    """((LR, HR) of one photograph, uint8 RGB, or the UserError that says why it cannot be used; the notices held back)."""
    with held_notices() as notices:
        try:
            return read_pair(Pair(path, path, None), factor), notices
        except UserError as error:
            return error, notices


def list_photographs(folder):
    """The paths of all image files below `folder`, sorted."""
    return sorted(path for below in folders_below(folder) for path in list_images(below))


def folders_below(folder):
    """`folder` and all folders below it; links to folders are followed, but each folder is there once."""
    found, waiting, links = OrderedDict(), [folder], []
    while waiting or links:
        path = waiting.pop() if waiting else links.pop(0)  # real folders first, by whose names files are known then
        if found.setdefault(os.path.realpath(path), path) == path and os.path.isdir(path):
            for entry in os.scandir(path):
                if entry.is_dir():
                    (links if entry.is_symlink() else waiting).append(entry.path)
            links.sort()
    return list(found.values())


def photograph_of(folder, paths):
    """{path: photograph} of image files below `folder`: tiles that its manifest.csv says are of one photograph have the same."""
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
            raise UserError("%s is not the manifest of a photo set (%s): remove it, or build the set anew" % (manifest, error))
    return photographs


def hold_out(folder, share):
    """Divide the image files below `folder` into those for training and those for validation, two sorted lists of paths.

    About `share` of the photographs are held out: those whose name, or repository and path, has a SHA-256 below this share of
    all. Of each, validation gets one tile, that in the middle of the list, and training none. Raises UserError if there are none, or
    no photograph is left on one of the sides.
    """
    paths = list_photographs(folder)
    if not paths:
        raise no_images(folder)
    if not share:
        return paths, []
    tiles = {}
    for path, photograph in sorted(photograph_of(folder, paths).items()):
        tiles.setdefault(photograph, []).append(path)
    held = {name for name in tiles if int(hashlib.sha256(os.fsencode(name)).hexdigest()[:8], 16) < share * 16 ** 8}
    if not 0 < len(held) < len(tiles):
        raise UserError("--valid-share %g holds out %d of the %d photographs below %s: give another share, or leave it out" % (
            share, len(held), len(tiles), folder))
    return (sorted(path for name in tiles if name not in held for path in tiles[name]),
            sorted(tiles[name][len(tiles[name]) // 2] for name in held))


def no_images(folder):
    """The UserError for a folder that has nothing to train on."""
    return UserError("no training data below %s: expected %s images" % (
        folder, "/".join(suffix[1:].upper() for suffix in IMAGE_SUFFIXES)))


def note_lr_folders(folder, paths):
    """Note folders that seem to hold the LR images of a data set, which would be trained on as if they were HR."""
    parts = {part for path in paths for part in os.path.dirname(os.path.relpath(path, folder)).split(os.sep)}
    found = sorted(part for part in parts if re.match(r"((.*_)?LR(_.*)?|x[234])\Z", part, re.IGNORECASE))
    if found:
        notice_once("%s holds folders named %s, whose images are trained on as HR, too: name the folder of HR images by --data"
                    % (folder, " ".join(found)))


def load_photographs(folder, factor, patch, workers, share=0):
    """The photographs below `folder` as a list of (LR, HR) in memory, uint8 RGB, LR made by imresize, but for the share that is
    held out.

    Those that cannot be read, or are smaller than a patch (in LR pixels), are named and left out. Raises UserError if none is
    left.
    """
    paths, photographs, small = hold_out(folder, share)[0], [], 0
    note_lr_folders(folder, paths)
    with process_pool(workers) as pool:
        loaded = pool.map(functools.partial(load_pair, factor=factor), paths, chunksize=4)
        for path, (pair, notices) in zip(paths, tqdm(loaded, "reading", len(paths), unit="photo", disable=None)):
            for notice in notices.items():
                notice_once(*notice)
            if isinstance(pair, UserError):
                print("left out: %s" % pair)
            elif min(pair[0].shape[:2]) < patch:
                small += 1
                print("left out: %s is smaller than a patch of %d LR pixels" % (path, patch))
            else:
                photographs.append(pair)
    if small and not photographs:
        raise UserError("%d of the %d photographs below %s are smaller than %d pixels a side, and no other can be used: lower "
                        "--patch (%d LR pixels at x%d), or give larger ones" % (
                            small, len(paths), folder, patch * factor, patch, factor))
    if not photographs:
        raise UserError("no usable photograph below %s: give --data a folder of %s images" % (folder, "/".join(
            suffix[1:].upper() for suffix in IMAGE_SUFFIXES)))
    return photographs


def describe_data(folder):
    """What config.json says of a folder of photographs or records: its path, and a digest of the names and sizes of its files.

    Raises UserError if there are none.
    """
    digest = hashlib.sha256()
    paths = list_photographs(folder) or sorted(glob.glob(os.path.join(glob.escape(folder), "*.tfrecord")))
    if not paths:
        raise no_images(folder)
    for path in paths:
        digest.update(os.fsencode("%s %d\n" % (os.path.relpath(path, folder), os.path.getsize(path))))
    return {"folder": folder, "files": len(paths), "sha256_of_names_and_sizes": digest.hexdigest()}


def open_valid(name, held_out, factor, data_dir):
    """{key in the log: (name, (LR, HR) pairs)} of the validation sets: the data set of this name, if any, and those held out.

    The last of them judges which weights are the best. Raises UserError if an image is too small for PSNR and SSIM.
    """
    sets = OrderedDict([("psnr", (name, find_dataset(name, factor, data_dir).pairs))] if name else [])
    if held_out:
        sets["psnr_held_out"] = "held-out photographs", [Pair(path, path, None) for path in held_out]
    for key, (name, pairs) in sets.items():
        sets[key] = name, [read_pair(pair, factor) for pair in pairs]
        for _, hr in sets[key][1]:
            check_size(hr, factor)
    return sets
