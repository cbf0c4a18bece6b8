"""What a run trains on and what it is measured on."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..config import DataConfig, TrainingConfig
from ..data.coco import CocoDataset, Problem
from ..data.shapes import HELD_OUT, ShapesDataset
from ..errors import InputError
from ..structures import LabelledImages
from .loop import Dataset

HELD_OUT_SCENES = 200


class RunData(NamedTuple):
    """The images of one run."""

    training: Dataset
    length: int | None  # None: there is no end to them
    measured: LabelledImages
    batch_size: int  # for measuring: images of one size go together, others one by one


def open_data(config: TrainingConfig, classes: Sequence[str] | None) -> RunData:
    """The data that ``config`` names, looked through beforehand.

    Args:
        config: of the run.
        classes: label by these, if given; else by the data's own.

    Raises:
        InputError: a file cannot be read, or something in it is bad and bad things are not to be skipped.
    """
    if not config.data.annotations:
        length = config.images or None
        held_out = ShapesDataset(config.seed, HELD_OUT_SCENES, first=HELD_OUT)
        return RunData(ShapesDataset(config.seed, length), length, held_out, 8)
    data = config.data
    training = open_coco(data.annotations, data.images, classes, data.skip_bad)
    if not data.val_annotations:
        return RunData(training, len(training), training, 1)
    measured = open_coco(data.val_annotations, data.val_images, training.classes, data.skip_bad)
    return RunData(training, len(training), measured, 1)


def open_coco(annotations: str, images: str, classes: Sequence[str] | None, skip_bad: bool) -> CocoDataset:
    """A COCO data set, every picture and mask of which has been looked at.

    Raises:
        InputError: it is bad, or nothing is left of it without what is bad.
    """
    dataset = CocoDataset(Path(annotations), Path(images), classes=classes)
    problems = dataset.find_problems(progress=True)
    if problems and not skip_bad:
        raise InputError(
            f"{annotations}: {count(problems)}, the first: {problems[0]}; see them all with "
            f"mrcnn-scratch inspect {annotations} --image-dir {images}, or go on without them with --skip-bad"
        )
    if problems:
        print(f"{annotations}: going on without {count(problems)}")
        dataset = dataset.without(problems)
    if len(dataset) == 0:
        raise InputError(f"{annotations}: there is no usable image in it")
    return dataset


def count(problems: Sequence[Problem]) -> str:
    """ "2 bad images and 1 bad annotation"."""
    images = len({problem.image for problem in problems if problem.annotation is None})
    annotations = len({problem.annotation for problem in problems if problem.annotation is not None})
    parts = [(images, "bad image"), (annotations, "bad annotation")]
    return " and ".join(f"{number} {what}{'s' * (number > 1)}" for number, what in parts if number)


def absolute(data: DataConfig) -> DataConfig:
    """The same files by their full names, so that a run can be gone on with from anywhere."""
    names = ("annotations", "images", "val_annotations", "val_images")
    given = {name: getattr(data, name) for name in names}
    full = {name: str(Path(path).absolute()) if path else "" for name, path in given.items()}
    return DataConfig(**full, skip_bad=data.skip_bad)


def absolute_model(name: str) -> str:
    """The same for a network to start from; the packaged one is known by its name."""
    return str(Path(name).absolute()) if name and name != "shapes" else name
