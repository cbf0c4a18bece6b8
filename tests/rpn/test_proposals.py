"""Proposals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_close, assert_library

from mrcnn_scratch.backend import to_host
from mrcnn_scratch.config import RPNConfig
from mrcnn_scratch.rpn import propose

# By hand


def run(xp, objectness, deltas, anchors, sizes, *, training=False, **numbers):
    """``propose`` on host arrays, of float64; per image (boxes, scores)."""
    objectness, deltas, anchors = (
        [xp.asarray(np.asarray(level, float)) for level in levels] for levels in (objectness, deltas, anchors)
    )
    found = propose(objectness, deltas, anchors, sizes, RPNConfig(**numbers), training=training)
    assert_library(xp, *(array for image in found for array in image))
    return [(to_host(boxes), to_host(scores)) for boxes, scores in found]


def still(anchors):
    """Deltas that leave one image's anchors where they are."""
    return np.zeros((1, len(anchors), 4))


ANCHORS = [(0, 0, 10, 10), (1, 0, 11, 10), (20, 0, 30, 10), (-5, -5, 5, 5)]
"""The first two have 90 of 110 in common, IoU 9/11."""


def test_best_first_and_suppressed(xp):
    """Logits 0, 1, 2, 3: the last comes first, cut off at the image's corner; the second suppresses the first."""
    ((boxes, scores),) = run(xp, [[[0, 1, 2, 3]]], [still(ANCHORS)], [ANCHORS], [(40, 40)])
    assert boxes.tolist() == [[0, 0, 5, 5], [20, 0, 30, 10], [1, 0, 11, 10]]
    assert_close(scores, [1 / (1 + math.exp(-logit)) for logit in (3, 2, 1)])


def test_deltas_move_and_stretch(xp):
    """dx = 1/2 moves a box 10 wide by 5; dh = log 2 doubles its height about its centre."""
    ((boxes, _),) = run(xp, [[[0]]], [[[[0.5, 0, 0, math.log(2)]]]], [[(10, 10, 20, 20)]], [(40, 40)])
    assert_close(boxes, [[15, 5, 25, 25]])


def test_levels_are_suppressed_on_their_own(xp):
    """Equal boxes of two levels both stay; the two levels are merged by score."""
    same = [ANCHORS[0]]
    ((boxes, scores),) = run(xp, [[[1]], [[2]]], [still(same)] * 2, [same, same], [(40, 40)])
    assert boxes.tolist() == [list(ANCHORS[0])] * 2
    assert scores[0] > scores[1]


def test_clipped_to_its_own_image_not_to_the_padding(xp):
    anchors = [(0, 0, 30, 30)]
    found = run(xp, [[[0], [0]]], [np.zeros((2, 1, 4))], [anchors], [(20, 25), (10, 15)])
    assert [boxes.tolist() for boxes, _ in found] == [[[0, 0, 25, 20]], [[0, 0, 15, 10]]]


def test_boxes_without_a_side_are_dropped(xp):
    """An anchor outside the image is clipped to nothing, and a side under ``min_side`` is as good as that."""
    anchors = [(50, 0, 60, 10), (0, 0, 10, 0.5), (0, 0, 10, 1)]
    ((boxes, _),) = run(xp, [[[3, 2, 1]]], [still(anchors)], [anchors], [(40, 40)], min_side=1.0)
    assert boxes.tolist() == [[0, 0, 10, 1]]


def test_numbers_before_and_after(xp):
    """Four boxes apart: per level so many before suppression, per image so many after, in training other ones."""
    apart = [(10 * i, 0, 10 * i + 5, 5) for i in range(4)]
    levels = [[[0, 1, 2, 3]], [[0.5, 1.5, 2.5, 3.5]]], [still(apart)] * 2, [apart] * 2, [(40, 40)]
    numbers = {"pre_nms_test": 3, "post_nms_test": 4, "pre_nms_train": 1, "post_nms_train": 10}
    logits = {
        training: np.log(scores / (1 - scores))
        for training in (False, True)
        for _, scores in run(xp, *levels, training=training, **numbers)
    }
    assert_close(logits[False], [3.5, 3, 2.5, 2], 1e-9)
    assert_close(logits[True], [3.5, 3], 1e-9)


def test_one_survives_when_all_overlap(xp):
    anchors = [(0, 0, 10, 10)] * 5
    ((boxes, _),) = run(xp, [[[1, 5, 2, 4, 3]]], [still(anchors)], [anchors], [(40, 40)])
    assert boxes.tolist() == [[0, 0, 10, 10]]


