"""The contract of every operation: it returns its output together with its own backward.

    y, backward = op(x, weight, ...)
    dx, dweight, ... = backward(dy)

``backward`` takes the gradient of the loss with respect to ``y`` and returns the gradients with respect to the array
inputs. What it needs from the forward pass it closes over, so nothing is cached on an object, and an operation that is
applied five times gives five backwards that know nothing of each other.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

Backward = Callable[..., Any]
P = ParamSpec("P")
Y = TypeVar("Y")


class Once:
    """A backward that can be called once, and lets go of what it closed over when it has been.

    A network holds one backward per layer. Because each drops its arrays as soon as it has run, the memory of
    the forward pass is handed back layer by layer while the gradients are computed.
    """

    __slots__ = ("_backward",)

    def __init__(self, backward: Backward) -> None:
        self._backward: Backward | None = backward

    def __call__(self, *dy: Any) -> Any:
        backward, self._backward = self._backward, None
        if backward is None:
            raise RuntimeError("backward was called twice; its arrays are freed: run the forward pass again")
        return backward(*dy)


def differentiable(op: Callable[P, tuple[Y, Backward]]) -> Callable[P, tuple[Y, Backward]]:
    """Mark an operation that returns ``(y, backward)``: its backward becomes one that frees as it goes."""

    @functools.wraps(op)
    def op_with_single_use_backward(*args: P.args, **kwargs: P.kwargs) -> tuple[Y, Backward]:
        y, backward = op(*args, **kwargs)
        return y, Once(backward)

    return op_with_single_use_backward
