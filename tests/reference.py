"""Numbers made with PyTorch and torchvision, read in this package's axis order, and how close is close."""

from pathlib import Path

import numpy as np

from mrcnn_scratch.backend import array_module, to_host

FIXTURES = Path(__file__).parent / "fixtures"


def cases(op):
    """The cases of one operation in ``ops_expected.npz``: dicts, name to array, in PyTorch's axis order."""
    found = {}
    with np.load(FIXTURES / "ops_expected.npz") as archive:
        for key in archive.files:
            name, number, field = key.split("/")
            if name == op:
                found.setdefault(int(number), {})[field] = archive[key]
    assert found, f"no cases of {op}"
    return [found[number] for number in sorted(found)]


def channels_last(x):
    """(N, C, H, W), as PyTorch has it, to (N, H, W, C)."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def assert_close(actual, expected, relative=1e-12):
    """Same shape, and no element further off than ``relative`` times the largest of ``expected``."""
    actual, expected = np.asarray(to_host(actual)), np.asarray(expected)
    assert actual.shape == expected.shape
    largest = np.abs(expected).max(initial=0)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=relative * (largest or 1))


def assert_library(xp, *arrays):
    """All are arrays of ``xp``. A host array in their place would pass every comparison, as those are made on the host.

    NumPy's scalars are its 0-d arrays.
    """
    for i, array in enumerate(arrays):
        library = np if isinstance(array, np.generic) else array_module(array)
        assert library is xp, f"array {i} of {len(arrays)} belongs to {library.__name__}, not to {xp.__name__}"


def check_case(xp, op, inputs, case_y, case_dy, case_gradients):
    """``op(*inputs)`` and its backward give the reference's numbers to 1e-9."""
    y, backward = op(*(xp.asarray(x) for x in inputs))
    assert_close(y, case_y, 1e-9)
    gradients = backward(xp.asarray(case_dy))
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    assert_library(xp, y, *gradients)
    for gradient, expected in zip(gradients, case_gradients, strict=True):
        assert_close(gradient, expected, 1e-9)
