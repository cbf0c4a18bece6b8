"""What the region proposal network learns from."""

import math

import numpy as np
import pytest
from gradcheck import check_gradients
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_close

from mrcnn_scratch.backend import to_host
from mrcnn_scratch.config import RPNConfig
from mrcnn_scratch.rpn import RPNTargets, rpn_losses, rpn_targets
from mrcnn_scratch.structures import Target

EVERY = RPNConfig(samples=10**6)
NO_BOXES = np.zeros((0, 4))

# Targets by hand. They are made on the host, where the labels are: with NumPy, whatever the network runs on.

ANCHORS = np.array([(0, 0, 10, 10), (5, 0, 15, 10), (0, 0, 10, 8), (30, 30, 40, 40)], float)
OBJECT = np.array([(0, 0, 10, 10)], float)
"""Its IoU with the anchors: 1, 1/3, 0.8 and 0."""


def labelled(boxes, ignore=None):
    """An image with objects there."""
    return Target(boxes, np.ones(len(boxes), int), np.zeros((len(boxes), 1, 1), bool), ignore=ignore)


def test_targets_by_hand():
    """At 0.7 and above an object, under 0.3 background; the second anchor is neither and is not sampled."""
    targets = rpn_targets(ANCHORS, [labelled(OBJECT)], EVERY, np.random.default_rng(0))
    assert targets.image.tolist() == [0, 0, 0]
    assert targets.anchor.tolist() == [0, 2, 3]
    assert targets.objectness.tolist() == [1, 1, 0]
    # The third anchor's centre is 1 above the object's, of its height of 8, which must become 10.
    assert_close(targets.deltas, [[0, 0, 0, 0], [0, 1 / 8, 0, math.log(10 / 8)], [0, 0, 0, 0]])


def test_an_object_without_a_good_anchor_takes_its_best():
    """IoU 1/3 at best, but no object goes without."""
    targets = rpn_targets(ANCHORS[[1, 3]], [labelled(OBJECT)], EVERY, np.random.default_rng(0))
    assert targets.anchor.tolist() == [0, 1]
    assert targets.objectness.tolist() == [1, 0]


def test_without_objects_all_is_background():
    targets = rpn_targets(ANCHORS, [labelled(NO_BOXES), labelled(OBJECT)], EVERY, np.random.default_rng(0))
    assert targets.image.tolist() == [0] * 4 + [1] * 3
    assert targets.objectness.tolist() == [0] * 4 + [1, 1, 0]
    assert not targets.deltas[:4].any()


def test_in_a_crowd_nothing_is_background():
    """The fourth anchor would be, but 90 % of it lie in the crowd region."""
    crowd = np.array([(31, 30, 60, 60)], np.float32)
    targets = rpn_targets(ANCHORS, [labelled(OBJECT, crowd)], EVERY, np.random.default_rng(0))
    assert targets.anchor.tolist() == [0, 2]


def test_a_sample_is_balanced(rng):
    """Of 100 good anchors and 100 bad ones, 8 samples take 4 and 4; of 1 good one, 1 and 7."""
    for good, expected in ((100, 4), (1, 1)):
        anchors = np.repeat(ANCHORS[[0, 3]], [good, 100], axis=0)
        targets = rpn_targets(anchors, [labelled(OBJECT)], RPNConfig(samples=8), rng)
        assert len(targets.anchor) == len(set(targets.anchor.tolist())) == 8
        assert targets.objectness.sum() == expected


def test_sampling_follows_the_seed():
    anchors = np.repeat(ANCHORS, 50, axis=0)
    first, again, other = (
        rpn_targets(anchors, [labelled(OBJECT)], RPNConfig(samples=8), np.random.default_rng(seed)).anchor.tolist()
        for seed in (1, 1, 2)
    )
    assert first == again != other


# Targets, the slow version


def slow_targets(anchors, objects, high, low):
    """Anchor by anchor: index of its object, -1 for background, None for neither."""
    table = [[iou(o, a) for a in anchors] for o in objects]
    wanted = []
    for i in range(len(anchors)):
        column = [row[i] for row in table]
        best = max(range(len(objects)), key=lambda g: column[g], default=None)
        if best is None or column[best] < low:
            wanted.append(-1)
        else:
            wanted.append(best if column[best] >= high else None)
        if any(row[i] == max(row) for row in table):
            wanted[-1] = best
    return wanted


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


CORNER, SIDE = st.integers(0, 8), st.integers(1, 6)
BOX = st.tuples(CORNER, CORNER, SIDE, SIDE).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


