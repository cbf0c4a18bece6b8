# %% [markdown]
# # 13 The real thing
#
# **What you will see**: a network that *torchvision* trained, read without PyTorch and run on a photograph; every stage
# compared with torchvision's own numbers; then fine-tuning: a network learns coins that it has never seen.
#
# **In**: a `.pth` file; photographs with COCO labels. **Out**: detections; a network for your own objects.
#
# **Time**: 15 minutes. **Before this**: [12 From NumPy to CuPy](12_numpy_to_cupy.ipynb)

# %%
# %matplotlib inline
import importlib.util
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from skimage import data as photographs

from mrcnn_scratch import visualize
from mrcnn_scratch.config import OWN_TRAINING, TransformConfig
from mrcnn_scratch.data.coco import CocoDataset
from mrcnn_scratch.evaluation import format_table
from mrcnn_scratch.measure import measure
from mrcnn_scratch.train import Trainer
from mrcnn_scratch.weights import load_shapes, load_torchvision
from mrcnn_scratch.weights.torch_file import read_state_dict

FIXTURES = Path("../tests/fixtures")

# %% [markdown]
# ## A .pth file, without PyTorch
#
# A `.pth` file is a zip of raw numbers and one *pickle* that says which numbers make which array. A pickle is a program;
# loading one from a stranger runs it. The reader here understands the few instructions that build tensors and nothing
# else, so a file can give arrays or an error, and never run anything.
#
# The file is a small Mask R-CNN in torchvision's layout, trained by torchvision on toy shapes.

# %%
state = read_state_dict(FIXTURES / "thin_maskrcnn.pth")
print(len(state), "arrays, such as")
names = (
    "backbone.body.conv1.weight",
    "backbone.fpn.inner_blocks.0.0.weight",
    "roi_heads.box_predictor.cls_score.weight",
)
for name in names:
    print(f"  {name:45} {state[name].shape}")

# %% [markdown]
# torchvision's convolution weights are (F, C, KH, KW), ours (KH, KW, C, F): the axes are turned. Depths, widths and the
# number of classes are read off the shapes. What no array holds (image sizes, anchors, thresholds) is given by
# torchvision's names for it.

# %%
options = {
    "min_size": 128,
    "max_size": 192,
    "anchor_sizes": ((8,), (16,), (32,), (64,), (128,)),
    "rpn_pre_nms_top_n_test": 300,
    "rpn_post_nms_top_n_test": 100,
    "box_detections_per_img": 20,
    "classes": ("square", "circle", "triangle"),
}
theirs = load_torchvision(FIXTURES / "thin_maskrcnn.pth", **options)
print(f"{sum(p.value.size for _, p in theirs.named_parameters()):,} weights")

# %% [markdown]
# ## Every stage, beside torchvision
#
# The same three images, uint8 of three sizes, went through torchvision once, and every intermediate array was kept. The
# largest difference at each stage, in float32:

# %%
expected = np.load(FIXTURES / "thin_maskrcnn_expected.npz")
images = [expected[f"images/{i}"] for i in range(3)]


def difference(stage, ours, torchvisions):
    """One line: how far apart two arrays of one shape are."""
    print(f"{stage:34} {ours.shape!s:20} {np.abs(ours - torchvisions).max():.1e}")


batch = theirs.batch(images)
difference("resized and normalised images", batch.pixels, expected["batch"].transpose(0, 2, 3, 1))
features, _ = theirs.features(batch.pixels)
for i, name in enumerate(("0", "1", "2", "3", "pool")):
    difference(
        f"features P{i + 2}", features[i], expected[f"features/{name}"].transpose(0, 2, 3, 1)
    )

# %%
(objectness, deltas), _ = theirs.rpn(features)
n = len(images)
for i in range(5):
    # Channels last is their order of anchors: row, column, anchor.
    logits = expected[f"rpn/{i}/objectness"].transpose(0, 2, 3, 1)
    moves = expected[f"rpn/{i}/deltas"].transpose(0, 2, 3, 1)
    difference(f"objectness on P{i + 2}", objectness[i], logits.reshape(n, -1))
    difference(f"deltas on P{i + 2}", deltas[i], moves.reshape(n, -1, 4))
anchors = theirs.anchors(features, batch.pixels)
difference("anchors, in pixels", np.concatenate(anchors), expected["anchors"])
proposals = theirs.proposals(objectness, deltas, anchors, batch)
difference("proposals of image 0, in pixels", proposals[0][0], expected["proposals/0"])

# %%
found = theirs.detect(images)
for i, one in enumerate(found):
    difference(f"boxes of image {i}, in pixels", one.boxes, expected[f"detections/{i}/boxes"])
    difference(f"scores of image {i}", one.scores, expected[f"detections/{i}/scores"])
    assert one.labels.tolist() == expected[f"detections/{i}/labels"].tolist()

# %%
best = [one.above(one.scores[1]) for one in found]  # the two best of each image
pictures = [
    visualize.overlay(image, one, options["classes"])
    for image, one in zip(images, best, strict=True)
]
visualize.show_arrays(pictures, [f"image {i}: its two best guesses" for i in range(3)], columns=3)

