"""``cupy.ndarray``: a NumPy array in a wrapper that refuses what CuPy refuses."""

import numpy as np

from .api import API, signature
from .ledger import LEDGER, Refused, Undefined

SCALARS = (bool, int, float, complex, np.bool_, np.number)
OPERATORS = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift"]
COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge"]
PROPERTIES = {"shape", "dtype", "ndim", "size", "itemsize", "nbytes", "strides", "flags"}
VIEWS = {"T", "mT", "real", "imag"}


class ndarray:
    """An array on the "device". Made by the functions of the module, never from the class."""

    __slots__ = ("__weakref__", "_numbers")
    __array_ufunc__ = None  # a NumPy ufunc that is handed one of these raises a TypeError
    __hash__ = None

    def __array_function__(self, function, *_):
        raise Refused(f"numpy.{function.__name__} was handed a device array: call it as xp.{function.__name__}")

    def __array__(self, *_, **__):
        raise Refused("implicit conversion to a NumPy array is not allowed: use to_host")

    def __getattr__(self, name):
        if f"ndarray.{name}" not in API:
            raise AttributeError(f"cupy.ndarray has no attribute {name!r}")
        if name in PROPERTIES:
            return getattr(self._numbers, name)
        if name in VIEWS:
            return wrap(getattr(self._numbers, name))
        return lambda *args, **kwargs: _call_method(self, name, args, kwargs)

    def __len__(self):
        return len(self._numbers)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index):
        numbers, advanced = _read_index(index)
        try:
            return wrap(self._numbers[numbers])
        except IndexError as error:
            raise (Undefined(f"CuPy wraps indices silently: {error}") if advanced else error) from None

    def __setitem__(self, index, value):
        numbers, advanced = _read_index(index)
        given = unwrap(value)
        if not isinstance(value, (ndarray, *SCALARS)):
            raise Refused(f"cannot store a {type(value).__name__} in a device array")
        if advanced:
            self._refuse_wild_write(numbers, given)
        else:
            refuse_overlap(self._numbers[numbers], given)
        refuse_cast(given, self.dtype)
        self._numbers[numbers] = given

    def _refuse_wild_write(self, numbers, given):
        places = np.arange(self.size).reshape(self.shape)
        try:
            places = places[numbers]
        except IndexError as error:
            raise Undefined(f"CuPy wraps indices silently: {error}") from None
        if np.size(given) > 1 and len(np.unique(places)) < places.size:
            raise Undefined("an element is written more than once: CuPy keeps any of the values; use scatter_add")

    def __bool__(self):
        LEDGER.record("wait")
        return bool(self._numbers)

    def __int__(self):
        LEDGER.record("wait")
        return int(self._numbers)

    def __float__(self):
        LEDGER.record("wait")
        return float(self._numbers)

    # No __index__: CuPy has none either, so x[:n] and range(n) refuse a device scalar n.

    def get(self, stream=None, order="C", out=None, blocking=True):
        LEDGER.record("wait")
        return np.array(self._numbers, order=order)

    def item(self):
        LEDGER.record("wait")
        return self._numbers.item()

    def tolist(self):
        LEDGER.record("wait")
        return self._numbers.tolist()

    def fill(self, value):
        self[...] = value

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        refuse_cast(self._numbers, dtype)
        return wrap(self._numbers.astype(check_dtype(dtype), order=order, copy=copy))

    def __neg__(self):
        return wrap(-self._numbers)

    def __invert__(self):
        return wrap(~self._numbers)

    def __abs__(self):
        return wrap(abs(self._numbers))

    def __repr__(self):
        return f"device{self._numbers!r}"


def _operator(name):
    def operate(self, other):
        return wrap(getattr(np.asarray(self._numbers), name)(unwrap(other)))

    return operate


def _in_place(name):
    def operate(self, other):
        other = unwrap(other)
        refuse_overlap(self._numbers, other)
        getattr(self._numbers, name)(other)
        return self

    return operate


