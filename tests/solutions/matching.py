"""Matching in two passes, one candidate at a time."""

import numpy as np


def match(iou, *, high, low, allow_low_quality):
    objects, candidates = iou.shape
    matched = np.full(candidates, -1)
    if objects == 0:
        return matched
    for a in range(candidates):
        best = np.argmax(iou[:, a])
        if iou[best, a] >= high:
            matched[a] = best
        elif iou[best, a] >= low:
            matched[a] = -2
    if allow_low_quality:
        for g in range(objects):
            for a in range(candidates):
                if iou[g, a] == iou[g].max():
                    matched[a] = np.argmax(iou[:, a])
    return matched
