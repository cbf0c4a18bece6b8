"""Random changes of training examples."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mrcnn_scratch.data.augment import augment, flip_horizontally, shuffle_colours
from mrcnn_scratch.structures import Target

# By hand


def example():
    """Two rows of three pixels, and an object in the two on the upper left, which is a crowd of area 9."""
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    mask = np.array([[[1, 1, 0], [0, 0, 0]]], bool)
    return image, Target(np.array([[0, 0, 2, 1.0]]), np.array([5]), mask, np.array([True]), np.array([9.0]))


def test_flip_by_hand():
    """x becomes 3 - x, so the box 0 .. 2 becomes 1 .. 3."""
    image, target = flip_horizontally(*example())
    assert image[:, :, 0].tolist() == [[6, 3, 0], [15, 12, 9]]
    assert target.boxes.tolist() == [[1, 0, 3, 1]]
    assert target.masks[0].astype(int).tolist() == [[0, 1, 1], [0, 0, 0]]
    assert (target.labels.tolist(), target.crowd.tolist(), target.areas.tolist()) == ([5], [True], [9])


def test_colours_by_hand():
    """A pixel of 10, 20, 30: over many draws every order, and each of the three or its negative."""
    pixel = np.array([[[10, 20, 30]]], np.uint8)
    drawn = {tuple(shuffle_colours(pixel, np.random.default_rng(seed))[0, 0].tolist()) for seed in range(1000)}
    assert len(drawn) == 48
    assert {tuple(sorted(min(v, 255 - v) for v in d)) for d in drawn} == {(10, 20, 30)}


# Properties


@given(width=st.integers(1, 8), height=st.integers(1, 8), seed=st.integers(0, 2**32 - 1))
def test_flipped_twice_is_as_before(width, height, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    masks = rng.random((2, height, width)) < 0.5
    x1, x2 = np.sort(rng.integers(0, width + 1, (2, 2)), axis=0)
    target = Target(np.stack([x1, x1 * 0, x2, x2 * 0 + height], axis=1).astype(np.float32), np.array([1, 2]), masks)
    once = flip_horizontally(image, target)
    twice = flip_horizontally(*once)
    assert np.array_equal(twice[0], image)
    assert np.array_equal(twice[1].masks, masks)
    assert twice[1].boxes.tolist() == target.boxes.tolist()
    assert (once[1].boxes[:, 0] <= once[1].boxes[:, 2]).all()
    assert (image.dtype, target.boxes.dtype) == (once[0].dtype, once[1].boxes.dtype)


def test_an_image_without_objects():
    target = Target(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros((0, 2, 3), bool))
    _, flipped = flip_horizontally(example()[0], target)
    assert flipped.boxes.shape == (0, 4)
    assert flipped.masks.shape == (0, 2, 3)


def test_all_pixels_change_colour_alike():
    """The same channel at every pixel, or its negative."""
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    changed = shuffle_colours(image, np.random.default_rng(1))
    assert changed.dtype == np.uint8
    for channel in np.moveaxis(changed, 2, 0):
        originals = np.moveaxis(image, 2, 0)
        assert sum(np.array_equal(channel, o) or np.array_equal(channel, 255 - o) for o in originals) == 1


def test_augment_flips_half_of_the_time():
    image, target = example()
    flipped = 0
    for seed in range(400):
        changed, moved = augment(image, target, np.random.default_rng(seed), flip=True, colours=False)
        assert changed.tolist() in (image.tolist(), image[:, ::-1].tolist())
        flipped += moved.boxes[0, 0] == 1
    assert 160 < flipped < 240


def test_augment_does_what_it_is_asked_for():
    image, target = example()
    before = image.copy(), target.masks.copy(), target.boxes.copy()
    same, same_target = augment(image, target, np.random.default_rng(0), flip=False, colours=False)
    assert same is image
    assert same_target is target
    coloured = [augment(image, target, np.random.default_rng(s), flip=False, colours=True) for s in range(20)]
    assert all(t is target for _, t in coloured)
    assert len({i.tobytes() for i, _ in coloured}) > 5
    assert all(np.array_equal(a, b) for a, b in zip(before, (image, target.masks, target.boxes), strict=True))


def test_same_seed_same_example():
    first, again = (augment(*example(), np.random.default_rng(3), flip=True, colours=True) for _ in range(2))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1].boxes, again[1].boxes)
