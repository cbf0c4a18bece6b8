"""A network with next to no channels, at 64 pixels: everything that the real one has, at 10 ms a training step."""

import numpy as np
from layercheck import move

from mrcnn_scratch.config import (
    BackboneConfig,
    Config,
    RoIConfig,
    RPNConfig,
    StageConfig,
    TrainingConfig,
    TransformConfig,
)
from mrcnn_scratch.data.shapes import ShapesDataset
from mrcnn_scratch.mask_rcnn import MaskRCNN
from mrcnn_scratch.train import Trainer

TINY = Config(
    transform=TransformConfig(64, 64),
    backbone=BackboneConfig(
        stem_channels=4,
        stages=(StageConfig(1, 4, 4), StageConfig(1, 4, 4), StageConfig(1, 8, 8), StageConfig(1, 8, 8)),
    ),
    fpn_channels=8,
    rpn=RPNConfig(samples=16, pre_nms_train=50, pre_nms_test=50, post_nms_train=20, post_nms_test=20),
    roi=RoIConfig(samples=8, box_head=(16,), mask_head=(8,), detections=10),
)
SHORT = TrainingConfig(steps=8, batch_size=2, images=5, warmup=2, checkpoint_every=3)


def tiny_model(seed=0, config=TINY, xp=np):
    """A network with random weights, in arrays of ``xp``; the same for the same seed."""
    return move(MaskRCNN(config, np.random.default_rng(seed)), xp)


def tiny_trainer(config=SHORT, model=None, xp=np):
    """A run that has not begun; of ``model`` if given, else of the tiny one in ``xp``."""
    length = config.images or None
    return Trainer(model or tiny_model(xp=xp), ShapesDataset(config.seed, length), length, config)


def assert_same_arrays(some, others):
    """The same names, and under each the same bits."""
    assert some.keys() == others.keys()
    for name in some:
        assert some[name].dtype == others[name].dtype, name
        assert np.array_equal(some[name], others[name]), name
