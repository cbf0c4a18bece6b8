"""RoI Align, one sample at a time."""

import math

import numpy as np


def samples_along(start, end, bins, scale, ratio, aligned):
    """The positions of the samples along one axis, a list for each bin."""
    first = start * scale
    length = (end - start) * scale
    if aligned:
        first -= 0.5
    else:
        length = max(length, 1)
    size = length / bins
    count = ratio if ratio > 0 else max(math.ceil(size), 0)
    return [[first + (i + (a + 0.5) / count) * size for a in range(count)] for i in range(bins)]


def pixels(y, x, height, width):
    """The four pixels that a sample reads, and their weights."""
    if y < -1 or y > height or x < -1 or x > width:
        return []
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    return [
        (top, left, (1 - down) * (1 - across)),
        (top, right, (1 - down) * across),
        (bottom, left, down * (1 - across)),
        (bottom, right, down * across),
    ]


def roi_align(features, boxes, batch_indices, *, output_size, spatial_scale, sampling_ratio, aligned):
    height, width = features.shape[1:3]
    oh, ow = output_size
    result = np.zeros((len(boxes), oh, ow, features.shape[3]))
    reads = []  # which output read which pixel, and with what weight
    for r, (x1, y1, x2, y2) in enumerate(boxes):
        image = batch_indices[r]
        ys = samples_along(y1, y2, oh, spatial_scale, sampling_ratio, aligned)
        xs = samples_along(x1, x2, ow, spatial_scale, sampling_ratio, aligned)
        for i in range(oh):
            for j in range(ow):
                count = len(ys[i]) * len(xs[j])
                for y in ys[i]:
                    for x in xs[j]:
                        for h, w, weight in pixels(y, x, height, width):
                            result[r, i, j] += features[image, h, w] * (weight / count)
                            reads.append((r, i, j, image, h, w, weight / count))

    def backward(dy):
        dfeatures = np.zeros(features.shape)
        for r, i, j, image, h, w, weight in reads:
            dfeatures[image, h, w] += dy[r, i, j] * weight
        return dfeatures

    return result, backward
