"""Polygons as masks: by hand, pixel by pixel, and beside COCO's own code."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from mrcnn_scratch.data import polygons
from mrcnn_scratch.data.polygons import FARTHEST, polygon_mask
from mrcnn_scratch.errors import InputError


def drawn(mask):
    """A mask as rows of text."""
    return ["".join("#" if pixel else "." for pixel in row) for row in mask]


# By hand


def test_a_rectangle_covers_the_pixels_between_its_corners():
    """x from 1 to 4 and y from 1 to 3: columns 1, 2, 3 of rows 1, 2."""
    mask = polygon_mask([[1, 1, 4, 1, 4, 3, 1, 3]], (4, 5))
    assert mask.dtype == bool
    assert drawn(mask) == [".....", ".###.", ".###.", "....."]


def test_a_triangle():
    """Centres (c + .5, r + .5) with x + y < 4. Those on the slanted edge itself, x + y = 4, lie outside."""
    assert drawn(polygon_mask([[0, 0, 4, 0, 0, 4]], (4, 4))) == ["###.", "##..", "#...", "...."]


def test_centres_on_an_edge_belong_to_the_right_and_the_bottom():
    """A square from centre to centre: a half is rounded up, to step 3 of a pixel's five, past the middle at 2."""
    assert drawn(polygon_mask([[0.5, 0.5, 2.5, 0.5, 2.5, 2.5, 0.5, 2.5]], (3, 3))) == ["...", ".##", ".##"]


def test_a_self_crossing_outline_is_even_odd():
    """The outline runs round the outer square, then round the inner one: the inner is crossed into twice."""
    outer_inner = [0, 0, 5, 0, 5, 5, 0, 5, 0, 0, 1, 1, 4, 1, 4, 4, 1, 4, 1, 1]
    assert drawn(polygon_mask([outer_inner], (5, 5))) == ["#####", "#...#", "#...#", "#...#", "#####"]


def test_parts_are_united():
    """Where two parts overlap the pixel is set: the even-odd rule holds within a part only."""
    left, right = [0, 0, 3, 0, 3, 1, 0, 1], [2, 0, 5, 0, 5, 1, 2, 1]
    assert drawn(polygon_mask([left, right], (1, 6))) == ["#####."]


def test_beyond_the_image():
    """Cut off at all four sides; a polygon wholly outside, and one that holds the image."""
    assert drawn(polygon_mask([[-9, 1, 99, 1, 99, 2, -9, 2]], (3, 3))) == ["...", "###", "..."]
    assert drawn(polygon_mask([[1, -9, 2, -9, 2, 99, 1, 99]], (3, 3))) == [".#.", ".#.", ".#."]
    assert not polygon_mask([[5, 0, 9, 0, 9, 9]], (3, 3)).any()
    assert not polygon_mask([[-5, 0, -9, 0, -9, 9]], (3, 3)).any()
    assert polygon_mask([[-FARTHEST, -FARTHEST, FARTHEST, -FARTHEST, 0, FARTHEST]], (3, 3)).all()


def test_too_thin_for_any_centre():
    assert not polygon_mask([[0.6, 0, 1.4, 0, 1.4, 3, 0.6, 3]], (3, 3)).any()
    assert not polygon_mask([[1, 1, 1, 1, 1, 1]], (3, 3)).any()


# Beside the slow version

COORDINATES = st.integers(-8, 28).map(lambda quarter: quarter / 4) | st.floats(-4, 9, width=32)
PARTS = st.lists(st.lists(st.tuples(COORDINATES, COORDINATES), min_size=3, max_size=9), min_size=1, max_size=3).map(
    lambda parts: [[value for point in part for value in point] for part in parts]
)
SIZES = st.tuples(st.integers(1, 7), st.integers(1, 7))


def walked(part, size):
    """One outline, step by step, as COCO's rleFrPoly goes: the pixels at and below each crossing turn over."""
    height, width = size
    mask = np.zeros(size, bool)
    corners = [(int(5 * x + 0.5), int(5 * y + 0.5)) for x, y in zip(part[::2], part[1::2], strict=True)]
    places = []
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        dx, dy = abs(x1 - x0), abs(y1 - y0)
        flip = (dx >= dy and x0 > x1) or (dx < dy and y0 > y1)
        if flip:
            x0, y0, x1, y1 = x1, y1, x0, y0
        steps = max(dx, dy)
        for i in range(steps + 1):
            t = steps - i if flip else i
            if dx >= dy:
                places.append((x0 + t, int(y0 + (y1 - y0) / max(dx, 1) * t + 0.5)))
            else:
                places.append((int(x0 + (x1 - x0) / dy * t + 0.5), y0 + t))
    for (u0, v0), (u1, v1) in itertools.pairwise(places):
        column, fifth = divmod(min(u0, u1) - 2, 5)
        if u0 != u1 and fifth == 0 and 0 <= column < width:
            row = math.ceil(min(max((min(v0, v1) + 0.5) / 5 - 0.5, 0), height))
            mask[row:, column] ^= True
    return mask


