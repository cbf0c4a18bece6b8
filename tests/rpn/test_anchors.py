"""Anchors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_library, cases

from mrcnn_scratch.backend import to_host
from mrcnn_scratch.rpn import AnchorGenerator
from mrcnn_scratch.rpn.anchors import cell_anchors


def lay_out(xp, sizes, ratios, grids, image_size):
    """All levels' anchors, laid out by ``xp`` and read on the host."""
    levels = AnchorGenerator(sizes, ratios).levels(grids, image_size, xp)
    assert_library(xp, *levels)
    return to_host(xp.concatenate(levels))


# By hand: the few anchors of one place, which are always made on the host


def test_one_place():
    """Size 32: 32 x 32; and at ratio 1/4 (h / w) half as high and twice as wide, at 4 the other way round."""
    assert cell_anchors([32], [0.25, 1, 4]).tolist() == [
        [-32, -8, 32, 8],
        [-16, -16, 16, 16],
        [-8, -32, 8, 32],
    ]


def test_corners_are_whole_pixels():
    """Ratio 1/2 of size 8: 11.31 wide, 5.66 high; halves are 5.66 and 2.83, rounded 6 and 3."""
    assert cell_anchors([8], [0.5]).tolist() == [[-6, -3, 6, 3]]


def test_halves_round_to_even():
    """Sides of 5 and 7 give corners at 2.5 and 3.5: to 2 and to 4."""
    assert cell_anchors([5], [1]).tolist() == [[-2, -2, 2, 2]]
    assert cell_anchors([7], [1]).tolist() == [[-4, -4, 4, 4]]


# By hand: laid out over the levels


def test_two_levels(xp):
    """An 8 x 16 image with a level of 2 x 2 places and one of 1 x 1: strides 4 and 8 down, 8 and 16 right."""
    anchors = lay_out(xp, [[4], [8]], [1.0], [(2, 2), (1, 1)], (8, 16))
    assert anchors.tolist() == [
        [-2, -2, 2, 2],  # row 0, column 0: centred on the corner of its cell
        [6, -2, 10, 2],  # row 0, column 1
        [-2, 2, 2, 6],  # row 1
        [6, 2, 10, 6],
        [-4, -4, 4, 4],  # the next level
    ]


def test_anchors_of_one_place_come_together(xp):
    anchors = lay_out(xp, [[2, 4]], [1.0], [(1, 2)], (8, 16))
    assert anchors[:, 2].tolist() == [1, 2, 9, 10]


# Properties

GRIDS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=3)
RATIOS = st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0]), min_size=1, max_size=3)


@given(grids=GRIDS, ratios=RATIOS, size=st.integers(1, 3))
def test_every_place_has_every_anchor(xp, grids, ratios, size):
    generator = AnchorGenerator([[32.0] * size] * len(grids), ratios)
    assert generator.per_place == size * len(ratios)
    levels = generator.levels(grids, (64, 96), xp)
    assert [level.shape for level in levels] == [(h * w * generator.per_place, 4) for h, w in grids]
    assert {level.dtype for level in levels} == {np.dtype(np.float32)}
    assert np.array_equal(np.concatenate([to_host(level) for level in levels]), generator(grids, (64, 96)))


@given(grid=st.tuples(st.integers(1, 6), st.integers(1, 6)), ratios=RATIOS)
def test_is_the_slow_one(xp, grid, ratios):
    """Row by row, column by column, anchor by anchor."""
    rows, columns = grid
    stride_y, stride_x = 60 // rows, 60 // columns
    expected = [
        [x * stride_x + dx1, y * stride_y + dy1, x * stride_x + dx2, y * stride_y + dy2]
        for y in range(rows)
        for x in range(columns)
        for dx1, dy1, dx2, dy2 in cell_anchors([16, 30], ratios).tolist()
    ]
    assert lay_out(xp, [[16, 30]], ratios, [grid], (60, 60)).tolist() == expected


def test_as_many_levels_as_sizes():
    with pytest.raises(ValueError, match="zip"):
        AnchorGenerator([[8], [16]], [1.0])([(2, 2)], (8, 8))


# torchvision


@pytest.mark.parametrize("case", range(2))
def test_reference(xp, case):
    case = cases("anchors")[case]
    grids = [tuple(grid) for grid in case["grid"].tolist()]
    image_size = tuple(case["image_size"].tolist())
    anchors = lay_out(xp, case["sizes"].tolist(), case["ratios"].tolist(), grids, image_size)
    assert np.array_equal(anchors, case["anchors"])
