"""Planted: ``np.`` where ``xp.`` should stand, one place after the other, all over the package. Each must be noticed.

On a machine without a GPU that slip is invisible, and it is the likeliest of all. So every call ``xp.name(...)`` of the
modules below is turned into ``np.name(...)`` in a copy of the module, and the copy is run on the double of CuPy.
"""

import ast
import importlib.util
import sys

import numpy as np
import pytest
from cupy_double import LEDGER, strict_cupy
from cupy_double.ledger import PACKAGE
from layercheck import place
from tiny import TINY

from mrcnn_scratch.backend import array_module
from mrcnn_scratch.config import RoIConfig, RPNConfig, TransformConfig
from mrcnn_scratch.data.shapes import ShapesDataset
from mrcnn_scratch.roi.sampling import RoITargets
from mrcnn_scratch.rpn.loss import RPNTargets


def floats(xp, *shape):
    return xp.asarray(np.random.default_rng(0).uniform(0.1, 1, shape))


def boxes(xp, *shape, size=12):
    corners = np.random.default_rng(1).uniform(0, size, (*shape, 2))
    return xp.asarray(np.concatenate([corners, corners + np.random.default_rng(2).uniform(2, size, (*shape, 2))], -1))


def both_ways(result):
    """An operation's output and its gradients."""
    y, backward = result
    dy = tuple(part + 1 for part in y) if isinstance(y, tuple) else y + 1
    return y, backward(*dy) if isinstance(dy, tuple) and len(dy) == 2 else backward(dy[0] if type(dy) is tuple else dy)


def conv(m, xp):
    x, w, b = floats(xp, 2, 6, 6, 2), floats(xp, 3, 3, 2, 3), floats(xp, 3)
    for stride in (1, 2):
        yield both_ways(m.conv2d(x, w, b, stride=stride, padding=1))
    yield both_ways(m.conv2d(x, floats(xp, 1, 1, 2, 3)))
    yield both_ways(m.conv_transpose2d(x, w, b, stride=2))


def normalization(m, xp):
    x, c = floats(xp, 2, 3, 3, 2), floats(xp, 2)
    yield both_ways(m.batch_norm(x, c, c))
    yield both_ways(m.frozen_batch_norm(x, c, c, c, c))


def activation(m, xp):
    yield both_ways(m.relu(floats(xp, 4)))
    yield both_ways(m.sigmoid(floats(xp, 4)))


def losses(m, xp):
    logits = floats(xp, 4, 3)
    yield m.softmax(logits)
    yield both_ways(m.cross_entropy(logits, xp.asarray([0, 1, 2, 0])))
    yield both_ways(m.binary_cross_entropy_with_logits(logits, logits))
    yield both_ways(m.smooth_l1(logits, logits * 2, beta=0.1))


def roi_align(m, xp):
    where, image = boxes(xp, 5), xp.asarray([0, 1, 0, 1, 1])
    for ratio in (2, 0):
        arguments = {"output_size": (2, 2), "spatial_scale": 0.5, "sampling_ratio": ratio}
        yield both_ways(m.roi_align(floats(xp, 2, 12, 12, 3), where, image, **arguments))
    without_size = xp.ones((2, 4)) * 3
    yield both_ways(m.roi_align(floats(xp, 1, 9, 9, 1), without_size, xp.asarray([0, 0]), **arguments, aligned=True))


def nms(m, xp):
    where, scores, groups = boxes(xp, 20), floats(xp, 20), xp.asarray(np.arange(20) % 3)
    yield m.nms(where, scores, 0.3)
    yield m.batched_nms(where, scores, groups, 0.3)
    yield m.batched_nms(where[:0], scores[:0], groups[:0], 0.3)


def box_arithmetic(m, xp):
    a, b, one = boxes(xp, 4), boxes(xp, 4), (1.0, 1.0, 1.0, 1.0)
    yield from (m.box_iou(a, b), m.clip_boxes(a, (5, 5)), m.encode_boxes(a, b, one), m.decode_boxes(a / 9, b, one))


