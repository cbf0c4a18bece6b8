"""On a real GPU: the same step, the same numbers. Skipped, and said so, where there is none."""

import numpy as np
import pytest
from reference import assert_close

from mrcnn_scratch.backend import load_cupy, to_host
from mrcnn_scratch.data.shapes import ShapesDataset
from mrcnn_scratch.errors import InputError
from mrcnn_scratch.mask_rcnn import MaskRCNN

pytestmark = pytest.mark.gpu


@pytest.fixture
def gpu():
    try:
        return load_cupy()
    except InputError as error:
        pytest.skip(f"NOT RUN, nothing about the GPU has been tested here: {error}")


def test_losses_and_gradients_are_numpys(gpu):
    """Float32 on both sides, so alike to 1e-4 of each array's largest entry."""
    images, targets = zip(*(ShapesDataset(0, 2)[i] for i in range(2)), strict=True)

    def run(model):
        losses, backward = model.losses(images, targets, np.random.default_rng(0))
        backward()
        return losses, {name: to_host(p.grad) for name, p in model.named_parameters()}

    (losses, gradients), (gpu_losses, gpu_gradients) = run(MaskRCNN()), run(MaskRCNN().to("gpu"))
    for name, loss in losses.items():
        assert_close(to_host(gpu_losses[name]), loss, relative=1e-4)
    for name, gradient in gradients.items():
        assert_close(gpu_gradients[name], gradient, relative=1e-4)
