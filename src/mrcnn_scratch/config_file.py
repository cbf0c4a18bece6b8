"""A run's configuration as a TOML file: the tables ``[network]`` and ``[training]``, by the names in ``config.py``."""

import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w

from .config import Config, TrainingConfig
from .errors import InputError
from .files import write_atomically


def read_config(path: Path) -> dict[str, Any]:
    """The two tables, either of which may be missing or hold few settings: the others keep their defaults.

    Raises:
        InputError: the file cannot be read or is not TOML, or holds something else.
    """
    try:
        with open(path, "rb") as file:
            settings = tomllib.load(file)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, or an integer of thousands of digits
        raise InputError(f"{path} is not TOML: {error or 'it is nested too deep'}") from None
    unknown = sorted(settings.keys() - {"network", "training"})
    if unknown:
        raise InputError(f"{path}: there is no table [{unknown[0]}], only [network] and [training]")
    return {name: _table(path, name, settings.get(name, {})) for name in ("network", "training")}


def write_config(path: Path, network: Config, training: TrainingConfig) -> None:
    """Every setting of a run, so that ``train --config`` with this file does it again."""
    settings = {"training": asdict(training), "network": network.to_dict()}
    write_atomically(path, lambda file: tomli_w.dump(settings, file))


def _table(path: Path, name: str, table: Any) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise InputError(f"{path}: {name} must be a table of settings, [{name}], not {table!r}")
    return table
