"""RoI Align."""

import importlib
import math

import numpy as np
import pytest
from gradcheck import check_gradients
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_close, cases, channels_last, check_case

from mrcnn_scratch import ops
from mrcnn_scratch.backend import to_host

module = importlib.import_module("mrcnn_scratch.ops.roi_align")  # `ops.roi_align` is the function

# By hand


def ramp(xp, height=6, width=6):
    """A map whose value is ``10 y + x``: bilinear interpolation tells exactly where the sample was taken."""
    return xp.asarray(10.0 * np.arange(height)[:, None] + np.arange(width))[None, :, :, None]


def align(xp, features, *boxes, batch=None, size=(1, 1), scale=1.0, ratio=1, aligned=False):
    """``roi_align`` of ``boxes``, given as tuples."""
    boxes = xp.asarray(np.array(boxes, dtype=float).reshape(-1, 4))
    batch = xp.asarray(batch if batch is not None else [0] * len(boxes), dtype=xp.int64)
    return ops.roi_align(
        features, boxes, batch, output_size=size, spatial_scale=scale, sampling_ratio=ratio, aligned=aligned
    )


def test_samples_lie_in_the_middle_of_their_bins(xp):
    y, backward = align(xp, ramp(xp), (1, 2, 3, 6), size=(2, 2))
    # Bins are 1 wide and 2 high: samples at x = 1.5, 2.5 and y = 3, 5.
    assert to_host(y)[0, :, :, 0].tolist() == [[31.5, 32.5], [51.5, 52.5]]
    # Sample (y 3, x 1.5) is half of pixel (3, 1) and half of (3, 2); so is its gradient.
    dy = xp.asarray([[8.0, 0], [0, 0]]).reshape(1, 2, 2, 1)
    dx = to_host(backward(dy))
    assert dx[0, 3, :, 0].tolist() == [0, 4, 4, 0, 0, 0]
    assert dx.sum() == 8


def test_a_sample_amid_four_pixels(xp):
    y, backward = align(xp, ramp(xp), (0, 0, 1, 1))
    assert to_host(y).item() == 0.5 * 10 + 0.5
    assert to_host(backward(xp.ones((1, 1, 1, 1))))[0, :2, :2, 0].tolist() == [[0.25, 0.25], [0.25, 0.25]]


def test_more_samples_are_averaged(xp):
    """A kink in the map shows how many samples a bin has: over |x - 2|, one in the middle reads 0, two 1."""
    valley = xp.asarray([[2.0, 1, 0, 1, 2]])[None, :, :, None]
    reading = {ratio: to_host(align(xp, valley, (0, 0, 4, 1), ratio=ratio)[0]).item() for ratio in (1, 2, 4, 0)}
    # Samples at 2; at 1 and 3; at .5, 1.5, 2.5, 3.5; and for 0 as many as the bin is wide, which is 4.
    assert reading == {1: 0, 2: 1, 4: 1, 0: 1}
    wide = {ratio: to_host(align(xp, valley, (1.5, 0, 2.5, 1), ratio=ratio)[0]).item() for ratio in (2, 0)}
    assert wide == {2: 0.25, 0: 0}  # a bin one pixel wide: adaptive means one sample


def test_scale_and_alignment(xp):
    """A box in image pixels is divided by the stride; aligned moves it half a cell up and left."""
    assert to_host(align(xp, ramp(xp), (8, 4, 16, 12), scale=1 / 4)[0]).item() == 2 * 10 + 3
    assert to_host(align(xp, ramp(xp), (8, 4, 16, 12), scale=1 / 4, aligned=True)[0]).item() == 1.5 * 10 + 2.5


def test_small_boxes_count_as_one_pixel_unless_aligned(xp):
    assert to_host(align(xp, ramp(xp), (2, 2, 2, 2))[0]).item() == 2.5 * 10 + 2.5
    assert to_host(align(xp, ramp(xp), (2, 2, 2, 2), aligned=True)[0]).item() == 1.5 * 10 + 1.5


def test_beyond_the_map(xp):
    """Up to one pixel outside, a sample reads the border; further out it is 0."""
    readings = [to_host(align(xp, ramp(xp), (x, 0, x + 1, 1))[0]).item() for x in (-2, -1.5, -1, 4.5, 5.5, 6)]
    assert readings == [0, 5, 5, 5 + 5, 5 + 5, 0]  # samples at x = -1.5, -1, -0.5, 5, 6, 6.5 and y = 0.5


