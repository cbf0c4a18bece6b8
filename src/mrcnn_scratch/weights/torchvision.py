"""torchvision's Mask R-CNN weights in our network, and ours in its layout. No PyTorch is needed.

torchvision's names and axis orders are mapped one array at a time; the network's shape is read off the arrays.
"""

import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, to_device
from ..config import Config, config_from_dict
from ..errors import InputError
from ..files import write_atomically
from ..mask_rcnn import MaskRCNN
from .coco_names import COCO_CLASSES
from .torch_file import read_state_dict

OPTIONS = {
    "min_size": ("transform", "min_size"),
    "max_size": ("transform", "max_size"),
    "image_mean": ("transform", "mean"),
    "image_std": ("transform", "std"),
    "norm": ("backbone", "norm"),
    "norm_eps": ("backbone", "norm_eps"),
    "anchor_sizes": ("anchors", "sizes"),
    "aspect_ratios": ("anchors", "aspect_ratios"),
    "rpn_pre_nms_top_n_train": ("rpn", "pre_nms_train"),
    "rpn_pre_nms_top_n_test": ("rpn", "pre_nms_test"),
    "rpn_post_nms_top_n_train": ("rpn", "post_nms_train"),
    "rpn_post_nms_top_n_test": ("rpn", "post_nms_test"),
    "rpn_nms_thresh": ("rpn", "nms_iou"),
    "rpn_fg_iou_thresh": ("rpn", "positive_iou"),
    "rpn_bg_iou_thresh": ("rpn", "negative_iou"),
    "rpn_batch_size_per_image": ("rpn", "samples"),
    "rpn_positive_fraction": ("rpn", "positive_fraction"),
    "box_score_thresh": ("roi", "score_threshold"),
    "box_nms_thresh": ("roi", "nms_iou"),
    "box_detections_per_img": ("roi", "detections"),
    "box_fg_iou_thresh": ("roi", "positive_iou"),
    "box_batch_size_per_image": ("roi", "samples"),
    "box_positive_fraction": ("roi", "positive_fraction"),
    "bbox_reg_weights": ("roi", "box_weights"),
}
"""torchvision's names for what no state dict holds (``torchvision.models.detection.MaskRCNN``), and ours."""

DEFAULTS: dict[str, Any] = {
    "min_size": 800,
    "max_size": 1333,
    "anchor_sizes": [[32], [64], [128], [256], [512]],
    "rpn_pre_nms_top_n_train": 2000,
    "rpn_pre_nms_top_n_test": 1000,
    "rpn_post_nms_top_n_train": 2000,
    "rpn_post_nms_top_n_test": 1000,
    "rpn_batch_size_per_image": 256,
    "box_batch_size_per_image": 512,
}
"""torchvision's defaults, where they are not also those of the configuration ``shapes``."""

_OLD_NAMES: list[tuple[str, Any]] = [
    (r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)", r"\1.0.\2"),
    (r"rpn\.head\.conv\.(weight|bias)", r"rpn.head.conv.0.0.\1"),
    (r"roi_heads\.mask_head\.mask_fcn(\d+)\.(weight|bias)", lambda m: f"roi_heads.mask_head.{int(m[1]) - 1}.0.{m[2]}"),
]


class _Axes(NamedTuple):
    """Between torchvision's axis order and ours."""

    from_torch: Callable[[Array], Array]
    to_torch: Callable[[Array], Array]


_AS_IS = _Axes(lambda a: a, lambda a: a)
_CONV = _Axes(lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1))  # F, C, KH, KW and KH, KW, C, F
_CONV_TRANSPOSE = _Axes(lambda a: a.transpose(2, 3, 0, 1), lambda a: a.transpose(2, 3, 0, 1))  # C, F, KH, KW
_LINEAR = _Axes(lambda a: a.T, lambda a: a.T)


def load_torchvision(path: str | os.PathLike[str], **options: Any) -> MaskRCNN:
    """A Mask R-CNN with the weights of a torchvision ``.pth`` file (today's zip format or the older pickle stream).

    Depths, widths, classes and head sizes are read off the arrays. What no state dict holds is given as an option,
    under torchvision's name (see :data:`OPTIONS`), or has torchvision's default.

    Args:
        path: a state dict of ``torchvision.models.detection.MaskRCNN`` on a ResNet with FPN.
        options: of :data:`OPTIONS`, and ``classes``, the names of labels 1, 2, ... ``norm`` is ``frozen`` (constant
            statistics while training) or ``batch``. ``norm_eps`` is 0 for the file that torchvision publishes as
            COCO_V1, recognised by its name and its 91 classes, and 1e-5 for others.

    Raises:
        InputError: the file cannot be read, an array is missing or has another shape than the others imply, or there is
            no such option. Arrays that were not used are named in a warning.
    """
    path = Path(path)
    state = _with_new_names(read_state_dict(path))
    try:
        model = MaskRCNN(_config(path, state, options))
        _fill(model, state)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return model