# %% [markdown]
# The network was trained for a few minutes only, and its guesses are poor. But they are *torchvision's* guesses, box for box
# and in the same order.
#
# The conventions of [docs/torchvision.md](../docs/torchvision.md) are what make this possible: half a pixel more or less in
# RoI Align, a rounding of anchors, a threshold that is "above" instead of "at least", and the numbers would drift apart
# stage by stage.
#
# torchvision's published network, `maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth` (178 MB, 91 labels), is read by the same line:
# `load_torchvision(path)`; that page says where it is found. It was not at hand when this notebook was made, so what
# follows uses networks that are.
#
# ## Your own objects: fine-tuning
#
# The `shapes` network has never seen a photograph. Its first layers know edges and corners all the same, and those are worth
# having. To **fine-tune** is to keep all that was learned, replace the last layers, whose size depends on the number
# of classes, and go on training on other pictures.
#
# The pictures: scikit-image's photograph of 24 coins, cut into tiles by [`examples/coins.py`](../examples/coins.py). The
# lowest row of coins is held out. Labels are COCO instances files, as any labelling tool writes them.

# %%
spec = importlib.util.spec_from_file_location("coins", "../examples/coins.py")
coins = importlib.util.module_from_spec(spec)
spec.loader.exec_module(coins)
photo = photographs.coins()
labels = coins.label_coins(photo)
titles = ["the photograph", "labelled: training blue, held out orange"]
visualize.show_arrays(
    [np.stack([photo] * 3, axis=2), np.asarray(coins.draw_labels(photo, labels))], titles, columns=2
)

# %%
folder = Path(tempfile.mkdtemp())
for split in ("train", "val"):
    tiles, _, views = coins.write_split(folder, split, photo, labels)
    print(f"{split:6}{tiles:4} tiles, {views:5} views of coins")
training = CocoDataset(folder / "train.json", folder / "train")
held_out = CocoDataset(folder / "val.json", folder / "val")
print("bad annotations:", len(training.find_problems()) + len(held_out.find_problems()))

# %% [markdown]
# A network for one class, on larger images than the toy scenes. Before any training the boxes are where the toy network
# thinks them, and the new outputs know nothing:

# %%
model = load_shapes()
model.config = replace(model.config, transform=TransformConfig(96, 160))
model.replace_predictors(training.classes, np.random.default_rng(0))
before = measure(model, held_out, examples=2)
print(format_table(before.figures, held_out.classes))

# %% [markdown]
# One hundred steps of four tiles each. The whole network is trained, at a lower rate than it was first trained with, and
# with a warm-up.

# %%
config = replace(OWN_TRAINING, steps=100)
trainer = Trainer(model, training, len(training), config)
rows = [trainer.step() for _ in range(config.steps)]
curves = {name: np.array([row[name] for row in rows]) for name in rows[0]}
visualize.show_curves(curves)

# %%
after = measure(model, held_out, examples=2)
print(format_table(after.figures, held_out.classes))

# %%
examples = after.examples
shown = [example.found.above(0.5) for example in examples]
visualize.show_detections(
    [e.image for e in examples], [e.target for e in examples], shown, held_out.classes
)

# %% [markdown]
# Six coins is a small test, and all of them lie in one photograph: this shows that the machinery works on pictures that are
# not toys, not that coins are solved. From random weights the same number of steps reaches far less; try it below.
#
# On the command line, with twice as many steps:
#
# ```
# python examples/coins.py --out runs/coins
# mrcnn-scratch inspect runs/coins/train.json --image-dir runs/coins/train
# mrcnn-scratch train --data runs/coins/train.json --image-dir runs/coins/train \
#     --val-data runs/coins/val.json --val-image-dir runs/coins/val \
#     --start shapes --steps 200 --min-size 96 --max-size 160 --out runs/coins-run
# mrcnn-scratch detect runs/coins-run/model.npz runs/coins/val --out seen --masks
# ```
#
# and [docs/own-data.md](../docs/own-data.md) goes through it with your own pictures in mind.
#
# ## What you have learned
#
# * Weights are only arrays with names. With the same conventions, another library's weights give its numbers.
# * A file from a stranger should be read by something that cannot do more than read.
# * Fine-tuning replaces the few layers that name the classes, and keeps the rest.
# * Held-out pictures are the only ones that count, and a few of them say little.
#
# ## Exercises
#
# 1. Replace `load_shapes()` by `MaskRCNN(model.config)`: the same hundred steps from random weights. What does the AP say?
# 2. Freeze the backbone first: `model.freeze_backbone(0)`. Is it faster? Is it worse?
# 3. Photograph thirty things of your own, label them with any tool that writes COCO files, and run the four commands above.
#
# **Links**: [`weights/torchvision.py`](../src/mrcnn_scratch/weights/torchvision.py),
# [`weights/restricted_pickle.py`](../src/mrcnn_scratch/weights/restricted_pickle.py) and
# [its hostile tests](../tests/weights/test_torch_file_hostile.py), [`data/coco.py`](../src/mrcnn_scratch/data/coco.py),
# [`tests/test_fine_tuning.py`](../tests/test_fine_tuning.py). Back to the beginning:
# [00 The whole journey](00_the_whole_journey.ipynb)
