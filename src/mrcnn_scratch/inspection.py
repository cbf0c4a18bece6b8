"""What to know about a data set before training on it for hours: its sizes, its classes, and whether anchors fit it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from .backend import Array
from .boxes import box_area, box_iou
from .config import Config, TransformConfig
from .data.coco import CocoDataset, Problem
from .data.transforms import check_target, resize_boxes, resized_size
from .rpn.anchors import cell_anchors
from .structures import LabelledImages, Target

FAIR_IOU = 0.5
"""An object whose best anchor has less has no anchor that looks like it."""


@dataclass(frozen=True)
class ClassReport:
    """The objects of one class, or of all. A crowd is no object. Lengths are in pixels of the resized image.

    Attributes:
        name: of the class.
        objects: how many there are.
        crowds: crowd regions, which are not learned from.
        images: images with at least one object of it.
        sides: least, lower quartile, median, upper quartile and greatest square root of a box's area; nan without any.
        unmatched: objects whose best anchor has an IoU under .5.
        low_quality: objects whose best anchor has one under ``rpn.positive_iou``. Only Faster R-CNN's condition (i)
            (section 3.1.2) gives them an anchor to learn from: the best there is, however bad.
        small: objects smaller than the smallest anchor.
        large: objects larger than the largest anchor.
    """

    name: str
    objects: int
    crowds: int
    images: int
    sides: tuple[float, ...]
    unmatched: int
    low_quality: int
    small: int
    large: int


@dataclass(frozen=True)
class Inspection:
    """What :func:`inspect` found.

    Attributes:
        config: the network that the data was measured against.
        images: how many there are.
        images_without_objects: those with no object but perhaps a crowd.
        heights: least, median and greatest, in pixels of the files; nan without images.
        widths: likewise.
        classes: one report per class.
        total: all classes together.
        most_objects: in one image.
        misfits: the unmatched objects by reason: ``small``, ``large``, ``elongated``, ``between``.
        small_side: the median side of the small ones among them; nan without any.
        large_side: the median side of the large ones.
        ratios: least and greatest height over width of the elongated ones.
    """

    config: Config
    images: int
    images_without_objects: int
    heights: tuple[float, ...]
    widths: tuple[float, ...]
    classes: tuple[ClassReport, ...]
    total: ClassReport
    most_objects: int
    misfits: dict[str, int]
    small_side: float
    large_side: float
    ratios: tuple[float, ...]


class _Objects(NamedTuple):
    """One row per object: what is kept of an image once it was read. A few numbers, so memory stays flat."""

    image: Array  # (G,) int64
    labels: Array  # (G,) int64
    sides: Array  # (G,) square root of the area in the resized image
    ratios: Array  # (G,) height over width there
    best_iou: Array  # (G,) with any anchor
    best_shape: Array  # (G,) with any anchor if each could be moved to the object's centre
    crowd: Array  # (G,) bool

    def select(self, chosen: Array) -> "_Objects":
        return _Objects(*(column[chosen] for column in self))


def inspect(
    dataset: LabelledImages, config: Config, problems: Sequence[Problem] = (), *, progress: bool = False
) -> Inspection:
    """Measure a data set against a network, reading one image at a time.

    Args:
        dataset: images with their objects.
        config: the network's resizing, anchors and limits.
        problems: what is wrong with a :class:`CocoDataset`; the images and annotations named are left out.
        progress: show a bar.

    Raises:
        InputError: an image or an object is bad, and ``problems`` does not name it.
    """
    if problems and isinstance(dataset, CocoDataset):
        dataset = dataset.without(problems)
    sizes, rows = [], [_no_objects()]
    for i in tqdm(range(len(dataset)), desc="inspecting", unit="image", leave=False, disable=not progress):
        image, target = dataset[i]
        check_target(target, image.shape[:2], len(dataset.classes), f"image {i}")
        sizes.append(image.shape[:2])
        rows.append(_measure(i, target, image.shape[:2], config))
    everything = _Objects(*map(np.concatenate, zip(*rows, strict=True)))
    return _summarize(np.array(sizes).reshape(-1, 2), everything, dataset.classes, config)


# Measuring one image.


def padded_size(size: tuple[int, int], config: TransformConfig) -> tuple[int, int]:
    """(height, width) of the batch that an image of ``size`` makes alone: resized, then padded to the divisor."""
    height, width = (math.ceil(side / config.divisor) * config.divisor for side in resized_size(size, config))
    return height, width


def grid_sizes(image_size: tuple[int, int], levels: int) -> list[tuple[int, int]]:
    """(height, width) of each pyramid level's map: a quarter of the image for P2, then halves, rounded up."""
    height, width = image_size
    return [(-(-height // stride), -(-width // stride)) for stride in (2 ** (level + 2) for level in range(levels))]


def best_anchor_iou(boxes: Array, cells: Sequence[Array], image_size: tuple[int, int]) -> Array:
    """The IoU of each box with the anchor that fits it best, of all levels and places.

    The overlap of a box and an anchor is the product of their overlaps along x and along y. The column of the
    anchor's place decides the one and its row the other, so the best of H x W places is found by looking at H + W.

    Args:
        boxes: (G, 4) float32 in pixels of the batch.
        cells: per level (A, 4), the anchors around (0, 0), as in :class:`AnchorGenerator`.
        image_size: (height, width) of the padded batch.

    Returns:
        (G,) float32: the greatest entries of the rows of ``box_iou(boxes, anchors)``, to the bit.
    """
    best = np.zeros(len(boxes), np.float32)
    for cell, (rows, columns) in zip(cells, grid_sizes(image_size, len(cells)), strict=True):
        down = _best_overlap(boxes[:, 1::2], cell[:, 1::2], rows, image_size[0] // rows)  # (G, A)
        across = _best_overlap(boxes[:, 0::2], cell[:, 0::2], columns, image_size[1] // columns)
        intersection = down * across
        union = box_area(boxes)[:, None] + box_area(cell) - intersection
        best = np.maximum(best, (intersection / union).max(axis=1))
    return best


def _best_overlap(spans: Array, cell: Array, places: int, stride: int) -> Array:
    """The longest common piece of each span (G, 2) with each of the anchors' (A, 2) over all places: (G, A)."""
    shifted = cell[:, None] + (np.arange(places, dtype=np.float32) * stride)[:, None]  # (A, P, 2)
    low = np.maximum(spans[:, None, None, 0], shifted[..., 0])  # (G, A, P)
    high = np.minimum(spans[:, None, None, 1], shifted[..., 1])
    return np.maximum(high - low, 0).max(axis=2)


def _measure(i: int, target: Target, size: tuple[int, int], config: Config) -> _Objects:
    boxes = resize_boxes(target.boxes.astype(np.float32), size, resized_size(size, config.transform))
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    cells = [cell_anchors(level, config.anchors.aspect_ratios) for level in config.anchors.sizes]
    centred = np.stack([-width, -height, width, height], axis=1) / 2
    return _Objects(
        image=np.full(len(boxes), i),
        labels=target.labels,
        sides=np.sqrt(width * height),
        ratios=height / width,
        best_iou=best_anchor_iou(boxes, cells, padded_size(size, config.transform)),
        best_shape=box_iou(centred, np.concatenate(cells)).max(axis=1),
        crowd=target.crowd,
    )


def _no_objects() -> _Objects:
    whole, real = np.zeros(0, np.int64), np.zeros(0, np.float32)
    return _Objects(whole, whole, real, real, real, real, np.zeros(0, bool))


# Summing up.


def _summarize(sizes: Array, everything: _Objects, classes: Sequence[str], config: Config) -> Inspection:
    objects = everything.select(~everything.crowd)
    per_image = np.unique(objects.image, return_counts=True)[1]
    misfits = {reason: objects.select(chosen) for reason, chosen in _reasons(objects, config).items()}
    return Inspection(
        config=config,
        images=len(sizes),
        images_without_objects=len(sizes) - len(per_image),
        heights=_percentiles(sizes[:, 0], (0, 50, 100)),
        widths=_percentiles(sizes[:, 1], (0, 50, 100)),
        classes=tuple(
            _report(name, everything.select(everything.labels == label), config)
            for label, name in enumerate(classes, start=1)
        ),
        total=_report("all classes", everything, config),
        most_objects=int(per_image.max(initial=0)),
        misfits={reason: len(rows.labels) for reason, rows in misfits.items()},
        small_side=_percentiles(misfits["small"].sides, (50,))[0],
        large_side=_percentiles(misfits["large"].sides, (50,))[0],
        ratios=_percentiles(misfits["elongated"].ratios, (0, 100)),
    )


def _report(name: str, rows: _Objects, config: Config) -> ClassReport:
    objects = rows.select(~rows.crowd)
    smallest, largest = anchor_range(config)
    return ClassReport(
        name=name,
        objects=len(objects.labels),
        crowds=int(rows.crowd.sum()),
        images=len(np.unique(objects.image)),
        sides=_percentiles(objects.sides, (0, 25, 50, 75, 100)),
        unmatched=int((objects.best_iou < FAIR_IOU).sum()),
        low_quality=int((objects.best_iou < config.rpn.positive_iou).sum()),
        small=int((objects.sides < smallest).sum()),
        large=int((objects.sides > largest).sum()),
    )


def _reasons(objects: _Objects, config: Config) -> dict[str, Array]:
    """Why an object has no anchor: for each reason (G,) bool. Each unmatched object has one."""
    smallest, largest = anchor_range(config)
    ratios = config.anchors.aspect_ratios
    left = objects.best_iou < FAIR_IOU
    off_shape = objects.best_shape < FAIR_IOU
    reasons = {
        "elongated": off_shape & ((objects.ratios < min(ratios)) | (objects.ratios > max(ratios))),
        "small": objects.sides < smallest,
        "large": objects.sides > largest,
    }
    found = {}
    for reason, holds in reasons.items():
        found[reason] = left & holds
        left = left & ~holds
    return {**found, "between": left}


def anchor_range(config: Config) -> tuple[float, float]:
    """Sides of the smallest and of the largest anchor, in pixels of the resized image."""
    sizes = [size for level in config.anchors.sizes for size in level]
    return min(sizes), max(sizes)


def _percentiles(values: Array, at: Sequence[float]) -> tuple[float, ...]:
    if len(values) == 0:
        return (math.nan,) * len(at)
    return tuple(np.percentile(values.astype(np.float64), at).tolist())
