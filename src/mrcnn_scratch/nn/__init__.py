"""Layers: thin holders of parameters around the operations."""

from .layers import (
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    FrozenBatchNorm2d,
    Linear,
    MaxPool2d,
    ReLU,
    adding_gradients,
)
from .parameter import Buffer, Layer, Parameter, Sequential

__all__ = [
    "BatchNorm2d",
    "Buffer",
    "Conv2d",
    "ConvTranspose2d",
    "FrozenBatchNorm2d",
    "Layer",
    "Linear",
    "MaxPool2d",
    "Parameter",
    "ReLU",
    "Sequential",
    "adding_gradients",
]
