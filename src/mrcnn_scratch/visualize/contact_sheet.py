"""Many labelled pictures on one sheet, whatever their sizes: to look at own data before training on it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

from ..backend import Array
from ..data.transforms import resize_target
from ..structures import Target
from .labels import class_name, draw_labels, shorten
from .objects import draw_masks
from .parts import PAGE, class_colour, draw_boxes, draw_image, same_length

HEIGHT, TITLE, GAP = 2.3, 0.56, 0.12
"""Of the pictures, of the three lines above each, and between pictures, in inches."""
NARROWEST, WIDEST = 0.6, 2.2
"""Bounds on width over height as shown: beyond them a picture is squeezed, since true to shape it would be a line."""
MOST_PIXELS = 640
"""A larger side is shrunk to this, about twice what the sheet shows, so that photos do not fill the memory."""
MOST_NAMES = 8
"""With more objects, only the largest of each class is named: its colour names the others."""


def show_contact_sheet(
    examples: Sequence[tuple[Array, Target]], titles: Sequence[str], classes: Sequence[str], columns: int = 4
) -> Figure:
    """Labelled pictures at one height: boxes, outlines of masks, names; crowds dashed and hatched.

    Args:
        examples: images (H, W, 3) uint8 of any sizes, each with its objects.
        titles: a name for each, such as its file's; the middle of a long one is left out.
        classes: names of labels 1, 2, ...
        columns: pictures in a row.

    Raises:
        InputError: there are no examples, not as many titles, or a label has no name.
    """
    same_length(examples=examples, titles=titles)
    shapes = [np.clip(image.shape[1] / image.shape[0], NARROWEST, WIDEST) for image, _ in examples]
    rows = [range(start, min(start + columns, len(shapes))) for start in range(0, len(shapes), columns)]
    widest_row = max(sum(shapes[i] for i in row) for row in rows)
    height = min(HEIGHT, (PAGE - (columns + 1) * GAP) / widest_row)
    page = widest_row * height + (max(map(len, rows)) + 1) * GAP, len(rows) * (height + TITLE) + GAP
    figure = Figure(figsize=page, dpi=100)
    for r, row in enumerate(rows):
        left, bottom = GAP, page[1] - (r + 1) * (height + TITLE)
        for i in row:
            width = shapes[i] * height
            ax = figure.add_axes((left / page[0], bottom / page[1], width / page[0], height / page[1]))
            letters = int(width * 72 / (8 * 0.62))  # of 8 points, each about 0.62 of that wide
            _write_title(ax, titles[i], *examples[i], letters)
            _draw_example(ax, *examples[i], classes, letters)
            left += width + GAP
    return figure


def _draw_example(ax: Axes, image: Array, target: Target, classes: Sequence[str], letters: int) -> None:
    names = [
        shorten(class_name(label, classes), letters - 10) + " (crowd)" * bool(crowd)
        for label, crowd in zip(target.labels, target.crowd, strict=True)
    ]
    colours = [class_colour(label) for label in target.labels]
    image, target = _shrunk(image, target)
    draw_image(ax, image)
    for g in np.flatnonzero(target.crowd):
        _draw_crowd(ax, target.boxes[g], target.masks[g], colours[g])
    objects = np.flatnonzero(~target.crowd)
    draw_masks(ax, target.masks[objects], [colours[g] for g in objects])
    draw_boxes(ax, target.boxes[objects], [colours[g] for g in objects], linewidth=1.2, halo=True)
    named = _worth_a_name(target)
    draw_labels(ax, [names[g] for g in named], target.boxes[named], [colours[g] for g in named])
    ax.set_aspect("auto")  # last: drawing masks sets it back


def _draw_crowd(ax: Axes, box: Array, mask: Array, colour: str) -> None:
    """Hatched where it lies and dashed around it, so that it is told from an object without its colour."""
    x1, y1, x2, y2 = box
    corners = [[(x1, y1), (x2, y1), (x2, y2), (x1, y2)]]
    outline = PolyCollection(corners, facecolors="none", edgecolors=colour, linewidths=1.5, linestyles="dashed")
    outline.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    ax.add_collection(outline)
    if not mask.any():  # too thin to be left after shrinking
        return
    padded = np.pad(mask, 1).astype(float)
    y, x = np.arange(padded.shape[0]) - 0.5, np.arange(padded.shape[1]) - 0.5
    hatched = ax.contourf(x, y, padded, levels=[0.5, 1.5], colors="none", hatches=["/////"])
    hatched.set(edgecolor=colour, linewidth=1.2, linestyle="dashed")


def _worth_a_name(target: Target) -> Array:
    """Which objects get a name written: all of a few, of many the largest of each class and kind."""
    if len(target) <= MOST_NAMES:
        return np.arange(len(target))
    largest_first = np.argsort(-target.areas, kind="stable")
    kinds = 2 * target.labels + target.crowd
    return np.sort(largest_first[np.unique(kinds[largest_first], return_index=True)[1]])


def _shrunk(image: Array, target: Target) -> tuple[Array, Target]:
    size = (image.shape[0], image.shape[1])
    new = (min(size[0], MOST_PIXELS), min(size[1], MOST_PIXELS))
    if new == size:
        return image, target
    smaller = Image.fromarray(image).resize((new[1], new[0]), Image.Resampling.BOX)
    return np.asarray(smaller), resize_target(target, size, new)


def _write_title(ax: Axes, title: str, image: Array, target: Target, letters: int) -> None:
    """The name, and what the picture itself does not tell: its size, and how many objects to look for."""
    height, width = image.shape[:2]
    crowds = int(target.crowd.sum())
    squeezed = not NARROWEST <= width / height <= WIDEST
    lines = [
        shorten(title, letters),
        f"{width} × {height}" + ", squeezed" * squeezed,
        _counted(len(target) - crowds, "object") + (f", {_counted(crowds, 'crowd')}" if crowds else ""),
    ]
    for line, points, size, colour in zip(lines, (24, 14, 4), (8, 7, 7), ("black", "0.35", "0.35"), strict=True):
        ax.annotate(
            line,
            (0, 1),
            (0, points),
            xycoords="axes fraction",
            textcoords="offset points",
            size=size,
            color=colour,
            parse_math=False,  # a file may be called $x$.png
        )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + "s" * (count != 1)
