"""Rooms of libraries and commands: see README.md.

Importing this checks the Python and the packages that everything needs, so that what is missing is one line: the modules of this
project are therefore imported before those of others.
"""
import importlib.util
import sys

INSTALL = "pip install -r requirements.txt (tensorflow-gpu 1.8 needs CUDA 9; README.md names the other way)"

if sys.version_info[:2] != (3, 6) and sys.version_info < (3, 9):
    sys.exit("error: DRSAN runs on Python 3.6, and on 3.9 or later; this is %d.%d: README.md says how to install both"
             % sys.version_info[:2])
for package in "numpy", "scipy", "PIL", "tqdm":
    if importlib.util.find_spec(package) is None:
        sys.exit("error: the package %s is not installed: %s" % (package, INSTALL))
