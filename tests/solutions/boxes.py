"""Encoding and decoding, one box at a time."""

import math

import numpy as np


def centre_and_size(box):
    x1, y1, x2, y2 = box
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def encode_boxes(targets, references, weights):
    wx, wy, ww, wh = weights
    deltas = np.zeros((len(targets), 4))
    for i in range(len(targets)):
        x, y, w, h = centre_and_size(targets[i])
        xa, ya, wa, ha = centre_and_size(references[i])
        deltas[i] = wx * (x - xa) / wa, wy * (y - ya) / ha, ww * math.log(w / wa), wh * math.log(h / ha)
    return deltas


def decode_boxes(deltas, references, weights):
    largest = math.log(1000 / 16)
    boxes = np.zeros((len(deltas), 4))
    for i in range(len(deltas)):
        dx, dy, dw, dh = deltas[i] / np.array(weights)
        xa, ya, wa, ha = centre_and_size(references[i])
        x, y = xa + dx * wa, ya + dy * ha
        w, h = wa * math.exp(min(dw, largest)), ha * math.exp(min(dh, largest))
        boxes[i] = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    return boxes
