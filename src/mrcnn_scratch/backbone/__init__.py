"""From an image to a pyramid of feature maps."""

from .fpn import FPN
from .resnet import ResNet

__all__ = ["FPN", "ResNet"]
