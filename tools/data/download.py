"""Download what is published, each file verified: python tools/data/download.py Set5 Set14 authors-weights

Benchmark images and the authors' weights come from their public repository at a fixed commit, DIV2K from its
site. Each file gets its final name only after its content was checked against a digest: the git blob id in
authors_files.csv. What is there is neither downloaded again nor replaced, so that the same command goes on
where an interrupted one ended. Proxies are taken from the environment.
"""
import argparse
import concurrent.futures
import contextlib
import functools
import http.client
import os
import pathlib
import re
import sys
import threading
import urllib.parse
import urllib.request
import zipfile
from collections import OrderedDict, namedtuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from tools.command import UserError, run_main
from tools.files import file_digest, locked, read_csv
from utils import BENCHMARKS, download_command

from tqdm import tqdm

AUTHORS_URL = "https://raw.githubusercontent.com/saturnian77/DRSAN/88418748075a05954f561a512db8921e251fd935"
MANIFEST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "authors_files.csv")
WEIGHTS = "authors-weights"
DIV2K_URL = "https://data.vision.ee.ethz.ch/cvl/DIV2K"
DIV2K = {  # bytes and SHA-256, as in tensorflow/datasets, tensorflow_datasets/url_checksums/div2k.txt
    "DIV2K_train_HR": (3530603713, "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335"),
    "DIV2K_valid_HR": (448993893, "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc"),
}

WORKERS = 8          # downloads at once
ATTEMPTS = 4         # without another mebibyte
BACKOFF = 1          # seconds before the second attempt, doubled for each further one
TIMEOUT = 30         # seconds without a byte
MAX_FILE = 64 << 20  # bytes of a file whose size is not known

# path: in the source; target: where it goes; digest: algorithm, hexadecimal digits; size: bytes, 0: unknown
File = namedtuple("File", "path target digest size")


@functools.lru_cache(maxsize=1)
def read_manifest():
    """{path in the authors' repository: (git blob id, bytes, 0 if unknown)}."""
    return {row["path"]: (row["git_blob"], int(row["bytes"] or 0)) for row in read_csv(MANIFEST)}


def _manifest_files(pattern, folder):
    """The Files with a path of that pattern, which go below a folder."""
    return [File(path, os.path.join(folder, *path.split("/")[1:]), ("git blob", blob), size)
            for path, (blob, size) in read_manifest().items() if re.match(pattern, path)]


def benchmark_files(name, data_dir, scales=(2, 3, 4)):
    """The published Files of a benchmark data set: HR, and LR for each of `scales`."""
    folders = "|".join(["HR"] + ["x%d" % scale for scale in scales])
    return _manifest_files("psnrtest/(%s)/%s/" % (folders, name), data_dir)


def weight_files(data_dir, model="[^/]+", scale="[^/]+"):
    """The Files of the authors' weights: all 13, or those of a model ("32s") and scale ("x2"), if any."""
    return _manifest_files("ckpt/%s/DRSAN_%s/" % (scale, model), os.path.join(data_dir, WEIGHTS))


def authors_checkpoint(model, scale, data_dir):
    """The prefix of the authors' downloaded and verified checkpoint for "32s", "x2". Raises UserError."""
    files = weight_files(data_dir, model, scale)
    if not files:
        raise UserError("the authors publish no weights for %s at %s" % (model, scale))
    if wrong_files(files):
        folder, command = os.path.dirname(files[0].target), download_command(WEIGHTS, data_dir)
        raise UserError("the authors' weights for %s %s are not in %s, or not as published: get them with: %s"
                        % (model, scale, folder, command))
    return next(file.target[:-len(".index")] for file in files if file.target.endswith(".index"))


def count_published(dataset, scale):
    """How many files of a benchmark DataSet, as found for `scale`, have the published content, and how many
    should."""
    blobs, right = {path: blob for path, (blob, _) in read_manifest().items()}, 0
    for pair in dataset.pairs:
        for folder, path in ("HR", pair.hr), ("x%d" % scale, pair.lr):
            blob = blobs.get("psnrtest/%s/%s/%s.png" % (folder, dataset.name, pair.name))
            right += bool(path and is_right(path, ("git blob", blob)))
    return right, len(benchmark_files(dataset.name, "", [scale]))


def is_right(path, digest):
    """Whether there is a readable file with that content; digest: (algorithm, hexadecimal digits)."""
    with contextlib.suppress(OSError):
        return os.path.isfile(path) and file_digest(path, digest[0]) == digest[1]
    return False


