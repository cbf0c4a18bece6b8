"""Convolution and transposed convolution."""

from typing import NamedTuple

import numpy as np
import pytest
from gradcheck import check_gradients
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_close, cases, channels_last, check_case

from mrcnn_scratch import ops
from mrcnn_scratch.backend import to_host
from mrcnn_scratch.errors import InputError

# By hand

NINE = [[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]


def one_channel(xp, rows):
    """(1, H, W, 1) from rows of numbers."""
    return xp.asarray(rows, dtype=float)[None, :, :, None]


def one_kernel(xp, rows):
    """(KH, KW, 1, 1) from rows of numbers."""
    return xp.asarray(rows, dtype=float)[:, :, None, None]


def test_a_convolution_by_hand(xp):
    kernel = [[1, 2], [0, -1]]
    y, backward = ops.conv2d(one_channel(xp, NINE), one_kernel(xp, kernel), xp.asarray([100.0]))
    # Top left: 1*1 + 2*2 + 0*4 - 1*5 = 0. The kernel is not flipped: that gives -1*1 + 0*2 + 2*4 + 1*5 = 12.
    assert to_host(y)[0, :, :, 0].tolist() == [[100, 102], [106, 108]]

    dx, dweight, dbias = backward(one_channel(xp, [[1, 0], [0, 2]]))
    # dx: the kernel stamped at the top left and, doubled, at the bottom right; they overlap in the middle.
    assert to_host(dx)[0, :, :, 0].tolist() == [[1, 2, 0], [0, -1 + 2, 4], [0, 0, -2]]
    # dW: the top left patch once, and the bottom right patch twice.
    assert to_host(dweight)[:, :, 0, 0].tolist() == [[1 + 2 * 5, 2 + 2 * 6], [4 + 2 * 8, 5 + 2 * 9]]
    assert to_host(dbias).tolist() == [3]


def test_stride_and_padding_by_hand(xp):
    y, _ = ops.conv2d(one_channel(xp, NINE), xp.ones((3, 3, 1, 1)), stride=2, padding=1)
    # Windows in the four corners, each hanging over the edge by one row and one column of zeros.
    assert to_host(y)[0, :, :, 0].tolist() == [[1 + 2 + 4 + 5, 2 + 3 + 5 + 6], [4 + 5 + 7 + 8, 5 + 6 + 8 + 9]]


def test_channels_by_hand(xp):
    pixel = xp.asarray([1.0, 10]).reshape(1, 1, 1, 2)
    weight = xp.asarray([[1.0, 2], [3, 4]]).reshape(1, 1, 2, 2)  # from channel (row) to feature (column)
    y, _ = ops.conv2d(pixel, weight)
    assert to_host(y).ravel().tolist() == [1 * 1 + 10 * 3, 1 * 2 + 10 * 4]


def test_a_transposed_convolution_by_hand(xp):
    x, kernel = one_channel(xp, [[1, 2]]), one_kernel(xp, [[1, 2], [3, 4]])
    side_by_side, _ = ops.conv_transpose2d(x, kernel, stride=2)
    assert to_host(side_by_side)[0, :, :, 0].tolist() == [[1, 2, 2, 4], [3, 4, 6, 8]]
    overlapping, backward = ops.conv_transpose2d(x, kernel, xp.asarray([10.0]), stride=1)
    assert to_host(overlapping)[0, :, :, 0].tolist() == [[11, 10 + 2 + 2, 14], [13, 10 + 4 + 6, 18]]

    dx, dweight, dbias = backward(one_channel(xp, [[1, 0, 0], [0, 0, 1]]))
    assert to_host(dx)[0, :, :, 0].tolist() == [
        [1, 4]
    ]  # the left pixel sees the 1 over its 1, the right one over its 4
    assert to_host(dweight)[:, :, 0, 0].tolist() == [[1, 0], [0, 2]]
    assert to_host(dbias).tolist() == [2]


# The slow version


def slow_conv2d(x, weight, bias, stride, padding):
    (n, height, width, _), (kh, kw, channels, features) = x.shape, weight.shape
    rows, columns = (height + 2 * padding - kh) // stride + 1, (width + 2 * padding - kw) // stride + 1
    y = np.zeros((n, rows, columns, features))
    for m, i, j, f in np.ndindex(y.shape):
        y[m, i, j, f] = bias[f]
        for a, b, c in np.ndindex(kh, kw, channels):
            row, column = i * stride + a - padding, j * stride + b - padding
            if 0 <= row < height and 0 <= column < width:
                y[m, i, j, f] += x[m, row, column, c] * weight[a, b, c, f]
    return y


def slow_conv_transpose2d(x, weight, bias, stride):
    (n, height, width, _), (kh, kw, channels, features) = x.shape, weight.shape
    y = np.zeros((n, (height - 1) * stride + kh, (width - 1) * stride + kw, features)) + bias
    for m, i, j, a, b, c, f in np.ndindex(n, height, width, kh, kw, channels, features):
        y[m, i * stride + a, j * stride + b, f] += x[m, i, j, c] * weight[a, b, c, f]
    return y


class Problem(NamedTuple):
    x: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    stride: int
    padding: int


@st.composite
def problems(draw, padded=True):
    """Small convolutions of every kind: sizes, channels, strides, paddings, kernels that are not square."""
    small, seed = st.integers(1, 3), draw(st.integers(0, 2**32 - 1))
    n, channels, features, stride = draw(small), draw(small), draw(small), draw(small)
    kernel = draw(small), draw(small)
    padding = draw(st.integers(0, 3)) if padded else 0
    size = [max(1, k - 2 * padding) + draw(st.integers(0, 4)) for k in kernel]
    rng = np.random.default_rng(seed)
    x, weight = rng.normal(size=(n, *size, channels)), rng.normal(size=(*kernel, channels, features))
    return Problem(x, weight, rng.normal(size=features), stride, padding)


@given(p=problems())
def test_conv2d_is_the_slow_one(xp, p):
    y, _ = ops.conv2d(*(xp.asarray(a) for a in p[:3]), stride=p.stride, padding=p.padding)
    assert_close(y, slow_conv2d(*p))


@given(p=problems(padded=False))
def test_conv_transpose2d_is_the_slow_one(xp, p):
    y, _ = ops.conv_transpose2d(*(xp.asarray(a) for a in p[:3]), stride=p.stride)
    assert_close(y, slow_conv_transpose2d(*p[:4]))


# Properties


@given(p=problems())
def test_backward_is_the_transpose(xp, p):
    """A convolution is linear in x: ``<conv(other), dy> = <other, dx>`` for every other x. So it is in W."""
    rng = np.random.default_rng(0)
    x, weight = xp.asarray(p.x), xp.asarray(p.weight)
    y, backward = ops.conv2d(x, weight, stride=p.stride, padding=p.padding)
    dy, other_x, other_weight = (rng.normal(size=a.shape) for a in (y, x, weight))
    dx, dweight = backward(xp.asarray(dy))
    from_x, _ = ops.conv2d(xp.asarray(other_x), weight, stride=p.stride, padding=p.padding)
    from_weight, _ = ops.conv2d(x, xp.asarray(other_weight), stride=p.stride, padding=p.padding)
    assert np.isclose((to_host(from_x) * dy).sum(), (other_x * to_host(dx)).sum())
    assert np.isclose((to_host(from_weight) * dy).sum(), (other_weight * to_host(dweight)).sum())


@given(p=problems(padded=False))
def test_conv_transpose2d_is_the_transpose_of_conv2d(xp, p):
    """With the channel axes of the weight exchanged, one's forward is the other's ``dx``; ``dW`` is alike."""
    x, weight = xp.asarray(p.x), xp.asarray(p.weight)
    y, backward_transposed = ops.conv_transpose2d(x, weight, stride=p.stride)
    z = xp.asarray(np.random.default_rng(0).normal(size=y.shape))
    exchanged = xp.ascontiguousarray(weight.transpose(0, 1, 3, 2))
    y_conv, backward = ops.conv2d(z, exchanged, stride=p.stride)
    dx, dweight = backward_transposed(z)
    dz, dexchanged = backward(x)
    assert_close(dx, to_host(y_conv))
    assert_close(y, to_host(dz))
    assert_close(dweight, to_host(dexchanged).transpose(0, 1, 3, 2))


@given(p=problems(), down=st.integers(0, 3), right=st.integers(0, 3))
def test_what_moves_in_moves_out(xp, p, down, right):
    """A pattern on a black field moves by the stride: the output moves by one (translation equivariance)."""
    n, height, width, channels = p.x.shape
    s, kernel = p.stride, p.weight.shape

    def output_with_pattern_at(i, j):
        field = np.zeros((n, height + 2 * kernel[0] + 3 * s, width + 2 * kernel[1] + 3 * s, channels))
        field[:, kernel[0] + i : kernel[0] + i + height, kernel[1] + j : kernel[1] + j + width] = p.x
        return to_host(ops.conv2d(xp.asarray(field), xp.asarray(p.weight), stride=s)[0])

    still, moved = output_with_pattern_at(0, 0), output_with_pattern_at(s * down, s * right)
    rows, columns = still.shape[1] - down, still.shape[2] - right
    assert_close(moved[:, down:, right:], still[:, :rows, :columns])


@given(p=problems())
def test_images_do_not_meet(xp, p):
    together, _ = ops.conv2d(*(xp.asarray(a) for a in p[:3]), stride=p.stride, padding=p.padding)
    weight, bias = xp.asarray(p.weight), xp.asarray(p.bias)
    for i in range(len(p.x)):
        alone, _ = ops.conv2d(xp.asarray(p.x[i : i + 1]), weight, bias, stride=p.stride, padding=p.padding)
        assert_close(alone, to_host(together)[i : i + 1])


@given(p=problems())
def test_any_memory_layout_will_do(xp, p):
    """Views with gaps and reversed axes give what contiguous copies give, forwards and backwards."""
    x, weight = xp.asarray(p.x)[:, ::-1, ::2], xp.asarray(p.weight).transpose(1, 0, 2, 3)
    bias = xp.asarray(p.bias)
    padding = p.padding + 3  # whatever is left of x, the kernel fits
    views = ops.conv2d(x, weight, bias, stride=p.stride, padding=padding)
    copies = ops.conv2d(xp.ascontiguousarray(x), xp.ascontiguousarray(weight), bias, stride=p.stride, padding=padding)
    assert_close(views[0], to_host(copies[0]))
    dy = np.random.default_rng(0).normal(size=(*views[0].shape, 2))
    for a, b in zip(views[1](xp.asarray(dy)[..., 0]), copies[1](xp.asarray(dy[..., 0])), strict=True):
        assert_close(a, to_host(b))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stride", [1, 2])
def test_precision_is_the_input_s(xp, rng, dtype, stride):
    x, weight, bias = (rng.normal(size=s).astype(dtype) for s in [(2, 5, 6, 3), (3, 3, 3, 4), (4,)])
    y, backward = ops.conv2d(xp.asarray(x), xp.asarray(weight), xp.asarray(bias), stride=stride, padding=1)
    assert y.dtype == dtype
    assert_close(y, slow_conv2d(x.astype(float), weight.astype(float), bias, stride, 1), 10 * np.finfo(dtype).eps)
    assert [g.dtype for g in backward(y)] == [dtype] * 3


@pytest.mark.parametrize("stride", [1, 2])
def test_no_images(xp, stride):
    """The mask head meets zero RoIs: nothing in, nothing out, and gradients of 0 for the weights."""
    x, weight, bias = xp.zeros((0, 4, 4, 2)), xp.ones((2, 2, 2, 3)), xp.ones(3)
    for op, size in ((ops.conv2d, {1: 3, 2: 2}), (ops.conv_transpose2d, {1: 5, 2: 8})):
        y, backward = op(x, weight, bias, stride=stride)
        assert y.shape == (0, size[stride], size[stride], 3)
        dx, dweight, dbias = backward(y)
        assert dx.shape == x.shape
        assert to_host(dweight).tolist() == np.zeros(weight.shape).tolist()
        assert to_host(dbias).tolist() == [0, 0, 0]


# Gradients, element by element

SHAPES = [  # kernel, stride, padding: the heads', the stem's, a 1x1 with stride, odd ones
    ((3, 3), 1, 1),
    ((1, 1), 1, 0),
    ((1, 1), 2, 0),
    ((3, 3), 2, 1),
    ((2, 3), 1, 0),
    ((2, 2), 1, 2),
    ((3, 2), 3, 1),
]


@pytest.mark.parametrize(("kernel", "stride", "padding"), SHAPES)
def test_gradients_of_conv2d(xp, rng, kernel, stride, padding):
    inputs = [rng.normal(size=s) for s in [(2, 5, 4, 2), (*kernel, 2, 3), (3,)]]
    check_gradients(lambda *a: ops.conv2d(*a, stride=stride, padding=padding), inputs, rng, xp=xp)
    check_gradients(lambda *a: ops.conv2d(*a, stride=stride, padding=padding), inputs[:2], rng, xp=xp)


@pytest.mark.parametrize(("kernel", "stride"), [((2, 2), 2), ((3, 3), 1), ((3, 2), 2), ((1, 1), 1), ((1, 2), 3)])
def test_gradients_of_conv_transpose2d(xp, rng, kernel, stride):
    inputs = [rng.normal(size=s) for s in [(2, 3, 4, 2), (*kernel, 2, 3), (3,)]]
    check_gradients(lambda *a: ops.conv_transpose2d(*a, stride=stride), inputs, rng, xp=xp)
    check_gradients(lambda *a: ops.conv_transpose2d(*a, stride=stride), inputs[:2], rng, xp=xp)


# PyTorch's numbers


@pytest.mark.parametrize("case", cases("conv2d"))
def test_conv2d_is_pytorch_s(xp, case):
    def op(*inputs):
        return ops.conv2d(*inputs, stride=int(case["stride"]), padding=int(case["padding"]))

    inputs = channels_last(case["x"]), case["w"].transpose(2, 3, 1, 0), case["b"]
    gradients = channels_last(case["dx"]), case["dw"].transpose(2, 3, 1, 0), case["db"]
    check_case(xp, op, inputs, channels_last(case["y"]), channels_last(case["dy"]), gradients)


@pytest.mark.parametrize("case", cases("conv_transpose2d"))
def test_conv_transpose2d_is_pytorch_s(xp, case):
    def op(*inputs):
        return ops.conv_transpose2d(*inputs, stride=int(case["stride"]))

    inputs = channels_last(case["x"]), case["w"].transpose(2, 3, 0, 1), case["b"]
    gradients = channels_last(case["dx"]), case["dw"].transpose(2, 3, 0, 1), case["db"]
    check_case(xp, op, inputs, channels_last(case["y"]), channels_last(case["dy"]), gradients)


def test_what_does_not_fit(xp):
    x = xp.asarray(np.zeros((1, 2, 2, 3)))
    with pytest.raises(InputError, match="kernel of \\(3, 3\\) does not fit into a map of 2 x 2"):
        ops.conv2d(x, xp.asarray(np.zeros((3, 3, 3, 1))))
    with pytest.raises(InputError, match="x has 3 channels"):
        ops.conv2d(x, xp.asarray(np.zeros((1, 1, 2, 1))))
