"""The configuration: to a file and back, and what is wrong with a wrong one."""

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import SHORT, TINY

from mrcnn_scratch.config import (
    SHAPES,
    AnchorConfig,
    BackboneConfig,
    Config,
    StageConfig,
    TrainingConfig,
    config_from_dict,
    training_from_dict,
)
from mrcnn_scratch.errors import InputError

BOTTLENECKS = Config(
    classes=("cat",),
    backbone=BackboneConfig(
        block="bottleneck", stem_kernel=7, stem_pool=True, stages=(StageConfig(2, 8, 32),), norm="frozen", norm_eps=0.0
    ),
    anchors=AnchorConfig(sizes=((8.0, 12.0), (16.0,)), aspect_ratios=(1.0,)),
)


# There and back


@pytest.mark.parametrize("config", [SHAPES, TINY, BOTTLENECKS], ids=["shapes", "tiny", "bottlenecks"])
def test_through_json_and_back(config):
    again = config_from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert repr(again) == repr(config)  # 8 == 8.0, but they are not the same
    assert hash(again) == hash(config)  # no list is left where a tuple belongs


@pytest.mark.parametrize("config", [TrainingConfig(), SHORT])
def test_training_through_json_and_back(config):
    assert training_from_dict(json.loads(json.dumps(asdict(config)))) == config


def test_what_is_left_out_keeps_its_default():
    assert config_from_dict({}) == SHAPES
    config = config_from_dict({"fpn_channels": 32, "rpn": {"samples": 64}})
    assert config == replace(SHAPES, fpn_channels=32, rpn=replace(SHAPES.rpn, samples=64))
    assert training_from_dict({"steps": 3}) == TrainingConfig(steps=3)


def test_a_whole_number_may_stand_for_a_float():
    config = config_from_dict({"rpn": {"nms_iou": 1}, "anchors": {"sizes": [[4], [8]]}})
    assert type(config.rpn.nms_iou) is float
    assert config.anchors.sizes == ((4.0,), (8.0,))
    assert type(config.anchors.sizes[0][0]) is float


# Wrong


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": 1}, "there is no setting 'colour' .*fpn_channels"),
        ({"rpn": {"sample": 1}}, "there is no setting 'rpn.sample' .*samples"),
        ({"rpn": 3}, "rpn must be a table of settings, not 3"),
        ([], "the top level must be a table"),
        (None, "the top level must be a table"),
        ({"fpn_channels": "64"}, "fpn_channels must be like 64, not '64'"),
        ({"fpn_channels": 64.0}, "fpn_channels must be like 64, not 64.0"),
        ({"fpn_channels": True}, "fpn_channels must be like 64, not True"),
        ({"rpn": {"nms_iou": True}}, "rpn.nms_iou must be like 0.7, not True"),
        ({"rpn": {"nms_iou": None}}, "rpn.nms_iou must be like 0.7, not None"),
        ({"backbone": {"stem_pool": 1}}, "backbone.stem_pool must be like False, not 1"),
        ({"backbone": {"stages": []}}, "backbone.stages must be a list and not empty"),
        ({"backbone": {"stages": [{"block": 3}]}}, r"no setting 'backbone.stages\[0\].block'"),
        ({"anchors": {"sizes": [8, 16]}}, r"anchors.sizes\[0\] must be a list"),
        ({"classes": "cat"}, "classes must be a list"),
        ({"classes": ["cat", 3]}, r"classes\[1\] must be like 'square', not 3"),
        ({"backbone": {"block": "dense"}}, "backbone.block must be basic or bottleneck, not 'dense'"),
        ({"backbone": {"norm": "group"}}, "backbone.norm must be batch or frozen, not 'group'"),
    ],
    ids=str,
)
def test_a_wrong_entry_is_named(values, message):
    with pytest.raises(InputError, match=message):
        config_from_dict(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"speed": 1}, "there is no setting 'training.speed'"),
        ({"steps": "many"}, "training.steps must be like 1500, not 'many'"),
        ({"schedule": "sawtooth"}, "training.schedule must be cosine or step, not 'sawtooth'"),
    ],
    ids=str,
)
def test_a_wrong_training_entry_is_named(values, message):
    with pytest.raises(InputError, match=message):
        training_from_dict(values)


names = st.sampled_from(["rpn", "backbone", "stages", "classes", "sizes", "anchors", "samples", "block", "x"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=10,
)


@given(values=json_values)
def test_any_json_gives_a_configuration_or_one_line(values):
    try:
        config = config_from_dict(values)
    except InputError as error:
        lines = str(error).splitlines()
    else:
        lines = ["none"]
        assert config_from_dict(config.to_dict()) == config
        hash(config)
    assert len(lines) == 1
