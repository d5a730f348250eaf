"""How long a training is, by steps or by the clock, and so the learning rates of its next steps."""
from tools.training.recipes import learning_rate

import numpy as np

LAST_SHARE = 0.9  # from where the rate still falls in a training whose time is already over


def next_rates(recipe, total, step, seconds, pace, dispatch):
    """(rates, share): float32 rates of the next steps, and which share of the training is done after them.

    total: seconds that the training takes, or None if it takes recipe.steps. step, seconds: used so far.
    pace: seconds a step, or None if that is not known yet. dispatch: how many rates; by steps, at most.

    By the clock, the rate reaches its end, for a cosine 0, in the dispatch that should end nearest to total.
    """
    if total is None:
        last = min(step + dispatch, recipe.steps)
        return np.float32([learning_rate(recipe, i) for i in range(step, last)]), last / recipe.steps
    begin, length = min(seconds / total, 1), dispatch * (pace or 0) / total
    end = begin + length
    if begin + 1.5 * length >= 1:  # one more dispatch would end further from the total
        begin, end = begin if begin < 1 else LAST_SHARE, 1.0
    shares = begin + (end - begin) * np.arange(1, dispatch + 1) / dispatch
    return np.float32([learning_rate(recipe, step + i, share) for i, share in enumerate(shares)]), end