def test_each_box_reads_its_own_image(xp):
    features = xp.concatenate([ramp(xp), 100 + ramp(xp), 200 + ramp(xp)])
    y, _ = align(xp, features, (0, 0, 2, 2), (0, 0, 2, 2), (2, 0, 4, 2), batch=[2, 0, 1])
    assert to_host(y).ravel().tolist() == [211, 11, 113]


# The slow version


def bilinear(image, y, x):
    """The value of ``image`` (H, W, C) at a point between pixels."""
    height, width = image.shape[:2]
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(image.shape[2])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    upper = (1 - across) * image[top, left] + across * image[top, right]
    lower = (1 - across) * image[bottom, left] + across * image[bottom, right]
    return (1 - down) * upper + down * lower


def slow_roi_align(features, boxes, batch, size, scale, ratio, aligned):
    y = np.zeros((len(boxes), *size, features.shape[3]))
    for r, i, j in np.ndindex(len(boxes), *size):
        x1, y1, x2, y2 = boxes[r]
        left, top = (v * scale - (0.5 if aligned else 0) for v in (x1, y1))
        width, height = (v * scale if aligned else max(v * scale, 1) for v in (x2 - x1, y2 - y1))
        bin_height, bin_width = height / size[0], width / size[1]
        rows, columns = (ratio if ratio > 0 else math.ceil(b) for b in (bin_height, bin_width))
        for a, b in np.ndindex(max(rows, 0), max(columns, 0)):
            sample = top + (i + (a + 0.5) / rows) * bin_height, left + (j + (b + 0.5) / columns) * bin_width
            y[r, i, j] += bilinear(features[batch[r]], *sample) / (rows * columns)
    return y


QUARTERS = st.integers(-12, 48).map(lambda i: i / 4)  # inside, across and beyond a map of at most 7 x 7
CORNERS = st.tuples(*[QUARTERS] * 4)  # in any order: some boxes are empty, some inside out
SIDES = st.integers(1, 7)
MAPS = st.tuples(st.integers(1, 2), SIDES, SIDES, st.integers(1, 3))
OPTIONS = {
    "size": st.tuples(*[st.sampled_from([1, 2, 3])] * 2),
    "scale": st.sampled_from([1.0, 0.5]),
    "ratio": st.sampled_from([-1, 0, 1, 2, 3]),
    "aligned": st.booleans(),
}


@given(
    shape=MAPS,
    boxes=st.lists(CORNERS, max_size=5),
    options=st.fixed_dictionaries(OPTIONS),
    seed=st.integers(0, 2**32 - 1),
)
def test_is_the_slow_one(xp, shape, boxes, options, seed):
    rng = np.random.default_rng(seed)
    features, batch = rng.normal(size=shape), rng.integers(shape[0], size=len(boxes))
    y, _ = align(xp, xp.asarray(features), *boxes, batch=batch, **options)
    assert_close(y, slow_roi_align(features, boxes, batch, **options))


# Properties


@given(
    shape=MAPS,
    boxes=st.lists(CORNERS, max_size=5),
    options=st.fixed_dictionaries(OPTIONS),
    seed=st.integers(0, 2**32 - 1),
)
def test_backward_is_the_transpose(xp, shape, boxes, options, seed):
    """RoI Align is linear in the features: ``<roi_align(other), dy> = <other, dx>`` for every other map."""
    rng = np.random.default_rng(seed)
    features, other, batch = (
        rng.normal(size=shape),
        rng.normal(size=shape),
        rng.integers(shape[0], size=len(boxes)),
    )
    y, backward = align(xp, xp.asarray(features), *boxes, batch=batch, **options)
    y_other, _ = align(xp, xp.asarray(other), *boxes, batch=batch, **options)
    dy = rng.normal(size=y.shape)
    assert np.isclose((to_host(y_other) * dy).sum(), (other * to_host(backward(xp.asarray(dy)))).sum())


@given(down=st.integers(0, 3), right=st.integers(0, 3), options=st.fixed_dictionaries(OPTIONS))
def test_what_moves_with_its_box_looks_the_same(xp, down, right, options):
    """No rounding of box corners anywhere: that is the whole difference to RoI Pool."""
    pattern, field = np.random.default_rng(0).normal(size=(1, 8, 8, 2)), np.zeros((1, 16, 16, 2))
    field[:, 2 + down : 10 + down, 2 + right : 10 + right] = pattern
    box = np.array([1.3, 2.1, 6.2, 5.7])
    shift = np.array([right, down, right, down]) / options["scale"]
    start = 2 / options["scale"]
    moved, _ = align(xp, xp.asarray(field), box + start + shift, **options)
    still, _ = align(xp, xp.asarray(np.pad(pattern, ((0, 0), (2, 6), (2, 6), (0, 0)))), box + start, **options)
    assert_close(moved, to_host(still))