@given(anchors=st.lists(BOX, min_size=1, max_size=20), objects=st.lists(BOX, max_size=4))
def test_targets_are_the_slow_ones(anchors, objects):
    config = RPNConfig(samples=10**6, positive_fraction=1.0)
    arrays = np.array(anchors, float), np.array(objects, float).reshape(-1, 4)
    targets = rpn_targets(arrays[0], [labelled(arrays[1])], config, np.random.default_rng(0))
    wanted = slow_targets(anchors, objects, 0.7, 0.3)
    assert sorted(targets.anchor.tolist()) == [i for i, w in enumerate(wanted) if w is not None]
    for anchor, is_object, deltas in zip(targets.anchor, targets.objectness, targets.deltas, strict=True):
        assert is_object == (wanted[anchor] >= 0)
        if is_object:
            (x1, y1, x2, y2), (u1, v1, u2, v2) = anchors[anchor], objects[wanted[anchor]]
            width, height = x2 - x1, y2 - y1
            moved = ((u1 + u2 - x1 - x2) / 2 / width, (v1 + v2 - y1 - y2) / 2 / height)
            assert_close(deltas, [*moved, math.log((u2 - u1) / width), math.log((v2 - v1) / height)], 1e-9)
        else:
            assert not deltas.any()


# Losses


def chosen(image, anchor, objectness, deltas):
    arrays = np.array(image, np.int64), np.array(anchor, np.int64), np.array(objectness, float)
    return RPNTargets(*arrays, np.array(deltas, float).reshape(-1, 4))


TWO = chosen([0, 0], [0, 2], [1, 0], [[0, 0, 0, 0], [0, 0, 0, 0]])
"""Of three anchors the first is an object and the last background; the middle one is not sampled."""


def test_losses_by_hand(xp):
    """Logits of 0 say one half: log 2 each. A delta 1 off costs 1 - beta / 2 = 17/18, over 2 samples 17/36."""
    objectness, deltas = xp.zeros((1, 3)), np.zeros((1, 3, 4))
    deltas[0, 0, 0], deltas[0, 1], deltas[0, 2] = 1, 9, 9  # background's deltas cost nothing
    (loss_objectness, loss_box), backward = rpn_losses(objectness, xp.asarray(deltas), TWO, RPNConfig())
    assert_close(loss_objectness, math.log(2))
    assert_close(loss_box, 17 / 36)
    dobjectness, ddeltas = backward(1.0, 1.0)
    # sigmoid(0) is 1/2; minus 1 for the object, minus 0 for background, over 2.
    assert to_host(dobjectness).tolist() == [[-0.25, 0, 0.25]]
    assert to_host(ddeltas)[0].tolist() == [[0.5, 0, 0, 0], [0] * 4, [0] * 4]


def test_losses_can_be_weighted(xp):
    deltas = np.zeros((1, 3, 4))
    deltas[0, 0, 0] = 1
    _, backward = rpn_losses(xp.zeros((1, 3)), xp.asarray(deltas), TWO, RPNConfig())
    dobjectness, ddeltas = backward(0.0, 3.0)
    assert not to_host(dobjectness).any()
    assert to_host(ddeltas)[0, 0, 0] == 1.5


def test_nothing_sampled_costs_nothing(xp):
    losses, backward = rpn_losses(xp.ones((1, 3)), xp.ones((1, 3, 4)), chosen([], [], [], []), RPNConfig())
    assert [to_host(loss).item() for loss in losses] == [0, 0]
    assert not any(to_host(d).any() for d in backward(1.0, 1.0))


def test_only_background_has_no_box_loss(xp):
    targets = chosen([0], [1], [0], [[0, 0, 0, 0]])
    (_, loss_box), backward = rpn_losses(xp.ones((1, 3)), xp.ones((1, 3, 4)), targets, RPNConfig())
    assert to_host(loss_box).item() == 0
    assert not to_host(backward(1.0, 1.0)[1]).any()


@pytest.mark.parametrize("seed", range(3))
def test_gradients(xp, seed):
    rng = np.random.default_rng(seed)
    count = 6
    picked = [(i, a) for i in range(2) for a in rng.choice(8, count // 2, replace=False)]
    is_object = (rng.random(count) < 0.5).astype(float)
    wanted = rng.normal(size=(count, 4)) * is_object[:, None]
    targets = chosen(*zip(*picked, strict=True), is_object, wanted)

    def op(objectness, deltas):
        losses, backward = rpn_losses(objectness, deltas, targets, RPNConfig(smooth_l1_beta=1.0))
        return losses, lambda dlosses: backward(*dlosses)

    check_gradients(op, [rng.normal(size=(2, 8)), rng.normal(size=(2, 8, 4))], rng, xp=xp)
