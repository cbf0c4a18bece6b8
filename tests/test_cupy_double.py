"""The double of CuPy must catch what would go wrong on a GPU: here are the mistakes, each of them planted."""

import numpy as np
import pytest
from cupy_double import API, LEDGER, Refused, Undefined, strict_cupy

from mrcnn_scratch.backend import array_module, scatter_add, to_device, to_host


@pytest.fixture
def cupy():
    with strict_cupy() as double:
        yield double


def _read_what_was_never_written(xp):
    if np.isnan(float(xp.empty(3).sum())):
        raise Undefined("it shows")


def _index_by_host_array(xp):
    LEDGER.clear()
    xp.arange(5)[np.array([1, 2])]
    if [event.kind for event in LEDGER.events] == ["index"]:
        raise Refused("counted")


# What real CuPy refuses.
REFUSED = {
    "a name that CuPy lacks": lambda xp: xp.vecdot(xp.ones(3), xp.ones(3)),
    "insert, which CuPy lacks": lambda xp: xp.insert(xp.ones(3), 0, 1),
    "errstate, which is not there": lambda xp: xp.errstate(all="ignore"),
    "a method that CuPy lacks": lambda xp: xp.ones(3).setflags(write=False),
    "a keyword that CuPy lacks": lambda xp: xp.argsort(xp.ones(3), stable=True),
    "a reduction with initial=": lambda xp: xp.max(xp.ones(3), initial=0),
    "a reduction with where=": lambda xp: xp.sum(xp.ones(3), where=xp.ones(3, dtype=bool)),
    "a method's keyword that CuPy lacks": lambda xp: xp.ones(3).max(initial=0),
    "clip without both bounds": lambda xp: xp.clip(xp.ones(3), 0, None),
    "clip with one bound only": lambda xp: xp.clip(xp.ones(3), 0),
    "another sort than the stable one": lambda xp: xp.argsort(xp.ones(3), kind="quicksort"),
    "a host array in a sum": lambda xp: xp.ones(3) + np.ones(3),
    "a host array on the left": lambda xp: np.ones(3) + xp.ones(3),
    "a host array in a function": lambda xp: xp.maximum(xp.ones(3), np.ones(3)),
    "a host array among several": lambda xp: xp.concatenate([xp.ones(3), np.ones(3)]),
    "a host array without axes": lambda xp: xp.ones(3) * np.array(2.0),
    "a list in an operation": lambda xp: xp.ones(3) * [1, 2, 3],
    "a list in a function": lambda xp: xp.sum([1, 2, 3]),
    "a host array stored": lambda xp: xp.ones(3).__setitem__(slice(None), np.ones(3)),
    "a list stored": lambda xp: xp.ones(3).__setitem__(slice(None), [1, 2, 3]),
    "a device array stored in a host array": lambda xp: np.ones(3).__setitem__(slice(None), xp.ones(3)),
    "a host array in place": lambda xp: xp.ones(3).__iadd__(np.ones(3)),
    "a host array as out=": lambda xp: xp.exp(xp.ones(3), out=np.ones(3)),
    "implicit conversion": lambda xp: np.asarray(xp.ones(3)),
    "a NumPy ufunc": lambda xp: np.exp(xp.ones(3)),
    "a NumPy function": lambda xp: np.concatenate([xp.ones(3)]),
    "a NumPy function that calls a method": lambda xp: np.clip(xp.ones(3), 0, 1),
    "a range up to a device scalar": lambda xp: range(xp.ones(3, dtype=int).sum()),
    "a slice up to a device scalar": lambda xp: xp.ones(3)[: xp.ones(2, dtype=int).sum()],
    "arange up to a device scalar": lambda xp: xp.arange(xp.ones(3, dtype=int).sum()),
    "a shape with a device scalar": lambda xp: xp.zeros((xp.ones(3, dtype=int).sum(), 2)),
    "reshape with a device scalar": lambda xp: xp.ones(6).reshape(xp.ones(3, dtype=int).sum(), 2),
    "repeats on the device": lambda xp: xp.repeat(xp.ones(2), xp.ones(2, dtype=int)),
    "an array of objects": lambda xp: xp.asarray([[1], [2, 3]], dtype=object),
    "an array of strings": lambda xp: xp.asarray(["a", "b"]),
    "objects by dtype": lambda xp: xp.zeros(3, dtype=object),
    "int64 in add.at": lambda xp: xp.add.at(xp.zeros(3, dtype=int), xp.zeros(2, dtype=int), xp.ones(2, dtype=int)),
    "a sum without a kernel": lambda xp: xp.add.reduce(xp.ones(3)),
    "a hash": lambda xp: hash(xp.ones(3)),
    "a host array as an index": _index_by_host_array,
}

