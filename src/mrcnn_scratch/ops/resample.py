"""Nearest-neighbour upsampling, as the feature pyramid's top-down path uses it."""

from ..backend import Array, array_module
from .contract import Backward, differentiable


@differentiable
def upsample_nearest(x: Array, size: tuple[int, int]) -> tuple[Array, Backward]:
    """Stretch feature maps to ``size`` by repeating values: output row i is input row ``floor(i H / OH)``.

    Args:
        x: (N, H, W, C).
        size: (OH, OW).

    Returns:
        ``y`` (N, OH, OW, C) and ``backward(dy) -> dx``: each input collects the gradients of all of its copies.
    """
    xp = array_module(x)
    n, height, width, channels = x.shape
    rows = _source(xp, height, size[0])  # (OH,)
    columns = _source(xp, width, size[1])  # (OW,)
    y = x[:, rows][:, :, columns]

    def backward(dy: Array) -> Array:
        # Picking is a product with a 0/1 matrix; its backward is the product with the transpose.
        pick_rows = (xp.arange(height)[:, None] == rows).astype(dy.dtype)  # (H, OH)
        pick_columns = (xp.arange(width)[:, None] == columns).astype(dy.dtype)  # (W, OW)
        over_rows = pick_rows @ dy.reshape(n, size[0], size[1] * channels)  # (N, H, OW C)
        return pick_columns @ over_rows.reshape(n, height, size[1], channels)  # (N, H, W, C)

    return y, backward


def _source(xp: Array, size: int, new_size: int) -> Array:
    """The input index of each output index. In float32, as PyTorch, so that borderline cases fall alike."""
    scale = xp.float32(size / new_size)
    index = xp.floor(xp.arange(new_size, dtype=xp.float32) * scale).astype(xp.int64)
    return xp.minimum(index, size - 1)
