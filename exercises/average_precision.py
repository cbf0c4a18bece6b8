"""Exercise: the precision-recall curve and its area. Judge both: make exercise NAME=average_precision. Notebook 11."""

import numpy as np


def precision_recall(correct: np.ndarray, excused: np.ndarray, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """The curve: walk down the ranking of detections, and after each one say how good the list is so far.

        precision = correct ones so far / ones that count so far        (0 while none has counted)
        recall    = correct ones so far / objects

    An excused detection (it found something that nobody asks for, such as a crowd) does not count. It keeps its place
    in the curve, where it repeats the numbers before it.

    Args:
        correct: (N,) of True and False, best detection first: did it find an object? N may be 0.
        excused: (N,) of True and False: is it excused? None of these is correct.
        objects: how many objects there were to find, at least 1.

    Returns:
        ``precision, recall``: (N,) and (N,).

    Example:
        right, none = np.array([True, False, True]), np.array([False, False, False])
        precision_recall(right, none, 2)                           = [1, 1/2, 2/3], [1/2, 1/2, 1]
        precision_recall(right, np.array([False, True, False]), 2) = [1, 1, 1], [1/2, 1/2, 1]
    """
    raise NotImplementedError("write me")


def average_precision(precision: np.ndarray, recall: np.ndarray) -> float:
    """The area under the curve, as COCO reads it off: at 101 recalls.

    For each of the recall levels 0, 0.01, ..., 1 (take ``np.linspace(0, 1, 101)``, whose roundings COCO uses):

        height = the best precision at any place of the curve whose recall is at or above the level; 0 if there is none

    That is the upper envelope: a dip of the curve is filled up by what comes after it. The answer is the mean of the
    101 heights.

    Args:
        precision: (N,) from the function above. N may be 0.
        recall: (N,) likewise; it never falls.

    Returns:
        One number from 0 to 1.

    Example:
        precision = [1, 1/2, 2/3], recall = [1/2, 1/2, 1]
        The 51 levels from 0 to 0.50 have the height 1. The other 50 have 2/3.
        average_precision(precision, recall) = (51 + 50 * 2/3) / 101 = 0.835
    """
    raise NotImplementedError("write me")