def wrong_files(files):
    """Those of `files` that are missing or not as published."""
    return [file for file in files if not is_right(file.target, file.digest)]


def missing_files(files):
    """Those of `files` that are missing, each once: no two downloads write the same file."""
    return [file for file in OrderedDict.fromkeys(files) if not os.path.lexists(file.target)]


def megabytes(files):
    """About how many MB the `files` have together; the size of a .meta, of some 4 MB, is unknown."""
    return sum(file.size for file in files) / 1e6


class _Failed(Exception):
    """One attempt failed, by the network, the server or the mirror."""


def _receive(url, start):
    """Ask for what follows the first `start` bytes of a file: yields from which byte the answer begins, then
    its bytes in pieces. Raises _Failed."""
    headers = {"User-Agent": "DRSAN", **({"Range": "bytes=%d-" % start} if start else {})}
    try:
        request = urllib.request.Request(url, headers=headers)
        with contextlib.closing(urllib.request.build_opener().open(request, timeout=TIMEOUT)) as answer:
            size = start if answer.headers.get("Content-Range", "").startswith("bytes %d-" % start) else 0
            end = size + int(answer.headers.get("Content-Length") or 0)
            yield size
            for piece in iter(lambda: answer.read1(1 << 16), b""):
                size += len(piece)
                yield piece
            if size < end:
                raise _Failed("the connection closed after %d of %d bytes" % (size, end))
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an address that is none
        if not start or getattr(error, "code", None) != 416:
            raise _Failed((str(error) or type(error).__name__).splitlines()[0])
        yield start  # there is no more: the digest tells if it is whole


def _attempt(file, url, stop, progress):
    """Bring `<target>.part` to its full length, from where it ends if the server can, and give it its name.
    Raises _Failed, and OSError for what the disk refuses."""
    part = file.target + ".part"
    pieces = _receive(url, _size(part))
    size = next(pieces)
    os.makedirs(os.path.dirname(part), exist_ok=True)  # now, so that no network leaves no folder
    with open(part, "ab" if size else "wb") as out:
        for piece in pieces:
            size += out.write(piece)
            progress(len(piece))
            if stop.is_set():
                return
            if size > (file.size or MAX_FILE):
                break  # it is wrong, however much is still to come
    if not is_right(part, file.digest):
        os.remove(part)
        raise _Failed("what was sent, %d bytes, is not the published content (a proxy's page?)" % size)
    os.replace(part, file.target)


def _size(path):
    return os.path.getsize(path) if os.path.exists(path) else 0


def _fetch(file, base, stop, progress):
    """Download one File below the URL `base`, with retries; what has come is kept for the next run. stop: an
    Event that ends this soon, without the file. progress: called with the number of bytes that came. Raises
    UserError."""
    url, part = base + "/" + urllib.parse.quote(file.path), file.target + ".part"
    attempt = most = 0
    while not stop.is_set():
        try:
            return _attempt(file, url, stop, progress)
        except _Failed as error:
            reason = error
        except OSError as error:
            raise UserError("cannot write %s: %s" % (error.filename or part, error.strerror or error))
        attempt = 1 if _size(part) > most + (1 << 20) else attempt + 1
        most = max(most, _size(part))
        if attempt == ATTEMPTS or stop.wait(BACKOFF * 2 ** (attempt - 1)):
            raise UserError("cannot get %s: %s (%d attempts); the same command goes on from here; without a "
                            "network, name a copy of the source by --mirror, or put the files into %s" % (
                                url, reason, attempt, os.path.dirname(file.target)))


def mirror_url(mirror, default):
    """The URL below which files are: `mirror`, a URL or folder, or else `default`. Raises UserError."""
    if not mirror:
        return default
    if re.match("(https?|file)://", mirror):
        return mirror.rstrip("/")
    if not os.path.isdir(mirror):
        raise UserError("the mirror %s is no folder, and no URL that starts with https://, http:// or file://"
                        % mirror)
    return pathlib.Path(mirror).resolve().as_uri()


def download(files, data_dir, mirror=None, source=AUTHORS_URL):
    """Download those of the `files` that are missing, WORKERS at once; returns how many these were. What is
    there, as published or not, stays.

    mirror: a URL or folder with a copy of the source. Raises UserError at the first file that cannot be had,
    or if another process downloads into data_dir; what was downloaded until then stays.
    """
    base, stop, files = mirror_url(mirror, source), threading.Event(), missing_files(files)
    if not files:
        return 0
    with locked(data_dir, "downloads into", "--data-dir"), contextlib.ExitStack() as stack:
        total = sum(file.size for file in files)
        bar = stack.enter_context(tqdm(total=total, unit="B", unit_scale=True, disable=None))
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(WORKERS))
        stack.callback(stop.set)  # first, so that an error or Ctrl-C ends the threads soon
        futures = [pool.submit(_fetch, file, base, stop, bar.update) for file in files]
        for future in concurrent.futures.as_completed(futures):
            future.result()
    return len(files)


