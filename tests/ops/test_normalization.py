"""Batch normalisation, with the batch's own statistics and with frozen ones."""

import math
from statistics import fmean, pvariance

import numpy as np
import pytest
from gradcheck import check_gradients
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_close, cases, channels_last, check_case

from mrcnn_scratch import ops
from mrcnn_scratch.backend import to_host

# By hand


def channel(xp, *values):
    """One channel: each value an image of one pixel, (N, 1, 1, 1)."""
    return xp.asarray(values, dtype=float).reshape(-1, 1, 1, 1)


def numbers(*parameters, xp):
    return (xp.asarray([p], dtype=float) for p in parameters)


def test_by_hand(xp):
    weight, bias = numbers(10, 100, xp=xp)
    (y, mean, var), backward = ops.batch_norm(channel(xp, 0, 0, 0, 4), weight, bias, eps=1)
    # Mean 1, variance (1 + 1 + 1 + 9) / 4 = 3, and sqrt(3 + eps) = 2: normalised to -1/2, -1/2, -1/2, 3/2.
    assert to_host(mean).tolist() == [1]
    assert to_host(var).tolist() == [3]
    assert to_host(y).ravel().tolist() == [95, 95, 95, 115]

    # dx = 10/2 (dy - 1/4 - normalised * 1.5/4): 5 (-1/4 + 3/16) = -5/16, and 5 (1 - 1/4 - 9/16) = 15/16.
    dx, dweight, dbias = backward(channel(xp, 0, 0, 0, 1))
    assert to_host(dweight).tolist() == [1.5]
    assert to_host(dbias).tolist() == [1]
    assert to_host(dx).ravel().tolist() == [-5 / 16, -5 / 16, -5 / 16, 15 / 16]


def test_frozen_by_hand(xp):
    weight, bias, mean, var = numbers(10, 100, 1, 3, xp=xp)
    y, backward = ops.frozen_batch_norm(channel(xp, 3, -1), weight, bias, mean, var, eps=1)
    assert to_host(y).ravel().tolist() == [110, 90]  # (3 - 1) / 2 = 1 and (-1 - 1) / 2 = -1
    dx, dweight, dbias = backward(channel(xp, 2, 3))
    assert to_host(dx).ravel().tolist() == [10, 15]  # times 10 / 2: x moves no statistics
    assert to_host(dweight).tolist() == [2 * 1 + 3 * -1]
    assert to_host(dbias).tolist() == [5]


# The slow version

SIZES = st.tuples(*[st.integers(1, 4)] * 4)


def slow_batch_norm(x, weight, bias, eps):
    y = np.zeros(x.shape)
    for c in range(x.shape[-1]):
        values = x[..., c].ravel().tolist()
        mean, std = fmean(values), math.sqrt(pvariance(values) + eps)
        for n, i, j in np.ndindex(x.shape[:3]):
            y[n, i, j, c] = (x[n, i, j, c] - mean) / std * weight[c] + bias[c]
    return y


def random_inputs(shape, seed):
    rng = np.random.default_rng(seed)
    return 3 + rng.normal(size=shape), rng.normal(size=shape[-1]), rng.normal(size=shape[-1])


@given(shape=SIZES, seed=st.integers(0, 2**32 - 1))
def test_is_the_slow_one(xp, shape, seed):
    inputs = random_inputs(shape, seed)
    (y, mean, var), _ = ops.batch_norm(*(xp.asarray(a) for a in inputs), eps=0.1)
    assert_close(y, slow_batch_norm(*inputs, eps=0.1))
    assert_close(mean, inputs[0].mean(axis=(0, 1, 2)))
    assert_close(var, inputs[0].var(axis=(0, 1, 2)))


# Properties


@given(shape=SIZES, seed=st.integers(0, 2**32 - 1))
def test_frozen_at_the_batch_s_statistics_is_the_same(xp, shape, seed):
    x, weight, bias = (xp.asarray(a) for a in random_inputs(shape, seed))
    (y, mean, var), backward = ops.batch_norm(x, weight, bias, eps=0.1)
    frozen, frozen_backward = ops.frozen_batch_norm(x, weight, bias, mean, var, eps=0.1)
    assert_close(frozen, to_host(y))
    for a, b in zip(backward(y)[1:], frozen_backward(y)[1:], strict=True):  # dx differs: the statistics stand still
        assert_close(a, to_host(b), 1e-10)


