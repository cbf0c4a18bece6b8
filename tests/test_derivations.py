"""Every number that docs/derivations.md states, computed by the operation itself, in the order of the page."""

import math

import pytest
from reference import assert_close

from mrcnn_scratch import ops
from mrcnn_scratch.backend import to_host
from mrcnn_scratch.boxes import decode_boxes, encode_boxes
from mrcnn_scratch.nn import Parameter
from mrcnn_scratch.nn.layers import adding_gradients


def numbers(array):
    """All numbers of an array, in the order of memory."""
    return to_host(array).reshape(-1).tolist()


def row(xp, *values):
    """One image of one row of pixels of one channel: (1, 1, W, 1)."""
    return xp.asarray([float(value) for value in values]).reshape(1, 1, -1, 1)


def kernel(xp, *values):
    """(1, KW, 1, 1)."""
    return xp.asarray([float(value) for value in values]).reshape(1, -1, 1, 1)


def test_linear(xp):
    x, weight = xp.asarray([[1.0, 2], [3, 4]]), xp.asarray([[1.0, 0], [2, -1]])
    y, backward = ops.linear(x, weight, xp.asarray([10.0, 20]))
    assert to_host(y).tolist() == [[15, 18], [21, 16]]
    dx, dweight, dbias = backward(xp.asarray([[1.0, 2], [0, -1]]))
    assert to_host(dx).tolist() == [[1, 0], [0, 1]]
    assert to_host(dweight).tolist() == [[1, -1], [2, 0]]
    assert to_host(dbias).tolist() == [1, 1]


def test_convolution_of_stride_1(xp):
    y, backward = ops.conv2d(row(xp, 1, 2, 3, 4), kernel(xp, 1, 10, 100), xp.asarray([0.0]))
    assert numbers(y) == [321, 432]
    dx, dweight, dbias = backward(row(xp, 1, 2))
    assert numbers(dx) == [1, 12, 120, 200]
    assert numbers(dweight) == [5, 8, 11]
    assert numbers(dbias) == [3]


def test_the_turned_kernel_gives_the_same(xp):
    dy_with_border = row(xp, 0, 0, 1, 2, 0, 0)
    assert numbers(ops.conv2d(dy_with_border, kernel(xp, 100, 10, 1))[0]) == [1, 12, 120, 200]


def test_convolution_of_stride_2(xp):
    y, backward = ops.conv2d(row(xp, 1, 2, 3, 4, 5), kernel(xp, 1, 10, 100), stride=2)
    assert numbers(y) == [321, 543]
    dx, dweight = backward(row(xp, 1, 2))
    assert numbers(dx) == [1, 10, 102, 20, 200]
    assert numbers(dweight) == [7, 10, 13]


def test_transposed_convolution(xp):
    y, backward = ops.conv_transpose2d(row(xp, 1, 2), kernel(xp, 1, 10, 100), xp.asarray([0.0]), stride=2)
    assert numbers(y) == [1, 10, 102, 20, 200]
    dx, dweight, dbias = backward(row(xp, 1, 2, 3, 4, 5))
    assert numbers(dx) == [321, 543]
    assert numbers(dweight) == [7, 10, 13]
    assert numbers(dbias) == [15]


def test_batch_norm(xp):
    (y, mean, var), backward = ops.batch_norm(row(xp, 1, 1, 3, 3), xp.asarray([2.0]), xp.asarray([5.0]), eps=0.0)
    assert (numbers(mean), numbers(var), numbers(y)) == ([2], [1], [3, 3, 7, 7])
    dx, dweight, dbias = backward(row(xp, 4, 0, 0, 0))
    assert (numbers(dbias), numbers(dweight), numbers(dx)) == ([4], [-4], [4, -4, 0, 0])
    assert sum(numbers(dx)) == 0
    assert sum(d * n for d, n in zip(numbers(dx), [-1, -1, 1, 1], strict=True)) == 0


def test_frozen_batch_norm(xp):
    statistics = xp.asarray([2.0]), xp.asarray([1.0])
    y, backward = ops.frozen_batch_norm(row(xp, 1, 1, 3, 3), xp.asarray([2.0]), xp.asarray([5.0]), *statistics, eps=0.0)
    assert numbers(y) == [3, 3, 7, 7]
    dx, dweight, dbias = backward(row(xp, 4, 0, 0, 0))
    assert (numbers(dbias), numbers(dweight), numbers(dx)) == ([4], [-4], [8, 0, 0, 0])


def test_relu(xp):
    y, backward = ops.relu(xp.asarray([-1.0, 0, 2]))
    assert numbers(y) == [0, 0, 2]
    assert numbers(backward(xp.asarray([5.0, 6, 7]))) == [0, 0, 7]


def test_max_pooling(xp):
    x = xp.asarray([[1.0, 5, 2], [3, 4, 5]]).reshape(1, 2, 3, 1)
    y, backward = ops.max_pool2d(x, kernel_size=2, stride=1)
    assert numbers(y) == [5, 5]
    assert to_host(backward(row(xp, 10, 20)))[0, ..., 0].tolist() == [[0, 30, 0], [0, 0, 0]]