def test_none_may_be_left(xp):
    """Every anchor lies outside: no proposals, but arrays of the right shape."""
    anchors = [(50, 50, 60, 60)] * 3
    ((boxes, scores),) = run(xp, [[[1, 2, 3]]], [still(anchors)], [anchors], [(40, 40)])
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)


def test_an_empty_level(xp):
    none = np.zeros((0, 4))
    found = run(xp, [np.zeros((1, 0)), [[1]]], [still(none), still(ANCHORS[:1])], [none, ANCHORS[:1]], [(40, 40)])
    assert found[0][0].tolist() == [[0, 0, 10, 10]]


# The slow version


def slow_propose(objectness, deltas, anchors, size, before, after, threshold, min_side):
    """One image; lists of levels. Boxes and scores, best first."""
    survivors = []
    for logits, level_deltas, level_anchors in zip(objectness, deltas, anchors, strict=True):
        best = sorted(range(len(logits)), key=lambda i: -logits[i])[:before]
        candidates = [(clip(decode(level_deltas[i], level_anchors[i]), size), logits[i]) for i in best]
        kept = []
        for box, logit in candidates:
            wide_enough = box[2] - box[0] >= min_side and box[3] - box[1] >= min_side
            if wide_enough and all(iou(box, other) <= threshold for other, _ in kept):
                kept.append((box, logit))
        survivors += kept
    survivors.sort(key=lambda item: -item[1])
    return survivors[:after]


def decode(delta, anchor):
    x1, y1, x2, y2 = anchor
    width, height = x2 - x1, y2 - y1
    x, y = x1 + width / 2 + delta[0] * width, y1 + height / 2 + delta[1] * height
    width, height = (s * math.exp(min(d, math.log(1000 / 16))) for s, d in ((width, delta[2]), (height, delta[3])))
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def clip(box, size):
    return [min(max(value, 0), limit) for value, limit in zip(box, [size[1], size[0]] * 2, strict=True)]


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


@given(
    counts=st.lists(st.integers(0, 25), min_size=1, max_size=3),
    images=st.integers(1, 2),
    before=st.integers(1, 20),
    after=st.integers(1, 20),
    threshold=st.sampled_from([0.1, 0.5, 0.9]),
    training=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_is_the_slow_one(xp, counts, images, before, after, threshold, training, seed):
    rng = np.random.default_rng(seed)
    corners = [rng.uniform(-10, 40, (n, 2)) for n in counts]
    anchors = [np.hstack([corner, corner + rng.uniform(1, 25, corner.shape)]) for corner in corners]
    objectness = [rng.normal(size=(images, n)) for n in counts]
    deltas = [rng.normal(0, [0.5, 0.5, 0.5, 2.0], (images, n, 4)) for n in counts]
    sizes = [(30, 40), (25, 20)][:images]
    numbers = {"pre_nms_train": before, "post_nms_train": after} if training else {}
    numbers |= {} if training else {"pre_nms_test": before, "post_nms_test": after}
    found = run(xp, objectness, deltas, anchors, sizes, training=training, nms_iou=threshold, min_side=3.0, **numbers)
    for i, (boxes, scores) in enumerate(found):
        levels = [o[i] for o in objectness], [d[i] for d in deltas], anchors
        expected = slow_propose(*levels, sizes[i], before, after, threshold, 3.0)
        assert_close(boxes, np.array([box for box, _ in expected]).reshape(-1, 4), 1e-9)
        assert_close(scores, [1 / (1 + math.exp(-logit)) for _, logit in expected], 1e-9)


# Properties


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_and_inputs(xp, dtype):
    objectness, deltas = xp.ones((1, 4), dtype=dtype), xp.zeros((1, 4, 4), dtype=dtype)
    anchors = xp.asarray(ANCHORS, dtype=dtype)
    before = [to_host(a).copy() for a in (objectness, deltas, anchors)]
    ((boxes, scores),) = propose([objectness], [deltas], [anchors], [(40, 40)], RPNConfig(), training=False)
    assert {boxes.dtype, scores.dtype} == {np.dtype(dtype)}
    assert all(np.array_equal(to_host(a), b) for a, b in zip((objectness, deltas, anchors), before, strict=True))


def test_extreme_logits_keep_their_order(xp):
    """Their scores are 0 and 1 to the last digit; a score of 0 is still a proposal, not a suppressed one."""
    apart = [(10 * i, 0, 10 * i + 5, 5) for i in range(2)]
    ((boxes, scores),) = run(xp, [[[-2000, 2000]]], [still(apart)], [apart], [(40, 40)])
    assert scores.tolist() == [1, 0]
    assert boxes[:, 0].tolist() == [10, 0]
