"""The learning rate, as a function of the step alone."""

import math
from collections.abc import Sequence


def warm_up(step: int, steps: int) -> float:
    """Factor that climbs in a straight line from near 0 to 1 during the first ``steps`` (Goyal et al. 2017).

    A fresh network's gradients are large and point to nowhere in particular; small steps keep them from doing harm.
    """
    return min(1.0, (step + 1) / (steps + 1))


def cosine(step: int, steps: int) -> float:
    """Factor that falls from 1 to 0 over ``steps`` along half a cosine (Loshchilov and Hutter 2017, eq. 5)."""
    return 0.5 * (1 + math.cos(math.pi * min(step, steps) / max(steps, 1)))


def steps_down(step: int, steps: int, milestones: Sequence[float] = (0.66, 0.88)) -> float:
    """Factor that falls to a tenth at each of ``milestones``, shares of ``steps`` (Mask R-CNN, section 3.1)."""
    return float(0.1 ** sum(step >= share * steps for share in milestones))
