"""The precision-recall curve, one detection at a time, and its area, one level at a time."""

import numpy as np


def precision_recall(correct, excused, objects):
    hits, counted = 0, 0
    precision, recall = [], []
    for is_correct, is_excused in zip(correct, excused, strict=True):
        hits += is_correct
        counted += not is_excused
        precision.append(hits / counted if counted else 0)
        recall.append(hits / objects)
    return np.array(precision), np.array(recall)


def average_precision(precision, recall):
    heights = []
    for level in np.linspace(0, 1, 101):
        reached = precision[recall >= level]
        heights.append(max(reached) if len(reached) else 0)
    return np.mean(heights)
