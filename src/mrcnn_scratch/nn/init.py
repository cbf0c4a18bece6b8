"""Random initial weights, always float32 and on the host: the same seed gives the same network everywhere."""

import math

import numpy as np

from ..backend import Array


def he_normal(shape: tuple[int, ...], rng: np.random.Generator, fan_in: int | None = None) -> Array:
    """Normal with variance ``2 / fan_in``, which keeps the size of signals through ReLU layers (He et al. 2015).

    Args:
        shape: (..., C, F).
        rng: where the numbers come from.
        fan_in: how many inputs make one output; by default all axes but the last.
    """
    fan_in = math.prod(shape[:-1]) if fan_in is None else fan_in
    return normal(shape, math.sqrt(2 / fan_in), rng)


def normal(shape: tuple[int, ...], std: float, rng: np.random.Generator) -> Array:
    """Normal with mean 0 and standard deviation ``std``."""
    return (std * rng.standard_normal(shape)).astype(np.float32)
