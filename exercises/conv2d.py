"""Exercise: convolution and its backward. Judge it: make exercise NAME=conv2d. Notebook 02."""

from collections.abc import Callable

import numpy as np


def conv2d(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, stride: int, padding: int
) -> tuple[np.ndarray, Callable]:
    """Slide F kernels over the images, and say how the output's gradient becomes the inputs'.

    With s the stride and p the padding, and x being 0 outside the image,

        y[n, i, j, f] = bias[f] + sum over a, b, c of x[n, i s + a - p, j s + b - p, c] weight[a, b, c, f]

    The kernel is not flipped. Each product above gives two terms of the backward:

        dx[n, i s + a - p, j s + b - p, c] += dy[n, i, j, f] weight[a, b, c, f]        where that is inside the image
        dweight[a, b, c, f]                += dy[n, i, j, f] x[n, i s + a - p, j s + b - p, c]
        dbias[f]                           += dy[n, i, j, f]

    Args:
        x: (N, H, W, C) images: number, row, column, channel. N may be 0.
        weight: (KH, KW, C, F) kernels: row, column, channel in, channel out.
        bias: (F,).
        stride: s, how far the window moves at each step.
        padding: p, the rows and columns of zeros around the image.

    Returns:
        ``y, backward``: y is (N, OH, OW, F) with ``OH = (H + 2p - KH) // s + 1``, and OW alike from the widths.
        ``backward(dy)`` takes the gradient of the loss for y, of y's shape, and returns ``dx, dweight, dbias`` of the
        shapes of x, weight and bias. Do not write to x, weight, bias or dy.

    Example (N, C and F are 1, so rows and columns are shown alone; stride 1, padding 0):
        x = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]        weight = [[1, 2], [0, -1]]        bias = [100]
        y = [[100, 102], [106, 108]]                 since 1*1 + 2*2 + 0*4 - 1*5 + 100 = 100
        backward of dy = [[1, 0], [0, 2]]:
        dx = [[1, 2, 0], [0, 1, 4], [0, 0, -2]]      dweight = [[11, 14], [20, 23]]    dbias = [3]
    """
    raise NotImplementedError("write me")
