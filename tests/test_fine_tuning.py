"""Fine-tuning: other classes on a network that has been trained, and stages that stay as they are."""

import numpy as np
import pytest
from layercheck import move
from reference import FIXTURES, assert_library

from mrcnn_scratch.config import TrainingConfig
from mrcnn_scratch.data.shapes import ShapesDataset
from mrcnn_scratch.train import Trainer
from mrcnn_scratch.weights import load_torchvision

OPTIONS = {
    "min_size": 128,
    "max_size": 192,
    "anchor_sizes": [[8], [16], [32], [64], [128]],
    "rpn_pre_nms_top_n_train": 300,
    "rpn_post_nms_top_n_train": 100,
    "box_batch_size_per_image": 32,
}


@pytest.fixture
def model(xp):
    """torchvision's thin network, which has been trained on toy shapes a little."""
    return move(load_torchvision(FIXTURES / "thin_maskrcnn.pth", **OPTIONS), xp)


def test_new_predictors_for_two_classes(xp, model):
    before = model.state()
    model.replace_predictors(("round", "cornered"), np.random.default_rng(0))
    assert model.config.classes == ("round", "cornered")
    assert_library(xp, *(array.value for _, array in model.named_arrays()))
    after = model.state()
    changed = {name for name in after if not np.array_equal(after[name], before[name])}
    assert {name.rsplit(".", 1)[0] for name in changed} <= {
        "box_head.class_logits",
        "box_head.box_deltas",
        "mask_head.upsample",
        "mask_head.logits",
    }
    assert after["box_head.class_logits.weight"].shape == (64, 3)
    assert after["box_head.box_deltas.weight"].shape == (64, 12)
    assert after["mask_head.logits.weight"].shape == (1, 1, 16, 3)


@pytest.mark.parametrize(("trainable", "frozen"), [(0, 5), (3, 2), (5, 0)])
def test_frozen_layers(model, trainable, frozen):
    model.freeze_backbone(trainable)
    layers = [model.resnet.stem, *model.resnet.stages]
    states = [{parameter.trainable for _, parameter in layer.named_parameters()} for layer in layers]
    assert states == [{False}] * frozen + [{True}] * trainable
    assert all(parameter.trainable for _, parameter in model.fpn.named_parameters())


def test_training_on_toy_shapes(model):
    """What is frozen stays to the bit, the rest learns: with fresh predictors the loss falls within 30 steps."""
    model.replace_predictors(("square", "circle", "triangle"), np.random.default_rng(0))
    model.freeze_backbone(2)
    before = model.state()
    scenes = ShapesDataset(0, 16)
    trainer = Trainer(model, scenes, 16, TrainingConfig(steps=30, batch_size=2, lr=0.02, warmup=5))
    totals = [trainer.step()["total"] for _ in range(30)]
    assert np.mean(totals[-8:]) < 0.8 * np.mean(totals[:4])
    after = model.state()
    for name, parameter in model.named_parameters():
        frozen = name.startswith(("resnet.stem", "resnet.stages.0", "resnet.stages.1"))
        assert parameter.trainable != frozen
        assert np.array_equal(before[name], after[name]) == frozen, name
