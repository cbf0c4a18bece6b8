"""Convolution, one window at a time."""

import numpy as np


def conv2d(x, weight, bias, *, stride, padding):
    n, height, width, channels = x.shape
    kh, kw, _, features = weight.shape
    padded = np.zeros((n, height + 2 * padding, width + 2 * padding, channels))
    padded[:, padding : padding + height, padding : padding + width] = x
    rows = (height + 2 * padding - kh) // stride + 1
    columns = (width + 2 * padding - kw) // stride + 1
    y = np.zeros((n, rows, columns, features))
    for m in range(n):
        for i in range(rows):
            for j in range(columns):
                window = padded[m, i * stride : i * stride + kh, j * stride : j * stride + kw]
                for f in range(features):
                    y[m, i, j, f] = (window * weight[:, :, :, f]).sum() + bias[f]

    def backward(dy):
        dpadded, dweight, dbias = np.zeros(padded.shape), np.zeros(weight.shape), np.zeros(features)
        for m in range(n):
            for i in range(rows):
                for j in range(columns):
                    top, left = i * stride, j * stride
                    window = padded[m, top : top + kh, left : left + kw]
                    for f in range(features):
                        dpadded[m, top : top + kh, left : left + kw] += dy[m, i, j, f] * weight[:, :, :, f]
                        dweight[:, :, :, f] += dy[m, i, j, f] * window
                        dbias[f] += dy[m, i, j, f]
        dx = dpadded[:, padding : padding + height, padding : padding + width]
        return dx, dweight, dbias

    return y, backward
