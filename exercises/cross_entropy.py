"""Exercise: cross-entropy and its backward. Judge it: make exercise NAME=cross_entropy. Notebook 07."""

from collections.abc import Callable

import numpy as np


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, Callable]:
    """How surprised the network is by the true classes, and the gradient for what it said.

        p[r, k] = exp(logits[r, k]) / sum over j of exp(logits[r, j])        the softmax of row r
        loss    = mean over rows of -log p[r, labels[r]]

    ``exp(10000)`` is infinite. Subtract the row's largest logit from the row before anything else: that changes no p.
    And compute ``log p`` as ``logit - log(sum of exp)``, so that no logarithm of 0 turns up.

    The gradient, for R rows (derive it: it comes out as simple as this):

        dlogits[r, k] = dloss (p[r, k] - (1 if k is the label of r, else 0)) / R

    Args:
        logits: (R, K) any numbers. R may be 0: the loss is then 0.
        labels: (R,) whole numbers from 0 to K - 1: the true class of each row.

    Returns:
        ``loss, backward``: the loss is one number, and ``backward(dloss)`` takes one number and returns dlogits (R, K).
        Do not write to the inputs.

    Example:
        logits = [[0, log 3], [5, 5]]        labels = [0, 1]
        p = [[1/4, 3/4], [1/2, 1/2]]         loss = (log 4 + log 2) / 2
        backward(1.0) = [[-3/8, 3/8], [1/4, -1/4]]
    """
    raise NotImplementedError("write me")
