"""Batch normalisation (Ioffe and Szegedy 2015), with the batch's own statistics or with frozen ones."""

from ..backend import Array, array_module
from .contract import Backward, differentiable
from .linear import sum_rows


@differentiable
def batch_norm(
    x: Array, weight: Array, bias: Array, *, eps: float = 1e-5
) -> tuple[tuple[Array, Array, Array], Backward]:
    """Normalise each channel to mean 0 and variance 1 over the batch, then scale and shift it.

    With ``m = N H W`` values a channel, ``x^ = (x - mean) / sqrt(var + eps)`` and ``y = weight x^ + bias``:

        dbias   = sum dy
        dweight = sum dy x^
        dx      = weight / sqrt(var + eps) * (dy - dbias / m - x^ dweight / m)

    The last two terms of ``dx`` are there because each x also moves the mean and the variance.

    Args:
        x: (N, H, W, C).
        weight: (C,), the scale.
        bias: (C,), the shift.
        eps: keeps the division finite.

    Returns:
        ``(y, mean, var)``: y (N, H, W, C), the batch's mean (C,) and (biased) variance (C,);
        ``backward(dy) -> dx, dweight, dbias``.
    """
    xp = array_module(x)
    m = x.size // x.shape[-1]
    mean = sum_rows(x) / m
    normalised = x - mean
    var = sum_rows(normalised * normalised) / m
    inverse_std = 1 / xp.sqrt(var + eps)
    normalised *= inverse_std
    y = normalised * weight
    y += bias

    def backward(dy: Array) -> tuple[Array, Array, Array]:
        dbias = sum_rows(dy)
        dweight = sum_rows(dy * normalised)
        dx = dy - normalised * (dweight / m)
        dx -= dbias / m
        dx *= weight * inverse_std
        return dx, dweight, dbias

    return (y, mean, var), backward


@differentiable
def frozen_batch_norm(
    x: Array, weight: Array, bias: Array, mean: Array, var: Array, *, eps: float = 1e-5
) -> tuple[Array, Backward]:
    """Batch normalisation whose statistics are constants: one scale and one shift per channel.

    Args:
        x: (N, H, W, C).
        weight: (C,), the scale.
        bias: (C,), the shift.
        mean: (C,), subtracted; a constant.
        var: (C,), divided by; a constant.
        eps: keeps the division finite.

    Returns:
        ``y`` (N, H, W, C) and ``backward(dy) -> dx, dweight, dbias``.
    """
    xp = array_module(x)
    inverse_std = 1 / xp.sqrt(var + eps)
    scale = weight * inverse_std
    y = x * scale
    y += bias - mean * scale

    def backward(dy: Array) -> tuple[Array, Array, Array]:
        dbias = sum_rows(dy)
        dweight = (sum_rows(dy * x) - mean * dbias) * inverse_std
        return dy * scale, dweight, dbias

    return y, backward
