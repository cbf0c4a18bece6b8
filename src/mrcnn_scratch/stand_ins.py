"""What takes the place of the package's functions when a reader's are used: see :mod:`.mine`.

A stand-in has the package's arguments, and calls the reader's function with the simpler ones of the exercise: host
arrays, one image, one group, one curve at a time. It checks what comes back and brings it to the package's dtype and
device.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .backend import Array, to_device, to_host
from .errors import InputError
from .ops.contract import Backward, differentiable


class MineError(InputError):
    """A reader's function failed or returned something else than asked for. The message names file, line and cure."""


class Written:
    """A function that a reader has written: it can be called, and whatever is wrong with it is told by file and line.

    Attributes:
        path: its file.
        name: its name there.
        function: the function itself.
    """

    def __init__(self, path: Path, name: str, function: Callable[..., Any]) -> None:
        self.path, self.name, self.function = path, name, function

    def __call__(self, *arrays: Any, **options: Any) -> Any:
        return self.run(self.function, *arrays, **options)

    def run(self, part: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
        """Call ``part``: the function, or the backward that it returned."""
        try:
            return part(*arrays, **options)
        except MineError:  # of another function of the reader's, which this one calls
            raise
        except Exception as error:
            place = line_in(self.path, error)
            where = f"{self.path}, line {place}" if place else str(self.path)
            raise MineError(f"{where}: {self.name} raised {type(error).__name__}: {error}") from error

    def array(self, value: Any, shape: tuple[int, ...], dtype: Any, what: str = "the result") -> Array:
        """``value`` as a host array of ``shape`` and ``dtype``.

        Raises:
            MineError: it has another shape, or is of another kind: a mask where indices are wanted, or text.
        """
        array = self.as_array(value, what)
        if array.shape != shape and not (array.size == 0 and math.prod(shape) == 0):
            raise self.refuse(f"{what} has the shape {array.shape}, and {shape} is wanted")
        wanted = "iu" if np.dtype(dtype).kind == "i" else "fiu"
        if array.size and array.dtype.kind not in wanted:
            kind = "whole numbers" if wanted == "iu" else "numbers"
            raise self.refuse(f"{what} is of the type {array.dtype}, and {kind} are wanted")
        return array.reshape(shape).astype(dtype)

    def as_array(self, value: Any, what: str = "the result") -> Array:
        """``value`` as a host array of whatever shape.

        Raises:
            MineError: it is None, or its rows differ in length.
        """
        if value is None:
            raise self.refuse(f"{what} is None: is a return missing?")
        try:
            return np.asarray(value)
        except ValueError:
            raise self.refuse(f"{what} is no array: its rows differ in length") from None

    def refuse(self, reason: str) -> MineError:
        """The error that says why this function will not do."""
        return MineError(f"{at(self.path, self.function)}: {self.name}: {reason}")


def line_in(path: Path, error: BaseException) -> int | None:
    """The innermost line of the file ``path`` that ``error`` came through."""
    line, step = None, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == str(path):
            line = step.tb_lineno
        step = step.tb_next
    return line


def at(path: Path, function: Callable[..., Any]) -> str:
    """``path`` and, if ``function`` stands in it, the line on which it begins."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{path}, line {code.co_firstlineno}" if code and code.co_filename == str(path) else str(path)


def _box_iou(mine: Written) -> dict[str, Any]:
    def box_iou(a: Array, b: Array) -> Array:
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        some, others = (np.broadcast_to(to_host(x), (*lead, *x.shape[-2:])) for x in (a, b))
        out = np.empty((*lead, a.shape[-2], b.shape[-2]), a.dtype)
        for i in np.ndindex(lead):
            out[i] = mine.array(mine(some[i], others[i]), out[i].shape, out.dtype)
        return to_device(out, like=a)

    return {"box_iou": box_iou}


def _nms(mine: Written) -> dict[str, Any]:
    """Suppression happens in three places, and all three ask the reader's function, one group of boxes at a time."""

    def chosen(boxes: Array, scores: Array, iou_threshold: float) -> Array:
        kept = mine.as_array(mine(boxes, scores, iou_threshold))
        kept = mine.array(kept, (kept.size,), np.int64)
        if kept.size and not (kept.min() >= 0 and kept.max() < len(boxes)):
            raise mine.refuse(f"the result holds the index {kept.max()}, and there are {len(boxes)} boxes")
        return kept

    def nms(boxes: Array, scores: Array, iou_threshold: float) -> Array:
        return to_device(chosen(to_host(boxes), to_host(scores), iou_threshold), like=boxes)

    def batched_nms(boxes: Array, scores: Array, groups: Array, iou_threshold: float) -> Array:
        host, host_scores, host_groups = to_host(boxes), to_host(scores), to_host(groups)
        members = [np.flatnonzero(host_groups == group) for group in np.unique(host_groups)]
        kept = [some[chosen(host[some], host_scores[some], iou_threshold)] for some in members]
        indices = np.sort(np.concatenate([np.zeros(0, np.int64), *kept]))
        return to_device(indices[np.argsort(-host_scores[indices], kind="stable")], like=boxes)

    def keep_mask(boxes: Array, valid: Array, iou_threshold: float) -> Array:
        host, host_valid = to_host(boxes), to_host(valid)
        kept = np.zeros(host_valid.shape, bool)
        for row, (row_boxes, row_valid) in enumerate(zip(host, host_valid, strict=True)):
            some = np.flatnonzero(row_valid)
            falling = np.arange(len(some), 0, -1).astype(host.dtype)  # the boxes come best first
            kept[row, some[chosen(row_boxes[some], falling, iou_threshold)]] = True
        return to_device(kept, like=boxes)

    return {"nms": nms, "batched_nms": batched_nms, "keep_mask": keep_mask}


def _cell_anchors(mine: Written) -> dict[str, Any]:
    def cell_anchors(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> Array:
        return mine.array(mine(sizes, aspect_ratios), (len(sizes) * len(aspect_ratios), 4), np.float32)

    return {"cell_anchors": cell_anchors}


def _place_anchors(mine: Written) -> dict[str, Any]:
    def place_anchors(cell: Array, grid_size: tuple[int, int], image_size: tuple[int, int]) -> Array:
        anchors = mine(to_host(cell), grid_size, image_size)
        return to_device(mine.array(anchors, (math.prod(grid_size) * len(cell), 4), cell.dtype), like=cell)

    return {"place_anchors": place_anchors}


def _match(mine: Written) -> dict[str, Any]:
    def match(iou: Array, *, high: float, low: float, allow_low_quality: bool) -> Array:
        matched = mine(to_host(iou), high=high, low=low, allow_low_quality=allow_low_quality)
        return to_device(mine.array(matched, (iou.shape[1],), np.int64), like=iou)

    return {"match": match}


def _box_coder(mine: Written) -> dict[str, Any]:
    """``encode_boxes`` and ``decode_boxes`` are called alike."""

    def code(given: Array, references: Array, weights: tuple[float, float, float, float]) -> Array:
        shape = np.broadcast_shapes(given.shape, references.shape)
        rows = [np.broadcast_to(to_host(x), shape).reshape(-1, 4) for x in (given, references)]
        coded = mine.array(mine(*rows, weights), rows[0].shape, given.dtype)
        return to_device(coded.reshape(shape), like=given)

    return {mine.name: code}


def _conv2d(mine: Written) -> dict[str, Any]:
    @differentiable
    def conv2d(
        x: Array,
        weight: Array,
        bias: Array | None = None,
        *,
        stride: int = 1,
        padding: int = 0,
        input_gradient: bool = True,
    ) -> tuple[Array, Backward]:
        n, height, width, _ = x.shape
        kh, kw, _, features = weight.shape
        given_bias = np.zeros(features, weight.dtype) if bias is None else bias
        shape = (n, (height + 2 * padding - kh) // stride + 1, (width + 2 * padding - kw) // stride + 1, features)
        inputs = {"x": x, "weight": weight, "bias": given_bias}
        y, every_gradient = _both_ways(mine, inputs, 3, shape, stride=stride, padding=padding)

        def backward(dy: Array) -> tuple[Array, ...]:
            dx, dweight, dbias = every_gradient(dy)
            return (dx if input_gradient else None, dweight, dbias)[: 2 if bias is None else 3]

        return y, backward

    return {"conv2d": conv2d}


def _roi_align(mine: Written) -> dict[str, Any]:
    @differentiable
    def roi_align(
        features: Array,
        boxes: Array,
        batch_indices: Array,
        *,
        output_size: tuple[int, int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = False,
    ) -> tuple[Array, Backward]:
        inputs = {"features": features, "boxes": boxes, "batch_indices": batch_indices}
        y, gradients = _both_ways(
            mine,
            inputs,
            1,
            (len(boxes), *output_size, features.shape[3]),
            output_size=output_size,
            spatial_scale=spatial_scale,
            sampling_ratio=sampling_ratio,
            aligned=aligned,
        )
        return y, lambda dy: gradients(dy)[0]

    return {"roi_align": roi_align}


def _cross_entropy(mine: Written) -> dict[str, Any]:
    @differentiable
    def cross_entropy(logits: Array, labels: Array) -> tuple[Array, Backward]:
        loss, gradients = _both_ways(mine, {"logits": logits, "labels": labels}, 1, ())
        return loss, lambda dloss=1.0: gradients(dloss)[0]

    return {"cross_entropy": cross_entropy}


def _both_ways(
    mine: Written, inputs: dict[str, Array], learned: int, shape: tuple[int, ...], **options: Any
) -> tuple[Array, Callable[[Any], list[Array]]]:
    """The output of a reader's operation, and its gradients for the first ``learned`` of ``inputs``, all checked."""
    like = next(iter(inputs.values()))
    result = mine(*map(to_host, inputs.values()), **options)
    if not (isinstance(result, tuple) and len(result) == 2 and callable(result[1])):
        raise mine.refuse("it should return two things, the output and the function that gives the gradients")
    y, mine_backward = result
    wanted = {f"d{name}": (x.shape, x.dtype) for name, x in list(inputs.items())[:learned]}

    def gradients(dy: Any) -> list[Array]:
        given = mine.run(mine_backward, dy if isinstance(dy, int | float) else to_host(dy))
        given = tuple(given) if isinstance(given, tuple | list) and learned > 1 else (given,)
        if len(given) != learned:
            raise mine.refuse(f"its backward returns {len(given)} things, and should return {', '.join(wanted)}")
        checked = (mine.array(g, *kind, what=name) for g, (name, kind) in zip(given, wanted.items(), strict=True))
        return [to_device(gradient, like=like) for gradient in checked]

    return to_device(mine.array(y, shape, like.dtype), like=like), gradients


def _precision_recall(mine: Written) -> dict[str, Any]:
    def precision_recall(correct: Array, excused: Array, objects: int) -> tuple[Array, Array]:
        precision, recall = np.empty(correct.shape), np.empty(correct.shape)
        for i in np.ndindex(correct.shape[:-1]):
            result = mine(correct[i], excused[i], objects)
            if not isinstance(result, tuple | list) or len(result) != 2:
                raise mine.refuse("it should return two things, precision and recall")
            for out, curve, name in zip((precision, recall), result, ("precision", "recall"), strict=True):
                out[i] = mine.array(curve, correct[i].shape, out.dtype, what=name)
        return precision, recall

    return {"precision_recall": precision_recall}


def _average_precision(mine: Written) -> dict[str, Any]:
    def average_precision(precision: Array, recall: Array) -> float:
        return float(mine.array(mine(precision, recall), (), np.float64))

    return {"average_precision": average_precision}


class Form(NamedTuple):
    """Where the package has a function, how a reader's is called, and what takes the package's place."""

    module: str
    by_place: tuple[str, ...]
    by_name: tuple[str, ...]
    stand_ins: Callable[[Written], dict[str, Any]]


_ROI_OPTIONS = ("output_size", "spatial_scale", "sampling_ratio", "aligned")
FORMS = {
    "box_iou": Form(".boxes", ("a", "b"), (), _box_iou),
    "nms": Form(".nms", ("boxes", "scores", "iou_threshold"), (), _nms),
    "cell_anchors": Form(".rpn.anchors", ("sizes", "aspect_ratios"), (), _cell_anchors),
    "place_anchors": Form(".rpn.anchors", ("cell", "grid_size", "image_size"), (), _place_anchors),
    "match": Form(".matching", ("iou",), ("high", "low", "allow_low_quality"), _match),
    "encode_boxes": Form(".boxes", ("targets", "references", "weights"), (), _box_coder),
    "decode_boxes": Form(".boxes", ("deltas", "references", "weights"), (), _box_coder),
    "conv2d": Form(".ops.conv", ("x", "weight", "bias"), ("stride", "padding"), _conv2d),
    "roi_align": Form(".ops.roi_align", ("features", "boxes", "batch_indices"), _ROI_OPTIONS, _roi_align),
    "cross_entropy": Form(".ops.losses", ("logits", "labels"), (), _cross_entropy),
    "precision_recall": Form(".evaluation", ("correct", "excused", "objects"), (), _precision_recall),
    "average_precision": Form(".evaluation", ("precision", "recall"), (), _average_precision),
}
"""Every function that can be replaced, by name."""
