"""From the user's images to the network's input, and back again, as torchvision does it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..backend import Array, array_module, to_device
from ..config import TransformConfig
from ..errors import InputError
from ..structures import Target


class Batch(NamedTuple):
    """Images as the network takes them."""

    pixels: Array  # (N, H, W, 3) normalised, resized, padded with zeros on the right and below
    sizes: list[tuple[int, int]]  # (height, width) of each image inside the padding
    original_sizes: list[tuple[int, int]]  # as handed over


def make_batch(images: Sequence[Array], config: TransformConfig, like: Array) -> Batch:
    """Normalise, resize and pad images into one array of the kind and dtype of ``like``.

    Args:
        images: uint8 (H, W, 3) RGB, of any sizes. Host arrays.
        config: mean, std, size limits, divisor.
        like: the network's kind of array.

    Raises:
        InputError: there are no images, or one is of another type or shape.
    """
    check_images(images)
    xp = array_module(like)
    original_sizes = [image.shape[:2] for image in images]
    sizes = [resized_size(size, config) for size in original_sizes]
    height, width = (math.ceil(max(side) / config.divisor) * config.divisor for side in zip(*sizes, strict=True))
    pixels = xp.zeros((len(images), height, width, 3), dtype=like.dtype)
    mean, std = (xp.asarray(values, dtype=like.dtype) for values in (config.mean, config.std))
    for i, (image, (h, w)) in enumerate(zip(images, sizes, strict=True)):
        pixels[i, :h, :w] = resize_bilinear(normalise(to_device(image, like=like), mean, std), (h, w))
    return Batch(pixels, sizes, original_sizes)


def check_images(images: Sequence[Array]) -> None:
    """Raise an InputError unless ``images`` is a non-empty list of uint8 (H, W, 3) arrays."""
    if len(images) == 0:
        raise InputError("the list of images is empty: hand over at least one")
    for i, image in enumerate(images):
        if not isinstance(image, np.ndarray):
            raise InputError(f"image {i} is a {type(image).__name__}: hand over NumPy arrays, uint8 (H, W, 3)")
        if image.dtype != np.uint8:
            raise InputError(f"image {i} has dtype {image.dtype}: it must be uint8, 0 to 255")
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise InputError(f"image {i} has shape {image.shape}: it must be (H, W, 3) RGB")


def check_target(target: Target, size: tuple[int, int], classes: int, name: str) -> None:
    """Raise an InputError unless ``target`` describes objects of an image of ``size`` (height, width).

    Args:
        target: boxes, labels and masks.
        size: of its image.
        classes: labels must be in 1..classes.
        name: of the image, for the message.
    """
    count = len(target.labels)
    if target.boxes.shape != (count, 4):
        raise InputError(f"{name}: boxes have shape {target.boxes.shape}, for {count} labels they must be ({count}, 4)")
    if target.masks.shape != (count, *size):
        raise InputError(
            f"{name}: masks have shape {target.masks.shape}, but {count} objects in an image of {size} "
            f"need {(count, *size)}"
        )
    if target.masks.dtype != bool:
        raise InputError(f"{name}: masks have dtype {target.masks.dtype}: they must be bool")
    if not np.isfinite(target.boxes).all():
        raise InputError(f"{name}: a box holds a NaN or an infinity")
    sides = target.boxes[:, 2:] - target.boxes[:, :2]
    if (sides <= 0).any():
        raise InputError(
            f"{name}: box {target.boxes[(sides <= 0).any(axis=1)][0].tolist()} has no area (x1, y1, x2, y2)"
        )
    if ((target.labels < 1) | (target.labels > classes)).any():
        raise InputError(f"{name}: labels must be in 1..{classes}, got {sorted(set(target.labels.tolist()))}")


def resized_size(size: tuple[int, int], config: TransformConfig) -> tuple[int, int]:
    """(height, width) after resizing: the short side to ``min_size``, the long one to at most ``max_size``."""
    scale = min(config.min_size / min(size), config.max_size / max(size))
    return max(1, math.floor(size[0] * scale)), max(1, math.floor(size[1] * scale))


def normalise(image: Array, mean: Array, std: Array) -> Array:
    """uint8 (H, W, 3) to ``(image / 255 - mean) / std``, with ``mean`` and ``std`` (3,) of the float type wanted."""
    return (image.astype(mean.dtype) / 255 - mean) / std


def resize_bilinear(x: Array, size: tuple[int, int]) -> Array:
    """(H, W, C) to (OH, OW, C): each output pixel reads the two nearest rows and columns around its centre.

    Row i of OH lies at ``(i + 1/2) H / OH - 1/2`` of the input; no smoothing when shrinking, as in PyTorch's
    ``interpolate``.
    """
    if x.shape[:2] == size:
        return x
    y0, y1, wy = _neighbours(x, x.shape[0], size[0])
    x0, x1, wx = _neighbours(x, x.shape[1], size[1])
    rows = x[y0] * (1 - wy)[:, None, None] + x[y1] * wy[:, None, None]  # (OH, W, C)
    return rows[:, x0] * (1 - wx)[:, None] + rows[:, x1] * wx[:, None]  # (OH, OW, C)


def _neighbours(x: Array, size: int, new_size: int) -> tuple[Array, Array, Array]:
    """Per output place: the index before it, the index after it, and the weight of the latter."""
    xp = array_module(x)
    position = (xp.arange(new_size, dtype=x.dtype) + 0.5) * (size / new_size) - 0.5
    position = xp.clip(position, 0, size - 1)
    before = position.astype(xp.int64)
    return before, xp.minimum(before + 1, size - 1), position - before


def resize_target(target: Target, size: tuple[int, int], new_size: tuple[int, int]) -> Target:
    """``target`` as it is in its image resized from ``size`` to ``new_size``: boxes scaled, masks by nearest pixel."""
    if size == new_size:
        return target
    boxes, ignore = (resize_boxes(boxes, size, new_size) for boxes in (target.boxes, target.ignore))
    rows, columns = (
        np.minimum(np.floor(np.arange(new) * np.float32(old / new)).astype(np.int64), old - 1)
        for old, new in zip(size, new_size, strict=True)
    )
    masks = target.masks[:, rows][:, :, columns]
    return Target(boxes, target.labels, masks, target.crowd, ignore=ignore)


def resize_boxes(boxes: Array, size: tuple[int, int], new_size: tuple[int, int]) -> Array:
    """Boxes (R, 4) of an image of ``size`` in the same image at ``new_size``."""
    y, x = (np.float32(new) / np.float32(old) for new, old in zip(new_size, size, strict=True))
    return boxes * to_device([x, y, x, y], like=boxes).astype(boxes.dtype)
