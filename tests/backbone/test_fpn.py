"""The feature pyramid."""

import numpy as np
import pytest
from layercheck import check_layer, place
from reference import assert_close

from mrcnn_scratch.backbone import FPN
from mrcnn_scratch.backend import to_host

# By hand


def transparent(xp, levels):
    """A pyramid of one channel whose convolutions hand on what they are given: what is left is the top-down sum."""
    pyramid = place(FPN([1] * levels, 1, np.random.default_rng(0)), xp)
    for conv in pyramid.lateral:
        conv.weight.value = xp.ones((1, 1, 1, 1))
    for conv in pyramid.output:
        middle = np.zeros((3, 3, 1, 1))
        middle[1, 1] = 1
        conv.weight.value = xp.asarray(middle)
    return pyramid


def maps(xp, *arrays):
    return [xp.asarray(np.asarray(a, float))[None, :, :, None] for a in arrays]


def test_the_top_down_sum(xp):
    """C4 = 100 and C3 = 10, 20 and C2 = 1..8: each pixel of a coarse level is added to the four below it."""
    features = maps(xp, [[1, 2, 3, 4], [5, 6, 7, 8]], [[10, 20]], [[100]])
    pyramid, backward = transparent(xp, 3)(features)
    p2, p3, p4, p5 = (to_host(level)[0, :, :, 0].tolist() for level in pyramid)
    assert p4 == [[100]]
    assert p3 == [[110, 120]]
    assert p2 == [[111, 112, 123, 124], [115, 116, 127, 128]]
    assert p5 == [[100]]  # every second pixel of the coarsest
    # One more on C4 is one more on all of them: 8 pixels of P2, 2 of P3, 1 of P4, 1 of the extra level.
    dc2, dc3, dc4 = backward([xp.ones(level.shape) for level in pyramid])
    assert to_host(dc4).item() == 8 + 2 + 1 + 1
    assert to_host(dc3).ravel().tolist() == [4 + 1] * 2
    assert to_host(dc2).ravel().tolist() == [1] * 8


def test_the_extra_level_is_every_second_pixel_of_the_last(xp):
    last = np.arange(15).reshape(3, 5)
    pyramid, backward = transparent(xp, 1)(maps(xp, last))
    assert to_host(pyramid[1])[0, :, :, 0].tolist() == [[0, 2, 4], [10, 12, 14]]
    dlast = backward([xp.zeros((1, 3, 5, 1)), xp.ones((1, 2, 3, 1))])[0]
    assert to_host(dlast)[0, :, :, 0].tolist() == [[1, 0, 1, 0, 1], [0] * 5, [1, 0, 1, 0, 1]]


# Shapes, gradients

CHANNELS = [2, 3, 4, 5]
SIZES = [(11, 9), (6, 5), (3, 3), (2, 2)]  # halved and rounded up, as strided convolutions do


def test_shapes(xp, rng):
    pyramid = place(FPN(CHANNELS, 6, rng), xp, np.float32)
    features = [xp.ones((2, *s, c), dtype=np.float32) for s, c in zip(SIZES, CHANNELS, strict=True)]
    levels, _ = pyramid(features)
    assert [level.shape for level in levels] == [(2, *size, 6) for size in [*SIZES, (1, 1)]]
    assert {level.dtype for level in levels} == {np.dtype(np.float32)}


def test_gradients(xp, rng):
    pyramid = FPN(CHANNELS, 3, rng)
    features = [rng.normal(size=(1, *s, c)) for s, c in zip(SIZES, CHANNELS, strict=True)]
    check_layer(pyramid, features, rng, xp=xp, call=lambda *arrays: pyramid(list(arrays)))


def test_a_planted_error_is_caught(xp, rng):
    """Forget the gradient that comes down from the finer levels, and the check must object."""
    pyramid = FPN([2, 3], 3, rng)
    features = [rng.normal(size=(1, 4, 4, 2)), rng.normal(size=(1, 2, 2, 3))]

    def call(*arrays):
        levels, backward = pyramid(list(arrays))

        def wrong(dlevels):
            fine, _ = backward(dlevels)
            _, coarse = pyramid(list(arrays))[1]([xp.zeros_like(dlevels[0]), *dlevels[1:]])
            return fine, coarse

        return levels, wrong

    with pytest.raises(AssertionError, match="gradient 1"):
        check_layer(pyramid, features, rng, xp=xp, call=call)


def test_images_of_a_batch_do_not_meet(xp, rng):
    pyramid = place(FPN(CHANNELS, 3, rng), xp)
    pyramid.set_training(False)
    features = [rng.normal(size=(2, *s, c)) for s, c in zip(SIZES, CHANNELS, strict=True)]
    together = pyramid([xp.asarray(f) for f in features])[0]
    alone = pyramid([xp.asarray(f[1:]) for f in features])[0]
    for both, one in zip(together, alone, strict=True):
        assert_close(both[1:], to_host(one), 1e-10)
