"""Download benchmark images, the authors' weights and DIV2K, each file verified: python tools/data/download.py Set5 Set14

Files come from the authors' public repository at a fixed commit; each gets its final name only after its content was
checked against the git blob id in authors_files.csv. What is there is neither downloaded again nor replaced, so that the
same command goes on where an interrupted one ended. Proxies are taken from the environment (https_proxy, no_proxy).
"""
import argparse
import concurrent.futures
import contextlib
import functools
import http.client
import os
import pathlib
import re
import shutil
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections import OrderedDict, namedtuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from tools.command import UserError, run_main
from tools.files import file_digest, lock_file, read_csv
from utils import BENCHMARKS, download_command

from tqdm import tqdm

AUTHORS_URL = "https://raw.githubusercontent.com/saturnian77/DRSAN/88418748075a05954f561a512db8921e251fd935"
DIV2K_URL = "https://data.vision.ee.ethz.ch/cvl/DIV2K"
MANIFEST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "authors_files.csv")

WEIGHTS = "authors-weights"

Archive = namedtuple("Archive", "size sha256 images")
DIV2K = {  # as published in the checksums of tensorflow/datasets, tensorflow_datasets/url_checksums/div2k.txt
    "DIV2K_train_HR": Archive(3530603713, "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335", 800),
    "DIV2K_valid_HR": Archive(448993893, "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc", 100),
}

WORKERS = 8            # downloads at once
ATTEMPTS = 4           # a file, counted anew after each mebibyte gained
BACKOFF = 1            # seconds before the second attempt, doubled for each further one
TIMEOUT = 30           # seconds without a byte
MIN_RATE = 1000        # bytes/s; slower is a failed attempt
MAX_FILE = 64 << 20    # bytes; the largest file of the manifest has less than a quarter
CHUNK = 1 << 16

# path: in the authors' repository or a copy of it; target: where the file goes; digest: (algorithm, hexadecimal digits)
File = namedtuple("File", "path target digest limit")


# -------------------------------------------------------------------------------------------------------- manifest

@functools.lru_cache(maxsize=1)
def _manifest_rows():
    return read_csv(MANIFEST)


def read_manifest():
    """{path in the authors' repository: git blob id}."""
    return {row["path"]: row["git_blob"] for row in _manifest_rows()}


def megabytes(files):
    """About how many MB the manifest's `files` have together; the size of one of them, a .meta of some 4 MB, is not known."""
    sizes = {row["path"]: int(row["bytes"] or 0) for row in _manifest_rows()}
    return sum(sizes.get(file.path, 0) for file in files) / 1e6


def _manifest_files(pattern, data_dir):
    """The Files with a path of that pattern: psnrtest/ goes to data_dir, ckpt/ to data_dir/authors-weights."""
    folders = {"psnrtest": data_dir, "ckpt": os.path.join(data_dir, WEIGHTS)}
    return [File(path, os.path.join(folders[path.split("/")[0]], *path.split("/")[1:]), ("git blob", blob), MAX_FILE)
            for path, blob in read_manifest().items() if re.match(pattern, path)]


def benchmark_files(name, data_dir, scales=(2, 3, 4)):
    """The published Files of a benchmark data set: HR, and LR for each of `scales`."""
    folders = "|".join(["HR"] + ["x%d" % scale for scale in scales])
    return _manifest_files("psnrtest/(%s)/%s/" % (folders, name), data_dir)


def weight_files(data_dir, model="[^/]+", scale="[^/]+"):
    """The Files of the authors' weights: all 13, or those of a model ("32s") and scale ("x2"), if there are any."""
    return _manifest_files("ckpt/%s/DRSAN_%s/" % (scale, model), data_dir)


def authors_checkpoint(model, scale, data_dir):
    """The prefix of the authors' downloaded and verified checkpoint for "32s", "x2". Raises UserError."""
    files = weight_files(data_dir, model, scale)
    if not files:
        raise UserError("the authors publish no weights for %s at %s" % (model, scale))
    if wrong_files(files):
        raise UserError("the authors' weights for %s %s are not in %s, or not as published: get them with: %s" % (
            model, scale, os.path.dirname(files[0].target), download_command(WEIGHTS, data_dir)))
    return next(file.target[:-len(".index")] for file in files if file.target.endswith(".index"))


# ---------------------------------------------------------------------------------------------------- verification

def is_right(path, digest):
    """Whether there is a readable file with that content; digest: (algorithm, hexadecimal digits)."""
    try:
        return os.path.isfile(path) and file_digest(path, digest[0]) == digest[1]
    except OSError:
        return False


