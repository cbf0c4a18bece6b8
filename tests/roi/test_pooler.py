"""RoI Align over the pyramid."""

import math

import numpy as np
import pytest
from gradcheck import check_directional
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_close, assert_library

from mrcnn_scratch import ops
from mrcnn_scratch.backend import to_host
from mrcnn_scratch.config import RoIConfig
from mrcnn_scratch.roi import pool
from mrcnn_scratch.roi.pooler import assign_levels, spatial_scale

SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
"""Of P2, P3, P4, P5."""

# Levels, on paper


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("side", "level"),
    [
        (224, 4),  # log2(224 / 224) = 0: the canonical level
        (112, 3),  # log2(1 / 2) = -1
        (56, 2),
        (448, 5),
        (223.9, 3),  # just under a power of two is the level below ...
        (224.1, 4),
        (447.9, 4),
        (28, 2),  # ... and there is none below P2 or above P5
        (1, 2),
        (0, 2),
        (896, 5),
        (5000, 5),
    ],
)
def test_which_level(xp, side, level, dtype):
    boxes = xp.asarray([[10, 20, 10 + side, 20 + side]], dtype=dtype)
    levels = assign_levels(boxes, SCALES, RoIConfig())
    assert_library(xp, levels)
    assert to_host(levels).tolist() == [level - 2]


def test_the_area_decides_not_the_shape(xp):
    """448 x 112 has the area of 224 x 224."""
    boxes = xp.asarray([[0.0, 0, 448, 112], [0, 0, 112, 448]])
    assert to_host(assign_levels(boxes, SCALES, RoIConfig())).tolist() == [2, 2]


def test_another_canonical_size(xp):
    """In small images a smaller size reads P4."""
    config = RoIConfig(canonical_size=56)
    boxes = xp.asarray([[0.0, 0, side, side] for side in (14, 28, 56, 112)])
    assert to_host(assign_levels(boxes, SCALES, config)).tolist() == [0, 1, 2, 3]


def test_a_pyramid_that_starts_elsewhere(xp):
    """With P3 as the finest level, P4 is the second."""
    assert to_host(assign_levels(xp.asarray([[0.0, 0, 224, 224]]), SCALES[1:], RoIConfig())).tolist() == [1]


def test_spatial_scale_is_a_power_of_two():
    """A 100 pixel image has levels of 25, 13, 7 and 4 rows: 13 / 100 is meant to be 1/8."""
    assert [spatial_scale((rows, 1), (100, 1)) for rows in (25, 13, 7, 4)] == SCALES


# Pooling, by hand


def plain_levels(xp, dtype=np.float64):
    """Two images of 512 x 512 whose level P_k is k everywhere in the first, 10 k in the second."""
    sizes = [128, 64, 32, 16]
    return [
        xp.asarray(np.stack([np.full((s, s, 1), k), np.full((s, s, 1), 10 * k)]), dtype=dtype)
        for k, s in zip((2, 3, 4, 5), sizes, strict=True)
    ]


def run(xp, features, boxes, images, size=(512, 512), resolution=2):
    boxes = xp.asarray(np.asarray(boxes, float).reshape(-1, 4))
    images = xp.asarray(images, dtype=xp.int64)
    return pool(features, boxes, images, image_size=size, resolution=resolution, config=RoIConfig())


def test_each_box_reads_its_level_and_its_image(xp):
    boxes = [(0, 0, s, s) for s in (448, 112, 30, 224, 224)]
    y, _ = run(xp, plain_levels(xp), boxes, [0, 0, 0, 0, 1])
    assert y.shape == (5, 2, 2, 1)
    assert [set(r.ravel()) for r in to_host(y)] == [{5}, {3}, {2}, {4}, {40}]


def test_the_gradient_goes_where_it_was_read(xp):
    """Each output is an average of its level, so its gradient of 1 is shared out there, and nowhere else."""
    _, backward = run(xp, plain_levels(xp), [(0, 0, 112, 112), (0, 0, 224, 224)], [0, 1])
    sums = [to_host(d).sum(axis=(1, 2, 3)) for d in backward(xp.ones((2, 2, 2, 1)))]
    assert_close(np.array(sums), [[0, 0], [4, 0], [0, 4], [0, 0]])


def test_no_boxes(xp):
    y, backward = run(xp, plain_levels(xp), [], [])
    assert y.shape == (0, 2, 2, 1)
    gradients = backward(y)
    assert_library(xp, y, *gradients)
    assert [to_host(d).any() for d in gradients] == [False] * 4
    assert [d.shape for d in gradients] == [f.shape for f in plain_levels(xp)]


# The slow version, properties, gradients

BOXES = st.tuples(*[st.floats(0, 300, width=32)] * 2, *[st.floats(1, 600, width=32)] * 2).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@given(boxes=st.lists(st.tuples(BOXES, st.integers(0, 1)), max_size=6), seed=st.integers(0, 2**32 - 1))
def test_is_roi_align_box_by_box(xp, boxes, seed):
    rng = np.random.default_rng(seed)
    features = [xp.asarray(rng.normal(size=(2, s, s, 2))) for s in (64, 32, 16, 8)]
    y, _ = run(xp, features, [b for b, _ in boxes], [i for _, i in boxes], size=(256, 256))
    for row, (box, image) in enumerate(boxes):
        side = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
        level = min(max(math.floor(4 + math.log2(side / 224) + 1e-6), 2), 5) - 2
        expected, _ = ops.roi_align(
            features[level],
            xp.asarray([box], dtype=float),
            xp.asarray([image]),
            output_size=(2, 2),
            spatial_scale=SCALES[level],
            sampling_ratio=2,
        )
        assert_close(y[row : row + 1], to_host(expected), 1e-9)


def test_gradients(xp, rng):
    sides = (200, 100, 50, 300, 120)
    boxes = [(x, y, x + s, y + s) for s in sides for x, y in rng.uniform(0, 30, (1, 2))]
    features = [rng.normal(size=(2, s, s, 2)) for s in (40, 20, 10, 5)]

    def op(*levels):
        return run(xp, list(levels), boxes, [0, 1, 1, 0, 1], size=(160, 160))

    check_directional(op, features, rng, xp=xp)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_the_features(xp, dtype):
    features = plain_levels(xp, dtype)
    boxes, images = xp.asarray([[0, 0, 112, 112]], dtype=dtype), xp.zeros(1, dtype=xp.int64)
    y, backward = pool(features, boxes, images, image_size=(512, 512), resolution=2, config=RoIConfig())
    assert {y.dtype, *(d.dtype for d in backward(y))} == {np.dtype(dtype)}
