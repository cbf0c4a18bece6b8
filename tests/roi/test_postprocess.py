"""From the heads' outputs to detections."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_close, assert_library, cases

from mrcnn_scratch.backend import to_host
from mrcnn_scratch.config import RoIConfig
from mrcnn_scratch.roi import box_detections, mask_probabilities, paste_in_parts, paste_masks

# Boxes, by hand


def run(xp, probabilities, boxes, deltas=None, size=(100, 100), **numbers):
    """``box_detections`` of class probabilities (K, C + 1), whose logarithms are logits; host arrays."""
    logits = np.log(np.asarray(probabilities, float))
    deltas = np.zeros((*logits.shape, 4)) if deltas is None else np.asarray(deltas, float)
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    arrays = (xp.asarray(a) for a in (logits, deltas, boxes))
    found = box_detections(*arrays, size, RoIConfig(**numbers))
    assert_library(xp, *found)
    return [to_host(a) for a in found]


A, NEAR_A, FAR = (0, 0, 10, 10), (0, 0, 10, 8), (50, 50, 60, 60)


def test_best_first_without_background(xp):
    """A region is reported under each class that is likely enough: 0.3 and 0.6 of the first, 0.9 of the second."""
    boxes, labels, scores = run(xp, [[0.1, 0.3, 0.6], [0.08, 0.02, 0.9]], [A, FAR])
    assert labels.tolist() == [2, 2, 1]
    assert_close(scores, [0.9, 0.6, 0.3])
    assert boxes.tolist() == [list(FAR), list(A), list(A)]


def test_score_has_to_be_above_the_threshold(xp):
    _, labels, _ = run(xp, [[0.5, 0.2, 0.3]], [A], score_threshold=0.25)
    assert labels.tolist() == [2]


def test_suppression_is_class_by_class(xp):
    """IoU 0.8: of one class the weaker falls, of two classes both stay."""
    same = run(xp, [[0.1, 0.89, 0.01], [0.3, 0.69, 0.01]], [A, NEAR_A])
    assert same[1].tolist() == [1]
    assert same[0].tolist() == [list(A)]
    other = run(xp, [[0.1, 0.89, 0.01], [0.3, 0.01, 0.69]], [A, NEAR_A])
    assert other[1].tolist() == [1, 2]


def test_each_class_moves_the_box_its_own_way(xp):
    """Deltas are in tenths of the box: dx = 1 moves it by a tenth of its width, for the class that says so."""
    deltas = np.zeros((1, 3, 4))
    deltas[0, 1, 0], deltas[0, 2, 1] = 1, 2
    boxes, labels, _ = run(xp, [[0.1, 0.5, 0.4]], [(10, 10, 20, 20)], deltas)
    assert labels.tolist() == [1, 2]
    assert_close(boxes, [[11, 10, 21, 20], [10, 12, 20, 22]])


def test_clipped_to_the_image_and_dropped_if_nothing_is_left(xp):
    boxes, _, _ = run(xp, [[0.1, 0.9]] * 2, [(90, 70, 130, 110), (200, 0, 210, 10)], size=(80, 100))
    assert boxes.tolist() == [[90, 70, 100, 80]]


def test_no_more_than_asked_for(xp):
    boxes = [(20 * i, 0, 20 * i + 10, 10) for i in range(4)]
    _, _, scores = run(xp, [[1 - p, p] for p in (0.6, 0.9, 0.7, 0.8)], boxes, detections=2)
    assert_close(scores, [0.9, 0.8])


@pytest.mark.parametrize("rows", [0, 3])
def test_nothing_found(xp, rows):
    boxes, labels, scores = run(xp, np.tile([0.98, 0.01, 0.01], (rows, 1)), [A] * rows)
    assert (boxes.shape, labels.shape, scores.shape) == ((0, 4), (0,), (0,))


# Boxes, the slow version


def slow_detections(probabilities, boxes, deltas, size, config):
    """Class by class, greedily; ties do not occur."""
    found = []
    for label in range(1, probabilities.shape[1]):
        moved = [move(d[label], b, config.box_weights, size) for d, b in zip(deltas, boxes, strict=True)]
        candidates = [
            (probabilities[i, label], label, box)
            for i, box in enumerate(moved)
            if probabilities[i, label] > config.score_threshold and min(box[2] - box[0], box[3] - box[1]) >= 1e-2
        ]
        kept = []
        for candidate in sorted(candidates, reverse=True):
            if all(iou(candidate[2], other[2]) <= config.nms_iou for other in kept):
                kept.append(candidate)
        found += kept
    return sorted(found, reverse=True)[: config.detections]


def move(delta, box, weights, size):
    dx, dy, dw, dh = (d / w for d, w in zip(delta, weights, strict=True))
    width, height = box[2] - box[0], box[3] - box[1]
    x, y = box[0] + width / 2 + dx * width, box[1] + height / 2 + dy * height
    width, height = (s * math.exp(min(d, math.log(1000 / 16))) for s, d in ((width, dw), (height, dh)))
    corners = (x - width / 2, size[1]), (y - height / 2, size[0]), (x + width / 2, size[1]), (y + height / 2, size[0])
    return [min(max(value, 0), limit) for value, limit in corners]


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


@given(
    count=st.integers(0, 15),
    classes=st.integers(1, 3),
    detections=st.integers(1, 10),
    threshold=st.sampled_from([0.1, 0.5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_is_the_slow_one(xp, count, classes, detections, threshold, seed):
    rng = np.random.default_rng(seed)
    weights = rng.exponential(size=(count, classes + 1))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    corners = rng.uniform(-5, 20, (count, 2))
    boxes = np.hstack([corners, corners + rng.uniform(1, 15, (count, 2))])
    deltas = rng.normal(0, 2, (count, classes + 1, 4))
    numbers = {"detections": detections, "nms_iou": threshold, "score_threshold": 0.2}
    found = run(xp, probabilities, boxes, deltas, (30, 25), **numbers)
    expected = slow_detections(probabilities, boxes, deltas, (30, 25), RoIConfig(**numbers))
    assert found[1].tolist() == [label for _, label, _ in expected]
    assert_close(found[2], [score for score, _, _ in expected], 1e-9)
    assert_close(found[0], np.array([box for _, _, box in expected]).reshape(-1, 4), 1e-9)


# Masks, by hand


def test_the_mask_of_the_detected_class(xp):
    """Logits 0, log 3 and -log 3 are probabilities 1/2, 3/4 and 1/4."""
    logits = np.zeros((2, 1, 1, 3))
    logits[..., 1], logits[..., 2] = math.log(3), -math.log(3)
    masks = mask_probabilities(xp.asarray(logits), xp.asarray([2, 1]))
    assert_library(xp, masks)
    assert_close(masks, [[[0.25]], [[0.75]]])


def test_pasted_where_bins_are_pixels(xp):
    """2 x 2 bins and their border are 4 x 4; the box, 1.5 wide about (3, 3), grows two-fold to the pixels 1 .. 4.

    So each bin is one pixel, and the mask lands on the middle ones, 2 and 3.
    """
    masks = xp.asarray([[[0.1, 0.2], [0.3, 0.4]]])
    pasted = to_host(paste_masks(masks, xp.asarray([[2.25, 2.25, 3.75, 3.75]]), (6, 7)))
    expected = np.zeros((1, 6, 7))
    expected[0, 2:4, 2:4] = [[0.1, 0.2], [0.3, 0.4]]
    assert_close(pasted, expected)


def test_pasted_at_twice_the_size(xp):
    """One bin and its border, three, over the six pixels 0 .. 5: centres of pixels lie a quarter off those of bins."""
    box = xp.asarray([[2.0, 2, 3.7, 3.7]])  # 1.7 wide about 2.85, grown three-fold: 0.3 .. 5.4, cut to 0 .. 5
    pasted = to_host(paste_masks(xp.ones((1, 1, 1)), box, (8, 6)))
    profile = np.array([0, 0.25, 0.75, 0.75, 0.25, 0])
    assert_close(pasted[0, :6], np.outer(profile, profile))
    assert not pasted[0, 6:].any()


def test_outside_the_image_is_cut_off(xp):
    """The same box moved up and left by 3 pixels: what is left is the lower right part."""
    masks = xp.asarray([[[0.1, 0.2], [0.3, 0.4]]])
    pasted = to_host(paste_masks(masks, xp.asarray([[-0.75, -0.75, 0.75, 0.75]]), (3, 3)))
    assert pasted.shape == (1, 3, 3)
    assert_close(pasted, slow_paste(to_host(masks)[0], [-0.75, -0.75, 0.75, 0.75], (3, 3))[None])
    assert pasted[0, 0, 0] > 0
    assert not pasted[0, 2].any()


# Masks, the slow version


def slow_paste(mask, box, size):
    """Pixel by pixel: where does its centre lie among the centres of the bins?"""
    bins = len(mask) + 2
    padded = np.zeros((bins, bins))
    padded[1:-1, 1:-1] = mask
    centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half_width, half_height = ((box[i + 2] - box[i]) / 2 * bins / (bins - 2) for i in (0, 1))
    x1, y1, x2, y2 = (
        math.trunc(v)
        for v in (centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height)
    )
    width, height = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    image = np.zeros(size)
    for row, column in np.ndindex(*size):
        if y1 <= row < y1 + height and x1 <= column < x1 + width:
            y, x = (row - y1 + 0.5) * bins / height - 0.5, (column - x1 + 0.5) * bins / width - 0.5
            image[row, column] = bilinear(padded, y, x)
    return image


def bilinear(image, y, x):
    last = len(image) - 1
    y, x = min(max(y, 0), last), min(max(x, 0), last)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, last), min(left + 1, last)
    upper = (1 - x + left) * image[top, left] + (x - left) * image[top, right]
    lower = (1 - x + left) * image[bottom, left] + (x - left) * image[bottom, right]
    return (1 - y + top) * upper + (y - top) * lower


EIGHTHS = st.integers(-40, 160).map(lambda i: i / 8 + 0.01)  # on a whole pixel, truncation might go either way
SPANS = st.integers(0, 160).map(lambda i: i / 8)
BOXES = st.tuples(EIGHTHS, EIGHTHS, SPANS, SPANS).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


@given(boxes=st.lists(BOXES, max_size=3), bins=st.sampled_from([1, 2, 5]), seed=st.integers(0, 2**32 - 1))
def test_pasting_is_the_slow_one(xp, boxes, bins, seed):
    masks = np.random.default_rng(seed).random((len(boxes), bins, bins))
    pasted = paste_masks(xp.asarray(masks), xp.asarray(np.array(boxes).reshape(-1, 4)), (12, 15))
    expected = [slow_paste(mask, box, (12, 15)) for mask, box in zip(masks, boxes, strict=True)]
    assert_library(xp, pasted)
    assert_close(pasted, np.array(expected).reshape(-1, 12, 15), 1e-9)


def test_pasting_in_parts_is_pasting(xp, rng):
    masks, corners = rng.random((7, 4, 4)), rng.uniform(0, 10, (7, 2))
    boxes = np.hstack([corners, corners + rng.uniform(1, 9, (7, 2))])
    masks, boxes = xp.asarray(masks), xp.asarray(boxes)
    together = to_host(paste_masks(masks, boxes, (12, 15)))
    for pixels, parts in ((1, 7), (2 * 12 * 15, 4), (10**6, 1)):
        pasted = list(paste_in_parts(masks, boxes, (12, 15), pixels))
        assert len(pasted) == parts
        assert_library(xp, *pasted)
        assert_close(xp.concatenate(pasted), together)
    assert list(paste_in_parts(masks[:0], boxes[:0], (12, 15))) == []


# torchvision


def test_pasting_reference(xp):
    (case,) = cases("paste_masks")
    pasted = paste_masks(xp.asarray(case["masks"][:, 0]), xp.asarray(case["boxes"]), tuple(case["image_size"].tolist()))
    assert_close(pasted, case["pasted"][:, 0], 1e-5)
