"""The bottom-up pathway: a residual network that hands out the features of its four stages."""

import numpy as np

from .. import ops
from ..backend import Array
from ..config import BackboneConfig, StageConfig
from ..nn import BatchNorm2d, Conv2d, FrozenBatchNorm2d, Layer, MaxPool2d, ReLU, Sequential
from ..ops.contract import Backward


class ResidualBlock(Layer):
    """``y = relu(branch(x) + shortcut(x))`` (He et al. 2016, eq. 1-2 and figure 5).

    The branch is two 3x3 convolutions (basic) or 1x1, 3x3, 1x1 (bottleneck; the stride is on the 3x3, as in
    torchvision). The shortcut is the identity, or a 1x1 convolution where the shape changes.
    """

    def __init__(
        self, channels: int, stage: StageConfig, stride: int, config: BackboneConfig, rng: np.random.Generator
    ) -> None:
        if config.block == "basic":
            shapes = [(channels, stage.inner, 3, stride), (stage.inner, stage.out, 3, 1)]
        else:
            shapes = [
                (channels, stage.inner, 1, 1),
                (stage.inner, stage.inner, 3, stride),
                (stage.inner, stage.out, 1, 1),
            ]
        layers: list[Layer] = []
        for c, f, kernel, step in shapes:
            layers += [*convolution_and_norm(c, f, kernel, step, config, rng), ReLU()]
        self.branch = Sequential(layers[:-1])  # the last ReLU comes after the addition
        changes_shape = stride != 1 or channels != stage.out
        self.shortcut = Sequential(
            convolution_and_norm(channels, stage.out, 1, stride, config, rng) if changes_shape else []
        )

    def forward(self, x: Array) -> tuple[Array, Backward]:
        branch, backward_branch = self.branch(x)
        shortcut, backward_shortcut = self.shortcut(x)
        y, backward_relu = ops.relu(branch + shortcut)

        def backward(dy: Array) -> Array:
            dsum = backward_relu(dy)
            return backward_branch(dsum) + backward_shortcut(dsum)

        return y, backward


class ResNet(Layer):
    """Images (N, H, W, 3) to the features C2, C3, C4, C5 of strides 4, 8, 16, 32 (FPN, section 3)."""

    def __init__(self, config: BackboneConfig, rng: np.random.Generator) -> None:
        stem: list[Layer] = convolution_and_norm(3, config.stem_channels, config.stem_kernel, 2, config, rng)
        stem.append(ReLU())
        if config.stem_pool:
            stem.append(MaxPool2d(kernel_size=3, stride=2, padding=1))
        self.stem = Sequential(stem)
        self.stages: list[Layer] = []
        channels = config.stem_channels
        for i, stage in enumerate(config.stages):
            stride = 1 if i == 0 and config.stem_pool else 2
            blocks = []
            for _ in range(stage.blocks):
                blocks.append(ResidualBlock(channels, stage, stride, config, rng))
                channels, stride = stage.out, 1
            self.stages.append(Sequential(blocks))

    def forward(self, x: Array) -> tuple[list[Array], Backward]:
        x, backward_stem = self.stem(x)
        features, backwards = [], []
        for stage in self.stages:
            x, backward = stage(x)
            features.append(x)
            backwards.append(backward)

        def backward_through_all(dfeatures: list[Array]) -> Array:
            # Each stage's output goes up to the next stage and out to the pyramid: the two gradients add.
            dx = dfeatures[-1]
            for i in reversed(range(len(backwards))):
                dx = backwards[i](dx)
                if i > 0:
                    dx = dx + dfeatures[i - 1]
            return backward_stem(dx)

        return features, backward_through_all


def convolution_and_norm(
    channels: int, features: int, kernel: int, stride: int, config: BackboneConfig, rng: np.random.Generator
) -> list[Layer]:
    """A convolution without bias (the norm has one) and its normalisation."""
    norm = FrozenBatchNorm2d if config.norm == "frozen" else BatchNorm2d
    return [
        Conv2d(channels, features, kernel, rng, stride=stride, bias=False),
        norm(features, config.norm_eps),
    ]
