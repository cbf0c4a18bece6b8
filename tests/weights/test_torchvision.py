"""torchvision's weights give torchvision's numbers, stage by stage, in inference and in training."""

from functools import cache

import numpy as np
import pytest
import torch_writer
from layercheck import move
from reference import FIXTURES, assert_close, assert_library, channels_last

from mrcnn_scratch.backend import to_host
from mrcnn_scratch.data.transforms import resize_boxes
from mrcnn_scratch.errors import InputError
from mrcnn_scratch.roi import paste_masks
from mrcnn_scratch.structures import Target
from mrcnn_scratch.weights.coco_names import COCO_CLASSES
from mrcnn_scratch.weights.torch_file import read_state_dict
from mrcnn_scratch.weights.torchvision import OPTIONS, load_torchvision, save_torchvision, torchvision_names

FILES = ("thin_maskrcnn.pth", "thin_maskrcnn_legacy.pth")
"""The same network in today's zip format and in the older pickle stream."""

THIN = {
    "min_size": 128,
    "max_size": 192,
    "anchor_sizes": [[8], [16], [32], [64], [128]],
    "rpn_pre_nms_top_n_train": 500,
    "rpn_pre_nms_top_n_test": 300,
    "rpn_post_nms_top_n_train": 200,
    "rpn_post_nms_top_n_test": 100,
    "box_detections_per_img": 20,
}


@cache
def expected():
    with np.load(FIXTURES / "thin_maskrcnn_expected.npz") as archive:
        return dict(archive)


def images():
    return [expected()[f"images/{i}"] for i in range(3)]


def close(actual, wanted, absolute):
    """Within ``absolute`` of it, in its own unit."""
    actual = to_host(actual)
    assert actual.shape == wanted.shape
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=absolute)


# Inference


@pytest.mark.parametrize("file", FILES)
def test_every_stage_of_inference(xp, file):
    model, wanted = move(load_torchvision(FIXTURES / file, **THIN), xp), expected()
    batch = model.batch(images())
    assert [list(size) for size in batch.sizes] == wanted["batch_sizes"].tolist()
    close(batch.pixels, channels_last(wanted["batch"]), 1e-4)

    features, _ = model.features(batch.pixels)
    for level, name in zip(features, ["0", "1", "2", "3", "pool"], strict=True):
        close(level, channels_last(wanted[f"features/{name}"]), 1e-4)

    (objectness, deltas), _ = model.rpn(features)
    for i in range(5):
        close(objectness[i], channels_last(wanted[f"rpn/{i}/objectness"]).reshape(3, -1), 1e-4)
        close(deltas[i], channels_last(wanted[f"rpn/{i}/deltas"]).reshape(3, -1, 4), 1e-4)

    anchors = model.anchors(features, batch.pixels)
    assert np.array_equal(to_host(xp.concatenate(anchors)), wanted["anchors"])

    proposals = [boxes for boxes, _ in model.proposals(objectness, deltas, anchors, batch)]
    for i, boxes in enumerate(proposals):
        close(boxes, wanted[f"proposals/{i}"], 1e-2)

    found = model.detect_boxes(features, proposals, batch)
    masks = model.detect_masks(features, found, batch)
    for i, size in enumerate(batch.original_sizes):
        boxes = resize_boxes(found[i].boxes, batch.sizes[i], size)
        pasted = paste_masks(masks[i], boxes, size)
        assert_library(xp, proposals[i], boxes, masks[i], pasted)
        close(boxes, wanted[f"detections/{i}/boxes"], 1e-2)
        close(pasted, wanted[f"detections/{i}/masks"][:, 0], 1e-3)


@pytest.mark.parametrize("file", FILES)
def test_detections(xp, file):
    """The same objects in the same order. A mask pixel may differ only where its probability is one half."""
    wanted = expected()
    model = move(load_torchvision(FIXTURES / file, **THIN), xp)
    for i, found in enumerate(model.detect(images())):
        assert len(found) > 10
        assert found.labels.tolist() == wanted[f"detections/{i}/labels"].tolist()
        close(found.boxes, wanted[f"detections/{i}/boxes"], 1e-2)
        close(found.scores, wanted[f"detections/{i}/scores"], 1e-4)
        probabilities = wanted[f"detections/{i}/masks"][:, 0]
        differ = found.masks != (probabilities > 0.5)
        assert (np.abs(probabilities[differ] - 0.5) < 1e-3).all()


# Training


