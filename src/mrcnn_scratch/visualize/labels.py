"""Names beside boxes, placed so that they stay inside and off each other."""

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from ..backend import Array
from ..errors import InputError


def draw_labels(ax: Axes, names: Sequence[str], boxes: Array, colours: Sequence[str]) -> None:
    """The names of ``boxes`` (R, 4) in pixels, beside their corners, where they cover each other least."""
    texts = []
    for name, (x, y, _, _), colour in zip(names, boxes, colours, strict=True):
        red, green, blue = to_rgb(colour)
        ink = "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.5 else "white"
        background = {"boxstyle": f"square,pad={_LabelPlacer.PAD}", "facecolor": colour, "edgecolor": "none"}
        size = 8 if len(names) <= 8 else 7
        texts.append(
            ax.text(x, y, name, color=ink, bbox=background, va="bottom", fontsize=size, zorder=5, parse_math=False)
        )
        texts[-1].set_in_layout(False)
    ax.add_artist(_LabelPlacer(texts, boxes))


class _LabelPlacer(Artist):
    """Finds a place for each label at the moment of drawing: only then is the size of the panel known."""

    PAD = 0.15
    """Rim around the text of a label, in font sizes."""

    def __init__(self, texts: Sequence[Text], boxes: Array) -> None:
        super().__init__()
        self.texts, self.boxes = texts, boxes
        self.set_zorder(4)  # drawn before the texts, which have 5
        self.set_in_layout(False)

    def draw(self, renderer: RendererBase) -> None:
        """Move the texts; there is nothing else to draw."""
        assert self.axes is not None
        to_display = self.axes.transData
        taken = np.zeros((0, 4))
        for text, box in zip(self.texts, self.boxes, strict=True):
            pad = self.PAD * text.get_fontproperties().get_size_in_points() * self.figure.dpi / 72
            extent = text.get_window_extent(renderer)
            size = np.array([extent.width, extent.height]) + 2 * pad
            (left, top), (right, bottom) = to_display.transform(np.reshape(box, (2, 2)))
            spots = _inside(_spots(left, bottom, right, top, *size), self.axes.bbox.extents)
            best = spots[_overlaps(spots, taken).argmin()]
            taken = np.concatenate([taken, best[None]])
            text.set_position(tuple(to_display.inverted().transform(best[:2] + pad)))


def _spots(left: float, bottom: float, right: float, top: float, width: float, height: float) -> Array:
    """Where a label of this size may stand, best first: above its box, inside, below, further off."""
    levels = (top, top - height, bottom - height, bottom)
    further = (top + height, bottom - 2 * height, top + 2 * height, bottom - 3 * height)
    starts = np.array([(x, y) for y in (*levels, *further) for x in (left, right - width)])
    return np.concatenate([starts, starts + np.array([width, height])], axis=1)


def _inside(spots: Array, frame: Array) -> Array:
    """``spots`` (S, 4) moved into ``frame`` (4,)."""
    sizes = spots[:, 2:] - spots[:, :2]
    starts = np.maximum(np.minimum(spots[:, :2], frame[2:] - sizes), frame[:2])
    return np.concatenate([starts, starts + sizes], axis=1)


def _overlaps(spots: Array, taken: Array) -> Array:
    """Area of each of ``spots`` (S, 4) that boxes in ``taken`` (T, 4) cover, summed: (S,)."""
    low = np.maximum(spots[:, None, :2], taken[:, :2])
    high = np.minimum(spots[:, None, 2:], taken[:, 2:])
    return np.maximum(high - low, 0).prod(axis=2).sum(axis=1)


def _nearest(points: Array, point: Array) -> Array:
    """Which of ``points`` (A, 2) are at the place nearest to ``point``: (A,) bool."""
    if len(points) == 0:
        return np.zeros(0, bool)
    nearest = points[np.square(points - point).sum(axis=1).argmin()]
    return np.isclose(points, nearest).all(axis=1)


def class_name(label: int, classes: Sequence[str]) -> str:
    """The name of label 1, 2, ...; its number where ``classes`` is empty.

    Raises:
        InputError: ``classes`` has no such label.
    """
    if classes and not 1 <= label <= len(classes):
        raise InputError(f"label {label} has no name: classes names the labels 1 to {len(classes)}")
    return classes[label - 1] if classes else str(label)


def decimal(score: float) -> str:
    """A score from 0 to 1 as short as it can be read: .98."""
    return f"{score:.2f}".removeprefix("0")


def shorten(text: str, length: int) -> str:
    """``text`` in one line, with its middle left out if it has more than ``length`` letters: ends tell files apart."""
    text = " ".join(text.split())
    if len(text) <= length:
        return text
    tail = max(length - 3, 0) // 2
    return text[: max(length - 3 - tail, 0)] + "..." + text[len(text) - tail :]
