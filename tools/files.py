"""Files that are whole at any time, written under a temporary name and renamed; locks, digests, JSON, CSV."""
import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import tempfile
import uuid

from tools import ROOT
from tools.command import UserError

import numpy as np

try:
    import fcntl
except ImportError:  # Windows, where two processes that write to one folder at once are not kept apart
    fcntl = None

LONGEST_NAME = 255  # bytes of the name of a file, on all usual file systems


@contextlib.contextmanager
def replacing(path):
    """A temporary name beside `path`: what is written there within this context is renamed to `path` at its
    end, and removed if the context ends by an exception, so that `path` is whole at any time.

    The name is another one for each call: that of `path`, a dot, eight hexadecimal digits and .tmp. A process
    that is killed leaves it. What the system refuses becomes a UserError that names `path`.
    """
    folder, name = os.path.split(path)
    end = ".%s.tmp" % uuid.uuid4().hex[:8]
    while len(os.fsencode(name + end)) > LONGEST_NAME:
        name = name[:-1]
    temporary = os.path.join(folder, name + end)
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise UserError("cannot write %s: %s" % (path, error.strerror or error))
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def check_writable(folders=(), files=()):
    """Raise UserError unless these folders can be made and these files written, None left out; nothing of it
    is kept. To be called before the work whose results a read-only or full target would lose."""
    for path in filter(None, [*folders, *files]):
        folder = os.path.abspath(path if path in folders else os.path.dirname(path))
        while not os.path.lexists(folder):
            folder = os.path.dirname(folder)
        try:
            if path in files and os.path.isdir(path):
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(bytes(4096))  # a full disk still takes names
        except OSError as error:
            raise UserError("cannot write %s: %s" % (path, error.strerror))


def short_path(path):
    """A path as it is shown: relative to the current folder, or absolute if that is shorter or on another
    drive."""
    absolute = os.path.abspath(path)
    try:
        return min(os.path.relpath(path), absolute, key=len)
    except ValueError:
        return absolute


def script(path):
    """A script or folder of the project, named from its top, as it is called from the current folder."""
    return short_path(os.path.join(ROOT, *path.split("/")))


def to_json(value, **options):
    """A value as a text of JSON, with null for infinities and NaN, which JSON does not have; options: of
    json.dumps()."""
    value = json.loads(json.dumps(value), parse_constant=lambda name: None)
    return json.dumps(value, sort_keys=True, **options)


def read_json(path, advice):
    """The dict in a file of JSON, {} without the file. Raises UserError, which ends with advice, if there is
    none in it."""
    try:
        with open(path) as file:
            return dict(json.load(file))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise UserError("cannot read %s: %s; %s" % (path, error, advice))


def write_json(path, value):
    """Write a value as JSON (see to_json), all or nothing."""
    with replacing(path) as temporary, open(temporary, "w") as file:
        file.write(to_json(value, indent=1) + "\n")


def write_npz(path, arrays):
    """Write a dict of arrays, all or nothing."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def file_digest(path, algorithm="sha256"):
    """Hexadecimal digits of a file: of hashlib's `algorithm`, or "git blob", the SHA-1 of "blob <size>\\0"
    and the content."""
    is_blob = algorithm == "git blob"
    digest = hashlib.sha1(b"blob %d\0" % os.path.getsize(path)) if is_blob else hashlib.new(algorithm)
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(folder, doing, option):
    """Within this context no other process does the same in the folder, which is made if it is not there.

    doing: in words, as "trains in"; option: that names another folder. Raises UserError if another process
    has it already.
    """
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, ".lock"), "w") as file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError("another process %s %s: wait for it, or give another %s"
                            % (doing, folder, option))
        yield


# ----------------------------------------------------------------------------------------------------- CSV

# names of files that are no Unicode are kept as Python's surrogateescape has them
ENCODING = dict(encoding="utf-8", errors="surrogateescape", newline="")


def read_csv(path):
    """The rows of a CSV file as dicts of text. Raises UserError if it cannot be read."""
    try:
        with open(path, **ENCODING) as file:
            return list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError("cannot read %s: %s" % (path, error))


def to_csv(rows):
    """Rows of cells as the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_text(path, text):
    """Write a text file, all or nothing. Raises UserError."""
    with replacing(path) as temporary, open(temporary, "w", **ENCODING) as file:
        file.write(text)


class CsvLog(object):
    """A CSV file that grows by rows and is whole at any moment; the first one replaces what was there."""

    def __init__(self, path, fields):
        """fields: the names at the top."""
        self.path, self.rows = path, [fields]

    def add(self, row):
        """Write a row of cells. Raises UserError, and leaves the rows before it, if that is not possible."""
        write_text(self.path, to_csv(self.rows + [row]))
        self.rows.append(row)
