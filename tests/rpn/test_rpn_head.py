"""The region proposal network's head."""

import numpy as np
from layercheck import check_layer, place
from reference import assert_close

from mrcnn_scratch.backend import to_host
from mrcnn_scratch.rpn import RPNHead
from mrcnn_scratch.rpn.head import split_levels

# By hand


def head_of_one_channel(xp):
    """The 3x3 convolution hands on its input; the logits of two anchors are h and 10 h, their deltas 1 h .. 8 h."""
    head = place(RPNHead(1, 2, np.random.default_rng(0)), xp)
    middle = np.zeros((3, 3, 1, 1))
    middle[1, 1] = 1
    head.conv.weight.value = xp.asarray(middle)
    head.objectness.weight.value = xp.asarray(np.array([1.0, 10]).reshape(1, 1, 1, 2))
    head.deltas.weight.value = xp.asarray(np.arange(1.0, 9).reshape(1, 1, 1, 8))
    return head


def test_order_is_row_column_anchor(xp):
    feature = xp.asarray(np.array([[1.0, 2], [3, -4]]).reshape(1, 2, 2, 1))
    ((objectness,), (deltas,)), _ = head_of_one_channel(xp)([feature])
    assert to_host(objectness).tolist() == [[1, 10, 2, 20, 3, 30, 0, 0]]  # the ReLU makes 0 of -4
    assert to_host(deltas)[0, :4].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [2, 4, 6, 8], [10, 12, 14, 16]]


def test_gradients_of_all_levels_add_up(xp):
    """Logits of anchor 0 are h: with dy = 1 on them, its weight's gradient is the sum of all h, 1 + 2 + 3 + 4 + 5."""
    head = head_of_one_channel(xp)
    levels = [xp.full((1, 1, 1, 1), float(i)) for i in (1, 2, 3, 4, 5)]
    _, backward = head(levels)
    dobjectness = [xp.asarray([[1.0, 0]])] * 5
    dlevels = backward(dobjectness, [xp.zeros((1, 2, 4))] * 5)
    assert to_host(head.objectness.weight.grad).ravel().tolist() == [15, 0]
    assert [to_host(d).item() for d in dlevels] == [1] * 5


def test_split_levels(xp):
    parts = split_levels(xp.arange(12).reshape(2, 6), [3, 1, 2])
    assert [to_host(part).tolist() for part in parts] == [[[0, 1, 2], [6, 7, 8]], [[3], [9]], [[4, 5], [10, 11]]]


# Shapes, gradients

SIZES = [(4, 5), (2, 3), (1, 1)]


def test_shapes(xp, rng):
    head = place(RPNHead(4, 3, rng), xp, np.float32)
    (objectness, deltas), _ = head([xp.ones((2, *size, 4), dtype=np.float32) for size in SIZES])
    counts = [3 * h * w for h, w in SIZES]
    assert [o.shape for o in objectness] == [(2, count) for count in counts]
    assert [d.shape for d in deltas] == [(2, count, 4) for count in counts]
    assert {a.dtype for a in [*objectness, *deltas]} == {np.dtype(np.float32)}


def test_gradients(xp, rng):
    """One set of weights on three levels: the check sees the sum of their gradients."""
    head = RPNHead(2, 2, rng)

    def call(*levels):
        (objectness, deltas), backward = head(list(levels))
        return [*objectness, *deltas], lambda dy: backward(dy[: len(levels)], dy[len(levels) :])

    check_layer(head, [rng.normal(size=(2, *size, 2)) for size in SIZES], rng, xp=xp, call=call)


def test_levels_do_not_meet(xp, rng):
    head = place(RPNHead(2, 2, rng), xp)
    levels = [xp.asarray(rng.normal(size=(2, *size, 2))) for size in SIZES]
    (together, _), _ = head(levels)
    for level, expected in zip(levels, together, strict=True):
        ((alone,), _), _ = head([level])
        assert_close(alone, to_host(expected))
