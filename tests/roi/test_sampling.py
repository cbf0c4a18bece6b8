"""What the heads should say. It is made on the host, where the labels are: with NumPy, whatever the network runs on."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_close

from mrcnn_scratch import ops
from mrcnn_scratch.config import RoIConfig
from mrcnn_scratch.roi import mask_targets, roi_targets
from mrcnn_scratch.structures import Target

EVERY = RoIConfig(samples=10**6)


def target(*boxes, labels=None, size=(40, 40)):
    """Objects that fill their boxes, labelled 1, 2, ..."""
    masks = np.zeros((len(boxes), *size), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[int(y1) : int(y2), int(x1) : int(x2)] = True
    labels = range(1, len(boxes) + 1) if labels is None else labels
    return Target(np.array(boxes, float).reshape(-1, 4), np.array(labels, np.int64), masks)


def proposals(*boxes):
    return np.array(boxes, float).reshape(-1, 4)


A, B, FAR = (0, 0, 10, 10), (20, 0, 30, 10), (0, 20, 10, 30)
NEAR_A, HALF_A, LESS_A = (0, 0, 10, 8), (0, 0, 10, 5), (0, 0, 10, 4)
"""IoU with A: 0.8, exactly 0.5, 0.4."""

# By hand


def test_by_hand():
    """At IoU 0.5 and above an object, else background; the deltas are scaled by 10, 10, 5, 5."""
    sample = roi_targets([proposals(NEAR_A, HALF_A, LESS_A, FAR)], [target(A)], EVERY, np.random.default_rng(0))
    assert sample.boxes.tolist() == [list(b) for b in (NEAR_A, HALF_A, A, LESS_A, FAR)]  # positives first
    assert sample.labels.tolist() == [1, 1, 1, 0, 0]
    assert sample.object.tolist() == [0, 0, 0, -1, -1]
    assert sample.positives.tolist() == [0, 1, 2]
    near = [0, 10 * 1 / 8, 0, 5 * math.log(10 / 8)]
    half = [0, 10 * 2.5 / 5, 0, 5 * math.log(2)]
    assert_close(sample.deltas, [near, half, [0] * 4, [0] * 4, [0] * 4])


def test_each_proposal_goes_to_its_best_object():
    sample = roi_targets([proposals(B, A)], [target(A, B, labels=[3, 2])], EVERY, np.random.default_rng(0))
    assert sample.labels.tolist() == [2, 3, 3, 2]  # the proposals, then the objects' own boxes
    assert sample.object.tolist() == [1, 0, 0, 1]


def test_objects_join_the_proposals():
    """Without any proposal the heads still see the objects themselves."""
    sample = roi_targets([proposals()], [target(A, B)], EVERY, np.random.default_rng(0))
    assert sample.boxes.tolist() == [list(A), list(B)]
    assert sample.labels.tolist() == [1, 2]
    assert not sample.deltas.any()


def test_images_do_not_meet():
    """The same proposal is an object in one image and background in the next."""
    sample = roi_targets([proposals(A), proposals(A)], [target(A), target(FAR)], EVERY, np.random.default_rng(0))
    assert sample.image.tolist() == [0, 0, 1, 1]
    assert sample.labels.tolist() == [1, 1, 1, 0]
    assert sample.boxes[2].tolist() == list(FAR)


def test_an_image_without_objects():
    sample = roi_targets([proposals(A, B)], [target()], EVERY, np.random.default_rng(0))
    assert sample.labels.tolist() == [0, 0]
    assert sample.positives.tolist() == []
    assert mask_targets(sample, [target()], 28).shape == (0, 28, 28)


def test_neither_proposals_nor_objects():
    sample = roi_targets([proposals()], [target()], EVERY, np.random.default_rng(0))
    assert sample.boxes.shape == (0, 4)
    assert sample.deltas.shape == (0, 4)


@pytest.mark.parametrize(("good", "bad", "expected"), [(50, 50, (4, 12)), (2, 50, (3, 13)), (50, 3, (4, 3))])
def test_one_to_three(good, bad, expected):
    """16 samples are 4 objects and 12 of background. Too few objects are made up for by background, not the reverse.

    The object's own box is one object more.
    """
    boxes = proposals(*[A] * good, *[FAR] * bad)
    sample = roi_targets([boxes], [target(A)], RoIConfig(samples=16), np.random.default_rng(0))
    assert ((sample.labels > 0).sum(), (sample.labels == 0).sum()) == expected


def test_sampling_follows_the_seed(rng):
    corners = rng.uniform(0, 30, (100, 2))
    boxes = np.hstack([corners, corners + 10])
    first, again, other = (
        roi_targets([boxes], [target(A)], RoIConfig(samples=16), np.random.default_rng(seed)).boxes.tolist()
        for seed in (1, 1, 2)
    )
    assert first == again != other


# Masks


def test_a_mask_is_cut_out_by_its_proposal():
    """The object is the left half of A. A itself sees half of it filled, the proposal of that half all of it."""
    half = np.zeros((1, 40, 40), bool)
    half[0, :10, :5] = True
    labelled = Target(np.array([A], float), np.array([1]), half)
    sample = roi_targets([proposals((0, 0, 5, 10))], [labelled], EVERY, np.random.default_rng(0))
    whole, cut = mask_targets(sample, [labelled], 2)[::-1]
    # A sample between two pixels' centres reads both: near the object's end the value is soft.
    assert whole[:, 1].max() < 0.5 < whole[:, 0].min()
    assert cut[0, 0] > 1 - 1e-12
    assert cut.min() > 0.7


def test_masks_of_their_own_objects_and_images():
    """Two images of different sizes, objects side by side: filled boxes give masks that are full but for the edges."""
    targets = [target(A, B, size=(40, 40)), target(FAR, size=(30, 50)), target(B, A, size=(40, 40))]
    sample = roi_targets([proposals()] * 3, targets, EVERY, np.random.default_rng(0))
    masks = mask_targets(sample, targets, 4)
    assert masks.shape == (5, 4, 4)
    assert masks[:, :3, :3].min() > 1 - 1e-12


@given(count=st.integers(0, 5), seed=st.integers(0, 2**32 - 1), resolution=st.sampled_from([1, 3, 28]))
def test_masks_are_roi_align_one_by_one(count, seed, resolution):
    rng = np.random.default_rng(seed)
    targets, boxes = [], []
    for size in ((20, 30), (30, 20)):
        corners = rng.uniform(0, 8, (count, 2))
        objects = np.hstack([corners, corners + rng.uniform(2, 10, (count, 2))])
        targets.append(Target(objects, np.ones(count, np.int64), rng.random((count, *size)) < 0.5))
        boxes.append(objects + rng.normal(0, 0.3, objects.shape))
    sample = roi_targets(boxes, targets, EVERY, rng)
    made = mask_targets(sample, targets, resolution)
    for mask, i in zip(made, sample.positives, strict=True):
        truth = targets[sample.image[i]].masks[sample.object[i]].astype(float)[None, :, :, None]
        expected, _ = ops.roi_align(
            truth,
            sample.boxes[i : i + 1],
            np.zeros(1, np.int64),
            output_size=(resolution, resolution),
            spatial_scale=1.0,
            sampling_ratio=0,
        )
        assert_close(mask, expected[0, :, :, 0])


def test_dtype_is_the_proposals():
    sample = roi_targets([proposals(A).astype(np.float32)], [target(A)], EVERY, np.random.default_rng(0))
    assert {sample.boxes.dtype, sample.deltas.dtype} == {np.dtype(np.float32)}
    assert {sample.image.dtype, sample.object.dtype, sample.labels.dtype} == {np.dtype(np.int64)}
    assert mask_targets(sample, [target(A)], 2).dtype == np.float32
