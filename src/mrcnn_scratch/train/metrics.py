"""The table that a run writes, one row a step: metrics.csv."""

import csv
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError
from ..files import write_text

LOSSES = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")
COUNTS = ("positive_anchors", "positive_rois")
COLUMNS = ("step", *LOSSES, "total", "gradient_norm", "lr", *COUNTS, "seconds")


def keep_metrics(path: Path, steps: int) -> None:
    """Leave the header and the rows up to ``steps`` in metrics.csv: what came after the checkpoint is done again."""
    rows = read_metrics(path) if steps and os.path.exists(path) else []
    kept = [row for row in rows if float(row["step"]) <= steps]
    write_text(path, "".join(",".join(line) + "\n" for line in [COLUMNS, *(row.values() for row in kept)]))


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, each ``{column: text of a number}``. A last row that was cut off is left out.

    Raises:
        InputError: the file cannot be read or has other columns.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    if tuple(header) != COLUMNS:
        raise InputError(
            f"{path} is no table of a training run: its first line must be {','.join(COLUMNS)}; "
            "move it away, and --resume begins a new one"
        )
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows if _is_whole(row)]


@contextmanager
def appending(path: Path) -> Iterator[Callable[[dict[str, float]], None]]:
    """Inside, each call appends a row to metrics.csv, to be seen there at once."""

    def write_row(row: dict[str, float]) -> None:
        file.write(",".join(_short(row[name]) for name in COLUMNS) + "\n")

    try:
        with open(path, "a", encoding="utf-8", newline="", buffering=1) as file:
            yield write_row
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def _is_whole(row: list[str]) -> bool:
    try:
        return len(row) == len(COLUMNS) and all(math.isfinite(float(text)) for text in row)
    except ValueError:
        return False


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"
