"""What a network is made of: arrays that are learned, arrays that are only kept, and the layers that hold them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from ..backend import Array, load_cupy, to_device, to_host
from ..errors import InputError
from ..ops.contract import Backward, Once


class Parameter:
    """An array that is learned.

    Attributes:
        value: the array. An optimiser replaces it.
        grad: gradient of the loss, of the same shape; None before the first backward.
        decay: whether weight decay pulls on it (not on norms and biases).
        trainable: a frozen parameter is left as it is by the optimiser.
    """

    def __init__(self, value: Array, *, decay: bool = True) -> None:
        self.value = value
        self.grad: Array | None = None
        self.decay = decay
        self.trainable = True

    def add_grad(self, gradient: Array) -> None:
        """Add a gradient to those already there: a layer that is used five times gets five."""
        self.grad = gradient if self.grad is None else self.grad + gradient


class Buffer:
    """An array that is part of the network but not learned by gradients: BatchNorm's running statistics."""

    def __init__(self, value: Array) -> None:
        self.value = value


class Layer:
    """Holds parameters and other layers as attributes, and maps an input to an output by :meth:`forward`.

    Calling the layer returns ``(y, backward)``. ``backward(dy)`` adds to the parameters' ``grad`` and returns the
    gradient of the input. In inference (``training`` False) the backward refuses, and everything it closed over is
    freed at once.
    """

    training = False

    def forward(self, x: Any) -> tuple[Any, Backward]:
        """``(y, backward)``; what a subclass writes."""
        raise NotImplementedError

    def __call__(self, x: Any) -> tuple[Any, Backward]:
        y, backward = self.forward(x)
        return y, Once(backward) if self.training else _no_backward

    def children(self) -> Iterator[tuple[str, Any]]:
        """``(name, child)``: parameters, buffers and layers held as attributes, lists numbered from 0."""
        for name, child in vars(self).items():
            if isinstance(child, Parameter | Buffer | Layer):
                yield name, child
            elif isinstance(child, list):
                yield from ((f"{name}.{i}", item) for i, item in enumerate(child))

    def named_arrays(self, prefix: str = "") -> Iterator[tuple[str, Parameter | Buffer]]:
        """``(dotted name, parameter or buffer)`` of this layer and of all below it."""
        for name, child in self.children():
            if isinstance(child, Layer):
                yield from child.named_arrays(f"{prefix}{name}.")
            else:
                yield prefix + name, child

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """``(dotted name, parameter)``, without the buffers."""
        return ((name, array) for name, array in self.named_arrays() if isinstance(array, Parameter))

    def apply(self, change: Callable[["Layer"], None]) -> None:
        """Call ``change`` on this layer and on all below it."""
        change(self)
        for _, child in self.children():
            if isinstance(child, Layer):
                child.apply(change)

    def set_training(self, training: bool) -> None:
        """Whether backwards are kept, and BatchNorm uses the batch's own statistics."""

        def change(layer: Layer) -> None:
            layer.training = training

        self.apply(change)

    def state(self) -> dict[str, Array]:
        """Every array by its dotted name, as host arrays."""
        return {name: to_host(array.value) for name, array in self.named_arrays()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over arrays by name, in the layer's own kind and dtype.

        Raises:
            InputError: a name is missing or unknown, or a shape differs.
        """
        own = dict(self.named_arrays())
        for problem, names in (
            ("lacks", own.keys() - state.keys()),
            ("has unknown", state.keys() - own.keys()),
        ):
            if names:
                raise InputError(f"the state {problem} {', '.join(sorted(names)[:3])} ({len(names)} in all)")
        for name, array in own.items():
            if state[name].shape != array.value.shape:
                raise InputError(f"{name} has shape {state[name].shape}, this network needs {array.value.shape}")
        for name, array in own.items():
            array.value = to_device(state[name], like=array.value).astype(array.value.dtype)

    def astype(self, dtype: Any) -> Self:
        """This layer with arrays of ``dtype``: float64 to check gradients."""
        for _, array in self.named_arrays():
            array.value = array.value.astype(dtype)
        return self

    def to(self, device: str) -> Self:
        """This layer with its arrays on ``device``, "cpu" or "gpu".

        Raises:
            InputError: there is no GPU, or no CuPy.
        """
        move = load_cupy().asarray if device == "gpu" else to_host
        for _, array in self.named_arrays():
            array.value = move(array.value)
        return self


class Sequential(Layer):
    """Layers one after the other."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)

    def children(self) -> Iterator[tuple[str, Any]]:
        """Its layers, named by their numbers alone."""
        return ((str(i), layer) for i, layer in enumerate(self.layers))

    def forward(self, x: Array) -> tuple[Array, Backward]:
        """``x`` through every layer; the backward goes through theirs in reverse."""
        backwards = []
        for layer in self.layers:
            x, backward = layer(x)
            backwards.append(backward)

        def backward_through_all(dy: Array) -> Array:
            for backward in reversed(backwards):
                dy = backward(dy)
            return dy

        return x, backward_through_all


def _no_backward(*_: Any) -> Any:
    raise RuntimeError("this forward pass ran in inference and kept nothing for a backward: set_training(True) first")
