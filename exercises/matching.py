"""Exercise: which anchor answers for which object. Judge it: make exercise NAME=matching. Notebook 04."""

import numpy as np


def match(iou: np.ndarray, *, high: float, low: float, allow_low_quality: bool) -> np.ndarray:
    """Give each candidate (an anchor or a proposal) the object that it overlaps most, if it overlaps it enough.

    For each candidate take the object with the largest IoU; of equals the first. With that IoU

        at or above ``high``:             the index of the object: a positive
        at or above ``low``, below high:  -2: neither, nothing is learned from it
        below ``low``:                    -1: background, a negative

    With ``allow_low_quality`` there is a second pass, so that few objects go without: for each object find its largest
    IoU over all candidates. Every candidate that reaches it, ties included, becomes a positive *for its own best
    object* (of the first rule), however low its IoU is.

    Args:
        iou: (G, A) IoU of each of G objects with each of A candidates. G may be 0: then all is background.
        high: from here on a positive.
        low: below this a negative.
        allow_low_quality: whether to make the second pass.

    Returns:
        (A,) whole numbers: an index of an object, -1 or -2.

    Example:
        iou = [[0.8, 0.5, 0.2, 0.00, 0.1],
               [0.1, 0.6, 0.1, 0.25, 0.0]]
        match(iou, high=0.7, low=0.3, allow_low_quality=False) = [0, -2, -1, -1, -1]
        match(iou, high=0.7, low=0.3, allow_low_quality=True)  = [0,  1, -1, -1, -1]
        Object 1 has nobody above 0.7. Candidate 1 is the best that it has.
    """
    raise NotImplementedError("write me")
