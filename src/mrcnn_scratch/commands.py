"""What the commands of the command line do, given their options."""

import argparse
import glob
import math
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import measure, visualize
from .config import SHAPES, TrainingConfig
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
from .run_settings import check_data, check_unchanged, given_settings, settings
from .structures import Detections
from .train import run
from .train.data import open_coco
from .weights import open_model


def complain(reason: object) -> None:
    """One line, whatever the reason holds: a file's name may hold line ends."""
    print("mrcnn-scratch:", " ".join(str(reason).split()), file=sys.stderr)


# train


def train(options: argparse.Namespace) -> int:
    """``mrcnn-scratch train``."""
    _use_mine(options)
    given = given_settings(options)
    if options.resume:
        check_unchanged(options, given)
        network, config, own_classes = SHAPES, TrainingConfig(), False
    else:
        network, config, own_classes = settings(options.config, given)
        check_data(config)
    table = run.train(
        options.out, network, config, device=options.device, resume=options.resume, own_classes=own_classes
    )
    print(table)
    print(f"\nDetections beside the truth: {options.out / 'detections.png'}\nCurves: {options.out / 'curves.png'}")
    return 0


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
    scenes.classes = model.config.classes  # figures go by the network's names for them
    return measure.measure(model, scenes, batch_size=8, results=options.results is not None)


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
    network, _, _ = settings(options.config, given_settings(options))
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
