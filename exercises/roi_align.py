"""Exercise: RoI Align and its backward. Judge it: make exercise NAME=roi_align. Notebook 06."""

from collections.abc import Callable

import numpy as np


def roi_align(
    features: np.ndarray,
    boxes: np.ndarray,
    batch_indices: np.ndarray,
    *,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> tuple[np.ndarray, Callable]:
    """Cut a grid of OH x OW features out of a map for every box, without rounding the box to pixels.

    For one box, along y (x is alike, with OW, W, x1 and x2):

        start  = y1 scale          (aligned: y1 scale - 0.5)
        length = (y2 - y1) scale   (not aligned: at least 1)
        bin    = length / OH
        S      = sampling_ratio    (if that is 0 or less: bin rounded up, at least 0; of each axis by itself)
        sample a of bin i lies at  start + (i + (a + 0.5) / S) bin        a = 0 .. S - 1

    An output number is the *mean* over the samples of its bin, S along y times S along x, each read by bilinear
    interpolation. Read the map at (y, x) like this:

        y < -1 or y > H or x < -1 or x > W: the sample is 0
        else move y into [0, H - 1] and x into [0, W - 1]
        top = floor(y), bottom = min(top + 1, H - 1), left and right alike
        weight of the pixel (top, left) = (1 - (y - top)) (1 - (x - left)), of (bottom, left) = (y - top) (1 - (x -
        left)), and so on for the other two

    In the backward each of these pixels gets its weight times ``dy / number of samples``, *added* to what other
    samples and other boxes gave it. The boxes get no gradient.

    Args:
        features: (N, H, W, C) maps.
        boxes: (R, 4) boxes ``x1, y1, x2, y2`` in pixels of the image. R may be 0.
        batch_indices: (R,) whole numbers: which of the N maps a box reads.
        output_size: (OH, OW), the number of bins.
        spatial_scale: scale, the size of the map over the size of the image, such as 1/4.
        sampling_ratio: S, samples per bin along one axis; 0 or less: see above.
        aligned: whether to move the box by half a pixel of the map.

    Returns:
        ``y, backward``: y is (R, OH, OW, C), and ``backward(dy)`` returns the gradient for the features, (N, H, W, C).
        A bin without any sample is 0. Do not write to the inputs or to dy.

    Example (N and C are 1):
        features[y, x] = 10 y + x, 6 rows and 6 columns; box = [1, 2, 3, 6], 2 x 2 bins, scale 1, 1 sample, not aligned.
        Bins are 1 wide and 2 high, so the samples are at x = 1.5, 2.5 and y = 3, 5: y = [[31.5, 32.5], [51.5, 52.5]]
        backward of dy = [[8, 0], [0, 0]]: 4 at row 3, column 1, and 4 at row 3, column 2.
    """
    raise NotImplementedError("write me")
