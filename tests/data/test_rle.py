"""COCO's run-length encoding, beside COCO's own code."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from mrcnn_scratch.data.rle import (
    MOST_PIXELS,
    compress_counts,
    decode_rle,
    decode_runs,
    encode_rle,
    expand_counts,
    run_lengths,
)
from mrcnn_scratch.errors import InputError

# By hand


def test_runs_go_down_the_columns():
    """Columns 0 1, 1 1, 0 0: one 0, three 1, two 0."""
    mask = np.array([[0, 1, 0], [1, 1, 0]], bool)
    assert run_lengths(mask) == [1, 3, 2]
    assert decode_runs([1, 3, 2], (2, 3)).tolist() == mask.tolist()


def test_runs_begin_with_zeros():
    """Even if there are none."""
    assert run_lengths(np.array([[1], [0]], bool)) == [0, 1, 1]
    assert run_lengths(np.ones((2, 2), bool)) == [0, 4]
    assert run_lengths(np.zeros((2, 2), bool)) == [4]


def test_text_by_hand():
    """A number is groups of 5 bits from character 48, "0", on; bit 6 of a group says that there are more.

    3 is "3". 15 is "?". 16 would read as negative in 5 bits, so a second group of 0 follows: 16 + 32 + 48 is "`", "0".
    """
    assert compress_counts([3]) == "3"
    assert compress_counts([15]) == "?"
    assert compress_counts([16]) == "`0"
    # From the fourth run on, differences from the run two before: 5, 7, 6, 7 - 7 = 0, 4 - 6 = -2, which is 30: "N".
    assert compress_counts([5, 7, 6, 7, 4]) == "5760N"
    assert expand_counts("5760N") == [5, 7, 6, 7, 4]


# Beside pycocotools

MASKS = st.tuples(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**32 - 1))


def random_mask(height, width, density, seed):
    """Single pixels, or larger blots of 3 x 3, which make longer runs."""
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < density
    return np.kron(mask, np.ones((3, 3), bool))[:height, :width] if seed % 2 else mask


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, with NumPy 2
@given(drawn=MASKS)
def test_random_masks(drawn):
    mask = random_mask(*drawn)
    encoded = encode_rle(mask)
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encoded == {"size": theirs["size"], "counts": theirs["counts"].decode()}
    assert np.array_equal(coco.decode({"size": encoded["size"], "counts": encoded["counts"].encode()}), mask)
    decoded = decode_runs(expand_counts(theirs["counts"].decode()), mask.shape)
    assert decoded.dtype == bool
    assert np.array_equal(decoded, mask)


@given(drawn=MASKS)
def test_both_forms_in_a_file(drawn):
    mask = random_mask(*drawn)
    size = list(mask.shape)
    assert np.array_equal(decode_rle(encode_rle(mask), mask.shape), mask)
    assert np.array_equal(decode_rle({"size": size, "counts": run_lengths(mask)}, mask.shape), mask)
    theirs = coco.frPyObjects({"size": size, "counts": run_lengths(mask)}, *size)
    assert theirs["counts"].decode() == encode_rle(mask)["counts"]


@given(runs=st.lists(st.integers(1, 10**6), min_size=1, max_size=8))
def test_long_runs(runs):
    """Up to four groups a number, and large differences up and down."""
    theirs = coco.frPyObjects({"size": [1, sum(runs)], "counts": runs}, 1, sum(runs))
    assert compress_counts(runs) == theirs["counts"].decode()
    assert expand_counts(compress_counts(runs)) == runs


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (200, 300)])
def test_plain_masks(shape):
    for mask in (np.zeros(shape, bool), np.ones(shape, bool)):
        theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert encode_rle(mask)["counts"] == theirs["counts"].decode()


def test_numbers_other_than_bool():
    assert run_lengths(np.array([[0, 2], [0.5, 0]])) == [1, 2, 1]


# Bad input


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, 2], r"sum to 3, but a mask of \(2, 2\) has 4 pixels"),
        ([1, 4], "sum to 5"),
        ([], "sum to 0"),
        ([6, -2], "negative"),
        ([5, 0], "longer than the mask's 4 pixels"),
        ([10**5000], "longer than the mask"),
    ],
)
def test_runs_that_do_not_fill_the_mask(counts, message):
    with pytest.raises(InputError, match=message):
        decode_runs(counts, (2, 2))


@pytest.mark.parametrize("counts", [None, 4, "4", [4.0], [None], ["4"], [[4]], [True, 3], {"4": 4}])
def test_runs_of_other_types(counts):
    with pytest.raises(InputError, match="must be a list of whole numbers"):
        decode_runs(counts, (2, 2))


@pytest.mark.parametrize(
    "size",
    [(10**9, 10**9), (1, MOST_PIXELS + 1), (-2, -2), (2.0, 2), (None, 2), None, 4, (4,), ("2", 2), (10**4000, 1)],
)
def test_sizes_of_no_mask(size):
    """Refused before anything of that size is made."""
    with pytest.raises(InputError, match="cannot have the size"):
        decode_runs([10**18], size)


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        (None, "must be"),
        ([1, 3], "must be"),
        ({"size": [2, 2]}, "must be"),
        ({"counts": [4]}, "must be"),
        ({"size": [2, 3], "counts": [6]}, r"of size \[2, 3\], not \[2, 2\]"),
        ({"size": None, "counts": [4]}, "of size None"),
        ({"size": [[2], 2], "counts": [4]}, "of size"),
        ({"size": [10**9, 10**9], "counts": [10**18]}, "of size"),
        ({"size": [2, 2], "counts": None}, "list of whole numbers"),
        ({"size": [2, 2], "counts": b"4"}, "list of whole numbers"),
        ({"size": [2, 2], "counts": "5"}, "longer than"),
        ({"size": [2, 2], "counts": ""}, "sum to 0"),
    ],
)
def test_segmentations_of_no_mask(rle, message):
    with pytest.raises(InputError, match=message) as error:
        decode_rle(rle, (2, 2))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


def test_a_number_without_end():
    """A million groups that each say "more follows" must not build a number of five million bits."""
    with pytest.raises(InputError, match="too large for any mask"):
        expand_counts("o" * 10**6)


@pytest.mark.parametrize("text", ["3 4", "3\n", "/", "\u00e9", "p"])
def test_characters_that_mean_nothing(text):
    with pytest.raises(InputError, match="means nothing there"):
        expand_counts(text)


@pytest.mark.parametrize("text", ["`", "3`", "oo"])
def test_text_that_ends_inside_a_number(text):
    with pytest.raises(InputError, match="end inside a number"):
        expand_counts(text)


def test_no_text_no_runs():
    assert expand_counts("") == []
