"""COCO's polygons as masks, pixel for pixel as COCO's own code draws them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..backend import Array
from ..errors import InputError

FARTHEST = 1e6
"""No coordinate may lie farther out, in pixels: no image is as large."""

FINER = 5
"""Steps to a pixel while walking along an outline."""

MOST_STEPS = 2**27
"""No outline may be longer, in steps: a hostile zigzag would take hours."""

_BLOCK = 2**20  # steps that are taken at once


def polygon_mask(parts: Sequence[Sequence[float]], size: tuple[int, int]) -> Array:
    """The pixels inside at least one of ``parts``.

    Pixel (row r, column c) covers the square from (c, r) to (c + 1, r + 1). Walk down the middle of column c, at
    x = c + 1/2: at first we are outside, and each crossing of the outline takes us in or out (the even-odd rule). So a
    pixel is inside where the number of crossings at or above it is odd, and the column, as a sequence of 0s and 1s,
    is what COCO stores as run lengths.

    Where exactly a crossing lies is COCO's choice (``rleFrPoly`` in maskApi.c), and AP depends on it: corners are
    rounded to fifths of a pixel, and the outline is walked in steps of a fifth along its longer direction, rounding the
    other one. The middle of column c lies between the steps 5 c + 2 and 5 c + 3; a walk that changes from one to the
    other at the fifth v crosses at v / 5 - 2 / 5 rows, and the first row at or below that is where the pixels turn.

    Args:
        parts: each ``[x1, y1, x2, y2, ...]`` in pixels, at least three corners, closed by itself. They may leave the
            image, cross themselves and overlap.
        size: (height, width) of the image.

    Returns:
        (H, W) bool: pycocotools' mask.

    Raises:
        InputError: ``parts`` is no list of such lists; the message says which and why.
    """
    outlines = _outlines(parts)
    mask = np.zeros(size, bool)
    for points in outlines:
        _fill(mask, points)
    return mask


def is_coordinate(value: Any) -> bool:
    """Whether ``value``, of any type, is a finite number (no bool) that can be a place in an image."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -FARTHEST <= value <= FARTHEST


def _outlines(parts: Any) -> list[Array]:
    """The corners of each part, (P, 2) float64."""
    if not isinstance(parts, list | tuple) or not parts:
        raise InputError("the segmentation has no polygon: give a list of [x1, y1, x2, y2, ...]")
    for number, part in enumerate(parts, start=1):
        if not isinstance(part, list | tuple):
            raise InputError(f"polygon {number} is a {type(part).__name__}: give a list [x1, y1, x2, y2, ...]")
        if not all(map(is_coordinate, part)):
            raise InputError(f"polygon {number} holds something else than finite numbers up to {FARTHEST:.0e}")
        if len(part) % 2:
            raise InputError(f"polygon {number} has {len(part)} numbers, which is odd: every x needs its y")
        if len(part) < 6:
            raise InputError(f"polygon {number} has {len(part) // 2} points: it needs at least 3")
    return [np.array(part, np.float64).reshape(-1, 2) for part in parts]


def _fill(mask: Array, points: Array) -> None:
    """Set the pixels of ``mask`` (H, W) inside one outline (P, 2)."""
    height = mask.shape[0]
    corners = np.trunc(FINER * points + 0.5).astype(np.int64)
    middles = (corners[:, 0] - 2) // FINER  # the last column whose middle lies left of each corner
    left, right = np.clip([middles.min(), middles.max() + 1], 0, mask.shape[1]).tolist()
    if left == right:  # nothing outside these columns changes, and most objects are small
        return
    turns = np.zeros((right - left) * height + 1, np.int64)  # how often each pixel turns those below it
    for x, y in _walk(corners):
        here = np.flatnonzero(x[1:] != x[:-1])
        column, fifth = np.divmod(np.minimum(x[1:], x[:-1])[here] - 2, FINER)
        row = np.ceil((np.minimum(y[1:], y[:-1])[here] + 0.5) / FINER - 0.5)
        row = np.clip(row, 0, height).astype(np.int64)
        crosses = (fifth == 0) & (column >= left) & (column < right)
        # Row `height` is row 0 of the next column: outlines are closed, so a column has turned back by its end.
        turns += np.bincount(((column - left) * height + row)[crosses], minlength=len(turns))
    inside = turns.cumsum()[:-1] % 2 == 1
    mask[:, left:right] |= inside.reshape(right - left, height).T


def _walk(corners: Array) -> Iterator[tuple[Array, Array]]:
    """Every step of the way round ``corners`` (P, 2): x and y of the steps, some at a time.

    An edge of dx by dy takes max(|dx|, |dy|) steps, one along its longer direction each time; the other coordinate
    is rounded. Edges are walked from their left or top end whichever way they point, so that two polygons meet in the
    same steps.
    """
    ends = np.roll(corners, -1, axis=0)
    difference = ends - corners
    flat = np.abs(difference[:, 0]) >= np.abs(difference[:, 1])  # (P,) longer in x than in y
    longer, shorter = (np.where(flat, *pair.T) for pair in (difference, difference[:, ::-1]))
    backwards = longer < 0
    start = np.where(backwards[:, None], ends, corners)
    slope = np.where(backwards, -shorter, shorter) / np.maximum(np.abs(longer), 1)
    steps = np.abs(longer) + 1  # both ends included
    if steps.sum() > MOST_STEPS:
        raise InputError(f"its outline is longer than {MOST_STEPS // FINER} pixels")
    last: Array = np.zeros((2, 0), np.int64)
    for edges in _blocks(steps):
        edge = np.repeat(edges, steps[edges])
        step = np.arange(len(edge)) - np.repeat(steps[edges].cumsum() - steps[edges], steps[edges])
        step = np.where(backwards[edge], steps[edge] - 1 - step, step)
        along = np.where(flat, start[:, 0], start[:, 1])[edge] + step
        across = np.trunc(np.where(flat, start[:, 1], start[:, 0])[edge] + slope[edge] * step + 0.5).astype(np.int64)
        xy = np.where(flat[edge], (along, across), (across, along))
        xy = np.concatenate([last, xy], axis=1)  # the step from one block to the next is one too
        last = xy[:, -1:]
        yield xy[0], xy[1]


def _blocks(steps: Array) -> list[Array]:
    """The numbers of the edges, in blocks of about ``_BLOCK`` steps."""
    return np.split(np.arange(len(steps)), np.flatnonzero(np.diff(steps.cumsum() // _BLOCK)) + 1)
