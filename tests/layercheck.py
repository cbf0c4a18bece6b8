"""Gradient checks of layers: their parameters are inputs like any other."""

import numpy as np
from gradcheck import check_directional

STEP = 1e-6
"""Shorter than for single operations: of a block's many ReLUs none should reach its kink."""


def place(layer, xp=np, dtype=np.float64):
    """``layer`` with its arrays in ``xp`` and of ``dtype``, in training."""
    for _, array in layer.named_arrays():
        array.value = xp.asarray(array.value, dtype=dtype)
    layer.set_training(True)
    return layer


def move(network, xp):
    """``network`` with its arrays in ``xp``, by the way that users take. Of their own dtype, unlike :func:`place`."""
    return network.to("cpu" if xp is np else "gpu")


def check_layer(layer, inputs, rng, *, xp=np, call=None):
    """Check the gradients of ``inputs`` and of every parameter of ``layer`` along random directions.

    Args:
        layer: with all that it holds.
        inputs: float64 host arrays.
        rng: chooses parameters, directions and ``dy``.
        xp: the array library.
        call: takes ``inputs`` and returns ``(y, backward)``, ``backward`` giving one gradient per input. By default the
            layer itself, which takes one array.
    """
    call = layer if call is None else call
    parameters = [parameter for _, parameter in place(layer, xp).named_parameters()]
    # Biases of 0 and scales of 1 would hide that one is forgotten or swapped with another.
    values = [rng.normal(0.1, 0.4, parameter.value.shape) for parameter in parameters]

    def op(*arrays):
        for parameter, value in zip(parameters, arrays[len(inputs) :], strict=True):
            parameter.value, parameter.grad = value, None
        y, backward = call(*arrays[: len(inputs)])

        def gradients(dy):
            given = backward(dy)
            given = given if isinstance(given, (list, tuple)) else [given]
            return [*given, *(parameter.grad for parameter in parameters)]

        return y, gradients

    directions = 3 if xp is np else 1  # elsewhere it is the calls that are in question: one is enough
    check_directional(op, [*inputs, *values], rng, directions=directions, xp=xp, step=STEP)
