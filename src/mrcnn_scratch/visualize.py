"""Pictures of scenes, anchors, feature maps, proposals, detections and training curves.

Nothing here knows a network: arrays go in, a matplotlib ``Figure`` comes out, without pyplot's global state.
In a notebook run ``%matplotlib inline`` once, and a ``Figure`` that ends a cell shows itself; elsewhere use
:func:`save`. Axes are in pixels as boxes count them: pixel ``i`` covers ``[i, i + 1]``.
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from .backend import Array, to_host
from .errors import InputError
from .structures import Detections, Target

PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2", "#F0E442")
"""The colours of Okabe and Ito, which colour-blind readers can tell apart; label 1 has the first."""

SHOWN_SCORE = 0.5
"""Least score of a detection that is worth drawing."""

PANEL, PAGE = 2.8, 11.2
"""Width of one panel and greatest width of a row of panels, in inches."""

OVERLAY_SIDE = 512
"""Least long side of an :func:`overlay`, in pixels: in a smaller one the labels would hide the objects."""


# Objects in an image


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
    names = [_name(label, classes) for label in labels]
    colours = [_colour(label) for label in labels]
    _draw_image(ax, image)
    if masks is not None:
        _draw_masks(ax, masks, colours)
    _draw_boxes(ax, boxes[::-1], colours[::-1], linewidth=1.5, halo=True)
    if scores is not None:
        names = [f"{name} {_decimal(score)}" for name, score in zip(names, scores, strict=True)]
    _draw_labels(ax, names, boxes, colours)


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
    _same_length(images=images, targets=targets)
    figure, axes = _panels(len(images), columns, images[0])
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
    _same_length(images=images, targets=targets, detections=detections)
    figure, axes = _panels(2 * len(images), 2 * columns, images[0], titles=True)
    for left, right, image, truth, found in zip(axes[::2], axes[1::2], images, targets, detections, strict=True):
        draw_objects(left, image, truth.boxes, truth.labels, truth.masks, classes=classes)
        left.set_title(f"labelled: {len(truth)}", fontsize=9)
        draw_objects(right, image, found.boxes, found.labels, found.masks, found.scores, classes)
        right.set_title(f"detected: {len(found)}", fontsize=9)
    return figure


# Stages of the network


def show_anchors(image: Array, anchors_per_level: Sequence[Array], titles: Sequence[str]) -> Figure:
    """The anchors of each pyramid level: a dot at every grid position, the boxes at the most central one.

    All panels have one scale and reach as far as the largest box drawn.

    Args:
        image: (H, W, 3) uint8.
        anchors_per_level: (A, 4) boxes in pixels for each level.
        titles: a name for each level.

    Raises:
        InputError: there are no levels, or not as many titles.
    """
    _same_length(levels=anchors_per_level, titles=titles)
    figure, axes = _panels(len(titles), 5, image, titles=True)
    height, width = image.shape[:2]
    shown = np.array([[0, 0, width, height]])
    for ax, anchors, title in zip(axes, map(to_host, anchors_per_level), titles, strict=True):
        centres = (anchors[:, :2] + anchors[:, 2:]) / 2
        central = anchors[_nearest(centres, np.array([width / 2, height / 2]))]
        _draw_image(ax, _dim(image))
        ax.scatter(centres[:, 0], centres[:, 1], s=1.5, c="white", linewidths=0)
        _draw_boxes(ax, central, [_colour(i + 1) for i in range(len(central))], linewidth=1.5)
        ax.set_title(f"{title}: {len(anchors):,} anchors", fontsize=9)
        shown = np.concatenate([shown, central])
    low, high = shown[:, :2].min(axis=0) - 2, shown[:, 2:].max(axis=0) + 2
    for ax in axes:
        ax.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), facecolor="0.85")
    return figure


def show_feature_maps(image: Array, features: Sequence[Array], titles: Sequence[str], channels: int = 4) -> Figure:
    """Some channels of every level, one column a level, beside the image.

    Each level shows the channels that vary most over the image (standard deviation). They share the scale
    below the column; levels do not.

    Args:
        image: (H, W, 3) uint8.
        features: (H, W, C) for each level.
        titles: a name for each level.
        channels: how many channels of each level.

    Raises:
        InputError: there are no levels, or not as many titles.
    """
    _same_length(levels=features, titles=titles)
    levels = len(features)
    tall = image.shape[0] / image.shape[1]
    figure = Figure(figsize=(1.5 * (levels + 2), 1.4 * tall * channels + 0.8), dpi=100, layout="constrained")
    grid = figure.add_gridspec(channels, levels + 1, width_ratios=[2] + levels * [1])
    _draw_image(figure.add_subplot(grid[:, 0]), image)
    for column, (level, title) in enumerate(zip(map(to_host, features), titles, strict=True), start=1):
        chosen = np.sort(np.argsort(-level.std(axis=(0, 1)), kind="stable")[:channels])
        axes = [figure.add_subplot(grid[row, column]) for row in range(len(chosen))]
        scale = Normalize(level[..., chosen].min(), level[..., chosen].max())
        for ax, channel in zip(axes, chosen, strict=True):
            ax.imshow(level[..., channel], norm=scale, cmap="viridis", interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.set_ylabel(f"channel {channel}", fontsize=7, labelpad=2)
        axes[0].set_title(f"{title}\n{' × '.join(map(str, level.shape))}", fontsize=9)
        bar = figure.colorbar(ScalarMappable(scale, "viridis"), ax=axes, location="bottom", aspect=12, pad=0.02)
        bar.ax.tick_params(labelsize=7)
    return figure


def show_proposals(
    image: Array,
    before: Array,
    after: Array,
    scores_before: Array | None = None,
    scores_after: Array | None = None,
) -> Figure:
    """Proposals before and after non-maximum suppression, side by side, the best on top.

    Args:
        image: (H, W, 3) uint8.
        before: (R, 4) boxes in pixels.
        after: (K, 4) boxes in pixels.
        scores_before: (R,) objectness in [0, 1], shown as colour.
        scores_after: (K,) objectness in [0, 1], shown as colour.
    """
    figure, axes = _panels(2, 2, image, titles=True)
    scale = ScalarMappable(Normalize(0, 1), "plasma")
    boxes_and_scores = {"before": (before, scores_before), "after": (after, scores_after)}
    for ax, (name, (boxes, scores)) in zip(axes, boxes_and_scores.items(), strict=True):
        boxes = to_host(boxes)
        colours: Any = [(*to_rgb(PALETTE[0]), 0.5)]
        if scores is not None:
            worst_first = np.argsort(to_host(scores), kind="stable")
            boxes, colours = boxes[worst_first], scale.to_rgba(to_host(scores)[worst_first])
        _draw_image(ax, _dim(image))
        _draw_boxes(ax, boxes, colours, linewidth=0.8)
        ax.set_title(f"proposals {name} NMS: {len(boxes):,}", fontsize=9)
    if scores_before is not None or scores_after is not None:
        figure.set_figwidth(2 * PANEL + 0.8)
        figure.colorbar(scale, ax=axes, label="objectness", aspect=30, pad=0.02)
    return figure


# Training curves


def show_curves(metrics: Mapping[str, Array]) -> Figure:
    """How training went: losses, learning rate, positives, gradient norm, as far as ``metrics`` has them.

    A faint line is the value at each step, a strong line its mean over the steps around, a 20th of all.

    Args:
        metrics: columns by name, (T,) each, as in ``metrics.csv``: ``step``, ``total``, ``loss_*``, ``lr``,
            ``positive_*``, ``gradient_norm``. Others are ignored.

    Raises:
        InputError: there is nothing to draw.
    """
    curves = {
        "losses": [name for name in metrics if name == "total" or name.startswith("loss_")],
        "learning rate": [name for name in metrics if name == "lr"],
        "positives per step": [name for name in metrics if name.startswith("positive_")],
        "gradient norm": [name for name in metrics if name == "gradient_norm"],
    }
    curves = {title: names for title, names in curves.items() if any(len(metrics[name]) for name in names)}
    if not curves:
        raise InputError("no curves to draw: the metrics have no rows or no known columns")
    figure = Figure(figsize=(10, 5), dpi=100, layout="constrained")
    for ax, (title, names) in zip(_curve_axes(figure, curves), curves.items(), strict=True):
        for name, colour in zip(sorted(names, key="total".__ne__), ("black", *PALETTE), strict=False):
            steps = metrics.get("step", np.arange(1, len(metrics[name]) + 1))
            label = name.removeprefix("loss_").removeprefix("positive_")
            _draw_curve(ax, steps, metrics[name], colour, label, smooth=name != "lr")
        _style_curves(ax, title)
    return figure


def _curve_axes(figure: Figure, curves: Mapping[str, Any]) -> list[Axes]:
    """The losses large on the left, all else in a column on the right."""
    small = len(curves) - ("losses" in curves)
    grid = figure.add_gridspec(max(small, 1), 2 if len(curves) > small > 0 else 1)
    large = [figure.add_subplot(grid[:, 0])] if len(curves) > small else []
    axes = large + [figure.add_subplot(grid[row, -1]) for row in range(small)]
    for ax in (*large, axes[-1]):
        ax.set_xlabel("step", fontsize=8)
    return axes


def _draw_curve(ax: Axes, steps: Array, values: Array, colour: str, label: str, smooth: bool) -> None:
    values = np.asarray(values, float)
    if smooth:
        ax.plot(steps, values, color=colour, alpha=0.2, linewidth=0.8)
        window = np.ones(len(values) // 20 + 1)
        values = np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")
    alone = "o" if len(values) == 1 else None  # a line through one point cannot be seen
    ax.plot(steps, values, color=colour, linewidth=1.8, label=label, marker=alone)


def _style_curves(ax: Axes, title: str) -> None:
    ax.set_title(title, fontsize=10, loc="left")
    ax.tick_params(labelsize=8)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_ylim(0, 1.05 * ax.get_ylim()[1])
    ax.grid(color="0.9")
    ax.spines[["top", "right"]].set_visible(False)
    if title == "losses":
        ax.legend(fontsize=8, frameon=False, loc="upper right")
    elif len(ax.get_legend_handles_labels()[0]) > 1:  # above the panel, which such curves fill
        ax.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 0.95), ncols=2)


# Files


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write ``figure`` as PNG. The file appears whole or, after an error, not at all.

    Raises:
        InputError: the file cannot be written there.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            figure.savefig(unfinished, format="png")
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None


# Parts


def _panels(count: int, columns: int, image: Array, titles: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` panels of the shape of ``image``."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    width = min(PANEL, PAGE / columns)
    height = width * image.shape[0] / image.shape[1] + (0.28 if titles else 0)
    figure = Figure(figsize=(columns * width, rows * height), dpi=100, layout="constrained")
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def _draw_image(ax: Axes, image: Array) -> None:
    height, width = image.shape[:2]
    ax.imshow(image, extent=(0, width, height, 0))
    ax.set(xticks=[], yticks=[])
    ax.autoscale(False)


def _dim(image: Array) -> Array:
    """Less contrast and darker, so that lines of any colour stand out."""
    return image // 2 + 32


def _draw_boxes(ax: Axes, boxes: Array, colours: Any, linewidth: float, halo: bool = False) -> None:
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    outlines = PolyCollection(corners, facecolors="none", edgecolors=colours, linewidths=linewidth)
    if halo:
        outlines.set_path_effects([withStroke(linewidth=linewidth + 1, foreground="white")])
    ax.add_collection(outlines)


def _draw_masks(ax: Axes, masks: Array, colours: Sequence[str]) -> None:
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


def _draw_labels(ax: Axes, names: Sequence[str], boxes: Array, colours: Sequence[str]) -> None:
    texts = []
    for name, (x, y, _, _), colour in zip(names, boxes, colours, strict=True):
        red, green, blue = to_rgb(colour)
        ink = "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.5 else "white"
        background = {"boxstyle": f"square,pad={_LabelPlacer.PAD}", "facecolor": colour, "edgecolor": "none"}
        size = 8 if len(names) <= 8 else 7
        texts.append(ax.text(x, y, name, color=ink, bbox=background, va="bottom", fontsize=size, zorder=5))
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


# Places of labels are boxes in display pixels: x1, y1, x2, y2 with y upwards.


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


def _name(label: int, classes: Sequence[str]) -> str:
    if classes and not 1 <= label <= len(classes):
        raise InputError(f"label {label} has no name: classes names the labels 1 to {len(classes)}")
    return classes[label - 1] if classes else str(label)


def _colour(label: int) -> str:
    return PALETTE[(label - 1) % len(PALETTE)]


def _decimal(score: float) -> str:
    return f"{score:.2f}".removeprefix("0")


def _same_length(**columns: Sequence[Any]) -> None:
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        listed = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise InputError(f"give one of each, and at least one: got {listed}")
