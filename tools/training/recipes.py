"""Recipes of training, for any framework: their options, learning rates, Muon's update, initial weights."""
import collections

from tools.command import fraction, not_negative, positive

import numpy as np

OPTIMIZERS = ("adam", "muon")
# the values of a Recipe: their type, or what they can be, and their meaning
RECIPE_OPTIONS = collections.OrderedDict((
    ("rate", (positive(float), "start of the learning rate")),
    ("schedule", (("halve", "cosine"), "how the learning rate falls")),
    ("warmup", (not_negative(int), "steps in which the learning rate rises to its start")),
    ("steps", (positive(int), "how many")),
    ("batch", (positive(int), "patches a step")),
    ("patch", (positive(int), "side of the LR patches in pixels")),
    ("candidates", (positive(int), "the patch with the most detail of so many random ones is taken")),
    ("textures", (fraction(float),
                  "share of the patches that become hard textures, as dithered ones, 0 for none")),
    ("ema", (fraction(float), "decay of the average of weights, below 1, 0 for none")),
    ("optimizer", (OPTIMIZERS, "muon is for the kernels between features; adam updates the rest")),
    ("decay", (not_negative(float), "weight decay of the kernels that muon updates, 0 for none")),
    ("skip_above", (not_negative(float),
                    "skip steps with a gradient of more than so many times the usual norm, 0 for none")),
))
Recipe = collections.namedtuple("Recipe", list(RECIPE_OPTIONS))
# read from the published training graphs; 32l exists for x2 only, at x3 and x4 it takes those of 32m
PAPER_RATE = {
    "x2": {"32s": 2e-4, "32m": 2e-4, "32l": 2e-4, "48s": 2e-4, "48m": 2e-4},
    "x3": {"32s": 2e-4, "32m": 5e-5, "32l": 5e-5, "48s": 1e-4, "48m": 1e-4},
    "x4": {"32s": 2e-4, "32m": 1e-4, "32l": 1e-4, "48s": 2e-4, "48m": 1e-4},
}


def make_recipe(name, model, scale):
    """The recipe `paper` (every published value; the steps are not known) or `fast` (for hours of a CPU)."""
    if name == "paper":
        return Recipe(PAPER_RATE[scale][model], "halve", 0, 1000000, 16, 48, 1, 0, 0, "adam", 0, 0)
    return Recipe(1e-3, "cosine", 200, 30000, 8, 32, 3, 0, 0.999, "muon", 1, 10)


def learning_rate(recipe, step, share=None):
    """The learning rate of the step with that number, from 0.

    `halve`: halved every 200,000 steps (staircase). `cosine`: half a cosine from the start rate to 0 at
    `recipe.steps`. The first `recipe.warmup` steps rise linearly to it.

    share: where the length of a training is given as a time, which share of it is used, in [0, 1]. It takes
    the place of step / recipe.steps; `halve` then halves after each fifth, as it does in its 1,000,000 steps.
    """
    if recipe.schedule == "halve":
        rate = recipe.rate * 0.5 ** (step // 200000 if share is None else int(5 * share))
    else:
        share = min(step / recipe.steps, 1) if share is None else share
        rate = recipe.rate * 0.5 * (1 + np.cos(np.pi * share))
    return rate * min(1, (step + 1) / (recipe.warmup + 1))


def add_recipe_options(parser):
    """The options --recipe, and one for every value of it."""
    group = parser.add_argument_group("recipe", "What is not given is the recipe's.")
    group.add_argument("--recipe", default="paper", choices=["paper", "fast"],
                       help="paper (default): for GPUs, of every published value; fast: for hours of a CPU")
    for key, (kind, words) in RECIPE_OPTIONS.items():
        choice = dict(choices=kind) if isinstance(kind, tuple) else dict(type=kind, metavar="N")
        group.add_argument("--" + key.replace("_", "-"), help=words, **choice)


def choose_recipe(args, model, scale):
    """The Recipe that the options name."""
    recipe = make_recipe(args.recipe, model, scale)
    return recipe._replace(**{key: getattr(args, key) for key in Recipe._fields
                              if getattr(args, key) is not None})


# -------------------------------------------------------------------------------------------- steps, weights

NORMS = 101  # the last norms of gradients, of which the median is taken
# A step that cannot be good is skipped: applied, it can cost the training. RGB is in [0, 1]: a larger loss,
# or none that is a number, is that of a network that has exploded.
MAX_LOSS = 10
MAX_SKIPPED = 5  # in a row: then training stops
# Muon (K. Jordan et al., 2024, https://kellerjordan.github.io/posts/muon): the momentum of a kernel, a matrix
# whose columns are the output channels, is replaced by the nearest matrix whose singular values are about 1.
# The weak directions of the momentum thus count as much as the strong ones.
MOMENTUM = 0.95
# of the polynomial that brings singular values in (0, 1] to about 1 in 5 rounds
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
# root mean square of the entries of an update for a learning rate of 1, whatever the kernel's shape. Adam's
# have about 0.2 (J. Liu et al., arXiv 2502.16982, section 2.2); here, kernels do best with four times the
# learning rate of what is left to Adam.
UPDATE_RMS = 0.8


def uses_muon(shape):
    """Whether a variable of this shape is for Muon: a kernel with 16 or more channels on both sides."""
    return len(shape) == 4 and min(shape[2:]) >= 16


def orthogonalize(x, matmul):
    """x, [m, n], m <= n, of a Frobenius norm of 1, with its singular values brought to between 0.7 and 1.2.

    matmul(a, b, transpose): a b, or a b^T; of any library.
    """
    a, b, c = NEWTON_SCHULZ
    for _ in range(5):
        gram = matmul(x, x, True)
        x = a * x + matmul(b * gram + c * matmul(gram, gram, False), x, False)
    return x


def initial_weights(shapes, seed):
    """{name: array} as an untrained network has them: kernels by Glorot's uniform distribution, all else 0.

    shapes: {name: shape}, in order. The law is that of the variables' initializers, the random numbers are
    not TensorFlow's.
    """
    random, weights = np.random.RandomState(seed), {}
    for name, shape in shapes.items():
        limit = (6 / (np.prod(shape[:-2]) * sum(shape[-2:]))) ** 0.5 if name.endswith("/kernel") else 0
        weights[name] = random.uniform(-limit, limit, shape).astype(np.float32)
    return weights
