"""From objectness and deltas to the boxes worth looking at. Not differentiable: proposals are constants to the
heads."""

from collections.abc import Sequence

from ..backend import Array, array_module, to_device, to_host
from ..boxes import decode_boxes
from ..config import RPNConfig
from ..nms import keep_mask
from ..ops.activation import logistic


def propose(
    objectness: list[Array],
    deltas: list[Array],
    anchors: list[Array],
    image_sizes: Sequence[tuple[int, int]],
    config: RPNConfig,
    *,
    training: bool,
) -> list[tuple[Array, Array]]:
    """The best boxes of each image (Faster R-CNN, sections 3.1 and 3.3; per level: FPN, section 4.1).

    Per level: take the anchors of highest objectness, move them by their deltas, clip them to the image, drop the tiny
    ones, suppress. Then, over all levels, the best that are left.

    Args:
        objectness: per level (N, A_l) logits.
        deltas: per level (N, A_l, 4).
        anchors: per level (A_l, 4), in pixels.
        image_sizes: (height, width) of each image inside the padded batch.
        config: how many before and after suppression, and its threshold.
        training: which of the two pairs of numbers to use.

    Returns:
        Per image: proposals (K, 4) in pixels and their scores (K,), best first.
    """
    xp = array_module(objectness[0])
    before = config.pre_nms_train if training else config.pre_nms_test
    after = config.post_nms_train if training else config.post_nms_test
    limits = to_device([[w, h, w, h] for h, w in image_sizes], like=objectness[0])[:, None]  # (N, 1, 4)
    levels = [
        _level(logits, d, a, limits, before, config) for logits, d, a in zip(objectness, deltas, anchors, strict=True)
    ]
    boxes = xp.concatenate([level[0] for level in levels], axis=1)  # (N, M, 4)
    scores = xp.concatenate([level[1] for level in levels], axis=1)  # (N, M), -1 where suppressed
    best = xp.argsort(-scores, axis=1, kind="stable")[:, :after]  # (N, after)
    counts = to_host((scores >= 0).sum(axis=1)).tolist()  # the one wait for the GPU in this stage
    return [
        (boxes[i][chosen[:count]], scores[i][chosen[:count]])
        for i, (chosen, count) in enumerate(zip(best, counts, strict=True))
    ]


def _level(
    objectness: Array, deltas: Array, anchors: Array, limits: Array, before: int, config: RPNConfig
) -> tuple[Array, Array]:
    """One level's best boxes (N, K, 4), best first, and scores (N, K) with -1 for those that fall."""
    xp = array_module(objectness)
    best = xp.argsort(-objectness, axis=1, kind="stable")[:, :before]  # (N, K)
    rows = xp.arange(len(best))[:, None]
    boxes = decode_boxes(deltas[rows, best], anchors[best], (1.0, 1.0, 1.0, 1.0))
    boxes = xp.clip(boxes, 0, limits.astype(boxes.dtype))
    sides = boxes[..., 2:] - boxes[..., :2]
    kept = keep_mask(boxes, (sides >= config.min_side).all(axis=2), config.nms_iou)
    return boxes, xp.where(kept, logistic(objectness[rows, best]), -1)
