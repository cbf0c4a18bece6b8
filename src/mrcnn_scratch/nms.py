"""Non-maximum suppression: of boxes that overlap, only the best-scored stays.

Greedy NMS walks down the scores and keeps a box unless a kept, better box overlaps it. Said without the walk:

    kept[j]  =  no i better than j has kept[i] and IoU[i, j] > threshold

`kept` stands on both sides, so start from "all kept" and apply the rule again and again. The best box is right
at once; when the best n are right the next one depends on those alone, so each pass makes at least one more right.
Once a pass changes nothing, all are right, and that is greedy's answer. Chains of boxes that suppress each other are
short, so a few passes over one IoU matrix do, where the walk would be a Python loop over boxes.
"""

from .backend import Array, array_module, tile_bytes
from .boxes import box_iou


def nms(boxes: Array, scores: Array, iou_threshold: float) -> Array:
    """Indices of the boxes that greedy suppression keeps, best first (ties: the earlier box is the better one).

    Args:
        boxes: (R, 4) in pixels.
        scores: (R,).
        iou_threshold: a box falls when its IoU with a kept, better one is *above* this.

    Returns:
        (K,) int64.
    """
    xp = array_module(boxes)
    order = xp.argsort(-scores, kind="stable")
    everyone = xp.ones((1, len(boxes)), dtype=bool)
    return order[keep_mask(boxes[order][None], everyone, iou_threshold)[0]]


def batched_nms(boxes: Array, scores: Array, groups: Array, iou_threshold: float) -> Array:
    """:func:`nms` within each group (a class, a pyramid level) on its own; boxes of different groups never meet.

    Args:
        boxes: (R, 4) in pixels.
        scores: (R,).
        groups: (R,) int64, the group of each box.
        iou_threshold: as in :func:`nms`.

    Returns:
        (K,) int64: kept indices over all groups, best first.
    """
    xp = array_module(boxes)
    if len(boxes) == 0:
        return xp.zeros(0, dtype=xp.int64)
    by_score = xp.argsort(-scores, kind="stable")
    by_group = by_score[xp.argsort(groups[by_score], kind="stable")]  # group after group, best first in each
    grouped = groups[by_group]
    # Lay the groups out as the rows of one (groups, size of the largest) table; `slot` is a box's place in it.
    row = xp.cumsum(xp.concatenate([xp.zeros(1, dtype=bool), grouped[1:] != grouped[:-1]]))
    counts = xp.bincount(row)
    column = xp.arange(len(boxes)) - (xp.cumsum(counts) - counts)[row]
    rows, columns = len(counts), int(counts.max())
    slot = row * columns + column
    table = xp.zeros((rows * columns, 4), dtype=boxes.dtype)
    table[slot] = boxes[by_group]
    filled = xp.zeros(rows * columns, dtype=bool)
    filled[slot] = True
    kept = keep_mask(table.reshape(rows, columns, 4), filled.reshape(rows, columns), iou_threshold).reshape(-1)
    is_kept = xp.zeros(len(boxes), dtype=bool)
    is_kept[by_group] = kept[slot]
    return by_score[is_kept[by_score]]


def keep_mask(boxes: Array, valid: Array, iou_threshold: float) -> Array:
    """Which boxes of each row stay, rows on their own.

    Args:
        boxes: (B, M, 4) in pixels, each row best first.
        valid: (B, M) bool; a box that is not valid is not kept and suppresses nothing.
        iou_threshold: as in :func:`nms`.

    Returns:
        (B, M) bool.
    """
    xp = array_module(boxes)
    rows, columns = valid.shape
    if rows * columns == 0:
        return valid
    pairs = tile_bytes(boxes) // boxes.itemsize  # whose IoU stays in a core's cache; on a GPU as good as all of them
    step = max(1, pairs // columns**2)
    parts = [slice(i, i + step) for i in range(0, rows, step)]
    return xp.concatenate([_keep_mask(boxes[part], valid[part], iou_threshold) for part in parts])


def _keep_mask(boxes: Array, valid: Array, iou_threshold: float) -> Array:
    xp = array_module(boxes)
    suppresses = _suppresses(boxes, iou_threshold)
    kept = valid
    while True:
        # A product counts, for every j, the kept boxes that suppress it.
        suppressors = xp.matmul(kept[:, None, :].astype(xp.float32), suppresses)[:, 0]  # (B, M)
        again = valid & (suppressors == 0)
        if bool((again == kept).all()):  # waits for the GPU: once a pass
            return kept
        kept = again


def _suppresses(boxes: Array, iou_threshold: float) -> Array:
    """(B, M, M), 1 where box i is better than box j and overlaps it, else 0.

    Only the part right of the diagonal can hold a 1, so only that is computed, some rows at a time, to stay in cache.
    """
    xp = array_module(boxes)
    rows, columns = boxes.shape[:2]
    out = xp.zeros((rows, columns, columns), dtype=xp.float32)
    step = max(1, tile_bytes(boxes) // (8 * rows * columns * boxes.itemsize))
    for i in range(0, columns, step):
        some = slice(i, i + step)
        out[:, some, i:] = box_iou(boxes[:, some], boxes[:, i:]) > iou_threshold
        out[:, some, some] = xp.triu(out[:, some, some], 1)
    return out
