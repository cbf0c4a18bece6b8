"""Average precision as COCO measures it, for boxes and for masks.

For every class, over the whole data set: each image's detections are matched to its objects, best score first
(:func:`match_detections`); the detections of all images are ranked together, and precision is drawn against
recall down that ranking (:func:`precision_recall`); AP is the mean height of the curve's upper envelope
(:func:`average_precision`). What is reported are means of that over classes and over ten IoU thresholds.

Sources: https://cocodataset.org/#detection-eval, and, for what no text says, ``COCOeval`` in pycocotools,
whose numbers these are.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .backend import Array
from .boxes import box_area, box_iou
from .errors import InputError
from .structures import Detections, Target

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""The T = 10 overlaps from which a detection counts as right: .50, .55, ..., .95."""

RECALL_LEVELS = np.linspace(0.0, 1.0, 101)
"""The recalls at which the precision curve is read: 0, .01, ..., 1."""

AREA_RANGES = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}
"""The A = 4 ranges of area, in square pixels, both ends included."""

_BLOCK = 1 << 20  # numbers in a block of flattened masks: 4 MB of float32


class _Matches(NamedTuple):
    """How the D detections of one class in one image fared, for A area ranges and T IoU thresholds."""

    scores: Array  # (D,) falling
    correct: Array  # (A, T, D) found an object
    excused: Array  # (A, T, D) neither right nor wrong: left out of the count
    objects: Array  # (A,) how many objects there were to find


def evaluate(
    detections: Sequence[Detections],
    targets: Sequence[Target],
    classes: Sequence[str],
    *,
    max_detections: int = 100,
) -> dict[str, dict[str, Any]]:
    """COCO's average precision and recall, of boxes and of masks.

    Each image is asked for once, in order, so both sequences may load theirs on demand.

    Args:
        detections: what was detected in each image, in any order; equal scores keep theirs.
        targets: the labelled objects of the same images.
        classes: the K names of labels 1 to K; the background, 0, is not among them.
        max_detections: how many detections of one class count in one image, best first.

    Returns:
        ``{"box": figures, "mask": figures}``. Figures are floats from 0 to 1, nan where there was nothing to
        find: ``AP`` (mean over IoU .50 to .95), ``AP50``, ``AP75``, ``AP_small``, ``AP_medium``, ``AP_large``
        (by ``Target.areas``; bounds 32^2 and 96^2 pixels), ``AR`` (recall, mean over the same IoUs),
        ``AR_small``, ``AR_medium``, ``AR_large``, and ``per_class``: for each name ``AP``, ``AP50``,
        ``AP75``, ``AR`` and ``objects``, the number of objects, crowds not counted.

    Raises:
        InputError: the sequences differ in length, two classes share a name, a label has no class, a score is
            nan, or an image's arrays do not fit together.
    """
    if len(detections) != len(targets):
        counts = f"{len(detections)} images have detections, {len(targets)} have targets"
        raise InputError(f"{counts}: give one of each for every image, be it empty")
    if len(set(classes)) != len(classes):
        raise InputError("two classes share a name, and figures are given by name: make the names differ")
    matches: dict[str, list[list[_Matches]]] = {kind: [[] for _ in classes] for kind in ("box", "mask")}
    for number, (found, target) in enumerate(zip(detections, targets, strict=True)):
        _check_image(found, target, len(classes), f"image {number}")
        measured = {"box": _measure_boxes(found, target), "mask": _measure_masks(found, target)}
        for label in np.union1d(found.labels, target.labels).astype(np.int64).tolist():
            for kind, (overlaps, areas) in measured.items():
                one = _match_class(found, target, overlaps, areas, label, max_detections)
                matches[kind][label - 1].append(one)
    return {kind: _summarize(by_class, classes) for kind, by_class in matches.items()}


def match_detections(
    overlaps: Array, ignored: Array, crowd: Array, thresholds: Array = IOU_THRESHOLDS
) -> tuple[Array, Array]:
    """Match detections to objects of one class in one image, best score first (``COCOeval.evaluateImg``).

    A detection takes the object that it overlaps most (of equals the last), out of those that reach the
    threshold and are not taken. Only where there is none may it take an ignored object instead, and is then
    excused. A crowd is always ignored, and never used up.

    Args:
        overlaps: (D, G) IoU of every detection, best score first, with every object.
        ignored: (A, G) bool, the objects that need not be found, for each of A area ranges.
        crowd: (G,) bool, the objects that are crowds.
        thresholds: (T,) least IoU of a match.

    Returns:
        correct: (A, T, D) bool, the detections that found an object.
        excused: (A, T, D) bool, the detections that found an ignored object.
    """
    count = len(crowd)
    limits = np.minimum(thresholds, 1 - 1e-10)[:, None]  # (T, 1); an IoU of 1 may come out a hair less
    proper = ~ignored[:, None]  # (A, 1, G)
    taken = np.zeros((len(ignored), len(thresholds), count), bool)  # (A, T, G)
    correct = np.zeros((len(ignored), len(thresholds), len(overlaps)), bool)  # (A, T, D)
    excused = np.zeros_like(correct)
    for d in np.flatnonzero((overlaps >= limits.min()).any(axis=1)):  # the others match nothing
        possible = (overlaps[d] >= limits) & (crowd | ~taken)  # (A, T, G)
        found = (possible & proper).any(axis=-1)  # (A, T)
        correct[..., d] = found
        excused[..., d] = possible.any(axis=-1) & ~found
        possible &= proper | ~found[..., None]  # ignored ones only where there is no other
        preference = np.where(possible, overlaps[d], -1.0)
        best = count - 1 - preference[..., ::-1].argmax(axis=-1)  # backwards: argmax is the first of equals
        taken |= possible & (np.arange(count) == best[..., None])
    return correct, excused


