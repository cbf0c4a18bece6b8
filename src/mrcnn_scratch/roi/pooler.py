"""RoI Align over a pyramid: each box reads the one level that fits its size."""

import math
from collections.abc import Sequence

from .. import ops
from ..backend import Array, array_module, to_device, to_host
from ..boxes import box_area
from ..config import RoIConfig
from ..ops.contract import Backward, differentiable


@differentiable
def pool(
    features: Sequence[Array],
    boxes: Array,
    batch_indices: Array,
    *,
    image_size: tuple[int, int],
    resolution: int,
    config: RoIConfig,
) -> tuple[Array, Backward]:
    """RoI-align every box on its level (Mask R-CNN, section 3.1; FPN, section 4.2).

    Args:
        features: P2..P5, each (N, H_l, W_l, C).
        boxes: (R, 4) in pixels.
        batch_indices: (R,) int64, the image of each box.
        image_size: (height, width) in pixels of what the levels were made from: the largest image of the batch.
        resolution: bins per side.
        config: sampling ratio, and which size reads which level.

    Returns:
        ``y`` (R, resolution, resolution, C) and ``backward(dy) -> [dP2, ..., dP5]``.
    """
    xp = array_module(boxes)
    scales = [spatial_scale(level.shape[1:3], image_size) for level in features]
    levels = to_host(assign_levels(boxes, scales, config))
    y = xp.zeros((len(boxes), resolution, resolution, features[0].shape[3]), dtype=features[0].dtype)
    used = []
    for i, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        here = (levels == i).nonzero()[0]
        if not len(here):
            continue
        chosen = to_device(here, like=boxes)
        aligned, backward_level = ops.roi_align(
            feature,
            boxes[chosen],
            batch_indices[chosen],
            output_size=(resolution, resolution),
            spatial_scale=scale,
            sampling_ratio=config.sampling_ratio,
        )
        y[chosen] = aligned
        used.append((i, chosen, backward_level))

    shapes = [level.shape for level in features]

    def backward(dy: Array) -> list[Array]:
        dfeatures = [None] * len(shapes)
        for i, chosen, backward_level in used:
            dfeatures[i] = backward_level(dy[chosen])
        return [xp.zeros(shape, dtype=dy.dtype) if d is None else d for d, shape in zip(dfeatures, shapes, strict=True)]

    return y, backward


def spatial_scale(grid_size: tuple[int, int], image_size: tuple[int, int]) -> float:
    """Size of a level over size of the image, rounded to a power of two (the division by strides rounds up)."""
    return float(2.0 ** round(math.log2(grid_size[0] / image_size[0])))


def assign_levels(boxes: Array, scales: list[float], config: RoIConfig) -> Array:
    """Which level each box reads: ``floor(k0 + log2(sqrt(area) / 224))``, clamped to those there are (FPN, eq. 1).

    Args:
        boxes: (R, 4) in pixels.
        scales: spatial scale of each level, finest first.
        config: k0 (canonical level) and the 224 (canonical size).

    Returns:
        (R,) int64, 0 for the finest level. The 1e-6 settles exact powers of two in float32, as in torchvision.
    """
    xp = array_module(boxes)
    finest, coarsest = (-math.log2(scale) for scale in (scales[0], scales[-1]))
    size = xp.sqrt(xp.maximum(box_area(boxes), xp.finfo(boxes.dtype).tiny))
    level = xp.floor(config.canonical_level + xp.log2(size / config.canonical_size) + 1e-6)
    return (xp.clip(level, finest, coarsest) - finest).astype(xp.int64)
