"""How long a training is, and so the learning rate and the precision of its next steps: by steps, or by the clock.

Both schedules have the same functions of the step reached, the seconds used, and the pace, the seconds that a step takes
(None if that is not known yet). No framework is needed here; what is measured and when is for trainer.py.
"""
from tools.training.recipes import learning_rate

import numpy as np

PRECISIONS = "float32", "tf32", "bfloat16"  # of convolutions; what each means to JAX stands in training.py
LAST_SHARE = 0.9  # from here on, bfloat16 gives way to TF32


class StepSchedule(object):
    """A training of recipe.steps steps."""

    def __init__(self, recipe):
        self.recipe = recipe

    def rates(self, step, seconds, pace, dispatch):
        """The learning rates of the next steps, at most `dispatch` of them, float32, and the share of the training, in [0, 1], that
        is done after them."""
        steps = min(dispatch, self.recipe.steps - step)
        rates = [learning_rate(self.recipe, i) for i in range(step, step + steps)]
        return np.array(rates, np.float32), (step + steps) / self.recipe.steps

    def is_done(self, step, share):
        """Whether a training at this step, with this share done when it was last seen, is at its end."""
        return step >= self.recipe.steps

    def expected_steps(self, step, seconds, pace):
        """How many steps the training will have had."""
        return self.recipe.steps


class ClockSchedule(object):
    """A training of so many seconds. Its rates reach that of the share 1, for a cosine 0, in the dispatch that is expected to end
    nearest to them, whatever that one then takes; so every training ends annealed."""

    def __init__(self, recipe, total):
        self.recipe, self.total = recipe, total

    def rates(self, step, seconds, pace, dispatch):
        """As StepSchedule.rates(), always `dispatch` of them, so that they need one program."""
        begin = min(seconds / self.total, 1) if self.total > 0 else 1
        length = dispatch * (pace or 0) / self.total if self.total > 0 else 1
        if begin + 1.5 * length >= 1:  # one more would end further from the total
            begin, end = begin if begin < 1 else LAST_SHARE, 1.0  # without any time, too, its rate falls
        else:
            end = begin + length
        shares = begin + (end - begin) * np.arange(1, dispatch + 1) / dispatch
        return np.array([learning_rate(self.recipe, step + i, share) for i, share in enumerate(shares)], np.float32), end

    def is_done(self, step, share):
        """As StepSchedule.is_done()."""
        return share >= 1

    def expected_steps(self, step, seconds, pace):
        """How many steps the training will have had."""
        return step + int(max(0, self.total - seconds) / pace) if pace else step


def precision_of(precision, share):
    """The precision of a dispatch after which this share of a training is done: the last tenth of one in bfloat16 is TF32."""
    return "tf32" if precision == "bfloat16" and share > LAST_SHARE else precision
