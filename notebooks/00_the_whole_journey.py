# %% [markdown]
# # 00 The whole journey
#
# **What you will see**: one picture of a scene goes in, the outlines of its objects come out. On the way, one picture for
# each stage of Mask R-CNN, and a link to the notebook that takes that stage apart.
#
# **In**: an image, uint8 (128, 128, 3). **Out**: for each object a box (4,), a class, a score, and a mask (128, 128).
#
# **Time**: 10 minutes. **Before this**: nothing. You need Python, a little NumPy, and some calculus later on.

# %%
# %matplotlib inline
import numpy as np

from mrcnn_scratch import ops, visualize
from mrcnn_scratch.data.shapes import HELD_OUT, ShapesDataset
from mrcnn_scratch.weights import load_shapes

scenes = ShapesDataset(seed=2, length=8, first=HELD_OUT)  # scenes that training has never seen
image, target = scenes[2]
model = load_shapes()  # trained by this package, in half an hour on two cores
visualize.show_scenes([image], [target], scenes.classes, columns=1)

# %% [markdown]
# The scene and what is true of it: where each object is (a box), what it is (a class), and which pixels are its own (a
# mask). The network gets the picture alone. ([01 Instance segmentation](01_instance_segmentation.ipynb))
#
# ## From pixels to features
#
# A convolutional network turns the image (1, 128, 128, 3) into feature maps of five sizes, the **pyramid** P2 to P6, each
# (1, H, W, 64): fine maps to find small things and exact edges, coarse ones to see large things whole.
# ([02 Convolution](02_convolution.ipynb), [03 Backbone and pyramid](03_backbone_and_pyramid.ipynb))

# %%
batch = model.batch([image])
features, _ = model.features(batch.pixels)
for name, level in zip(("P2", "P3", "P4", "P5", "P6"), features, strict=True):
    print(name, level.shape)
maps = [level[0] for level in features[:4]]
visualize.show_feature_maps(image, maps, ["P2", "P3", "P4", "P5"], channels=3)

# %% [markdown]
# Three of the 64 channels of each level. Some answer to edges, some to insides, some to the ground.
#
# ## Where might there be something?
#
# Thousands of **anchors**, boxes of set sizes and shapes, are laid over the image. For each of them the region proposal
# network says how likely it is to be on an object, and how it should move to fit better: objectness (1, A) and deltas
# (1, A, 4). ([04 Anchors](04_anchors.ipynb), [05 Region proposals](05_region_proposals.ipynb))

# %%
(objectness, deltas), _ = model.rpn(features)
anchors = model.anchors(features, batch.pixels)
print(sum(len(level) for level in anchors), "anchors on five levels")
every = np.concatenate(anchors)
likely = 1 / (1 + np.exp(-np.concatenate([level[0] for level in objectness])))
best = np.argsort(-likely)[:12]

# %% [markdown]
# The likely anchors crowd around the objects, but none fits. Moved by their deltas, clipped to the image, and with
# near-duplicates **suppressed**, they become proposals, (K, 4). Here are the 12 likeliest anchors, and the 12 best proposals.

# %%
((proposals, scores),) = model.proposals(objectness, deltas, anchors, batch)
print(len(proposals), "proposals")
titles = ("the likeliest anchors", "the best proposals")
visualize.show_proposals(
    image, every[best], proposals[:12], likely[best], scores[:12], titles=titles
)

# %% [markdown]
# ## What is in each?
#
# **RoI Align** cuts the features under every proposal to one size, (K, 7, 7, 64), whatever the proposal's size, without
# rounding its corners. ([06 RoI Align](06_roi_align.ipynb))

# %%
indices = np.zeros(len(proposals), np.int64)
pooled, _ = model.pool(features, proposals, indices, batch, resolution=7)
print("pooled features", pooled.shape)
shown = [np.abs(pooled[i]).mean(axis=2) for i in range(5)]
visualize.show_arrays(
    shown, [f"proposal {i + 1}: {scores[i]:.2f}" for i in range(5)], columns=5, digits=1
)

