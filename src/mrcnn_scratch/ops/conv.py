"""Convolution and transposed convolution, each with its backward, as matrix products over image patches (im2col).

A patch is what one window of the kernel sees: KH x KW pixels of C channels. Lay every patch out as a row of KH*KW*C
numbers, and the convolution is one product with the weight laid out as (KH*KW*C, F). The rows repeat each pixel KH*KW
times, so they are made tile by tile in one small buffer that stays in cache, used, and overwritten: never kept.
"""

import math
from collections.abc import Iterator
from typing import TypeAlias

from ..backend import Array, array_module, in_parallel, matmul, tile_bytes, workers
from ..errors import InputError
from .contract import Backward, differentiable
from .linear import sum_rows
from .padding import pad, unpad

Tile: TypeAlias = tuple[slice, slice]
"""Which images and which output rows."""


@differentiable
def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    input_gradient: bool = True,
) -> tuple[Array, Backward]:
    """Cross-correlate ``x`` with F kernels.

    ``y[n, i, j, f] = bias[f] + sum_{a, b, c} x[n, i s + a - p, j s + b - p, c] W[a, b, c, f]``, x being 0 outside.

    Args:
        x: (N, H, W, C).
        weight: (KH, KW, C, F).
        bias: (F,) or None.
        stride: s, the step of the window.
        padding: p, the border of zeros on every side.
        input_gradient: False spares the work of ``dx``, which is then None: nobody asks a photograph for its gradient.

    Returns:
        ``y`` (N, OH, OW, F) with ``OH = (H + 2p - KH) // s + 1``, and ``backward(dy) -> dx, dweight, dbias``
        (no ``dbias`` without a bias).
    """
    kernel = weight.shape[:2]
    if weight.shape[2] != x.shape[3]:
        raise InputError(f"x has {x.shape[3]} channels, but the weight {weight.shape} takes {weight.shape[2]}")
    y = _correlate(pad(x, padding), weight, bias, stride)

    def backward(dy: Array) -> tuple[Array, ...]:
        if not input_gradient:
            dx, dweight = None, _weight_gradient(pad(x, padding), dy, kernel, stride)
        elif stride == 1 and padding < min(kernel):
            dx, dweight = _backward_stride_1(x, weight, dy, padding)
        else:
            dx, dweight = _backward_any_stride(x, weight, dy, stride, padding)
        return (dx, dweight) if bias is None else (dx, dweight, sum_rows(dy))

    return y, backward