def training_example():
    wanted = expected()
    pictures = [wanted[f"train/image/{i}"] for i in range(2)]
    targets = [
        Target(*(wanted[f"train/{name}/{i}"].astype(dtype) for name, dtype in fields))
        for i in range(2)
        for fields in [(("boxes", np.float64), ("labels", np.int64), ("masks", bool))]
    ]
    return pictures, targets


@pytest.mark.parametrize("file", FILES)
def test_losses_and_gradients(xp, file):
    """In float64, with frozen statistics and every anchor and every proposal in the sample: nothing is random."""
    everything = {"norm": "frozen", "rpn_batch_size_per_image": 10**6, "box_batch_size_per_image": 10**6}
    model, wanted = load_torchvision(FIXTURES / file, **THIN, **everything).astype(np.float64), expected()
    move(model, xp)
    losses, backward = model.losses(*training_example(), np.random.default_rng(0))
    assert {f"train/loss/{name}" for name in losses} == {key for key in wanted if key.startswith("train/loss/")}
    for name, loss in losses.items():
        assert_library(xp, loss)
        assert to_host(loss) == pytest.approx(float(wanted[f"train/loss/{name}"]), rel=1e-6), name

    backward()
    names, checked = torchvision_names(model), set()
    for name, parameter in model.named_parameters():
        key, axes = names[name]
        assert_library(xp, parameter.grad)
        assert_close(axes.to_torch(parameter.grad), wanted[f"train/grad/{key}"], 1e-5)
        checked.add(f"train/grad/{key}")
    assert checked == {key for key in wanted if key.startswith("train/grad/")}


# Names and files. Files are read on the host: with NumPy only, but for what a network on a device does with them.


