"""NumPy or CuPy, chosen by the array at hand. No other file names cupy.

An operation starts with ``xp = array_module(x)`` and then calls ``xp`` as it would call NumPy. There is no
global switch: hand an operation a CuPy array and it runs on the GPU, hand it a NumPy array and it runs here.
"""

import sys
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from .errors import InputError

Array: TypeAlias = Any
"""A ``numpy.ndarray`` or a ``cupy.ndarray``."""


def array_module(x: Array) -> ModuleType:
    """The module whose functions take ``x``: ``numpy`` for a host array, ``cupy`` for a device array."""
    if isinstance(x, np.ndarray):
        return np
    # A CuPy array can only exist once cupy is imported, so nothing is imported here.
    cupy: Any = sys.modules.get("cupy")
    if cupy is not None and isinstance(x, cupy.ndarray):
        return cupy  # type: ignore[no-any-return]
    raise TypeError(f"expected a NumPy or CuPy array, got {type(x).__name__}")


def load_cupy() -> ModuleType:
    """Import CuPy and make sure a GPU answers.

    Raises:
        InputError: CuPy is not installed, or it finds no GPU.
    """
    try:
        import cupy
    except ImportError:
        raise InputError('the GPU needs CuPy, which is not installed: pip install "mrcnn-scratch[gpu]"') from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise InputError(f"CuPy is installed, but no GPU answers ({error}): use --device cpu") from None
    if count == 0:
        raise InputError("CuPy is installed, but it sees no GPU: use --device cpu")
    return cupy


def to_device(x: Any, like: Array) -> Array:
    """``x`` as an array of the kind that ``like`` is: one copy to the GPU, or none."""
    return array_module(like).asarray(x)


def to_host(x: Array) -> Any:
    """``x`` as a NumPy array: waits for the GPU and copies from it, or returns ``x`` itself."""
    # np.generic: where CuPy gives a 0-d array, such as for a sum, NumPy gives a scalar.
    return x if isinstance(x, (np.ndarray, np.generic)) else x.get()


def scatter_add(target: Array, indices: Any, values: Array) -> None:
    """``target[indices] += values`` in place, with every duplicate index counted.

    Plain ``target[indices] += values`` keeps one of the duplicates, and on a GPU not even a known one.
    """
    if isinstance(target, np.ndarray):
        np.add.at(target, indices, values)
    else:
        import cupyx

        cupyx.scatter_add(target, indices, values)


def add_windows(target: Array, windows: Array, batch: Array, top: Array, left: Array) -> None:
    """Add small windows into feature maps in place; where windows overlap, all of them count.

    Args:
        target: (N, H, W, C), changed.
        windows: (R, h, w, C); the parts that hang over the bottom or right edge of the map are dropped.
        batch: (R,) int64, the map that each window belongs to.
        top: (R,) int64, its first row. ``left``: (R,) int64, its first column. Both at least 0.
        left: see ``top``.
    """
    _, height, width, _ = target.shape
    if isinstance(target, np.ndarray):
        # On the CPU a slice addition runs along whole rows and needs no atomics: far faster than np.add.at.
        for n, y, x, window in zip(batch.tolist(), top.tolist(), left.tolist(), windows, strict=True):
            place = target[n, y : y + windows.shape[1], x : x + windows.shape[2]]
            place += window[: place.shape[0], : place.shape[1]]
        return
    xp = array_module(target)
    rows = top[:, None] + xp.arange(windows.shape[1])  # (R, h)
    columns = left[:, None] + xp.arange(windows.shape[2])  # (R, w)
    inside = (rows < height)[:, :, None, None] & (columns < width)[:, None, :, None]
    rows, columns = xp.minimum(rows, height - 1), xp.minimum(columns, width - 1)
    indices = (batch[:, None, None], rows[:, :, None], columns[:, None, :])
    scatter_add(target, indices, xp.where(inside, windows, 0))


def tile_bytes(x: Array) -> int:
    """How large a temporary may be so that it is cheap: about a core's cache on the CPU, far more on a GPU."""
    return 2**20 if isinstance(x, np.ndarray) else 2**28
