"""COCO's run-length encoding of masks: how long each run of equal pixels is, column by column, zeros first."""

from typing import Any

import numpy as np

from ..backend import Array
from ..errors import InputError


def encode_rle(mask: Array) -> dict[str, Any]:
    """A mask (H, W) bool as ``{"size": [H, W], "counts": text}``, COCO's compressed form."""
    return {"size": list(mask.shape), "counts": compress_counts(run_lengths(mask))}


def run_lengths(mask: Array) -> list[int]:
    """Lengths of the runs of 0, 1, 0, 1, ... down the columns of ``mask`` (H, W); 0 first if pixel (0, 0) is set."""
    pixels = np.concatenate([[False], np.asarray(mask, bool).T.reshape(-1)])
    changes = np.flatnonzero(pixels[1:] != pixels[:-1])
    return np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()  # type: ignore[no-any-return]


def decode_runs(counts: list[int], size: tuple[int, int]) -> Array:
    """The inverse of :func:`run_lengths`: a mask (H, W) bool.

    Raises:
        InputError: the runs do not fill the mask exactly.
    """
    if min(counts, default=0) < 0 or sum(counts) != size[0] * size[1]:
        raise InputError(f"run lengths sum to {sum(counts)}, but a mask of {size} has {size[0] * size[1]} pixels")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(size[1], size[0]).T


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
        InputError: a character is none of COCO's, or the text ends inside a number.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64:
            raise InputError(f"compressed run lengths hold the character {character!r}, which means nothing there")
        value |= (group & 0x1F) << shift
        shift += 5
        if group & 0x20:
            continue
        if group & 0x10:
            value -= 1 << shift  # sign
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise InputError("compressed run lengths end inside a number")
    return counts
