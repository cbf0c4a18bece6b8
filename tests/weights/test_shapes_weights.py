"""The network that comes with the package: small enough to ship, and good."""

from importlib.resources import files

import numpy as np
import pytest

from mrcnn_scratch.config import SHAPES
from mrcnn_scratch.data.shapes import HELD_OUT, ShapesDataset
from mrcnn_scratch.measure import measure
from mrcnn_scratch.weights import load_shapes, open_model

FILE = files("mrcnn_scratch.weights") / "shapes.npz"


@pytest.fixture(scope="module")
def model():
    return load_shapes()


def test_it_is_small_and_stored_in_half_precision():
    assert FILE.stat().st_size <= 4e6
    with np.load(FILE, allow_pickle=False) as arrays:
        assert {arrays[name].dtype.name for name in arrays.files if name != "meta"} == {"float16"}


def test_it_computes_in_single_precision(model):
    assert {array.dtype.name for array in model.state().values()} == {"float32"}
    assert model.config == SHAPES


def test_shapes_is_its_name():
    assert open_model("shapes").config == SHAPES


def test_it_finds_the_shapes_in_scenes_that_it_has_not_seen(model):
    scenes = ShapesDataset(1, 40, first=HELD_OUT)
    result = measure(model, scenes, batch_size=8).figures
    assert result["mask"]["AP"] >= 0.75
