"""Nearest-neighbour upsampling."""

import numpy as np
import pytest
from gradcheck import check_gradients
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_close, cases, channels_last, check_case

from mrcnn_scratch import ops
from mrcnn_scratch.backend import to_host

# By hand


def one_channel(xp, rows):
    return xp.asarray(rows, dtype=float)[None, :, :, None]


def test_twice_the_size_by_hand(xp):
    y, backward = ops.upsample_nearest(one_channel(xp, [[1, 2]]), (2, 4))
    assert to_host(y)[0, :, :, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]
    dx = backward(one_channel(xp, [[1, 2, 3, 4], [10, 20, 30, 40]]))
    assert to_host(dx)[0, :, :, 0].tolist() == [[1 + 2 + 10 + 20, 3 + 4 + 30 + 40]]


def test_odd_sizes_by_hand(xp):
    """A level of 3 cells under one of 2: outputs 0, 1, 2 stand at 0, 2/3, 4/3 of the input."""
    y, backward = ops.upsample_nearest(one_channel(xp, [[1, 2]]), (1, 3))
    assert to_host(y)[0, :, :, 0].tolist() == [[1, 1, 2]]
    assert to_host(backward(one_channel(xp, [[10, 20, 30]])))[0, :, :, 0].tolist() == [[30, 30]]


# The slow version

SIDE = st.integers(1, 30)


@given(
    shape=st.tuples(st.integers(0, 2), st.integers(1, 6), st.integers(1, 6), st.integers(1, 2)),
    size=st.tuples(SIDE, SIDE),
)
def test_is_the_slow_one(xp, shape, size):
    """Output row i is input row floor(i H / OH), in whole numbers. Smaller outputs are allowed as well."""
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=shape), rng.normal(size=(shape[0], *size, shape[3]))
    expected, expected_dx = np.zeros(dy.shape), np.zeros(shape)
    for i, j in np.ndindex(size):
        row, column = i * shape[1] // size[0], j * shape[2] // size[1]
        expected[:, i, j] = x[:, row, column]
        expected_dx[:, row, column] += dy[:, i, j]
    y, backward = ops.upsample_nearest(xp.asarray(x), size)
    assert to_host(y).tolist() == expected.tolist()
    assert_close(backward(xp.asarray(dy)), expected_dx)


# Properties


def test_positions_are_rounded_as_pytorch_rounds_them(xp):
    """In float32, 41 * (2 / 82) comes out below 1: row 41 of 82 still copies row 0. PyTorch does that too."""
    y, _ = ops.upsample_nearest(one_channel(xp, [[0], [1]]), (82, 1))
    assert to_host(y).ravel().tolist() == [0] * 42 + [1] * 40


@given(size=st.tuples(SIDE, SIDE))
def test_constant_stays_constant_and_the_same_size_stays_the_same(xp, size):
    x = xp.asarray(np.arange(size[0] * size[1], dtype=float).reshape(1, *size, 1))
    assert to_host(ops.upsample_nearest(x, size)[0]).tolist() == to_host(x).tolist()
    stretched, _ = ops.upsample_nearest(xp.full((1, 2, 3, 1), 7.0), size)
    assert (to_host(stretched) == 7).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_are_copied_to_the_bit(xp, rng, dtype):
    x = rng.normal(size=(2, 3, 4, 5)).astype(dtype)
    y, backward = ops.upsample_nearest(xp.asarray(x), (6, 8))
    assert y.dtype == backward(y).dtype == dtype
    assert to_host(y)[:, ::2, ::2].tolist() == x.tolist()
    assert to_host(y)[:, 1::2, 1::2].tolist() == x.tolist()


# Gradients, element by element


@pytest.mark.parametrize("size", [(6, 4), (5, 3), (2, 7)])
def test_gradients(xp, rng, size):
    check_gradients(lambda x: ops.upsample_nearest(x, size), [rng.normal(size=(2, 3, 2, 3))], rng, xp=xp)


# PyTorch's numbers


@pytest.mark.parametrize("case", cases("upsample"))
def test_is_pytorch_s(xp, case):
    x, y, dy, dx = (channels_last(case[name]) for name in ("x", "y", "dy", "dx"))
    size = tuple(case["size"].tolist())
    check_case(xp, lambda x: ops.upsample_nearest(x, size), [x], y, dy, [dx])
