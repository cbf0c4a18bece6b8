"""How wrong the heads were: class, box and mask (Mask R-CNN, section 3: ``L = L_cls + L_box + L_mask``)."""

from .. import ops
from ..backend import Array, array_module, to_device
from ..config import RoIConfig
from ..ops.contract import Backward
from .sampling import RoITargets


def box_losses(
    class_logits: Array, box_deltas: Array, targets: RoITargets, config: RoIConfig
) -> tuple[tuple[Array, Array], Backward]:
    """Cross-entropy over all RoIs, and smooth L1 on the true class's box over the positives / all (Fast R-CNN, eq. 1).

    Args:
        class_logits: (S, K + 1).
        box_deltas: (S, K + 1, 4).
        targets: the sample, S of them.
        config: for the smooth L1's beta.

    Returns:
        The losses ``(classifier, box)``, and ``backward(dclassifier, dbox) -> dclass_logits, dbox_deltas``.
    """
    xp = array_module(class_logits)
    samples = max(len(class_logits), 1)
    labels = to_device(targets.labels, like=class_logits)
    positives = to_device(targets.positives, like=class_logits)
    wanted = to_device(targets.deltas[targets.positives].astype(box_deltas.dtype), like=class_logits)
    true_class = (positives, labels[positives])
    loss_class, backward_class = ops.cross_entropy(class_logits, labels)
    loss_box, backward_box = ops.smooth_l1(box_deltas[true_class], wanted, beta=config.smooth_l1_beta)

    def backward(dloss_class: Array | float, dloss_box: Array | float) -> tuple[Array, Array]:
        ddeltas = xp.zeros_like(box_deltas)
        ddeltas[true_class] = backward_box(dloss_box / samples)
        return backward_class(dloss_class), ddeltas

    return (loss_class, loss_box / samples), backward


def mask_loss(mask_logits: Array, labels: Array, targets: Array) -> tuple[Array, Backward]:
    """Mean binary cross-entropy on the mask of the true class alone: the others are neither right nor wrong (section
    3).

    Args:
        mask_logits: (P, M, M, K + 1), of the positives.
        labels: (P,) int64, at least 1. Host array, like ``targets``.
        targets: (P, M, M) in [0, 1].

    Returns:
        The loss, and ``backward(dloss) -> dmask_logits``.
    """
    xp = array_module(mask_logits)
    of_class = xp.arange(mask_logits.shape[3]) == to_device(labels, like=mask_logits)[:, None]  # (P, K + 1)
    chosen = of_class.astype(mask_logits.dtype)[:, None, None]  # 1 on the true class's channel
    wanted = to_device(targets.astype(mask_logits.dtype), like=mask_logits)
    loss, backward_loss = ops.binary_cross_entropy_with_logits((mask_logits * chosen).sum(axis=3), wanted)

    def backward(dloss: Array | float) -> Array:
        return backward_loss(dloss)[..., None] * chosen

    return loss, backward
