"""Anchors: boxes of set sizes and shapes at every place of every pyramid level (Faster R-CNN, section 3.1.1)."""

from collections.abc import Sequence
from types import ModuleType

import numpy as np

from ..backend import Array, array_module


class AnchorGenerator:
    """Lays anchors out over the levels of a pyramid.

    Args:
        sizes: per level, the square roots of the anchors' areas, in pixels.
        aspect_ratios: height over width, the same on every level.
    """

    def __init__(self, sizes: Sequence[Sequence[float]], aspect_ratios: Sequence[float]) -> None:
        self.cells = [cell_anchors(level, aspect_ratios) for level in sizes]

    @property
    def per_place(self) -> int:
        """Anchors at one place of a level."""
        return len(self.cells[0])

    def levels(
        self, grid_sizes: Sequence[tuple[int, int]], image_size: tuple[int, int], xp: ModuleType = np
    ) -> list[Array]:
        """The anchors of each level.

        Args:
            grid_sizes: (height, width) of each level's feature map.
            image_size: (height, width) of the padded batch, in pixels.
            xp: the module of the arrays wanted.

        Returns:
            Per level (H*W*A, 4) float32 in pixels: see :func:`place_anchors`.
        """
        return [
            place_anchors(xp.asarray(cell), grid_size, image_size)
            for cell, grid_size in zip(self.cells, grid_sizes, strict=True)
        ]

    def __call__(self, grid_sizes: Sequence[tuple[int, int]], image_size: tuple[int, int]) -> Array:
        """All levels' anchors in a row: (A, 4), in the order level, row, column, anchor. See :meth:`levels`."""
        return np.concatenate(self.levels(grid_sizes, image_size))


def cell_anchors(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> Array:
    """The anchors of one place, around (0, 0), with corners rounded to whole pixels (half to even).

    An anchor of size s and ratio r = h / w has ``h = s sqrt(r)`` and ``w = s / sqrt(r)``: area s^2 whatever the ratio.

    Returns:
        (ratios * sizes, 4) float32 in pixels, ratio by ratio.
    """
    root = np.sqrt(np.asarray(aspect_ratios, np.float32))[:, None]  # (ratios, 1)
    heights = (root * np.asarray(sizes, np.float32)).reshape(-1)
    widths = ((1 / root) * np.asarray(sizes, np.float32)).reshape(-1)
    return np.round(np.stack([-widths, -heights, widths, heights], axis=1) / 2)


def place_anchors(cell: Array, grid_size: tuple[int, int], image_size: tuple[int, int]) -> Array:
    """The anchors of one place, repeated at every place of a level.

    Args:
        cell: (A, 4) anchors around (0, 0), in pixels, as :func:`cell_anchors` makes them.
        grid_size: (height, width) of the level's feature map.
        image_size: (height, width) of the padded batch, in pixels.

    Returns:
        (H*W*A, 4) in pixels, of ``cell``'s dtype, in the order row, column, anchor. A place's stride is
        ``image size // grid size``, and its anchors are centred on its top left corner.
    """
    xp = array_module(cell)
    rows, columns = grid_size
    y = xp.arange(rows, dtype=cell.dtype) * (image_size[0] // rows)
    x = xp.arange(columns, dtype=cell.dtype) * (image_size[1] // columns)
    y, x = (part.reshape(-1, 1) for part in xp.meshgrid(y, x, indexing="ij"))  # (H*W, 1)
    shifts = xp.concatenate([x, y, x, y], axis=1)  # (H*W, 4)
    return (shifts[:, None] + cell).reshape(-1, 4)