def wrong_files(files):
    """Those of `files` that are missing or not as published."""
    return [file for file in files if not is_right(file.target, file.digest)]


def missing_files(files):
    """Those of `files` that are missing, each once: no two downloads write the same file."""
    return [file for file in OrderedDict.fromkeys(files) if not os.path.lexists(file.target)]


def count_published(dataset, scale):
    """How many files of a benchmark DataSet, as found for `scale`, have the published content, and how many should."""
    right = 0
    for pair in dataset.pairs:
        for folder, path in ("HR", pair.hr), ("x%d" % scale, pair.lr):
            blob = read_manifest().get("psnrtest/%s/%s/%s.png" % (folder, dataset.name, pair.name))
            right += bool(path and blob and is_right(path, ("git blob", blob)))
    return right, len(benchmark_files(dataset.name, "", [scale]))


# -------------------------------------------------------------------------------------------------------- transfer

class _Failed(Exception):
    """One attempt failed; `final`: a further one would fail alike; `wait`: seconds that the server asks to wait."""

    def __init__(self, text, final=False, wait=0):
        Exception.__init__(self, text)
        self.final, self.wait = final, wait


@contextlib.contextmanager
def _network_errors(url):
    """Turn what the network, the server or the mirror does wrong into _Failed; writing is done outside of this."""
    try:
        yield
    except urllib.error.HTTPError as error:
        wait = error.headers.get("Retry-After", "") if error.headers else ""
        raise _Failed("the server answers %d %s" % (error.code, str(error.reason).splitlines()[0].rstrip(".:")),
                      final=error.code < 500 and error.code not in (408, 429),
                      wait=min(int(wait), 60) if wait.isdigit() else 0)
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an address that is none
        reason = getattr(error, "reason", error)
        text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise _Failed(text.splitlines()[0], final=url.startswith("file:") or isinstance(error, ValueError))


def _request(opener, url, start):
    """The response of a server that is asked for what follows the first `start` bytes, or None if nothing does. Raises _Failed."""
    request = urllib.request.Request(url, headers={"User-Agent": "DRSAN"})
    if start:
        request.add_header("Range", "bytes=%d-" % start)
    with _network_errors(url):
        try:
            return opener.open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            if start and error.code == 416:
                return None
            raise


def _receive(opener, url, part, limit, stop, progress):
    """One attempt to bring the file `part` to its full length, from where it ends if the server can. Raises _Failed."""
    start = os.path.getsize(part) if os.path.exists(part) else 0
    response = _request(opener, url, start)
    if response is None:  # its digest tells whether the file is whole
        return
    with contextlib.closing(response):
        if not (start and response.getcode() == 206
                and response.headers.get("Content-Range", "").startswith("bytes %d-" % start)):
            start = 0
        length = response.headers.get("Content-Length", "")
        end = start + int(length) if length.isdigit() else None
        if end is not None and end > limit:
            raise _Failed("%d bytes are offered, at most %d are expected" % (end, limit))
        os.makedirs(os.path.dirname(part), exist_ok=True)  # now, so that no network leaves no folder
        with open(part, "ab" if start else "wb") as out:
            size, began = start, time.monotonic()
            while end is None or size < end:
                if stop.is_set():
                    raise _Failed("stopped", final=True)
                with _network_errors(url):
                    chunk = response.read1(CHUNK)
                if not chunk:
                    break
                size += len(chunk)
                if size > limit:
                    out.truncate(0)
                    raise _Failed("more than the expected %d bytes are sent" % limit)
                out.write(chunk)
                progress(size)
                seconds = time.monotonic() - began
                if seconds > TIMEOUT and size - start < MIN_RATE * seconds:
                    raise _Failed("only %d bytes came in %d seconds" % (size - start, seconds))
    if end is not None and size < end:
        raise _Failed("the connection closed after %d of %d bytes" % (size, end))


