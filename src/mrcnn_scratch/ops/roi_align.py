"""RoI Align: cut a fixed-size grid of features out of a map, for boxes of any size (Mask R-CNN, section 3).

Each of the OH x OW bins of a box averages S x S samples, each read by bilinear interpolation. Bilinear interpolation is
separable: the weight of pixel (h, w) in the sample (y, x) is ``hat(y - h) hat(x - w)`` with ``hat(t) = max(0, 1 -
|t|)``. So is the average. Hence for one box, with F the features of its image,

    Y = Ay F Ax^T        Ay[i, h] = mean over the samples y in bin row i of hat(y - h), (OH, H); Ax alike, (OW, W)

and, the product being linear in F, the backward is ``dF = Ay^T dY Ax``. All the geometry is in two small matrices, and
the gradients of overlapping boxes add up inside the product. Boxes of one image that lie near each other share one
window of F, so that Ay and Ax need not span the whole map.
"""

import math
from typing import NamedTuple

import numpy as np

from ..backend import Array, array_module, in_parallel, tile_bytes, to_device, to_host
from .contract import Backward, differentiable


class _Axis(NamedTuple):
    """One axis of all boxes: what to read and how to weigh it."""

    samples: Array  # (R, O, S) positions in the map, clamped into it
    weights: Array  # (R, O, S) 1 / number of samples; 0 for a sample that is outside the map

    def reach(self) -> tuple[Array, Array]:
        """The first and the last index that the samples of each box read: (R,) and (R,)."""
        xp = array_module(self.samples)
        if self.samples.shape[2] == 0:  # adaptive sampling of boxes without size: any index will do
            nowhere = xp.zeros(len(self.samples), dtype=self.weights.dtype)
            return nowhere, nowhere
        return xp.floor(self.samples.min(axis=(1, 2))), xp.ceil(self.samples.max(axis=(1, 2)))

    def matrix(self, chosen: Array, window: slice) -> Array:
        """The interpolation matrices of the ``chosen`` boxes over a ``window`` of the map: (n, O, length of window)."""
        xp = array_module(self.samples)
        samples, weights = self.samples[chosen], self.weights[chosen]
        n, bins, count = samples.shape
        below = xp.floor(samples)
        above_weight = (samples - below) * weights  # hat(sample - above) = 1 - hat(sample - below)
        below_weight = weights - above_weight
        index = below.astype(xp.int64) - window.start
        last = window.stop - window.start - 1  # a sample on the last pixel reads nothing above it
        out = xp.zeros((n, bins, last + 1), dtype=weights.dtype)
        box, bin_ = xp.arange(n)[:, None], xp.arange(bins)
        for s in range(count):  # one sample of every bin at a time: no place is named twice, so += counts all
            out[box, bin_, index[..., s]] += below_weight[..., s]
            out[box, bin_, xp.minimum(index[..., s] + 1, last)] += above_weight[..., s]
        return out


class _Group(NamedTuple):
    """Boxes of one image that share a window of its map."""

    boxes: Array  # (n,) int64
    image: int
    rows: slice
    columns: slice


