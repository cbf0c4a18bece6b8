"""ReLU and the logistic sigmoid."""

import math

import numpy as np
import pytest
from gradcheck import check_gradients
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_close

from mrcnn_scratch import ops
from mrcnn_scratch.backend import to_host

# By hand


def test_relu_by_hand(xp):
    y, backward = ops.relu(xp.asarray([-2.0, 0, 3]))
    assert to_host(y).tolist() == [0, 0, 3]
    assert to_host(backward(xp.asarray([10.0, 20, 30]))).tolist() == [
        0,
        0,
        30,
    ]  # at 0 itself the slope counts as 0


def test_sigmoid_by_hand(xp):
    y, backward = ops.sigmoid(xp.asarray([0, math.log(3), -math.log(3)]))
    assert_close(y, [1 / 2, 3 / 4, 1 / 4])  # 1 / (1 + 1/3) = 3/4
    assert_close(backward(xp.ones(3)), [1 / 4, 3 / 16, 3 / 16])


# The slow version

NUMBERS = st.lists(st.floats(-700, 700), min_size=1, max_size=8)


@given(x=NUMBERS)
def test_relu_is_the_slow_one(xp, x):
    y, backward = ops.relu(xp.asarray(x))
    assert to_host(y).tolist() == [v if v > 0 else 0 for v in x]
    assert to_host(backward(xp.ones(len(x)))).tolist() == [1 if v > 0 else 0 for v in x]


@given(x=NUMBERS)
def test_sigmoid_is_the_slow_one(xp, x):
    y, _ = ops.sigmoid(xp.asarray(x))
    np.testing.assert_allclose(to_host(y), [1 / (1 + math.exp(-v)) for v in x], rtol=0, atol=1e-15)


# Properties


@given(x=NUMBERS)
def test_sigmoid_is_symmetric_and_rises(xp, x):
    x = np.sort(x)
    y, mirrored = to_host(ops.sigmoid(xp.asarray(x))[0]), to_host(ops.sigmoid(xp.asarray(-x))[0])
    assert_close(y + mirrored, np.ones(len(x)))
    assert (np.diff(y) >= 0).all()
    assert ((y >= 0) & (y <= 1)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sigmoid_does_not_overflow(xp, dtype):
    """``exp`` of 1e4 is infinite: a plain 1 / (1 + exp(-x)) would warn, and warnings are errors here."""
    y, backward = ops.sigmoid(xp.asarray([-1e4, 1e4], dtype=dtype))
    assert to_host(y).tolist() == [0, 1]
    assert to_host(backward(xp.ones(2, dtype=dtype))).tolist() == [0, 0]


@pytest.mark.parametrize("op", [ops.relu, ops.sigmoid])
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (2, 3, 4, 5)])
def test_any_shape(xp, rng, op, shape):
    x = xp.asarray(rng.normal(size=shape))
    y, backward = op(x)
    assert y.shape == shape
    assert backward(y).shape == shape


# Gradients, element by element


@pytest.mark.parametrize("op", [ops.relu, ops.sigmoid])
def test_gradients(xp, rng, op):
    x = rng.normal(size=(3, 4))
    x[np.abs(x) < 0.01] = 0.5  # relu has no slope at 0
    check_gradients(op, [x], rng, xp=xp)
