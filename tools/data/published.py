"""What the authors publish: benchmark images and weights, at a fixed commit, with the digest of each file."""
import contextlib
import functools
import os
import re
from collections import namedtuple

from tools.command import UserError
from tools.files import file_digest, read_csv
from utils import download_command

MANIFEST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "authors_files.csv")
WEIGHTS = "authors-weights"

# path: in the source; target: where it goes; digest: algorithm, hexadecimal digits; size: bytes, 0: unknown
File = namedtuple("File", "path target digest size")


@functools.lru_cache(maxsize=1)
def read_manifest():
    """{path in the authors' repository: (git blob id, bytes, 0 if unknown)}."""
    return {row["path"]: (row["git_blob"], int(row["bytes"] or 0)) for row in read_csv(MANIFEST)}


def megabytes(files):
    """About how many MB the `files` have together; the size of one of the manifest, a .meta of some 4 MB, is
    unknown."""
    return sum(file.size for file in files) / 1e6


def _manifest_files(pattern, data_dir):
    """The Files with a path of that pattern: psnrtest/ goes to data_dir, ckpt/ to
    data_dir/authors-weights."""
    folders, files = {"psnrtest": data_dir, "ckpt": os.path.join(data_dir, WEIGHTS)}, []
    for path, (blob, size) in read_manifest().items():
        if re.match(pattern, path):
            top, *below = path.split("/")
            files.append(File(path, os.path.join(folders[top], *below), ("git blob", blob), size))
    return files


def benchmark_files(name, data_dir, scales=(2, 3, 4)):
    """The published Files of a benchmark data set: HR, and LR for each of `scales`."""
    folders = "|".join(["HR"] + ["x%d" % scale for scale in scales])
    return _manifest_files("psnrtest/(%s)/%s/" % (folders, name), data_dir)


def weight_files(data_dir, model="[^/]+", scale="[^/]+"):
    """The Files of the authors' weights: all 13, or those of a model ("32s") and scale ("x2"), if there are
    any."""
    return _manifest_files("ckpt/%s/DRSAN_%s/" % (scale, model), data_dir)


def authors_checkpoint(model, scale, data_dir):
    """The prefix of the authors' downloaded and verified checkpoint for "32s", "x2". Raises UserError."""
    files = weight_files(data_dir, model, scale)
    if not files:
        raise UserError("the authors publish no weights for %s at %s" % (model, scale))
    if wrong_files(files):
        raise UserError("the authors' weights for %s %s are not in %s, or not as published: get them "
                        "with: %s" % (model, scale, os.path.dirname(files[0].target),
                                      download_command(WEIGHTS, data_dir)))
    return next(file.target[:-len(".index")] for file in files if file.target.endswith(".index"))


def is_right(path, digest):
    """Whether there is a readable file with that content; digest: (algorithm, hexadecimal digits)."""
    with contextlib.suppress(OSError):
        return os.path.isfile(path) and file_digest(path, digest[0]) == digest[1]
    return False


def wrong_files(files):
    """Those of `files` that are missing or not as published."""
    return [file for file in files if not is_right(file.target, file.digest)]


def count_published(dataset, scale):
    """How many files of a benchmark DataSet, as found for `scale`, have the published content, and how many
    should."""
    right, manifest = 0, read_manifest()
    for pair in dataset.pairs:
        for folder, path in ("HR", pair.hr), ("x%d" % scale, pair.lr):
            blob = manifest.get("psnrtest/%s/%s/%s.png" % (folder, dataset.name, pair.name), [None])[0]
            right += bool(path and blob and is_right(path, ("git blob", blob)))
    return right, len(benchmark_files(dataset.name, "", [scale]))
