"""Exercise: boxes as what a network predicts, and back. Judge both functions: make exercise NAME=boxes. Notebook 04."""

import math

import numpy as np

MAX_LOG_SCALE = math.log(1000 / 16)
"""The upper bound on dw and dh: no box grows more than 1000 / 16 = 62.5 times."""


def encode_boxes(targets: np.ndarray, references: np.ndarray, weights: tuple[float, float, float, float]) -> np.ndarray:
    """What a network must predict to turn each reference box into its target.

    With the centre (x, y), the width w and the height h of the target, and (xa, ya), wa, ha of the reference:

        dx = wx (x - xa) / wa        dw = ww log(w / wa)
        dy = wy (y - ya) / ha        dh = wh log(h / ha)

    Args:
        targets: (N, 4) boxes ``x1, y1, x2, y2`` in pixels. N may be 0.
        references: (N, 4) boxes; row i belongs to row i of the targets.
        weights: (wx, wy, ww, wh).

    Returns:
        (N, 4) numbers ``dx, dy, dw, dh``.

    Example:
        encode_boxes([[0, 10, 20, 20]], [[0, 0, 10, 10]], (1, 1, 1, 1)) = [[0.5, 1, log 2, 0]]
        The centre moves from (5, 5) to (10, 15): half a width, one whole height. The box is twice as wide.
    """
    raise NotImplementedError("write me")


def decode_boxes(deltas: np.ndarray, references: np.ndarray, weights: tuple[float, float, float, float]) -> np.ndarray:
    """The boxes that ``deltas`` make of ``references``: :func:`encode_boxes` solved for the target.

    Divide each delta by its weight *first*. Then let dw and dh be at most ``MAX_LOG_SCALE``, because early in training
    the network predicts wild numbers, and exp of them would overflow. There is no lower bound.

    Args:
        deltas: (N, 4) numbers ``dx, dy, dw, dh``. N may be 0.
        references: (N, 4) boxes ``x1, y1, x2, y2`` in pixels.
        weights: (wx, wy, ww, wh), those of the encoding.

    Returns:
        (N, 4) boxes ``x1, y1, x2, y2`` in pixels.

    Example:
        decode_boxes([[0.5, 1, log 2, 0]], [[0, 0, 10, 10]], (1, 1, 1, 1)) = [[0, 10, 20, 20]]
        decode_boxes([[0, 0, 1000, 1000]], [[0, 0, 16, 16]], (1, 1, 1, 1)) = [[-492, -492, 508, 508]]
    """
    raise NotImplementedError("write me")
