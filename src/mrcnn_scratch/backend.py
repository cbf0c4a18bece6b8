"""NumPy or CuPy, chosen by the array at hand. No other file names cupy.

An operation starts with ``xp = array_module(x)`` and then calls ``xp`` as it would call NumPy. There is no
global switch: hand an operation a CuPy array and it runs on the GPU, hand it a NumPy array and it runs here.
"""

import contextlib
import ctypes
import functools
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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


def synchronise(like: Array) -> None:
    """Wait until the device of ``like`` has done what it was told to: for clocks, which would measure the telling."""
    if not isinstance(like, np.ndarray):
        import cupy

        cupy.cuda.runtime.deviceSynchronize()


def scatter_add(target: Array, indices: Any, values: Array) -> None:
    """``target[indices] += values`` in place, with every duplicate index counted.

    Plain ``target[indices] += values`` keeps one of the duplicates, and on a GPU not even a known one.
    """
    if isinstance(target, np.ndarray):
        np.add.at(target, indices, values)
    else:
        import cupyx

        cupyx.scatter_add(target, indices, values)


def workers(like: Array) -> int:
    """How many parts :func:`in_parallel` works on at a time: the CPU's cores, as BLAS counts them; 1 on a GPU."""
    return _cores() if isinstance(like, np.ndarray) else 1


def in_parallel(work: Callable[[Part], Result], parts: Sequence[Part], like: Array) -> list[Result]:
    """``[work(part) for part in parts]``, on the CPU in as many threads as there are cores.

    NumPy lets go of Python's lock inside its loops, so threads do run side by side. Each thread multiplies matrices on
    its own core. That beats BLAS's own threads: the copies between the products are shared out as well, and cores wait
    for each other once per operation instead of once per product.
    """
    count = min(len(parts), workers(like))
    if count <= 1:
        return [work(part) for part in parts]
    results: list[Any] = [None] * len(parts)
    queue = iter(range(len(parts)))  # each thread takes the next part when it is done with one

    def work_off() -> None:
        for i in queue:
            results[i] = work(parts[i])

    with single_threaded_blas():
        others = [_threads().submit(work_off) for _ in range(count - 1)]
        try:
            work_off()
        finally:  # whatever happens here, nobody is left writing behind our back
            errors = [other.exception() for other in others]
    for error in filter(None, errors):
        raise error
    return results


def elementwise(function: Callable[..., Array], *arrays: Array) -> Array:
    """``function(*arrays)`` for arrays of one shape, of which every output number needs only the inputs at its place.

    On the CPU large arrays go some rows at a time, which keeps what comes between in cache, and on all cores.
    """
    first = arrays[0]
    if workers(first) == 1 or first.nbytes <= tile_bytes(first):
        return function(*arrays)
    rows = max(1, tile_bytes(first) // first[0].nbytes)
    parts = [slice(i, i + rows) for i in range(0, len(first), rows)]
    out = array_module(first).empty_like(first)

    def apply(part: slice) -> None:
        out[part] = function(*(array[part] for array in arrays))

    in_parallel(apply, parts, like=first)
    return out


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


def single_threaded_blas() -> contextlib.AbstractContextManager[object]:
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
    return ThreadPoolExecutor(max(1, _cores() - 1), thread_name_prefix="mrcnn-scratch")


def keep_freed_memory() -> None:
    """Let the C library keep large freed arrays for the next ones, instead of handing them back page by page.

    A training step frees and takes hundreds of megabytes, and each fresh page costs a fault.
    For a program to call, not a library: it holds for the whole process. Only glibc listens; elsewhere nothing happens.
    """
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 2**30)
        mallopt(trim_threshold, 2**31 - 1)


def tile_bytes(x: Array) -> int:
    """How large a temporary may be so that it is cheap: about a core's cache on the CPU, far more on a GPU."""
    return 2**20 if isinstance(x, np.ndarray) else 2**28