@differentiable
def conv_transpose2d(x: Array, weight: Array, bias: Array | None = None, *, stride: int = 1) -> tuple[Array, Backward]:
    """The transpose of a convolution: every input pixel stamps ``x W`` onto the output, ``stride`` apart.

    ``y[n, i s + a, j s + b, f] += sum_c x[n, i, j, c] W[a, b, c, f]`` over all i, j, a, b. Where a convolution gathers
    patches, this scatters them, so its backward is a convolution.

    Args:
        x: (N, H, W, C).
        weight: (KH, KW, C, F): C in, F out.
        bias: (F,) or None.
        stride: s, the distance of the stamps.

    Returns:
        ``y`` (N, (H - 1) s + KH, (W - 1) s + KW, F) and ``backward(dy) -> dx, dweight, dbias`` (no ``dbias`` without a
        bias).
    """
    n, height, width, channels = x.shape
    kh, kw, _, features = weight.shape
    per_pixel = weight.transpose(2, 0, 1, 3).reshape(channels, -1)  # (C, KH KW F)
    size = (height - 1) * stride + kh, (width - 1) * stride + kw
    y = array_module(x).empty((n, *size, features), dtype=x.dtype)

    def stamp(images: slice) -> None:
        stamps = (x[images].reshape(-1, channels) @ per_pixel).reshape(-1, height, width, kh, kw, features)
        y[images] = _scatter_patches(stamps, size, stride)
        if bias is not None:
            y[images] += bias

    stamp_bytes = height * width * kh * kw * features * x.itemsize
    step = max(1, tile_bytes(x) // max(stamp_bytes, 1))
    in_parallel(stamp, [slice(i, i + step) for i in range(0, n, step)], like=x)

    def backward(dy: Array) -> tuple[Array, ...]:
        gather = weight.transpose(0, 1, 3, 2)  # (KH, KW, F, C)
        dx = _correlate(dy, gather, None, stride)
        dweight = _weight_gradient(dy, x, (kh, kw), stride).transpose(0, 1, 3, 2)
        return (dx, dweight) if bias is None else (dx, dweight, sum_rows(dy))

    return y, backward


def _correlate(x: Array, weight: Array, bias: Array | None, stride: int) -> Array:
    """Convolution without padding: (N, H, W, C) and (KH, KW, C, F) to (N, OH, OW, F)."""
    xp = array_module(x)
    features = weight.shape[-1]
    matrix = weight.reshape(-1, features)  # (KH KW C, F)
    windows = _windows(x, weight.shape[:2], stride)
    y = xp.empty((*windows.shape[:3], features), dtype=x.dtype)

    def multiply(share: list[Tile]) -> None:
        for tile, patches in _patches(windows, share):
            rows = xp.matmul(patches, matrix, out=y[tile].reshape(-1, features))
            if bias is not None:
                rows += bias

    in_parallel(multiply, _shares(windows), like=x)
    return y


def _backward_stride_1(x: Array, weight: Array, dy: Array, padding: int) -> tuple[Array, Array]:
    """Both gradients from the patches of ``dy`` alone.

    Input pixel q meets kernel place k in output p = q + padding - k, so with patches of ``dy`` around q:
    ``dx[q] = sum_k dy[q + padding - k] W[k]^T`` and ``dW[k] = sum_q x[q]^T dy[q + padding - k]``.
    The index of ``dy`` falls as k rises: a correlation with the kernel turned by 180 degrees, over ``dy`` padded by K -
    1 - padding.
    """
    xp = array_module(x)
    kh, kw, channels, features = weight.shape
    turned = weight[::-1, ::-1].transpose(0, 1, 3, 2).reshape(-1, channels)  # (KH KW F, C)
    dx = xp.empty(x.shape, dtype=dy.dtype)
    windows = _windows(pad(dy, (kh - 1 - padding, kw - 1 - padding)), (kh, kw), 1)

    def multiply(share: list[Tile]) -> Array:
        dturned = xp.zeros((channels, kh * kw * features), dtype=dy.dtype)
        for tile, patches in _patches(windows, share):
            xp.matmul(patches, turned, out=dx[tile].reshape(-1, channels))
            dturned += xp.matmul(x[tile].reshape(-1, channels).T, patches)
        return dturned

    dturned = sum(in_parallel(multiply, _shares(windows), like=x))
    dweight = dturned.reshape(channels, kh, kw, features)[:, ::-1, ::-1].transpose(1, 2, 0, 3)
    return dx, dweight


def _backward_any_stride(x: Array, weight: Array, dy: Array, stride: int, padding: int) -> tuple[Array, Array]:
    """The direct backward: ``dW = patches(x)^T dy``, and ``dy W^T`` scattered back to where the patches came from."""
    kh, kw, channels, features = weight.shape
    padded = pad(x, padding)
    dweight = _weight_gradient(padded, dy, (kh, kw), stride)
    dpatches = matmul(dy.reshape(-1, features), weight.reshape(-1, features).T)  # (N OH OW, KH KW C)
    dpatches = dpatches.reshape(*dy.shape[:3], kh, kw, channels)
    return unpad(_scatter_patches(dpatches, padded.shape[1:3], stride), padding), dweight


def _weight_gradient(x: Array, dy: Array, kernel: tuple[int, int], stride: int) -> Array:
    """``sum over patches of patch^T dy``: the weight gradient (KH, KW, C, F) of a convolution without padding."""
    xp = array_module(x)
    channels, features = x.shape[-1], dy.shape[-1]
    windows = _windows(x, kernel, stride)

    def multiply(share: list[Tile]) -> Array:
        dweight = xp.zeros((kernel[0] * kernel[1] * channels, features), dtype=dy.dtype)
        for tile, patches in _patches(windows, share):
            dweight += xp.matmul(patches.T, dy[tile].reshape(-1, features))
        return dweight

    return sum(in_parallel(multiply, _shares(windows), like=x)).reshape(*kernel, channels, features)


def _windows(x: Array, kernel: tuple[int, int], stride: int) -> Array:
    """All patches of ``x`` (N, H, W, C) as a view: (N, OH, OW, KH, KW, C). Nothing is copied."""
    xp = array_module(x)
    n, height, width, channels = x.shape
    rows, columns = (height - kernel[0]) // stride + 1, (width - kernel[1]) // stride + 1
    if rows < 1 or columns < 1:
        raise InputError(f"a kernel of {tuple(kernel)} does not fit into a map of {height} x {width}, padding included")
    sn, sh, sw, sc = x.strides
    shape = (n, rows, columns, *kernel, channels)
    return xp.lib.stride_tricks.as_strided(x, shape, (sn, sh * stride, sw * stride, sh, sw, sc))


def _shares(windows: Array) -> list[list[Tile]]:
    """All tiles, shared out among the workers in as many runs of about the same length.

    A tile is some images or some rows of one image, whose patches fit into :func:`tile_bytes` together.
    """
    n, height = windows.shape[:2]
    row_bytes = math.prod(windows.shape[2:]) * windows.itemsize
    fitting = max(1, tile_bytes(windows) // max(row_bytes, 1))  # output rows in a tile
    if _is_flat(windows):  # nothing to copy, so nothing to keep in cache: one tile for each worker
        fitting = max(1, -(-n * height // workers(windows)))
    images, rows = max(1, min(n, fitting // max(height, 1))), max(1, min(height, fitting))
    tiles = [
        (slice(i, min(i + images, n)), slice(j, min(j + rows, height)))
        for i in range(0, n, images)
        for j in range(0, height, rows)
    ]
    length = max(1, -(-len(tiles) // workers(windows)))
    return [tiles[k : k + length] for k in range(0, len(tiles), length)] or [[]]


def _patches(windows: Array, tiles: list[Tile]) -> Iterator[tuple[Tile, Array]]:
    """Patches as matrix rows, tile by tile: ``tile, (images rows OW, KH KW C)``.

    The rows share one buffer: each tile overwrites the last.
    """
    xp = array_module(windows)
    numbers = math.prod(windows.shape[3:])
    buffer = None
    for tile in tiles:
        view = windows[tile]
        if _is_flat(windows):
            yield tile, view.reshape(-1, numbers)
            continue
        if buffer is None:  # the first tile need not be the largest: a share may start with the last rows of an image
            buffer = xp.empty(max(windows[t].size for t in tiles), dtype=windows.dtype)
        patches = buffer[: view.size].reshape(view.shape)
        patches[...] = view
        yield tile, patches.reshape(-1, numbers)


def _is_flat(windows: Array) -> bool:
    """Whether the patches are rows in memory already: those of a 1x1 kernel with stride 1, which are the pixels."""
    return windows.shape[3] == windows.shape[4] == 1 and bool(windows.flags.c_contiguous)


def _scatter_patches(patches: Array, size: tuple[int, int], stride: int) -> Array:
    """Add patches (N, OH, OW, KH, KW, C) back to where :func:`_windows` reads them: (N, *size, C)."""
    xp = array_module(patches)
    n, rows, columns, kh, kw, channels = patches.shape
    if kh == kw == stride and size == (rows * stride, columns * stride):  # side by side: nothing to add up
        return patches.transpose(0, 1, 3, 2, 4, 5).reshape(n, *size, channels)
    out = xp.zeros((n, *size, channels), dtype=patches.dtype)
    for a in range(kh):
        for b in range(kw):
            out[:, a : a + stride * rows : stride, b : b + stride * columns : stride][:, :rows, :columns] += patches[
                :, :, :, a, b
            ]
    return out