def precision_recall(correct: Array, excused: Array, objects: int) -> tuple[Array, Array]:
    """Precision and recall after each detection down a ranking (``COCOeval.accumulate``).

    Args:
        correct: (..., N) bool, best score first, the detections that found an object.
        excused: (..., N) bool, the detections that do not count; none of them is correct.
        objects: how many objects there were to find, at least 1.

    Returns:
        precision: (..., N) share of the detections so far that are correct; 0 while none has counted.
        recall: (..., N) share of the objects found so far.
    """
    hits = np.cumsum(correct, axis=-1)
    counted = np.cumsum(~excused, axis=-1)
    return hits / np.maximum(counted, 1), hits / objects


def precision_envelope(precision: Array) -> Array:
    """The best precision from each place of the ranking on, (..., N): the zigzag filled up to a stair."""
    return np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]


def average_precision(precision: Array, recall: Array) -> float:
    """Area under the precision-recall curve, as COCO reads it off.

    Args:
        precision: (N,) from :func:`precision_recall`.
        recall: (N,) likewise; it never falls.

    Returns:
        The mean height of the envelope at the 101 :data:`RECALL_LEVELS`. The height at a level is the best
        precision at that recall or above, and 0 past the last recall reached.
    """
    heights = np.append(precision_envelope(precision), 0.0)  # the 0 is for levels that were not reached
    return float(heights[np.searchsorted(recall, RECALL_LEVELS, side="left")].mean())


def format_table(result: dict[str, dict[str, Any]], classes: Sequence[str]) -> str:
    """What :func:`evaluate` returned as plain text, at most 80 columns wide.

    Args:
        result: from :func:`evaluate`.
        classes: the names of the classes to show, in the order of their rows.

    Returns:
        A heading; a row for boxes and one for masks over all classes; the same two rows for each class. A
        dash stands where there was nothing to find.
    """
    columns = ("AP", "AP50", "AP75", "AR")
    width = min(max(len(name) for name in ("all classes", *classes)), 40)
    lines = [" " * (width + 6) + "".join(f"{column:>8}" for column in columns)]
    for name in (None, *classes):
        for kind, shown in (("box", "all classes" if name is None else name), ("mask", "")):
            row = result[kind] if name is None else result[kind]["per_class"][name]
            cells = "".join(f"{'-':>8}" if np.isnan(row[key]) else f"{row[key]:8.3f}" for key in columns)
            lines.append(f"{' '.join(shown.split())[:width]:<{width}}  {kind:<4}{cells}")  # a name may hold line ends
    return "\n".join(lines)


def _check_image(found: Detections, target: Target, classes: int, where: str) -> None:
    for name, one in (("detections", found), ("target", target)):
        if len({len(array) for field, array in vars(one).items() if field != "ignore"}) > 1:
            raise InputError(f"{where}: the arrays of the {name} differ in length: give one entry an object")
    labels = np.concatenate([found.labels, target.labels])
    wrong = labels[(labels < 1) | (labels > classes)]
    if len(wrong):
        raise InputError(f"{where}: label {wrong[0]} is not in 1..{classes}: name every label in classes")
    if np.isnan(found.scores).any():
        raise InputError(f"{where}: a score is nan, which has no rank: give numbers")
    if any(array.dtype != bool for array in (found.masks, target.masks, target.crowd)):
        raise InputError(f"{where}: masks and crowd must be bool: convert them with astype(bool)")
    if len(found) and len(target) and found.masks.shape[1:] != target.masks.shape[1:]:
        sizes = f"{found.masks.shape[1:]}, the target's {target.masks.shape[1:]}"
        raise InputError(f"{where}: detected masks are of size {sizes}: give both at the size of the image")


def _measure_boxes(found: Detections, target: Target) -> tuple[Array, Array]:
    """The IoU of an image's boxes (D, G) and the areas of those detected (D,), in float64."""
    boxes, others = found.boxes.astype(np.float64), target.boxes.astype(np.float64)
    overlaps, areas = box_iou(boxes, others), box_area(boxes)
    # A crowd has no outline to agree with: what counts is how much of the detection lies inside.
    crowds = others[target.crowd]
    sides = np.minimum(boxes[:, None, 2:], crowds[:, 2:]) - np.maximum(boxes[:, None, :2], crowds[:, :2])
    overlaps[:, target.crowd] = _share(np.maximum(sides, 0).prod(axis=-1), areas[:, None])
    return overlaps, areas


