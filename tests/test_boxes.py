"""Box arithmetic: areas, IoU, clipping, encoding and decoding."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_close, assert_library, cases

from mrcnn_scratch.backend import to_host
from mrcnn_scratch.boxes import box_area, box_iou, clip_boxes, decode_boxes, encode_boxes

ONES = (1.0, 1.0, 1.0, 1.0)

# By hand


def boxes_of(xp, *boxes):
    return xp.asarray(np.array(boxes, dtype=float).reshape(-1, 4))


def test_area_by_hand(xp):
    """Width is x2 - x1: no +1."""
    assert to_host(box_area(boxes_of(xp, (1, 2, 4, 4), (1, 1, 1, 5)))).tolist() == [3 * 2, 0]


def test_iou_by_hand(xp):
    a = boxes_of(xp, (0, 0, 4, 2))
    b = boxes_of(xp, (0, 0, 4, 2), (2, 0, 6, 2), (3, 1, 7, 3), (4, 0, 8, 2), (1, 0, 2, 1))
    # The same; 4 in common of 12; 1 of 15; touching at an edge; 1 inside 8.
    assert_close(box_iou(a, b), [[1, 4 / 12, 1 / 15, 0, 1 / 8]])


def test_clip_by_hand(xp):
    """Size is (height, width): x stays in 0..20 and y in 0..10."""
    clipped = clip_boxes(boxes_of(xp, (-5, -5, 5, 5), (15, 5, 25, 15), (30, 30, 40, 40)), (10, 20))
    assert to_host(clipped).tolist() == [[0, 0, 5, 5], [15, 5, 20, 10], [20, 10, 20, 10]]


def test_encode_and_decode_by_hand(xp):
    """From centre (5, 5), 10 x 10, to centre (10, 15), 20 x 10: half a width, one height, twice as wide."""
    target, reference = boxes_of(xp, (0, 10, 20, 20)), boxes_of(xp, (0, 0, 10, 10))
    assert_close(encode_boxes(target, reference, ONES), [[0.5, 1, math.log(2), 0]])
    deltas = encode_boxes(target, reference, (10.0, 20.0, 5.0, 3.0))
    assert_close(deltas, [[10 * 0.5, 20 * 1, 5 * math.log(2), 3 * 0]])
    assert_close(decode_boxes(deltas, reference, (10.0, 20.0, 5.0, 3.0)), [[0, 10, 20, 20]])


def test_growth_is_bounded(xp):
    """No delta makes a box more than 1000 / 16 times as large: early, wild predictions must not overflow."""
    decoded = decode_boxes(xp.asarray([[0, 0, 1e3, 1e3], [0, 0, -1e3, -1e3]]), boxes_of(xp, (0, 0, 16, 16)), ONES)
    assert_close(decoded, [[8 - 500, 8 - 500, 8 + 500, 8 + 500], [8, 8, 8, 8]])
    # The bound holds after the weights are divided out.
    weighted = decode_boxes(
        xp.asarray([[0, 0, 5 * math.log(2), 0]]), boxes_of(xp, (0, 0, 16, 16)), (10.0, 10.0, 5.0, 5.0)
    )
    assert_close(weighted, [[-8, 0, 24, 16]])


# The slow version


def slow_iou(a, b):
    """Count the unit squares that two boxes with whole-number corners cover."""

    def squares(box):
        x1, y1, x2, y2 = box
        return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}

    union = len(squares(a) | squares(b))
    return len(squares(a) & squares(b)) / union if union else 0


WHOLE = st.tuples(*[st.integers(0, 6)] * 4).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)
SEEDS = st.integers(0, 2**32 - 1)


@given(a=st.lists(WHOLE, max_size=5), b=st.lists(WHOLE, max_size=5))
def test_iou_counts_squares(xp, a, b):
    expected = np.array([[slow_iou(p, q) for q in b] for p in a]).reshape(len(a), len(b))
    assert_close(box_iou(boxes_of(xp, *a), boxes_of(xp, *b)), expected)


# Properties


def random_boxes(rng, *shape):
    """(..., 4), sides of 1 to 50."""
    corner = rng.uniform(-50, 50, (*shape, 2))
    return np.concatenate([corner, corner + rng.uniform(1, 50, (*shape, 2))], axis=-1)


@given(seed=SEEDS, n=st.integers(0, 6), m=st.integers(0, 6))
def test_iou_is_symmetric_and_bounded(xp, seed, n, m):
    rng = np.random.default_rng(seed)
    a, b = xp.asarray(random_boxes(rng, n)), xp.asarray(random_boxes(rng, m))
    iou = to_host(box_iou(a, b))
    assert iou.shape == (n, m)
    assert ((iou >= 0) & (iou <= 1)).all()
    assert iou.tolist() == to_host(box_iou(b, a)).T.tolist()
    assert_close(np.diag(to_host(box_iou(a, a))), np.ones(n))


@given(seed=SEEDS)
def test_iou_of_batches_is_iou_one_by_one(xp, seed):
    rng = np.random.default_rng(seed)
    a, b = random_boxes(rng, 2, 3, 4), random_boxes(rng, 2, 3, 5)
    together = to_host(box_iou(xp.asarray(a), xp.asarray(b)))
    assert together.shape == (2, 3, 4, 5)
    for i, j in np.ndindex(2, 3):
        assert together[i, j].tolist() == to_host(box_iou(xp.asarray(a[i, j]), xp.asarray(b[i, j]))).tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_boxes_without_area(xp, dtype):
    """A point overlaps nothing, not even itself, and 0 / 0 gives no nan."""
    boxes = xp.asarray([[3, 3, 3, 3], [3, 3, 3, 9], [0, 0, 10, 10]], dtype=dtype)
    iou = box_iou(boxes, boxes)
    assert iou.dtype == dtype
    assert to_host(iou).tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]


@given(seed=SEEDS, size=st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_clipping(xp, seed, size):
    """Clipped boxes lie inside, and clipping again changes nothing."""
    height, width = size
    once = clip_boxes(xp.asarray(random_boxes(np.random.default_rng(seed), 2, 3)), size)
    x1, y1, x2, y2 = np.moveaxis(to_host(once), -1, 0)
    assert ((x1 >= 0) & (x1 <= x2) & (x2 <= width)).all()
    assert ((y1 >= 0) & (y1 <= y2) & (y2 <= height)).all()
    assert to_host(clip_boxes(once, size)).tolist() == to_host(once).tolist()


WEIGHTS = st.tuples(*[st.floats(0.5, 20)] * 4)


@given(seed=SEEDS, weights=WEIGHTS)
def test_decode_undoes_encode(xp, seed, weights):
    rng = np.random.default_rng(seed)
    targets, references = random_boxes(rng, 2, 5), xp.asarray(random_boxes(rng, 2, 5))
    deltas = encode_boxes(xp.asarray(targets), references, weights)
    assert_close(decode_boxes(deltas, references, weights), targets, 1e-12)
    assert to_host(encode_boxes(references, references, weights)).tolist() == np.zeros((2, 5, 4)).tolist()


@given(seed=SEEDS, zoom=st.floats(0.1, 10), shift=st.floats(-100, 100))
def test_deltas_do_not_depend_on_place_or_scale(xp, seed, zoom, shift):
    """Move and enlarge the picture, and the deltas stay the same: hence one head can serve all levels."""
    rng = np.random.default_rng(seed)
    targets, references = random_boxes(rng, 5), random_boxes(rng, 5)
    deltas = encode_boxes(xp.asarray(targets), xp.asarray(references), ONES)
    moved = encode_boxes(xp.asarray(zoom * targets + shift), xp.asarray(zoom * references + shift), ONES)
    assert_close(moved, to_host(deltas), 1e-9)


def test_decode_broadcasts_references(xp, rng):
    """One proposal, a box for each class: (R, K, 4) deltas on (R, 1, 4) proposals."""
    deltas, references = rng.normal(size=(3, 2, 4)), random_boxes(rng, 3, 1)
    decoded = to_host(decode_boxes(xp.asarray(deltas), xp.asarray(references), ONES))
    assert decoded.shape == (3, 2, 4)
    for k in range(2):
        alone = decode_boxes(xp.asarray(deltas[:, k]), xp.asarray(references[:, 0]), ONES)
        assert decoded[:, k].tolist() == to_host(alone).tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [0, 3])
def test_library_precision_shape_and_inputs_are_kept(xp, rng, dtype, n):
    host = [random_boxes(rng, n).astype(dtype), random_boxes(rng, n).astype(dtype)]
    a, b = (xp.asarray(x.copy()) for x in host)
    for x in (a, b):
        if isinstance(x, np.ndarray):
            x.flags.writeable = False
    for result in (clip_boxes(a, (10, 10)), encode_boxes(a, b, ONES), decode_boxes(a, b, ONES)):
        assert_library(xp, result)
        assert result.dtype == dtype
        assert result.shape == (n, 4)
    assert_library(xp, box_area(a), box_iou(a, b))
    assert box_area(a).dtype == box_iou(a, b).dtype == dtype
    assert [to_host(x).tolist() for x in (a, b)] == [x.tolist() for x in host]


# torchvision's numbers


@pytest.mark.parametrize("case", cases("box_iou"))
def test_iou_is_torchvision_s(xp, case):
    assert_close(box_iou(xp.asarray(case["a"]), xp.asarray(case["b"])), case["iou"], 1e-9)


@pytest.mark.parametrize("case", cases("box_coder"))
def test_encode_and_decode_are_torchvision_s(xp, case):
    weights, proposals = tuple(case["weights"].tolist()), xp.asarray(case["proposals"])
    assert_close(encode_boxes(xp.asarray(case["gt"]), proposals, weights), case["encoded"], 1e-9)
    assert_close(decode_boxes(xp.asarray(case["deltas"]), proposals, weights), case["decoded"], 1e-9)