def _describe_wrong(part):
    with open(part, "rb") as file:
        start = file.read(512).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page was sent in its place (a proxy's or a log-in page?)"
    return "what was sent, %d bytes, is not the published content" % os.path.getsize(part)


def _fetch(file, base, stop, advice, progress=lambda size: None):
    """Download one File below the URL `base`, with retries; it gets its name once its digest is right.

    What has come is kept in `<target>.part` for the next attempt or the next run. advice: what to do without a network.
    stop: an Event that ends this soon, without the file. progress: called with the number of bytes that are there. Raises UserError.
    """
    opener = urllib.request.build_opener()
    url = base + "/" + urllib.parse.quote(file.path)
    part = file.target + ".part"
    attempt = most = 0
    try:
        while not stop.is_set():
            try:
                _receive(opener, url, part, file.limit, stop, progress)
                if is_right(part, file.digest):
                    os.replace(part, file.target)
                    return
                failure = _Failed(_describe_wrong(part))
                os.remove(part)
            except _Failed as error:
                failure = error
            size = os.path.getsize(part) if os.path.exists(part) else 0
            attempt = 1 if size > most + (1 << 20) else attempt + 1
            most = max(most, size)
            wait = max(failure.wait, BACKOFF * 2 ** (attempt - 1))
            if failure.final or attempt == ATTEMPTS or stop.wait(wait):
                tried = "" if failure.final else " (%d attempts)" % attempt
                raise UserError("cannot get %s: %s%s; the same command goes on from here; without a network, %s"
                                % (url, failure, tried, advice))
    except OSError as error:
        raise UserError("cannot write %s: %s" % (error.filename or part, error.strerror or error))


@contextlib.contextmanager
def _alone_in(folder):
    """Make `folder` and wait until no other process downloads into it."""
    path = os.path.join(folder, ".download.lock")
    try:
        os.makedirs(folder, exist_ok=True)
        try:
            lock = lock_file(path, wait=False)
        except BlockingIOError:
            print("waiting for another download into %s to end" % folder, file=sys.stderr)
            lock = lock_file(path, wait=True)
    except OSError as error:
        raise UserError("cannot write and lock %s: %s" % (error.filename or path, error.strerror))
    with lock:
        yield


def mirror_url(mirror, default):
    """The URL below which files are found: `mirror`, a URL (http, https, file) or a local folder, or else `default`."""
    if not mirror:
        return default
    if re.match("(https?|file)://", mirror):
        return mirror.rstrip("/")
    if not os.path.isdir(mirror):
        raise UserError("the mirror %s is no folder, and no URL that starts with https://, http:// or file://" % mirror)
    return pathlib.Path(mirror).resolve().as_uri()


def _advice(file, data_dir):
    """In words, what to do without a network to have a File of the manifest and those of the same set or model."""
    top, _, name = file.path.split("/")[:3]
    places = os.path.dirname(file.target)
    if top == "psnrtest":
        places = "HR/{0} and x2/{0}, x3/{0}, x4/{0} (or {0}/HR and {0}/LR_bicubic/X2 ...) in {1}".format(name, data_dir)
    return "name a copy of the authors' repository by --mirror, or put the files into %s yourself" % places


def download(files, data_dir, mirror=None):
    """Download those of the manifest's `files` that are missing, WORKERS at once; returns how many these were. What is there,
    as published or not, stays.

    mirror: a URL or folder with a copy of the authors' repository. Raises UserError at the first file that cannot be
    had; what was downloaded until then stays.
    """
    base = mirror_url(mirror, AUTHORS_URL)
    if not missing_files(files):
        return 0
    stop = threading.Event()
    with _alone_in(data_dir), contextlib.ExitStack() as stack:
        files = missing_files(files)  # once more: another process may have been faster
        bar = stack.enter_context(tqdm(total=len(files), unit="file", disable=None))
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(WORKERS))
        stack.callback(stop.set)  # before the pool waits for its threads, so that an error or Ctrl-C ends them soon
        futures = [pool.submit(_fetch, file, base, stop, _advice(file, data_dir)) for file in files]
        for future in concurrent.futures.as_completed(futures):
            future.result()
            bar.update()
    return len(files)


# ----------------------------------------------------------------------------------------------------------- DIV2K