def test_upsampling(xp):
    y, backward = ops.upsample_nearest(row(xp, 1, 2, 3), (1, 4))
    assert numbers(y) == [1, 1, 2, 3]
    assert numbers(backward(row(xp, 1, 2, 3, 4))) == [3, 3, 4]


def test_roi_align(xp):
    features = xp.asarray([[0.0, 1, 2, 3], [4, 5, 6, 7]]).reshape(1, 2, 4, 1)
    y, backward = ops.roi_align(
        features,
        xp.asarray([[0.0, 0, 3, 1]]),
        xp.asarray([0]),
        output_size=(1, 2),
        spatial_scale=1.0,
        sampling_ratio=1,
    )
    assert numbers(y) == [2.75, 4.25]
    dfeatures = to_host(backward(xp.asarray([8.0, 16]).reshape(1, 1, 2, 1)))
    assert dfeatures[0, ..., 0].tolist() == [[1, 3, 6, 2], [1, 3, 6, 2]]
    # The same as products of the matrices that the page writes out.
    a_y, a_x = xp.asarray([[0.5, 0.5]]), xp.asarray([[0.25, 0.75, 0, 0], [0, 0, 0.75, 0.25]])
    assert numbers(a_y @ features[0, ..., 0]) == [2, 3, 4, 5]
    assert numbers(a_y @ features[0, ..., 0] @ a_x.T) == [2.75, 4.25]
    assert to_host(a_y.T @ xp.asarray([[8.0, 16]]) @ a_x).tolist() == [[1, 3, 6, 2], [1, 3, 6, 2]]


def test_cross_entropy(xp):
    logits = xp.asarray([[0, math.log(2), math.log(5)], [0, 0, 0]])
    probabilities = ops.softmax(logits)
    assert_close(probabilities, [[1 / 8, 2 / 8, 5 / 8], [1 / 3, 1 / 3, 1 / 3]])
    loss, backward = ops.cross_entropy(logits, xp.asarray([1, 0]))
    assert_close(loss, math.log(12) / 2)
    assert f"{float(to_host(loss)):.4f}" == "1.2425"
    assert_close(backward(), [[1 / 16, -3 / 8, 5 / 16], [-1 / 3, 1 / 6, 1 / 6]])


def test_sigmoid(xp):
    y, backward = ops.sigmoid(xp.asarray([0, math.log(3)]))
    assert_close(y, [1 / 2, 3 / 4])
    assert_close(backward(xp.asarray([1.0, 1.0])), [1 / 4, 3 / 16])


def test_binary_cross_entropy(xp):
    loss, backward = ops.binary_cross_entropy_with_logits(xp.asarray([0, math.log(3)]), xp.asarray([1, 0.5]))
    terms = math.log(2), -0.5 * math.log(3 / 4) - 0.5 * math.log(1 / 4)
    assert [f"{term:.4f}" for term in terms] == ["0.6931", "0.8370"]
    assert_close(loss, sum(terms) / 2)
    assert f"{float(to_host(loss)):.4f}" == "0.7651"
    assert_close(backward(), [-1 / 4, 1 / 8])


def test_binary_cross_entropy_does_not_overflow(xp):
    loss, backward = ops.binary_cross_entropy_with_logits(xp.asarray([1000.0]), xp.asarray([0.0]))
    assert float(to_host(loss)) == 1000
    assert numbers(backward()) == [1]


def test_smooth_l1(xp):
    loss, backward = ops.smooth_l1(xp.asarray([0.25, -2]), xp.asarray([0.0, 0]), beta=0.5)
    assert float(to_host(loss)) == 0.0625 + 1.75
    assert numbers(backward()) == [0.5, -1]


def test_a_weight_used_twice_gets_both_gradients(xp):
    weight = Parameter(xp.asarray([[3.0]]))
    backwards = []
    for value in (1.0, 2.0):
        _, backward = ops.linear(xp.asarray([[value]]), weight.value)
        backwards.append(adding_gradients(backward, weight))
    assert numbers(backwards[0](xp.asarray([[1.0]]))) == [3]
    assert numbers(backwards[1](xp.asarray([[10.0]]))) == [30]
    assert numbers(weight.grad) == [21]


def test_a_residual_sum_passes_its_gradient_both_ways(xp):
    x = xp.asarray([[2.0]])
    branch, backward_branch = ops.linear(x, xp.asarray([[3.0]]))
    y, backward_relu = ops.relu(branch + x)
    assert numbers(y) == [8]
    dsum = backward_relu(xp.asarray([[1.0]]))
    assert numbers(backward_branch(dsum)[0] + dsum) == [4]


@pytest.mark.parametrize(
    ("weights", "deltas"),
    [((1, 1, 1, 1), [0.3, 0, math.log(2), 0]), ((10, 10, 5, 5), [3, 0, 5 * math.log(2), 0])],
)
def test_boxes(xp, weights, deltas):
    reference, target = xp.asarray([[0.0, 0, 10, 20]]), xp.asarray([[-2.0, 0, 18, 20]])
    encoded = encode_boxes(target, reference, weights)
    assert_close(encoded, [deltas])
    assert_close(decode_boxes(encoded, reference, weights), to_host(target))
    assert [f"{math.log(2):.4f}", f"{5 * math.log(2):.4f}"] == ["0.6931", "3.4657"]