# What real CuPy lets pass, with a result that nobody has promised.
UNDEFINED = {
    "reading out of range": lambda xp: xp.ones(3)[xp.asarray([3])],
    "reading out of range below": lambda xp: xp.ones(3)[xp.asarray([-4])],
    "writing out of range": lambda xp: xp.ones(3).__setitem__(xp.asarray([3]), 1.0),
    "take out of range": lambda xp: xp.take(xp.ones(3), xp.asarray([3])),
    "a duplicate index in a write": lambda xp: xp.zeros(3).__setitem__(xp.asarray([1, 1]), xp.asarray([1.0, 2.0])),
    "a duplicate index in +=": lambda xp: _add_at(xp.zeros(3), xp.asarray([1, 1]), xp.ones(2)),
    "a duplicate pair of indices": lambda xp: xp.zeros((2, 2)).__setitem__(
        (xp.asarray([1, 1]), xp.asarray([0, 0])), xp.asarray([1.0, 2.0])
    ),
    "a negative float to int": lambda xp: xp.asarray([-1.5]).astype(int),
    "NaN to int": lambda xp: xp.asarray([np.nan]).astype(int),
    "infinity to int": lambda xp: xp.asarray([np.inf]).astype(xp.uint8),
    "a negative float stored in ints": lambda xp: xp.zeros(3, dtype=int).__setitem__(0, xp.asarray(-1.0)),
    "a write that overlaps what it reads": lambda xp: _shift(xp.ones(3)),
    "an out= that overlaps what is read": lambda xp: _add_shifted(xp.ones(3)),
    "memory that was never written": _read_what_was_never_written,
}


def _add_at(target, index, values):
    target[index] += values


def _shift(x):
    x[1:] = x[:-1]


def _add_shifted(x):
    array_module(x).add(x[1:], x[:-1], out=x[1:])


@pytest.mark.parametrize("mistake", REFUSED)
def test_refuses(cupy, mistake):
    with pytest.raises((Refused, TypeError, AttributeError)):
        REFUSED[mistake](cupy)


@pytest.mark.parametrize("mistake", UNDEFINED)
def test_shows_what_is_undefined(cupy, mistake):
    with pytest.raises(Undefined):
        UNDEFINED[mistake](cupy)


# What is right must pass, or the double would prove nothing.
RIGHT = {
    "a Python number": (lambda xp: xp.ones(3) * 2 + 1, [3, 3, 3]),
    "a NumPy scalar": (lambda xp: xp.ones(3) * np.float32(2), [2, 2, 2]),
    "a device scalar": (lambda xp: xp.arange(3) * xp.arange(3).sum(), [0, 3, 6]),
    "an index on the device": (lambda xp: xp.arange(5)[xp.asarray([4, 0])], [4, 0]),
    "a negative index": (lambda xp: xp.arange(5)[xp.asarray([-1])], [4]),
    "a mask": (lambda xp: xp.arange(5)[xp.arange(5) > 2], [3, 4]),
    "one value for all duplicates": (lambda xp: _stored(xp.zeros(3), xp.asarray([1, 1]), 5.0), [0, 5, 0]),
    "values for places of their own": (
        lambda xp: _stored(xp.zeros(3), xp.asarray([2, 0]), xp.asarray([1.0, 2.0])),
        [2, 0, 1],
    ),
    "duplicates added up": (lambda xp: _scattered(xp.zeros(3), xp.asarray([1, 1]), xp.ones(2)), [0, 2, 0]),
    "in place": (lambda xp: _doubled(xp.arange(3.0)), [0, 2, 4]),
    "out= is the input itself": (lambda xp: _exp_in_place(xp.zeros(2)), [1, 1]),
    "float to int": (lambda xp: xp.asarray([1.7]).astype(int), [1]),
    "where": (lambda xp: xp.where(xp.arange(3) > 1, -1, xp.arange(3)), [0, 1, -1]),
    "copyto": (lambda xp: _copied_where(xp.arange(3)), [7, 1, 7]),
    "meshgrid": (lambda xp: xp.meshgrid(xp.arange(2), xp.arange(2), indexing="ij")[0], [[0, 0], [1, 1]]),
    "reshape with -1": (lambda xp: xp.arange(4).reshape(-1, 2), [[0, 1], [2, 3]]),
    "a product": (lambda xp: xp.arange(4.0).reshape(2, 2) @ xp.ones(2), [1, 5]),
}


