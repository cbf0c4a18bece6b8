"""Your own labelled images, in COCO's instances format: one JSON file and a folder of pictures."""

import copy
import operator
import os
import reprlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..backend import Array
from ..errors import InputError
from ..structures import Target
from .coco_file import check_names, image_size, is_whole, read_box, read_coco, read_mask
from .images import read_image
from .polygons import is_coordinate
from .shapes import mask_boxes


class Problem(NamedTuple):
    """One thing that is wrong with the data."""

    image: str  # file name, or "-" where an annotation belongs to no image
    annotation: int | None  # id; None where the image itself is wrong
    what: str  # one clause

    def __str__(self) -> str:
        return f"{self.image}: {'' if self.annotation is None else f'annotation {self.annotation}: '}{self.what}"


class CocoDataset:
    """Images with the objects that a COCO instances file lists for them.

    What is wrong with the file as a whole is an error at once. What is wrong with a single image or annotation is an
    error when that image is asked for; :meth:`find_problems` finds all of it beforehand, :meth:`without` drops it.

    Attributes:
        classes: names of labels 1, 2, ...: the file's categories by rising id, or the ``classes`` given.
        category_ids: the file's id of each label, ``category_ids[k - 1]`` for label k; None where the file lacks it.
        problems: those that the JSON alone shows.

    Args:
        annotations: the JSON file.
        image_dir: the folder that its file names start from.
        classes: the classes of a trained network, to label by. The file's categories are found there by name.

    Raises:
        InputError: a file or folder is missing, the file is no COCO instances file, or ``classes`` lacks a category.
    """

    def __init__(self, annotations: Path, image_dir: Path, *, classes: Sequence[str] | None = None) -> None:
        self.path, self.image_dir = Path(annotations), Path(image_dir)
        if not os.path.isdir(image_dir):  # unlike Path's, False also of a name that no folder can have
            raise InputError(f"there is no folder {image_dir}: give the one that the pictures are in")
        data = read_coco(self.path)
        ids = {category["name"]: category["id"] for category in sorted(data["categories"], key=lambda c: c["id"])}
        self.classes = tuple(ids if classes is None else classes)
        check_names(self.path, list(ids), self.classes)
        self.category_ids: list[int | None] = [ids.get(name) for name in self.classes]
        self._labels = {number: self.classes.index(name) + 1 for name, number in ids.items()}
        self._images: list[dict[str, Any]] = data["images"]
        self._annotations: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in self._images}
        self.problems = self._sort_annotations(data["annotations"])
        for image in self._images:
            self.problems += self._problems_in_json(image)

    @property
    def image_ids(self) -> list[int]:
        """The file's id of each image, in the order of the file."""
        return [image["id"] for image in self._images]

    @property
    def file_names(self) -> list[str]:
        """Each image's file, within ``image_dir``."""
        return [image["file_name"] for image in self._images]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, i: int) -> tuple[Array, Target]:
        """Image ``i``, uint8 (H, W, 3), and its objects, maybe none. -1 is the last.

        Raises:
            IndexError: there is no image ``i``.
            InputError: the image or one of its annotations is bad.
        """
        entry = self._images[operator.index(i)]
        try:
            image = self._read_image(entry)
        except InputError as error:
            raise self._error(Problem(entry["file_name"], None, str(error))) from None
        size: tuple[int, int] = image.shape[:2]
        annotations = self._annotations[entry["id"]]
        count = len(annotations)
        target = Target(
            boxes=np.zeros((count, 4), np.float32),
            labels=np.zeros(count, np.int64),
            masks=np.zeros((count, *size), bool),
            crowd=np.zeros(count, bool),
            areas=np.zeros(count),
        )
        for g, annotation in enumerate(annotations):
            try:
                self._fill_in(target, g, annotation)
            except InputError as error:
                raise self._error(Problem(entry["file_name"], annotation["id"], str(error))) from None
        return image, target

    def _error(self, problem: Problem) -> InputError:
        return InputError(f"{self.path}: {problem}: mend it or leave it out")

    def _fill_in(self, target: Target, g: int, annotation: dict[str, Any]) -> None:
        size = target.masks.shape[1:]
        target.labels[g], box, area, target.crowd[g] = self._fields(annotation, size)
        target.masks[g] = read_mask(annotation, size)
        target.boxes[g] = mask_boxes(target.masks[g : g + 1])[0] if box is None else box
        target.areas[g] = target.masks[g].sum() if area is None else area

    # What is wrong, and without it.

    def find_problems(self, progress: bool = False) -> list[Problem]:
        """Open every picture and decode every mask once, and list all that is wrong.

        Args:
            progress: show a bar.
        """
        found = list(self.problems)
        bad_images = {problem.image for problem in found if problem.annotation is None}
        bad_annotations = {problem.annotation for problem in found}
        for image in tqdm(self._images, desc="checking", unit="image", leave=False, disable=not progress):
            if image["file_name"] in bad_images:
                continue
            try:
                size = self._read_image(image).shape[:2]
            except InputError as error:
                found.append(Problem(image["file_name"], None, str(error)))
                continue
            for annotation in self._annotations[image["id"]]:
                if annotation["id"] not in bad_annotations:
                    found += _problem(image, annotation, read_mask, annotation, size)
        return found

    def without(self, problems: Sequence[Problem]) -> "CocoDataset":
        """The same data less the images and the annotations (by id) that ``problems`` name."""
        images = {problem.image for problem in problems if problem.annotation is None}
        annotations = {problem.annotation for problem in problems} - {None}
        kept = copy.copy(self)
        kept._images = [image for image in self._images if image["file_name"] not in images]
        kept._annotations = {
            number: [annotation for annotation in self._annotations[number] if annotation["id"] not in annotations]
            for number in kept.image_ids
        }
        kept.problems = [p for p in self.problems if p.image not in images and p.annotation not in annotations]
        return kept

    def _sort_annotations(self, annotations: list[dict[str, Any]]) -> list[Problem]:
        """Put each to its image; what belongs nowhere, or bears the id of another, is a problem."""
        problems = []
        seen: set[int] = set()
        names = dict(zip(self.image_ids, self.file_names, strict=True))
        for annotation in annotations:
            number, image_id = annotation["id"], annotation.get("image_id")
            if not is_whole(image_id) or image_id not in names:
                problems.append(Problem("-", number, f"there is no image with the id {reprlib.repr(image_id)}"))
                continue
            if number in seen:
                problems.append(Problem(names[image_id], number, "its id is another annotation's too"))
            seen.add(number)
            self._annotations[image_id].append(annotation)
        return problems

    def _problems_in_json(self, image: dict[str, Any]) -> list[Problem]:
        problems = _problem(image, None, image_size, image)
        problems += _problem(image, None, _path_inside, self.image_dir, image["file_name"])
        if problems:
            return problems
        size = image_size(image)
        for annotation in self._annotations[image["id"]]:
            problems += _problem(image, annotation, self._fields, annotation, size)
        return problems

    # One image, one annotation.

    def _read_image(self, entry: dict[str, Any]) -> Array:
        height, width = image_size(entry)
        path = _path_inside(self.image_dir, entry["file_name"])
        image = read_image(path)
        if image.shape[:2] != (height, width):
            sizes = f"is {image.shape[1]} x {image.shape[0]} pixels, but {width} x {height} in {self.path}"
            if _stored_size(path) == (height, width):
                raise InputError(
                    f"{path}, turned upright as its EXIF data says, {sizes}: only the rotation differs, so the labels "
                    "are of the picture lying on its side"
                )
            raise InputError(f"{path} {sizes}")
        return image

    def _fields(self, annotation: dict[str, Any], size: tuple[int, int]) -> tuple[int, Array, float | None, bool]:
        """All but the mask: label, box (4,) or None, area or None, crowd."""
        category: Any = annotation.get("category_id")
        area: Any = annotation.get("area")
        crowd: Any = annotation.get("iscrowd", 0)
        if not is_whole(category) or category not in self._labels:
            raise InputError(f"there is no category with the id {reprlib.repr(category)}")
        if "area" in annotation and not (is_coordinate(area) and area >= 0):
            raise InputError(f"its area is {reprlib.repr(area)}, not a number of pixels")
        if crowd not in (0, 1):
            raise InputError(f"iscrowd is {reprlib.repr(crowd)}, neither 0 nor 1")
        return self._labels[category], read_box(annotation, size), area, bool(crowd)


def _problem(image: dict[str, Any], annotation: dict[str, Any] | None, check: Any, *arguments: Any) -> list[Problem]:
    """What ``check(*arguments)`` complains of: one problem or none."""
    try:
        check(*arguments)
    except InputError as error:
        return [Problem(image["file_name"], None if annotation is None else annotation["id"], str(error))]
    return []


def _path_inside(folder: Path, name: str) -> Path:
    """A file of the data set; a JSON file from elsewhere must not make us read others."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError("its file name leads out of the image folder")
    return folder / name


def _stored_size(path: Path) -> tuple[int, int]:
    """(height, width) before EXIF's rotation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            return image.height, image.width