@given(parts=PARTS, size=SIZES)
def test_step_by_step(parts, size):
    slow = np.any([walked(part, size) for part in parts], axis=0)
    assert np.array_equal(polygon_mask(parts, size), slow)


# Properties


@given(parts=PARTS, size=SIZES, turn=st.integers(0, 8))
def test_where_the_outline_starts_and_which_way_it_runs(parts, size, turn):
    corners = [np.reshape(part, (-1, 2)) for part in parts]
    turned = [np.roll(points, turn, axis=0)[::-1].ravel().tolist() for points in corners]
    assert np.array_equal(polygon_mask(turned, size), polygon_mask(parts, size))


@given(centre=st.tuples(st.floats(0, 7), st.floats(0, 5)))
def test_neighbours_share_no_pixel_and_leave_none_out(centre):
    """Four triangles from a point to the sides of the image."""
    frame = [(0, 0), (7, 0), (7, 5), (0, 5)]
    triangles = [[*frame[i], *frame[(i + 1) % 4], *centre] for i in range(4)]
    assert (sum(polygon_mask([t], (5, 7)).astype(int) for t in triangles) == 1).all()


def test_block_by_block(monkeypatch):
    """A zigzag has as many crossings as corners times rows: they are counted in portions."""
    rng = np.random.default_rng(0)
    zigzag = rng.uniform(0, 30, 120).tolist()
    whole = polygon_mask([zigzag], (30, 30))
    monkeypatch.setattr(polygons, "_BLOCK", 100)
    assert np.array_equal(polygon_mask([zigzag], (30, 30)), whole)


# Beside pycocotools


def random_outline(rng, kind, size):
    """Corners (P, 2) around a point in the image or just outside it."""
    height, width = size
    count = rng.integers(3, 13)
    angles = np.sort(rng.uniform(0, 2 * np.pi, count))
    radii = {
        "convex": np.full(count, rng.uniform(1, 40)),
        "star": rng.uniform(1, 40, count),
        "crossing": rng.uniform(1, 40, count),
        "tiny": rng.uniform(0.05, 2, count),
        "larger than the image": rng.uniform(30, 100, count),
        "touching the border": rng.uniform(1, 60, count),
    }[kind]
    if kind == "crossing":
        angles = rng.permutation(angles)
    points = rng.uniform([-5, -5], [width + 5, height + 5])
    points = points + np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]
    return np.clip(points, 0, [width, height]) if kind == "touching the border" else points


KINDS = ["convex", "star", "crossing", "tiny", "larger than the image", "touching the border"]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, with NumPy 2
@pytest.mark.parametrize("kind", KINDS)
def test_every_pixel_is_pycocotools(kind):
    rng = np.random.default_rng(KINDS.index(kind))
    for _ in range(100):
        size = tuple(rng.integers(1, 80, 2).tolist())
        outlines = [random_outline(rng, kind, size) for _ in range(rng.integers(1, 4))]
        parts = [points.ravel().tolist() for points in outlines]
        theirs = coco.decode(coco.merge(coco.frPyObjects(parts, *size))).astype(bool)
        assert np.array_equal(polygon_mask(parts, size), theirs)


# Bad input


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "no polygon"),
        (None, "no polygon"),
        ("0 0 1 1", "no polygon"),
        ([0, 0, 4, 0, 4, 4], "polygon 1 is a int"),
        ([[0, 0, 4, 0, 4, 4], None], "polygon 2 is a NoneType"),
        ([[]], "0 points"),
        ([[0, 0, 4, 4]], "2 points: it needs at least 3"),
        ([[0, 0, 4, 0, 4, 4, 0]], "7 numbers, which is odd"),
        ([[0, 0, 4, 0, 4, float("nan")]], "finite"),
        ([[0, 0, 4, 0, 4, float("inf")]], "finite"),
        ([[0, 0, 4, 0, 4, 10**400]], "finite"),
        ([[0, 0, 4, 0, 4, "4"]], "finite"),
        ([[0, 0, 4, 0, 4, True]], "finite"),
        ([[0, 0, 4, 0, 4, [4]]], "finite"),
    ],
)
def test_no_polygons(parts, message):
    with pytest.raises(InputError, match=message) as error:
        polygon_mask(parts, (5, 5))
    assert "\n" not in str(error.value)
