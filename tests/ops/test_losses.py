"""Softmax and the three losses."""

import math

import numpy as np
import pytest
from gradcheck import check_gradients
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_close, assert_library, cases, check_case

from mrcnn_scratch import ops
from mrcnn_scratch.backend import to_host

LN3 = math.log(3)

# By hand


def test_softmax_by_hand(xp):
    probabilities = ops.softmax(xp.asarray([[0, LN3], [5, 5]]))
    assert_library(xp, probabilities)
    assert_close(probabilities, [[1 / 4, 3 / 4], [1 / 2, 1 / 2]])


def test_cross_entropy_by_hand(xp):
    """The true classes have probabilities 1/4 and 1/2: the loss is the mean of ln 4 and ln 2."""
    loss, backward = ops.cross_entropy(xp.asarray([[0, LN3], [5, 5]]), xp.asarray([0, 1]))
    assert_close(loss, (math.log(4) + math.log(2)) / 2)
    assert_close(backward(), [[(1 / 4 - 1) / 2, 3 / 4 / 2], [1 / 2 / 2, (1 / 2 - 1) / 2]])


def test_binary_cross_entropy_by_hand(xp):
    """Probabilities 1/2, 3/4 and 3/4 for targets 1, 0 and 1/2."""
    loss, backward = ops.binary_cross_entropy_with_logits(xp.asarray([0, LN3, LN3]), xp.asarray([1, 0, 0.5]))
    assert_close(loss, (math.log(2) + math.log(4) + (math.log(4 / 3) + math.log(4)) / 2) / 3)
    assert_close(backward(), [-1 / 2 / 3, 3 / 4 / 3, 1 / 4 / 3])


def test_smooth_l1_by_hand(xp):
    """With beta 2: 1^2 / 4 inside, 3 - 1 outside, on either side; and 2 - 1 where parabola and line meet."""
    prediction, target = xp.asarray([11.0, 13, 7, 12, 10]), xp.full(5, 10.0)
    loss, backward = ops.smooth_l1(prediction, target, beta=2)
    assert to_host(loss).item() == 1 / 4 + 2 + 2 + 1 + 0
    assert to_host(backward()).tolist() == [1 / 2, 1, -1, 1, 0]


def test_backward_multiplies_by_its_argument(xp):
    logits, labels, halves = xp.asarray([[0.0, 1, 2]]), xp.asarray([2]), xp.full((1, 3), 0.5)
    for once, thrice in (
        (ops.cross_entropy(logits, labels), ops.cross_entropy(logits, labels)),
        (
            ops.binary_cross_entropy_with_logits(logits, halves),
            ops.binary_cross_entropy_with_logits(logits, halves),
        ),
        (ops.smooth_l1(logits, halves, beta=1), ops.smooth_l1(logits, halves, beta=1)),
    ):
        assert_close(thrice[1](3), 3 * to_host(once[1]()))


# The slow version


def slow_cross_entropy(logits, labels):
    total = 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total += -math.log(math.exp(row[label]) / sum(math.exp(v) for v in row))
    return total / len(logits)


def slow_binary_cross_entropy(logits, targets):
    total = 0
    for x, t in zip(logits.ravel().tolist(), targets.ravel().tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        total += -t * math.log(p) - (1 - t) * math.log(1 - p)
    return total / logits.size


def slow_smooth_l1(prediction, target, beta):
    total = 0
    for p, t in zip(prediction.ravel().tolist(), target.ravel().tolist(), strict=True):
        d = abs(p - t)
        total += d * d / (2 * beta) if d < beta else d - beta / 2
    return total


SEEDS = st.integers(0, 2**32 - 1)
ROWS, CLASSES = st.integers(1, 6), st.integers(1, 5)


@given(rows=ROWS, classes=CLASSES, seed=SEEDS)
def test_losses_are_the_slow_ones(xp, rows, classes, seed):
    rng = np.random.default_rng(seed)
    logits, targets = 3 * rng.normal(size=(rows, classes)), rng.uniform(size=(rows, classes))
    labels, beta = rng.integers(classes, size=rows), rng.uniform(0.1, 3)
    on_device, targets_on_device = xp.asarray(logits), xp.asarray(targets)
    loss, _ = ops.cross_entropy(on_device, xp.asarray(labels))
    assert np.isclose(to_host(loss), slow_cross_entropy(logits, labels))
    loss, _ = ops.binary_cross_entropy_with_logits(on_device, targets_on_device)
    assert np.isclose(to_host(loss), slow_binary_cross_entropy(logits, targets))
    loss, _ = ops.smooth_l1(on_device, targets_on_device, beta=beta)
    assert np.isclose(to_host(loss), slow_smooth_l1(logits, targets, beta))


# Properties


@given(rows=ROWS, classes=CLASSES, seed=SEEDS, shift=st.floats(-50, 50))
def test_only_differences_of_logits_count(xp, rows, classes, seed, shift):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(rows, classes)), xp.asarray(rng.integers(classes, size=rows))
    loss, backward = ops.cross_entropy(xp.asarray(logits), labels)
    shifted, _ = ops.cross_entropy(xp.asarray(logits + shift), labels)
    assert np.isclose(to_host(loss), to_host(shifted))
    assert np.allclose(to_host(backward()).sum(axis=1), 0)  # hence a common shift has no slope
    probabilities = to_host(ops.softmax(xp.asarray(logits + shift)))
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert (probabilities > 0).all()


