"""Exercise: non-maximum suppression. Judge it: make exercise NAME=nms. Notebook 05."""

import numpy as np


def nms(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Keep the best box of each heap of boxes that overlap.

    Walk through the boxes from the best score to the worst. Keep a box, unless a box that you have *kept* already
    overlaps it with an IoU *above* the threshold. A box that has fallen suppresses nothing.

    Of boxes with equal scores the one that comes earlier in the input is the better one.

    Args:
        boxes: (R, 4) boxes ``x1, y1, x2, y2`` in pixels. R may be 0.
        scores: (R,) one number per box.
        iou_threshold: a box falls if its IoU with a kept, better one is above this. Exactly this is not above.

    Returns:
        (K,) whole numbers: the indices of the kept boxes, best first.

    Example:
        boxes = [[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]]
        scores = [0.9, 0.8, 0.7]
        Neighbours have IoU 60 / 140 = 0.43, the outer two 20 / 180 = 0.11.
        nms(boxes, scores, 0.4) = [0, 2]: box 0 suppresses box 1, which then cannot suppress box 2.

    You may use ``from mrcnn_scratch.boxes import box_iou``.
    """
    raise NotImplementedError("write me")
