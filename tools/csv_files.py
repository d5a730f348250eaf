"""CSV files with a line of names at the top, in UTF-8: read, written whole, or row by row as rows come to be known.

Names of files that are no Unicode are kept as Python's surrogateescape has them.
"""
import csv
import io
import os

from utils import UserError, replacing

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
    try:
        with replacing(path) as temporary, open(temporary, "w", **ENCODING) as file:
            file.write(text)
    except OSError as error:
        raise UserError("cannot write %s: %s" % (path, error.strerror))


class CsvLog(object):
    """A CSV file that grows by rows and is complete and valid at any moment.

    The first row replaces what `path` held before. fields: the names at the top.
    """

    def __init__(self, path, fields):
        self.path, self.fields, self.begun = path, fields, False

    def add(self, row):
        """Write a row of cells. Raises UserError, and leaves the rows before it, if that is not possible."""
        if not self.begun:
            write_text(self.path, to_csv([self.fields, row]))
            self.begun = True
            return
        size = os.path.getsize(self.path)
        try:
            with open(self.path, "a", **ENCODING) as file:
                file.write(to_csv([row]))
        except OSError as error:
            os.truncate(self.path, size)
            raise UserError("cannot write %s: %s" % (self.path, error.strerror))