@given(boxes=st.lists(CORNERS, min_size=2, max_size=12), ratio=st.integers(0, 2), seed=st.integers(0, 2**32 - 1))
def test_boxes_do_not_meet(xp, boxes, ratio, seed):
    """Boxes are worked on in groups of like size: which ones are together must not show."""
    features = xp.asarray(np.random.default_rng(seed).normal(size=(1, 7, 6, 2)))
    together, _ = align(xp, features, *boxes, size=(2, 2), ratio=ratio)
    for box, y in zip(boxes, to_host(together), strict=True):
        assert_close(align(xp, features, box, size=(2, 2), ratio=ratio)[0], y[None])


@pytest.mark.parametrize("room", [1, 300, 1000])
def test_groups_change_nothing(xp, rng, monkeypatch, room):
    features = xp.asarray(rng.normal(size=(2, 9, 8, 3)))
    corners = rng.uniform(-2, 8, (11, 2))
    boxes = np.hstack([corners, corners + rng.uniform(0, 6, (11, 2))])
    batch, dy = rng.integers(2, size=11), xp.asarray(rng.normal(size=(11, 2, 3, 3)))

    def forward_and_backward():
        y, backward = align(xp, features, *boxes, batch=batch, size=(2, 3), ratio=2)
        return y, backward(dy)

    at_once = forward_and_backward()
    groups = []
    split = module._groups
    monkeypatch.setattr(module, "tile_bytes", lambda _: room)
    monkeypatch.setattr(module, "_groups", lambda *a: groups.extend(split(*a)) or groups)
    for in_groups, whole in zip(forward_and_backward(), at_once, strict=True):
        assert_close(in_groups, to_host(whole))
    members = [i for group in groups for i in to_host(group.boxes).tolist()]
    assert sorted(members) == list(range(11))
    assert len(groups) > 1


@pytest.mark.parametrize("ratio", [0, 2])
def test_no_boxes(xp, ratio):
    y, backward = align(xp, ramp(xp), size=(7, 7), ratio=ratio)
    assert y.shape == (0, 7, 7, 1)
    assert (to_host(backward(y)) == np.zeros((1, 6, 6, 1))).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_precision_is_the_features(xp, dtype):
    boxes, batch = xp.asarray([[0.3, 0.6, 3.9, 5.0]], dtype=dtype), xp.zeros(1, dtype=xp.int64)
    options = {"output_size": (2, 2), "spatial_scale": 0.5, "sampling_ratio": 2}
    y, backward = ops.roi_align(ramp(xp).astype(dtype), boxes, batch, **options)
    assert y.dtype == backward(y).dtype == dtype
    exact, _ = align(xp, ramp(xp), (0.3, 0.6, 3.9, 5.0), size=(2, 2), scale=0.5, ratio=2)
    assert_close(y, to_host(exact), 10 * np.finfo(dtype).eps)


# Gradients, element by element


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [0, 2])
def test_gradients(xp, rng, ratio, aligned):
    boxes = [(0.4, 1.2, 4.1, 3.3), (-2, -1, 9, 8), (2, 2, 2, 2), (1, 1, 3, 4), (1, 1, 3, 4), (20, 20, 30, 30)]

    def op(features):
        return align(
            xp,
            features,
            *boxes,
            batch=[0, 1, 1, 0, 0, 1],
            size=(2, 3),
            scale=0.7,
            ratio=ratio,
            aligned=aligned,
        )

    check_gradients(op, [rng.normal(size=(2, 4, 5, 2))], rng, xp=xp)


# torchvision's numbers


@pytest.mark.parametrize("case", cases("roi_align"))
def test_is_torchvision_s(xp, case):
    def op(features):
        return align(
            xp,
            features,
            *case["rois"][:, 1:],
            batch=case["rois"][:, 0],
            size=tuple(case["output_size"].tolist()),
            scale=float(case["spatial_scale"]),
            ratio=int(case["sampling_ratio"]),
            aligned=bool(case["aligned"]),
        )

    x, y, dy, dx = (channels_last(case[name]) for name in ("x", "y", "dy", "dx"))
    check_case(xp, op, [x], y, dy, [dx])
