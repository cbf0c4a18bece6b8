"""From the user's images to the network's input, and back."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_close, assert_library

from mrcnn_scratch.backend import to_host
from mrcnn_scratch.config import TransformConfig
from mrcnn_scratch.data.transforms import (
    check_images,
    check_target,
    make_batch,
    normalise,
    resize_bilinear,
    resize_boxes,
    resize_target,
    resized_size,
)
from mrcnn_scratch.errors import InputError
from mrcnn_scratch.structures import Target

PLAIN = TransformConfig(4, 8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), divisor=4)
"""Small images, and only the division by 255."""

# By hand


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1066)),  # the short side to 800: 640 * 800 / 480 = 1066.67, rounded down
        ((640, 480), (1066, 800)),
        ((300, 600), (666, 1333)),  # 800 would make the long side 1600, so that one decides: 1333
        ((800, 800), (800, 800)),
        ((1, 5000), (1, 1333)),  # never less than a pixel
    ],
)
def test_resized_size(size, expected):
    assert resized_size(size, TransformConfig()) == expected


def test_normalise(xp):
    """Red 255 is 1: (1 - 0.485) / 0.229."""
    image = xp.asarray([[[255, 0, 51]]], dtype=np.uint8)
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
    mean, std = (xp.asarray(values) for values in (TransformConfig().mean, TransformConfig().std))
    assert_close(normalise(image, mean, std), [[expected]])


def test_enlarging_a_row(xp):
    """Two pixels, 0 and 8, made four: centres lie at -1/4, 1/4, 3/4, 5/4; beyond an end is the end."""
    x = xp.asarray([[[0.0], [8.0]]])
    assert to_host(resize_bilinear(x, (1, 4)))[0, :, 0].tolist() == [0, 2, 6, 8]


def test_shrinking_skips(xp):
    """Four pixels made one: its centre lies between the second and the third, and the others are not read."""
    x = xp.asarray([[[100.0], [2], [4], [100]]])
    assert to_host(resize_bilinear(x, (1, 1))).item() == 3


def test_a_batch(xp):
    """Of two images the larger decides; zeros fill up to a multiple of 4 on the right and below."""
    images = [np.full((4, 5, 3), 51, np.uint8), np.full((2, 2, 3), 255, np.uint8)]
    batch = make_batch(images, PLAIN, like=xp.zeros(1))
    assert batch.original_sizes == [(4, 5), (2, 2)]
    assert batch.sizes == [(4, 5), (4, 4)]
    assert batch.pixels.shape == (2, 4, 8, 3)
    pixels = to_host(batch.pixels)[..., 0]
    assert_close(pixels[0], [[0.2] * 5 + [0] * 3] * 4)
    assert_close(pixels[1], [[1] * 4 + [0] * 4] * 4)


def test_padding_is_zero_after_normalising(xp):
    """Black becomes -mean / std; padding does not."""
    batch = make_batch([np.zeros((4, 5, 3), np.uint8)], TransformConfig(4, 8, divisor=4), like=xp.zeros(1))
    pixels = to_host(batch.pixels)
    assert pixels[0, :, :5].max() < -1
    assert not pixels[0, :, 5:].any()


def test_resizing_a_target():
    """Twice as high, half as wide: the box too; of the mask every row twice and every second column.

    Targets stay on the host, so with NumPy only.
    """
    mask = np.array([[[1, 0, 0, 1], [0, 0, 1, 1]]], bool)
    target = Target(np.array([[0, 0, 4, 1]], np.float32), np.array([2]), mask, crowd=np.array([True]))
    resized = resize_target(target, (2, 4), (4, 2))
    assert resized.boxes.tolist() == [[0, 0, 2, 2]]
    assert resized.masks[0].astype(int).tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert resized.labels.tolist() == [2]
    assert resized.crowd.tolist() == [True]


def test_resizing_to_the_same_size_changes_nothing():
    target = Target(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros((0, 2, 4), bool))
    assert resize_target(target, (2, 4), (2, 4)) is target


# The slow version


def slow_resize(x, size):
    height, width = x.shape[:2]
    out = np.zeros((*size, x.shape[2]))
    for i, j in np.ndindex(*size):
        y = min(max((i + 0.5) * height / size[0] - 0.5, 0), height - 1)
        z = min(max((j + 0.5) * width / size[1] - 0.5, 0), width - 1)
        top, left = math.floor(y), math.floor(z)
        for row, wy in ((top, 1 - y + top), (min(top + 1, height - 1), y - top)):
            for column, wx in ((left, 1 - z + left), (min(left + 1, width - 1), z - left)):
                out[i, j] += wy * wx * x[row, column]
    return out


SIDE = st.integers(1, 9)


@given(old=st.tuples(SIDE, SIDE), new=st.tuples(SIDE, SIDE), seed=st.integers(0, 2**32 - 1))
def test_resize_is_the_slow_one(xp, old, new, seed):
    x = np.random.default_rng(seed).normal(size=(*old, 2))
    resized = resize_bilinear(xp.asarray(x), new)
    assert_library(xp, resized)
    assert_close(resized, slow_resize(x, new), 1e-9)


# Properties


@given(size=st.tuples(st.integers(1, 3000), st.integers(1, 3000)))
def test_sizes_keep_to_the_limits(size):
    config = TransformConfig()
    height, width = resized_size(size, config)
    assert max(height, width) <= config.max_size
    assert min(height, width) <= config.min_size
    # One of the two limits is reached, but for the rounding down.
    assert min(height, width) >= config.min_size - 1 or max(height, width) >= config.max_size - 1


@given(sizes=st.lists(st.tuples(SIDE, SIDE), min_size=1, max_size=3))
def test_batches_hold_every_image(xp, sizes):
    images = [np.full((*size, 3), 255, np.uint8) for size in sizes]
    batch = make_batch(images, PLAIN, like=xp.zeros(1, dtype=np.float32))
    assert_library(xp, batch.pixels)
    assert batch.pixels.dtype == np.float32
    assert batch.pixels.shape[1] % 4 == batch.pixels.shape[2] % 4 == 0
    for pixels, (height, width) in zip(to_host(batch.pixels), batch.sizes, strict=True):
        assert pixels.sum() == pixels[:height, :width].sum() == height * width * 3


def test_boxes_there_and_back(xp, rng):
    boxes = rng.uniform(0, 100, (5, 4)).astype(np.float32)
    there = resize_boxes(xp.asarray(boxes), (100, 150), (237, 64))
    assert_library(xp, there)
    assert there.dtype == np.float32
    assert_close(resize_boxes(there, (237, 64), (100, 150)), boxes, 1e-6)


# Bad input. What users hand over is on the host, and is looked at there: with NumPy only.

IMAGE = np.zeros((4, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "the list of images is empty"),
        ([IMAGE, "cat.png"], "image 1 is a str"),
        ([IMAGE.tolist()], "image 0 is a list"),
        ([IMAGE / 255], "image 0 has dtype float64: it must be uint8"),
        ([IMAGE[:, :, 0]], r"image 0 has shape \(4, 5\): it must be \(H, W, 3\)"),
        ([np.zeros((4, 5, 4), np.uint8)], r"image 0 has shape \(4, 5, 4\)"),
        ([IMAGE[:0]], r"image 0 has shape \(0, 5, 3\)"),
        ([IMAGE[None]], r"image 0 has shape \(1, 4, 5, 3\)"),
    ],
)
def test_images_that_are_none(images, message):
    for check in (check_images, lambda i: make_batch(i, PLAIN, like=np.zeros(1))):
        with pytest.raises(InputError, match=message) as error:
            check(images)
        assert "\n" not in str(error.value)


def good():
    return {
        "boxes": np.array([[0, 0, 2, 2], [1, 1, 4, 3]], np.float32),
        "labels": np.array([1, 3]),
        "masks": np.ones((2, 4, 5), bool),
    }


def with_box(*box):
    boxes = good()["boxes"]
    boxes[1] = box
    return {"boxes": boxes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": np.zeros((3, 4))}, r"boxes have shape \(3, 4\), for 2 labels"),
        ({"boxes": np.zeros((2, 5))}, r"boxes have shape \(2, 5\)"),
        ({"masks": np.ones((1, 4, 5), bool)}, r"masks have shape \(1, 4, 5\)"),
        ({"masks": np.ones((2, 5, 4), bool)}, r"masks have shape \(2, 5, 4\), but 2 objects in an image of \(4, 5\)"),
        (with_box(0, np.nan, 2, 2), "NaN"),
        (with_box(0, 0, np.inf, 2), "infinity"),
        (with_box(2, 0, 2, 2), r"box \[2.0, 0.0, 2.0, 2.0\] has no area"),
        (with_box(0, 3, 2, 1), "has no area"),
        ({"labels": np.array([1, 0])}, r"labels must be in 1..3, got \[0, 1\]"),
        ({"labels": np.array([4, 1])}, r"labels must be in 1..3, got \[1, 4\]"),
        ({"labels": np.array([-1, 1])}, "labels must be in 1..3"),
    ],
)
def test_targets_that_are_none(change, message):
    with pytest.raises(InputError, match="^image 7: .*" + message) as error:
        check_target(Target(**{**good(), **change}), (4, 5), 3, "image 7")
    assert "\n" not in str(error.value)


def test_good_targets_pass():
    check_target(Target(**good()), (4, 5), 3, "image 7")
    none = Target(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros((0, 4, 5), bool))
    check_target(none, (4, 5), 3, "an image without objects")
