"""Read the state dict in a PyTorch file, with no PyTorch installed and nothing in the file executed.

``torch.save`` has written two formats. Both hold a pickle that describes the tensors, and then the numbers:

* today's zip, uncompressed: ``NAME/data.pkl``, ``NAME/byteorder`` and a record ``NAME/data/KEY`` per storage;
* the older stream, in which torchvision published Mask R-CNN in 2019: five pickles (a magic number, a
  version, the writer's system, the tensors, the storage keys), then per key an int64 length and the numbers.

A storage is a flat run of numbers; a tensor is an offset, a shape and strides in one.
"""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..backend import Array
from ..errors import InputError
from .restricted_pickle import Storage, Tensor, run_pickle

_ZIP_START = b"PK\3\4"
_STREAM_START = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
_WRONG_STORAGE = "the numbers of a tensor are missing, cut short or too many"
_CURE = (
    "download it again if it is damaged, or save the weights alone in PyTorch: "
    'torch.save(model.state_dict(), "weights.pth")'
)
_BYTE_ORDERS = {b"little": "<", b"big": ">"}

_Load = Callable[[Storage], Array]


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The named tensors in a ``.pth`` file, as NumPy arrays in PyTorch's layout.

    A training checkpoint will do too, if its state dict stands under "model" or "state_dict". Anything but
    tensors is left out. Each storage is read once, and only if wanted, so memory is the size of the tensors
    and one storage more. Tensors that share a storage share memory here too, and an array may be strided.

    Args:
        path: a file that ``torch.save`` wrote, in either format.

    Returns:
        Tensor by name, in the file's order and dtype, but bfloat16, which NumPy lacks, as float32.

    Raises:
        InputError: there is no such file, it is damaged, or it holds something other than a state dict. The
            file may come from a stranger: it cannot run code or claim more memory than its size explains.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; give the path of a .pth file")
    try:
        with path.open("rb") as file:
            return _read(file)
    except (ValueError, pickle.UnpicklingError) as error:
        raise _unreadable(path, str(error)) from error
    # What opening a file raises, and zipfile over a damaged one.
    except (OSError, EOFError, OverflowError, RuntimeError, zipfile.BadZipFile) as error:
        raise _unreadable(path, f"it cannot be read through ({error})") from error


def _unreadable(path: Path, reason: str) -> InputError:
    line = " ".join(reason.split())[:200]
    return InputError(f"{path}: no state dict to be read: {line}; {_CURE}")


def _read(file: IO[bytes]) -> dict[str, Array]:
    start = file.read(len(_STREAM_START))
    if start.startswith(_ZIP_START):
        return _read_zip(file)
    if start == _STREAM_START:
        return _read_stream(file)
    raise ValueError("it begins like no file of torch.save")


def _read_zip(file: IO[bytes]) -> dict[str, Array]:
    with zipfile.ZipFile(file) as archive:
        records = _records(archive, os.fstat(file.fileno()).st_size)
        with archive.open(records["data.pkl"]) as stream:
            tensors = _find_state_dict(run_pickle(stream)[0])
        # Files older than this record are little-endian.
        byteorder = archive.read(records["byteorder"]) if "byteorder" in records else b"little"
        if byteorder not in _BYTE_ORDERS:
            raise ValueError("its byte order is neither little nor big")

        def load(storage: Storage) -> Array:
            record = records.get(f"data/{storage.key}")
            if record is None or record.file_size != storage.length * storage.itemsize:
                raise ValueError(_WRONG_STORAGE)
            with archive.open(record) as stream:
                return _read_storage(stream, storage, _BYTE_ORDERS[byteorder])

        return _build(tensors, load)


