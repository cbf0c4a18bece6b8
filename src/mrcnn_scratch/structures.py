"""What goes into training and what comes out of detection: one object per image."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .backend import Array


@dataclass(frozen=True)
class Target:
    """The objects in one image, as labelled. Host arrays.

    Attributes:
        boxes: (G, 4) float32, ``x1, y1, x2, y2`` in pixels, no +1.
        labels: (G,) int64, 1 and up; 0 is background and labels no object.
        masks: (G, H, W) bool, the visible pixels of each object, at image size.
        crowd: (G,) bool, COCO's ``iscrowd``: neither an object to learn nor a mistake to find. All False by default.
        areas: (G,) float64, pixels, COCO's ``area``, by which evaluation sorts objects into small, medium and
            large. By default the number of pixels in the mask.
        ignore: (C, 4) boxes of crowd regions that were taken out: what lies in one is nobody's background. None by
            default.
    """

    boxes: Array
    labels: Array
    masks: Array
    crowd: Array = None
    areas: Array = None
    ignore: Array = None

    def __post_init__(self) -> None:
        if self.crowd is None:
            object.__setattr__(self, "crowd", np.zeros(len(self.labels), bool))
        if self.areas is None:
            object.__setattr__(self, "areas", self.masks.sum(axis=(1, 2), dtype=np.float64))
        if self.ignore is None:
            object.__setattr__(self, "ignore", np.zeros((0, 4), np.float32))

    def __len__(self) -> int:
        return len(self.labels)

    def without_crowds(self) -> "Target":
        """The objects to learn: a crowd region is none, and where it lies anything may be."""
        if not self.crowd.any():
            return self
        kept = ~self.crowd
        return Target(
            self.boxes[kept],
            self.labels[kept],
            self.masks[kept],
            self.crowd[kept],
            self.areas[kept],
            np.concatenate([self.ignore, self.boxes[self.crowd]]),
        )


@dataclass(frozen=True)
class Detections:
    """The objects that the network sees in one image, best first. Host arrays.

    Attributes:
        boxes: (R, 4) float32, ``x1, y1, x2, y2`` in pixels of the image as it was handed over.
        labels: (R,) int64, 1 and up.
        scores: (R,) float32 in (0, 1].
        masks: (R, H, W) bool, at image size.
    """

    boxes: Array
    labels: Array
    scores: Array
    masks: Array

    def __len__(self) -> int:
        return len(self.labels)

    def above(self, score: float) -> "Detections":
        """Those with a score of at least ``score``: average precision wants all of them, a picture does not."""
        sure = self.scores >= score
        return Detections(self.boxes[sure], self.labels[sure], self.scores[sure], self.masks[sure])


class LabelledImages(Protocol):
    """A data set with an end: images by number, each with its objects, and the names of their classes."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of labels 1, 2, ..."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> tuple[Array, Target]:
        """Image (H, W, 3) uint8 and its objects."""
