"""RoI Align: cut a fixed-size grid of features out of a map, for boxes of any size (Mask R-CNN, section 3).

Each of the OH x OW bins of a box averages S x S samples, each read by bilinear interpolation. Bilinear interpolation is
separable: the weight of pixel (h, w) in the sample (y, x) is ``hat(y - h) hat(x - w)`` with ``hat(t) = max(0, 1 -
|t|)``. So is the average. Hence for one box, with F the features under it,

    Y = Ay F Ax^T        Ay[i, h] = mean over samples y in bin row i of hat(y - h), (OH, rows of F); Ax alike

and, the product being linear in F, the backward is ``dF = Ay^T dY Ax``. No indices, no corner cases: all the geometry
is in two small matrices. Boxes are handled some at a time, those of like extent together, so that their windows F have
one shape.
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from ..backend import Array, add_windows, array_module, in_parallel, tile_bytes, to_device, to_host
from .contract import Backward, differentiable

_Group: TypeAlias = tuple[Array, int, int]
"""Boxes (n,) by index, and the rows and columns of the windows that hold them."""


class _Axis(NamedTuple):
    """One axis of all boxes: what to read and how to weigh it."""

    samples: Array  # (R, O, S) positions in the map, clamped into it
    weights: Array  # (R, O, S) 1 / number of samples; 0 for a sample that is outside the map
    first: Array  # (R,) int64, the first index that any sample of the box reads
    extent: Array  # (R,) int64, how many indices from there on

    def matrix(self, chosen: Array, extent: int) -> Array:
        """The interpolation matrices of the ``chosen`` boxes: (n, O, extent)."""
        xp = array_module(self.samples)
        indices = self.first[chosen][:, None] + xp.arange(extent)  # (n, extent)
        distance = xp.abs(self.samples[chosen][..., None] - indices[:, None, None])  # (n, O, S, extent)
        hat = xp.maximum(1 - distance, 0)
        return (hat * self.weights[chosen][..., None]).sum(axis=2).astype(self.weights.dtype)


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
        not,
            as here and in torchvision, sizes below one pixel of the map count as one.

    Returns:
        ``y`` (R, OH, OW, C), and ``backward(dy) -> dfeatures`` (N, H, W, C); boxes get no gradient.
        A sample beyond [-1, H] x [-1, W] is 0; one between the border pixel's centre and there reads the border.
    """
    xp = array_module(features)
    shape, channels = features.shape, features.shape[3]
    y_axis, x_axis = (
        _axis(boxes[:, axis::2], output_size[axis == 0], shape[2 - axis], spatial_scale, sampling_ratio, aligned)
        for axis in (1, 0)
    )
    groups = list(_groups(y_axis, x_axis, tile_bytes(features) // (channels * features.itemsize)))
    y = xp.empty((len(boxes), *output_size, channels), dtype=features.dtype)

    def sample(group: _Group) -> None:
        chosen, height, width = group
        rows = xp.minimum(y_axis.first[chosen][:, None] + xp.arange(height), shape[1] - 1)  # (n, h)
        columns = xp.minimum(x_axis.first[chosen][:, None] + xp.arange(width), shape[2] - 1)  # (n, w)
        pixels = (batch_indices[chosen][:, None, None] * shape[1] + rows[:, :, None]) * shape[2] + columns[:, None]
        windows = features.reshape(-1, channels).take(pixels, axis=0)  # (n, h, w, C)
        a_y = y_axis.matrix(chosen, height)  # (n, OH, h)
        a_x = x_axis.matrix(chosen, width)  # (n, OW, w)
        over_rows = xp.matmul(a_y, windows.reshape(len(chosen), height, -1))  # (n, OH, w C)
        over_rows = over_rows.reshape(len(chosen), -1, width, channels)
        y[chosen] = xp.matmul(a_x[:, None], over_rows)  # (n, OH, OW, C)

    in_parallel(sample, groups, like=features)

    def backward(dy: Array) -> Array:
        def spread(group: _Group) -> Array:
            chosen, height, width = group
            a_y = y_axis.matrix(chosen, height)
            a_x = x_axis.matrix(chosen, width)
            over_rows = xp.matmul(a_x.transpose(0, 2, 1)[:, None], dy[chosen])  # (n, OH, w, C)
            over_rows = over_rows.reshape(len(chosen), output_size[0], -1)  # (n, OH, w C)
            return xp.matmul(a_y.transpose(0, 2, 1), over_rows).reshape(-1, height, width, channels)

        dfeatures = xp.zeros(shape, dtype=dy.dtype)
        for (chosen, _, _), windows in zip(groups, in_parallel(spread, groups, like=dy), strict=True):
            add_windows(dfeatures, windows, batch_indices[chosen], y_axis.first[chosen], x_axis.first[chosen])
        return dfeatures

    return y, backward


def _axis(ends: Array, bins: int, size: int, scale: float, sampling_ratio: int, aligned: bool) -> _Axis:
    """Where the boxes' samples lie along one axis.

    Args:
        ends: (R, 2), where each box starts and stops, in pixels of the image.
        bins: output size along this axis.
        size: of the map along this axis.
        scale: spatial scale.
        sampling_ratio: as in :func:`roi_align`. ``aligned``: likewise.
        aligned: see ``sampling_ratio``.
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
    samples = xp.clip(position, 0, size - 1)
    weights = (used / counted[:, None]).astype(ends.dtype)
    first = xp.floor(samples.min(axis=(1, 2))) if most else xp.zeros(len(ends))
    last = xp.ceil(samples.max(axis=(1, 2))) if most else first
    return _Axis(samples, weights, first.astype(xp.int64), (last - first).astype(xp.int64) + 1)


def _groups(y_axis: _Axis, x_axis: _Axis, pixels: int) -> Iterator[_Group]:
    """Boxes in groups of like extent, whose windows together hold about ``pixels``.

    Yields:
        (indices (n,) int64, rows, columns of the windows). The extents are read on the host: one wait for the GPU per
        level.
    """
    xp = array_module(y_axis.extent)
    heights, widths = to_host(xp.stack([y_axis.extent, x_axis.extent]))
    order = (heights * widths).argsort(kind="stable")
    while len(order):
        # From the largest down: the group's window must hold its largest members.
        count = min(len(order), max(1, pixels // int(heights[order[-1]] * widths[order[-1]])))
        group, order = order[-count:], order[:-count]
        yield to_device(group, like=y_axis.extent), int(heights[group].max()), int(widths[group].max())
