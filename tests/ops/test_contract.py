"""What holds for every operation: it returns its output and its own backward, which works once."""

import weakref

import numpy as np
import pytest
from reference import assert_library

from mrcnn_scratch import ops
from mrcnn_scratch.backend import array_module, to_host
from mrcnn_scratch.ops.contract import Once, differentiable

# By hand


def test_a_differentiable_operation_by_hand():
    @differentiable
    def square(x):
        """x times x."""
        return x * x, lambda dy: 2 * x * dy

    y, backward = square(3)
    assert y == 9
    assert backward(10) == 60
    with pytest.raises(RuntimeError, match="backward was called twice"):
        backward(10)
    assert (square.__name__, square.__doc__) == ("square", "x times x.")


def test_two_applications_know_nothing_of_each_other():
    """One RPN head runs on five levels: five backwards, in any order."""

    @differentiable
    def square(x):
        return x * x, lambda dy: 2 * x * dy

    backwards = [square(x)[1] for x in (1, 2, 3)]
    assert [backward(1) for backward in reversed(backwards)] == [6, 4, 2]


def test_a_backward_that_fails_is_spent_too():
    backward = Once(lambda dy: 1 / dy)
    with pytest.raises(ZeroDivisionError):
        backward(0)
    with pytest.raises(RuntimeError, match="run the forward pass again"):
        backward(1)


# Every operation


def like(x, values):
    return array_module(x).asarray(values, dtype=x.dtype)


def batch_norm(*inputs):
    (y, _, _), backward = ops.batch_norm(*inputs)
    return y, backward


def frozen_batch_norm(x, weight, bias):
    return ops.frozen_batch_norm(x, weight, bias, like(x, [1, 2, 3]), like(x, [1, 2, 3]))


def roi_align(x):
    batch = array_module(x).asarray([0, 1])
    boxes = like(x, [[0, 1, 3, 3], [1, 0, 4, 2]])
    return ops.roi_align(x, boxes, batch, output_size=(2, 2), spatial_scale=1.0, sampling_ratio=2)


MAP = (2, 4, 4, 3)
EXAMPLES = {  # name: the operation as a function of its differentiable inputs, and their shapes
    "batch_norm": (batch_norm, [MAP, (3,), (3,)]),
    "binary_cross_entropy_with_logits": (
        lambda x: ops.binary_cross_entropy_with_logits(x, like(x, [[1, 0.5]])),
        [(1, 2)],
    ),
    "conv2d": (lambda *a: ops.conv2d(*a, padding=1), [MAP, (3, 3, 3, 2), (2,)]),
    "conv_transpose2d": (lambda *a: ops.conv_transpose2d(*a, stride=2), [MAP, (2, 2, 3, 2), (2,)]),
    "cross_entropy": (lambda x: ops.cross_entropy(x, array_module(x).asarray([0, 2])), [(2, 3)]),
    "frozen_batch_norm": (frozen_batch_norm, [MAP, (3,), (3,)]),
    "linear": (ops.linear, [(4, 3), (3, 2), (2,)]),
    "max_pool2d": (lambda x: ops.max_pool2d(x, kernel_size=3, stride=2, padding=1), [MAP]),
    "relu": (ops.relu, [MAP]),
    "roi_align": (roi_align, [MAP]),
    "sigmoid": (ops.sigmoid, [MAP]),
    "smooth_l1": (lambda x: ops.smooth_l1(x, like(x, [[1, 2]]), beta=1.0), [(1, 2)]),
    "upsample_nearest": (lambda x: ops.upsample_nearest(x, (8, 7)), [MAP]),
}
every_op = pytest.mark.parametrize("name", EXAMPLES)


def run(xp, rng, name, dtype="float64"):
    """One example: its inputs, its output, its backward and a gradient for the output."""
    op, shapes = EXAMPLES[name]
    inputs = [xp.asarray(rng.normal(size=shape).astype(dtype)) for shape in shapes]
    y, backward = op(*inputs)
    return inputs, y, backward, xp.asarray(rng.normal(size=y.shape), dtype=dtype)


def as_list(gradients):
    return list(gradients) if isinstance(gradients, tuple) else [gradients]


def test_every_operation_is_here():
    not_differentiable = {"softmax"}
    assert set(EXAMPLES) == set(ops.__all__) - not_differentiable


@every_op
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_output_and_gradients_have_the_inputs_library_dtype_and_shape(xp, rng, name, dtype):
    inputs, y, backward, dy = run(xp, rng, name, dtype)
    assert y.dtype == dtype
    gradients = as_list(backward(dy))
    assert_library(xp, y, *gradients)
    assert [g.shape for g in gradients] == [x.shape for x in inputs]
    assert [g.dtype for g in gradients] == [dtype] * len(inputs)


@every_op
def test_a_second_backward_raises(xp, rng, name):
    _, _, backward, dy = run(xp, rng, name)
    backward(dy)
    with pytest.raises(RuntimeError, match="backward was called twice"):
        backward(dy)


@every_op
def test_backward_frees_what_it_held(xp, rng, name):
    """When it has run, nothing holds the inputs any more, at once and without the garbage collector."""
    inputs, y, backward, dy = run(xp, rng, name)
    watched = [weakref.ref(x) for x in inputs]
    del inputs, y
    gradients = backward(dy)
    assert [x() for x in watched] == [None] * len(watched)
    assert gradients is not None


@every_op
def test_inference_holds_only_the_output(xp, rng, name):
    inputs, y, backward, _ = run(xp, rng, name)
    watched = [weakref.ref(x) for x in inputs]
    del inputs, backward
    assert [x() for x in watched] == [None] * len(watched)
    assert y is not None


@every_op
def test_same_input_same_bits(xp, name):
    results = []
    for _ in range(2):
        _, y, backward, dy = run(xp, np.random.default_rng(3), name)
        results.append([to_host(y).tolist(), *(to_host(g).tolist() for g in as_list(backward(dy)))])
    assert results[0] == results[1]
