"""Which anchor or proposal answers for which object, and which of them are learned from."""

import numpy as np

from .backend import Array, array_module, to_device, to_host
from .boxes import box_area

BELOW_LOW = -1
BETWEEN = -2

CROWD_SHARE = 0.7
"""A candidate with this part of its area in a crowd region is no background."""


def match(iou: Array, *, high: float, low: float, allow_low_quality: bool) -> Array:
    """Give each candidate (anchor or proposal) the object that it overlaps most, if it overlaps it enough.

    Args:
        iou: (G, A), the IoU of every object with every candidate.
        high: at or above this a candidate is a positive for its best object.
        low: below this it is a negative (background). Between the two it is neither and is not learned from.
        allow_low_quality: also make positive each candidate that is some object's best (or tied for best), however low,
            so that few objects go without (Faster R-CNN, section 3.1.2, condition (i)).

    Returns:
        (A,) int64: index of the object, -1 below ``low``, -2 between. Without objects all are -1.
    """
    xp = array_module(iou)
    objects, candidates = iou.shape
    if objects == 0:
        return xp.full(candidates, BELOW_LOW, dtype=xp.int64)
    best_object = iou.argmax(axis=0)
    best_iou = iou.max(axis=0)
    matched = xp.where(best_iou < low, BELOW_LOW, xp.where(best_iou < high, BETWEEN, best_object))
    if allow_low_quality:
        is_best = (iou == iou.max(axis=1, keepdims=True)).any(axis=0)
        matched = xp.where(is_best, best_object, matched)
    return matched.astype(xp.int64)


def leave_out(matched: Array, candidates: Array, regions: Array) -> Array:
    """``matched``, with the negatives that lie mostly in one of ``regions`` made neither positive nor negative.

    In a crowd region COCO's labellers did not draw the single objects: what a network finds there is not wrong.

    Args:
        matched: (A,) as :func:`match` returns it.
        candidates: (A, 4) in pixels.
        regions: (C, 4) in pixels.

    Returns:
        (A,) int64. "Mostly" is :data:`CROWD_SHARE` of the candidate's area (Detectron's ``CROWD_FILTER_THRESH``).
    """
    if len(regions) == 0:
        return matched
    corner = np.maximum(candidates[:, None, :2], regions[:, :2])  # (A, C, 2)
    sides = np.maximum(np.minimum(candidates[:, None, 2:], regions[:, 2:]) - corner, 0)
    shared = sides[..., 0] * sides[..., 1]  # (A, C) square pixels
    inside = (shared >= CROWD_SHARE * np.maximum(box_area(candidates), 1e-6)[:, None]).any(axis=1)
    return np.where((matched == BELOW_LOW) & inside, BETWEEN, matched)


def sample_balanced(matched: Array, *, size: int, positive_fraction: float, rng: np.random.Generator) -> Array:
    """Choose at random which candidates a loss sees, so that the many negatives do not drown the positives.

    Args:
        matched: (A,) as :func:`match` returns it.
        size: how many to choose at most.
        positive_fraction: at most this part of ``size`` are positives; negatives fill the rest.
        rng: decides on the host, so that a seed means the same on a CPU and a GPU.

    Returns:
        (S,) int64 indices, positives first (Faster R-CNN, section 3.1.3).
    """
    on_host = to_host(matched)
    positives = np.flatnonzero(on_host >= 0)
    negatives = np.flatnonzero(on_host == BELOW_LOW)
    positives = _choose(positives, int(size * positive_fraction), rng)
    negatives = _choose(negatives, size - len(positives), rng)
    return to_device(np.concatenate([positives, negatives]), like=matched)


def _choose(candidates: Array, limit: int, rng: np.random.Generator) -> Array:
    """At most ``limit`` of ``candidates``, in their own order."""
    if len(candidates) <= limit:
        return candidates
    return np.sort(rng.choice(candidates, limit, replace=False))
