"""Layers: what they hold, and that gradients of several uses add up."""

import gc
import weakref

import numpy as np
import pytest
from layercheck import check_layer, place
from reference import assert_close

from mrcnn_scratch import ops
from mrcnn_scratch.backend import to_host
from mrcnn_scratch.nn import (
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    FrozenBatchNorm2d,
    Layer,
    Linear,
    MaxPool2d,
    Parameter,
    ReLU,
    Sequential,
)

# By hand


def scalar_layer(xp, weight=3.0, bias=1.0):
    """``y = 3 x + 1`` as a Linear layer."""
    layer = place(Linear(1, 1, np.random.default_rng(0)), xp)
    layer.weight.value, layer.bias.value = xp.asarray([[weight]]), xp.asarray([bias])
    return layer


def test_a_layer_by_hand(xp):
    """y = 3 x + 1 at x = 2 is 7. With dL/dy = 10: dL/dx = 30, dL/dweight = 20, dL/dbias = 10."""
    layer = scalar_layer(xp)
    y, backward = layer(xp.asarray([[2.0]]))
    assert to_host(y).tolist() == [[7]]
    assert layer.weight.grad is None
    assert to_host(backward(xp.asarray([[10.0]]))).tolist() == [[30]]
    assert to_host(layer.weight.grad).tolist() == [[20]]
    assert to_host(layer.bias.grad).tolist() == [10]


def test_gradients_of_five_uses_add_up(xp):
    """As the RPN head on five levels: x = 1..5, dy = 1, so dL/dweight = 1 + 2 + 3 + 4 + 5 and dL/dbias = 5.

    All forwards run before any backward, and the backwards in another order: each still knows its own x.
    """
    layer = scalar_layer(xp)
    backwards = [layer(xp.asarray([[float(x)]]))[1] for x in (1, 2, 3, 4, 5)]
    for i in (2, 0, 4, 1, 3):
        assert to_host(backwards[i](xp.ones((1, 1)))).tolist() == [[3]]
    assert to_host(layer.weight.grad).tolist() == [[15]]
    assert to_host(layer.bias.grad).tolist() == [5]


def test_sequential_by_hand(xp):
    """relu(3 x + 1), then 2 h + 0: at x = 1 it is 8 with slope 6; at x = -1 the relu stops it."""
    layers = place(Sequential([scalar_layer(xp), ReLU(), scalar_layer(xp, 2.0, 0.0)]), xp)
    for x, wanted, slope in ((1.0, 8, 6), (-1.0, 0, 0)):
        y, backward = layers(xp.asarray([[x]]))
        assert to_host(y).tolist() == [[wanted]]
        assert to_host(backward(xp.ones((1, 1)))).tolist() == [[slope]]


def test_batch_norm_keeps_running_statistics(xp):
    """Channel values 1, 3: mean 2, variance 1, and with n - 1 below the line 2. A tenth of each is taken over.

    The mean goes 0 -> 0.2 -> 0.38, the variance 1 -> 0.9 + 0.2 = 1.1 -> 0.99 + 0.2 = 1.19.
    """
    layer = place(BatchNorm2d(1), xp)
    x = xp.asarray([1.0, 3.0]).reshape(1, 1, 2, 1)
    y, _ = layer(x)
    assert_close(y, np.array([-1.0, 1]).reshape(1, 1, 2, 1) / np.sqrt(1 + 1e-5))
    assert_close(layer.mean.value, [0.2])
    assert_close(layer.var.value, [1.1])
    layer(x)
    assert_close(layer.mean.value, [0.38])
    assert_close(layer.var.value, [1.19])


def test_batch_norm_of_a_single_pixel_is_its_bias(xp):
    """n - 1 is 0: no division by it, and the variance stays a number."""
    layer = place(BatchNorm2d(1), xp)
    y, _ = layer(xp.asarray([5.0]).reshape(1, 1, 1, 1))
    assert to_host(y).item() == 0
    assert_close(layer.var.value, [0.9])


def test_batch_norm_in_inference_uses_the_running_statistics(xp):
    """(7 - 3) / sqrt(4) * 5 + 1 = 11, whatever else is in the batch; the statistics stay."""
    for kind, training in ((BatchNorm2d, False), (FrozenBatchNorm2d, False), (FrozenBatchNorm2d, True)):
        layer = place(kind(1, eps=0.0), xp)
        layer.set_training(training)
        arrays = (layer.weight, 5.0), (layer.bias, 1.0), (layer.mean, 3.0), (layer.var, 4.0)
        for array, value in arrays:
            array.value = xp.asarray([value])
        y, _ = layer(xp.asarray([7.0, 100.0]).reshape(1, 1, 2, 1))
        assert to_host(y)[0, 0, 0, 0] == 11
        assert [to_host(array.value).item() for array, _ in arrays] == [5, 1, 3, 4]


def test_frozen_batch_norm_learns_scale_and_shift(xp):
    """y = (x - 3) / 2 * weight + bias at x = 7: dy/dx = weight / 2, dy/dweight = 2, dy/dbias = 1."""
    layer = place(FrozenBatchNorm2d(1, eps=0.0), xp)
    layer.weight.value, layer.mean.value, layer.var.value = (xp.asarray([v]) for v in (5.0, 3.0, 4.0))
    _, backward = layer(xp.full((1, 1, 1, 1), 7.0))
    assert to_host(backward(xp.ones((1, 1, 1, 1)))).item() == 2.5
    assert [to_host(p.grad).item() for p in (layer.weight, layer.bias)] == [2, 1]


