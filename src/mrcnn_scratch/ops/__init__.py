"""The differentiable operations. Each returns its output and its own backward; see :mod:`.contract`."""

from .activation import relu, sigmoid
from .conv import conv2d, conv_transpose2d
from .linear import linear
from .losses import binary_cross_entropy_with_logits, cross_entropy, smooth_l1, softmax
from .normalization import batch_norm, frozen_batch_norm
from .pooling import max_pool2d
from .resample import upsample_nearest
from .roi_align import roi_align

__all__ = [
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "conv2d",
    "conv_transpose2d",
    "cross_entropy",
    "frozen_batch_norm",
    "linear",
    "max_pool2d",
    "relu",
    "roi_align",
    "sigmoid",
    "smooth_l1",
    "softmax",
    "upsample_nearest",
]
