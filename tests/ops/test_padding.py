"""A border around feature maps."""

import pytest
from reference import assert_library

from mrcnn_scratch.backend import to_host
from mrcnn_scratch.ops.padding import pad, unpad


def test_by_hand(xp):
    x = xp.asarray([[1.0, 2]])[None, :, :, None]
    assert to_host(pad(x, 1))[0, :, :, 0].tolist() == [[0, 0, 0, 0], [0, 1, 2, 0], [0, 0, 0, 0]]
    assert to_host(pad(x, (0, 1), fill=9))[0, :, :, 0].tolist() == [[9, 1, 2, 9]]


@pytest.mark.parametrize("padding", [0, 2, (0, 0), (1, 0), (0, 3), (2, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_unpad_undoes_pad(xp, rng, padding, dtype):
    x = xp.asarray(rng.normal(size=(2, 3, 4, 5)).astype(dtype))
    rows, columns = (padding, padding) if isinstance(padding, int) else padding
    padded = pad(x, padding)
    assert padded.shape == (2, 3 + 2 * rows, 4 + 2 * columns, 5)
    assert_library(xp, padded, unpad(padded, padding))
    assert padded.dtype == dtype
    assert to_host(unpad(padded, padding)).tolist() == to_host(x).tolist()
