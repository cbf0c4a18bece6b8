"""On a real GPU (``make test-gpu``): the same numbers, 50 steps of training, and a detection.

Besides these, every test that takes ``xp`` runs with the real CuPy there.
"""

import numpy as np
import pytest
from reference import assert_close

from mrcnn_scratch.backend import array_module, to_host
from mrcnn_scratch.config import TrainingConfig
from mrcnn_scratch.data.shapes import ShapesDataset
from mrcnn_scratch.mask_rcnn import MaskRCNN
from mrcnn_scratch.train import Trainer
from mrcnn_scratch.weights import load_shapes

pytestmark = pytest.mark.gpu


def scenes(count):
    return tuple(zip(*(ShapesDataset(0, count)[i] for i in range(count)), strict=True))


def test_losses_and_gradients_are_numpys(gpu):
    """Float32 on both sides, so alike to 1e-4 of each array's largest entry."""
    images, targets = scenes(2)

    def run(model):
        losses, backward = model.losses(images, targets, np.random.default_rng(0))
        backward()
        return losses, {name: p.grad for name, p in model.named_parameters()}

    (losses, gradients), (gpu_losses, gpu_gradients) = run(MaskRCNN()), run(MaskRCNN().to("gpu"))
    for name, loss in losses.items():
        assert array_module(gpu_losses[name]) is gpu
        assert_close(to_host(gpu_losses[name]), loss, relative=1e-4)
    for name, gradient in gradients.items():
        assert_close(to_host(gpu_gradients[name]), gradient, relative=1e-4)


def test_fifty_steps_learn_what_the_cpu_learns(gpu):
    """The first steps are alike; later ones need not be, as rounding decides which proposals are sampled."""
    config = TrainingConfig(steps=50, images=50)

    def run(model):
        trainer = Trainer(model, ShapesDataset(0, 50), 50, config)
        return [trainer.step()["total"] for _ in range(50)]

    cpu, on_gpu = run(MaskRCNN()), run(MaskRCNN().to("gpu"))
    assert on_gpu[:3] == pytest.approx(cpu[:3], rel=1e-3)
    assert np.mean(on_gpu[-10:]) < 0.8 * np.mean(on_gpu[:10])
    assert np.mean(on_gpu[-10:]) == pytest.approx(np.mean(cpu[-10:]), rel=0.15)


def test_the_trained_network_sees_the_same(gpu):
    images, _ = scenes(4)
    for cpu, on_gpu in zip(load_shapes().detect(images), load_shapes().to("gpu").detect(images), strict=True):
        sure, gpu_sure = cpu.above(0.5), on_gpu.above(0.5)
        assert gpu_sure.labels.tolist() == sure.labels.tolist()
        assert_close(gpu_sure.boxes, sure.boxes, relative=1e-3)
        assert (gpu_sure.masks != sure.masks).mean() < 1e-3
