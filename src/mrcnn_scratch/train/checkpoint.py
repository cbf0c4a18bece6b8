"""Networks and training runs on disk: ``.npz`` files that are whole or not there at all, and hold no pickle."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array
from ..config import Config, config_from_dict
from ..errors import InputError
from ..files import write_atomically
from ..mask_rcnn import MaskRCNN

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A run between two steps. Its random state is ``(seed, step)``: every step draws from a generator made of these
    two.

    Attributes:
        step: steps done.
        state: the network's arrays by name.
        velocity: the optimiser's arrays by name.
        config: the network's configuration.
        training: the run's settings, the seed among them.
    """

    step: int
    state: dict[str, Array]
    velocity: dict[str, Array]
    config: Config
    training: dict[str, Any]


def save_model(model: MaskRCNN, path: Path, *, half: bool = False) -> None:
    """The network alone: arrays and configuration. ``half`` stores float16, in half the space."""
    arrays = model.state()
    if half:
        arrays = {name: array.astype(np.float16) for name, array in arrays.items()}
    _save(path, {"kind": "model", "config": model.config.to_dict()}, arrays)


def load_model(path: Path) -> MaskRCNN:
    """The network of a model file or of a checkpoint, in float32.

    Raises:
        InputError: there is no such file, or it is not one of ours, or damaged.
    """
    meta, arrays = _load(path, ("model", "checkpoint"))
    state = {k.removeprefix("model/"): v for k, v in arrays.items() if not k.startswith("velocity/")}
    config = _config(path, meta)
    try:
        model = MaskRCNN(config)
        model.load_state(state)
    except (ValueError, ArithmeticError, LookupError, MemoryError) as error:  # a network of -1 channels, for one
        raise InputError(f"{path} does not fit its own configuration: {error}") from None
    return model


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Everything that a run needs to go on as if it had never stopped."""
    meta = {
        "kind": "checkpoint",
        "step": checkpoint.step,
        "config": checkpoint.config.to_dict(),
        "training": checkpoint.training,
    }
    arrays = {f"model/{name}": array for name, array in checkpoint.state.items()}
    arrays |= {f"velocity/{name}": array for name, array in checkpoint.velocity.items()}
    _save(path, meta, arrays)


def load_checkpoint(path: Path) -> Checkpoint:
    """What :func:`save_checkpoint` wrote.

    Raises:
        InputError: there is no such file, or it is not a checkpoint of ours, or damaged.
    """
    meta, arrays = _load(path, ("checkpoint",))
    groups: dict[str, dict[str, Array]] = {"model": {}, "velocity": {}}
    for key, array in arrays.items():
        group, _, name = key.partition("/")
        groups.setdefault(group, {})[name] = array
    step, training = meta.get("step"), meta.get("training")
    if type(step) is not int or step < 0 or not isinstance(training, dict):
        raise InputError(f"{path} is not a checkpoint: it does not say which step of which run it is at")
    return Checkpoint(step, groups["model"], groups["velocity"], _config(path, meta), training)


def _save(path: Path, meta: dict[str, Any], arrays: dict[str, Array]) -> None:
    # JSON as bytes: an array of strings or objects would tempt a reader to unpickle.
    text = np.frombuffer(json.dumps({"format": FORMAT, **meta}).encode(), np.uint8)
    # Not compressed: trained weights shrink by 8%, and writing them takes 16 times as long.
    write_atomically(path, lambda file: np.savez(file, meta=text, **arrays))


def _load(path: Path, kinds: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Array]]:
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


def _config(path: Path, meta: dict[str, Any]) -> Config:
    values: Any = meta.get("config")
    try:
        return config_from_dict(values)
    except InputError as error:
        raise InputError(f"{path} holds no usable configuration: {error}") from None
