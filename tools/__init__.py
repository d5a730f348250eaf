"""Rooms of libraries and commands: see README.md.

Importing this checks the Python, the packages that everything needs, and that the modules of this project are
found. What is wrong is one line. The modules of this project are therefore imported before those of others.
"""
import importlib.util
import os
import signal
import sys

INSTALL = "pip install -r requirements.txt (tensorflow-gpu 1.8 needs CUDA 9; README.md names the other way)"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # the top folder of the project
SCRIPTS = tuple(os.path.join(ROOT, name) for name in ("train.py", "test.py", "tools" + os.sep))
IS_COMMAND = os.path.abspath(getattr(sys.modules["__main__"], "__file__", "")).startswith(SCRIPTS)


def _fail(message):
    """End a command of this project; raise ImportError in a program of other people's."""
    if IS_COMMAND:
        sys.exit("error: " + message)
    raise ImportError(message)


if IS_COMMAND and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until run_main(): Ctrl-C during imports has no traceback

if sys.version_info[:2] != (3, 6) and sys.version_info < (3, 9):
    _fail("DRSAN runs on Python 3.6, and on 3.9 or later; this is %d.%d: README.md says how to install both"
          % sys.version_info[:2])
for package in "numpy", "scipy", "PIL", "tqdm":
    if importlib.util.find_spec(package) is None:
        _fail("the package %s is not installed: %s" % (package, INSTALL))
for module in "model", "ops", "utils":
    found = importlib.util.find_spec(module)
    if not found or os.path.dirname(os.path.abspath(found.origin or "")) != ROOT:
        _fail("the module %s is %s, not DRSAN's: put %s first in sys.path, or rename that module" % (
            module, found.origin if found else "not found", ROOT))