def download_div2k(data_dir, mirror=None, yes=False):
    """Download DIV2K's HR images to data_dir/DIV2K, after asking whether that much is wanted, and unpack
    them. mirror: a URL or folder with the official archives. Raises UserError."""
    folder = os.path.join(data_dir, "DIV2K")
    archives = [File(name + ".zip", os.path.join(folder, name + ".zip"), ("sha256", sha256), size)
                for name, (size, sha256) in DIV2K.items() if not os.path.isdir(os.path.join(folder, name))]
    if archives:
        gigabytes = [archive.size / 1e9 for archive in archives]
        print("DIV2K: %s from %s into %s: %.2f GB; the disk needs %.1f GB while unpacking" % (
            " ".join(archive.path for archive in archives), mirror_url(mirror, DIV2K_URL), folder,
            sum(gigabytes), sum(gigabytes) + max(gigabytes)))
        if not (yes or ask("Download and unpack this?")):
            raise UserError("DIV2K was not downloaded: --yes says yes beforehand")
    download(archives, data_dir, mirror, DIV2K_URL)
    for archive in archives:
        if wrong_files([archive]):
            raise UserError("%s is not the published archive: remove it" % archive.target)
        temporary, name = archive.target + ".unpacking", archive.path[:-len(".zip")]
        with zipfile.ZipFile(archive.target) as file:
            for entry in tqdm(file.namelist(), unit="image", desc=name, disable=None):
                file.extract(entry, temporary)
        os.rename(os.path.join(temporary, name), os.path.join(folder, name))  # once it is complete
        os.rmdir(temporary)
        os.remove(archive.target)


def ask(question):
    """Whether the user says yes; without a terminal to ask on, no."""
    with contextlib.suppress(EOFError):
        return sys.stdin.isatty() and input(question + " [y/N] ").strip().lower() in ("y", "yes")
    return False


def offer(files, data_dir, mirror=None, yes=False):
    """Download those of the authors' `files` that are missing, if the user, or `yes` beforehand, says yes.
    Asks nothing if all are there or there is no terminal to ask on."""
    missing = missing_files(files)
    question = "Of %d published files, %d are missing in %s. Download about %.3g MB from %s?"
    if missing and (yes or ask(question % (
            len(files), len(missing), data_dir, megabytes(missing), mirror_url(mirror, AUTHORS_URL)))):
        download(missing, data_dir, mirror)


def add_options(parser):
    """The option that this command and test.py share."""
    parser.add_argument("--mirror", metavar="URL", default=os.environ.get("DRSAN_MIRROR"),
                        help="download from here: a URL or a folder with a copy of the authors' repository "
                        "(default: the environment variable DRSAN_MIRROR, or that repository itself)")


def main(argv=None):
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", nargs="+", choices=BENCHMARKS + (WEIGHTS, "DIV2K"), metavar="WHAT",
                        help="%s, %s or DIV2K" % (", ".join(BENCHMARKS), WEIGHTS))
    parser.add_argument("--data-dir", default="data", metavar="DIR", help="where the files go (default data)")
    parser.add_argument("--yes", action="store_true", help="do not ask before DIV2K's 4 GB")
    add_options(parser)
    args = parser.parse_args(argv)
    for name in args.what:
        if name == "DIV2K":
            download_div2k(args.data_dir, args.mirror, args.yes)
            print("DIV2K: complete in %s" % os.path.join(args.data_dir, "DIV2K"))
            continue
        files = weight_files(args.data_dir) if name == WEIGHTS else benchmark_files(name, args.data_dir)
        print("%s: %d files, about %.3g MB, from %s" % (
            name, len(files), megabytes(files), mirror_url(args.mirror, AUTHORS_URL)), flush=True)
        count, wrong = download(files, args.data_dir, args.mirror), wrong_files(files)
        if wrong:
            raise UserError("%s: %d files in %s are not as published and stay, the first is %s: remove them, "
                            "and the same command downloads them" % (
                                name, len(wrong), args.data_dir, wrong[0].target))
        print("%s: complete and as published in %s, %d files downloaded" % (name, args.data_dir, count))


if __name__ == "__main__":
    run_main(main)
