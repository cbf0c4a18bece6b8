"""Objects in images: boxes, masks and labels, true or detected."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from ..backend import Array
from ..errors import InputError
from ..structures import Detections, Target
from .labels import class_name, decimal, draw_labels
from .parts import class_colour, draw_boxes, draw_image, missing_glyphs_as_boxes, panels, same_length

OVERLAY_SIDE = 512
"""Least long side of an :func:`overlay`, in pixels: in a smaller one the labels would hide the objects."""


def draw_objects(
    ax: Axes,
    image: Array,
    boxes: Array,
    labels: Array,
    masks: Array | None = None,
    scores: Array | None = None,
    classes: Sequence[str] = (),
) -> None:
    """An image and the objects in it: boxes, masks and names, one colour a class.

    Args:
        ax: axes to draw on.
        image: (H, W, 3) uint8.
        boxes: (R, 4) in pixels; the first is drawn on top, as detections come best first.
        labels: (R,) int, 1 and up.
        masks: (R, H, W) bool.
        scores: (R,), written after the name.
        classes: names of labels 1, 2, ...; without them the number is written.

    Raises:
        InputError: a label has no name, or there are not as many labels as boxes.
    """
    if len(boxes) != len(labels):
        raise InputError(f"each box needs a label: got {len(boxes)} boxes and {len(labels)} labels")
    names = [class_name(label, classes) for label in labels]
    colours = [class_colour(label) for label in labels]
    draw_image(ax, image)
    if masks is not None:
        draw_masks(ax, masks, colours)
    draw_boxes(ax, boxes[::-1], colours[::-1], linewidth=1.5, halo=True)
    if scores is not None:
        names = [f"{name} {decimal(score)}" for name, score in zip(names, scores, strict=True)]
    draw_labels(ax, names, boxes, colours)


def overlay(image: Array, detections: Detections, classes: Sequence[str] = ()) -> Array:
    """The image with the detections drawn over it.

    Args:
        image: (H, W, 3) uint8.
        detections: what to draw.
        classes: names of labels 1, 2, ...

    Returns:
        (k H, k W, 3) uint8 with the smallest whole k that makes the long side at least 512 pixels. Where
        nothing is drawn, each pixel of the image is k by k times its own colour.
    """
    factor = math.ceil(OVERLAY_SIDE / max(image.shape))
    height, width = factor * image.shape[0], factor * image.shape[1]
    # A large picture is looked at as a whole, so the pen grows with it: 4 to 8 inches, whatever the pixels.
    # A power of two, so that inches times dots per inch are whole pixels again.
    dpi = 2.0 ** max(7, math.ceil(math.log2(max(height, width) / 8)))
    figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi)
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    draw_objects(ax, image, detections.boxes, detections.labels, detections.masks, detections.scores, classes)
    ax.set_axis_off()
    with missing_glyphs_as_boxes():
        canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]


def show_scenes(
    images: Sequence[Array], targets: Sequence[Target], classes: Sequence[str] = (), columns: int = 4
) -> Figure:
    """Labelled images side by side.

    Args:
        images: (H, W, 3) uint8 each.
        targets: the objects of each image.
        classes: names of labels 1, 2, ...
        columns: panels in a row.

    Raises:
        InputError: there are no images, or not as many targets.
    """
    same_length(images=images, targets=targets)
    figure, axes = panels(len(images), columns, images[0])
    for ax, image, target in zip(axes, images, targets, strict=True):
        draw_objects(ax, image, target.boxes, target.labels, target.masks, classes=classes)
    return figure


def show_detections(
    images: Sequence[Array],
    targets: Sequence[Target],
    detections: Sequence[Detections],
    classes: Sequence[str] = (),
    columns: int = 2,
) -> Figure:
    """For each image what is there, and beside it what was found.

    Args:
        images: (H, W, 3) uint8 each.
        targets: the objects of each image.
        detections: what the network saw in each image.
        classes: names of labels 1, 2, ...
        columns: images in a row; each takes two panels.

    Raises:
        InputError: there are no images, or not as many targets or detections.
    """
    same_length(images=images, targets=targets, detections=detections)
    figure, axes = panels(2 * len(images), 2 * columns, images[0], titles=True)
    for left, right, image, truth, found in zip(axes[::2], axes[1::2], images, targets, detections, strict=True):
        draw_objects(left, image, truth.boxes, truth.labels, truth.masks, classes=classes)
        left.set_title(f"labelled: {len(truth)}", fontsize=9)
        draw_objects(right, image, found.boxes, found.labels, found.masks, found.scores, classes)
        right.set_title(f"detected: {len(found)}", fontsize=9)
    return figure


def draw_masks(ax: Axes, masks: Array, colours: Sequence[str]) -> None:
    height, width = masks.shape[1:]
    layer = np.zeros((height, width, 4), np.uint8)
    for mask, colour in zip(masks[::-1], colours[::-1], strict=True):
        layer[mask] = [*(round(255 * part) for part in to_rgb(colour)), 115]
    ax.imshow(layer, extent=(0, width, height, 0))
    for mask, colour in zip(masks[::-1], colours[::-1], strict=True):
        _draw_contour(ax, mask, colour)


def _draw_contour(ax: Axes, mask: Array, colour: str) -> None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return
    # Only the part that has pixels, in a frame of zeros so that the contour closes at the edge of the image.
    part = np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1).astype(float)
    y, x = np.arange(part.shape[0]) + rows[0] - 0.5, np.arange(part.shape[1]) + columns[0] - 0.5
    outline = ax.contour(x, y, part, levels=[0.5], colors=[colour], linewidths=1.2)
    outline.set_path_effects([withStroke(linewidth=2.2, foreground="white")])
