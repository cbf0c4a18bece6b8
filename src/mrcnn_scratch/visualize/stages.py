"""Anchors, feature maps and proposals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure

from ..backend import Array, to_host
from .labels import _nearest
from .parts import PALETTE, PANEL, class_colour, dim, draw_boxes, draw_image, panels, same_length


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
    same_length(levels=anchors_per_level, titles=titles)
    figure, axes = panels(len(titles), 5, image, titles=True)
    height, width = image.shape[:2]
    shown = np.array([[0, 0, width, height]])
    for ax, anchors, title in zip(axes, map(to_host, anchors_per_level), titles, strict=True):
        centres = (anchors[:, :2] + anchors[:, 2:]) / 2
        central = anchors[_nearest(centres, np.array([width / 2, height / 2]))]
        draw_image(ax, dim(image))
        ax.scatter(centres[:, 0], centres[:, 1], s=1.5, c="white", linewidths=0)
        draw_boxes(ax, central, [class_colour(i + 1) for i in range(len(central))], linewidth=1.5)
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
    same_length(levels=features, titles=titles)
    levels = len(features)
    tall = image.shape[0] / image.shape[1]
    figure = Figure(figsize=(1.5 * (levels + 2), 1.4 * tall * channels + 0.8), dpi=100, layout="constrained")
    grid = figure.add_gridspec(channels, levels + 1, width_ratios=[2] + levels * [1])
    draw_image(figure.add_subplot(grid[:, 0]), image)
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
    *,
    titles: tuple[str, str] = ("proposals before NMS", "proposals after NMS"),
) -> Figure:
    """Proposals before and after non-maximum suppression, side by side, the best on top.

    Args:
        image: (H, W, 3) uint8.
        before: (R, 4) boxes in pixels.
        after: (K, 4) boxes in pixels.
        scores_before: (R,) objectness in [0, 1], shown as colour.
        scores_after: (K,) objectness in [0, 1], shown as colour.
        titles: of the two panels; the number of boxes is put behind.
    """
    figure, axes = panels(2, 2, image, titles=True)
    scale = ScalarMappable(Normalize(0, 1), "plasma")
    boxes_and_scores = ((before, scores_before), (after, scores_after))
    for ax, title, (boxes, scores) in zip(axes, titles, boxes_and_scores, strict=True):
        boxes = to_host(boxes)
        colours: Any = [(*to_rgb(PALETTE[0]), 0.5)]
        if scores is not None:
            worst_first = np.argsort(to_host(scores), kind="stable")
            boxes, colours = boxes[worst_first], scale.to_rgba(to_host(scores)[worst_first])
        draw_image(ax, dim(image))
        draw_boxes(ax, boxes, colours, linewidth=0.8)
        ax.set_title(f"{title}: {len(boxes):,}", fontsize=9)
    if scores_before is not None or scores_after is not None:
        figure.set_figwidth(2 * PANEL + 0.8)
        figure.colorbar(scale, ax=axes, label="objectness", aspect=30, pad=0.02)
    return figure