def _records(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The zip's entries, named from the folder that holds data.pkl; together no larger than the file."""
    entries = archive.infolist()
    pickles = [entry.filename for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("it is a zip file without PyTorch's data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    records = {e.filename.removeprefix(folder): e for e in entries if e.filename.startswith(folder)}
    if any(record.compress_type != zipfile.ZIP_STORED for record in records.values()):
        raise ValueError("its records are compressed, which torch.save never does")
    # Stored entries cannot hold more than the file, unless they overlap or lie.
    if sum(record.file_size for record in records.values()) > size:
        raise ValueError("its records claim more bytes than the file has")
    return records


def _read_stream(file: IO[bytes]) -> dict[str, Array]:
    run_pickle(file)  # the writer's system, which does not matter: the numbers are always little-endian
    saved, storages = run_pickle(file)
    tensors = _find_state_dict(saved)
    keys, _ = run_pickle(file)
    positions = _locate(file, keys, storages)

    def load(storage: Storage) -> Array:
        if storage.key not in positions:
            raise ValueError(_WRONG_STORAGE)
        file.seek(positions[storage.key])
        return _read_storage(file, storage, "<")

    return _build(tensors, load)


def _locate(file: IO[bytes], keys: Any, storages: dict[str, Storage]) -> dict[str, int]:
    """Where each storage's numbers begin: they follow one another, each after its length."""
    if not (isinstance(keys, list) and all(isinstance(key, str) and key in storages for key in keys)):
        raise ValueError(_WRONG_STORAGE)
    size = os.fstat(file.fileno()).st_size
    positions = {}
    for key in keys:
        length = int.from_bytes(file.read(8), "little")
        positions[key] = file.tell()
        end = file.tell() + length * storages[key].itemsize
        if length != storages[key].length or end > size:
            raise ValueError(_WRONG_STORAGE)
        file.seek(end)
    return positions


def _read_storage(stream: IO[bytes], storage: Storage, order: str) -> Array:
    """(length,) numbers in this machine's byte order. The caller has checked the length against the file."""
    raw = np.frombuffer(stream.read(storage.length * storage.itemsize), np.uint8)
    if raw.size != storage.length * storage.itemsize:
        raise ValueError(_WRONG_STORAGE)
    if storage.code == "b1":
        return raw != 0
    if storage.code == "bf2":  # a bfloat16 is the upper half of a float32
        return (raw.view(f"{order}u2").astype(np.uint32) << 16).view(np.float32)
    return raw.view(order + storage.code).astype(storage.code)


def _find_state_dict(saved: Any) -> dict[str, Tensor]:
    """What was saved, or what it holds under "model" or "state_dict", without what is no tensor."""
    if not isinstance(saved, dict):
        raise ValueError("what it holds is no dict")
    nested = [found for key in ("model", "state_dict") if (found := _tensors(saved.get(key)))]
    if len(nested) > 1:
        raise ValueError('it holds two state dicts, "model" and "state_dict"')
    found = nested[0] if nested else _tensors(saved)
    if not found:
        raise ValueError("it holds a dict without tensors")
    return found


def _tensors(value: Any) -> dict[str, Tensor]:
    if not isinstance(value, dict):
        return {}
    return {name: item for name, item in value.items() if isinstance(name, str) and isinstance(item, Tensor)}


def _build(tensors: dict[str, Tensor], load: _Load) -> dict[str, Array]:
    """Load each storage once and lay every tensor over its own."""
    loaded: dict[str, Array] = {}
    arrays = {}
    for name, tensor in tensors.items():
        key = tensor.storage.key
        if key not in loaded:
            loaded[key] = load(tensor.storage)
        arrays[name] = _view(loaded[key], tensor)
    return arrays


def _view(numbers: Array, tensor: Tensor) -> Array:
    """The tensor's elements, not copied. That they lie within the storage was checked with the pickle."""
    # The stride of a side of 1 is never used, and may be anything.
    steps = [step if side > 1 else 0 for side, step in zip(tensor.shape, tensor.strides, strict=True)]
    strides = [step * numbers.itemsize for step in steps]
    return np.ndarray(tensor.shape, numbers.dtype, numbers, tensor.offset * numbers.itemsize, strides)
