"""The learning rate's factors, on paper and in general."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrcnn_scratch.train.schedule import cosine, steps_down, warm_up


def test_warm_up_by_hand():
    assert [warm_up(step, 3) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]


def test_no_warm_up():
    assert warm_up(0, 0) == 1


def test_cosine_by_hand():
    assert cosine(0, 8) == 1
    assert cosine(2, 8) == pytest.approx((1 + math.sqrt(0.5)) / 2)  # cos 45 degrees
    assert cosine(4, 8) == pytest.approx(0.5)
    assert cosine(8, 8) == 0
    assert cosine(9, 8) == 0


def test_steps_by_hand():
    factors = [steps_down(step, 100) for step in (0, 65, 66, 87, 88, 100)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_steps_at_other_places():
    assert [steps_down(step, 4, milestones=[0.5]) for step in range(4)] == pytest.approx([1, 1, 0.1, 0.1])


@given(steps=st.integers(0, 1000), step=st.integers(0, 2000))
def test_factors_lie_between_0_and_1_and_go_one_way(steps, step):
    for factor, sign in ((warm_up, 1), (cosine, -1), (steps_down, -1)):
        now, later = factor(step, steps), factor(step + 1, steps)
        assert 0 <= now <= 1
        assert sign * (later - now) >= 0


@given(steps=st.integers(1, 1000))
def test_the_first_step_moves_and_the_last_one_too(steps):
    assert warm_up(0, steps) > 0
    assert cosine(steps - 1, steps) > 0
    assert steps_down(steps - 1, steps) > 0
