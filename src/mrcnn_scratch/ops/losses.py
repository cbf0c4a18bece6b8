"""The three losses that Mask R-CNN's five are made of. Each is a 0-d array; ``backward(dloss)`` is usually given 1.

Labels and targets are constants: there is no gradient for them. A loss over nothing is 0 with gradients of 0.
"""

from ..backend import Array, array_module
from .activation import logistic
from .contract import Backward, differentiable


def softmax(logits: Array) -> Array:
    """Probabilities (R, K) from ``logits`` (R, K), each row summing to 1."""
    xp = array_module(logits)
    exponentials = xp.exp(logits - logits.max(axis=1, keepdims=True))  # the shift cancels, and nothing overflows
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@differentiable
def cross_entropy(logits: Array, labels: Array) -> tuple[Array, Backward]:
    """Mean over rows of ``-log softmax(logits)[label]`` (Fast R-CNN, section 2.3).

    Args:
        logits: (R, K).
        labels: (R,) int64 in 0..K-1.

    Returns:
        The loss, and ``backward(dloss) -> dlogits = dloss (softmax - one_hot) / R`` (R, K).
    """
    xp = array_module(logits)
    count = max(len(logits), 1)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_sum = xp.log(xp.exp(shifted).sum(axis=1))  # (R,)
    true = (labels[:, None] == xp.arange(logits.shape[1])).astype(logits.dtype)  # one-hot (R, K)
    loss = (log_sum - (shifted * true).sum(axis=1)).sum() / count

    def backward(dloss: Array | float = 1.0) -> Array:
        return (xp.exp(shifted - log_sum[:, None]) - true) * (dloss / count)

    return loss, backward


@differentiable
def binary_cross_entropy_with_logits(logits: Array, targets: Array) -> tuple[Array, Backward]:
    """Mean of ``-t log p - (1 - t) log(1 - p)`` with ``p = sigmoid(logits)``.

    Written as ``max(x, 0) - x t + log(1 + exp(-|x|))``, which is the same and does not overflow.

    Args:
        logits: any shape.
        targets: the same shape, in [0, 1]; need not be 0 or 1.

    Returns:
        The loss, and ``backward(dloss) -> dlogits = dloss (sigmoid(logits) - targets) / size``.
    """
    xp = array_module(logits)
    count = max(logits.size, 1)
    losses = xp.maximum(logits, 0) - logits * targets + xp.log1p(xp.exp(-xp.abs(logits)))
    loss = losses.sum() / count

    def backward(dloss: Array | float = 1.0) -> Array:
        return (logistic(logits) - targets) * (dloss / count)

    return loss, backward


@differentiable
def smooth_l1(prediction: Array, target: Array, *, beta: float) -> tuple[Array, Backward]:
    """Sum of ``d^2 / (2 beta)`` where ``|d| < beta`` and ``|d| - beta / 2`` elsewhere, ``d = prediction - target``.

    A parabola near 0 and straight beyond, so that one bad box cannot dominate (Fast R-CNN, eq. 3, with beta = 1).

    Args:
        prediction: any shape.
        target: the same shape.
        beta: where the parabola ends; above 0.

    Returns:
        The loss, and ``backward(dloss) -> dprediction = dloss clip(d / beta, -1, 1)``.
    """
    xp = array_module(prediction)
    difference = prediction - target
    size = xp.abs(difference)
    loss = xp.where(size < beta, 0.5 * difference * difference / beta, size - 0.5 * beta).sum()

    def backward(dloss: Array | float = 1.0) -> Array:
        return xp.clip(difference / beta, -1, 1) * dloss

    return loss, backward
