"""Arrays as pictures: small ones with their numbers written in, large ones as maps."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..backend import Array

NUMBERED = 12
"""Up to this many rows and columns a number still fits into its square."""


def show_arrays(
    arrays: Sequence[Array],
    titles: Sequence[str],
    *,
    columns: int = 4,
    width: float = 9.0,
    signed: bool | None = None,
    same_scale: bool = False,
    digits: int = 2,
) -> Figure:
    """Arrays beside each other, one panel each; the numbers are written in where they fit.

    Args:
        arrays: (H, W) numbers, or (H, W, 3) pictures, uint8 or in [0, 1]. Host arrays.
        titles: one a panel.
        columns: panels in a row.
        width: of the whole figure, in inches.
        signed: blue through white to orange around 0, as for gradients; otherwise dark to light. By default: signed if
            any number is negative.
        same_scale: a colour means the same number in every panel.
        digits: after the point, at most.
    """
    rows = -(-len(arrays) // columns)
    columns = min(columns, len(arrays))
    side = width / columns
    tallest = max(min(len(array) / max(array.shape[1], 1), 2) for array in arrays)
    figure = Figure(figsize=(width, rows * (side * tallest + 0.35)), layout="constrained")
    limits = _limits(arrays) if same_scale else None
    axes = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for ax, array, title in zip(axes, arrays, titles, strict=False):
        draw_array(ax, array, signed=signed, limits=limits, digits=digits)
        ax.set_title(title, fontsize=9)
    for ax in axes[len(arrays) :]:
        ax.set_axis_off()
    return figure


def draw_array(
    ax: Axes,
    array: Array,
    *,
    signed: bool | None = None,
    limits: tuple[float, float] | None = None,
    digits: int = 2,
) -> None:
    """One panel of :func:`show_arrays`; ``limits`` are the numbers that the ends of the colour scale stand for."""
    ax.set_xticks([])
    ax.set_yticks([])
    if array.ndim == 3:
        ax.imshow(array)
        return
    array = np.asarray(array, float)
    low, high = _limits([array]) if limits is None else limits
    signed = low < 0 if signed is None else signed
    most = max(abs(low), abs(high)) or 1.0
    scale = ("PuOr_r", -most, most) if signed else ("cividis", low, high if high > low else low + 1)
    image = ax.imshow(array, cmap=scale[0], vmin=scale[1], vmax=scale[2], interpolation="nearest")
    if max(array.shape) <= NUMBERED:
        size = min(9.0, 55 / max(array.shape))
        for (row, column), value in np.ndenumerate(array):
            red, green, blue, _ = image.cmap(image.norm(value))
            ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
            ax.text(column, row, _short(value, digits), ha="center", va="center", fontsize=size, color=ink)


def _limits(arrays: Sequence[Array]) -> tuple[float, float]:
    finite = [array[np.isfinite(array)] for array in arrays if array.ndim == 2]
    numbers = np.concatenate([part.reshape(-1) for part in finite]) if finite else np.zeros(1)
    return (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 1.0)


def _short(value: float, digits: int) -> str:
    """1.50 as 1.5 and -0.0 as 0."""
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text
