"""The module ``cupy``: NumPy's functions under CuPy's names, with CuPy's signatures and rules."""

import contextlib
import sys
import types

import numpy as np

from .api import API, signature
from .array import SCALARS, check_dtype, ndarray, refuse_cast, refuse_overlap, unwrap, wrap
from .ledger import LEDGER, Refused, Undefined

TO_DEVICE = {"array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray"}
"""The functions that take host data: one copy each."""

HOST_PARAMETERS = {
    *("shape", "axis", "axes", "indices_or_sections", "repeats", "reps", "shift", "source", "destination", "k", "kth"),
    *("start", "stop", "step", "num", "N", "M", "n", "indexing", "minlength", "decimals", "order", "kind", "mode"),
    *("dtype", "casting", "keepdims", "strides", "side", "axis1", "axis2", "offset", "ddof", "pad_width", "signature"),
}
"""Parameters that are Python's: numbers, tuples of numbers, words."""

WAITS = {"nonzero": 1, "flatnonzero": 1, "argwhere": 1, "unique": 1, "bincount": 2, "compress": 1, "extract": 1}
"""How often these ask the device for a number, above all how large their result is."""

AT_DTYPES = {
    "add": "iILQefd",
    "subtract": "iI",
    **dict.fromkeys(("maximum", "minimum"), "iILQfd"),
    **dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor"), "ilqILQ"),
}
"""What ``ufunc.at`` supports: CUDA's atomic operations. No int64 sums."""


def call(name, function, parameters, args, kwargs):
    """``function`` with arguments that pass CuPy's signature and rules; what it gives, on the device."""
    try:
        bound = parameters.bind(*args, **kwargs)
    except TypeError as error:
        raise Refused(f"cupy.{name}{parameters}: {error}") from None
    if "kind" in bound.arguments and bound.arguments["kind"] not in (None, "stable"):
        raise Refused(f"cupy.{name} sorts in one way only: kind must be None or 'stable'")
    check_dtype(bound.arguments.get("dtype"))
    given = {key: _argument(name, key, value) for key, value in bound.arguments.items()}
    out = given.get("kwargs", {}).get("out")
    if out is None:
        out = given.pop("out", None)
        bound.arguments.pop("out", None)
    if out is not None:
        for value in given.values():
            refuse_overlap(out, value)
    bound.arguments.update(given)
    LEDGER.record("wait", WAITS.get(name, 0))
    kwargs = bound.kwargs if out is None else {**bound.kwargs, "out": out}
    try:
        return wrap(function(*bound.args, **kwargs))
    except IndexError as error:
        raise Undefined(f"CuPy wraps indices silently: {error}") from None


def _argument(function, name, value):
    if value is None or isinstance(value, (str, type, np.dtype)):
        return value
    if name == "kwargs":
        return {key: _argument(function, key, part) for key, part in value.items()}
    if name in HOST_PARAMETERS:
        return _on_host(function, name, value)
    if isinstance(value, (list, tuple)):  # a sequence of arrays, as concatenate takes
        if not all(isinstance(part, ndarray) for part in value):
            raise Refused(f"cupy.{function} takes device arrays, not a {type(value).__name__} of something else")
        return type(value)(unwrap(part) for part in value)
    return unwrap(value)


def _on_host(function, name, value):
    for part in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(part, ndarray):
            raise Refused(f"cupy.{function}: {name} must be on the host, not a device scalar")
    return value


class Ufunc:
    """A universal function: it knows the dtypes that CuPy has a kernel for."""

    def __init__(self, name):
        self.name, self.function, self.parameters = name, getattr(np, name), signature(name)

    def __call__(self, *args, **kwargs):
        result = call(self.name, self.function, self.parameters, args, kwargs)
        self._check_dtypes([unwrap(arg) for arg in args[: self.function.nin]], result)
        return result

    def _check_dtypes(self, inputs, result):
        dtypes = [x.dtype for x in inputs if isinstance(x, (np.ndarray, np.generic))]
        whole = [np.result_type(*dtypes, *(x for x in inputs if not hasattr(x, "dtype"))) for _ in inputs]
        for kernel in API["__ufunc_types__"][self.name]:
            takes, gives = kernel.split("->")
            if all(np.can_cast(x, k) for x, k in zip(whole, takes, strict=True)):
                if isinstance(result, ndarray) and np.dtype(gives) != result.dtype:
                    raise Undefined(f"cupy.{self.name} gives {np.dtype(gives)} here, NumPy {result.dtype}")
                return
        raise Refused(f"cupy.{self.name} has no kernel for {', '.join(map(str, whole))}")

    def at(self, target, indices, values=None):
        """``target[indices] op= values``, duplicates counted."""
        supported = AT_DTYPES.get(self.name, "")
        if target.dtype.char not in supported:
            raise Refused(f"cupy.{self.name}.at does not support {target.dtype}")
        refuse_cast(unwrap(values), target.dtype)
        target[indices]  # looks at the indices
        self.function.at(target._numbers, _numbers_of(indices), unwrap(values))

    def __getattr__(self, name):
        raise Refused(f"cupy.{self.name} has no {name}")


