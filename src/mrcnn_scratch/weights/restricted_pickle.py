"""Run the pickle inside a PyTorch file on a machine that can build tensors and nothing else.

A pickle is not data but a program for a machine with a stack and a numbered memo, one byte per instruction.
``pickle.load`` runs whatever program a stranger wrote: it may import any module and call any function. Here
is a smaller machine. It knows the instructions that ``torch.save`` writes for dicts of tensors and the names
below; a name stays a string, nothing is imported, and every size is checked before it is believed.

Why not ``pickle.Unpickler`` with its own ``find_class``? That keeps strangers' functions out, but not their
numbers. Nine bytes that store memo entry 100,000,000 make it allocate 1.5 GB, and a tuple nested a million
times and used as a key crashes the interpreter, which nothing can catch (both seen on CPython 3.11). Here
the memo is a dict, keys are strings or 64-bit integers, nothing recurses, and no instruction copies what an
earlier one made. So time and memory follow the length of the program, which is limited too.
"""

import math
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pickle import UnpicklingError
from typing import IO, Any, TypeAlias

PICKLE_LIMIT = 2**20
"""Longest program, in bytes. A tensor takes about 150, so this is room for 7,000 of them."""

MAX_DIMENSIONS = 32
MAX_ARGUMENTS = 8

STORAGE_TYPES = {
    "torch.DoubleStorage": "f8",
    "torch.FloatStorage": "f4",
    "torch.HalfStorage": "f2",
    "torch.BFloat16Storage": "bf2",
    "torch.LongStorage": "i8",
    "torch.IntStorage": "i4",
    "torch.ShortStorage": "i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "b1",
}
"""The element type of each storage: what it is, then its size in bytes."""


@dataclass(frozen=True)
class Storage:
    """A flat run of numbers somewhere else in the file, described and not yet read.

    Attributes:
        key: what the file calls it.
        code: one of the values of ``STORAGE_TYPES``.
        length: how many elements it claims to have.
    """

    key: str
    code: str
    length: int

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return int(self.code[-1])


