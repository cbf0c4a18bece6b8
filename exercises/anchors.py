"""Exercise: anchors, in two functions. Judge them: make exercise NAME=anchors. Notebook 04."""

from collections.abc import Sequence

import numpy as np


def cell_anchors(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> np.ndarray:
    """The anchors of one place, centred on (0, 0).

    An anchor of size s and ratio r = height / width has

        height = s sqrt(r)        width = s / sqrt(r)

    so its area is s^2 whatever the ratio. Centred on (0, 0) its corners are ``-width / 2, -height / 2, width / 2,
    height / 2``. Round them to whole pixels, halves to the even neighbour as ``np.round`` does.

    Args:
        sizes: S numbers, in pixels.
        aspect_ratios: R numbers, height over width.

    Returns:
        (R * S, 4) boxes ``x1, y1, x2, y2``: all sizes of the first ratio, then all sizes of the second, ...

    Example:
        cell_anchors([32], [0.25, 1]) = [[-32, -8, 32, 8], [-16, -16, 16, 16]]
        At ratio 1/4: height 32 x 1/2 = 16, width 32 / (1/2) = 64.
    """
    raise NotImplementedError("write me")


def place_anchors(cell: np.ndarray, grid_size: tuple[int, int], image_size: tuple[int, int]) -> np.ndarray:
    """The anchors of one place, repeated at every place of a feature map.

    The place in row i, column j of the map lies at ``x = j * stride_x, y = i * stride_y`` in the image, where a stride
    is the image's size over the grid's, ``//`` (whole numbers). Move all four corners of each anchor by that.

    Args:
        cell: (A, 4) anchors around (0, 0).
        grid_size: (height, width) of the feature map.
        image_size: (height, width) of the image, in pixels.

    Returns:
        (height * width * A, 4) boxes: row by row, in a row column by column, at a place anchor by anchor.

    Example:
        place_anchors([[-2, -2, 2, 2]], (2, 2), (8, 16)): strides 4 down and 8 right
        = [[-2, -2, 2, 2], [6, -2, 10, 2], [-2, 2, 2, 6], [6, 2, 10, 6]]
    """
    raise NotImplementedError("write me")
