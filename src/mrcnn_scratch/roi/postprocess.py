"""From the heads' outputs to detections in the user's image. Not differentiable."""

from collections.abc import Iterator
from typing import NamedTuple

from .. import ops
from ..backend import Array, array_module
from ..boxes import clip_boxes, decode_boxes
from ..config import RoIConfig
from ..nms import batched_nms
from ..ops.activation import logistic


class BoxDetections(NamedTuple):
    """What the box head found in one image, best first."""

    boxes: Array  # (R, 4) in pixels of the resized image
    labels: Array  # (R,) int64
    scores: Array  # (R,)


def box_detections(
    class_logits: Array, box_deltas: Array, proposals: Array, image_size: tuple[int, int], config: RoIConfig
) -> BoxDetections:
    """Score, move, filter and suppress the proposals of one image (Mask R-CNN, section 3.1, "Inference").

    Args:
        class_logits: (K, C + 1).
        box_deltas: (K, C + 1, 4).
        proposals: (K, 4) in pixels.
        image_size: (height, width) that boxes are clipped to.
        config: thresholds.
    """
    xp = array_module(class_logits)
    scores = ops.softmax(class_logits)[:, 1:]  # background is dropped: (K, C)
    boxes = clip_boxes(decode_boxes(box_deltas[:, 1:], proposals[:, None], config.box_weights), image_size)
    sides = boxes[..., 2:] - boxes[..., :2]
    row, column = xp.nonzero((scores > config.score_threshold) & (sides >= config.min_side).all(axis=2))
    boxes, scores, labels = boxes[row, column], scores[row, column], column + 1
    kept = batched_nms(boxes, scores, labels, config.nms_iou)[: config.detections]
    return BoxDetections(boxes[kept], labels[kept], scores[kept])


def mask_probabilities(mask_logits: Array, labels: Array) -> Array:
    """The mask of each detection's own class, as probabilities: (R, M, M, C + 1) and (R,) to (R, M, M)."""
    xp = array_module(mask_logits)
    return logistic(mask_logits[xp.arange(len(labels)), :, :, labels])


def paste_masks(masks: Array, boxes: Array, image_size: tuple[int, int]) -> Array:
    """Stretch each mask over its box in an image: (R, M, M) and (R, 4) to (R, H, W) probabilities, 0 outside the box.

    A mask's values belong to the centres of its M x M bins, so half a bin of the box lies beyond the outermost ones:
    the mask gets a border of zeros and the box grows by (M + 2) / M to match. Corners are then cut to whole pixels and
    the mask is resampled bilinearly between them. Being separable, that is ``Ry mask Rx^T`` for every mask at once
    (torchvision's ``paste_masks_in_image``).
    """
    xp = array_module(masks)
    side = masks.shape[1] + 2
    padded = xp.zeros((len(masks), side, side), dtype=masks.dtype)
    padded[:, 1:-1, 1:-1] = masks
    x1, y1, x2, y2 = _expand_to_pixels(boxes, side / (side - 2))
    r_y = _resampling(y1, y2, image_size[0], side, masks.dtype)  # (R, H, M + 2)
    r_x = _resampling(x1, x2, image_size[1], side, masks.dtype)  # (R, W, M + 2)
    return r_y @ padded @ r_x.transpose(0, 2, 1)


def paste_in_parts(masks: Array, boxes: Array, image_size: tuple[int, int], pixels: int = 2**24) -> Iterator[Array]:
    """:func:`paste_masks` for some masks at a time, so that at most about ``pixels`` probabilities exist at once."""
    step = max(1, pixels // (image_size[0] * image_size[1]))
    for i in range(0, len(masks), step):
        yield paste_masks(masks[i : i + step], boxes[i : i + step], image_size)


def _expand_to_pixels(boxes: Array, scale: float) -> tuple[Array, Array, Array, Array]:
    """Corners (R,) of the boxes grown about their centres and truncated towards 0, still as floats."""
    xp = array_module(boxes)
    half_w = (boxes[:, 2] - boxes[:, 0]) * 0.5 * scale
    half_h = (boxes[:, 3] - boxes[:, 1]) * 0.5 * scale
    x = (boxes[:, 2] + boxes[:, 0]) * 0.5
    y = (boxes[:, 3] + boxes[:, 1]) * 0.5
    return xp.trunc(x - half_w), xp.trunc(y - half_h), xp.trunc(x + half_w), xp.trunc(y + half_h)


def _resampling(first: Array, last: Array, size: int, bins: int, dtype: object) -> Array:
    """Per box the matrix (size, bins) that spreads ``bins`` values over its pixels ``first`` .. ``last``, both
    included.

    Pixel p of n reads the bins at ``(p - first + 1/2) bins / n - 1/2``, linearly between the two nearest.
    """
    xp = array_module(first)
    length = xp.maximum(last - first + 1, 1)[:, None]  # (R, 1)
    pixel = xp.arange(size, dtype=first.dtype) - first[:, None]  # (R, size)
    position = xp.clip((pixel + 0.5) * (bins / length) - 0.5, 0, bins - 1)
    hat = xp.maximum(1 - xp.abs(position[..., None] - xp.arange(bins, dtype=first.dtype)), 0)
    inside = (pixel >= 0) & (pixel < length)
    return (hat * inside[..., None]).astype(dtype)
