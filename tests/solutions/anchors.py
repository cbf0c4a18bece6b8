"""Anchors, one at a time."""

import math

import numpy as np


def cell_anchors(sizes, aspect_ratios):
    anchors = []
    for ratio in aspect_ratios:
        for size in sizes:
            height = size * math.sqrt(ratio)
            width = size / math.sqrt(ratio)
            anchors.append([-width / 2, -height / 2, width / 2, height / 2])
    return np.round(anchors)


def place_anchors(cell, grid_size, image_size):
    stride_y = image_size[0] // grid_size[0]
    stride_x = image_size[1] // grid_size[1]
    anchors = []
    for row in range(grid_size[0]):
        for column in range(grid_size[1]):
            x, y = column * stride_x, row * stride_y
            for x1, y1, x2, y2 in cell:
                anchors.append([x1 + x, y1 + y, x2 + x, y2 + y])
    return np.array(anchors)