@given(seed=SEEDS)
def test_two_classes_are_one_binary_choice(xp, seed):
    """Softmax over two logits is the sigmoid of their difference, so the two losses agree."""
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(5, 2)), rng.integers(2, size=5)
    two, _ = ops.cross_entropy(xp.asarray(logits), xp.asarray(labels))
    one, _ = ops.binary_cross_entropy_with_logits(
        xp.asarray(logits[:, 1] - logits[:, 0]), xp.asarray(labels.astype(float))
    )
    assert np.isclose(to_host(two), to_host(one))


@given(seed=SEEDS, beta=st.floats(0.05, 5))
def test_smooth_l1_meets_itself_at_beta(xp, seed, beta):
    """Value and slope are continuous where the parabola ends, and alike for either sign."""
    target = np.random.default_rng(seed).normal(size=3)
    below, above, mirrored = (
        ops.smooth_l1(xp.asarray(target + d), xp.asarray(target), beta=beta)
        for d in (beta * (1 - 1e-9), beta * (1 + 1e-9), -beta * (1 - 1e-9))
    )
    assert np.isclose(to_host(below[0]), to_host(above[0]), rtol=1e-7)
    assert np.isclose(to_host(below[0]), to_host(mirrored[0]), rtol=1e-7)
    slope = to_host(below[1]())
    assert np.allclose(slope, to_host(above[1]()), rtol=1e-7)
    assert np.allclose(slope, -to_host(mirrored[1]()), rtol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_logits_do_not_overflow(xp, dtype):
    """``exp(1e4)`` is infinite; the losses, 0 when sure and right and large when sure and wrong, are not."""
    logits = xp.asarray([[1e4, -1e4]], dtype=dtype)
    assert to_host(ops.softmax(logits)).tolist() == [[1, 0]]
    for label, expected in ((0, 0), (1, 2e4)):
        loss, backward = ops.cross_entropy(logits, xp.asarray([label]))
        assert to_host(loss).item() == expected
        assert to_host(backward()).tolist() == [[1.0 - (label == 0), 0.0 - (label == 1)]]
    for target, expected in (([[1, 0]], 0), ([[0, 1]], 1e4)):
        loss, backward = ops.binary_cross_entropy_with_logits(logits, xp.asarray(target, dtype=dtype))
        assert to_host(loss).item() == expected
        assert np.isfinite(to_host(backward())).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loss_over_nothing_is_0(xp, dtype):
    """An image without objects: no positive, no box to regress, no mask to learn."""
    nothing, no_labels = xp.zeros((0, 4), dtype=dtype), xp.zeros(0, dtype=xp.int64)
    for loss, backward in (
        ops.cross_entropy(nothing, no_labels),
        ops.binary_cross_entropy_with_logits(nothing, nothing),
        ops.smooth_l1(nothing, nothing, beta=1 / 9),
    ):
        assert to_host(loss).item() == 0
        gradient = backward()
        assert_library(xp, loss, gradient)
        assert gradient.shape == (0, 4)
        assert loss.dtype == gradient.dtype == dtype


# Gradients, element by element


def test_gradients_of_cross_entropy(xp, rng):
    labels = xp.asarray([0, 3, 3, 1])
    check_gradients(lambda x: ops.cross_entropy(x, labels), [rng.normal(size=(4, 5))], rng, xp=xp)


def test_gradients_of_binary_cross_entropy(xp, rng):
    targets = xp.asarray(rng.uniform(size=(3, 4)))
    check_gradients(lambda x: ops.binary_cross_entropy_with_logits(x, targets), [rng.normal(size=(3, 4))], rng, xp=xp)


@pytest.mark.parametrize("beta", [1 / 9, 1.0, 3.0])
def test_gradients_of_smooth_l1(xp, rng, beta):
    target = xp.asarray(rng.normal(size=(4, 4)))
    check_gradients(lambda x: ops.smooth_l1(x, target, beta=beta), [rng.normal(size=(4, 4))], rng, xp=xp)


# PyTorch's numbers


@pytest.mark.parametrize("name", ["cross_entropy", "bce", "smooth_l1"])
def test_is_pytorch_s(xp, name):
    for case in cases(name):
        op = {
            "cross_entropy": lambda x, case=case: ops.cross_entropy(x, xp.asarray(case["labels"])),
            "bce": lambda x, case=case: ops.binary_cross_entropy_with_logits(x, xp.asarray(case["targets"])),
            "smooth_l1": lambda x, case=case: ops.smooth_l1(x, xp.asarray(case["targets"]), beta=float(case["beta"])),
        }[name]
        check_case(xp, op, [case["x"]], case["y"], case["dy"], [case["dx"]])
