"""Suppression as a walk down the scores."""

import numpy as np

from mrcnn_scratch.boxes import box_iou


def nms(boxes, scores, iou_threshold):
    iou = box_iou(boxes, boxes)
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        falls = False
        for k in kept:
            if iou[k, i] > iou_threshold:
                falls = True
        if not falls:
            kept.append(i)
    return kept
