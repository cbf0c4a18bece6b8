"""What the region proposal network should have said, and how wrong it was."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .. import ops
from ..backend import Array, array_module, to_device
from ..boxes import box_iou, encode_boxes
from ..config import RPNConfig
from ..matching import leave_out, match, sample_balanced
from ..ops.contract import Backward
from ..structures import Target


class RPNTargets(NamedTuple):
    """The sampled anchors of a batch. Host arrays."""

    image: Array  # (S,) int64, the image of each sampled anchor
    anchor: Array  # (S,) int64
    objectness: Array  # (S,) 1 for an object, 0 for background
    deltas: Array  # (S, 4) from the anchor to its object; 0 for background


def rpn_targets(anchors: Array, targets: Sequence[Target], config: RPNConfig, rng: np.random.Generator) -> RPNTargets:
    """Match every anchor with the objects, and sample a balanced few (Faster R-CNN, sections 3.1.2 and 3.1.3).

    Made on the host, where the labels are: the GPU neither waits nor is waited for.

    Args:
        anchors: (A, 4) in pixels, of all levels.
        targets: per image, the objects.
        config: thresholds and numbers of samples.
        rng: chooses the sample.
    """
    parts = []
    for i, target in enumerate(targets):
        objects = target.boxes
        iou = box_iou(objects, anchors)
        matched = match(iou, high=config.positive_iou, low=config.negative_iou, allow_low_quality=True)
        matched = leave_out(matched, anchors, target.ignore)
        chosen = sample_balanced(matched, size=config.samples, positive_fraction=config.positive_fraction, rng=rng)
        objects_matched = matched[chosen]
        deltas = np.zeros((len(chosen), 4), anchors.dtype)
        positive = objects_matched >= 0
        deltas[positive] = encode_boxes(
            objects[objects_matched[positive]], anchors[chosen[positive]], (1.0, 1.0, 1.0, 1.0)
        )
        parts.append((np.full(len(chosen), i), chosen, positive.astype(anchors.dtype), deltas))
    return RPNTargets(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def rpn_losses(
    objectness: Array, deltas: Array, targets: RPNTargets, config: RPNConfig
) -> tuple[tuple[Array, Array], Backward]:
    """Faster R-CNN, eq. 1: binary cross-entropy over the sample, and smooth L1 over its positives / size of the sample.

    Args:
        objectness: (N, A) logits.
        deltas: (N, A, 4).
        targets: what :func:`rpn_targets` made.
        config: for the smooth L1's beta.

    Returns:
        The losses ``(objectness, box)``, and ``backward(dobjectness_loss, dbox_loss) -> dobjectness, ddeltas``.
    """
    xp = array_module(objectness)
    samples = max(len(targets.anchor), 1)
    chosen = (to_device(targets.image, like=objectness), to_device(targets.anchor, like=objectness))
    is_object = to_device(targets.objectness.astype(objectness.dtype), like=objectness)
    wanted = to_device(targets.deltas.astype(deltas.dtype), like=deltas)
    loss_objectness, backward_objectness = ops.binary_cross_entropy_with_logits(objectness[chosen], is_object)
    # Background has no box to learn: predict its target, and it costs nothing.
    predicted = deltas[chosen] * is_object[:, None]
    loss_box, backward_box = ops.smooth_l1(predicted, wanted, beta=config.smooth_l1_beta)

    def backward(dloss_objectness: Array | float, dloss_box: Array | float) -> tuple[Array, Array]:
        dobjectness, ddeltas = xp.zeros_like(objectness), xp.zeros_like(deltas)
        # An anchor is sampled at most once, so plain assignment is enough.
        dobjectness[chosen] = backward_objectness(dloss_objectness)
        ddeltas[chosen] = backward_box(dloss_box / samples) * is_object[:, None]
        return dobjectness, ddeltas

    return (loss_objectness, loss_box / samples), backward