for _name in OPERATORS:
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))
    setattr(ndarray, f"__r{_name}__", _operator(f"__r{_name}__"))
    if f"__i{_name}__" in API["__dunders__"]:
        setattr(ndarray, f"__i{_name}__", _in_place(f"__i{_name}__"))
for _name in COMPARISONS:
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))


def wrap(value):
    """What NumPy returned, as CuPy would return it: arrays, and scalars as arrays without axes, on the device."""
    if isinstance(value, (np.ndarray, np.generic)):
        array = object.__new__(ndarray)
        array._numbers = np.asarray(value)
        return array
    if isinstance(value, (list, tuple)) and any(isinstance(part, (np.ndarray, np.generic)) for part in value):
        return type(value)(map(wrap, value)) if type(value) in (list, tuple) else tuple(map(wrap, value))
    return value


def unwrap(value):
    """An operand as NumPy takes it: a device array's numbers, or a scalar. A host array or a list is refused."""
    if isinstance(value, ndarray):
        return value._numbers
    if isinstance(value, SCALARS):
        return value
    raise Refused(f"unsupported type {type(value).__name__} in an operation on device arrays: to_device it first")


def check_dtype(dtype):
    """``dtype``, unless no device array can have it."""
    if dtype is not None and np.dtype(dtype).kind not in "biufc":
        raise Refused(f"a device array cannot hold {np.dtype(dtype)}")
    return dtype


def refuse_cast(numbers, dtype):
    """Float to int is C's cast: what it makes of NaN, infinities and (unsigned) negatives differs by device."""
    numbers = np.asarray(numbers)
    if numbers.dtype.kind != "f" or np.dtype(dtype).kind not in "iu":
        return
    if not np.isfinite(numbers).all():
        raise Undefined("a NaN or an infinity becomes an int: on a GPU that gives another number")
    if (numbers < 0).any():
        raise Undefined("a negative float becomes an int: round it by xp.floor or xp.clip it at 0 first")


def refuse_overlap(target, source):
    """NumPy copies first where a write would overtake what it reads; a GPU's threads do not wait for each other."""
    if not isinstance(source, np.ndarray) or not np.may_share_memory(target, source):
        return
    same = target.__array_interface__["data"] == source.__array_interface__["data"]
    if same and target.shape == source.shape and target.strides == source.strides:
        return
    if np.shares_memory(target, source):
        raise Undefined("the memory that is written is also read, at other places: on a GPU the order is not known")


def _read_index(index):
    """An index as NumPy takes it, and whether any part of it is an array."""
    parts = index if isinstance(index, tuple) else (index,)
    numbers, advanced = [], False
    for part in parts:
        if isinstance(part, ndarray):
            advanced = True
            if part.dtype == bool:
                LEDGER.record("wait")  # CuPy asks how many are True
            part = part._numbers
        elif isinstance(part, (np.ndarray, list)):
            advanced = True
            LEDGER.record("index")  # CuPy copies it to the device
        elif isinstance(part, slice):
            _require_host_ends(part)
        numbers.append(part)
    return tuple(numbers), advanced


def _require_host_ends(part):
    for end in (part.start, part.stop, part.step):
        if isinstance(end, ndarray):
            raise Refused("slice ends must be whole numbers on the host, not device scalars")


def _call_method(array, name, args, kwargs):
    """A method without a rule of its own: by CuPy's signature, with NumPy's numbers."""
    from .module import call  # the functions and the methods share their checks

    if name in ("reshape", "transpose"):  # NumPy's own rule for one tuple or several numbers
        return wrap(getattr(array._numbers, name)(*map(_shape_part, args), **kwargs))
    method = signature(f"ndarray.{name}")
    if method is None:
        raise NotImplementedError(f"the double has no ndarray.{name} yet")
    return call(name, lambda a, *rest, **named: getattr(a, name)(*rest, **named), method, (array, *args), kwargs)


def _shape_part(part):
    if isinstance(part, ndarray) or (isinstance(part, (list, tuple)) and any(isinstance(p, ndarray) for p in part)):
        raise Refused("a shape is made of whole numbers on the host, not of device scalars")
    return part
