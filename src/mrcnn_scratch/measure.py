"""A network over a data set: what it detects there, and how good that is."""

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from tqdm import tqdm

from .backend import Array
from .data.rle import encode_rle
from .evaluation import evaluate
from .mask_rcnn import MaskRCNN
from .structures import Detections, LabelledImages, Target

BAR_INTERVAL = 0.1 if sys.stderr.isatty() else 30
"""Seconds between two states of a progress bar: in a log file, where each is a line, seldom."""

Item = TypeVar("Item")


class Example(NamedTuple):
    """One image, what is there, and what was seen."""

    image: Array
    target: Target
    found: Detections


class Measured(NamedTuple):
    """What :func:`measure` found."""

    figures: dict[str, dict[str, Any]]  # as evaluation.evaluate gives them
    results: list[dict[str, Any]]  # every detection, in COCO's results form, where they were asked for
    examples: list[Example]  # the first few


def measure(
    model: MaskRCNN,
    dataset: LabelledImages,
    *,
    batch_size: int = 1,
    image_ids: Sequence[int] | None = None,
    category_ids: Sequence[int | None] | None = None,
    examples: int = 0,
    results: bool = True,
) -> Measured:
    """Detect in every image of ``dataset``, some at a time, and set what is found against what is there.

    Args:
        model: the network; its classes are the data set's.
        dataset: labelled images.
        batch_size: images at a time.
        image_ids: as COCO's results shall name the images; 1, 2, ... by default.
        category_ids: the same for labels 1, 2, ...; the label itself by default.
        examples: how many images to hand back.
        results: hand back the detections, about 1 KB for each: of 5,000 images with 100 each that is 500 MB.
    """
    image_ids = range(1, len(dataset) + 1) if image_ids is None else image_ids
    kept: list[Example] = []
    rows: list[dict[str, Any]] = []

    def watched() -> Iterator[Example]:
        for number, example in zip(image_ids, _examples(model, dataset, batch_size), strict=True):
            if results:
                rows.extend(coco_results(example.found, number, category_ids))
            if len(kept) < examples:
                kept.append(example)
            yield example

    # Both are gone through in step, so no more than a batch of masks is in memory.
    found, there = itertools.tee(watched())
    figures = evaluate(
        _Stream(len(dataset), (example.found for example in found)),
        _Stream(len(dataset), (example.target for example in there)),
        dataset.classes,
    )
    return Measured(figures, rows, kept)


def coco_results(
    found: Detections, image_id: str | int, category_ids: Sequence[int | None] | None = None
) -> list[dict[str, Any]]:
    """Detections in COCO's results form: boxes as x, y, width, height, masks as compressed run lengths."""
    rows = []
    for (x1, y1, x2, y2), label, score, mask in zip(
        found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), found.masks, strict=True
    ):
        category = label if category_ids is None else category_ids[label - 1]
        if category is None:  # a class that the data set does not know: nobody could look it up
            continue
        row = {"image_id": image_id, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        rows.append({**row, "segmentation": encode_rle(mask)})
    return rows


def _examples(model: MaskRCNN, dataset: LabelledImages, batch_size: int) -> Iterator[Example]:
    starts = range(0, len(dataset), batch_size)
    for start in tqdm(starts, desc="evaluating", unit="batch", leave=False, mininterval=BAR_INTERVAL):
        pairs = [dataset[i] for i in range(start, min(start + batch_size, len(dataset)))]
        found = model.detect([image for image, _ in pairs])
        yield from (Example(image, target, seen) for (image, target), seen in zip(pairs, found, strict=True))


class _Stream(Sequence[Item], Generic[Item]):
    """A sequence that is made while it is gone through, once."""

    def __init__(self, length: int, items: Iterable[Item]) -> None:
        self._length, self._items = length, items

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __getitem__(self, index: Any) -> Any:
        raise TypeError("these items are made one after the other: go through them in order")
