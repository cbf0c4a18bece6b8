"""What all pictures share: colours, panels, boxes, and the way to a file."""

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from ..backend import Array
from ..errors import InputError
from ..files import write_atomically

PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2", "#F0E442")
"""The colours of Okabe and Ito, which colour-blind readers can tell apart; label 1 has the first."""


SHOWN_SCORE = 0.5
"""Least score of a detection that is worth drawing."""


PANEL, PAGE = 2.8, 11.2
"""Width of one panel and greatest width of a row of panels, in inches."""


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write ``figure`` as PNG. The file appears whole or, after an error, not at all.

    Raises:
        InputError: the file cannot be written there.
    """
    with missing_glyphs_as_boxes():
        write_atomically(Path(path), lambda file: figure.savefig(file, format="png"))


@contextmanager
def missing_glyphs_as_boxes() -> Iterator[None]:
    """Inside, a character that matplotlib's font lacks, of a class in Japanese perhaps, is a box and no warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        yield


def panels(count: int, columns: int, image: Array, titles: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` panels of the shape of ``image``."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    width = min(PANEL, PAGE / columns)
    height = width * image.shape[0] / image.shape[1] + (0.28 if titles else 0)
    figure = Figure(figsize=(columns * width, rows * height), dpi=100, layout="constrained")
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def draw_image(ax: Axes, image: Array) -> None:
    """``image`` (H, W, 3) uint8, on axes in pixels as boxes count them: pixel ``i`` covers ``[i, i + 1]``."""
    height, width = image.shape[:2]
    ax.imshow(image, extent=(0, width, height, 0))
    ax.set(xticks=[], yticks=[])
    ax.autoscale(False)


def dim(image: Array) -> Array:
    """Less contrast and darker, so that lines of any colour stand out."""
    return image // 2 + 32


def draw_boxes(ax: Axes, boxes: Array, colours: Any, linewidth: float, halo: bool = False) -> None:
    """Outlines of ``boxes`` (R, 4) in pixels; ``colours`` is one or R of them, ``linewidth`` in points.

    A ``halo`` is a white rim that parts the line from a ground of its own colour.
    """
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    outlines = PolyCollection(corners, facecolors="none", edgecolors=colours, linewidths=linewidth)
    if halo:
        outlines.set_path_effects([withStroke(linewidth=linewidth + 1, foreground="white")])
    ax.add_collection(outlines)


def class_colour(label: int) -> str:
    """The colour of label 1, 2, ...; after the last of :data:`PALETTE` comes the first again."""
    return PALETTE[(label - 1) % len(PALETTE)]


def same_length(**columns: Sequence[Any]) -> None:
    """Raise an InputError unless all ``columns`` are of one length, and not empty."""
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        listed = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise InputError(f"give one of each, and at least one: got {listed}")