def _measure_masks(found: Detections, target: Target) -> tuple[Array, Array]:
    """The IoU of an image's masks (D, G) and the pixels of those detected (D,), in float64."""
    shared = _shared_pixels(found.masks, target.masks)
    areas, others = (masks.sum(axis=(1, 2), dtype=np.float64) for masks in (found.masks, target.masks))
    unions = areas[:, None] + others - shared
    return _share(shared, np.where(target.crowd, areas[:, None], unions)), areas


def _share(part: Array, whole: Array) -> Array:
    return part / np.where(whole > 0, whole, 1.0)  # of nothing, the part is 0 as well


def _shared_pixels(masks: Array, others: Array) -> Array:
    """How many pixels each of ``masks`` (D, H, W) shares with each of ``others`` (G, H, W): (D, G) float64.

    A product of the flattened masks, block by block, since as float32 they take four times their memory. A
    block's sum is exact: float32 counts to 2^24.
    """
    shared = np.zeros((len(masks), len(others)))
    if not shared.size:
        return shared
    masks, others = masks.reshape(len(masks), -1), others.reshape(len(others), -1)  # (D, HW), (G, HW)
    step = max(_BLOCK // (len(masks) + len(others)), 1)
    for start in range(0, masks.shape[1], step):
        block = slice(start, start + step)
        shared += masks[:, block].astype(np.float32) @ others[:, block].astype(np.float32).T
    return shared


def _match_class(
    found: Detections, target: Target, overlaps: Array, areas: Array, label: int, max_detections: int
) -> _Matches:
    """Match one class in one image, given the overlaps (D, G) and areas (D,) of all its detections."""
    chosen = np.flatnonzero(found.labels == label)
    chosen = chosen[np.argsort(-found.scores[chosen], kind="stable")][:max_detections]
    objects = np.flatnonzero(target.labels == label)
    crowd = target.crowd[objects]
    ignored = crowd | _outside(target.areas[objects])  # (A, G)
    correct, excused = match_detections(overlaps[np.ix_(chosen, objects)], ignored, crowd)
    # What found nothing is a mistake only in the range of its own size.
    excused |= ~correct & _outside(areas[chosen])[:, None]
    return _Matches(found.scores[chosen], correct, excused, (~ignored).sum(axis=1))


def _outside(areas: Array) -> Array:
    """Which of ``areas`` (N,) lie outside each area range: (A, N)."""
    return np.stack([(areas < lowest) | (areas > highest) for lowest, highest in AREA_RANGES.values()])


def _rank_class(images: list[_Matches]) -> tuple[Array, Array, int]:
    """AP (A, T) and recall (A, T) of one class over all images, nan for sizes without objects; its count."""
    ap = np.full((len(AREA_RANGES), len(IOU_THRESHOLDS)), np.nan)
    reached = ap.copy()
    if not images:
        return ap, reached, 0
    order = np.argsort(-np.concatenate([image.scores for image in images]), kind="stable")
    correct = np.concatenate([image.correct for image in images], axis=-1)[..., order]  # (A, T, N)
    excused = np.concatenate([image.excused for image in images], axis=-1)[..., order]
    objects = sum(image.objects for image in images)  # (A,)
    for a in np.flatnonzero(objects):
        precision, recall = precision_recall(correct[a], excused[a], objects[a])  # (T, N)
        ap[a] = [average_precision(p, r) for p, r in zip(precision, recall, strict=True)]
        reached[a] = recall[:, -1] if len(order) else 0.0
    return ap, reached, int(objects[0])


def _summarize(by_class: list[list[_Matches]], classes: Sequence[str]) -> dict[str, Any]:
    ranked = [_rank_class(images) for images in by_class]
    shape = (len(classes), len(AREA_RANGES), len(IOU_THRESHOLDS))
    ap = np.array([one[0] for one in ranked]).reshape(shape)  # (K, A, T)
    recall = np.array([one[1] for one in ranked]).reshape(shape)
    result: dict[str, Any] = _row(ap[:, 0], recall[:, 0])
    for a, size in enumerate(AREA_RANGES):
        if size != "all":
            result[f"AP_{size}"], result[f"AR_{size}"] = _mean(ap[:, a]), _mean(recall[:, a])
    result["per_class"] = {
        name: {**_row(ap[k, 0], recall[k, 0]), "objects": ranked[k][2]} for k, name in enumerate(classes)
    }
    return result


def _row(ap: Array, recall: Array) -> dict[str, float]:
    """The figures of one row of the table, from arrays (..., T)."""
    return {"AP": _mean(ap), "AP50": _mean(ap[..., 0]), "AP75": _mean(ap[..., 5]), "AR": _mean(recall)}


def _mean(values: Array) -> float:
    """The mean of what was measured; nan where nothing was."""
    measured = values[~np.isnan(values)]
    return float(measured.mean()) if measured.size else float("nan")
