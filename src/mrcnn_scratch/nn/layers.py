"""The layers: each holds the arrays of one operation and calls it."""

import numpy as np

from .. import ops
from ..backend import Array
from ..ops.contract import Backward
from .init import he_normal
from .parameter import Buffer, Layer, Parameter


class Conv2d(Layer):
    """:func:`ops.conv2d` with its weight (KH, KW, C, F) and bias (F,). (N, H, W, C) to (N, OH, OW, F)."""

    def __init__(
        self,
        channels: int,
        features: int,
        kernel_size: int,
        rng: np.random.Generator,
        *,
        stride: int = 1,
        bias: bool = True,
        input_gradient: bool = True,
    ) -> None:
        self.weight = Parameter(he_normal((kernel_size, kernel_size, channels, features), rng))
        self.bias = Parameter(np.zeros(features, np.float32), decay=False) if bias else None
        self.stride = stride
        self.padding = kernel_size // 2
        self.input_gradient = input_gradient

    def forward(self, x: Array) -> tuple[Array, Backward]:
        bias = None if self.bias is None else self.bias.value
        y, backward = ops.conv2d(
            x,
            self.weight.value,
            bias,
            stride=self.stride,
            padding=self.padding,
            input_gradient=self.input_gradient,
        )
        return y, adding_gradients(backward, self.weight, self.bias)


class ConvTranspose2d(Layer):
    """:func:`ops.conv_transpose2d` with weight (K, K, C, F), bias (F,), stride K: (N, H, W, C) to (N, K H, K W, F)."""

    def __init__(self, channels: int, features: int, kernel_size: int, rng: np.random.Generator) -> None:
        fan_in = channels  # each output pixel is made from one input pixel
        self.weight = Parameter(he_normal((kernel_size, kernel_size, channels, features), rng, fan_in))
        self.bias = Parameter(np.zeros(features, np.float32), decay=False)
        self.stride = kernel_size

    def forward(self, x: Array) -> tuple[Array, Backward]:
        y, backward = ops.conv_transpose2d(x, self.weight.value, self.bias.value, stride=self.stride)
        return y, adding_gradients(backward, self.weight, self.bias)


class Linear(Layer):
    """:func:`ops.linear` with its weight (D, F) and bias (F,). (R, D) to (R, F)."""

    def __init__(self, inputs: int, features: int, rng: np.random.Generator) -> None:
        self.weight = Parameter(he_normal((inputs, features), rng))
        self.bias = Parameter(np.zeros(features, np.float32), decay=False)

    def forward(self, x: Array) -> tuple[Array, Backward]:
        y, backward = ops.linear(x, self.weight.value, self.bias.value)
        return y, adding_gradients(backward, self.weight, self.bias)


class BatchNorm2d(Layer):
    """:func:`ops.batch_norm` while training, with running statistics kept for inference."""

    momentum = 0.1
    """Share of the newest batch in the running statistics (PyTorch's convention)."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        self.weight = Parameter(np.ones(channels, np.float32), decay=False)
        self.bias = Parameter(np.zeros(channels, np.float32), decay=False)
        self.mean = Buffer(np.zeros(channels, np.float32))
        self.var = Buffer(np.ones(channels, np.float32))
        self.eps = eps

    def forward(self, x: Array) -> tuple[Array, Backward]:
        weight, bias = self.weight.value, self.bias.value
        if not self.training:
            return ops.frozen_batch_norm(x, weight, bias, self.mean.value, self.var.value, eps=self.eps)
        (y, mean, var), backward = ops.batch_norm(x, weight, bias, eps=self.eps)
        count = x.size // x.shape[-1]
        unbiased = var * (count / max(count - 1, 1))
        self.mean.value = (1 - self.momentum) * self.mean.value + self.momentum * mean
        self.var.value = (1 - self.momentum) * self.var.value + self.momentum * unbiased
        return y, adding_gradients(backward, self.weight, self.bias)


class FrozenBatchNorm2d(BatchNorm2d):
    """:func:`ops.frozen_batch_norm`: the statistics stay as they are; the scale and shift are learned."""

    def forward(self, x: Array) -> tuple[Array, Backward]:
        arrays = (self.weight.value, self.bias.value, self.mean.value, self.var.value)
        y, backward = ops.frozen_batch_norm(x, *arrays, eps=self.eps)
        return y, adding_gradients(backward, self.weight, self.bias)


class ReLU(Layer):
    """:func:`ops.relu`, any shape."""

    def forward(self, x: Array) -> tuple[Array, Backward]:
        return ops.relu(x)


class MaxPool2d(Layer):
    """:func:`ops.max_pool2d`: (N, H, W, C) to (N, OH, OW, C)."""

    def __init__(self, kernel_size: int, stride: int, padding: int) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Array) -> tuple[Array, Backward]:
        return ops.max_pool2d(x, kernel_size=self.kernel_size, stride=self.stride, padding=self.padding)


def adding_gradients(backward: Backward, *parameters: Parameter | None) -> Backward:
    """A backward that adds the gradients of ``parameters`` to them and returns the input's alone."""

    def add_and_return_dx(dy: Array) -> Array:
        dx, *gradients = backward(dy)
        for parameter, gradient in zip((p for p in parameters if p is not None), gradients, strict=True):
            parameter.add_grad(gradient)
        return dx

    return add_and_return_dx
