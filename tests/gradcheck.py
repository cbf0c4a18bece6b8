"""Is a gradient right? Compare it with differences of the function itself.

An operation gives ``y, backward = op(*inputs)``. Take any ``dy`` and let ``L = sum(y * dy)``: then
``backward(dy)`` has to be the gradient of the number L, whose slope can be measured without any calculus:

    slope of L along v  =  sum(dy * (y(x + h v) - y(x - h v))) / 2h     wrong by about h^2

* In float64, with h = 1e-5, measuring is good to ten digits, and a wrong formula is seldom right to seven.
* ``dy`` is random. All ones would hide much: a batch-normalised channel always adds up to the same, so with
  ones the true gradient is 0, and a backward that returns 0 would pass.
* Outputs and gradients have to be arrays of the inputs' library: on a GPU none may turn up on the host.
* Inputs and ``dy`` are read-only and are looked at again afterwards: an operation may not write to them.
* At a kink, such as relu's at 0, there is no slope to measure: choose inputs further from it than h.
"""

import numpy as np
from reference import assert_library

from mrcnn_scratch.backend import to_host

STEP = 1e-5
TOLERANCE = 1e-7


def check_gradients(op, inputs, rng, *, xp=np, step=STEP, tolerance=TOLERANCE):
    """Check every element of every gradient. For single operations on small inputs.

    Args:
        op: takes arrays of ``xp``, one per input, and returns ``(y, backward)``; ``y`` is an array, or a
            list, tuple or dict of arrays; ``backward`` takes the like and returns a gradient per input.
        inputs: float64 host arrays.
        rng: chooses ``dy``.
        xp: the array library to run ``op`` with.
        step: h. ``tolerance``: the largest error allowed, as a part of that gradient's largest element.
        tolerance: see ``step``.
    """
    dy, gradients = _run_backward(op, inputs, rng, xp)
    for k, gradient in enumerate(gradients):
        measured = np.zeros(gradient.shape)
        for index in np.ndindex(gradient.shape):
            direction = np.zeros(gradient.shape)
            direction[index] = step
            measured[index] = _difference(op, inputs, k, direction, dy, xp) / (2 * step)
        error = np.abs(gradient - measured)
        if error.size and error.max() > tolerance * (np.abs(measured).max() or 1):
            worst = tuple(map(int, np.unravel_index(error.argmax(), error.shape)))
            raise AssertionError(
                f"gradient {k} at {worst}: backward says {gradient[worst]}, differences say {measured[worst]}"
            )


def check_directional(op, inputs, rng, *, directions=3, xp=np, step=STEP, tolerance=TOLERANCE):
    """Check the slope along random directions. For blocks, where every element would take too long.

    A wrong element changes the slope along almost every direction. Each input gets directions of its own, so
    that an error in a small gradient does not drown in a large one. A layer's parameters are inputs too: let
    ``op`` take their values, put them in place and run the layer. Arguments are as in
    :func:`check_gradients`, and ``directions`` per input.
    """
    dy, gradients = _run_backward(op, inputs, rng, xp)
    for k, gradient in enumerate(gradients):
        for _ in range(directions):
            direction = rng.normal(size=gradient.shape)
            claimed = (gradient * direction).sum()
            measured = _difference(op, inputs, k, step * direction, dy, xp) / (2 * step)
            typical = np.linalg.norm(gradient)  # the root mean square of the slope over all directions
            if abs(claimed - measured) > tolerance * (max(typical, abs(measured)) or 1):
                raise AssertionError(f"gradient {k}: backward's slope is {claimed}, differences say {measured}")


def _run_backward(op, inputs, rng, xp):
    """A random ``dy`` and its gradients, as lists of host arrays, after all checks that need no numbers."""
    given = [_read_only(x, xp) for x in inputs]
    y, backward = op(*given)
    dy = [rng.normal(size=part.shape) for part in _parts(y)]
    given_dy = [_read_only(part, xp) for part in dy]
    gradients = backward(_rebuild(y, given_dy))
    gradients = gradients if isinstance(gradients, (list, tuple)) else (gradients,)
    assert_library(xp, *_parts(y), *gradients)

    assert len(gradients) == len(inputs), f"{len(gradients)} gradients for {len(inputs)} inputs"
    gradients = [to_host(gradient) for gradient in gradients]
    for k, (x, gradient) in enumerate(zip(inputs, gradients, strict=True)):
        assert gradient.shape == x.shape, f"gradient {k} is {gradient.shape}, its input {x.shape}"
        assert gradient.dtype == np.float64, f"gradient {k} is {gradient.dtype}, its input float64"
    for before, after in zip([*inputs, *dy], [*given, *given_dy], strict=True):
        assert np.array_equal(before, to_host(after)), "an input was written to"
    return dy, gradients


def _difference(op, inputs, k, offset, dy, xp):
    """``L(x + offset) - L(x - offset)`` for input ``k``. To subtract before adding up loses fewer digits."""
    ahead, behind = (
        _parts(op(*(xp.asarray(x + sign * offset if i == k else x) for i, x in enumerate(inputs)))[0])
        for sign in (1, -1)
    )
    return sum(((to_host(a) - to_host(b)) * d).sum() for a, b, d in zip(ahead, behind, dy, strict=True))


def _read_only(x, xp):
    assert np.asarray(x).dtype == np.float64, "gradients are checked in float64"
    array = xp.asarray(np.array(x))
    if isinstance(array, np.ndarray):  # the others have no such flag: there only the look afterwards remains
        array.flags.writeable = False
    return array


def _parts(y):
    if isinstance(y, dict):
        return list(y.values())
    return list(y) if isinstance(y, (list, tuple)) else [y]


def _rebuild(y, parts):
    """``parts`` in the container that ``y`` is."""
    if isinstance(y, dict):
        return dict(zip(y, parts, strict=True))
    return type(y)(parts) if isinstance(y, (list, tuple)) else parts[0]
