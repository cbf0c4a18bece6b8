"""The fully connected layer."""

import numpy as np
import pytest
from gradcheck import check_gradients
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_close

from mrcnn_scratch import ops
from mrcnn_scratch.backend import to_host
from mrcnn_scratch.ops.linear import sum_rows

# By hand


def test_by_hand(xp):
    x, weight = xp.asarray([[1.0, 2]]), xp.asarray([[1.0, 2, 3], [4, 5, 6]])
    y, backward = ops.linear(x, weight, xp.asarray([100.0, 200, 300]))
    assert to_host(y).tolist() == [[100 + 1 + 8, 200 + 2 + 10, 300 + 3 + 12]]

    dx, dweight, dbias = backward(xp.asarray([[1.0, 0, -1]]))
    assert to_host(dx).tolist() == [[1 - 3, 4 - 6]]
    assert to_host(dweight).tolist() == [[1, 0, -1], [2, 0, -2]]
    assert to_host(dbias).tolist() == [1, 0, -1]


# The slow version


def slow_linear(x, weight, bias):
    y = np.zeros((len(x), weight.shape[1]))
    for r, f in np.ndindex(y.shape):
        y[r, f] = bias[f]
        for d in range(len(weight)):
            y[r, f] += x[r, d] * weight[d, f]
    return y


SIZES = st.tuples(*[st.integers(1, 5)] * 3)


@given(sizes=SIZES, seed=st.integers(0, 2**32 - 1))
def test_is_the_slow_one(xp, sizes, seed):
    (r, d, f), rng = sizes, np.random.default_rng(seed)
    x, weight, bias = (rng.normal(size=s) for s in [(r, d), (d, f), (f,)])
    assert_close(ops.linear(xp.asarray(x), xp.asarray(weight), xp.asarray(bias))[0], slow_linear(x, weight, bias))
    assert_close(ops.linear(xp.asarray(x), xp.asarray(weight))[0], slow_linear(x, weight, np.zeros(f)))


# Properties


@given(sizes=SIZES, seed=st.integers(0, 2**32 - 1))
def test_rows_do_not_meet(xp, sizes, seed):
    (r, d, f), rng = sizes, np.random.default_rng(seed)
    x, weight = rng.normal(size=(r, d)), xp.asarray(rng.normal(size=(d, f)))
    order = rng.permutation(r)
    y, _ = ops.linear(xp.asarray(x), weight)
    shuffled, _ = ops.linear(xp.asarray(x[order]), weight)
    assert_close(shuffled, to_host(y)[order])


@given(shape=st.lists(st.integers(0, 4), max_size=3), features=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
def test_sum_rows_sums_all_but_the_last_axis(xp, shape, features, seed):
    x = np.random.default_rng(seed).normal(size=(*shape, features))
    assert_close(sum_rows(xp.asarray(x)), x.sum(axis=tuple(range(len(shape)))))


def test_no_rows(xp):
    y, backward = ops.linear(xp.zeros((0, 2)), xp.ones((2, 3)), xp.ones(3))
    assert y.shape == (0, 3)
    dx, dweight, dbias = backward(y)
    assert dx.shape == (0, 2)
    assert to_host(dweight).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert to_host(dbias).tolist() == [0, 0, 0]


# Gradients, element by element


@pytest.mark.parametrize("inputs", [2, 3])
def test_gradients(xp, rng, inputs):
    shapes = [(4, 3), (3, 3), (3,)][:inputs]
    check_gradients(ops.linear, [rng.normal(size=s) for s in shapes], rng, xp=xp)
