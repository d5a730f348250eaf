"""What every command has in common: errors, exit statuses, types of options, lines it prints, processors."""
import concurrent.futures
import contextlib
import errno
import io
import os
import signal
import sys
import tempfile
import threading

from tools import INSTALL

from tqdm import tqdm


class UserError(Exception):
    """Something the user can mend; the message says in one line what is wrong, where, and what to do."""


def open_standard_files():
    """Give stdin, stdout and stderr a file where they have been closed (2>&-), or else the next file that is
    opened would get what is printed, or printing would fail."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", errors="backslashreplace"))


open_standard_files()  # before anything prints
_streams = []  # made on Python 3.6: one that is forgotten closes the file below it
owns_process = False  # whether this process is a command's, not a program of other people's


def escape_unprintable():
    """Print what the encoding of stdout or stderr does not have, as names of files, with escapes."""
    for name in "stdout", "stderr":
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        elif hasattr(stream, "buffer") and stream.errors != "backslashreplace":  # Python 3.6
            stream.flush()
            _streams.append(io.TextIOWrapper(stream.buffer, stream.encoding, "backslashreplace",
                                             line_buffering=True))
            setattr(sys, name, _streams[-1])


def run_main(main):
    """Call main() as a command: a UserError, and what the system refuses (a full disk, a folder that is
    gone), becomes one line on stderr and exit status 1, Ctrl-C exit status 130."""
    global owns_process
    owns_process = True
    escape_unprintable()
    try:
        if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(main())
    except (KeyboardInterrupt, Exception) as error:
        if _follows_interrupt(error):
            print("stopped", file=sys.stderr)
            sys.exit(130)
        if not isinstance(error, (UserError, OSError, ImportError)):
            raise
        print("error: %s" % describe(error), file=sys.stderr)
        sys.exit(1)


def _follows_interrupt(error):
    """Whether Ctrl-C caused this: a library that it interrupts, as TensorFlow 1.8, can fail on cleanup."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def describe(error):
    """An error in one line: what is wrong, with the file that it is about, or what to install."""
    reason = str(error)
    if isinstance(error, ImportError):
        reason = reason.strip().splitlines()[-1]
        return reason if INSTALL in reason else "%s: %s" % (reason, INSTALL)
    if not isinstance(error, OSError):
        return reason
    reason = error.strerror or reason
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
        return "cannot write %s: %s" % (error.filename or "a file", reason)
    return "%s: %s" % (error.filename, reason) if error.filename else reason


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


_noticed, _noticing = set(), threading.Lock()


def notice_once(text, where=None):
    """Print a note on stderr, if there has been none of this text; where: one of the files it is about."""
    with _noticing:
        first = text not in _noticed
        _noticed.add(text)
    if first:
        print("note: %s%s" % (text, " (first seen in %s)" % where if where else ""), file=sys.stderr)


def say(text):
    """Print a line of a training, above its progress bar if there is one. Where nothing reads it any more, as
    after `| head` or in a lost terminal, this is noted once, and printing ends, not the training."""
    try:
        tqdm.write(text)
        sys.stdout.flush()
    except OSError as error:
        silence = os.open(os.devnull, os.O_WRONLY)
        for number in [1, 2] if os.path.sameopenfile(1, 2) else [1]:
            os.dup2(silence, number)
        notice_once("cannot print (%s): the training goes on, and log.jsonl has its lines" % error.strerror)


@contextlib.contextmanager
def quiet_stderr():
    """Drop what is written to the file descriptor of stderr: libraries in C and C++, as TensorFlow on import,
    write lines there that no setting turns off. An exception still says what it says."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as dropped:
        os.dup2(dropped.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def cpu_count():
    """The processors that this process may use; `taskset` and schedulers can leave it fewer than all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def process_pool(workers):
    """A pool of processes; Windows can wait for no more than 61."""
    return concurrent.futures.ProcessPoolExecutor(min(workers, 61) if os.name == "nt" else workers)
