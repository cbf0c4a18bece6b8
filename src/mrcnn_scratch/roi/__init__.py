"""The heads that look at each region of interest: what is it, where exactly, which pixels?"""

from .box_head import BoxHead
from .loss import box_losses, mask_loss
from .mask_head import MaskHead
from .pooler import pool
from .postprocess import BoxDetections, box_detections, mask_probabilities, paste_in_parts, paste_masks
from .sampling import RoITargets, mask_targets, roi_targets

__all__ = [
    "BoxDetections",
    "BoxHead",
    "MaskHead",
    "RoITargets",
    "box_detections",
    "box_losses",
    "mask_loss",
    "mask_probabilities",
    "mask_targets",
    "paste_in_parts",
    "paste_masks",
    "pool",
    "roi_targets",
]