def write_pth(path, state, style="zip"):
    """A state dict of host arrays as a PyTorch file."""
    entries, numbers = {}, {}
    for i, (name, array) in enumerate(state.items()):
        kind = "LongStorage" if array.dtype == np.int64 else "FloatStorage"
        strides = [stride // array.itemsize for stride in np.ascontiguousarray(array).strides]
        stored = torch_writer.storage(kind, str(i), array.size)
        entries[name] = torch_writer.tensor(stored, 0, array.shape, strides[: array.ndim])
        numbers[str(i)] = np.ascontiguousarray(array)
    path.write_bytes(torch_writer.file_of(style, torch_writer.table(entries), numbers))
    return path


def thin_state():
    return dict(read_state_dict(FIXTURES / FILES[0]))


def same_arrays(model, other):
    some, others = model.state(), other.state()
    assert some.keys() == others.keys()
    assert all(np.array_equal(some[name], others[name]) for name in some)


def test_both_formats_hold_the_same_network():
    same_arrays(*(load_torchvision(FIXTURES / file) for file in FILES))


OLD = {
    **{f"backbone.fpn.inner_blocks.{i}.0.": f"backbone.fpn.inner_blocks.{i}." for i in range(4)},
    **{f"backbone.fpn.layer_blocks.{i}.0.": f"backbone.fpn.layer_blocks.{i}." for i in range(4)},
    "rpn.head.conv.0.0.": "rpn.head.conv.",
    "roi_heads.mask_head.0.0.": "roi_heads.mask_head.mask_fcn1.",
    "roi_heads.mask_head.1.0.": "roi_heads.mask_head.mask_fcn2.",
}
"""Names of today and of torchvision before 0.13."""


@pytest.mark.parametrize("style", torch_writer.FORMATS)
def test_old_names(tmp_path, style):
    state = thin_state()
    old = {}
    for key, array in state.items():
        for new_name, old_name in OLD.items():
            key = key.replace(new_name, old_name)
        old[key] = array
    assert len(old.keys() - state.keys()) == 2 * len(OLD)
    same_arrays(load_torchvision(write_pth(tmp_path / "old.pth", old, style)), load_torchvision(FIXTURES / FILES[0]))


def test_names_are_torchvisions():
    """One array of ours for each of theirs, but for the counters of batches."""
    theirs = {key for key in thin_state() if not key.endswith("num_batches_tracked")}
    ours = [key for key, _ in torchvision_names(load_torchvision(FIXTURES / FILES[0])).values()]
    assert len(ours) == len(set(ours))
    assert set(ours) == theirs


def test_axes_by_hand(tmp_path):
    """An entry of each kind of weight, where it belongs."""
    state, model = thin_state(), load_torchvision(FIXTURES / FILES[0])
    ours = model.state()
    feature, channel, row, column = 5, 1, 2, 0
    conv = state["backbone.body.conv1.weight"]  # (F, C, KH, KW) there, (KH, KW, C, F) here
    assert ours["resnet.stem.conv.weight"][row, column, channel, feature] == conv[feature, channel, row, column]
    transposed = state["roi_heads.mask_predictor.conv5_mask.weight"]  # (C, F, KH, KW) there, (KH, KW, C, F) here
    assert ours["mask_head.upsample.weight"][1, 0, 3, 7] == transposed[3, 7, 1, 0]
    linear = state["roi_heads.box_predictor.cls_score.weight"]  # (F, D) there, (D, F) here
    assert ours["box_head.class_logits.weight"][9, 2] == linear[2, 9]
    # Pooled features are laid out (C, 7, 7) there and (7, 7, C) here, with 16 channels.
    first = state["roi_heads.box_head.fc6.weight"]
    channel, row, column = 11, 3, 5
    here, there = (row * 7 + column) * 16 + channel, (channel * 7 + row) * 7 + column
    assert ours["box_head.fully_connected.0.weight"][here, 33] == first[33, there]


def test_saved_and_read_again(xp, tmp_path):
    """In torchvision's names and axis orders: the very arrays that were loaded; and as a .pth they load again."""
    model, state = move(load_torchvision(FIXTURES / FILES[0]), xp), thin_state()
    path = tmp_path / "weights.npz"
    save_torchvision(model, path)
    with np.load(path, allow_pickle=False) as archive:
        saved = dict(archive)
    assert saved.keys() == {key for key in state if not key.endswith("num_batches_tracked")}
    for key, array in saved.items():
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert np.array_equal(array, state[key]), key
    same_arrays(load_torchvision(write_pth(tmp_path / "again.pth", saved)), model)


def test_saving_where_nothing_can_be_saved(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        save_torchvision(load_torchvision(FIXTURES / FILES[0]), tmp_path / "nowhere" / "weights.npz")


# Other networks: torchvision's ResNets in full depth, and thin


def random_state(block, blocks, *, classes=4, width=2, channels=4, tracked=False, seed=0):
    """The names and shapes of a torchvision Mask R-CNN on a ResNet with FPN, with random numbers."""
    rng, state = np.random.default_rng(seed), {}

    def add(name, *shape):
        state[name] = (rng.normal(size=shape) / np.sqrt(max(np.prod(shape[1:]), 1))).astype(np.float32)

    def conv(name, out, channels, kernel, bias=True):
        add(f"{name}.weight", out, channels, kernel, kernel)
        if bias:
            add(f"{name}.bias", out)

    def norm(name, channels):
        for part in ("weight", "bias", "running_mean"):
            add(f"{name}.{part}", channels)
        state[f"{name}.running_var"] = rng.uniform(0.5, 2, channels).astype(np.float32)
        if tracked:
            state[f"{name}.num_batches_tracked"] = np.array(7)

    body = "backbone.body"
    conv(f"{body}.conv1", width, 3, 7, bias=False)
    norm(f"{body}.bn1", width)
    before, outs = width, []
    for i, count in enumerate(blocks):
        inner = width * 2**i
        out = inner if block == "basic" else 4 * inner
        for j in range(count):
            place = f"{body}.layer{i + 1}.{j}"
            shapes = [(inner, before, 3), (out, inner, 3)]
            if block == "bottleneck":
                shapes = [(inner, before, 1), (inner, inner, 3), (out, inner, 1)]
            for k, shape in enumerate(shapes, 1):
                conv(f"{place}.conv{k}", *shape, bias=False)
                norm(f"{place}.bn{k}", shape[0])
            if j == 0 and (i > 0 or before != out):
                conv(f"{place}.downsample.0", out, before, 1, bias=False)
                norm(f"{place}.downsample.1", out)
            before = out
        outs.append(out)
    for i, out in enumerate(outs):
        conv(f"backbone.fpn.inner_blocks.{i}.0", channels, out, 1)
        conv(f"backbone.fpn.layer_blocks.{i}.0", channels, channels, 3)
    conv("rpn.head.conv.0.0", channels, channels, 3)
    conv("rpn.head.cls_logits", 3, channels, 1)
    conv("rpn.head.bbox_pred", 12, channels, 1)
    for name, shape in {
        "box_head.fc6": (6, channels * 49),
        "box_head.fc7": (5, 6),
        "box_predictor.cls_score": (classes, 5),
        "box_predictor.bbox_pred": (4 * classes, 5),
    }.items():
        add(f"roi_heads.{name}.weight", *shape)
        add(f"roi_heads.{name}.bias", shape[0])
    for i in range(4):
        conv(f"roi_heads.mask_head.{i}.0", channels, channels, 3)
    add("roi_heads.mask_predictor.conv5_mask.weight", channels, channels, 2, 2)
    add("roi_heads.mask_predictor.conv5_mask.bias", channels)
    conv("roi_heads.mask_predictor.mask_fcn_logits", classes, channels, 1)
    return state


SMALL = {"min_size": 64, "max_size": 64, "rpn_pre_nms_top_n_test": 50, "rpn_post_nms_top_n_test": 20}


@pytest.mark.parametrize("style", torch_writer.FORMATS)
def test_resnet_50(xp, tmp_path, style):
    """3, 4, 6, 3 bottlenecks, two linear layers, four convolutions for masks, 91 labels: the published net, thin."""
    state = random_state("bottleneck", (3, 4, 6, 3), classes=91)
    # 53 convolutions with 4 numbers a channel of their norms; pyramid, RPN, box head and mask head have biases instead.
    assert len(state) == 53 * (1 + 4) + 2 * (8 + 3 + 4 + 6)
    model = move(load_torchvision(write_pth(tmp_path / "resnet50.pth", state, style), **SMALL), xp)
    assert [stage.blocks for stage in model.config.backbone.stages] == [3, 4, 6, 3]
    assert model.config.backbone.block == "bottleneck"
    assert model.config.roi.mask_head == (4, 4, 4, 4)
    assert model.config.classes == COCO_CLASSES[1:]
    found = model.detect([np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)])
    assert found[0].masks.shape == (len(found[0]), 50, 70)
    assert np.isfinite(found[0].boxes).all()


def test_resnet_18(xp, tmp_path):
    """2, 2, 2, 2 basic blocks; the first stage has no shortcut to convolve."""
    state = random_state("basic", (2, 2, 2, 2), width=4)
    model = move(load_torchvision(write_pth(tmp_path / "resnet18.pth", state), **SMALL), xp)
    assert model.config.backbone.block == "basic"
    assert model.config.classes == ("class 1", "class 2", "class 3")
    found = model.detect([np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)])
    assert np.isfinite(found[0].scores).all()


