"""Random changes of a training example that leave its labels true."""

from dataclasses import replace

import numpy as np

from ..backend import Array
from ..structures import Target


def flip_horizontally(image: Array, target: Target) -> tuple[Array, Target]:
    """Mirror image (H, W, 3), boxes and masks left to right."""
    width = image.shape[1]
    boxes, ignore = (
        np.stack([width - x2, y1, width - x1, y2], axis=1) for x1, y1, x2, y2 in (target.boxes.T, target.ignore.T)
    )
    masks = target.masks[:, :, ::-1]
    return np.ascontiguousarray(image[:, ::-1]), replace(target, boxes=boxes, masks=masks, ignore=ignore)


def shuffle_colours(image: Array, rng: np.random.Generator) -> Array:
    """Permute the three colour channels, and turn each into its negative with probability 1/2: 48 versions of an image.

    For shapes whose colour says nothing about what they are, every version is as likely as the original.
    """
    image = image[:, :, rng.permutation(3)]
    return np.where(rng.random(3) < 0.5, 255 - image, image)


def augment(
    image: Array, target: Target, rng: np.random.Generator, *, flip: bool, colours: bool
) -> tuple[Array, Target]:
    """A random version of one example: mirrored half of the time, with shuffled colours if ``colours``."""
    if flip and rng.random() < 0.5:
        image, target = flip_horizontally(image, target)
    if colours:
        image = shuffle_colours(image, rng)
    return image, target