def matching(m, xp):
    yield m.match(floats(xp, 3, 9), high=0.7, low=0.3, allow_low_quality=True)
    yield m.match(floats(xp, 0, 9), high=0.7, low=0.3, allow_low_quality=True)


def anchors(m, xp):
    yield m.AnchorGenerator([[8], [16]], [0.5, 1]).levels([(4, 4), (2, 2)], (32, 32), xp)


def rpn_head(m, xp):
    yield m.split_levels(floats(xp, 2, 6, 4), [4, 2])


def proposals(m, xp):
    levels = [floats(xp, 2, 30), floats(xp, 2, 8)], [floats(xp, 2, 30, 4), floats(xp, 2, 8, 4)]
    yield m.propose(*levels, [boxes(xp, 30), boxes(xp, 8)], [(20, 20), (16, 20)], RPNConfig(), training=True)


def rpn_loss(m, xp):
    sample = RPNTargets(np.array([0, 1]), np.array([3, 2]), np.array([1.0, 0.0]), np.ones((2, 4)))
    yield both_ways(m.rpn_losses(floats(xp, 2, 6), floats(xp, 2, 6, 4), sample, RPNConfig()))


def roi_loss(m, xp):
    sample = RoITargets(np.ones((3, 4)), np.zeros(3, int), np.zeros(3, int), np.array([1, 0, 2]), np.ones((3, 4)))
    yield both_ways(m.box_losses(floats(xp, 3, 3), floats(xp, 3, 3, 4), sample, RoIConfig()))
    yield both_ways(m.mask_loss(floats(xp, 2, 4, 4, 3), np.array([1, 2]), np.ones((2, 4, 4))))


def pooler(m, xp):
    levels = [floats(xp, 1, 16, 16, 2), floats(xp, 1, 8, 8, 2), floats(xp, 1, 4, 4, 2)]
    settings = {"image_size": (64, 64), "resolution": 2, "config": RoIConfig()}
    for count in (4, 0):
        where = boxes(xp, 4, size=30)[:count]
        y, backward = m.pool(levels, where, xp.asarray([0, 0, 0, 0])[:count], **settings)
        yield y, backward(y + 1)


def postprocess(m, xp):
    # Logits and deltas near zero: many boxes pass the threshold and few are suppressed.
    yield m.box_detections(floats(xp, 6, 4), floats(xp, 6, 4, 4), boxes(xp, 6), (30, 30), RoIConfig())
    yield m.mask_probabilities(floats(xp, 2, 4, 4, 3), xp.asarray([1, 2]))
    yield m.paste_masks(floats(xp, 2, 4, 4), boxes(xp, 2), (20, 20))


def resnet(m, xp):
    yield place(m.ResNet(TINY.backbone, np.random.default_rng(0)), xp)(floats(xp, 1, 32, 32, 3))
    network = place(m.ResNet(TINY.backbone, np.random.default_rng(0)), xp)
    network.set_training(False)
    yield network(floats(xp, 1, 32, 32, 3))[0]


def network(m, xp):
    images, targets = zip(*(ShapesDataset(0, 2)[i] for i in range(2)), strict=True)
    whole = m.MaskRCNN(TINY, np.random.default_rng(0)).to("gpu")
    losses, backward = whole.losses(images, targets, np.random.default_rng(0))
    backward()
    yield [*losses.values(), *(p.grad for _, p in whole.named_parameters())]
    whole.replace_predictors(["one", "two"], np.random.default_rng(0))
    whole.detect(images)
    yield [array.value for _, array in whole.named_arrays()]


def transforms(m, xp):
    images = [np.full((9, 12, 3), 100, np.uint8), np.full((12, 9, 3), 200, np.uint8)]
    yield m.make_batch(images, TransformConfig(16, 32), like=xp.ones(1)).pixels