# Options


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A file of few and small arrays."""
    return write_pth(tmp_path_factory.mktemp("small") / "small.pth", random_state("basic", (1, 1, 1, 1)))


def test_defaults_are_torchvisions(small):
    config = load_torchvision(small).config
    assert (config.transform.min_size, config.transform.max_size) == (800, 1333)
    assert config.anchors.sizes == ((32,), (64,), (128,), (256,), (512,))
    assert (config.rpn.pre_nms_train, config.rpn.pre_nms_test) == (2000, 1000)
    assert (config.rpn.post_nms_train, config.rpn.post_nms_test) == (2000, 1000)
    assert (config.rpn.samples, config.roi.samples, config.roi.detections) == (256, 512, 100)


def test_every_option_has_its_place(small):
    """Each is set to a value that no default has, and arrives."""
    sample = load_torchvision(small).config.to_dict()
    for option, (section, name) in OPTIONS.items():
        default = sample[section][name]
        special = {"norm": "batch", "anchor_sizes": [[3], [4], [5], [6], [7]]}
        value = special.get(option) or (np.array(default) + 1).tolist()
        config = load_torchvision(small, **{option: value}).config.to_dict()
        assert np.array_equal(np.array(config[section][name]), np.array(value)), option
        config[section][name] = default
        assert config == sample, option


def test_unknown_option(small):
    with pytest.raises(InputError, match=r"there is no option 'min_sze' \(known: anchor_sizes, .*classes.*\)") as error:
        load_torchvision(small, min_sze=3)
    assert "\n" not in str(error.value)


def test_class_names(small):
    assert load_torchvision(small, classes=["a", "b", "c"]).config.classes == ("a", "b", "c")
    with pytest.raises(InputError, match="2 class names for a network of 3 classes"):
        load_torchvision(small, classes=["a", "b"])


def test_coco_has_80_names_among_91_labels():
    """Background, and ten that COCO dropped."""
    assert len(COCO_CLASSES) == 91
    assert sum(name.startswith("N/A ") for name in COCO_CLASSES) == 10 == 91 - 80 - 1
    assert len(set(COCO_CLASSES)) == 91
    named = {0: "__background__", 1: "person", 13: "stop sign", 18: "dog", 44: "bottle", 62: "chair", 90: "toothbrush"}
    assert {i: COCO_CLASSES[i] for i in named} == named


@pytest.mark.parametrize(
    ("name", "classes", "eps"),
    [
        ("maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", 91, 0.0),  # the published file, and only that
        ("maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", 4, 1e-5),
        ("mine.pth", 91, 1e-5),
    ],
)
def test_eps_of_the_published_weights(tmp_path, name, classes, eps):
    path = write_pth(tmp_path / name, random_state("basic", (1, 1, 1, 1), classes=classes))
    model = load_torchvision(path)
    assert model.config.backbone.norm_eps == eps
    assert model.resnet.stem.norm.eps == eps
    assert load_torchvision(path, norm_eps=1e-3).config.backbone.norm_eps == 1e-3


@pytest.mark.parametrize(("tracked", "norm"), [(False, "frozen"), (True, "batch")])
def test_norm_by_what_was_saved(tmp_path, tracked, norm):
    """BatchNorm counts batches, FrozenBatchNorm does not; the counters themselves are not used."""
    path = write_pth(tmp_path / "any.pth", random_state("basic", (1, 1, 1, 1), tracked=tracked))
    assert load_torchvision(path).config.backbone.norm == norm


# Bad files


@pytest.mark.parametrize(
    "key",
    [
        "backbone.body.conv1.weight",
        "backbone.body.bn1.running_var",
        "backbone.body.layer2.0.downsample.0.weight",
        "backbone.body.layer3.0.conv2.weight",
        "backbone.fpn.layer_blocks.2.0.bias",
        "rpn.head.conv.0.0.weight",
        "rpn.head.cls_logits.bias",
        "roi_heads.box_head.fc7.bias",
        "roi_heads.box_predictor.cls_score.weight",
        "roi_heads.mask_predictor.conv5_mask.weight",
    ],
)
def test_a_missing_array_is_named(tmp_path, key):
    state = random_state("basic", (1, 1, 1, 1))
    del state[key]
    path = write_pth(tmp_path / "lacking.pth", state)
    with pytest.raises(InputError, match=f"there is no array {key}") as error:
        load_torchvision(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("rpn.head.bbox_pred.weight", (8, 4, 1, 1), r"but the other arrays imply \(12, 4, 1, 1\)"),
        ("roi_heads.box_head.fc6.weight", (6, 4 * 48), r"imply \(6, 196\)"),
        ("backbone.body.bn1.running_mean", (3,), r"imply \(2,\)"),
        ("backbone.fpn.inner_blocks.1.0.weight", (4, 4, 3, 3), r"imply \(4, 4, 1, 1\)"),
        ("roi_heads.box_predictor.bbox_pred.bias", (8,), r"imply \(16,\)"),
        ("backbone.body.conv1.weight", (8, 3), "needs 4 axes"),
        ("backbone.body.conv1.weight", (0, 3, 7, 7), "needs 4 axes"),
        ("roi_heads.box_predictor.cls_score.weight", (4, 5, 1), "needs 2 axes"),
    ],
)
def test_a_misshapen_array_is_named(tmp_path, key, shape, message):
    state = random_state("basic", (1, 1, 1, 1))
    state[key] = np.zeros(shape, np.float32)
    path = write_pth(tmp_path / "misshapen.pth", state)
    with pytest.raises(InputError, match=f"{key} has shape .*{message}|{key} {message}"):
        load_torchvision(path)


def test_arrays_left_over_are_named(tmp_path):
    state = random_state("basic", (1, 1, 1, 1)) | {"roi_heads.keypoint_head.0.weight": np.zeros(3, np.float32)}
    with pytest.warns(UserWarning, match="1 arrays were not used: roi_heads.keypoint_head.0.weight"):
        load_torchvision(write_pth(tmp_path / "more.pth", state))


def test_another_network(tmp_path):
    """A plain ResNet classifier: what is missing is said, and what is expected."""
    state = {"conv1.weight": np.zeros((8, 3, 7, 7), np.float32)}
    with pytest.raises(InputError, match="is this a torchvision Mask R-CNN on a ResNet with FPN"):
        load_torchvision(write_pth(tmp_path / "other.pth", state))


def test_no_file_and_no_weights(tmp_path):
    with pytest.raises(InputError, match=r"missing\.pth"):
        load_torchvision(tmp_path / "missing.pth")
    text = tmp_path / "text.pth"
    text.write_text("hello")
    with pytest.raises(InputError, match=r"text\.pth"):
        load_torchvision(text)


def test_a_path_may_be_text(small):
    same_arrays(load_torchvision(str(small)), load_torchvision(small))
