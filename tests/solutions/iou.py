"""Intersection over union, one pair at a time."""

import numpy as np


def box_iou(a, b):
    result = np.zeros((len(a), len(b)))
    for i in range(len(a)):
        for j in range(len(b)):
            width = min(a[i, 2], b[j, 2]) - max(a[i, 0], b[j, 0])
            height = min(a[i, 3], b[j, 3]) - max(a[i, 1], b[j, 1])
            intersection = max(width, 0) * max(height, 0)
            area_a = (a[i, 2] - a[i, 0]) * (a[i, 3] - a[i, 1])
            area_b = (b[j, 2] - b[j, 0]) * (b[j, 3] - b[j, 1])
            union = area_a + area_b - intersection
            if union > 0:
                result[i, j] = intersection / union
    return result