EXERCISES = {
    "boxes": box_arithmetic,
    "nms": nms,
    "matching": matching,
    "ops.activation": activation,
    "ops.conv": conv,
    "ops.linear": lambda m, xp: [both_ways(m.linear(floats(xp, 2, 3), floats(xp, 3, 2), floats(xp, 2)))],
    "ops.losses": losses,
    "ops.normalization": normalization,
    "ops.padding": lambda m, xp: [m.pad(floats(xp, 1, 2, 2, 1), 1), m.unpad(floats(xp, 1, 4, 4, 1), 1)],
    "ops.pooling": lambda m, xp: [both_ways(m.max_pool2d(floats(xp, 1, 5, 5, 2), kernel_size=3, stride=2, padding=1))],
    "ops.resample": lambda m, xp: [both_ways(m.upsample_nearest(floats(xp, 1, 2, 2, 2), (4, 3)))],
    "ops.roi_align": roi_align,
    "rpn.anchors": anchors,
    "rpn.head": rpn_head,
    "rpn.proposals": proposals,
    "rpn.loss": rpn_loss,
    "roi.loss": roi_loss,
    "roi.pooler": pooler,
    "roi.postprocess": postprocess,
    "backbone.resnet": resnet,
    "data.transforms": transforms,
    "mask_rcnn": network,
}
"""What runs every line of a module that calls ``xp``."""

SAME_IN_BOTH = {"inf", "float32", "int64", "uint8", "finfo"}
"""CuPy's are NumPy's own objects: to write np. there is no mistake."""


def source(name):
    return (PACKAGE / f"{name.replace('.', '/')}.py").read_text()


def places(name):
    """``(line, column, attribute)`` of every ``xp.attribute`` in a module that is CuPy's own."""
    nodes = [node for node in ast.walk(ast.parse(source(name))) if isinstance(node, ast.Attribute)]
    xps = [node for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "xp"]
    return [(n.lineno, n.value.col_offset, n.attr) for n in xps if n.attr not in SAME_IN_BOTH]


def module(name, text):
    """A module of the package from another text. The real one stays where it is."""
    spec = importlib.util.spec_from_loader(f"mrcnn_scratch.{name}", loader=None)
    copy = importlib.util.module_from_spec(spec)
    copy.__package__ = spec.name.rpartition(".")[0]
    path = str(PACKAGE / f"{name.replace('.', '/')}.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, copy)  # dataclasses and NamedTuples look their module up
        exec(compile(text, path, "exec"), copy.__dict__)
    return copy


def arrays(result):
    if callable(result):  # a backward that is not part of the exercise
        return []
    if isinstance(result, (list, tuple)):
        return [array for part in result for array in arrays(part)]
    return [result]


def run(name, text):
    """Run a module's exercise on the double; an error unless all that it gives is on the device."""
    LEDGER.clear()
    with strict_cupy() as xp:
        for result in EXERCISES[name](module(name, text), xp):
            for array in arrays(result):
                assert array_module(array) is xp, "a host array came out"
    indices = LEDGER.count("index")
    LEDGER.clear()
    assert indices == {}, "a host array was used as an index"


@pytest.mark.parametrize("name", EXERCISES)
def test_the_module_as_it_is_runs(name):
    run(name, source(name))


@pytest.mark.parametrize(
    ("name", "line", "column", "attribute"),
    [pytest.param(name, *place, id=f"{name}:{place[0]}:{place[2]}") for name in EXERCISES for place in places(name)],
)
def test_np_for_xp_is_noticed(name, line, column, attribute):
    lines = source(name).splitlines(keepends=True)
    text = lines[line - 1]
    assert text[column : column + 3] == "xp."
    lines[line - 1] = f"{text[:column]}np.{text[column + 3 :]}"
    # After the docstring and the future imports of the module, as a careless author would have it.
    planted = "".join(lines).replace("\nfrom ", "\nimport numpy as np\nfrom ", 1)
    with pytest.raises((TypeError, AssertionError, ValueError, AttributeError)):
        run(name, planted)


def test_no_module_with_xp_is_forgotten():
    using = {
        path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
        for path in PACKAGE.rglob("*.py")
        if "xp = array_module(" in path.read_text() or ", xp = " in path.read_text()
    }
    assert using - {"backend"} <= EXERCISES.keys()
