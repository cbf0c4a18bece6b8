"""Non-maximum suppression: exactly greedy's answer, without greedy's loop."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_library, cases

from mrcnn_scratch.backend import to_host
from mrcnn_scratch.nms import batched_nms, nms

module = sys.modules["mrcnn_scratch.nms"]

# By hand


def run(xp, boxes, scores, threshold, groups=None):
    """Kept indices as a list; ``groups`` chooses ``batched_nms``."""
    boxes = xp.asarray(np.array(boxes, dtype=float).reshape(-1, 4))
    scores = xp.asarray(scores, dtype=float)
    if groups is None:
        kept = nms(boxes, scores, threshold)
    else:
        kept = batched_nms(boxes, scores, xp.asarray(groups, dtype=xp.int64), threshold)
    assert_library(xp, kept)
    assert kept.dtype == np.int64
    return to_host(kept).tolist()


LEFT, MIDDLE, RIGHT = (0, 0, 10, 10), (4, 0, 14, 10), (8, 0, 18, 10)
"""Neighbours have 60 of 140 in common, IoU 3/7; LEFT and RIGHT 20 of 180, IoU 1/9."""


def test_by_hand(xp):
    boxes = [LEFT, MIDDLE, RIGHT]
    assert run(xp, boxes, [0.9, 0.8, 0.7], 0.4) == [
        0,
        2,
    ]  # LEFT suppresses MIDDLE, which then cannot suppress RIGHT
    assert run(xp, boxes, [0.8, 0.9, 0.7], 0.4) == [1]  # MIDDLE suppresses both
    assert run(xp, boxes, [0.7, 0.8, 0.9], 0.4) == [2, 0]  # best first
    assert run(xp, boxes, [0.9, 0.8, 0.7], 0.5) == [0, 1, 2]
    assert run(xp, boxes, [0.9, 0.8, 0.7], 0.1) == [0]


def test_exactly_the_threshold_is_kept(xp):
    """A box of 1 in a box of 2 has IoU 1/2, which is not above 1/2."""
    boxes = [(0, 0, 2, 1), (0, 0, 1, 1)]
    assert run(xp, boxes, [2, 1], 0.5) == [0, 1]
    assert run(xp, boxes, [2, 1], 0.499) == [0]


def test_equal_scores_and_equal_boxes(xp):
    """Of equals the earlier is the better one."""
    assert run(xp, [MIDDLE, LEFT, RIGHT], [0.5, 0.5, 0.5], 0.4) == [0]
    assert run(xp, [LEFT, MIDDLE, RIGHT], [0.5, 0.5, 0.5], 0.4) == [0, 2]
    assert run(xp, [LEFT] * 4, [0.1, 0.3, 0.3, 0.2], 0.99) == [1]


def test_groups_by_hand(xp):
    boxes = [LEFT, MIDDLE, RIGHT, LEFT]
    assert run(xp, boxes, [0.7, 0.8, 0.9, 0.6], 0.4, groups=[5, 3, 5, 3]) == [
        2,
        1,
        0,
    ]  # MIDDLE meets only the last
    assert run(xp, boxes, [0.7, 0.8, 0.9, 0.6], 0.4, groups=[1, 2, 3, 4]) == [2, 1, 0, 3]


# The slow version


def greedy(boxes, scores, threshold):
    """Walk down the scores; keep a box unless a kept one overlaps it too much."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):  # sorted is stable: of equals the earlier first
        if all(iou(boxes[i], boxes[k]) <= threshold for k in kept):
            kept.append(i)
    return kept


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / union if union else 0


CORNER, SIDE = (
    st.integers(0, 8),
    st.integers(0, 6),
)  # few values: many overlaps, duplicates, boxes without area
BOX = st.tuples(CORNER, CORNER, SIDE, SIDE).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
SCORED = st.lists(st.tuples(BOX, st.integers(0, 3), st.integers(-1, 2)), max_size=25)  # box, score, group
THRESHOLD = st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 0.7, 1.0])


@given(scored=SCORED, threshold=THRESHOLD)
def test_is_greedy(xp, scored, threshold):
    boxes, scores = [s[0] for s in scored], [s[1] for s in scored]
    assert run(xp, boxes, scores, threshold) == greedy(boxes, scores, threshold)


