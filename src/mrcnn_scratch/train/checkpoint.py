"""Training runs on disk, between two steps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backend import Array
from ..config import Config
from ..errors import InputError
from ..weights.model_file import read_arrays, read_config, write_arrays


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
    write_arrays(path, meta, arrays)


def load_checkpoint(path: Path) -> Checkpoint:
    """What :func:`save_checkpoint` wrote.

    Raises:
        InputError: there is no such file, or it is not a checkpoint of ours, or damaged.
    """
    meta, arrays = read_arrays(path, ("checkpoint",))
    groups: dict[str, dict[str, Array]] = {"model": {}, "velocity": {}}
    for key, array in arrays.items():
        group, _, name = key.partition("/")
        groups.setdefault(group, {})[name] = array
    step, training = meta.get("step"), meta.get("training")
    if type(step) is not int or step < 0 or not isinstance(training, dict):
        raise InputError(f"{path} is not a checkpoint: it does not say which step of which run it is at")
    return Checkpoint(step, groups["model"], groups["velocity"], read_config(path, meta), training)
