"""The mask head: which pixels of the RoI are the object's, for each class on its own?"""

import numpy as np

from .. import ops
from ..backend import Array
from ..config import RoIConfig
from ..nn import Conv2d, ConvTranspose2d, Layer, ReLU, Sequential
from ..nn.init import normal
from ..ops.contract import Backward


class MaskHead(Layer):
    """3x3 convolutions, a transposed one that doubles the resolution, a 1x1 to one mask per class (Mask R-CNN, figure
    4).

    Each class has its own mask and its own sigmoid, so classes do not compete for pixels; which class it is, the box
    head says.
    """

    def __init__(self, channels: int, classes: int, config: RoIConfig, rng: np.random.Generator) -> None:
        layers: list[Layer] = []
        for features in config.mask_head:
            layers += [Conv2d(channels, features, 3, rng), ReLU()]
            channels = features
        self.convolutions = Sequential(layers)
        self.replace_predictor(channels, channels, classes, rng)

    def replace_predictor(self, channels: int, hidden: int, classes: int, rng: np.random.Generator) -> None:
        """New outputs for ``classes``. Background has a mask too, as in torchvision, but it is never used."""
        self.upsample = ConvTranspose2d(channels, hidden, 2, rng)
        self.logits = Conv2d(hidden, classes + 1, 1, rng)
        self.logits.weight.value = normal(self.logits.weight.value.shape, 0.01, rng)

    def forward(self, pooled: Array) -> tuple[Array, Backward]:
        """Pooled features (R, 14, 14, C) to mask logits (R, 28, 28, K + 1)."""
        hidden, backward_convolutions = self.convolutions(pooled)
        hidden, backward_upsample = self.upsample(hidden)
        hidden, backward_relu = ops.relu(hidden)
        logits, backward_logits = self.logits(hidden)

        def backward(dlogits: Array) -> Array:
            return backward_convolutions(backward_upsample(backward_relu(backward_logits(dlogits))))

        return logits, backward