def _stored(target, index, value):
    target[index] = value
    return target


def _scattered(target, index, values):
    scatter_add(target, index, values)
    return target


def _doubled(x):
    x *= 2
    return x


def _exp_in_place(x):
    return array_module(x).exp(x, out=x)


def _copied_where(x):
    array_module(x).copyto(x, 7, where=x != 1)
    return x


@pytest.mark.parametrize("case", RIGHT)
def test_lets_pass_what_is_right(cupy, case):
    make, expected = RIGHT[case]
    result = make(cupy)
    assert array_module(result) is cupy
    assert to_host(result).tolist() == expected


# The ledger


@pytest.mark.parametrize(
    ("act", "kinds"),
    [
        (lambda xp, x: x + 1, []),
        (lambda xp, x: x.sum(), []),
        (lambda xp, x: x[1:], []),
        (lambda xp, x: len(x), []),
        (lambda xp, x: to_host(x), ["wait"]),
        (lambda xp, x: float(x.sum()), ["wait"]),
        (lambda xp, x: int(x.sum()), ["wait"]),
        (lambda xp, x: bool((x > 1).all()), ["wait"]),
        (lambda xp, x: x.sum().item(), ["wait"]),
        (lambda xp, x: x.tolist(), ["wait"]),
        (lambda xp, x: x[x > 1], ["wait"]),
        (lambda xp, x: x.__setitem__(x > 1, 0), ["wait"]),
        (lambda xp, x: xp.nonzero(x), ["wait"]),
        (lambda xp, x: xp.where(x > 1), ["wait"]),
        (lambda xp, x: xp.where(x > 1, x, 0), []),
        (lambda xp, x: xp.bincount(x.astype(int)), ["wait", "wait"]),
        (lambda xp, x: to_device(np.ones(3), like=x), ["copy"]),
        (lambda xp, x: to_device(x, like=x), []),
        (lambda xp, x: xp.asarray([1, 2]), ["copy"]),
        (lambda xp, x: x[np.array([0, 1])], ["index"]),
        (lambda xp, x: x[[0, 1]], ["index"]),
    ],
)
def test_writes_down_every_crossing(cupy, act, kinds):
    x = cupy.arange(4.0)
    LEDGER.clear()
    act(cupy, x)
    assert [event.kind for event in LEDGER.events] == kinds


def test_says_which_line_of_the_package_it_was(cupy):
    from mrcnn_scratch.nms import nms

    boxes = cupy.asarray([[0.0, 0, 2, 2], [0, 0, 2, 2]])
    LEDGER.clear()
    nms(boxes, cupy.asarray([0.9, 0.8]), 0.5)
    assert LEDGER.count("wait") == {"nms.py _keep_mask": 2, "nms.py nms": 1}  # two passes, and the mask at the end
    assert LEDGER.count("copy") == {}


def test_the_list_is_of_the_real_one():
    """Spot checks: were the list empty, or NumPy's, most of the above would be pointless."""
    assert API["__version__"] == "14.2.0"
    assert {"asarray", "matmul", "lib.stride_tricks.as_strided", "ndarray.get", "cupyx.scatter_add"} <= API.keys()
    assert not {"vecdot", "insert", "errstate", "ndarray.setflags"} & API.keys()