def greedy_by_group(boxes, scores, groups, threshold):
    kept = []
    for group in set(groups):
        members = [i for i, g in enumerate(groups) if g == group]
        chosen = greedy([boxes[i] for i in members], [scores[i] for i in members], threshold)
        kept += [members[i] for i in chosen]
    return sorted(kept, key=lambda i: (-scores[i], i))


@given(scored=SCORED, threshold=THRESHOLD)
def test_batched_is_greedy_group_by_group(xp, scored, threshold):
    boxes, scores, groups = ([s[k] for s in scored] for k in range(3))
    assert run(xp, boxes, scores, threshold, groups) == greedy_by_group(boxes, scores, groups, threshold)


# Properties


@given(scored=SCORED, threshold=THRESHOLD)
def test_one_group_is_no_groups(xp, scored, threshold):
    boxes, scores = [s[0] for s in scored], [s[1] for s in scored]
    assert run(xp, boxes, scores, threshold, [7] * len(boxes)) == run(xp, boxes, scores, threshold)


@given(scored=SCORED, threshold=THRESHOLD)
def test_what_is_kept_is_kept_again(xp, scored, threshold):
    boxes, scores = [s[0] for s in scored], [s[1] for s in scored]
    kept = run(xp, boxes, scores, threshold)
    again = run(xp, [boxes[i] for i in kept], [scores[i] for i in kept], threshold)
    assert again == list(range(len(kept)))


@pytest.mark.parametrize("pairs", [1, 60, 200])
def test_parts_change_nothing(xp, rng, monkeypatch, pairs):
    """With room for few pairs at once, groups are compared in several goes."""
    corners = rng.uniform(0, 30, (60, 2))
    boxes, scores = np.hstack([corners, corners + rng.uniform(5, 20, (60, 2))]), rng.uniform(size=60)
    groups = rng.integers(12, size=60)
    at_once = run(xp, boxes, scores, 0.3, groups)
    monkeypatch.setattr(module, "tile_bytes", lambda like: pairs * like.itemsize)
    assert run(xp, boxes, scores, 0.3, groups) == at_once == greedy_by_group(boxes, scores, groups, 0.3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_boxes(xp, dtype):
    boxes, scores, groups = (
        xp.zeros((0, 4), dtype=dtype),
        xp.zeros(0, dtype=dtype),
        xp.zeros(0, dtype=xp.int64),
    )
    for kept in (nms(boxes, scores, 0.5), batched_nms(boxes, scores, groups, 0.5)):
        assert kept.shape == (0,)
        assert_library(xp, kept)
        assert kept.dtype == np.int64


# How many passes


def count_passes(xp, monkeypatch, boxes, scores, threshold):
    """Kept indices, and how often the rule was applied: one matrix product each time."""
    passes = []

    class Counting:
        def __getattr__(self, name):
            return getattr(xp, name)

        def matmul(self, a, b):
            passes.append(1)
            return xp.matmul(a, b)

    monkeypatch.setattr(module, "array_module", lambda _: Counting())
    return run(xp, boxes, scores, threshold), len(passes)


def test_the_longest_chain(xp, monkeypatch):
    """Each box suppresses the next if it is kept itself: the answer runs down the chain, a box a pass."""
    chain = [(4 * i, 0, 4 * i + 10, 10) for i in range(101)]
    kept, passes = count_passes(xp, monkeypatch, chain, np.arange(101, 0, -1), 0.4)
    assert kept == list(range(0, 101, 2))
    assert 100 <= passes <= 102


def test_usual_boxes_take_few_passes(xp, rng, monkeypatch):
    """Clusters around twenty objects, as a detector makes them: 300 boxes, and not 300 steps."""
    centres = rng.uniform(0, 200, (20, 1, 2)) + rng.normal(size=(20, 15, 2)) * 4
    sizes = rng.uniform(20, 30, (20, 15, 2))
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=-1).reshape(-1, 4)
    scores = rng.uniform(size=300)
    kept, passes = count_passes(xp, monkeypatch, boxes, scores, 0.5)
    assert kept == greedy(boxes, scores, 0.5)
    assert passes <= 10


# torchvision's answers


@pytest.mark.parametrize("case", cases("nms"))
def test_is_torchvision_s(xp, case):
    kept = run(xp, case["boxes"], case["scores"], float(case["iou_threshold"]))
    assert kept == case["keep"].tolist()
