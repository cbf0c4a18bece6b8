"""A border around feature maps."""

from ..backend import Array, array_module


def pad(x: Array, padding: tuple[int, int] | int, fill: float = 0.0) -> Array:
    """``x`` (N, H, W, C) with ``padding`` rows and columns (one number, or one each) of ``fill`` on every side."""
    rows, columns = (padding, padding) if isinstance(padding, int) else padding
    if rows == columns == 0:
        return x
    n, height, width, channels = x.shape
    xp = array_module(x)
    padded = xp.full((n, height + 2 * rows, width + 2 * columns, channels), fill, dtype=x.dtype)
    padded[:, rows : rows + height, columns : columns + width] = x
    return padded


def unpad(x: Array, padding: tuple[int, int] | int) -> Array:
    """The inside of ``x`` (N, H, W, C) without its border: the backward of :func:`pad`."""
    rows, columns = (padding, padding) if isinstance(padding, int) else padding
    return x[:, rows : x.shape[1] - rows, columns : x.shape[2] - columns]
