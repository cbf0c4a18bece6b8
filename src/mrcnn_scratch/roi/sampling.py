"""What the heads should say about each proposal: made on the host, where the labels are."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .. import ops
from ..backend import Array
from ..boxes import box_iou, encode_boxes
from ..config import RoIConfig
from ..matching import leave_out, match, sample_balanced
from ..structures import Target


class RoITargets(NamedTuple):
    """The sampled proposals of a batch, and what is true of each. Host arrays."""

    boxes: Array  # (S, 4) in pixels
    image: Array  # (S,) int64, the image of each
    object: Array  # (S,) int64, its object in that image; -1 for background
    labels: Array  # (S,) int64, 0 for background
    deltas: Array  # (S, 4) from the proposal to its object; 0 for background

    @property
    def positives(self) -> Array:
        """(P,) indices of those that are objects."""
        return np.flatnonzero(self.labels > 0)


def roi_targets(
    proposals: Sequence[Array], targets: Sequence[Target], config: RoIConfig, rng: np.random.Generator
) -> RoITargets:
    """Match proposals with objects, and sample a few at 1 positive to 3 negatives (Mask R-CNN, section 3.1).

    The objects' own boxes join the proposals, so that the heads have something to learn from before the RPN does.

    Args:
        proposals: per image (K, 4), in pixels.
        targets: per image.
        config: threshold, number of samples, scale of the deltas.
        rng: chooses the sample.
    """
    parts = []
    for i, (boxes, target) in enumerate(zip(proposals, targets, strict=True)):
        true_boxes = target.boxes.astype(boxes.dtype)
        boxes = np.concatenate([boxes, true_boxes])
        matched = match(
            box_iou(true_boxes, boxes),
            high=config.positive_iou,
            low=config.positive_iou,
            allow_low_quality=False,
        )
        matched = leave_out(matched, boxes, target.ignore)
        chosen = sample_balanced(matched, size=config.samples, positive_fraction=config.positive_fraction, rng=rng)
        boxes, matched = boxes[chosen], matched[chosen]
        positive = matched >= 0
        labels = np.zeros(len(chosen), np.int64)
        labels[positive] = target.labels[matched[positive]]
        deltas = np.zeros((len(chosen), 4), boxes.dtype)
        deltas[positive] = encode_boxes(true_boxes[matched[positive]], boxes[positive], config.box_weights)
        parts.append((boxes, np.full(len(chosen), i), matched, labels, deltas))
    return RoITargets(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def mask_targets(sample: RoITargets, targets: Sequence[Target], resolution: int) -> Array:
    """Each positive's object, cut out by its proposal and resampled (Mask R-CNN, section 3.1).

    Args:
        sample: what :func:`roi_targets` made.
        targets: per image, masks (G, H, W).
        resolution: 28, the side of the mask head's output.

    Returns:
        (P, resolution, resolution) in [0, 1], of the boxes' dtype: RoI Align of the masks, whose edges come out soft.
    """
    positives = sample.positives
    out = np.zeros((len(positives), resolution, resolution), sample.boxes.dtype)
    sizes = [target.masks.shape[1:] for target in targets]
    for size in dict.fromkeys(sizes):  # images of one size are cut out in one go
        images = np.array([i for i, other in enumerate(sizes) if other == size])
        here = np.flatnonzero(np.isin(sample.image[positives], images))
        if not len(here):
            continue
        chosen = positives[here]
        masks = np.concatenate([targets[i].masks for i in images])  # (all their objects, H, W)
        first = np.cumsum([0, *(len(targets[i]) for i in images)])  # where each image's objects begin
        aligned, _ = ops.roi_align(
            masks.astype(sample.boxes.dtype)[..., None],
            sample.boxes[chosen],
            first[np.searchsorted(images, sample.image[chosen])] + sample.object[chosen],
            output_size=(resolution, resolution),
            spatial_scale=1.0,
            sampling_ratio=0,
        )
        out[here] = aligned[..., 0]
    return out
