"""COCO's run-length encoding of masks: how long each run of equal pixels is, column by column, zeros first."""

import reprlib
from typing import Any

import numpy as np

from ..backend import Array
from ..errors import InputError

MOST_PIXELS = 2**28
"""A mask takes a byte a pixel: one that claims more is refused before it is made. Pillow refuses a third of this."""

_MOST_SHIFT = 60  # bits of one run length, far more than MOST_PIXELS needs


def encode_rle(mask: Array) -> dict[str, Any]:
    """A mask (H, W) bool as ``{"size": [H, W], "counts": text}``, COCO's compressed form."""
    return {"size": list(mask.shape), "counts": compress_counts(run_lengths(mask))}


def run_lengths(mask: Array) -> list[int]:
    """Lengths of the runs of 0, 1, 0, 1, ... down the columns of ``mask`` (H, W); 0 first if pixel (0, 0) is set."""
    pixels = np.concatenate([[False], np.asarray(mask, bool).T.reshape(-1)])
    changes = np.flatnonzero(pixels[1:] != pixels[:-1])
    return np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()  # type: ignore[no-any-return]


def decode_rle(rle: Any, size: tuple[int, int]) -> Array:
    """The mask (H, W) bool of a segmentation from a COCO file, in either of its two forms.

    Args:
        rle: ``{"size": [H, W], "counts": ...}``; the counts are text, or a list of numbers (COCO's crowds).
        size: (height, width) that the mask must have.

    Raises:
        InputError: ``rle``, which may be anything, is no such mask.
    """
    if not isinstance(rle, dict) or not rle.keys() >= {"size", "counts"}:
        raise InputError('run lengths must be {"size": [height, width], "counts": ...}')
    if rle["size"] != list(size):
        raise InputError(f"run lengths are of a mask of size {reprlib.repr(rle['size'])}, not {list(size)}")
    counts = rle["counts"]
    return decode_runs(expand_counts(counts) if isinstance(counts, str) else counts, size)


def decode_runs(counts: list[int], size: tuple[int, int]) -> Array:
    """The inverse of :func:`run_lengths`: a mask (H, W) bool.

    Raises:
        InputError: the runs do not fill the mask exactly, or are no list of whole numbers, or the mask is too large.
    """
    if not _is_mask_size(size):
        raise InputError(f"a mask cannot have the size {reprlib.repr(size)}: give (height, width) of an image")
    if not isinstance(counts, list) or any(type(count) is not int for count in counts):
        raise InputError(f"run lengths must be a list of whole numbers, not {reprlib.repr(counts)}")
    pixels = size[0] * size[1]
    if min(counts, default=0) < 0 or max(counts, default=0) > pixels:
        raise InputError(f"a run length is negative or longer than the mask's {pixels} pixels")
    if sum(counts) != pixels:
        raise InputError(f"run lengths sum to {sum(counts)}, but a mask of {tuple(size)} has {pixels} pixels")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(size[1], size[0]).T


def _is_mask_size(size: Any) -> bool:
    """Two whole numbers, and no more pixels than a mask may have."""
    sides = isinstance(size, list | tuple) and len(size) == 2 and all(type(side) is int and side >= 0 for side in size)
    return sides and size[0] * size[1] <= MOST_PIXELS


def compress_counts(counts: list[int]) -> str:
    """Run lengths as text: each as its difference from the run two before, in 5-bit groups, low bits first.

    A group is one character from 48 ("0") on; bit 6 says that another follows, and the highest value bit of the last is
    the sign (``rleToString`` in COCO's maskApi.c; it takes differences from the fourth run on).
    """
    characters = []
    for i, count in enumerate(counts):
        rest = count - (counts[i - 2] if i > 2 else 0)
        more = True
        while more:
            group, rest = rest & 0x1F, rest >> 5
            more = rest != (-1 if group & 0x10 else 0)
            characters.append(chr(48 + (group | (0x20 if more else 0))))
    return "".join(characters)


def expand_counts(text: str) -> list[int]:
    """The inverse of :func:`compress_counts`.

    Raises:
        InputError: a character is none of COCO's, the text ends inside a number, or a number has no end.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64:
            raise InputError(f"compressed run lengths hold the character {character!r}, which means nothing there")
        value |= (group & 0x1F) << shift
        shift += 5
        if shift > _MOST_SHIFT:
            raise InputError("compressed run lengths hold a number that is too large for any mask")
        if group & 0x20:
            continue
        if group & 0x10:
            value -= 1 << shift  # sign
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise InputError("compressed run lengths end inside a number")
    return counts
