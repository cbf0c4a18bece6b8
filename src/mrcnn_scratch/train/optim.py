"""Stochastic gradient descent with momentum and weight decay, and gradient clipping."""

import math
from collections.abc import Iterable

from ..backend import Array, array_module
from ..nn import Parameter


class SGD:
    """``v <- momentum v + (g + weight_decay p)``; ``p <- p - lr v`` (PyTorch's form of Sutskever et al. 2013).

    Args:
        parameters: ``(name, parameter)``; those that are frozen are left out.
        momentum: share of the old velocity that stays.
        weight_decay: pull towards 0, for parameters whose ``decay`` is set.
    """

    def __init__(self, parameters: Iterable[tuple[str, Parameter]], *, momentum: float, weight_decay: float) -> None:
        self.parameters = {name: p for name, p in parameters if p.trainable}
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.velocity = {name: array_module(p.value).zeros_like(p.value) for name, p in self.parameters.items()}

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def step(self, lr: float, scale: float = 1.0) -> None:
        """Move every parameter that has a gradient; gradients are multiplied by ``scale`` first."""
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            velocity = self.velocity[name]
            velocity *= self.momentum
            velocity += parameter.grad * scale
            if self.weight_decay and parameter.decay:
                velocity += self.weight_decay * parameter.value
            parameter.value = parameter.value - lr * velocity


def gradient_norm(parameters: Iterable[Parameter]) -> float:
    """Euclidean length of all gradients together, as if they were one long vector."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    return math.sqrt(sum(_squares(g) for g in gradients))


def clip_scale(norm: float, max_norm: float) -> float:
    """The factor that shortens gradients of length ``norm`` to at most ``max_norm`` (Pascanu et al. 2013)."""
    return min(1.0, max_norm / norm) if norm > 0 else 1.0


def _squares(gradient: Array) -> Array:
    flat = gradient.reshape(-1)
    return array_module(gradient).dot(flat, flat)
