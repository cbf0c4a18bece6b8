"""Toy scenes: squares, circles and triangles on a plain background, drawn when asked for.

The scenes follow the shapes example of matterport's Mask R-CNN (https://github.com/matterport/Mask_RCNN,
``samples/shapes``): small enough to train on a laptop, and still with what makes instance segmentation hard.
There are several objects of a class, they hide parts of each other, and the picture's edge cuts some off.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ..backend import Array
from ..boxes import clip_boxes
from ..errors import InputError
from ..nms import nms
from ..structures import Target

CLASSES = ("square", "circle", "triangle")
"""Names of labels 1, 2 and 3."""

HELD_OUT = 10**9
"""Number of the first scene that training never sees: training counts from 0 and never gets this far."""


@dataclass(frozen=True)
class ShapesConfig:
    """What the scenes look like. Lengths are in pixels, ranges include both ends.

    Attributes:
        size: side of the square picture.
        min_objects: fewest shapes thrown onto a scene. Some may fall to ``max_iou``; one always stays.
        max_objects: most shapes thrown onto a scene, at most 255.
        margin: distance of every centre from the picture's edge: centres lie in [margin, size - 1 - margin].
        half_size: range of the distance from a shape's centre to its top.
        max_iou: a shape whose box overlaps the box of an earlier one by more is left out (IoU, of the boxes
            before anything is hidden).

    Raises:
        InputError: no scene can be drawn with these numbers.
    """

    size: int = 128
    min_objects: int = 1
    max_objects: int = 4
    margin: int = 20
    half_size: tuple[int, int] = (20, 32)
    max_iou: float = 0.3

    def __post_init__(self) -> None:
        smallest, largest = self.half_size
        # A scene is drawn as one uint8 picture of shape numbers, hence 255.
        _require(
            1 <= self.min_objects <= self.max_objects <= 255,
            f"the number of objects must satisfy 1 <= min_objects <= max_objects <= 255, "
            f"got {self.min_objects} and {self.max_objects}",
        )
        _require(
            self.margin >= 0 and 2 * self.margin < self.size,
            f"margin must be at least 0 and under size / 2, got margin {self.margin} and size {self.size}",
        )
        _require(
            1 <= smallest <= largest,
            f"half_size must be (smallest, largest) with 1 <= smallest <= largest, got {self.half_size}",
        )
        _require(0 <= self.max_iou <= 1, f"max_iou must lie in [0, 1], got {self.max_iou}")


@dataclass(frozen=True)
class Shape:
    """One shape before it is painted.

    Attributes:
        label: 1 square, 2 circle, 3 triangle (upright).
        x: column of the centre pixel.
        y: row of the centre pixel.
        half_size: rows from the centre to the top row and to the bottom row, which are both painted.
        colour: red, green, blue, 0 to 255.
    """

    label: int
    x: int
    y: int
    half_size: int
    colour: tuple[int, int, int]

    @property
    def half_width(self) -> int:
        """Columns from the centre to the left and the right end: more than ``half_size`` for a triangle."""
        return round(self.half_size / math.sin(math.pi / 3)) if self.label == 3 else self.half_size

    @property
    def box(self) -> tuple[int, int, int, int]:
        """``x1, y1, x2, y2`` of the whole shape, which may reach beyond the picture."""
        x, y, s, w = self.x, self.y, self.half_size, self.half_width
        return x - w, y - s, x + w + 1, y + s + 1


class ShapesDataset:
    """Scenes by number: scene ``i`` is a function of ``seed``, ``first + i`` and ``config`` alone.

    Args:
        seed: scenes of different seeds have nothing in common.
        length: how many scenes there are; None for fresh scenes for ever.
        config: what the scenes look like.
        first: number of the first scene; :data:`HELD_OUT` for scenes that training never sees.

    Raises:
        InputError: ``seed``, ``length`` or ``first`` is negative.
    """

    classes: tuple[str, ...] = CLASSES

    def __init__(self, seed: int, length: int | None, config: ShapesConfig | None = None, first: int = 0) -> None:
        for name, value in (("seed", seed), ("length", length), ("first", first)):
            _require(value is None or value >= 0, f"{name} must not be negative, got {value}")
        self.seed = seed
        self.length = length
        self.config = ShapesConfig() if config is None else config
        self.first = first

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError("these scenes have no end, so no length: give ShapesDataset a length")
        return self.length

    def __getitem__(self, i: int) -> tuple[Array, Target]:
        """Scene ``i``: image (H, W, 3) uint8 and its objects. -1 is the last scene if there is one.

        Raises:
            IndexError: there is no scene ``i``.
        """
        i = operator.index(i)
        if self.length is not None:
            i = range(self.length)[i]
        elif i < 0:
            raise IndexError("these scenes have no end, so no last one to count back from")
        return draw_scene(np.random.default_rng((self.seed, self.first + i)), self.config)


def draw_scene(rng: np.random.Generator, config: ShapesConfig) -> tuple[Array, Target]:
    """One random scene.

    Args:
        rng: the only source of chance; the scene is a function of its state.
        config: what the scene looks like.

    Returns:
        The image (H, W, 3) uint8 and its objects, lowest first.
    """
    background, shapes = random_shapes(rng, config)
    return paint(config.size, background, shapes)


def random_shapes(rng: np.random.Generator, config: ShapesConfig) -> tuple[tuple[int, int, int], list[Shape]]:
    """A background colour and the shapes to paint over it, at least one, lowest first."""
    count = int(rng.integers(config.min_objects, config.max_objects, endpoint=True))
    background, *colours = map(tuple, rng.integers(0, 256, (count + 1, 3)).tolist())
    labels = rng.integers(1, len(CLASSES), count, endpoint=True).tolist()
    xs, ys = rng.integers(config.margin, config.size - config.margin, (2, count)).tolist()
    half_sizes = rng.integers(*config.half_size, count, endpoint=True).tolist()
    shapes = [Shape(*shape) for shape in zip(labels, xs, ys, half_sizes, colours, strict=True)]
    return background, _suppress(shapes, config)


def _suppress(shapes: list[Shape], config: ShapesConfig) -> list[Shape]:
    boxes = np.array([shape.box for shape in shapes], np.float32)
    boxes = clip_boxes(boxes, (config.size, config.size))
    earlier_is_better = -np.arange(len(shapes), dtype=np.float32)
    return [shapes[i] for i in nms(boxes, earlier_is_better, config.max_iou)]


def paint(size: int, background: tuple[int, int, int], shapes: Sequence[Shape]) -> tuple[Array, Target]:
    """Paint ``shapes`` one over the other, the last on top.

    Args:
        size: side of the square picture, in pixels.
        background: red, green, blue, 0 to 255.
        shapes: at most 255, lowest first.

    Returns:
        The image (H, W, 3) uint8, and the shapes of which a pixel can be seen, in the same order: masks are
        the visible pixels, boxes fit them tightly.
    """
    # One picture of shape numbers gives both the colours and the masks, so the two agree to the pixel.
    numbers = Image.new("L", (size, size), 0)
    pen = ImageDraw.Draw(numbers)
    for number, shape in enumerate(shapes, start=1):
        _draw(pen, shape, number)
    top = np.asarray(numbers)  # (H, W): 0 is background, n is the n-th shape
    palette = np.array([background, *(shape.colour for shape in shapes)], np.uint8)
    masks = top == np.arange(1, len(shapes) + 1, dtype=np.uint8)[:, None, None]  # (G, H, W)
    visible = masks.any(axis=(1, 2))
    labels = np.array([shape.label for shape in shapes], np.int64)
    masks = masks[visible]
    return palette[top], Target(boxes=mask_boxes(masks), labels=labels[visible], masks=masks)


def _draw(pen: ImageDraw.ImageDraw, shape: Shape, number: int) -> None:
    """Pillow paints both ends of every edge, so ``x - s`` to ``x + s`` is 2 s + 1 pixels wide."""
    x, y, s, w = shape.x, shape.y, shape.half_size, shape.half_width
    if shape.label == 1:
        pen.rectangle((x - s, y - s, x + s, y + s), fill=number)
    elif shape.label == 2:
        pen.ellipse((x - s, y - s, x + s, y + s), fill=number)
    else:
        pen.polygon([(x, y - s), (x - w, y + s), (x + w, y + s)], fill=number)


def mask_boxes(masks: Array) -> Array:
    """The smallest box around each mask: first pixel to last pixel + 1, so one pixel gives a box of width 1.

    Args:
        masks: (G, H, W) bool, host array, with at least one pixel in each mask.

    Returns:
        (G, 4) float32, ``x1, y1, x2, y2``.
    """
    height, width = masks.shape[1:]
    columns, rows = masks.any(axis=1), masks.any(axis=2)  # (G, W), (G, H)
    x1, y1 = columns.argmax(axis=1), rows.argmax(axis=1)
    x2, y2 = width - columns[:, ::-1].argmax(axis=1), height - rows[:, ::-1].argmax(axis=1)
    return np.stack([x1, y1, x2, y2], axis=1).astype(np.float32)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InputError(message)
