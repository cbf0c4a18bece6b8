"""What :func:`inspection.inspect` found, in words: a table, what to mend and how, and what is wrong with which."""

import math
import textwrap
from collections.abc import Sequence

from .data.coco import Problem
from .inspection import FAIR_IOU, ClassReport, Inspection, anchor_range
from .visualize.labels import shorten

WORTH_A_HINT = {"small": 0.05, "large": 0.05, "elongated": 0.05, "between": 0.25}
"""Part of all objects that must miss the anchors for a reason before the report suggests a cure.

Between anchors that double from level to level some always fall: 14% of the toy scenes' objects, which train well.
"""

MOST_ENLARGED = 4
"""Images are not to be enlarged more than this for the sake of small objects: a step's time grows with its square."""

WIDTH = 100
"""Columns of the report."""

LISTED = 20
"""Problems that the report lists; the others it counts."""


def format_inspection(inspection: Inspection, problems: Sequence[Problem] = ()) -> str:
    """The report as plain text: sizes and classes in a table, hints where something is off, and the problems.

    Args:
        inspection: what :func:`inspect` found.
        problems: what is wrong with the data; the first 20 are listed, image by image.
    """
    parts = [_heading(inspection), _table(inspection), _hints(inspection), _listing(problems)]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _heading(inspection: Inspection) -> list[str]:
    if inspection.images == 0:
        return ["images   0"]
    lines = [f"images   {_counted(inspection.images, 'image')}, {inspection.images_without_objects} without objects"]
    for name, side in (("height", inspection.heights), ("width", inspection.widths)):
        low, middle, high = (f"{value:g}" for value in side)
        lines.append(f"{name:8} {low} to {high} pixels, median {middle}")
    transform, detections = inspection.config.transform, inspection.config.roi.detections
    lines.append(f"resized  shorter side to {transform.min_size}, longer side to at most {transform.max_size}")
    lines.append(f"objects  at most {inspection.most_objects} in one image; the network reports up to {detections}")
    return lines


def _table(inspection: Inspection) -> list[str]:
    config = inspection.config
    smallest, largest = (f"{size:g}" for size in anchor_range(config))
    ious = [f"<{iou:g}".replace("0.", ".") for iou in (FAIR_IOU, config.rpn.positive_iou)]
    names = ["objects", "crowds", "images", "min", "25%", "50%", "75%", "max", *ious, f"<{smallest}", f">{largest}"]
    above = f"{'':40}{'side in the resized image':^30}{'best anchor IoU':>16}{'anchor size':>14}"
    rows = [inspection.total, *inspection.classes]
    notes = [f"{ious[0]}: no anchor looks like the object. {ious[1]}: learned only from the best anchor, good or bad."]
    return [above, _row("", names), *(_row(row.name, _cells(row)) for row in rows), *notes]


def _cells(report: ClassReport) -> list[str]:
    sides = ["-" if math.isnan(side) else f"{side:.0f}" if side >= 99.95 else f"{side:.1f}" for side in report.sides]
    counts = (report.unmatched, report.low_quality, report.small, report.large)
    return [*map(str, (report.objects, report.crowds, report.images)), *sides, *map(str, counts)]


def _row(name: str, cells: Sequence[str]) -> str:
    widths = (8, 7, 7, 6, 6, 6, 6, 6, 8, 8, 7, 7)  # 82, and 18 for the name
    return f"{shorten(name, 17):18}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def _hints(inspection: Inspection) -> list[str]:
    hints = [*_data_hints(inspection), *_anchor_hints(inspection)]
    return [textwrap.fill(f"* {hint}", WIDTH, subsequent_indent="  ", break_on_hyphens=False) for hint in hints]


def _data_hints(inspection: Inspection) -> list[str]:
    total, limit = inspection.total, inspection.config.roi.detections
    if inspection.images == 0:
        return ["there are no images to learn from"]
    if total.objects == 0:
        return ["there are no objects to learn"]
    hints = []
    empty = [row.name for row in inspection.classes if row.objects == 0]
    if empty:
        hints.append(f"no objects of {', '.join(empty)}: label some, or leave the {_plural(len(empty), 'class')} out")
    if 2 * inspection.images_without_objects > inspection.images:
        hints.append(
            f"{inspection.images_without_objects} of {inspection.images} images have no objects: most steps teach "
            "background alone; label them, or leave some out"
        )
    if inspection.most_objects > limit:
        hints.append(
            f"an image has {inspection.most_objects} objects, but at most {limit} are detected: raise roi.detections"
        )
    return hints


def _anchor_hints(inspection: Inspection) -> list[str]:
    """A cure for each reason for which many objects have no anchor."""
    anchors, objects = inspection.config.anchors, inspection.total.objects
    smallest, largest = anchor_range(inspection.config)
    low, high = (f"{ratio:.2g}" for ratio in inspection.ratios)
    cures = {
        "small": f"they are smaller than {smallest:g} px (median {inspection.small_side:.1f}); "
        f"{_enlarge(inspection, smallest)}add smaller anchor sizes (anchors.sizes)",
        "large": f"they are larger than {largest:g} px (median {inspection.large_side:.0f}); add larger anchor sizes "
        "(anchors.sizes), or lower --min-size and --max-size",
        "elongated": f"their height over width is {low} to {high}, the anchors' {min(anchors.aspect_ratios):g} to "
        f"{max(anchors.aspect_ratios):g}; add aspect ratios (anchors.aspect_ratios)",
        "between": "they lie between the anchors' sizes or places; give each level more sizes (anchors.sizes)",
    }
    return [
        f"{count} of {objects} objects match no anchor at IoU .5: {cures[reason]}"
        for reason, count in inspection.misfits.items()
        if count > WORTH_A_HINT[reason] * objects
    ]


def _enlarge(inspection: Inspection, smallest: float) -> str:
    """The limits at which the median of the small objects is as large as the smallest anchor."""
    transform, factor = inspection.config.transform, smallest / inspection.small_side
    if not factor <= MOST_ENLARGED:  # also where nothing is small, and the factor nan
        return ""
    # Both limits grow, so that every image does by the same factor, whichever limit it meets.
    sides = (
        math.ceil(side * factor / transform.divisor) * transform.divisor
        for side in (transform.min_size, transform.max_size)
    )
    return "raise --min-size to {} and --max-size to {}, or ".format(*sides)


def _listing(problems: Sequence[Problem]) -> list[str]:
    """The problems, image by image, in the order in which the images first occur."""
    if not problems:
        return []
    by_image: dict[str, list[Problem]] = {}
    for problem in problems:
        by_image.setdefault(problem.image, []).append(problem)
    lines = [f"{_counted(len(problems), 'problem')} in the data:"]
    left = LISTED
    for image, found in by_image.items():
        if left > 0:
            lines.append("  " + ("annotations of no image" if image == "-" else " ".join(image.split())))
            lines += [f"    {_what(problem)}" for problem in found[:left]]
        left -= len(found)
    return lines + [f"  ... and {-left} more"] * (left < 0)


def _what(problem: Problem) -> str:
    text = problem.what if problem.annotation is None else f"annotation {problem.annotation}: {problem.what}"
    return " ".join(text.split())


def _counted(count: int, noun: str) -> str:
    return f"{count} {_plural(count, noun)}"


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else noun + ("es" if noun.endswith("s") else "s")
