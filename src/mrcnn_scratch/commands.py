"""What the commands of the command line do, given their options."""

import argparse
import glob
import math
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import measure, visualize
from .config import OWN_IMAGES, OWN_TRAINING, SHAPES, Config, TrainingConfig, config_from_dict, training_from_dict
from .config_file import read_config
from .data.coco import CocoDataset
from .data.coco_file import coco_dict
from .data.images import read_image
from .data.shapes import HELD_OUT, ShapesDataset
from .errors import InputError
from .evaluation import format_table
from .files import check_writable, make_folder, write_atomically, write_json
from .inspection import inspect as look_through
from .inspection_report import format_inspection
from .mask_rcnn import MaskRCNN
from .mine import use_mine
from .structures import Detections
from .train import run
from .train.data import absolute_model, open_coco
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


def complain(reason: object) -> None:
    """One line, whatever the reason holds: a file's name may hold line ends."""
    print("mrcnn-scratch:", " ".join(str(reason).split()), file=sys.stderr)


# train


def train(options: argparse.Namespace) -> int:
    """``mrcnn-scratch train``."""
    _use_mine(options)
    given = {path: value for name, path in SETTINGS.items() if (value := getattr(options, name)) is not None}
    if options.resume:
        _check_unchanged(options, given)
        network, config, own_classes = SHAPES, TrainingConfig(), False
    else:
        network, config, own_classes = _settings(options.config, given)
        _check_data(config)
    table = run.train(
        options.out, network, config, device=options.device, resume=options.resume, own_classes=own_classes
    )
    print(table)
    print(f"\nDetections beside the truth: {options.out / 'detections.png'}\nCurves: {options.out / 'curves.png'}")
    return 0


def _settings(path: Path | None, given: dict[str, Any]) -> tuple[Config, TrainingConfig, bool]:
    """The defaults, changed by the file, changed by the options; and whether the data decide on the classes."""
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


def _check_data(config: TrainingConfig) -> None:
    data = config.data
    for annotations, images, option, folder in (
        (data.annotations, data.images, "--data", "--image-dir"),
        (data.val_annotations, data.val_images, "--val-data", "--val-image-dir"),
    ):
        if bool(annotations) != bool(images):
            raise InputError(f"{option} and {folder} go together: give both, the JSON file and the folder of pictures")
    if data.val_annotations and not data.annotations:
        raise InputError("--val-data is for your own pictures: give --data and --image-dir as well")


def _check_unchanged(options: argparse.Namespace, given: dict[str, Any]) -> None:
    """A resumed run has its settings; refuse others, which would make it another run."""
    if options.config is not None:
        raise InputError("a run that is gone on with has its configuration: leave --config out")
    saved = run.load_run(options.out)
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


# evaluate


def evaluate(options: argparse.Namespace) -> int:
    """``mrcnn-scratch evaluate``."""
    _use_mine(options)
    for path in filter(None, (options.json, options.results)):  # better known now than after minutes of work
        if os.path.isdir(path):
            raise InputError(f"cannot write {path}: it is a folder")
        check_writable(path.parent)
    model = _model(options)
    if options.data or options.image_dir:
        measured = _measure_own(options, model)
    else:
        measured = _measure_shapes(options, model)
    print(format_table(measured.figures, model.config.classes))
    if options.json is not None:
        write_json(options.json, _nan_to_none(measured.figures))
    if options.results is not None:
        write_json(options.results, measured.results)
    return 0


def _measure_shapes(options: argparse.Namespace, model: MaskRCNN) -> measure.Measured:
    scenes = ShapesDataset(options.seed or 0, options.images or 200, first=HELD_OUT)
    if len(model.config.classes) != len(scenes.classes):
        raise InputError(
            f"{options.model} knows {len(model.config.classes)} classes; toy scenes have {len(scenes.classes)}: give "
            "your own pictures by --data and --image-dir"
        )
    named = _Named(scenes, model.config.classes)
    return measure.measure(model, named, batch_size=8, results=options.results is not None)


class _Named:
    """A data set whose classes go by a network's names for them."""

    def __init__(self, dataset: ShapesDataset, classes: tuple[str, ...]) -> None:
        self.dataset, self.classes = dataset, classes

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Any:
        return self.dataset[i]


def _measure_own(options: argparse.Namespace, model: MaskRCNN) -> measure.Measured:
    if not (options.data and options.image_dir):
        raise InputError("--data and --image-dir go together: give both, the JSON file and the folder of pictures")
    for name in ("images", "seed"):
        if getattr(options, name) is not None:
            raise InputError(f"--{name} chooses toy scenes: leave it out with --data")
    dataset = open_coco(options.data, options.image_dir, model.config.classes, bool(options.skip_bad))
    # One by one, so that an image's detections do not depend on the padding that its neighbours need.
    return measure.measure(
        model,
        dataset,
        image_ids=dataset.image_ids,
        category_ids=dataset.category_ids,
        results=options.results is not None,
    )


# detect


