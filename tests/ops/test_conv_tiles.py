"""How convolution gets its speed: patches made tile by tile and not kept, a special backward for stride 1."""

import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_close

from mrcnn_scratch import ops
from mrcnn_scratch.backend import to_host

conv = sys.modules["mrcnn_scratch.ops.conv"]

# By hand


def test_patches_by_hand(xp):
    x = xp.asarray([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])[None, :, :, None]
    windows = conv._windows(x, (2, 2), 1)
    [[tile]] = conv._shares(windows)  # small enough for one worker with one tile
    assert tile == (slice(0, 1), slice(0, 2))
    [(_, patches)] = conv._patches(windows, [tile])
    assert to_host(patches).tolist() == [[1, 2, 4, 5], [2, 3, 5, 6], [4, 5, 7, 8], [5, 6, 8, 9]]


def test_windows_are_a_view(xp):
    """A window is read where it lies in ``x``: what is written to ``x`` shows in all windows that hold it."""
    x = xp.zeros((1, 3, 3, 1))
    windows = conv._windows(x, (2, 2), 1)
    x[0, 1, 1, 0] = 7
    assert to_host(windows)[0, :, :, :, :, 0].sum(axis=(2, 3)).tolist() == [[7, 7], [7, 7]]


# Tiles, and their shares for several workers


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_shares_cover_every_patch_once(xp, monkeypatch, workers):
    """Patches of 3 images of 5 rows: with room for 1, 2, 7 or 10 rows, a tile is some rows or some images."""
    monkeypatch.setattr(conv, "workers", lambda _: workers)
    x = xp.asarray(np.arange(3 * 6 * 4 * 2, dtype=float).reshape(3, 6, 4, 2))
    windows = conv._windows(x, (2, 2), 1)
    row_bytes = windows[0, 0].size * 8
    tiles_with_room_for = {1: 3 * 5, 2: 3 * 3, 7: 3, 10: 2, 100: 1}
    for rows, expected_tiles in tiles_with_room_for.items():
        monkeypatch.setattr(conv, "tile_bytes", lambda _, rows=rows: rows * row_bytes)
        shares = conv._shares(windows)
        assert len(shares) == min(workers, expected_tiles)
        assert sum(map(len, shares)) == expected_tiles
        seen = np.zeros((3, 5), int)
        for share in shares:
            for tile, patches in conv._patches(windows, share):
                assert to_host(patches).tolist() == to_host(windows)[tile].reshape(-1, 2 * 2 * 2).tolist()
                seen[tile] += 1
        assert seen.tolist() == np.ones((3, 5)).tolist()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_pixels_are_shared_out_uncopied(xp, rng, monkeypatch, workers):
    """The patches of a 1x1 kernel are the pixels where they lie."""
    monkeypatch.setattr(conv, "workers", lambda _: workers)
    x = xp.asarray(rng.normal(size=(2, 5, 3, 4)))
    windows = conv._windows(x, (1, 1), 1)
    shares = conv._shares(windows)
    assert min(workers, 2) <= len(shares) <= workers
    patches = [rows for share in shares for _, rows in conv._patches(windows, share)]
    x += 1  # shows in what is not a copy
    assert np.concatenate([to_host(rows) for rows in patches]).tolist() == to_host(x).reshape(-1, 4).tolist()


@pytest.mark.parametrize("room", [0, 700, 1500, 4000])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("kernel", [(2, 2), (1, 1)])
def test_tiles_and_shares_change_nothing(xp, rng, monkeypatch, room, stride, workers, kernel):
    x, weight, bias = (xp.asarray(rng.normal(size=s)) for s in [(3, 6, 5, 2), (*kernel, 2, 4), (4,)])

    def both_ops():
        y, backward = ops.conv2d(x, weight, bias, stride=stride, padding=kernel[0] - 1)
        z, backward_transposed = ops.conv_transpose2d(x, weight, bias, stride=stride)
        return [y, *backward(y), z, *backward_transposed(z)]

    monkeypatch.setattr(conv, "workers", lambda _: 1)
    at_once = both_ops()
    monkeypatch.setattr(conv, "workers", lambda _: workers)
    monkeypatch.setattr(conv, "tile_bytes", lambda _: room)
    for in_shares, whole in zip(both_ops(), at_once, strict=True):
        assert_close(in_shares, to_host(whole))


def test_nothing_keeps_the_patches(rng):
    """The patches of a 3x3 kernel are nine times the input: never all made at once, never held.

    With NumPy only, as what is measured is the host's memory.
    """
    x, weight = rng.normal(size=(1, 256, 256, 16)), rng.normal(size=(3, 3, 16, 1))
    tracemalloc.start()
    try:
        _, backward = ops.conv2d(x, weight, padding=1)
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert backward is not None
    assert held < 0.5 * x.nbytes  # y, a sixteenth of x; x itself was there before
    assert most < 2 * x.nbytes  # x with its border, y, and one tile


# Two ways to one gradient


@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_the_backward_of_stride_1_is_the_direct_one(xp, data, seed):
    rng, small = np.random.default_rng(seed), st.integers(1, 4)
    kernel = data.draw(small), data.draw(small)
    padding = data.draw(st.integers(0, min(kernel) - 1))
    size = [max(1, k - 2 * padding) + data.draw(small) for k in kernel]
    n, channels, features = (data.draw(small) for _ in range(3))
    x, weight = rng.normal(size=(n, *size, channels)), rng.normal(size=(*kernel, channels, features))
    dy = rng.normal(size=(n, *(s + 2 * padding - k + 1 for s, k in zip(size, kernel, strict=True)), features))
    x, weight, dy = (xp.asarray(a) for a in (x, weight, dy))
    fast = conv._backward_stride_1(x, weight, dy, padding)
    direct = conv._backward_any_stride(x, weight, dy, 1, padding)
    for a, b in zip(fast, direct, strict=True):
        assert_close(a, to_host(b))
