"""What the options of the command line and a TOML file say of a run, together."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from .config import OWN_IMAGES, OWN_TRAINING, SHAPES, Config, TrainingConfig, config_from_dict, training_from_dict
from .config_file import read_config
from .errors import InputError
from .mask_rcnn import MaskRCNN
from .train.data import absolute_model
from .train.run import load_run
from .weights import open_model

SETTINGS = {
    "data": "training.data.annotations",
    "image_dir": "training.data.images",
    "val_data": "training.data.val_annotations",
    "val_image_dir": "training.data.val_images",
    "skip_bad": "training.data.skip_bad",
    "min_size": "network.transform.min_size",
    "max_size": "network.transform.max_size",
    **{
        name: f"training.{name}"
        for name in ("start", "steps", "batch_size", "images", "seed", "lr", "schedule", "flip", "colours")
    },
}
"""The options of the command line, and where they stand in the configuration."""


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that the options name, by their place in the configuration, such as ``training.steps``."""
    values = {path: getattr(options, name, None) for name, path in SETTINGS.items()}
    return {path: value for path, value in values.items() if value is not None}


def settings(path: Path | None, given: dict[str, Any]) -> tuple[Config, TrainingConfig, bool]:
    """The defaults, changed by the file, changed by the options; and whether the data decide on the classes.

    Args:
        path: a TOML file, or None.
        given: as :func:`given_settings` gives them.

    Raises:
        InputError: the file cannot be read, or a setting cannot be what it is said to be.
    """
    tables = {"network": {}, "training": {}} if path is None else read_config(path)
    named = isinstance(tables["network"].get("classes"), list)
    for dotted, value in given.items():
        *parents, name = dotted.split(".")
        table: Any = tables
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise InputError(f"{path}: {parent} must be a table of settings, not {table!r}")
        table[name] = value
    data = tables["training"].get("data")
    own = isinstance(data, dict) and bool(data.get("annotations"))
    default = OWN_IMAGES if own else SHAPES
    start = tables["training"].get("start")
    try:
        if isinstance(start, str) and start:  # what is not said is as in the network to start from
            default = replace(_start(start).config, transform=default.transform)
        network = config_from_dict(tables["network"], default)
        training = training_from_dict(tables["training"], OWN_TRAINING if own else TrainingConfig())
    except InputError as error:
        raise InputError(str(error) if path is None else f"{path}: {error}") from None
    return network, training, own and not named


def _start(name: str) -> MaskRCNN:
    try:
        return open_model(name)
    except InputError as error:
        raise InputError(f"training.start: {error}") from None


def check_data(config: TrainingConfig) -> None:
    """Raise an InputError where a JSON file is named without its folder, or the other way round."""
    data = config.data
    for annotations, images, option, folder in (
        (data.annotations, data.images, "--data", "--image-dir"),
        (data.val_annotations, data.val_images, "--val-data", "--val-image-dir"),
    ):
        if bool(annotations) != bool(images):
            raise InputError(f"{option} and {folder} go together: give both, the JSON file and the folder of pictures")
    if data.val_annotations and not data.annotations:
        raise InputError("--val-data is for your own pictures: give --data and --image-dir as well")


def check_unchanged(options: argparse.Namespace, given: dict[str, Any]) -> None:
    """A resumed run has its settings: raise an InputError if others are given, which would make it another run."""
    if options.config is not None:
        raise InputError("a run that is gone on with has its configuration: leave --config out")
    saved = load_run(options.out)
    tables = {"network": saved.config.to_dict(), "training": saved.training}
    option_of = {path: "--" + name.replace("_", "-") for name, path in SETTINGS.items()}
    for dotted, value in given.items():
        old: Any = tables
        for name in dotted.split("."):
            old = old.get(name) if isinstance(old, dict) else None
        if dotted.startswith("training.data.") and isinstance(value, str):
            value = str(Path(value).absolute())
        if dotted == "training.start":
            value = absolute_model(value)
        if old != value:
            option = option_of[dotted]
            raise InputError(
                f"the run in {options.out} has {option} {old}, not {value}: leave {option} out to go on with it"
            )