# %% [markdown]
# From these numbers the **box head** says what each proposal is, (K, 4) probabilities for background and three classes, and
# moves its box once more, for each class in its own way. Background is dropped; per class, duplicates are suppressed again.
# ([07 Heads](07_heads.ipynb), [10 Detection](10_detection.ipynb))

# %%
(logits, _), _ = model.box_head(pooled)
probabilities = ops.softmax(logits)
print("proposal    background  " + "  ".join(f"{name:>8}" for name in scenes.classes))
for i in range(5):
    print(
        f"{i + 1:8}    "
        + "  ".join(f"{p:10.3f}" if k == 0 else f"{p:8.3f}" for k, p in enumerate(probabilities[i]))
    )

# %%
(found,) = model.detect_boxes(features, [proposals], batch)
print(
    f"{len(found.boxes)} detections, {int((found.scores > 0.5).sum())} of them with a score over .5"
)

# %% [markdown]
# ## Which pixels are its own?
#
# For each detection the **mask head** draws a mask for every class, (R, 28, 28) once the one of its own class is taken.
# Classes do not compete for pixels: what the object is has been decided already.

# %%
(masks,) = model.detect_masks(features, [found], batch)
sure = np.flatnonzero(found.scores > 0.5)
titles = [f"{scenes.classes[found.labels[i] - 1]}, score {found.scores[i]:.2f}" for i in sure]
visualize.show_arrays([masks[i] for i in sure], titles, columns=4)

# %% [markdown]
# Stretched over their boxes and cut at one half, they are the answer.

# %%
(detections,) = model.detect([image])
visualize.show_detections([image], [target], [detections.above(0.5)], scenes.classes)

# %% [markdown]
# ## And backward
#
# Everything above was learned: five losses say how wrong the objectness, the two kinds of boxes, the classes and the masks
# were, and their gradients flow back through every stage to every weight. Each operation here returns its output *and its
# own backward*:
#
# ```python
# y, backward = conv2d(x, weight, bias)
# dx, dweight, dbias = backward(dy)
# ```
#
# The same scene, forward and backward, one number per loss:

# %%
losses, backward = model.losses([image], [target], np.random.default_rng(0))
backward()
for name, loss in losses.items():
    print(f"{name:18}{float(loss):.4f}")
gradients = [p.grad for _, p in model.named_parameters()]
print(f"{sum(g.size for g in gradients):,} weights, each with its gradient")

# %% [markdown]
# [08 Targets and losses](08_targets_and_losses.ipynb) shows where these numbers come from,
# [09 Training](09_training.ipynb) what is done with them, [11 Evaluation](11_evaluation.ipynb) how good the result is.
# [12](12_numpy_to_cupy.ipynb) runs the same lines on a GPU, and [13](13_the_real_thing.ipynb) leaves the toy world: real
# weights, real photographs, your own pictures.
#
# ## What you have learned
#
# * Mask R-CNN is a chain of stages, each of which hands arrays of a known shape to the next.
# * It looks twice: first "is there anything?", for thousands of anchors, then "what is it, and which pixels?" for the few
#   that are left.
# * Boxes are never drawn freely; they are anchors that were moved, twice.
# * The whole chain learns together, from five losses.
#
# ## Exercises
#
# 1. Change `scenes[2]` at the top to `scenes[5]` and run the notebook again: two squares too many. At which stage does it go
#    wrong?
# 2. How many of the anchors have an objectness over .5? How many of the 200 proposals, and why so few?
# 3. For how many of the 200 proposals is background the likeliest class? Draw ten of them. What do they have in common?
#
# **Links**: the whole network is [`mask_rcnn.py`](../src/mrcnn_scratch/mask_rcnn.py), one method a stage, and
# [its tests](../tests/test_mask_rcnn.py); the paper is He et al. 2017, *Mask R-CNN*,
# [arXiv:1703.06870](https://arxiv.org/abs/1703.06870), figure 1. Next:
# [01 Instance segmentation](01_instance_segmentation.ipynb)
