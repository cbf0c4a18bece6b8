"""Max pooling."""

import numpy as np
import pytest
from gradcheck import check_gradients
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_close, cases, channels_last, check_case

from mrcnn_scratch import ops
from mrcnn_scratch.backend import to_host
from mrcnn_scratch.errors import InputError

# By hand


def one_channel(xp, rows):
    return xp.asarray(rows, dtype=float)[None, :, :, None]


def test_by_hand(xp):
    x = one_channel(xp, [[1, 2, 3, 4], [5, 9, 7, 0], [0, 0, 8, 1], [6, 0, 1, 1]])
    y, backward = ops.max_pool2d(x, kernel_size=2, stride=2)
    assert to_host(y)[0, :, :, 0].tolist() == [[9, 7], [6, 8]]
    dx = backward(one_channel(xp, [[10, 20], [30, 40]]))
    assert to_host(dx)[0, :, :, 0].tolist() == [[0, 0, 0, 0], [0, 10, 20, 0], [0, 0, 40, 0], [30, 0, 0, 0]]


def test_who_wins_twice_is_paid_twice(xp):
    _, backward = ops.max_pool2d(one_channel(xp, [[1, 5, 2]] * 2), kernel_size=2, stride=1)
    # Both windows hold the two fives; the upper one, which comes first, takes both gradients.
    assert to_host(backward(one_channel(xp, [[10, 20]])))[0, :, :, 0].tolist() == [[0, 30, 0], [0, 0, 0]]


def test_the_border_never_wins(xp):
    """Padding is minus infinity, not 0: with 0, a map of negative values would lose its border."""
    x = one_channel(xp, [[-5, -6], [-7, -8]])
    y, backward = ops.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    assert to_host(y)[0, :, :, 0].tolist() == [[-5]]
    assert to_host(backward(one_channel(xp, [[1]])))[0, :, :, 0].tolist() == [[1, 0], [0, 0]]


# The slow version


def slow_max_pool2d(x, dy_seed, kernel_size, stride, padding):
    """Output, a random gradient for it, and the gradient for the input."""
    n, height, width, channels = x.shape
    rows, columns = ((side + 2 * padding - kernel_size) // stride + 1 for side in (height, width))
    y = np.full((n, rows, columns, channels), -np.inf)
    dy = np.random.default_rng(dy_seed).normal(size=y.shape)
    dx = np.zeros(x.shape)
    for m, i, j, c in np.ndindex(y.shape):
        winner = None
        for a, b in np.ndindex(kernel_size, kernel_size):
            row, column = i * stride + a - padding, j * stride + b - padding
            if 0 <= row < height and 0 <= column < width and x[m, row, column, c] > y[m, i, j, c]:
                y[m, i, j, c], winner = x[m, row, column, c], (m, row, column, c)
        dx[winner] += dy[m, i, j, c]
    return y, dy, dx


@given(
    shape=st.tuples(*[st.integers(1, 3)] * 4),
    kernel_size=st.integers(1, 4),
    stride=st.integers(1, 3),
    data=st.data(),
    seed=st.integers(0, 2**32 - 1),
)
def test_is_the_slow_one(xp, shape, kernel_size, stride, data, seed):
    """With values 0 to 3 only, so that ties are common."""
    padding = data.draw(st.integers(0, kernel_size // 2))
    n, height, width, channels = shape
    x = (
        np.random.default_rng(seed)
        .integers(4, size=(n, height + kernel_size - 1, width + kernel_size - 1, channels))
        .astype(float)
    )
    expected, dy, expected_dx = slow_max_pool2d(x, seed, kernel_size, stride, padding)
    y, backward = ops.max_pool2d(xp.asarray(x), kernel_size=kernel_size, stride=stride, padding=padding)
    assert to_host(y).tolist() == expected.tolist()
    assert_close(backward(xp.asarray(dy)), expected_dx)


# Properties


@given(seed=st.integers(0, 2**32 - 1), kernel_size=st.integers(1, 3), stride=st.integers(1, 3))
def test_rising_functions_pass_through(xp, seed, kernel_size, stride):
    """The largest of exp(x) is exp of the largest x."""
    x = np.random.default_rng(seed).normal(size=(1, 5, 6, 2))
    pooled, pooled_exp = (
        to_host(ops.max_pool2d(xp.asarray(v), kernel_size=kernel_size, stride=stride)[0]) for v in (x, np.exp(x))
    )
    assert pooled_exp.tolist() == np.exp(pooled).tolist()


def test_each_gradient_goes_to_one_place(xp, rng):
    x, dy = xp.zeros((2, 6, 6, 3)), rng.normal(size=(2, 3, 3, 3))
    _, backward = ops.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    dx = to_host(backward(xp.asarray(dy)))  # all are equal: every window is a tie
    assert_close(dx.sum(axis=(1, 2)), dy.sum(axis=(1, 2)))
    assert (dx != 0).sum() == dy.size


def test_windows_of_more_than_256_places(xp):
    """The winner's number no longer fits a byte."""
    x = xp.zeros((1, 17, 17, 1))
    x[0, 16, 16, 0] = 1  # place number 288
    _, backward = ops.max_pool2d(x, kernel_size=17, stride=1)
    assert np.argwhere(to_host(backward(xp.ones((1, 1, 1, 1))))).tolist() == [[0, 16, 16, 0]]


def test_no_images(xp):
    y, backward = ops.max_pool2d(xp.zeros((0, 8, 8, 2)), kernel_size=3, stride=2, padding=1)
    assert y.shape == (0, 4, 4, 2)
    assert backward(y).shape == (0, 8, 8, 2)


# Gradients, element by element


@pytest.mark.parametrize(("kernel_size", "stride", "padding"), [(3, 2, 1), (2, 2, 0), (2, 1, 1), (1, 2, 0)])
def test_gradients(xp, rng, kernel_size, stride, padding):
    x = rng.permutation(2 * 5 * 6 * 2).reshape(2, 5, 6, 2) / 10  # no two alike: a tie has no slope
    options = {"kernel_size": kernel_size, "stride": stride, "padding": padding}
    check_gradients(lambda x: ops.max_pool2d(x, **options), [x], rng, xp=xp)


# PyTorch's numbers


@pytest.mark.parametrize("case", cases("max_pool2d"))
def test_is_pytorch_s(xp, case):
    options = {name: int(case[name]) for name in ("kernel_size", "stride", "padding")}
    x, y, dy, dx = (channels_last(case[name]) for name in ("x", "y", "dy", "dx"))
    check_case(xp, lambda x: ops.max_pool2d(x, **options), [x], y, dy, [dx])


def test_a_window_that_does_not_fit(xp):
    with pytest.raises(InputError, match="window of 3 does not fit"):
        ops.max_pool2d(xp.asarray(np.zeros((1, 2, 2, 1))), kernel_size=3, stride=1)
