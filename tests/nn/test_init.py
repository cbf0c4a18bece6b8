"""Initial weights. They are made on the host, whatever the network runs on later."""

import math

import numpy as np
import pytest
from layercheck import place
from reference import assert_close

from mrcnn_scratch.backend import to_host
from mrcnn_scratch.nn import Conv2d, ConvTranspose2d, Linear
from mrcnn_scratch.nn.init import he_normal, normal


def test_he_by_hand():
    """A 3x3 convolution over 8 channels adds up 72 inputs: variance 2 / 72, a standard deviation of 1/6."""
    drawn = np.random.default_rng(0).standard_normal((3, 3, 8, 4))
    assert_close(he_normal((3, 3, 8, 4), np.random.default_rng(0)), (drawn / 6).astype(np.float32))


def test_he_with_its_own_fan_in():
    """2 / 8 is a standard deviation of 1/2."""
    drawn = np.random.default_rng(0).standard_normal((2, 2, 8, 4))
    assert_close(he_normal((2, 2, 8, 4), np.random.default_rng(0), fan_in=8), (drawn / 2).astype(np.float32))


def test_normal_by_hand():
    drawn = np.random.default_rng(0).standard_normal((5, 3))
    assert_close(normal((5, 3), 0.01, np.random.default_rng(0)), (drawn * 0.01).astype(np.float32))


@pytest.mark.parametrize("make", [he_normal, lambda shape, rng: normal(shape, 1.0, rng)])
def test_same_seed_same_float32(make):
    first, again, other = (make((4, 5), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.dtype == np.float32
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("kind", ["linear", "conv", "transposed conv"])
def test_relu_of_a_layer_keeps_the_size_of_a_signal(xp, kind, rng):
    """What He's variance is for: the mean square after layer and ReLU is the one before."""
    layer, shape = {
        "linear": (Linear(64, 512, rng), (200, 64)),
        "conv": (Conv2d(16, 128, 3, rng), (1, 20, 20, 16)),
        "transposed conv": (ConvTranspose2d(64, 128, 2, rng), (1, 10, 10, 64)),
    }[kind]
    x = np.abs(rng.standard_normal(shape)).astype(np.float32)
    y = to_host(place(layer, xp, np.float32)(xp.asarray(x))[0])
    y = y[:, 1:-1, 1:-1] if kind == "conv" else y  # at the border a convolution sees padding
    assert math.isclose(np.mean(np.maximum(y, 0) ** 2), np.mean(x**2), rel_tol=0.15)
    assert not to_host(layer.bias.value).any()