def save_torchvision(model: MaskRCNN, path: str | os.PathLike[str]) -> None:
    """Write the network's arrays as an ``.npz`` under torchvision's names and in its axis order.

    PyTorch loads it into a ``torchvision.models.detection.MaskRCNN`` of the same shape by
    ``{k: torch.from_numpy(v) for k, v in np.load(path).items()}`` and ``load_state_dict``.
    """
    state = model.state()
    arrays = {
        key: np.ascontiguousarray(axes.to_torch(state[name])) for name, (key, axes) in torchvision_names(model).items()
    }
    write_atomically(Path(path), lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]


def torchvision_names(model: MaskRCNN) -> dict[str, tuple[str, _Axes]]:
    """For every array of ``model``: torchvision's name of it, and how their axes correspond."""
    bins, channels = model.config.roi.box_resolution, model.config.fpn_channels
    first_linear = _Axes(  # it flattens (C, 7, 7), we flatten (7, 7, C)
        lambda a: a.reshape(-1, channels, bins, bins).transpose(2, 3, 1, 0).reshape(-1, len(a)),
        lambda a: a.reshape(bins, bins, channels, -1).transpose(3, 2, 0, 1).reshape(a.shape[1], -1),
    )
    names = {}
    for name, array in model.named_arrays():
        key = _torchvision_name(name)
        axes = {1: _AS_IS, 2: _LINEAR, 4: _CONV}[array.value.ndim]
        if key == "roi_heads.box_head.fc6.weight":
            axes = first_linear
        elif key == "roi_heads.mask_predictor.conv5_mask.weight":
            axes = _CONV_TRANSPOSE
        names[name] = (key, axes)
    return names


def _torchvision_name(name: str) -> str:
    name = re.sub(r"norm\.(mean|var)$", r"norm.running_\1", name)
    for pattern, replacement in _NAMES:
        new, count = re.subn(pattern, replacement, name)
        if count:
            return new
    raise AssertionError(f"{name} has no name in torchvision")


_BODY = r"resnet\.stages\.(\d+)\.(\d+)\."
_NAMES: list[tuple[str, Any]] = [
    (r"^resnet\.stem\.conv\.", "backbone.body.conv1."),
    (r"^resnet\.stem\.norm\.", "backbone.body.bn1."),
    (rf"^{_BODY}branch\.(\d+)\.conv\.", lambda m: f"backbone.body.layer{int(m[1]) + 1}.{m[2]}.conv{int(m[3]) + 1}."),
    (rf"^{_BODY}branch\.(\d+)\.norm\.", lambda m: f"backbone.body.layer{int(m[1]) + 1}.{m[2]}.bn{int(m[3]) + 1}."),
    (rf"^{_BODY}shortcut\.conv\.", lambda m: f"backbone.body.layer{int(m[1]) + 1}.{m[2]}.downsample.0."),
    (rf"^{_BODY}shortcut\.norm\.", lambda m: f"backbone.body.layer{int(m[1]) + 1}.{m[2]}.downsample.1."),
    (r"^fpn\.lateral\.(\d+)\.", r"backbone.fpn.inner_blocks.\1.0."),
    (r"^fpn\.output\.(\d+)\.", r"backbone.fpn.layer_blocks.\1.0."),
    (r"^rpn_head\.conv\.", "rpn.head.conv.0.0."),
    (r"^rpn_head\.objectness\.", "rpn.head.cls_logits."),
    (r"^rpn_head\.deltas\.", "rpn.head.bbox_pred."),
    (r"^box_head\.fully_connected\.(\d+)\.", lambda m: f"roi_heads.box_head.fc{6 + int(m[1]) // 2}."),
    (r"^box_head\.class_logits\.", "roi_heads.box_predictor.cls_score."),
    (r"^box_head\.box_deltas\.", "roi_heads.box_predictor.bbox_pred."),
    (r"^mask_head\.convolutions\.(\d+)\.", lambda m: f"roi_heads.mask_head.{int(m[1]) // 2}.0."),
    (r"^mask_head\.upsample\.", "roi_heads.mask_predictor.conv5_mask."),
    (r"^mask_head\.logits\.", "roi_heads.mask_predictor.mask_fcn_logits."),
]


def _with_new_names(state: dict[str, Array]) -> dict[str, Array]:
    renamed = {}
    for key, array in state.items():
        for pattern, replacement in _OLD_NAMES:
            key = re.sub(f"^{pattern}$", replacement, key)
        renamed[key] = array
    return renamed


