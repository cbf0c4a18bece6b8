"""The mask head."""

import numpy as np
from layercheck import check_layer, place
from reference import assert_close

from mrcnn_scratch.backend import to_host
from mrcnn_scratch.config import RoIConfig
from mrcnn_scratch.roi import MaskHead

CONFIG = RoIConfig(mask_head=(3, 4))

# By hand


def test_every_pixel_becomes_four(xp):
    """No convolutions; the transposed one makes 1, 2, -3, 4 of a pixel of 1, the ReLU drops -3, class 1 is ten-fold."""
    head = place(MaskHead(1, 1, RoIConfig(mask_head=()), np.random.default_rng(0)), xp)
    head.upsample.weight.value = xp.asarray(np.array([1.0, 2, -3, 4]).reshape(2, 2, 1, 1))
    head.logits.weight.value = xp.asarray(np.array([1.0, 10]).reshape(1, 1, 1, 2))
    logits, backward = head(xp.asarray(np.array([1.0, 5]).reshape(1, 1, 2, 1)))
    assert to_host(logits)[0, :, :, 0].tolist() == [[1, 2, 5, 10], [0, 4, 0, 20]]
    assert to_host(logits)[0, :, :, 1].tolist() == [[10, 20, 50, 100], [0, 40, 0, 200]]
    # Each pixel was read by 1 + 2 + 4 in class 0 and ten times that in class 1.
    assert to_host(backward(xp.ones((1, 2, 4, 2)))).ravel().tolist() == [77, 77]


# Shapes, gradients


def test_shapes(xp, rng):
    head = place(MaskHead(3, 2, RoIConfig(mask_head=(4, 4)), rng), xp, np.float32)
    logits, _ = head(xp.ones((2, 14, 14, 3), dtype=np.float32))
    assert logits.shape == (2, 28, 28, 3)
    assert logits.dtype == np.float32


def test_no_regions(xp, rng):
    head = place(MaskHead(3, 2, CONFIG, rng), xp)
    logits, backward = head(xp.ones((0, 14, 14, 3)))
    assert logits.shape == (0, 28, 28, 3)
    assert backward(logits).shape == (0, 14, 14, 3)


def test_gradients(xp, rng):
    check_layer(MaskHead(2, 2, CONFIG, rng), [rng.normal(size=(2, 3, 4, 2))], rng, xp=xp)


def test_classes_have_weights_of_their_own(xp, rng):
    """Another weight for class 2 changes the mask of class 2 alone."""
    head = place(MaskHead(2, 2, CONFIG, rng), xp)
    pooled = xp.asarray(rng.normal(size=(1, 3, 3, 2)))
    before = to_host(head(pooled)[0])
    weight = to_host(head.logits.weight.value).copy()
    weight[..., 2] += 1
    head.logits.weight.value = xp.asarray(weight)
    after = to_host(head(pooled)[0])
    assert_close(after[..., :2], before[..., :2])
    assert np.abs(after[..., 2] - before[..., 2]).max() > 1e-3


def test_new_classes_keep_the_body(xp, rng):
    head = MaskHead(2, 2, CONFIG, rng)
    body = head.convolutions.layers[0].weight.value
    head.replace_predictor(4, 6, 5, rng)
    assert head.convolutions.layers[0].weight.value is body
    assert place(head, xp)(xp.ones((1, 2, 2, 2)))[0].shape == (1, 4, 4, 6)
