"""Networks on disk: ``.npz`` files that are whole or not there at all, and hold no pickle."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array
from ..config import Config, config_from_dict
from ..errors import InputError
from ..files import write_atomically
from ..mask_rcnn import MaskRCNN

FORMAT = 1


def save_model(model: MaskRCNN, path: Path, *, half: bool = False) -> None:
    """The network alone: arrays and configuration. ``half`` stores float16, in half the space."""
    arrays = model.state()
    if half:
        arrays = {name: array.astype(np.float16) for name, array in arrays.items()}
    write_arrays(path, {"kind": "model", "config": model.config.to_dict()}, arrays)


def load_model(path: Path) -> MaskRCNN:
    """The network of a model file or of a checkpoint, in float32.

    Raises:
        InputError: there is no such file, or it is not one of ours, or damaged.
    """
    meta, arrays = read_arrays(path, ("model", "checkpoint"))
    state = {k.removeprefix("model/"): v for k, v in arrays.items() if not k.startswith("velocity/")}
    config = read_config(path, meta)
    try:
        model = MaskRCNN(config)
        model.load_state(state)
    except (ValueError, ArithmeticError, LookupError, MemoryError) as error:  # a network of -1 channels, for one
        raise InputError(f"{path} does not fit its own configuration: {error}") from None
    return model


def write_arrays(path: Path, meta: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Arrays by name, and ``meta``, which JSON can hold."""
    # JSON as bytes: an array of strings or objects would tempt a reader to unpickle.
    text = np.frombuffer(json.dumps({"format": FORMAT, **meta}).encode(), np.uint8)
    # Not compressed: trained weights shrink by 8%, and writing them takes 16 times as long.
    write_atomically(path, lambda file: np.savez(file, meta=text, **arrays))


def read_arrays(path: Path, kinds: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Array]]:
    """What :func:`write_arrays` wrote, if its ``meta["kind"]`` is one of ``kinds``.

    Raises:
        InputError: there is no such file, or it is not one of ours, or of another kind, or damaged.
    """
    cure = "expected a .npz written by mrcnn-scratch train"
    try:
        # np.load given a path would leave the file open when it is no zip.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays.pop("meta").tobytes())
        if not all(array.dtype.kind == "f" for array in arrays.values()):
            raise ValueError("networks and optimisers are made of floats")
        format_, kind = meta["format"], meta["kind"]
    except FileNotFoundError:
        raise InputError(f"there is no file {path}: {cure}") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder: {cure}") from None
    except Exception:  # the readers of zip, npy and JSON raise all sorts on damaged files
        raise InputError(f"{path} is damaged or not one of ours: {cure}") from None
    if format_ != FORMAT or kind not in kinds:
        raise InputError(f"{path} holds a {kind!r} of format {format_!r}, not a {' or a '.join(kinds)}: {cure}")
    return meta, arrays


def read_config(path: Path, meta: dict[str, Any]) -> Config:
    """The configuration in ``meta``.

    Raises:
        InputError: it holds none.
    """
    values: Any = meta.get("config")
    try:
        return config_from_dict(values)
    except InputError as error:
        raise InputError(f"{path} holds no usable configuration: {error}") from None
