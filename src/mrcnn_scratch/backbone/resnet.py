"""The bottom-up pathway: a residual network that hands out the features of its four stages."""

import numpy as np

from .. import ops
from ..backend import Array, array_module
from ..config import BackboneConfig, StageConfig
from ..nn import BatchNorm2d, Conv2d, FrozenBatchNorm2d, Layer, MaxPool2d, Sequential
from ..ops.contract import Backward


class ConvNorm(Layer):
    """A convolution without bias (the norm has one), its normalisation, and a ReLU if asked for."""

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: int,
        stride: int,
        config: BackboneConfig,
        rng: np.random.Generator,
        *,
        relu: bool,
    ) -> None:
        norm = FrozenBatchNorm2d if config.norm == "frozen" else BatchNorm2d
        self.conv = Conv2d(channels, features, kernel, rng, stride=stride, bias=False)
        self.norm = norm(features, config.norm_eps)
        self.relu = relu

    def forward(self, x: Array) -> tuple[Array, Backward]:
        if not self.training:
            return self._folded(x)
        y, backward_conv = self.conv(x)
        y, backward_norm = self.norm(y)
        if not self.relu:
            return y, lambda dy: backward_conv(backward_norm(dy))
        y, backward_relu = ops.relu(y)
        return y, lambda dy: backward_conv(backward_norm(backward_relu(dy)))

    def _folded(self, x: Array) -> tuple[Array, Backward]:
        """With constant statistics the norm is a scale and a shift: they go into the weight and bias beforehand.

        ``(x * W - mean) s + b = x * (W s) + (b - mean s)`` with ``s = weight / sqrt(var + eps)``: one pass over the
        features less.
        """
        xp = array_module(x)
        scale = self.norm.weight.value / xp.sqrt(self.norm.var.value + self.norm.eps)
        shift = self.norm.bias.value - self.norm.mean.value * scale
        y, backward = ops.conv2d(
            x, self.conv.weight.value * scale, shift, stride=self.conv.stride, padding=self.conv.padding
        )
        return ops.relu(y) if self.relu else (y, backward)


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
        last = len(shapes) - 1  # its ReLU comes after the addition
        self.branch = Sequential([ConvNorm(*shape, config, rng, relu=i < last) for i, shape in enumerate(shapes)])
        changes_shape = stride != 1 or channels != stage.out
        self.shortcut = ConvNorm(channels, stage.out, 1, stride, config, rng, relu=False) if changes_shape else None

    def forward(self, x: Array) -> tuple[Array, Backward]:
        branch, backward_branch = self.branch(x)
        shortcut, backward_shortcut = (x, None) if self.shortcut is None else self.shortcut(x)
        y, backward_relu = ops.relu(branch + shortcut)

        def backward(dy: Array) -> Array:
            dsum = backward_relu(dy)
            dshortcut = dsum if backward_shortcut is None else backward_shortcut(dsum)
            return backward_branch(dsum) + dshortcut

        return y, backward


class ResNet(Layer):
    """Images (N, H, W, 3) to the features C2, C3, C4, C5 of strides 4, 8, 16, 32 (FPN, section 3)."""

    def __init__(self, config: BackboneConfig, rng: np.random.Generator) -> None:
        self.stem = ConvNorm(3, config.stem_channels, config.stem_kernel, 2, config, rng, relu=True)
        self.stem.conv.input_gradient = False  # the image is not learned
        self.pool = MaxPool2d(kernel_size=3, stride=2, padding=1) if config.stem_pool else None
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
        backward_pool = None
        if self.pool is not None:
            x, backward_pool = self.pool(x)
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
            return backward_stem(dx if backward_pool is None else backward_pool(dx))

        return features, backward_through_all
