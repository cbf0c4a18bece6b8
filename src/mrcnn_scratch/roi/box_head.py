"""The box head: what is in the RoI, and how should its box move, for each class?"""

import math

import numpy as np

from ..backend import Array
from ..config import RoIConfig
from ..nn import Layer, Linear, ReLU, Sequential
from ..nn.init import normal
from ..ops.contract import Backward


class BoxHead(Layer):
    """Fully connected layers, then a classifier and a regressor beside each other (Mask R-CNN, figure 4 right)."""

    def __init__(self, channels: int, classes: int, config: RoIConfig, rng: np.random.Generator) -> None:
        layers: list[Layer] = []
        width = config.box_resolution**2 * channels
        for features in config.box_head:
            layers += [Linear(width, features, rng), ReLU()]
            width = features
        self.fully_connected = Sequential(layers)
        self.replace_predictor(width, classes, rng)

    def replace_predictor(self, width: int, classes: int, rng: np.random.Generator) -> None:
        """New outputs for ``classes`` (background not counted), on ``width`` hidden features."""
        self.class_logits = Linear(width, classes + 1, rng)
        self.box_deltas = Linear(width, 4 * (classes + 1), rng)
        self.class_logits.weight.value = normal((width, classes + 1), 0.01, rng)
        self.box_deltas.weight.value = normal((width, 4 * (classes + 1)), 0.001, rng)

    def forward(self, pooled: Array) -> tuple[tuple[Array, Array], Backward]:
        """Pooled features (R, 7, 7, C) to class logits (R, K + 1), background first, and deltas (R, K + 1, 4)."""
        hidden, backward_hidden = self.fully_connected(pooled.reshape(len(pooled), math.prod(pooled.shape[1:])))
        logits, backward_logits = self.class_logits(hidden)
        deltas, backward_deltas = self.box_deltas(hidden)

        def backward(dlogits: Array, ddeltas: Array) -> Array:
            dhidden = backward_logits(dlogits) + backward_deltas(ddeltas.reshape(deltas.shape))
            return backward_hidden(dhidden).reshape(pooled.shape)

        return (logits, deltas.reshape(len(pooled), logits.shape[1], 4)), backward