@dataclass(frozen=True)
class Tensor:
    """A view into a storage, within its bounds; ``offset`` and ``strides`` count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    """The name of a Python object. It stays a name."""

    text: str


@dataclass(frozen=True)
class _View:
    """A storage entered at ``start``: the older format could save part of a storage under its own key."""

    storage: Storage
    start: int


def run_pickle(stream: IO[bytes]) -> tuple[Any, dict[str, Storage]]:
    """Run the program that begins where the stream stands, and leave the stream after its STOP.

    Args:
        stream: can seek; at most ``PICKLE_LIMIT`` bytes of it are looked at.

    Returns:
        What the program built, of dicts, lists, tuples, strings, numbers, ``None`` and ``Tensor``; and every
        storage it mentions, by key.

    Raises:
        UnpicklingError: the program asks for anything else, or is damaged; the text says what.
    """
    start = stream.tell()
    program = BytesIO(stream.read(PICKLE_LIMIT))
    machine = _Machine(program)
    try:
        result = machine.run()
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        # An empty stack, a memo entry never stored, wrong arguments: no program that pickle wrote does these.
        raise UnpicklingError("its pickle is damaged") from error
    stream.seek(start + program.tell())
    return result, machine.storages


class _Machine:
    """The machine's state, and the instructions that take more than a line; ``_INSTRUCTIONS`` lists all."""

    def __init__(self, program: BytesIO) -> None:
        self.program = program
        self.stack: list[Any] = []
        self.set_aside: list[list[Any]] = []  # MARK starts a new stack and keeps the old one here
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def run(self) -> Any:
        while (code := self.read(1)) != pickle.STOP:
            if code not in _INSTRUCTIONS:
                raise UnpicklingError(f"its pickle holds the instruction {code!r}, which no state dict needs")
            _INSTRUCTIONS[code](self)
        return self.stack.pop()

    # Reading the program

    def read(self, size: int) -> bytes:
        data = self.program.read(size)
        if len(data) != size:
            raise UnpicklingError(f"its pickle breaks off, or is longer than {PICKLE_LIMIT} bytes")
        return data

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.read(struct.calcsize(layout)))[0]

    def long(self) -> int:
        size = self.number("<B")
        if size > 8:  # long enough ones can all be given one hash, which makes a dict of them slow
            raise UnpicklingError("its pickle holds an integer of more than 64 bits")
        return int.from_bytes(self.read(size), "little", signed=True)

    def text(self, layout: str, encoding: str) -> str:
        return self.read(self.number(layout)).decode(encoding)

    def line(self) -> str:
        return self.program.readline().removesuffix(b"\n").decode("ascii")

    # The stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        return [self.stack.pop() for _ in range(count)][::-1]

    def pop_to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.set_aside.pop()
        return items

    def store(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def mark(self) -> None:
        self.set_aside.append(self.stack)
        self.stack = []

    # Containers

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise TypeError
        _fill(target, zip(items[::2], items[1::2], strict=True))

    # Names, tensors, storages

    def protocol(self) -> None:
        protocol = self.number("<B")
        if protocol != 2:
            raise UnpicklingError(f"it was saved with pickle_protocol={protocol}, not with the usual 2")

    def name(self) -> None:
        text = f"{self.line()}.{self.line()}"
        if text not in STORAGE_TYPES and text not in _BUILDERS:
            raise UnpicklingError(f"it asks for the Python object {text[:80]!r}, not only for tensors")
        self.push(_Name(text))

    def call(self) -> None:
        name, arguments = self.pop(2)
        if not (isinstance(name, _Name) and name.text in _BUILDERS):
            raise UnpicklingError("its pickle calls something that builds no tensor")
        if not (isinstance(arguments, tuple) and len(arguments) <= MAX_ARGUMENTS):
            raise TypeError
        self.push(_BUILDERS[name.text](*arguments))

    def storage(self) -> None:
        """``("storage", type, key, device, length)``; the older format adds None or (key, start, length)."""
        description = self.stack.pop()
        if not (isinstance(description, tuple) and len(description) in (5, 6)):
            raise TypeError
        tag, kind, key, _, length, *rest = description
        if not (tag == "storage" and isinstance(kind, _Name) and isinstance(key, str) and _are_sizes(length)):
            raise TypeError
        storage = Storage(key, STORAGE_TYPES[kind.text], length)
        if self.storages.setdefault(key, storage) != storage:
            raise UnpicklingError("it describes one storage in two ways")
        _, start, _ = (rest and rest[0]) or (key, 0, length)
        self.push(_View(storage, start))


def _fill(target: dict[Any, Any], pairs: Any) -> dict[Any, Any]:
    """Put pairs into a dict. A tuple as a key could be too deep to hash."""
    for key, value in pairs:
        if not isinstance(key, str | int):
            raise UnpicklingError("its pickle has a dict key that is neither a string nor an integer")
        target[key] = value
    return target


def _are_sizes(*values: Any) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


def _rebuild_tensor(view: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    """``torch._utils._rebuild_tensor_v2``; after the strides come ``requires_grad`` and hooks, not needed."""
    if not (isinstance(view, _View) and isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise TypeError
    if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
        raise UnpicklingError("it holds a tensor with an impossible shape")
    if not _are_sizes(view.start, offset, *shape, *strides):
        raise UnpicklingError("it holds a tensor with a negative size or stride")
    start = view.start + offset
    count = math.prod(shape)
    last = start + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    # A stride of 0 repeats an element, so a tensor could lie within its storage and still be of any size.
    if count > view.storage.length or (count > 0 and last >= view.storage.length):
        raise UnpicklingError("it holds a tensor larger than its storage")
    return Tensor(view.storage, start, shape, strides)


def _ordered_dict(pairs: Any = None) -> dict[Any, Any]:
    """``collections.OrderedDict``: Python 3 makes it empty and fills it later, Python 2 hands it a list."""
    if pairs is None:
        return {}
    result = _fill({}, pairs)
    pairs.clear()  # used up, or a program could have one long list copied a hundred thousand times
    return result


_BUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
}

_Instruction: TypeAlias = Callable[[_Machine], object]

_INSTRUCTIONS: dict[bytes, _Instruction] = {
    pickle.PROTO: _Machine.protocol,
    pickle.NONE: lambda m: m.push(None),
    pickle.NEWTRUE: lambda m: m.push(True),
    pickle.NEWFALSE: lambda m: m.push(False),
    pickle.BININT: lambda m: m.push(m.number("<i")),
    pickle.BININT1: lambda m: m.push(m.number("<B")),
    pickle.BININT2: lambda m: m.push(m.number("<H")),
    pickle.LONG1: lambda m: m.push(m.long()),
    pickle.BINFLOAT: lambda m: m.push(m.number(">d")),
    pickle.BINUNICODE: lambda m: m.push(m.text("<I", "utf-8")),
    pickle.BINSTRING: lambda m: m.push(m.text("<I", "latin-1")),  # Python 2 wrote these two
    pickle.SHORT_BINSTRING: lambda m: m.push(m.text("<B", "latin-1")),
    pickle.BINPUT: lambda m: m.store(m.number("<B")),
    pickle.LONG_BINPUT: lambda m: m.store(m.number("<I")),
    pickle.BINGET: lambda m: m.push(m.memo[m.number("<B")]),
    pickle.LONG_BINGET: lambda m: m.push(m.memo[m.number("<I")]),
    pickle.MARK: _Machine.mark,
    pickle.EMPTY_TUPLE: lambda m: m.push(()),
    pickle.TUPLE1: lambda m: m.push(tuple(m.pop(1))),
    pickle.TUPLE2: lambda m: m.push(tuple(m.pop(2))),
    pickle.TUPLE3: lambda m: m.push(tuple(m.pop(3))),
    pickle.TUPLE: lambda m: m.push(tuple(m.pop_to_mark())),
    pickle.EMPTY_LIST: lambda m: m.push([]),
    pickle.APPEND: lambda m: m.append(m.pop(1)),
    pickle.APPENDS: lambda m: m.append(m.pop_to_mark()),
    pickle.EMPTY_DICT: lambda m: m.push({}),
    pickle.SETITEM: lambda m: m.set_items(m.pop(2)),
    pickle.SETITEMS: lambda m: m.set_items(m.pop_to_mark()),
    pickle.GLOBAL: _Machine.name,
    pickle.REDUCE: _Machine.call,
    pickle.BINPERSID: _Machine.storage,
    pickle.BUILD: lambda m: m.pop(1),  # attributes: a state dict has one, _metadata, and it is dropped
}