def _config(path: Path, state: dict[str, Array], options: dict[str, Any]) -> Config:
    """The configuration that the arrays' shapes and the options spell out."""
    labels = _shape(state, "roi_heads.box_predictor.cls_score.weight", 2)[0]  # background included
    classes = options.pop("classes", None) or _class_names(labels - 1)
    if len(classes) != labels - 1:
        raise InputError(f"{len(classes)} class names for a network of {labels - 1} classes")
    published = labels == len(COCO_CLASSES) and path.name.startswith("maskrcnn_resnet50_fpn_coco")
    tracked = "backbone.body.bn1.num_batches_tracked" in state  # BatchNorm counts batches, FrozenBatchNorm does not
    defaults = {**DEFAULTS, "norm": "batch" if tracked else "frozen", "norm_eps": 0.0 if published else 1e-5}
    values: dict[str, Any] = {
        "classes": list(classes),
        "backbone": _backbone(state),
        "fpn_channels": _shape(state, "rpn.head.conv.0.0.weight", 4)[0],
        "roi": {"box_head": _box_head(state), "mask_head": _mask_head(state)},
    }
    for option, value in {**defaults, **options}.items():
        if option not in OPTIONS:
            raise InputError(f"there is no option {option!r} (known: {', '.join(sorted([*OPTIONS, 'classes']))})")
        section, name = OPTIONS[option]
        values.setdefault(section, {})[name] = value
    return config_from_dict(values)


def _backbone(state: dict[str, Array]) -> dict[str, Any]:
    bottleneck = "backbone.body.layer1.0.conv3.weight" in state
    stem = _shape(state, "backbone.body.conv1.weight", 4)
    stages = []
    for i in range(1, 5):
        blocks = _count(state, rf"backbone\.body\.layer{i}\.(\d+)\.conv1\.weight")
        first = f"backbone.body.layer{i}.0."
        inner = _shape(state, f"{first}conv2.weight", 4)[1]
        out = _shape(state, f"{first}conv{3 if bottleneck else 2}.weight", 4)[0]
        stages.append({"blocks": blocks, "inner": inner, "out": out})
    return {
        "block": "bottleneck" if bottleneck else "basic",
        "stem_channels": stem[0],
        "stem_kernel": stem[2],
        "stem_pool": True,
        "stages": stages,
    }


def _box_head(state: dict[str, Array]) -> list[int]:
    count = _count(state, r"roi_heads\.box_head\.fc(\d+)\.weight")
    return [_shape(state, f"roi_heads.box_head.fc{6 + i}.weight", 2)[0] for i in range(count)]


def _mask_head(state: dict[str, Array]) -> list[int]:
    count = _count(state, r"roi_heads\.mask_head\.(\d+)\.0\.weight")
    return [_shape(state, f"roi_heads.mask_head.{i}.0.weight", 4)[0] for i in range(count)]


def _shape(state: dict[str, Array], key: str, axes: int) -> tuple[int, ...]:
    if key not in state:
        raise InputError(f"there is no array {key}: is this a torchvision Mask R-CNN on a ResNet with FPN?")
    if state[key].ndim != axes or 0 in state[key].shape:
        raise InputError(f"{key} has shape {state[key].shape}, but needs {axes} axes")
    return tuple(state[key].shape)


def _count(state: dict[str, Array], pattern: str) -> int:
    count = sum(re.fullmatch(pattern, key) is not None for key in state)
    if count == 0:
        raise InputError(f"there is no array like {pattern.replace(chr(92), '')}")
    return count


def _class_names(count: int) -> list[str]:
    return list(COCO_CLASSES[1:]) if count + 1 == len(COCO_CLASSES) else [f"class {i + 1}" for i in range(count)]


def _fill(model: MaskRCNN, state: dict[str, Array]) -> None:
    """Put every array in its place; name those that are missing, misshapen, or left over."""
    names = torchvision_names(model)
    for name, array in model.named_arrays():
        key, axes = names[name]
        if key not in state:
            raise InputError(f"there is no array {key}")
        expected = axes.to_torch(array.value).shape
        if state[key].shape != expected:
            raise InputError(f"{key} has shape {state[key].shape}, but the other arrays imply {expected}")
        array.value = to_device(np.ascontiguousarray(axes.from_torch(state[key]), dtype=np.float32), like=array.value)
    left = state.keys() - {key for key, _ in names.values()}
    left = {key for key in left if not key.endswith(".num_batches_tracked")}  # counts batches; no part in the network
    if left:
        warnings.warn(f"{len(left)} arrays were not used: {', '.join(sorted(left)[:5])}", stacklevel=3)