def _numbers_of(indices):
    if isinstance(indices, tuple):
        return tuple(_numbers_of(part) for part in indices)
    return indices._numbers if isinstance(indices, ndarray) else indices


def to_device(name, a, dtype=None, **kwargs):
    """``asarray`` and its like: the one door through which host data comes in."""
    parameters = signature(name)
    parameters.bind(a, dtype, **kwargs)
    check_dtype(dtype)
    kwargs.pop("blocking", None)
    if isinstance(a, ndarray):
        refuse_cast(a._numbers, a.dtype if dtype is None else dtype)
        return wrap(getattr(np, name)(a._numbers, dtype, **kwargs)) if _changes(name, a, dtype) else a
    numbers = np.array(a, dtype)  # a copy, always: the device's memory is another
    check_dtype(numbers.dtype)
    LEDGER.record("copy")
    return wrap(numbers)


def _changes(name, a, dtype):
    contiguous = name != "ascontiguousarray" or a.flags.c_contiguous
    return name == "array" or not contiguous or (dtype is not None and np.dtype(dtype) != a.dtype)


def empty(name, *args, **kwargs):
    """Memory that nobody has written yet: NaN, or the largest number, so that reading it shows."""
    like = [arg._numbers if isinstance(arg, ndarray) else arg for arg in args]
    signature(name).bind(*args, **kwargs)
    numbers = getattr(np, name)(*like, **kwargs)
    check_dtype(numbers.dtype)
    if numbers.dtype.kind != "b":
        numbers.fill(np.nan if numbers.dtype.kind in "fc" else np.iinfo(numbers.dtype).max)
    return wrap(numbers)


def where(condition, x=None, y=None):
    """With one argument a search, whose result the host must wait for."""
    if x is None and y is None:
        LEDGER.record("wait")
        return wrap(np.nonzero(unwrap(condition)))
    return wrap(np.where(unwrap(condition), unwrap(x), unwrap(y)))


def clip(a, a_min, a_max, out=None):
    """Between two bounds; both are needed."""
    if a_min is None or a_max is None:
        raise Refused("cupy.clip needs both bounds")
    return call("clip", np.clip, signature("clip"), (a, a_min, a_max), {"out": out})


def copyto(dst, src, casting="same_kind", where=None):
    """Writes into ``dst``, everywhere or where ``where`` is True, and counts nothing."""
    source = unwrap(src)
    refuse_overlap(dst._numbers, source)
    refuse_cast(source, dst.dtype)
    np.copyto(dst._numbers, source, casting=casting, where=True if where is None else unwrap(where))


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    """To the host."""
    return a.get()


class Module(types.ModuleType):
    """``cupy`` or one of its parts: an attribute exists if CuPy's list names it."""

    def __init__(self, name, prefix=""):
        super().__init__(name)
        self._prefix = prefix
        self.__path__ = []

    def __getattr__(self, name):
        full = self._prefix + name
        if full not in API and not any(key.startswith(f"{full}.") for key in API):
            raise AttributeError(f"CuPy has no {full!r}")
        value = _member(full, name)
        setattr(self, name, value)
        return value


RULES = {"where": where, "clip": clip, "copyto": copyto, "asnumpy": asnumpy, "ndarray": ndarray}


def _member(full, name):
    kind = API.get(full, {"kind": "module"})["kind"]
    if full in RULES:
        return RULES[full]
    if full in TO_DEVICE:
        return lambda *args, **kwargs: to_device(full, *args, **kwargs)
    if full in ("empty", "empty_like"):
        return lambda *args, **kwargs: empty(full, *args, **kwargs)
    if kind == "module" or full == "lib.stride_tricks":
        return Module(f"cupy.{full}", f"{full}.")
    if kind == "ufunc":
        return Ufunc(full)
    numpys = np
    for part in full.split("."):
        numpys = getattr(numpys, part, None)
    if kind in ("type", "float", "bool", "NoneType") or isinstance(numpys, SCALARS):
        return numpys
    if numpys is None or signature(full) is None:
        raise NotImplementedError(f"the double has no {full} yet")
    return lambda *args, **kwargs: call(full, numpys, signature(full), args, kwargs)


class CUDARuntimeError(RuntimeError):
    """What ``cupy.cuda.runtime`` raises."""


@contextlib.contextmanager
def strict_cupy():
    """The double in the place of ``cupy``: inside, ``model.to("gpu")`` and ``--device gpu`` take it for a GPU."""
    cupy, cupyx = Module("cupy"), types.ModuleType("cupyx")
    cupy.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(
            getDeviceCount=lambda: 1,
            deviceSynchronize=lambda: LEDGER.record("wait"),
            CUDARuntimeError=CUDARuntimeError,
        )
    )
    cupyx.scatter_add = lambda a, slices, value: cupy.add.at(a, slices, value)
    before = {name: sys.modules.get(name) for name in ("cupy", "cupyx")}
    sys.modules |= {"cupy": cupy, "cupyx": cupyx}
    try:
        yield cupy
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module