def detect(options: argparse.Namespace) -> int:
    """``mrcnn-scratch detect``. A picture that cannot be read is complained about, and the others are done."""
    _use_mine(options)
    paths = _expand(options.images)
    names = _output_names(paths, options.out)
    model = _model(options)
    failures = 0
    for path, name in zip(paths, names, strict=True):
        try:
            image = read_image(path)
        except InputError as error:
            complain(error)
            failures += 1
            continue
        make_folder(options.out)  # only now: a folder with nothing in it would look like a result
        found = model.detect([image])[0]
        shown = found.above(options.score)
        _write_picture(options.out / f"{name}.png", visualize.overlay(image, shown, model.config.classes))
        if options.masks:
            _write_masks(options.out / f"{name}-masks", shown, model.config.classes)
        write_json(options.out / f"{name}.json", measure.coco_results(found, path.name))
        counts = zip(*np.unique(shown.labels, return_counts=True), strict=True)
        print(f"{path}: {', '.join(f'{n} {model.config.classes[k - 1]}' for k, n in counts) or 'nothing found'}")
    return 2 if failures else 0


def _expand(given: Sequence[str]) -> list[Path]:
    """Pictures, those in folders, and those that patterns match, each once, in the order given."""
    paths: dict[Path, None] = {}
    for text in given:
        path = Path(text)
        if os.path.isdir(path):  # unlike Path's, False also of a name that no file can have
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in Image.registered_extensions())
        elif not os.path.exists(path) and any(character in text for character in "*?["):
            found = [p for p in map(Path, sorted(glob.glob(text, recursive=True))) if p.is_file()]
        else:
            found = [path]
        if not found:
            raise InputError(f"there is no picture in {text}" if os.path.isdir(path) else f"no file matches {text}")
        paths.update(dict.fromkeys(found))
    return list(paths)


def _output_names(images: Sequence[Path], out: Path) -> list[str]:
    """One name per image: its own without the ending, or with it where two would meet."""
    stems = [path.stem for path in images]
    names = [path.name if stems.count(path.stem) > 1 else path.stem for path in images]
    if len(set(names)) < len(names):
        raise InputError("two images have the same name: detect them into different folders")
    for path, name in zip(images, names, strict=True):
        if path.resolve() == (out / f"{name}.png").resolve():
            raise InputError(f"the overlay would overwrite {path}: choose another --out")
    return names


def _write_masks(folder: Path, shown: Detections, classes: Sequence[str]) -> None:
    """001-square.png, ..., best first."""
    make_folder(folder)
    for number, (label, mask) in enumerate(zip(shown.labels.tolist(), shown.masks, strict=True), start=1):
        name = "".join(c if c.isalnum() else "_" for c in classes[label - 1])[:40]  # a file's name has 255 bytes
        _write_picture(folder / f"{number:03}-{name}.png", mask)


def _write_picture(path: Path, image: Any) -> None:
    write_atomically(path, lambda file: Image.fromarray(image).save(file, "PNG"))


# inspect


def inspect(options: argparse.Namespace) -> int:
    """``mrcnn-scratch inspect``."""
    given = {path: value for name, path in SETTINGS.items() if (value := getattr(options, name, None)) is not None}
    network, _, _ = _settings(options.config, given)
    check_writable(options.sheet.parent)
    dataset = CocoDataset(Path(options.data), Path(options.image_dir))
    problems = dataset.find_problems(progress=True)
    good = dataset.without(problems)
    print(format_inspection(look_through(good, network, problems, progress=True), problems))
    if len(good):
        shown = range(min(24, len(good)))
        sheet = visualize.show_contact_sheet([good[i] for i in shown], good.file_names[: len(shown)], good.classes)
        visualize.save(sheet, options.sheet)
        print(f"\nPictures with what is labelled in them: {options.sheet}")
    return 1 if problems else 0


# shapes


def shapes(options: argparse.Namespace) -> int:
    """``mrcnn-scratch shapes``."""
    annotations, folder = options.out / "annotations.json", options.out / "images"
    for path in (annotations, folder):
        if os.path.lexists(path):
            raise InputError(f"{path} is there already: choose another folder")
    make_folder(folder)
    scenes = ShapesDataset(options.seed, options.images, first=HELD_OUT if options.held_out else 0)
    names, targets = [], []
    try:
        for i in range(len(scenes)):
            image, target = scenes[i]
            names.append(f"{i + 1:06}.png")
            targets.append(target)
            _write_picture(folder / names[-1], image)
        write_json(annotations, coco_dict(names, targets, scenes.classes))
    except BaseException:  # a full disk, Ctrl-C: pictures without annotations are of no use
        shutil.rmtree(folder)
        raise
    print(f"{len(names)} pictures in {folder}, their objects in {annotations}")
    return 0


def _model(options: argparse.Namespace) -> MaskRCNN:
    return open_model(options.model).to(options.device)


def _use_mine(options: argparse.Namespace) -> None:
    for path in options.mine:
        print(f"{', '.join(use_mine(path))}: yours, from {path}", file=sys.stderr)


def _nan_to_none(value: Any) -> Any:
    """JSON has no NaN, which is the AP of a class without objects."""
    if isinstance(value, dict):
        return {key: _nan_to_none(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
