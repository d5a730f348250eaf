"""Types of options, and options, that several commands have."""
import os

from tools.files import script


def positive(kind):
    """The type of an option that takes a positive number of this kind."""
    return _bounded(kind, "positive", lambda number: number > 0)


def not_negative(kind):
    """The type of an option that takes zero or a positive number of this kind."""
    return _bounded(kind, "not negative", lambda number: number >= 0)


def fraction(kind):
    """The type of an option that takes a number of this kind from 0 to below 1."""
    return _bounded(kind, "fraction", lambda number: 0 <= number < 1)


def _bounded(kind, words, accepts):
    def convert(text):
        if not accepts(kind(text)):
            raise ValueError(text)
        return kind(text)
    convert.__name__ = "%s %s" % (words, kind.__name__)
    return convert


def add_data_dir(parser):
    """The option --data-dir of commands that read data sets."""
    parser.add_argument("--data-dir", metavar="DIR", default="data" if os.path.isdir("data") else script("data"),
                        help="where the data sets are (default: the folder data here or, without one, beside the scripts)")
