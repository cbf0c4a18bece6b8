"""Fully connected layer: one matrix product."""

from ..backend import Array, array_module, matmul
from .contract import Backward, differentiable


@differentiable
def linear(x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, Backward]:
    """``y = x W + b``.

    Args:
        x: (R, D).
        weight: (D, F).
        bias: (F,) or None.

    Returns:
        ``y`` (R, F) and ``backward(dy) -> dx, dweight, dbias`` (no ``dbias`` without a bias):
        ``dx = dy W^T``, ``dW = x^T dy``, ``db`` sums ``dy`` over the rows.
    """
    y = matmul(x, weight)  # (R, F)
    if bias is not None:
        y += bias

    def backward(dy: Array) -> tuple[Array, ...]:
        gradients = (matmul(dy, weight.T), matmul(x.T, dy))
        return gradients if bias is None else (*gradients, sum_rows(dy))

    return y, backward


def sum_rows(x: Array) -> Array:
    """Sum of (..., F) over everything but the last axis: (F,). As a product, which is faster than a reduction."""
    rows = x.reshape(-1, x.shape[-1])
    return array_module(x).ones(len(rows), dtype=x.dtype) @ rows
