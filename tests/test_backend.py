"""Arrays here and on the GPU: which library, to and fro, and adding where indices repeat."""

import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_close
from threadpoolctl import threadpool_info

from mrcnn_scratch import backend
from mrcnn_scratch.backend import (
    array_module,
    in_parallel,
    load_cupy,
    matmul,
    scatter_add,
    tile_bytes,
    to_device,
    to_host,
    workers,
)
from mrcnn_scratch.errors import InputError

# Which library


class DeviceArray:
    """Just enough of a CuPy array: ``get`` copies it to the host."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def get(self):
        return self.values


@pytest.fixture
def cupy(monkeypatch):
    """A module that passes for CuPy, with one GPU."""
    runtime = SimpleNamespace(getDeviceCount=lambda: 1, CUDARuntimeError=type("CUDARuntimeError", (Exception,), {}))
    module = SimpleNamespace(ndarray=DeviceArray, asarray=DeviceArray, cuda=SimpleNamespace(runtime=runtime))
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


def test_the_array_at_hand_decides(cupy):
    assert array_module(np.zeros(3)) is np
    assert array_module(DeviceArray([1])) is cupy


def test_array_module_of_what_is_given(xp):
    assert array_module(xp.zeros(3)) is xp


@pytest.mark.parametrize("not_an_array", [[1, 2], 3, None])
def test_only_arrays_have_a_library(not_an_array):
    with pytest.raises(TypeError, match=f"expected a NumPy or CuPy array, got {type(not_an_array).__name__}"):
        array_module(not_an_array)


def test_without_cupy_its_arrays_are_unknown(monkeypatch):
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    with pytest.raises(TypeError, match="DeviceArray"):
        array_module(DeviceArray([1]))
    assert "cupy" not in sys.modules  # and asking imports nothing


def test_to_and_fro(cupy):
    here = np.arange(3)
    assert to_host(here) is here
    assert to_device(here, like=here) is here
    there = to_device(here, like=DeviceArray([0]))
    assert isinstance(there, DeviceArray)
    assert to_host(there).tolist() == [0, 1, 2]


def test_to_host_takes_what_sums_return(xp):
    """NumPy's sum over everything is a scalar and not an array; CuPy's is a 0-d array."""
    assert float(to_host(xp.asarray([1.0, 2]).sum())) == 3


def test_a_cache_is_small_and_a_gpu_is_not(cupy):
    assert tile_bytes(np.zeros(1)) < 2**23 < tile_bytes(DeviceArray([0]))


# Loading CuPy


def test_load_cupy(cupy):
    assert load_cupy() is cupy


def test_cupy_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # makes `import cupy` fail
    with pytest.raises(InputError, match=r'not installed: pip install "mrcnn-scratch\[gpu\]"'):
        load_cupy()


def test_no_gpu_answers(cupy):
    def no_driver():
        raise cupy.cuda.runtime.CUDARuntimeError("no driver")

    cupy.cuda.runtime.getDeviceCount = no_driver
    with pytest.raises(InputError, match=r"no GPU answers \(no driver\): use --device cpu"):
        load_cupy()


def test_there_is_no_gpu(cupy):
    cupy.cuda.runtime.getDeviceCount = lambda: 0
    with pytest.raises(InputError, match="sees no GPU: use --device cpu"):
        load_cupy()


# Adding where indices repeat


def test_scatter_add_counts_duplicates(xp):
    target = xp.asarray([100.0, 100, 100])
    scatter_add(target, xp.asarray([0, 2, 2, 2]), xp.asarray([1.0, 2, 3, 4]))
    assert to_host(target).tolist() == [101, 100, 109]


def test_scatter_add_takes_an_index_per_axis(xp):
    target = xp.zeros((2, 2))
    scatter_add(target, (xp.asarray([0, 1, 1]), xp.asarray([1, 0, 0])), xp.asarray([1.0, 2, 3]))
    assert to_host(target).tolist() == [[0, 1], [5, 0]]


@given(indices=st.lists(st.integers(0, 3), max_size=20), seed=st.integers(0, 2**32 - 1))
def test_scatter_add_is_a_loop(xp, indices, seed):
    values = np.random.default_rng(seed).normal(size=(len(indices), 2))
    target, expected = xp.zeros((4, 2)), np.zeros((4, 2))
    scatter_add(target, xp.asarray(indices, dtype=xp.int64), xp.asarray(values))
    for i, value in zip(indices, values, strict=True):
        expected[i] += value
    assert_close(target, expected)


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_in_parallel_is_a_loop(xp, count):
    """Results come in the order of the parts, whoever is done first."""
    assert in_parallel(lambda part: part * part, range(count), like=xp.zeros(1)) == [i * i for i in range(count)]


def test_parts_do_run_side_by_side(monkeypatch):
    """Two parts that wait for each other: one after the other they would wait for ever."""
    monkeypatch.setattr(backend, "_cores", lambda: 2)
    monkeypatch.setattr(backend, "_threads", backend._threads.__wrapped__)  # a fresh pool, of two
    barrier = threading.Barrier(2, timeout=20)
    assert sorted(in_parallel(lambda _: barrier.wait(), [0, 1], like=np.zeros(1))) == [0, 1]


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_products_inside_stay_on_their_core(monkeypatch):
    """While parts run, a matrix product keeps to one thread; afterwards BLAS has its own back, after errors too."""
    monkeypatch.setattr(backend, "_cores", lambda: 2)
    usual = blas_threads()
    inside = in_parallel(lambda _: blas_threads(), [0, 1, 2], like=np.zeros(1))
    assert inside == [[1] * len(usual)] * 3
    assert blas_threads() == usual
    with pytest.raises(ZeroDivisionError):
        in_parallel(lambda part: 1 / part, [1, 0, 1], like=np.zeros(1))
    assert blas_threads() == usual


def test_a_gpu_is_given_one_part_at_a_time(cupy):
    like, here = DeviceArray([0]), threading.get_ident()
    assert workers(like) == 1
    assert in_parallel(lambda _: threading.get_ident(), [0, 1, 2], like=like) == [here] * 3
    assert workers(np.zeros(1)) >= 1


@pytest.mark.parametrize("cores", [1, 2, 3])
@pytest.mark.parametrize("shape", [(0, 2, 3), (1, 1, 1), (7, 5, 6), (2, 512, 300), (100, 64, 130), (1000, 64, 20)])
def test_matmul_in_shares_is_matmul(xp, rng, monkeypatch, cores, shape):
    monkeypatch.setattr(backend, "_cores", lambda: cores)
    rows, inner, columns = shape
    a, b = rng.normal(size=(rows, inner)), rng.normal(size=(inner, columns))
    assert_close(matmul(xp.asarray(a), xp.asarray(b)), a @ b)
    turned = xp.asarray(np.ascontiguousarray(a.T)).T  # the same numbers, stored by columns
    assert_close(matmul(turned, xp.asarray(b)), a @ b)
    assert matmul(xp.asarray(a, dtype="float32"), xp.asarray(b, dtype="float32")).dtype == "float32"


@pytest.mark.parametrize(("rows", "shares"), [(10, 0), (1000, 3), (2, 0)])
def test_only_large_products_are_shared_out(rng, monkeypatch, rows, shares):
    seen = []
    monkeypatch.setattr(backend, "_cores", lambda: 3)
    monkeypatch.setattr(backend, "in_parallel", lambda work, parts, like: seen.extend(map(work, parts)))
    matmul(rng.normal(size=(rows, 64)), rng.normal(size=(64, 20)))
    assert len(seen) == shares


def test_elementwise_in_slices_is_elementwise(rng, monkeypatch):
    """10 rows of 8 bytes with room for 3: slices of 3, 3, 3 and 1 rows, on two threads."""
    monkeypatch.setattr(backend, "workers", lambda _: 2)
    monkeypatch.setattr(backend, "tile_bytes", lambda _: 3 * 8)
    x, y = rng.normal(size=(2, 10, 1))
    seen = []

    def multiply(a, b):
        seen.append(len(a))
        return a * b

    assert backend.elementwise(multiply, x, y).tolist() == (x * y).tolist()
    assert sorted(seen) == [1, 3, 3, 3]
