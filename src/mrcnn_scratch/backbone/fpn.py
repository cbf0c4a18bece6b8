"""The feature pyramid: strong features at every scale (Lin et al. 2017)."""

import math

import numpy as np

from .. import ops
from ..backend import Array, array_module
from ..nn import Conv2d, Layer
from ..nn.init import normal
from ..ops.contract import Backward


class FPN(Layer):
    """C2..C5 to P2..P6, all with the same number of channels (section 3, figure 3).

    From the top down: ``M5 = lateral(C5)``, ``Mi = lateral(Ci) + upsample(Mi+1)``, and ``Pi = output(Mi)``. P6, which
    only the region proposal network uses, is every second pixel of P5 (section 4.1, footnote 2).
    """

    def __init__(self, in_channels: list[int], channels: int, rng: np.random.Generator) -> None:
        self.lateral: list[Layer] = [Conv2d(c, channels, 1, rng) for c in in_channels]
        self.output: list[Layer] = [Conv2d(channels, channels, 3, rng) for _ in in_channels]
        for conv in [*self.lateral, *self.output]:  # no ReLU follows, so half of He's variance
            assert isinstance(conv, Conv2d)
            shape = conv.weight.value.shape
            conv.weight.value = normal(shape, 1 / math.sqrt(math.prod(shape[:-1])), rng)

    def forward(self, features: list[Array]) -> tuple[list[Array], Backward]:
        merged, backward_down = self._top_down(features)
        pyramid, backward_outputs = [], []
        for conv, level in zip(self.output, merged, strict=True):
            y, backward = conv(level)
            pyramid.append(y)
            backward_outputs.append(backward)
        top = pyramid[-1]
        pyramid.append(top[:, ::2, ::2])

        def backward_through_all(dpyramid: list[Array]) -> list[Array]:
            *dlevels, dextra = dpyramid
            dtop = array_module(top).zeros(top.shape, dtype=top.dtype)
            dtop[:, ::2, ::2] = dextra
            dlevels[-1] = dlevels[-1] + dtop
            dmerged = [backward(dy) for backward, dy in zip(backward_outputs, dlevels, strict=True)]
            dfeatures: list[Array] = backward_down(dmerged)
            return dfeatures

        return pyramid, backward_through_all

    def _top_down(self, features: list[Array]) -> tuple[list[Array], Backward]:
        """The maps M2..M5, finest first."""
        merged: list[Array] = []
        steps: list[tuple[Backward, Backward | None]] = []  # per level: of the lateral, and of the upsampling into it
        for conv, feature in zip(reversed(self.lateral), reversed(features), strict=True):
            level, backward_lateral = conv(feature)
            backward_up = None
            if merged:
                above, backward_up = ops.upsample_nearest(merged[-1], level.shape[1:3])
                level = level + above
            merged.append(level)
            steps.append((backward_lateral, backward_up))

        def backward(dmerged: list[Array]) -> list[Array]:
            dfeatures = []
            dfrom_below = 0
            for (backward_lateral, backward_up), dlevel in zip(reversed(steps), dmerged, strict=True):
                dlevel = dlevel + dfrom_below
                dfeatures.append(backward_lateral(dlevel))
                dfrom_below = backward_up(dlevel) if backward_up is not None else 0
            return dfeatures

        return merged[::-1], backward
