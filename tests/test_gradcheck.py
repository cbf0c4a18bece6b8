"""The check itself: it passes what is right, and catches each mistake that a backward is known for."""

import numpy as np
import pytest
from cupy_double import strict_cupy
from gradcheck import check_directional, check_gradients

from mrcnn_scratch.backend import to_host

CHECKS = pytest.mark.parametrize("check", [check_gradients, check_directional])


def matmul(x, w):
    """Right: ``y = x w`` with square x and w, so that no shape gives a mistake away."""
    return x @ w, lambda dy: (dy @ w.T, x.T @ dy)


def sliding_product(x, w):
    """Right: ``y[i] = x[i] w[0] + x[i + 1] w[1] + x[i + 2] w[2]``, a convolution in one dimension."""
    patches = np.lib.stride_tricks.sliding_window_view(x, 3)

    def backward(dy):
        dx = np.zeros_like(x)
        for i, d in enumerate(dy):
            dx[i : i + 3] += d * w
        return dx, patches.T @ dy

    return patches @ w, backward


def centred(x):
    """Right: ``y = x - mean(x)``, so each x moves every y."""
    return x - x.mean(), lambda dy: dy - dy.mean()


# The mistakes, one each


def factor_of_two(x, w):
    y, backward = matmul(x, w)
    return y, lambda dy: (backward(dy)[0], 2 * backward(dy)[1])


def transposed_gradient(x, w):
    return x @ w, lambda dy: (dy @ w.T, dy.T @ x)


def flipped_kernel(x, w):
    y, backward = sliding_product(x, w)
    return y, lambda dy: (backward(dy)[0], backward(dy)[1][::-1])


def flipped_scatter(x, w):
    return sliding_product(x, w)[0], lambda dy: (
        sliding_product(x, w[::-1])[1](dy)[0],
        sliding_product(x, w)[1](dy)[1],
    )


def set_instead_of_add(x, w):
    y, backward = sliding_product(x, w)

    def wrong(dy):
        dx = np.zeros_like(x)
        for i, d in enumerate(dy):
            dx[i : i + 3] = d * w  # where windows overlap only the last remains
        return dx, backward(dy)[1]

    return y, wrong


def dropped_term(x):
    return centred(x)[0], lambda dy: dy


def one_element_wrong(x, w):
    y, backward = matmul(x, w)

    def wrong(dy):
        dx, dw = backward(dy)
        dx[0, 1] *= 1.01
        return dx, dw

    return y, wrong


def deaf_to_dy(x):
    return 2 * x, lambda dy: np.full_like(dy, 2)


def missing_gradient(x, w):
    return x @ w, lambda dy: dy @ w.T


def gradient_of_another_shape(x):
    return x[None], lambda dy: dy


def single_precision(x):
    return 2 * x, lambda dy: (2 * dy).astype(np.float32)


def writes_to_its_input(x):
    x *= 2
    return x.copy(), lambda dy: 2 * dy


def writes_to_dy(x):
    def backward(dy):
        dy *= 2
        return dy.copy()

    return 2 * x, backward


SQUARES, LINE = [(3, 3), (3, 3)], [(6,), (3,)]
RIGHT = [(matmul, SQUARES), (sliding_product, LINE), (centred, [(5,)])]
WRONG = [
    (factor_of_two, SQUARES, "gradient 1"),
    (transposed_gradient, SQUARES, "gradient 1"),
    (flipped_kernel, LINE, "gradient 1"),
    (flipped_scatter, LINE, "gradient 0"),
    (set_instead_of_add, LINE, "gradient 0"),
    (dropped_term, [(5,)], "gradient 0"),
    (one_element_wrong, SQUARES, "gradient 0"),
    (deaf_to_dy, [(5,)], "gradient 0"),
    (missing_gradient, SQUARES, "1 gradients for 2 inputs"),
    (gradient_of_another_shape, [(5,)], "its input"),
    (single_precision, [(5,)], "float32"),
]


@CHECKS
@pytest.mark.parametrize(("op", "shapes"), RIGHT, ids=lambda p: getattr(p, "__name__", ""))
def test_what_is_right_passes(check, op, shapes, rng):
    check(op, [rng.normal(size=shape) for shape in shapes], rng)


@CHECKS
@pytest.mark.parametrize(("op", "shapes", "message"), WRONG, ids=lambda p: getattr(p, "__name__", ""))
def test_what_is_wrong_is_caught(check, op, shapes, message, rng):
    with pytest.raises(AssertionError, match=message):
        check(op, [rng.normal(size=shape) for shape in shapes], rng)


@CHECKS
@pytest.mark.parametrize("op", [writes_to_its_input, writes_to_dy])
def test_writing_is_caught_where_it_happens(check, op, rng):
    with pytest.raises(ValueError, match="read-only"):
        check(op, [rng.normal(size=5)], rng)


@CHECKS
def test_writing_is_caught_where_arrays_cannot_be_locked(check, rng):
    """CuPy's arrays have no read-only flag."""
    with strict_cupy() as cupy, pytest.raises(AssertionError, match="an input was written to"):
        check(writes_to_its_input, [rng.normal(size=5)], rng, xp=cupy)


def host_output(x):
    return 2 * to_host(x), lambda dy: 2 * dy


def host_gradient(x):
    return 2 * x, lambda dy: 2 * to_host(dy)


@CHECKS
@pytest.mark.parametrize("op", [host_output, host_gradient])
def test_an_array_left_on_the_host_is_caught(check, op, rng):
    """Its numbers are right, so with NumPy nothing is wrong."""
    x = rng.normal(size=5)
    check(op, [x], rng)
    with strict_cupy() as cupy, pytest.raises(AssertionError, match="belongs to numpy, not to cupy"):
        check(op, [x], rng, xp=cupy)


@CHECKS
def test_ones_would_not_do(check, rng):
    """Summed with equal weights, centred values give 0 whatever x is: a backward of 0 would look right."""

    def nothing(x):
        return centred(x)[0], np.zeros_like

    x = rng.normal(size=5)
    assert np.allclose(centred(x)[1](np.ones(5)), nothing(x)[1](np.ones(5)))
    with pytest.raises(AssertionError, match="gradient 0"):
        check(nothing, [x], rng)


@CHECKS
@pytest.mark.parametrize("container", [list, tuple, dict])
def test_several_outputs(check, container, rng):
    def powers(x, wrong=1):
        y = {"square": x**2, "cube": x**3}

        def backward(dy):
            assert type(dy) is container
            square, cube = dy.values() if container is dict else dy
            return 2 * x * square + 3 * wrong * x**2 * cube

        return (y if container is dict else container(y.values())), backward

    x = rng.normal(size=4)
    check(powers, [x], rng)
    with pytest.raises(AssertionError, match="gradient 0"):
        check(lambda x: powers(x, wrong=1.1), [x], rng)


def test_inputs_must_be_float64(rng):
    with pytest.raises(AssertionError, match="float64"):
        check_gradients(centred, [np.ones(3, np.float32)], rng)
