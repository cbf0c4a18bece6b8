"""The region proposal network's head: for every anchor, is it an object, and how should the box move?"""

import numpy as np

from .. import ops
from ..backend import Array, array_module
from ..nn import Conv2d, Layer
from ..nn.init import normal
from ..ops.contract import Backward


class RPNHead(Layer):
    """A 3x3 convolution, then two 1x1 ones beside each other, the same weights on every level (Faster R-CNN, figure
    3)."""

    def __init__(self, channels: int, anchors: int, rng: np.random.Generator) -> None:
        self.conv = Conv2d(channels, channels, 3, rng)
        self.objectness = Conv2d(channels, anchors, 1, rng)
        self.deltas = Conv2d(channels, 4 * anchors, 1, rng)
        for conv in (self.conv, self.objectness, self.deltas):  # section 3.1.3
            conv.weight.value = normal(conv.weight.value.shape, 0.01, rng)

    def forward(self, features: list[Array]) -> tuple[tuple[list[Array], list[Array]], Backward]:
        """P2..P6 to objectness logits, per level (N, H*W*A), and deltas, per level (N, H*W*A, 4).

        The backward takes the gradients of both lists and returns the list of the features'.
        """
        objectness, deltas, backwards = [], [], []
        for feature in features:
            (level_objectness, level_deltas), backward = self._level(feature)
            objectness.append(level_objectness)
            deltas.append(level_deltas)
            backwards.append(backward)

        def backward_through_all(dobjectness: list[Array], ddeltas: list[Array]) -> list[Array]:
            return [b(do, dd) for b, do, dd in zip(backwards, dobjectness, ddeltas, strict=True)]

        return (objectness, deltas), backward_through_all

    def _level(self, feature: Array) -> tuple[tuple[Array, Array], Backward]:
        hidden, backward_conv = self.conv(feature)
        hidden, backward_relu = ops.relu(hidden)
        objectness, backward_objectness = self.objectness(hidden)  # (N, H, W, A)
        deltas, backward_deltas = self.deltas(hidden)  # (N, H, W, 4 A)
        n = len(feature)

        def backward(dobjectness: Array, ddeltas: Array) -> Array:
            dhidden = backward_objectness(dobjectness.reshape(objectness.shape))
            dhidden += backward_deltas(ddeltas.reshape(deltas.shape))
            return backward_conv(backward_relu(dhidden))

        # Channels are last, so anchor by anchor is already the order in memory: no transpose.
        return (objectness.reshape(n, -1), deltas.reshape(n, -1, 4)), backward


def split_levels(x: Array, sizes: list[int]) -> list[Array]:
    """(N, A, ...) over all levels back to one array per level, of ``sizes`` anchors."""
    xp = array_module(x)
    return list(xp.split(x, np.cumsum(sizes)[:-1].tolist(), axis=1))
