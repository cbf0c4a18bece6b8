"""The box head."""

import numpy as np
from layercheck import check_layer, place

from mrcnn_scratch.backend import to_host
from mrcnn_scratch.config import RoIConfig
from mrcnn_scratch.roi import BoxHead

CONFIG = RoIConfig(box_resolution=2, box_head=(5, 4))

# By hand


def test_class_by_class(xp):
    """One pooled pixel of 1, one hidden unit that doubles it; logits 1, 2 times that, deltas 1 .. 8 times that."""
    head = BoxHead(1, 1, RoIConfig(box_resolution=1, box_head=(1,)), np.random.default_rng(0))
    place(head, xp)
    head.fully_connected.layers[0].weight.value = xp.asarray([[2.0]])
    head.class_logits.weight.value = xp.asarray([[1.0, 2]])
    head.box_deltas.weight.value = xp.asarray([np.arange(1.0, 9)])
    (logits, deltas), backward = head(xp.ones((1, 1, 1, 1)))
    assert to_host(logits).tolist() == [[2, 4]]
    assert to_host(deltas).tolist() == [[[2, 4, 6, 8], [10, 12, 14, 16]]]
    # dL/dhidden = 1 * 1 from the first logit, 3 * 8 from the last delta; dL/dx is twice the sum.
    dlogits, ddeltas = xp.asarray([[1.0, 0]]), np.zeros((1, 2, 4))
    ddeltas[0, 1, 3] = 3
    assert to_host(backward(dlogits, xp.asarray(ddeltas))).tolist() == [[[[2 * (1 + 24)]]]]


# Shapes, gradients


def test_shapes(xp, rng):
    """Three classes make four logits: background is label 0."""
    head = place(BoxHead(3, 3, RoIConfig(), rng), xp, np.float32)
    (logits, deltas), _ = head(xp.ones((6, 7, 7, 3), dtype=np.float32))
    assert logits.shape == (6, 4)
    assert deltas.shape == (6, 4, 4)
    assert {logits.dtype, deltas.dtype} == {np.dtype(np.float32)}


def test_no_regions(xp, rng):
    head = place(BoxHead(3, 3, CONFIG, rng), xp)
    (logits, deltas), backward = head(xp.ones((0, 2, 2, 3)))
    assert (logits.shape, deltas.shape) == ((0, 4), (0, 4, 4))
    assert backward(logits, deltas).shape == (0, 2, 2, 3)
    assert not any(to_host(parameter.grad).any() for _, parameter in head.named_parameters())


def test_gradients(xp, rng):
    head = BoxHead(3, 2, CONFIG, rng)

    def call(pooled):
        outputs, backward = head(pooled)
        return outputs, lambda dy: backward(*dy)

    check_layer(head, [rng.normal(size=(4, 2, 2, 3))], rng, xp=xp, call=call)


def test_new_classes_keep_the_body(xp, rng):
    head = BoxHead(3, 2, CONFIG, rng)
    body = head.fully_connected.layers[0].weight.value
    head.replace_predictor(4, 7, rng)
    assert head.fully_connected.layers[0].weight.value is body
    (logits, deltas), _ = place(head, xp)(xp.ones((2, 2, 2, 3)))
    assert (logits.shape, deltas.shape) == ((2, 8), (2, 8, 4))