@differentiable
def roi_align(
    features: Array,
    boxes: Array,
    batch_indices: Array,
    *,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool = False,
) -> tuple[Array, Backward]:
    """Bilinearly sample every box on one level of features.

    Args:
        features: (N, H, W, C).
        boxes: (R, 4) in pixels of the image.
        batch_indices: (R,) int64, the image of each box.
        output_size: (OH, OW), the bins.
        spatial_scale: size of the map over size of the image, such as 1/4.
        sampling_ratio: S, samples per bin and axis; 0 or less means ``ceil(bin size)``, box by box.
        aligned: subtract half a pixel, so that the centre of the first pixel is at 0.5 in the image (Detectron2). If
            not, as here and in torchvision, sizes below one pixel of the map count as one.

    Returns:
        ``y`` (R, OH, OW, C), and ``backward(dy) -> dfeatures`` (N, H, W, C); boxes get no gradient.
        A sample beyond [-1, H] x [-1, W] is 0; one between the border pixel's centre and there reads the border.
    """
    xp = array_module(features)
    shape, channels = features.shape, features.shape[3]
    oh, ow = output_size
    y_axis = _axis(boxes[:, 1::2], oh, shape[1], spatial_scale, sampling_ratio, aligned)
    x_axis = _axis(boxes[:, 0::2], ow, shape[2], spatial_scale, sampling_ratio, aligned)
    box_bytes = oh * shape[2] * channels * features.itemsize  # of one box halfway, if its window is as wide as the map
    groups = _groups(y_axis, x_axis, batch_indices, max(8, 4 * tile_bytes(features) // max(box_bytes, 1)))
    y = xp.empty((len(boxes), oh, ow, channels), dtype=features.dtype)

    def sample(group: _Group) -> None:
        window = features[group.image, group.rows, group.columns]  # (h, w, C)
        h, w, _ = window.shape
        a_y, a_x = y_axis.matrix(group.boxes, group.rows), x_axis.matrix(group.boxes, group.columns)
        over_rows = xp.matmul(a_y.reshape(-1, h), window.reshape(h, -1))  # (n OH, w C)
        y[group.boxes] = xp.matmul(a_x[:, None], over_rows.reshape(-1, oh, w, channels))  # (n, OH, OW, C)

    in_parallel(sample, groups, like=features)

    def backward(dy: Array) -> Array:
        def spread(group: _Group) -> Array:
            a_y, a_x = y_axis.matrix(group.boxes, group.rows), x_axis.matrix(group.boxes, group.columns)
            h, w = a_y.shape[2], a_x.shape[2]
            over_rows = xp.matmul(a_x.transpose(0, 2, 1)[:, None], dy[group.boxes])  # (n, OH, w, C)
            return xp.matmul(a_y.reshape(-1, h).T, over_rows.reshape(-1, w * channels)).reshape(h, w, channels)

        dfeatures = xp.zeros(shape, dtype=dy.dtype)
        for group, dwindow in zip(groups, in_parallel(spread, groups, like=dy), strict=True):
            dfeatures[group.image, group.rows, group.columns] += dwindow
        return dfeatures

    return y, backward


def _axis(ends: Array, bins: int, size: int, scale: float, sampling_ratio: int, aligned: bool) -> _Axis:
    """Where the boxes' samples lie along one axis.

    Args:
        ends: (R, 2), where each box starts and stops, in pixels of the image.
        bins: output size along this axis.
        size: of the map along this axis.
        scale: spatial scale.
        sampling_ratio: as in :func:`roi_align`.
        aligned: as in :func:`roi_align`.
    """
    xp = array_module(ends)
    start = ends[:, 0] * scale - (0.5 if aligned else 0.0)
    length = (ends[:, 1] - ends[:, 0]) * scale
    if not aligned:
        length = xp.maximum(length, 1)
    bin_length = length / bins  # (R,)
    if sampling_ratio > 0:
        count, most = xp.full(len(ends), sampling_ratio), sampling_ratio
    else:
        count = xp.maximum(xp.ceil(bin_length), 0).astype(xp.int64)
        most = int(count.max()) if len(ends) else 0
    k = xp.arange(most)
    counted = xp.maximum(count, 1)[:, None]
    within_bin = (k + 0.5) / counted  # (R, S): the middle of each sample's share of the bin
    position = start[:, None, None] + (xp.arange(bins)[:, None] + within_bin[:, None]) * bin_length[:, None, None]
    used = (k < count[:, None])[:, None] & (position >= -1) & (position <= size)  # (R, O, S)
    # A sample that is not used is moved to where the box's first one is, so that it does not widen the window.
    samples = xp.clip(xp.where(k < count[:, None, None], position, position[..., :1]), 0, size - 1)
    return _Axis(samples, (used / counted[:, None]).astype(ends.dtype))


def _groups(y_axis: _Axis, x_axis: _Axis, batch_indices: Array, most: int) -> list[_Group]:
    """Boxes in groups of at most ``most``, each of one image and near each other.

    The windows are found on the host: one wait for the GPU per call.
    """
    xp = array_module(batch_indices)
    if not len(batch_indices):
        return []
    numbers = xp.stack([*y_axis.reach(), *x_axis.reach(), batch_indices.astype(y_axis.weights.dtype)])
    *ends, images = to_host(numbers).astype(np.int64)  # (R,) each: top, bottom, left, right; and the image
    members = [
        chosen for image in np.unique(images) for chosen in _neighbours(np.flatnonzero(images == image), ends, most)
    ]
    on_device = to_device(np.concatenate(members), like=batch_indices)  # one copy for all groups
    groups, start = [], 0
    for chosen in members:
        top, bottom, left, right = (int(f(e[chosen])) for f, e in zip((min, max) * 2, ends, strict=True))
        boxes = on_device[start : start + len(chosen)]
        groups.append(_Group(boxes, int(images[chosen[0]]), slice(top, bottom + 1), slice(left, right + 1)))
        start += len(chosen)
    return groups


def _neighbours(boxes: Array, ends: list[Array], most: int) -> list[Array]:
    """Cut the boxes of one image into bands by their top, and each band by its left: groups of at most ``most``."""
    count = math.ceil(len(boxes) / most)
    by_top = boxes[np.argsort(ends[0][boxes], kind="stable")]
    bands = np.array_split(by_top, math.ceil(math.sqrt(count)))
    groups = []
    for band in bands:
        by_left = band[np.argsort(ends[2][band], kind="stable")]
        groups += np.array_split(by_left, math.ceil(len(band) / most))
    return groups
