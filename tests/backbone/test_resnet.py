"""The bottom-up network."""

import numpy as np
import pytest
from layercheck import check_layer, place
from reference import assert_close

from mrcnn_scratch.backbone.resnet import ConvNorm, ResidualBlock, ResNet
from mrcnn_scratch.backend import to_host
from mrcnn_scratch.config import BackboneConfig, StageConfig

WIDTHS = {"basic": (4, 4), "bottleneck": (2, 8)}


def config(block="basic", *, pool=False, norm="batch", blocks=(1, 2, 1, 1)):
    stages = tuple(StageConfig(count, *(w * 2**i for w in WIDTHS[block])) for i, count in enumerate(blocks))
    return BackboneConfig(block, 4, 7 if pool else 3, pool, stages, norm)


def block(kind, stride, norm="batch", channels=8, rng=None):
    rng = np.random.default_rng(0) if rng is None else rng
    return ResidualBlock(channels, StageConfig(1, WIDTHS[kind][0], 8), stride, config(kind, norm=norm), rng)


def randomise(layer, rng):
    """Statistics, scales and shifts as after some training."""
    for name, array in layer.named_arrays():
        if array.value.ndim == 1:
            size = array.value.shape
            array.value = rng.uniform(0.5, 2, size) if "var" in name else rng.normal(1, 0.3, size)
    return layer


# By hand


def test_a_block_whose_branch_is_silent_is_the_relu_of_its_input(xp):
    """With weights of 0 the branch gives 0, and the identity is what is left; its gradient passes where x > 0."""
    layer = place(block("basic", 1, channels=8), xp)
    for name, array in layer.named_arrays():
        if name.endswith("conv.weight"):
            array.value = xp.zeros(array.value.shape)
    x = np.array([1.0, -2, 3, -4, 5, -6, 7, -8]).reshape(1, 1, 1, 8)
    y, backward = layer(xp.asarray(x))
    assert to_host(y).ravel().tolist() == [1, 0, 3, 0, 5, 0, 7, 0]
    assert to_host(backward(xp.ones((1, 1, 1, 8)))).ravel().tolist() == [1, 0, 1, 0, 1, 0, 1, 0]


def test_folding_by_hand(xp):
    """x = 2, W = 3, mean 4, var 1/4, scale 5, shift 6: (2 * 3 - 4) / 0.5 * 5 + 6 = 26; folded 2 * 30 - 34 = 26."""
    layer = place(ConvNorm(1, 1, 1, 1, BackboneConfig(norm_eps=0.0), np.random.default_rng(0), relu=True), xp)
    for array, value in (
        (layer.conv.weight, [[[[3.0]]]]),
        (layer.norm.mean, [4.0]),
        (layer.norm.var, [0.25]),
        (layer.norm.weight, [5.0]),
        (layer.norm.bias, [6.0]),
    ):
        array.value = xp.asarray(value)
    layer.set_training(False)
    assert to_host(layer(xp.full((1, 1, 1, 1), 2.0))[0]).item() == 26


# Shapes and strides


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
@pytest.mark.parametrize("training", [False, True])
def test_shapes(xp, kind, pool, training):
    network = place(ResNet(config(kind, pool=pool), np.random.default_rng(0)), xp, np.float32)
    network.set_training(training)
    features, _ = network(xp.ones((2, 64, 96, 3), dtype=np.float32))
    first = WIDTHS[kind][1]
    assert [f.shape for f in features] == [
        (2, 64 // stride, 96 // stride, first * stride // 4) for stride in (4, 8, 16, 32)
    ]
    assert {f.dtype for f in features} == {np.dtype(np.float32)}


@pytest.mark.parametrize(("kind", "strided"), [("basic", 0), ("bottleneck", 1)])
def test_the_stride_is_on_the_first_3x3(kind, strided):
    branch = block(kind, 2).branch.layers
    assert [conv.conv.stride for conv in branch] == [2 if i == strided else 1 for i in range(len(branch))]
    assert branch[strided].conv.weight.value.shape[:2] == (3, 3)


def test_a_shortcut_convolves_only_where_the_shape_changes():
    assert block("basic", 1, channels=8).shortcut is None
    assert block("basic", 2, channels=8).shortcut is not None
    assert block("basic", 1, channels=4).shortcut is not None


def test_only_the_last_relu_comes_after_the_sum():
    assert [conv.relu for conv in block("bottleneck", 2).branch.layers] == [True, True, False]
    assert not block("bottleneck", 2).shortcut.relu


def test_the_first_stage_keeps_the_size_after_a_pool():
    strides = {pool: ResNet(config(pool=pool), np.random.default_rng(0)).stages for pool in (True, False)}
    assert strides[True][0].layers[0].branch.layers[0].conv.stride == 1
    assert strides[False][0].layers[0].branch.layers[0].conv.stride == 2
    assert [block.branch.layers[0].conv.stride for block in strides[True][1].layers] == [2, 1]


# Gradients


@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_block_gradients(xp, rng, kind, stride, norm):
    layer = randomise(block(kind, stride, norm), rng)
    check_layer(layer, [rng.normal(size=(2, 5, 4, 8))], rng, xp=xp)


@pytest.mark.parametrize("pool", [False, True])
def test_network_gradients(xp, rng, pool):
    """Through all stages to every parameter. The image gets no gradient: nobody learns it."""
    network = ResNet(config("bottleneck", pool=pool, blocks=(1, 1, 1, 1), norm="frozen"), rng)
    image = rng.normal(size=(1, 33, 30, 3))

    def call():
        features, backward = network(xp.asarray(image))
        return features, lambda dy: [] if backward(dy) is None else pytest.fail("a gradient for the image")

    check_layer(network, [], rng, xp=xp, call=call)


# Inference


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_folded_equals_unfolded(xp, rng, kind):
    """In inference norms are folded into convolutions. With frozen statistics training does not fold."""
    network = place(randomise(ResNet(config(kind, norm="frozen"), rng), rng), xp)
    x = xp.asarray(rng.normal(size=(1, 32, 64, 3)))
    unfolded, _ = network(x)
    network.set_training(False)
    for folded, expected in zip(network(x)[0], unfolded, strict=True):
        assert_close(folded, to_host(expected), 1e-10)


def test_batch_norm_moves_its_statistics_in_training_only(xp, rng):
    network = place(ResNet(config(), rng), xp)
    x = xp.asarray(rng.normal(size=(1, 32, 32, 3)))
    before = to_host(network.stem.norm.mean.value).copy()
    network.set_training(False)
    network(x)
    assert np.array_equal(to_host(network.stem.norm.mean.value), before)
    network.set_training(True)
    network(x)
    assert not np.array_equal(to_host(network.stem.norm.mean.value), before)
