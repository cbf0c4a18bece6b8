"""Stochastic gradient descent: two steps on paper, a loop over single numbers, and the length of gradients."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_close, assert_library
from tiny import tiny_model

from mrcnn_scratch.backend import to_host
from mrcnn_scratch.nn import Parameter
from mrcnn_scratch.train.optim import SGD, clip_scale, gradient_norm


def parameter(xp, values, *, decay=True):
    return Parameter(xp.asarray(values, dtype=np.float64), decay=decay)


# By hand


def test_two_steps_on_paper(xp):
    weight = parameter(xp, [1.0])
    sgd = SGD([("weight", weight)], momentum=0.9, weight_decay=0.1)
    weight.grad = xp.asarray([0.5])

    sgd.step(lr=0.1)  # v = 0.5 + 0.1 * 1 = 0.6
    assert_close(weight.value, [1 - 0.1 * 0.6])  # 0.94

    sgd.step(lr=0.1)  # v = 0.9 * 0.6 + 0.5 + 0.1 * 0.94 = 1.134
    assert_close(sgd.velocity["weight"], [1.134])
    assert_close(weight.value, [0.94 - 0.1 * 1.134])


def test_norms_and_biases_do_not_decay(xp):
    bias = parameter(xp, [1.0], decay=False)
    sgd = SGD([("bias", bias)], momentum=0.9, weight_decay=0.1)
    bias.grad = xp.asarray([0.5])
    sgd.step(lr=0.1)  # v = 0.5
    sgd.step(lr=0.1)  # v = 0.9 * 0.5 + 0.5 = 0.95
    assert_close(bias.value, [1 - 0.05 - 0.095])


def test_the_gradient_is_scaled_but_not_the_decay(xp):
    weight = parameter(xp, [2.0])
    sgd = SGD([("weight", weight)], momentum=0.0, weight_decay=0.1)
    weight.grad = xp.asarray([8.0])
    sgd.step(lr=1.0, scale=0.25)  # v = 8 / 4 + 0.1 * 2
    assert_close(weight.value, [2 - 2.2])


def test_a_frozen_parameter_stays(xp):
    frozen, free = parameter(xp, [1.0]), parameter(xp, [1.0])
    frozen.trainable = False
    sgd = SGD([("frozen", frozen), ("free", free)], momentum=0.9, weight_decay=0.1)
    frozen.grad = free.grad = xp.asarray([1.0])
    sgd.step(lr=0.1)
    assert to_host(frozen.value) == 1
    assert to_host(free.value) < 1
    assert list(sgd.velocity) == ["free"]


def test_without_a_gradient_nothing_moves_not_even_by_decay(xp):
    weight = parameter(xp, [1.0])
    SGD([("weight", weight)], momentum=0.9, weight_decay=0.1).step(lr=0.1)
    assert to_host(weight.value) == 1


def test_zero_grad_forgets(xp):
    weight = parameter(xp, [1.0])
    weight.grad = xp.asarray([1.0])
    SGD([("weight", weight)], momentum=0.9, weight_decay=0.0).zero_grad()
    assert weight.grad is None


def test_a_step_makes_a_new_array_as_a_backward_may_still_hold_the_old_one(xp):
    weight = parameter(xp, [1.0])
    old, weight.grad = weight.value, xp.asarray([1.0])
    SGD([("weight", weight)], momentum=0.9, weight_decay=0.1).step(lr=0.1)
    assert to_host(old) == 1
    assert to_host(weight.grad) == 1


def test_the_length_of_all_gradients_together(xp):
    a, b, c = parameter(xp, [0.0]), parameter(xp, [[0.0, 0.0]]), parameter(xp, [0.0])
    a.grad, b.grad = xp.asarray([3.0]), xp.asarray([[4.0, 12.0]])  # c has none
    assert gradient_norm([a, b, c]) == 13
    assert gradient_norm([c]) == 0


def test_long_gradients_are_shortened_and_short_ones_are_not():
    assert clip_scale(20.0, 10.0) == 0.5
    assert clip_scale(10.0, 10.0) == 1
    assert clip_scale(5.0, 10.0) == 1
    assert clip_scale(0.0, 10.0) == 1


# In the network


def test_weights_decay_and_nothing_else_does():
    for name, p in tiny_model().named_parameters():
        is_weight = p.value.ndim > 1  # biases and norms have one number a channel
        assert p.decay == is_weight, name


# A loop over single numbers

numbers = st.floats(-10, 10)


@given(
    start=numbers,
    gradients=st.lists(numbers, max_size=5),
    lr=st.floats(0, 1),
    momentum=st.floats(0, 0.99),
    decay=st.floats(0, 0.1),
)
def test_any_run_equals_the_loop(xp, start, gradients, lr, momentum, decay):
    p = parameter(xp, [start, -start])
    sgd = SGD([("p", p)], momentum=momentum, weight_decay=decay)
    value, velocity = start, 0.0
    for g in gradients:
        p.grad = xp.asarray([g, -g])
        sgd.step(lr)
        velocity = momentum * velocity + g + decay * value
        value -= lr * velocity
    assert_library(xp, p.value, sgd.velocity["p"])
    first, second = to_host(p.value)
    assert first == pytest.approx(value, rel=1e-12, abs=1e-12)
    assert second == -first


@given(gradient=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6), longest=st.floats(0.1, 100))
def test_clipped_gradients_are_at_most_so_long(xp, gradient, longest):
    p = parameter(xp, [0.0] * len(gradient))
    p.grad = xp.asarray(gradient)
    norm = gradient_norm([p])
    scale = clip_scale(norm, longest)
    assert norm == pytest.approx(np.linalg.norm(gradient))
    assert 0 < scale <= 1
    assert norm * scale == pytest.approx(min(norm, longest))
