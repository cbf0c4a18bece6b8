"""ReLU and the logistic sigmoid."""

from ..backend import Array, array_module, elementwise
from .contract import Backward, differentiable


@differentiable
def relu(x: Array) -> tuple[Array, Backward]:
    """``max(x, 0)``, any shape. ``backward(dy) -> dx``: passes ``dy`` where ``x > 0``, else 0."""
    xp = array_module(x)
    y = elementwise(lambda x: xp.maximum(x, 0), x)

    def backward(dy: Array) -> Array:
        # y > 0 exactly where x > 0, and y is kept anyway by whoever comes next
        return elementwise(lambda dy, y: dy * (y > 0), dy, y)

    return y, backward


@differentiable
def sigmoid(x: Array) -> tuple[Array, Backward]:
    """``1 / (1 + exp(-x))``, any shape. ``backward(dy) -> dx = dy y (1 - y)``."""
    y = logistic(x)

    def backward(dy: Array) -> Array:
        return dy * y * (1 - y)

    return y, backward


def logistic(x: Array) -> Array:
    """The logistic sigmoid by itself. Through tanh, which cannot overflow: ``(1 + tanh(x / 2)) / 2``."""
    xp = array_module(x)
    return 0.5 * (1 + xp.tanh(0.5 * x))
