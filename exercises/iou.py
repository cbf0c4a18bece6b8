"""Exercise: intersection over union. Judge it: make exercise NAME=iou. Notebook 01."""

import numpy as np


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How much every box in ``a`` overlaps every box in ``b``.

    A box is ``x1, y1, x2, y2``: its left, top, right and bottom edge in pixels. Its width is ``x2 - x1``, with no +1.

        IoU = area of the intersection / area of the union
        area of the union = area of one + area of the other - area of the intersection

    Boxes that do not meet have an intersection of 0. Two boxes without area have a union of 0: their IoU is 0, not nan,
    and nothing is divided by 0 on the way.

    Args:
        a: (N, 4) boxes. N may be 0.
        b: (M, 4) boxes. M may be 0.

    Returns:
        (N, M) numbers from 0 (apart) to 1 (equal). Row i, column j belongs to ``a[i]`` and ``b[j]``.

    Example:
        a = [[0, 0, 4, 2]]
        b = [[0, 0, 4, 2], [2, 0, 6, 2], [4, 0, 8, 2]]
        The first is the same box. The second shares 2 x 2 = 4 pixels, and the union is 8 + 8 - 4 = 12.
        The third only touches.
        box_iou(a, b) = [[1, 1/3, 0]]
    """
    raise NotImplementedError("write me")
