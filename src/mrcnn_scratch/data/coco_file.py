"""The file format: COCO's instances JSON, read with suspicion, and written."""

import json
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ..backend import Array
from ..errors import InputError
from ..structures import Target
from .polygons import is_coordinate, polygon_mask
from .rle import decode_rle, encode_rle
from .transforms import check_target

LISTS = ("images", "annotations", "categories")


def read_coco(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The three lists of a COCO instances file.

    Every entry is a dict with a whole "id"; those of images differ and have a "file_name", those of categories differ
    and have a "name" of their own. Nothing else is sure about them.

    Raises:
        InputError: the file cannot be read or is none of that kind.
    """
    data = _parse(path)
    if not isinstance(data, dict):
        kind = "a list, as of results" if isinstance(data, list) else reprlib.repr(data)
        raise InputError(f"{path} holds {kind}, not an object: give a COCO instances file")
    for key in LISTS:
        if not isinstance(data.get(key), list):
            raise InputError(f'{path} has no list "{key}": give a COCO instances file')
        for i, entry in enumerate(data[key]):
            if not isinstance(entry, dict) or not is_whole(entry.get("id")):
                raise InputError(f"{path}: {key}[{i}] is not an object with a whole number as id: give it one")
    if not data["categories"]:
        raise InputError(f"{path} lists no categories: name at least one class")
    _require_text(path, data, "images", "file_name")
    _require_text(path, data, "categories", "name")
    for key, field in (("images", "id"), ("categories", "id"), ("categories", "name")):
        _require_unique(path, data, key, field)
    return {key: data[key] for key in LISTS}


def _parse(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"), parse_constant=_no_number)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}: give a COCO instances file") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}: give a COCO instances file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text in UTF-8: save it as that") from None
    except RecursionError:
        raise InputError(f"{path} nests lists deeper than any COCO file: export it again") from None
    except ValueError as error:  # of json, or an integer of thousands of digits
        raise InputError(f"{path} is not JSON ({error}): export it again") from None


def _no_number(constant: str) -> NoReturn:
    """Python's reader would take NaN and Infinity, which JSON does not have."""
    raise ValueError(f"{constant} is not a number")


def _require_text(path: Path, data: dict[str, Any], key: str, field: str) -> None:
    for i, entry in enumerate(data[key]):
        text = entry.get(field)
        if not isinstance(text, str) or not text or "\0" in text or _has_surrogate(text):
            raise InputError(f"{path}: {key}[{i}] has the {field} {reprlib.repr(text)}: give it a text")


def _has_surrogate(text: str) -> bool:
    """Half of a UTF-16 pair, which JSON can spell: it can be neither printed nor be part of a file's name."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _require_unique(path: Path, data: dict[str, Any], key: str, field: str) -> None:
    seen = set()
    for entry in data[key]:
        if entry[field] in seen:
            raise InputError(f"{path}: two {key} have the {field} {entry[field]!r}: give each its own")
        seen.add(entry[field])


def check_names(path: Path, found: Sequence[str], classes: Sequence[str]) -> None:
    """Raise an InputError unless each of the file's categories is one of ``classes``."""
    unknown = [name for name in found if name not in classes]
    if unknown:
        others = ", ".join(name for name in classes if name not in found) or "none"
        raise InputError(
            f"{path} has categories that the network does not know: {', '.join(unknown)} (and the network has classes "
            f"that the file lacks: {others}): rename the categories, or train a network for them"
        )


def image_size(image: dict[str, Any]) -> tuple[int, int]:
    """(height, width) that the file claims of an image.

    Raises:
        InputError: they are no numbers of pixels.
    """
    height: Any = image.get("height")
    width: Any = image.get("width")
    if not all(is_whole(side) and side > 0 for side in (height, width)):
        raise InputError(
            f"width {reprlib.repr(width)} and height {reprlib.repr(height)} are not both numbers of pixels"
        )
    return height, width


def read_box(annotation: dict[str, Any], size: tuple[int, int]) -> Array:
    """``x1, y1, x2, y2`` (4,) float32 of "bbox" (x, y, width, height); None if it has none.

    It may reach beyond the image, as some tools' do: evaluation takes it as it is, training cuts it off.

    Raises:
        InputError: it is no box, or no part of it lies in the image.
    """
    if "bbox" not in annotation:
        return None
    box = annotation["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_coordinate, box)):
        raise InputError(f"bbox is {reprlib.repr(box)}, not four finite numbers x, y, width, height")
    x, y, width, height = box
    if width <= 0 or height <= 0:
        raise InputError(f"bbox {box} has no area")
    corners = np.array([x, y, x + width, y + height], np.float32)
    if (np.maximum(corners[:2], 0) >= np.minimum(corners[2:], size[::-1])).any():
        raise InputError(f"bbox {box} has no area inside the image of {size[1]} x {size[0]} pixels")
    return corners


def read_mask(annotation: dict[str, Any], size: tuple[int, int]) -> Array:
    """The mask (H, W) bool of "segmentation": polygons, or run lengths in either form.

    Raises:
        InputError: there is none, it is none of these, or no pixel lies in it.
    """
    segmentation = annotation.get("segmentation")
    if segmentation is None:
        raise InputError("it has no segmentation")
    if not isinstance(segmentation, list | dict):
        raise InputError(f"its segmentation is {reprlib.repr(segmentation)}, neither polygons nor run lengths")
    mask = polygon_mask(segmentation, size) if isinstance(segmentation, list) else decode_rle(segmentation, size)
    if not mask.any():
        raise InputError("its mask is empty: no pixel's centre lies in it")
    return mask


def is_whole(value: Any) -> bool:
    """Whether ``value``, of any type, is an integer; True and 1.0 are none."""
    return type(value) is int


def coco_dict(file_names: Sequence[str], targets: Sequence[Target], classes: Sequence[str]) -> dict[str, Any]:
    """What a COCO instances file of these images says, ready for ``json.dump``.

    Ids count from 1; masks are compressed run lengths.

    Args:
        file_names: one per image.
        targets: the objects of each image; their masks (G, H, W) give its size, even where G is 0.
        classes: names of labels 1, 2, ...

    Raises:
        InputError: there are not as many names as targets, or a target is not what it must be.
    """
    if len(file_names) != len(targets):
        raise InputError(f"{len(file_names)} file names but {len(targets)} targets: give one of each for every image")
    images, annotations = [], []
    for number, (name, target) in enumerate(zip(file_names, targets, strict=True), start=1):
        height, width = target.masks.shape[1:]
        check_target(target, (height, width), len(classes), name)
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        annotations += [{"image_id": number, **one} for one in _annotations(target)]
    return {
        "images": images,
        "annotations": [{"id": number, **one} for number, one in enumerate(annotations, start=1)],
        "categories": [{"id": label, "name": name} for label, name in enumerate(classes, start=1)],
    }


def _annotations(target: Target) -> list[dict[str, Any]]:
    return [
        {
            "category_id": label,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": area,
            "iscrowd": int(crowd),
            "segmentation": encode_rle(mask),
        }
        for label, (x1, y1, x2, y2), area, crowd, mask in zip(
            target.labels.tolist(),
            target.boxes.tolist(),
            target.areas.tolist(),
            target.crowd.tolist(),
            target.masks,
            strict=True,
        )
    ]