# Names


class Tower(Layer):
    def __init__(self):
        rng = np.random.default_rng(0)
        self.first = Linear(1, 1, rng)
        self.levels = [Linear(1, 1, rng), Sequential([ReLU(), BatchNorm2d(1)])]
        self.nothing = None
        self.width = 3


def test_arrays_are_named_by_where_they_are_held():
    names = [name for name, _ in Tower().named_arrays()]
    assert names == [
        "first.weight",
        "first.bias",
        "levels.0.weight",
        "levels.0.bias",
        "levels.1.1.weight",
        "levels.1.1.bias",
        "levels.1.1.mean",
        "levels.1.1.var",
    ]
    assert [name for name, _ in Tower().named_parameters()] == names[:6]


def test_a_convolution_without_bias_has_none():
    layer = Conv2d(2, 3, 3, np.random.default_rng(0), bias=False)
    assert [name for name, _ in layer.named_arrays()] == ["weight"]


def test_weight_decay_is_for_weights():
    decays = {name: parameter.decay for name, parameter in Tower().named_parameters()}
    assert [name for name, decay in decays.items() if decay] == ["first.weight", "levels.0.weight"]


def test_set_training_reaches_every_layer():
    tower = Tower()
    batch_norm = tower.levels[1].layers[1]
    assert not batch_norm.training
    tower.set_training(True)
    assert all(layer.training for layer in (tower, tower.first, tower.levels[0], batch_norm))
    tower.set_training(False)
    assert not batch_norm.training


# Inference


def test_inference_refuses_a_backward(xp):
    layer = scalar_layer(xp)
    layer.set_training(False)
    _, backward = layer(xp.ones((1, 1)))
    with pytest.raises(RuntimeError, match=r"set_training\(True\)"):
        backward(xp.ones((1, 1)))


class Spy(Layer):
    """A layer whose backward closes over an object of its own, which can be watched."""

    def forward(self, x):
        kept = Parameter(x)
        self.watched = weakref.ref(kept)
        return x, lambda dy: (kept, dy)[1]


@pytest.mark.parametrize("training", [True, False])
def test_inference_keeps_nothing_alive(xp, training):
    spies = [Spy(), Spy()]
    network = Sequential(spies)
    network.set_training(training)
    y, backward = network(xp.ones(1))
    alive = [spy.watched() is not None for spy in spies]
    assert alive == [training, training]
    del y, backward
    gc.collect()
    assert [spy.watched() for spy in spies] == [None, None]


def test_a_backward_runs_once(xp):
    _, backward = scalar_layer(xp)(xp.ones((1, 1)))
    backward(xp.ones((1, 1)))
    with pytest.raises(RuntimeError, match="twice"):
        backward(xp.ones((1, 1)))


# Every layer is its operation, and its gradients are right


def layers(rng):
    return {
        "conv": (Conv2d(2, 3, 3, rng), (2, 5, 4, 2)),
        "conv with stride": (Conv2d(2, 3, 3, rng, stride=2), (2, 5, 4, 2)),
        "conv without bias": (Conv2d(2, 3, 1, rng, bias=False), (2, 5, 4, 2)),
        "transposed conv": (ConvTranspose2d(2, 3, 2, rng), (2, 3, 4, 2)),
        "linear": (Linear(4, 3, rng), (5, 4)),
        "batch norm": (BatchNorm2d(3), (2, 3, 4, 3)),
        "frozen batch norm": (FrozenBatchNorm2d(3), (2, 3, 4, 3)),
        "max pool": (MaxPool2d(3, 2, 1), (1, 5, 4, 2)),
        "relu": (ReLU(), (3, 4)),
        "conv, norm, relu": (Sequential([Conv2d(2, 3, 3, rng, bias=False), BatchNorm2d(3), ReLU()]), (2, 4, 4, 2)),
    }


@pytest.mark.parametrize("name", layers(np.random.default_rng(0)))
def test_gradients(xp, rng, name):
    layer, shape = layers(rng)[name]
    check_layer(layer, [rng.normal(size=shape)], rng, xp=xp)


def test_a_layer_pads_so_that_size_stays(xp, rng):
    for kernel in (1, 3, 5, 7):
        y, _ = place(Conv2d(1, 1, kernel, rng), xp)(xp.ones((1, 9, 8, 1)))
        assert y.shape == (1, 9, 8, 1)


def test_a_layer_is_its_operation(xp, rng):
    layer = place(Conv2d(2, 3, 3, rng, stride=2), xp)
    layer.bias.value = xp.asarray(rng.normal(size=3))
    x = xp.asarray(rng.normal(size=(2, 5, 4, 2)))
    expected, _ = ops.conv2d(x, layer.weight.value, layer.bias.value, stride=2, padding=1)
    assert_close(layer(x)[0], to_host(expected))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_follows_the_arrays(xp, rng, dtype):
    network, shape = layers(rng)["conv, norm, relu"]
    place(network, xp, dtype)
    y, backward = network(xp.asarray(rng.normal(size=shape), dtype=dtype))
    dx = backward(xp.ones(y.shape, dtype=dtype))
    assert {y.dtype, dx.dtype, *(p.grad.dtype for _, p in network.named_parameters())} == {np.dtype(dtype)}
    assert {array.value.dtype for _, array in network.named_arrays()} == {np.dtype(dtype)}


def test_the_abstract_layer_has_no_forward():
    with pytest.raises(NotImplementedError):
        Layer()(1)
