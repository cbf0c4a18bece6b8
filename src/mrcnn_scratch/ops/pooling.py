"""Max pooling."""

from ..backend import Array, array_module
from ..errors import InputError
from .contract import Backward, differentiable
from .padding import pad, unpad


@differentiable
def max_pool2d(x: Array, *, kernel_size: int, stride: int, padding: int = 0) -> tuple[Array, Backward]:
    """The largest value in each window of each channel.

    Args:
        x: (N, H, W, C).
        kernel_size: side of the square window.
        stride: step of the window.
        padding: border of minus infinity on every side, at most half of ``kernel_size``.

    Returns:
        ``y`` (N, OH, OW, C) with ``OH = (H + 2 padding - kernel_size) // stride + 1``, and
        ``backward(dy) -> dx``: each ``dy`` goes to the value that was the largest (the first of equals, row by row).
    """
    xp = array_module(x)
    padded = pad(x, padding, fill=-xp.inf)
    padded_shape = padded.shape
    height, width = ((side - kernel_size) // stride + 1 for side in padded.shape[1:3])
    if height < 1 or width < 1:
        raise InputError(f"a window of {kernel_size} does not fit into a map of {padded_shape[1:3]}, padding included")
    taps = [  # the padded input as seen by each place in the window, row by row
        (
            slice(None),
            slice(i, i + stride * (height - 1) + 1, stride),
            slice(j, j + stride * (width - 1) + 1, stride),
        )
        for i in range(kernel_size)
        for j in range(kernel_size)
    ]
    y = padded[taps[0]]
    winner = xp.zeros(y.shape, dtype=xp.uint8 if len(taps) <= 256 else xp.int64)  # which place won: (N, OH, OW, C)
    for k, tap in enumerate(taps[1:], start=1):
        xp.copyto(winner, k, where=padded[tap] > y)  # unlike winner[...] = k this does not make a GPU count first
        y = xp.maximum(y, padded[tap])

    def backward(dy: Array) -> Array:
        dpadded = xp.zeros(padded_shape, dtype=dy.dtype)
        for k, tap in enumerate(taps):
            dpadded[tap] += dy * (winner == k)
        return unpad(dpadded, padding)

    return y, backward
