"""NumPy or CuPy, chosen by the array at hand. No other file names cupy.

An operation starts with ``xp = array_module(x)`` and then calls ``xp`` as it would call NumPy. There is no
global switch: hand an operation a CuPy array and it runs on the GPU, hand it a NumPy array and it runs here.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, TypeAlias, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from .errors import InputError

Array: TypeAlias = Any
"""A ``numpy.ndarray`` or a ``cupy.ndarray``."""

Part = TypeVar("Part")
Result = TypeVar("Result")


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
    return cupy  # type: ignore[no-any-return]


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


def workers(like: Array) -> int:
    """How many parts :func:`in_parallel` works on at a time: the CPU's cores, as BLAS counts them; 1 on a GPU."""
    return _cores() if isinstance(like, np.ndarray) else 1


def in_parallel(work: Callable[[Part], Result], parts: Sequence[Part], like: Array) -> list[Result]:
    """``[work(part) for part in parts]``, on the CPU in as many threads as there are cores.

    NumPy lets go of Python's lock inside its loops, so threads do run side by side. Each thread multiplies matrices on
    its own core. That beats BLAS's own threads: the copies between the products are shared out as well, and cores wait
    for each other once per operation instead of once per product.
    """
    if len(parts) == 1 or workers(like) == 1:
        return [work(part) for part in parts]
    with single_threaded_blas():
        return list(_threads().map(work, parts))


def matmul(a: Array, b: Array) -> Array:
    """``a @ b``, (M, K) and (K, N) to (M, N), the rows of a large ``a`` shared out among the cores."""
    xp = array_module(a)
    rows = -(-len(a) // workers(a))
    if workers(a) == 1 or rows * a.shape[1] * b.shape[1] < 2**18:  # less than starting a thread costs
        return xp.matmul(a, b)
    out = xp.empty((len(a), b.shape[1]), dtype=a.dtype)
    parts = [slice(i, i + rows) for i in range(0, len(a), rows)]
    in_parallel(lambda part: xp.matmul(a[part], b, out=out[part]), parts, like=a)
    return out


def matmul_into(a: Array, b: Array, out: Array) -> Array:
    """``out[...] = a @ b`` for a tile, (M, K) and (K, N) to (M, N), all contiguous; returns ``out``.

    On the CPU the rows of ``a`` go in groups of 8 to 24. For products of up to a million multiplications OpenBLAS has a
    kernel that reads its operands where they lie. The general one copies them into an order of its own first, and with
    few columns that copy shows: 1.27 times the time for K = 576, N = 64.
    """
    rows = len(a)
    if isinstance(a, np.ndarray):
        fitting = min(24, 10**6 // (a.shape[1] * b.shape[1]))
        rows = next((count for count in range(fitting, 7, -1) if len(a) % count == 0), rows)
    array_module(a).matmul(a.reshape(-1, rows, a.shape[1]), b, out=out.reshape(-1, rows, b.shape[1]))
    return out


def single_threaded_blas() -> AbstractContextManager[object]:
    """Inside, BLAS multiplies on the calling thread alone.

    Around a whole step it also keeps BLAS's own threads asleep: after each product that they share in they wait for the
    next one by spinning, on the very cores that the threads of :func:`in_parallel` want.
    """
    _cores()  # counted before BLAS is told to use only one
    return _blas().limit(limits=1)  # type: ignore[no-any-return]


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


@functools.cache
def _cores() -> int:
    return max((library["num_threads"] for library in _blas().info()), default=1)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_cores(), thread_name_prefix="mrcnn-scratch")


def tile_bytes(x: Array) -> int:
    """How large a temporary may be so that it is cheap: about a core's cache on the CPU, far more on a GPU."""
    return 2**20 if isinstance(x, np.ndarray) else 2**28
