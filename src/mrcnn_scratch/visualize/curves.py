"""Training curves."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..backend import Array
from ..errors import InputError
from .parts import PALETTE


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