def _unpack(archive, folder):
    """Unpack `<folder's name>/<image>.png` entries, and no other, to `folder`, which appears once it is complete."""
    name = os.path.basename(folder)
    temporary = folder + ".unpacking"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        with zipfile.ZipFile(archive) as file:
            entries = [entry for entry in file.infolist() if entry.filename != name + "/"]
            for entry in entries:
                if not re.match(re.escape(name) + r"/\w+\.png\Z", entry.filename):
                    raise UserError("%s holds %r, which does not belong there: nothing is unpacked"
                                    % (archive, entry.filename))
            os.makedirs(temporary)
            for entry in tqdm(entries, unit="image", desc=name, disable=None):
                target = os.path.join(temporary, os.path.basename(entry.filename))
                with file.open(entry) as source, open(target, "wb") as out:
                    shutil.copyfileobj(source, out)  # checks the archive's CRC-32
        os.rename(temporary, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError("cannot unpack %s: %s" % (archive, error))
    except OSError as error:
        raise UserError("cannot write %s: %s" % (error.filename or temporary, error.strerror or error))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def download_div2k(data_dir, mirror=None, yes=False):
    """Download and unpack DIV2K's HR images to data_dir/DIV2K, after the question whether that much is wanted.

    mirror: a URL or folder with the official archives. The archives are removed after unpacking. Raises UserError.
    """
    base = mirror_url(mirror, DIV2K_URL)
    folder = os.path.join(data_dir, "DIV2K")
    names = [name for name in DIV2K if not os.path.isdir(os.path.join(folder, name))]
    if names:
        sizes = [DIV2K[name].size for name in names]
        print("DIV2K: %s from %s into %s; the disk needs %.1f GB while unpacking, about %.1f GB after" % (
            ", ".join("%s.zip (%.2f GB)" % (name, size / 1e9) for name, size in zip(names, sizes)), base, folder,
            (sum(sizes) + max(sizes)) / 1e9, sum(sizes) / 1e9))
        if not (yes or ask("Download and unpack this?")):
            raise UserError("DIV2K was not downloaded: --yes says yes beforehand")
    with _alone_in(data_dir):
        for name in names:
            size, sha256, _ = DIV2K[name]
            archive = File(name + ".zip", os.path.join(folder, name + ".zip"), ("sha256", sha256), size)
            if not os.path.isdir(os.path.join(folder, name)):  # another process may have been faster
                if not is_right(archive.target, archive.digest):
                    advice = "name a folder with it by --mirror, or put it into %s yourself" % folder
                    with tqdm(total=size, unit="B", unit_scale=True, desc=archive.path, disable=None) as bar:
                        _fetch(archive, base, threading.Event(), advice, lambda size: bar.update(size - bar.n))
                _unpack(archive.target, os.path.join(folder, name))
                os.remove(archive.target)
    for name in DIV2K:
        images = len([file for file in os.listdir(os.path.join(folder, name)) if file.endswith(".png")])
        if images != DIV2K[name].images:
            raise UserError("%s has %d images, not %d: remove the folder and run this again"
                            % (os.path.join(folder, name), images, DIV2K[name].images))


# ----------------------------------------------------------------------------------------------------- command line

def ask(question):
    """Whether the user says yes; without a terminal to ask on, no."""
    if not sys.stdin.isatty():
        return False
    try:
        return input(question + " [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def offer(files, data_dir, mirror=None, yes=False):
    """Download those of the manifest's `files` that are missing, if the user, or `yes` beforehand, says yes.

    Asks nothing, and does nothing, if all are there or there is no terminal to ask on.
    """
    missing = missing_files(files)
    if missing and (yes or ask("Of %d published files, %d are missing in %s. Download about %.3g MB from %s?" % (
            len(files), len(missing), data_dir, megabytes(missing), mirror_url(mirror, AUTHORS_URL)))):
        download(missing, data_dir, mirror)


def add_options(parser):
    """The options that this command and test.py share."""
    parser.add_argument("--mirror", metavar="URL", default=os.environ.get("DRSAN_MIRROR"),
                        help="download from here: a URL or a local folder with a copy of the authors' repository"
                             " (default: environment variable DRSAN_MIRROR, else the authors' repository)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="+", choices=BENCHMARKS + (WEIGHTS, "DIV2K"), metavar="WHAT",
                        help="%s, %s or DIV2K" % (", ".join(BENCHMARKS), WEIGHTS))
    parser.add_argument("--data-dir", default="data", metavar="DIR", help="where the files go (default data)")
    parser.add_argument("--yes", action="store_true", help="do not ask before DIV2K's 4 GB")
    add_options(parser)
    args = parser.parse_args()
    for name in args.what:
        if name == "DIV2K":
            download_div2k(args.data_dir, args.mirror, args.yes)
            print("DIV2K: complete in %s" % os.path.join(args.data_dir, "DIV2K"))
        else:
            files = weight_files(args.data_dir) if name == WEIGHTS else benchmark_files(name, args.data_dir)
            print("%s: %d files, about %.3g MB, from %s" % (
                name, len(files), megabytes(files), mirror_url(args.mirror, AUTHORS_URL)), flush=True)
            count, wrong = download(files, args.data_dir, args.mirror), wrong_files(files)
            if wrong:
                raise UserError("%s: %d files in %s are not as published and stay, the first is %s: remove them, and the same "
                                "command downloads them" % (name, len(wrong), args.data_dir, wrong[0].target))
            print("%s: complete and as published in %s, %d files downloaded" % (name, args.data_dir, count))


if __name__ == "__main__":
    run_main(main)
