import importlib

from tools.command import UserError


def require_jax():
    """Raise UserError if JAX is not there; the commands import it after their options are read, so that --help needs none."""
    try:
        importlib.import_module("jax")
    except ImportError as error:
        raise UserError("JAX is needed: pip install jax (Python 3.11 or later): %s" % error)
