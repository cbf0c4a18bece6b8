"""Box arithmetic. A box is ``x1, y1, x2, y2`` in pixels; its width is ``x2 - x1``, with no +1."""

import math

from .backend import Array, array_module

MAX_LOG_SCALE = math.log(1000 / 16)
"""Bound on dw and dh before the exponential: no box grows more than 62.5 times (torchvision's ``bbox_xform_clip``)."""


def box_area(boxes: Array) -> Array:
    """Areas of ``boxes`` (..., 4), in square pixels: (...)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def box_iou(a: Array, b: Array) -> Array:
    """Intersection over union of every box in ``a`` with every box in ``b``.

    Args:
        a: (..., N, 4) boxes in pixels.
        b: (..., M, 4) boxes in pixels, of the same float type.

    Returns:
        (..., N, M), from 0 (apart) to 1 (equal). Two boxes without area have IoU 0.
    """
    xp = array_module(a)
    ax1, ay1, ax2, ay2 = (a[..., :, None, i] for i in range(4))  # (..., N, 1)
    bx1, by1, bx2, by2 = (xp.ascontiguousarray(b[..., None, :, i]) for i in range(4))  # (..., 1, M)
    width = xp.minimum(ax2, bx2)  # (..., N, M), and every step below in place: this is NMS's whole cost
    width -= xp.maximum(ax1, bx1)
    xp.maximum(width, 0, out=width)
    intersection = xp.minimum(ay2, by2)
    intersection -= xp.maximum(ay1, by1)
    xp.maximum(intersection, 0, out=intersection)
    intersection *= width
    # An area of 0 counts as the smallest float, so that 0 / 0 becomes 0; no other area feels it.
    area_a, area_b = (xp.maximum(box_area(boxes), xp.finfo(boxes.dtype).tiny) for boxes in (a, b))
    union = xp.subtract(area_a[..., :, None] + area_b[..., None, :], intersection, out=width)
    intersection /= union
    return intersection


def clip_boxes(boxes: Array, size: tuple[int, int]) -> Array:
    """``boxes`` (..., 4) moved inside an image of ``size`` (height, width): x in [0, width], y in [0, height]."""
    xp = array_module(boxes)
    height, width = size
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
    corners = (xp.clip(x1, 0, width), xp.clip(y1, 0, height), xp.clip(x2, 0, width), xp.clip(y2, 0, height))
    return xp.stack(corners, axis=-1)


def encode_boxes(targets: Array, references: Array, weights: tuple[float, float, float, float]) -> Array:
    """What a network must predict to turn ``references`` into ``targets``.

    With centre (x, y) and size (w, h), and ``a`` for the reference (R-CNN, appendix C; Faster R-CNN, eq. 2):
    ``dx = wx (x - xa) / wa``, ``dy = wy (y - ya) / ha``, ``dw = ww log(w / wa)``, ``dh = wh log(h / ha)``.

    Args:
        targets: (..., 4) boxes to reach, in pixels, with positive sides.
        references: (..., 4) anchors or proposals, in pixels, with positive sides.
        weights: (wx, wy, ww, wh), which bring the four to a similar spread.

    Returns:
        (..., 4) deltas ``dx, dy, dw, dh``.
    """
    xp = array_module(targets)
    wx, wy, ww, wh = weights
    x, y, w, h = _centre_and_size(targets)
    xa, ya, wa, ha = _centre_and_size(references)
    deltas = (wx * (x - xa) / wa, wy * (y - ya) / ha, ww * xp.log(w / wa), wh * xp.log(h / ha))
    return xp.stack(deltas, axis=-1)


def decode_boxes(deltas: Array, references: Array, weights: tuple[float, float, float, float]) -> Array:
    """The boxes that ``deltas`` make of ``references``: the inverse of :func:`encode_boxes`.

    Args:
        deltas: (..., 4) ``dx, dy, dw, dh``; dw and dh are bounded by :data:`MAX_LOG_SCALE`.
        references: (..., 4) anchors or proposals, in pixels, broadcast against ``deltas``.
        weights: those of the encoding.

    Returns:
        (..., 4) boxes in pixels.
    """
    xp = array_module(deltas)
    wx, wy, ww, wh = weights
    xa, ya, wa, ha = _centre_and_size(references)
    x = deltas[..., 0] / wx * wa + xa
    y = deltas[..., 1] / wy * ha + ya
    half_w = 0.5 * (xp.exp(xp.minimum(deltas[..., 2] / ww, MAX_LOG_SCALE)) * wa)
    half_h = 0.5 * (xp.exp(xp.minimum(deltas[..., 3] / wh, MAX_LOG_SCALE)) * ha)
    return xp.stack((x - half_w, y - half_h, x + half_w, y + half_h), axis=-1)


def _centre_and_size(boxes: Array) -> tuple[Array, Array, Array, Array]:
    width = boxes[..., 2] - boxes[..., 0]
    height = boxes[..., 3] - boxes[..., 1]
    return boxes[..., 0] + 0.5 * width, boxes[..., 1] + 0.5 * height, width, height