@given(shape=SIZES, seed=st.integers(0, 2**32 - 1), scale=st.floats(0.5, 20), shift=st.floats(-20, 20))
def test_scale_and_shift_of_the_input_are_lost(xp, shape, seed, scale, shift):
    x, weight, bias = random_inputs((3, *shape[1:]), seed)
    parameters = xp.asarray(weight), xp.asarray(bias)
    (y, _, _), _ = ops.batch_norm(xp.asarray(x), *parameters, eps=0)
    (moved, _, _), _ = ops.batch_norm(xp.asarray(scale * x + shift), *parameters, eps=0)
    assert_close(moved, to_host(y), 1e-8)


@given(shape=SIZES, seed=st.integers(0, 2**32 - 1))
def test_dx_is_at_right_angles_to_what_is_lost(xp, shape, seed):
    """So ``dx`` of each channel adds up to 0, alone (the shift) and times x (the scale)."""
    x, weight, bias = random_inputs((3, *shape[1:]), seed)
    (y, _, var), backward = ops.batch_norm(xp.asarray(x), xp.asarray(weight), xp.asarray(bias), eps=0)
    dx, _, _ = backward(xp.asarray(np.random.default_rng(0).normal(size=y.shape)))
    unit = (np.abs(weight) / np.sqrt(to_host(var))).max()  # the scale of dx before anything cancels
    assert np.abs(to_host(dx).sum(axis=(0, 1, 2))).max() < 1e-10 * unit
    assert np.abs((to_host(dx) * x).sum(axis=(0, 1, 2))).max() < 1e-10 * unit


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_constant_channels_stay_finite(xp, dtype):
    """Variance 0: eps keeps the division finite, and y is the bias."""
    x, weight, bias = (
        xp.full((2, 2, 2, 1), 5, dtype=dtype),
        xp.ones(1, dtype=dtype),
        xp.full(1, 7, dtype=dtype),
    )
    (y, _, var), backward = ops.batch_norm(x, weight, bias)
    assert to_host(var).tolist() == [0]
    assert (to_host(y) == 7).all()
    assert np.isfinite(to_host(backward(y)[0])).all()


def test_eps_is_1e_5_unless_said_otherwise(xp):
    ones = xp.ones(1)
    (y, _, _), _ = ops.batch_norm(channel(xp, -1, 1), ones, 0 * ones)
    frozen, _ = ops.frozen_batch_norm(channel(xp, -1, 1), ones, 0 * ones, 0 * ones, ones)
    for result in (y, frozen):
        assert_close(result, np.array([-1, 1]).reshape(2, 1, 1, 1) / math.sqrt(1 + 1e-5), 1e-14)


# Gradients, element by element


def only_y(x, weight, bias):
    """The mean and variance also returned go into running averages, from which no gradient comes back."""
    (y, _, _), backward = ops.batch_norm(x, weight, bias)
    return y, backward


def test_gradients(xp, rng):
    check_gradients(only_y, [rng.normal(size=s) for s in [(2, 3, 2, 3), (3,), (3,)]], rng, xp=xp)


def test_gradients_of_the_frozen_one(xp, rng):
    mean, var = xp.asarray(rng.normal(size=3)), xp.asarray(rng.uniform(0.5, 2, 3))
    inputs = [rng.normal(size=s) for s in [(2, 3, 2, 3), (3,), (3,)]]
    check_gradients(lambda *a: ops.frozen_batch_norm(*a, mean, var), inputs, rng, xp=xp)


# PyTorch's numbers


@pytest.mark.parametrize("case", cases("batch_norm"))
def test_is_pytorch_s(xp, case):
    gradients = channels_last(case["dx"]), case["dw"], case["db"]
    inputs = channels_last(case["x"]), case["w"], case["b"]
    check_case(xp, only_y, inputs, channels_last(case["y"]), channels_last(case["dy"]), gradients)
