"""A plan: an ordered list of trainings, what each starts from, and its share of the time. No framework is needed to read one.

How a plan is carried out stands in plan_run.py.
"""
import json
import os
from collections import namedtuple

from tools.command import UserError
from tools.training.recipes import RECIPE_OPTIONS, make_recipe

PRECISIONS = "float32", "tf32", "bfloat16"  # of convolutions; what each means to JAX stands in training.py
SCRATCH = "scratch"

# share: of the time, in any unit; start: SCRATCH, the name of an earlier entry, or the path of a checkpoint; changes: {key: value}
# of what differs from the recipe `fast`; precision: one of PRECISIONS, or None for that which is measured to be the fastest
Entry = namedtuple("Entry", "name model scale share start changes precision")
REQUIRED = "name", "model", "scale", "share", "start"
NOT_IN_PLANS = "steps", "schedule"  # a training ends, with a rate of 0, when its time does


def _recipe_value(key, value):
    """A value of a Recipe from JSON. Raises ValueError."""
    kind = RECIPE_OPTIONS[key][0]
    return kind[kind.index(value)] if isinstance(kind, tuple) else kind(str(value))


def _read_entry(value, earlier):
    """The Entry of one value of a plan; earlier: the names of those before it. Raises ValueError, KeyError or TypeError."""
    known = [key for key in RECIPE_OPTIONS if key not in NOT_IN_PLANS]
    name, model, scale, share, start = [value[key] for key in REQUIRED]
    unknown = set(value) - set(REQUIRED) - set(known) - {"precision"}
    if unknown:
        raise ValueError("unknown key %s: expected %s" % (min(unknown), ", ".join(list(REQUIRED) + known + ["precision"])))
    if name in earlier or name != os.path.basename(name) or not name:
        raise ValueError("the name %r is not new, or no name of a file" % name)
    if not share > 0:
        raise ValueError("a share of %r is no part of the time" % share)
    if start != SCRATCH and start not in earlier and os.sep not in start:
        raise ValueError("it starts from %s, which is no earlier training of the plan, no path of a checkpoint and not %s" % (
            start, SCRATCH))
    precision = value.get("precision")
    if precision not in (None,) + PRECISIONS:
        raise ValueError("unknown precision %s: expected %s" % (precision, ", ".join(PRECISIONS)))
    changes = {key: _recipe_value(key, value[key]) for key in known if key in value}
    return Entry(name, model, scale, share, start, changes, precision)


def read_plan(path):
    """The Entries of a plan, a JSON list in the order of training. Raises UserError that names what is wrong with it."""
    try:
        with open(path) as file:
            values = json.load(file)
        if not isinstance(values, list) or not values:
            raise ValueError("expected a list of trainings")
    except (OSError, ValueError) as error:
        raise UserError("cannot read the plan %s: %s" % (path, error))
    entries = []
    for number, value in enumerate(values, 1):
        try:
            entries.append(_read_entry(value, [entry.name for entry in entries]))
        except KeyError as error:
            raise UserError("training %d of the plan %s has no %s" % (number, path, error))
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError("training %d of the plan %s: %s" % (number, path, error))
    return entries


def recipe_of(entry, pinned, measured):
    """The Recipe of an Entry: `fast`, then what was measured, then what the plan changes, then what the command pins.

    pinned, measured: {key: value} of a Recipe. The number of its steps is not known: 0.
    """
    recipe = make_recipe("fast", entry.model, entry.scale)._replace(steps=0)
    for changes in measured, entry.changes, pinned:
        recipe = recipe._replace(**changes)
    return recipe


def graph_path(folder, entry):
    """Where prepare.py puts the graph of an Entry."""
    return os.path.join(folder, "%s_%s.json" % (entry.model, entry.scale))


def start_path(folder, start):
    """Where prepare.py puts the weights of a checkpoint that trainings start from."""
    return os.path.join(folder, "start_%s.npz" % os.path.normpath(start).strip(os.sep).replace(os.sep, "_"))


def time_for(entry, left, seconds):
    """How many of the seconds that are left this Entry gets, of those that are `left`, itself included."""
    return max(0, seconds) * entry.share / sum(one.share for one in left)
