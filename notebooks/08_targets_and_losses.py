# %% [markdown]
# # 08 Targets and losses
#
# **What you will see** what the network should have said, for 128 anchors and 64 proposals of each image; the five
# numbers that say how wrong it was; and how the gradients of all five meet in the features that they share.
#
# **In** images, their true boxes `(G, 4)`, labels `(G,)` and masks `(G, H, W)`, and what the stages of notebooks 03 to
# 07 made of the images.
#
# **Out** five losses, and the gradient of their sum with respect to every weight of the network.
#
# **Time** 20 minutes to read, half a minute to run.
#
# **Before this** [07 Heads](07_heads.ipynb)

# %%
# %matplotlib inline
import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from mrcnn_scratch import ops, weights
from mrcnn_scratch.boxes import box_iou, decode_boxes
from mrcnn_scratch.data.shapes import CLASSES, HELD_OUT, ShapesDataset
from mrcnn_scratch.mask_rcnn import MaskRCNN
from mrcnn_scratch.matching import match
from mrcnn_scratch.roi import box_losses, mask_loss, mask_targets, roi_targets
from mrcnn_scratch.rpn import rpn_losses, rpn_targets
from mrcnn_scratch.visualize import PALETTE, draw_array, show_arrays, show_scenes

ORANGE, SKY, GREEN, RED, PINK, BLUE, YELLOW = PALETTE
LEVELS = ["P2", "P3", "P4", "P5", "P6"]
COLOURS = np.array(["0.3", ORANGE, BLUE, GREEN])  # background, square, circle, triangle

# %% [markdown]
# ## Five questions, five losses
#
# The network answers five kinds of question. Each needs a *target*, the answer that would have been right, and a
# *loss*, a number that is 0 for the right answer and grows with the mistake.
#
# | name | question | asked about | loss |
# |---|---|---|---|
# | `loss_objectness` | is this anchor on an object? | 128 anchors an image | binary cross-entropy |
# | `loss_rpn_box_reg` | how must it move to fit the object? | the positive ones among them | smooth L1 |
# | `loss_classifier` | what is in this proposal? | 64 proposals an image | cross-entropy |
# | `loss_box_reg` | how must it move to fit the object? | the positive ones among them | smooth L1 |
# | `loss_mask` | which of its pixels are the object's? | the same positive ones | binary cross-entropy |
#
# What is trained is their plain sum, $L = L_{obj} + L_{rpn} + L_{cls} + L_{box} + L_{mask}$.
#
# The batch: two scenes that training has never seen, `(128, 128, 3)` each, and the trained network as far as its
# proposals. `set_training(True)` makes every layer keep what its backward needs.

# %%
scenes = ShapesDataset(seed=0, length=40, first=HELD_OUT)
images, targets = zip(*(scenes[i] for i in (37, 10)), strict=True)
model = weights.load_shapes()
model.set_training(True)
batch = model.batch(images)
features, _ = model.features(batch.pixels)
(objectness, deltas), _ = model.rpn(features)
per_level = model.anchors(features, batch.pixels)
anchors = np.concatenate(per_level)
print("features  ", {name: level.shape for name, level in zip(LEVELS, features, strict=True)})
print("anchors   ", anchors.shape, " objects:", [len(target) for target in targets])
show_scenes(images, targets, CLASSES)

# %% [markdown]
# ## The anchors that the RPN learns from
#
# Every anchor is matched with the objects ([04 Anchors](04_anchors.ipynb)): IoU `(G, A)` in, `(A,)` out. An anchor is
# *positive* if its IoU with some object reaches 0.7, or if it is the best that an object has; *negative* if its IoU
# with every object is under 0.3; and ignored between the two. Count them in the first scene.

# %%
rpn = model.config.rpn
iou = box_iou(targets[0].boxes, anchors)  # (G, A)
matched = match(iou, high=rpn.positive_iou, low=rpn.negative_iou, allow_low_quality=True)
kinds = {"positive": matched >= 0, "negative": matched == -1, "ignored": matched == -2}
for name, here in kinds.items():
    print(f"{name:9} {here.sum():6,}   {here.mean():7.2%}")

# %% [markdown]
# Nearly all are negative. If all of them entered a mean, "no object anywhere" would be almost right, and the gradient
# would be a sum of thousands of votes for "no" against a handful for "yes". So the loss looks at a random sample of 128
# an image, at most half of them positive (Faster R-CNN, section 3.1.3, with 256). Negatives fill what positives leave.
#
# `rpn_targets` returns, for the sampled anchors of the whole batch, the image `(S,)`, the anchor's index `(S,)`, the
# objectness target `(S,)` and the box target `(S, 4)`. In the picture: positives thick, in the colour of the class of
# their object (square orange, circle blue, triangle green), and negatives thin and grey. Beside it, the whole lot of
# anchors and the sample, per level.

# %%
sampled = rpn_targets(anchors, targets, rpn, np.random.default_rng(0))
first = sampled.image == 0
chosen, positive = sampled.anchor[first], sampled.objectness[first] == 1
print(
    f"sampled in all {len(sampled.anchor)};  in scene 0: {positive.sum()} positive, {(~positive).sum()} negative"
)


def outlines(ax, boxes, colours, width=1.5):
    """Draw boxes (R, 4) in pixels."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    ax.add_collection(
        PolyCollection(corners, facecolors="none", edgecolors=colours, linewidths=width)
    )


def scene_panel(ax, title, margin=0):
    """The first scene, paler, with room around it."""
    ax.imshow(images[0] // 2 + 120, extent=(0, 128, 128, 0))
    ax.set(
        xlim=(-margin, 128 + margin),
        ylim=(128 + margin, -margin),
        xticks=[],
        yticks=[],
        facecolor="0.93",
    )
    ax.set_title(title, fontsize=10)


figure = Figure(figsize=(9, 4.4), layout="constrained")
left, right = figure.subplots(1, 2)
scene_panel(left, f"{len(chosen)} sampled anchors of scene 0", margin=25)
outlines(left, anchors[chosen[~positive]], "0.35", 0.6)
outlines(left, anchors[chosen[positive]], COLOURS[targets[0].labels[matched[chosen[positive]]]], 2)
level_of = np.repeat(np.arange(5), [len(a) for a in per_level])
for share, (name, indices) in enumerate(
    {"all anchors": np.arange(len(anchors)), "the sample": chosen}.items()
):
    counts = np.bincount(level_of[indices], minlength=5)
    bars = right.bar(
        np.arange(5) + 0.4 * share, counts, 0.4, label=name, color=(SKY, ORANGE)[share]
    )
    right.bar_label(bars, fontsize=8)
right.set_yscale("log")
right.set_ylim(0.7, 9000)
right.set_xticks(np.arange(5) + 0.2, LEVELS)
right.set_ylabel("anchors, on a log scale")
right.spines[["top", "right"]].set_visible(False)
right.legend(frameon=False)
figure

# %% [markdown]
# There are fewer than 64 positives to be had, so most of the sample is negative, and most negatives are small anchors
# of P2: that is where most anchors are.
#
# The box target of a positive is what the RPN must say so that its anchor becomes the object's box. With the anchor's
# centre $(x_a, y_a)$ and size $(w_a, h_a)$, and the object's $(x, y)$ and $(w, h)$,
#
# $$ t_x = \frac{x - x_a}{w_a}, \quad t_y = \frac{y - y_a}{h_a}, \quad
# t_w = \log\frac{w}{w_a}, \quad t_h = \log\frac{h}{h_a}. $$
#
# A negative has no object, hence no box target: its row is 0 and is not used. Check that the targets, applied to their
# anchors, give the objects' boxes.

# %%
wanted = sampled.deltas[first]  # (128, 4)
for k in np.flatnonzero(positive)[:4]:
    print("anchor", anchors[chosen[k]], " t =", wanted[k].round(2), " object", matched[chosen[k]])
moved = decode_boxes(wanted[positive], anchors[chosen[positive]], (1.0, 1.0, 1.0, 1.0))
truth = targets[0].boxes[matched[chosen[positive]]]
print("largest error after decoding:", f"{np.abs(moved - truth).max():.0e} pixels")

# %% [markdown]
# ## The proposals that the heads learn from
#
# The same game one stage later, with three differences. The candidates are the RPN's proposals, at most 200 an image,
# and **the true boxes themselves are appended** to them. The threshold is a single one: IoU 0.5 or more is positive,
# anything less is background. And 64 are sampled, at most a quarter of them positive: 1 to 3 (Mask R-CNN, section 3.1).
#
# Why append the truth? In the first steps the RPN proposes nonsense, hardly any of it reaches an IoU of 0.5, and the
# heads would have nothing but background to look at. [09 Training](09_training.ipynb) leaves it out and watches.
#
# `roi_targets` gives, for all S sampled proposals: `boxes (S, 4)`, `image (S,)`, `object (S,)`, `labels (S,)` with 0
# for background, and `deltas (S, 4)`.

# %%
proposals = [boxes for boxes, _ in model.proposals(objectness, deltas, per_level, batch)]
sample = roi_targets(proposals, targets, model.config.roi, np.random.default_rng(1))
in_first = sample.image == 0
print("proposals", [len(boxes) for boxes in proposals], " sampled", len(sample.boxes))
for i in range(2):
    counts = np.bincount(sample.labels[sample.image == i], minlength=4)
    print(
        f"image {i}: ",
        ", ".join(f"{n} {name}" for n, name in zip(counts, ("background", *CLASSES), strict=True)),
    )

figure = Figure(figsize=(9, 3.3), layout="constrained")
axes = figure.subplots(1, 3)
background = in_first & (sample.labels == 0)
objects = in_first & (sample.labels > 0)
is_truth = objects & (sample.deltas == 0).all(axis=1)
scene_panel(axes[0], f"{background.sum()} background")
outlines(axes[0], sample.boxes[background], "0.3", 0.8)
scene_panel(axes[1], f"{objects.sum()} positive, coloured by label")
outlines(axes[1], sample.boxes[objects], COLOURS[sample.labels[objects]])
scene_panel(axes[2], f"of these, {is_truth.sum()} appended true boxes")
outlines(axes[2], sample.boxes[is_truth], COLOURS[sample.labels[is_truth]])
figure

# %% [markdown]
# A true box needs no correction: its delta is 0, which is how the right panel finds them. Note also how many background
# boxes *do* touch an object. They are the hard ones, such as half of a square, and come for free: the RPN proposes
# them.
#
# Each row has a label and a delta. The heads' deltas are the formula from above times (10, 10, 5, 5), because
# corrections are small now, about a tenth of the box, and a loss likes numbers near 1.

# %%
positives = sample.positives
figure = Figure(figsize=(9, 2.6), layout="constrained")
axes = figure.subplots(1, 2, sharey=True)
values = {
    "RPN: $t$ of the positive anchors": sampled.deltas[sampled.objectness == 1],
    "heads: $t$ times (10, 10, 5, 5) of the positive proposals": sample.deltas[positives],
}
for ax, (title, t) in zip(axes, values.items(), strict=True):
    for column, colour in enumerate((BLUE, SKY, RED, ORANGE)):
        jitter = np.linspace(-0.25, 0.25, len(t))
        ax.plot(column + jitter, t[:, column], "o", color=colour, markersize=4, alpha=0.8)
    ax.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    ax.set_xticks(range(4), ["$t_x$", "$t_y$", "$t_w$", "$t_h$"])
    ax.set_title(f"{title}: std {t.std():.2f}", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
figure

# %% [markdown]
# ## Mask targets: the truth, seen through the proposal
#
# The mask head answers on a grid of 28x28 laid over the *proposal*, not over the image. So its target is the true mask,
# cut out by the proposal and resampled to 28x28: RoI Align ([06](06_roi_align.ipynb)) of the mask, as if it were a
# feature map with one channel. An example for paper: a mask `(4, 4)`, a box over all of it, 2x2 bins.

# %%
small = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1.0]])
box = np.array([[0.0, 0.0, 4.0, 4.0]])
bins, _ = ops.roi_align(
    small[None, :, :, None],
    box,
    np.zeros(1, int),
    output_size=(2, 2),
    spatial_scale=1.0,
    sampling_ratio=0,
)
show_arrays([small, bins[0, :, :, 0]], ["true mask (4, 4)", "target (2, 2)"], columns=2, width=5)

# %% [markdown]
# `sampling_ratio=0` means as many samples as the bin has pixels, here 2x2 per bin, at 0.5 and 1.5 of each axis for the
# top left one. Masks are read with `aligned=False`, as torchvision does: place 0.5 lies halfway between the centres of
# pixels 0 and 1, so a sample is the mean of four pixels. By hand, for the top left bin:
#
# | sample (y, x) | its four pixels | mean |
# |---|---|---|
# | (0.5, 0.5) | 1 1 / 1 1 | 1 |
# | (0.5, 1.5) | 1 0 / 1 0 | 0.5 |
# | (1.5, 0.5) | 1 1 / 1 1 | 1 |
# | (1.5, 1.5) | 1 0 / 1 1 | 0.75 |
#
# The bin is their mean, 3.25 / 4 = 0.8125, written above as 0.81.
#
# On the scene: `mask_targets` gives `(P, 28, 28)` for the P positives. Above, what the proposal sees; below, its
# target.

# %%
masks = mask_targets(sample, targets, 28)
size = np.abs(sample.deltas[positives]).max(axis=1)  # of the correction that each needs
which = list(zip(sample.image[positives], sample.object[positives], strict=True))  # whose each is
shown = [
    max((k for k in range(len(size)) if which[k] == one), key=size.__getitem__)
    for one in sorted(set(which))
]
shown = shown[:4]  # of the first four objects, the proposal that is furthest off
figure = Figure(figsize=(9, 4.7), layout="constrained")
for column, k in enumerate(shown):
    row = positives[k]
    x1, y1, x2, y2 = sample.boxes[row]
    top, bottom = figure.add_subplot(2, 4, column + 1), figure.add_subplot(2, 4, column + 5)
    top.imshow(images[sample.image[row]], extent=(0, 128, 128, 0))
    top.set(xlim=(x1, x2), ylim=(y2, y1), xticks=[], yticks=[], aspect="auto")
    top.set_title(
        f"{CLASSES[sample.labels[row] - 1]}, {x2 - x1:.0f} x {y2 - y1:.0f} pixels", fontsize=10
    )
    draw_array(bottom, masks[k], limits=(0, 1), signed=False)
    bottom.set_aspect("auto")
    soft = ((masks[k] > 0.01) & (masks[k] < 0.99)).mean()
    bottom.set_title(f"target 28 x 28, {soft:.0%} soft", fontsize=10)
figure

# %% [markdown]
# Edges come out soft: a number such as 0.4 says that about 40% of this bin is the object's (about: like everywhere in RoI Align here, the
# samples lie half a pixel off), and binary cross-entropy takes it as it is. A proposal that cuts off part of the object has a target that is cut off as well. The mask head is never
# asked about pixels outside its box.
#
# ## What each loss sees
#
# Now the losses themselves. Each is one of three formulas. With a logit $z$, $p = 1 / (1 + e^{-z})$ and a target $t$:
#
# $$ \mathrm{BCE}(z, t) = -t \log p - (1 - t) \log (1 - p), \qquad \frac{\partial\,\mathrm{BCE}}{\partial z} = p - t. $$
#
# With a row of logits $z_0 \dots z_K$, their softmax $p$, and the true class $c$ (derived in
# [07 Heads](07_heads.ipynb)):
#
# $$ \mathrm{CE}(z, c) = -\log p_c, \qquad \frac{\partial\,\mathrm{CE}}{\partial z_k} = p_k - [k = c]. $$
#
# With the difference $d$ between a predicted delta and its target, and $\beta = 1/9$:
#
# $$ S(d) = \begin{cases} d^2 / (2 \beta) & |d| < \beta \\ |d| - \beta / 2 & \text{else} \end{cases}, \qquad
# S'(d) = \mathrm{clip}(d / \beta, -1, 1). $$
#
# The five losses of a batch, with the sample of anchors $A$, its positives $A^+$, the sample of proposals $R$ and its
# positives $R^+$:
#
# $$ L_{obj} = \frac{1}{|A|} \sum_{a \in A} \mathrm{BCE}(z_a, [a \in A^+]), \qquad
# L_{rpn} = \frac{1}{|A|} \sum_{a \in A^+} \sum_{j=1}^4 S(\hat t_{aj} - t_{aj}), $$
#
# $$ L_{cls} = \frac{1}{|R|} \sum_{r \in R} \mathrm{CE}(z_r, c_r), \qquad
# L_{box} = \frac{1}{|R|} \sum_{r \in R^+} \sum_{j=1}^4 S(\hat t_{r c_r j} - t_{rj}), \qquad
# L_{mask} = \frac{1}{28^2 |R^+|} \sum_{r \in R^+} \sum_{u, v} \mathrm{BCE}(z_{r u v c_r}, m_{ruv}). $$
#
# Both box losses divide by *all* samples, not by the positives, so that an image with one lucky positive does not
# shout. Note the index $c_r$: of the four boxes and four masks that the heads predict, only those of the true class are
# looked at. What a loss does not look at gets a gradient of exactly 0. First the RPN: `(2, A)` logits and `(2, A, 4)`
# deltas. Each panel is one level, each square a place with its three anchors, blue if any of them has a gradient.

# %%
all_objectness, all_deltas = np.concatenate(objectness, axis=1), np.concatenate(deltas, axis=1)
_, backward = rpn_losses(all_objectness, all_deltas, sampled, rpn)
dobjectness, ddeltas = backward(1.0, 1.0)  # (2, A), (2, A, 4)
print(
    f"objectness: {np.count_nonzero(dobjectness)} of {dobjectness.size} anchors have a gradient that is not 0"
)
print(f"deltas:     {np.count_nonzero(ddeltas.any(axis=2))} of {dobjectness.size} anchors")


def as_maps(per_anchor):
    """(A,) gradients of one image to a map (H, W) per level: the largest of each place's anchors."""
    ends = np.cumsum([len(a) for a in per_level])[:-1]
    parts = np.split(np.abs(per_anchor), ends)
    return [
        part.reshape(*level.shape[1:3], 3).max(axis=2)
        for part, level in zip(parts, features, strict=True)
    ]


figure = Figure(figsize=(9, 4.1), layout="constrained")
rows = {"objectness": dobjectness[0], "box": np.abs(ddeltas[0]).max(axis=1)}
for r, (name, gradient) in enumerate(rows.items()):
    maps = as_maps(gradient)
    for c, level in enumerate(maps[:4]):
        ax = figure.add_subplot(2, 4, 4 * r + c + 1)
        ax.imshow(level > 0, cmap="Blues", vmin=0, vmax=1.4, extent=(0, 128, 128, 0))
        outlines(ax, targets[0].boxes, RED, 1.2)
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{name}, {LEVELS[c]}: {np.count_nonzero(level)} of {level.size}", fontsize=9)
figure

# %% [markdown]
# Red boxes are the true ones. `loss_objectness` reaches all over the image;
# `loss_rpn_box_reg` only the few places with a positive anchor, all at objects. Of the 256
# sampled anchors some are missing in the count of objectness: the network is so sure of them that $p - t$ is 0 in
# float32.
#
# Now the heads: class logits `(S, 4)`, box deltas `(S, 4, 4)` and mask logits `(P, 28, 28, 4)`.

# %%
head_boxes, head_images = sample.boxes, sample.image
pooled, _ = model.pool(features, head_boxes, head_images, batch, 7)
(class_logits, box_deltas), _ = model.box_head(pooled)
pooled, _ = model.pool(features, head_boxes[positives], head_images[positives], batch, 14)
mask_logits, _ = model.mask_head(pooled)
_, backward = box_losses(class_logits, box_deltas, sample, model.config.roi)
dclass, dbox = backward(1.0, 1.0)
_, backward = mask_loss(mask_logits, sample.labels[positives], masks)
dmask = backward(1.0)

per_row = np.abs(dclass).max(axis=1)
backgrounds = np.flatnonzero(sample.labels == 0)
hardest = backgrounds[np.argsort(-per_row[backgrounds])[:8]]
some = np.concatenate([positives[:8], hardest])  # rows of the pictures
names = ("background", *CLASSES)
figure = Figure(figsize=(9, 4.6), layout="constrained")
axes = figure.subplots(1, 3, width_ratios=[1, 2.2, 1])
draw_array(axes[0], dclass[some] * len(sample.labels), signed=True)
draw_array(axes[1], dbox[some].reshape(len(some), 16), signed=True)
draw_array(axes[2], np.abs(dmask).max(axis=(1, 2))[:8] * masks.size, signed=False)
titles = (
    "class logits: p - [k = c]",
    "box deltas: x y w h of each class",
    "masks: largest |p - m|",
)
for ax, title in zip(axes, titles, strict=True):
    ax.set_title(title, fontsize=10)
for ax, per_class in zip(axes, (1, 4, 1), strict=True):
    ax.set_aspect("auto")
    ax.set_xticks(
        np.arange(4) * per_class + (per_class - 1) / 2, names, rotation=35, fontsize=8, ha="right"
    )
    rows = [names[label] for label in sample.labels[some]][: 8 if ax is axes[2] else 16]
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
for x in (3.5, 7.5, 11.5):
    axes[1].axvline(x, color="0.6", linewidth=0.8)
figure

# %% [markdown]
# Eight positive proposals, and the eight of background that have the largest gradients. On the left every row has a
# gradient, in every column: a softmax is a competition. A trained network is right about most, so most rows are pale;
# the coloured ones are those that teach. Orange means that the logit should fall, blue-violet that it should rise. In
# the middle only positives, and only the four columns of the true class. On the right the masks: only the true class's
# channel, and for background no rows at all. That is what "one mask per class, and classes do not compete" means in the
# backward.
#
# Where inside one mask is the gradient? It is $p - m$, divided by the number of pixels that are averaged.

# %%
k = shown[0]
label = sample.labels[positives[k]]
probability = 1 / (1 + np.exp(-mask_logits[k, :, :, label]))
panels = [probability, masks[k], dmask[k, :, :, label] * masks.size]
titles = ["predicted p", "target m", "gradient times the count: p - m"]
figure = show_arrays(panels, titles, columns=3)
error = np.abs(probability - masks[k]).max()
print(
    f"largest gradient, times the count: {np.abs(panels[2]).max():.2f};  largest p - m: {error:.2f}"
)
figure

# %% [markdown]
# Mostly the edges still teach. Well inside and well outside, the network is sure and right.
#
# ## The five numbers
#
# `model.losses(images, targets, rng)` does all of the above and returns a dict of five numbers, and their joint
# backward. What should a network *without* training say? Its last layers have weights near 0, so all its logits are
# near 0:
#
# * objectness: $p = 1/2$ everywhere, $-\log(1/2) = \log 2 \approx 0.693$;
# * mask: the same, $\log 2$;
# * classes: $p = 1/4$ for each of four, $\log 4 \approx 1.386$;
# * boxes: deltas near 0, so the loss is about the size of the targets themselves, times the few that are positive.

# %%
fresh, _ = MaskRCNN(rng=np.random.default_rng(0)).losses(images, targets, np.random.default_rng(0))
losses, _ = model.losses(images, targets, np.random.default_rng(0))
print(f"{'':20}{'fresh':>8}{'trained':>10}")
for name in losses:
    print(f"{name:20}{fresh[name]:8.3f}{losses[name]:10.3f}")
print(f"{'sum':20}{sum(fresh.values()):8.3f}{sum(losses.values()):10.3f}")
print(f"{'positive proposals':20}{fresh.positive_rois:8}{losses.positive_rois:10}")
print(f"log 2 = {np.log(2):.3f}, log 4 = {np.log(4):.3f}")

# %% [markdown]
# Near enough: the weights are small, not 0. `loss_box_reg` of the fresh network is almost nothing, and that is no good
# sign. It has not learned to propose, so its positives are the appended true boxes, whose deltas are 0.
#
# If a fresh network of yours starts elsewhere, something is wrong before training has begun: it is the cheapest test
# there is.
#
# ## Where the five gradients meet
#
# All branches read the same features P2 to P6. A map that is read twice has two paths to the loss, and by the chain
# rule for several paths its gradient is the sum over both:
#
# $$ \frac{\partial L}{\partial P_l} = \sum_{i=1}^{5} \frac{\partial L_i}{\partial P_l}. $$
#
# To see each term alone, `backward` takes a weight for each loss: one is 1, the others 0. `rpn_branch`, `box_branch`
# and `mask_branch` are the three parts of `model.losses`; each backward returns the gradients of the features, `(2,
# H_l, W_l, 64)` a level. A backward runs once, so for each loss the branches run again, with the same random choices.


# %%
def feature_gradients(loss_weights):
    """The gradient of the weighted sum of the losses with respect to P2..P6."""
    rng = np.random.default_rng(0)
    _, proposed, backward_rpn = model.rpn_branch(features, targets, batch, rng)
    drawn = roi_targets(proposed, targets, model.config.roi, rng)
    _, backward_box = model.box_branch(features, drawn, batch)
    _, backward_mask = model.mask_branch(features, drawn, targets, batch)
    total = list(backward_rpn(loss_weights))
    for backward in (backward_box, backward_mask):
        for level, dlevel in enumerate(backward(loss_weights)):  # the heads read P2..P5 only
            total[level] = total[level] + dlevel
    return total


alone = {
    name: feature_gradients({other: float(other == name) for other in losses}) for name in losses
}
joint = feature_gradients(dict.fromkeys(losses, 1.0))
for level in range(5):
    difference = np.abs(sum(alone[name][level] for name in losses) - joint[level]).max()
    largest = np.abs(joint[level]).max()
    print(
        f"{LEVELS[level]}: largest gradient {largest:.1e}, sum of the five minus joint {difference:.0e}"
    )

# %% [markdown]
# The sum of the five is the joint gradient, to the precision of float32. Where do they lie? A panel shows the length of
# the gradient over the 64 channels at each place of the first scene, from 0 (dark) to its own largest, which is written
# above it. First P2 `(32, 32)`. The last panel is the joint gradient; a loss that has no gradient here has no panel.


# %%
def heat_maps(pairs, columns):
    """Lengths over channels of the gradients of the first scene, for (name, level) pairs."""
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(9, rows * (9 / columns + 0.3)), layout="constrained")
    for number, (name, level) in enumerate(pairs):
        length = np.linalg.norm({**alone, "sum": joint}[name][level][0], axis=-1)
        ax = figure.add_subplot(rows, columns, number + 1)
        ax.imshow(length, cmap="cividis", vmin=0, extent=(0, 128, 128, 0))
        outlines(ax, targets[0].boxes, "white", 0.8)
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{LEVELS[level]} {name}\nup to {length.max():.1e}", fontsize=9)
    return figure


def not_empty(level):
    """The losses that have a gradient on this level, and the sum."""
    return [(name, level) for name in alone if alone[name][level][0].any()] + [("sum", level)]


heat_maps(not_empty(0), columns=len(not_empty(0)))

# %% [markdown]
# Then the coarser levels, P4 `(8, 8)` and P5 `(4, 4)`.

# %%
heat_maps(not_empty(2) + not_empty(3), columns=3)

# %% [markdown]
# The losses of the heads write into whole boxes, and all into P2: these objects are small, and the rule of
# [06](06_roi_align.ipynb) sends small boxes to the finest level. The box losses fill the boxes; the mask's gradient
# gathers where masks meet or end. The objectness gradient lies in spots of 3x3 places around a sampled anchor, spread
# by the RPN's 3x3 convolution. On P4 and P5 are the anchors of the objects' size, and there the RPN's two losses are
# alone.
#
# The same in numbers: the Euclidean length of each gradient, over both images, per level, times 1000.

# %%
print(f"{'':18}" + "".join(f"{name:>10}" for name in LEVELS))
for name, gradients in {**alone, "sum of all": joint}.items():
    print(f"{name:18}" + "".join(f"{1000 * np.linalg.norm(g):10.3f}" for g in gradients))
lengths = [np.linalg.norm(alone[name][0]) for name in losses]
print(
    f"\nP2: the lengths add up to {1000 * sum(lengths):.3f}, the sum's length is {1000 * np.linalg.norm(joint[0]):.3f}"
)

# %% [markdown]
# The length of the sum is less than the sum of the lengths: the five do not all pull the same way. Features serve all
# five questions, and every weight of the backbone is a compromise between them.
#
# ## What no gradient flows through
#
# The proposals' coordinates are computed from the RPN's deltas. Moving a proposal changes the heads' losses, so by the
# chain rule there should be a path: loss, proposal, delta, RPN. This path is cut. `pool` has a backward for the
# features only, and `rpn_branch` hands the proposals over as plain numbers. First, see that there is something to cut:
# slide all sampled boxes by up to 6 pixels, leave the targets as they are, and watch the losses.

# %%
slides = np.linspace(-6, 6, 25)
curves = {"loss_classifier": [], "loss_box_reg": [], "with new targets": []}
for slide in slides:
    shifted = sample._replace(
        boxes=sample.boxes + np.float32(slide) * np.array([1, 0, 1, 0], np.float32)
    )
    loss, _ = model.box_branch(features, shifted, batch)
    for name in loss:
        curves[name].append(float(loss[name]))
    again = roi_targets(
        [shifted.boxes[shifted.image == i] for i in range(2)],
        targets,
        model.config.roi,
        np.random.default_rng(1),
    )
    curves["with new targets"].append(
        float(model.box_branch(features, again, batch)[0]["loss_box_reg"])
    )
figure = Figure(figsize=(8, 3), layout="constrained")
ax = figure.subplots()
ax.plot(slides, curves["loss_classifier"], color=BLUE, label="classifier")
ax.plot(slides, curves["loss_box_reg"], color=RED, label="box, targets left as they are")
ax.plot(
    slides,
    curves["with new targets"],
    color=RED,
    linestyle="--",
    label="box, targets made anew for the moved boxes",
)
ax.set_xlabel("all proposals slid to the right by ... pixels")
ax.set_ylabel("loss")
ax.set_ylim(0, None)
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, fontsize=9)
figure

# %% [markdown]
# The solid curves slope, so there would be a gradient. Three reasons not to follow it:
#
# * **It answers another question.** The targets were computed from the proposals. To follow the solid red curve is to
#   move the box and keep the answer that was right for the old box. Make the targets anew, and the curve is another one
#   (dashed), roughly level: the head has learned to bring back a box from wherever it lies.
# * **The path is broken anyway.** On the way are top-n, NMS, matching and sampling. Their outputs are indices: they
#   stay the same under small changes and then jump. Their derivative is 0 or does not exist.
# * **The RPN has its own teacher.** `loss_rpn_box_reg` tells it directly where the objects are. A second voice, from
#   heads that are wrong themselves in the beginning, is not needed.
#
# Faster R-CNN (section 3.2) calls this *approximate joint training*: the gradient is not quite that of the number L,
# and it works. It has a consequence for the last section.
#
# ## Is the gradient right? Ask a difference
#
# One weight out of the middle of the stem, the very first convolution: everything that the network does comes after it,
# so its gradient has been through every backward there is. Move it by $h$ to both sides and measure:
#
# $$ \frac{\partial L}{\partial w} \approx \frac{L(w + h) - L(w - h)}{2h}. $$
#
# In float64, so that the difference of two almost equal numbers still has digits. And with the proposals *held still*:
# differences feel every path, also the one that backward cuts. `Held` answers every call with the first proposals.


# %%
class Held(MaskRCNN):
    """A network that answers with the proposals of its first step, if `held` is set."""

    first, held = None, True

    def proposals(self, *arguments):
        """As MaskRCNN's, or those of the first call."""
        if self.first is None or not self.held:
            self.first = super().proposals(*arguments)
        return self.first


exact = Held(model.config)
exact.load_state(model.state())
exact.astype(np.float64)
name, weight = next(item for item in exact.named_parameters() if item[0].startswith("resnet.stem"))
place = (1, 1, 0, 3)  # the kernel's middle, red in, channel 3 out


def loss_with(offset):
    """The sum of the five losses with one weight moved, and the backward."""
    before = weight.value
    weight.value = before.copy()
    weight.value[place] += offset
    parts, backward = exact.losses(images, targets, np.random.default_rng(0))
    weight.value = before
    return float(sum(parts.values())), backward


total, backward = loss_with(0.0)
backward()
print(f"{name} {weight.value.shape}{list(place)}: backward says {weight.grad[place]:+.10f}\n")
for held in (True, False):
    exact.held = held
    for h in (1e-3, 1e-4, 1e-5, 1e-6):
        slope = (loss_with(h)[0] - loss_with(-h)[0]) / (2 * h)
        error = abs(slope / weight.grad[place] - 1)
        print(
            f"proposals {'held still' if held else 'let go   '}  h = {h:.0e}  slope {slope:+.10f}   off by {error:.0e}"
        )

# %% [markdown]
# Held still, the differences agree with the backward, the better the smaller $h$ is, until rounding sets in. At a large
# $h$ some ReLU or the bend of a smooth L1 is crossed, and the straight line between two points is not the slope. Let
# go, they measure another number, by what comes through the proposals, or jump, when another box survives NMS. That
# difference is the "approximate" in approximate joint training.
#
# ## What you have learned
#
# * A target is made from the truth and from the candidate: anchors get objectness and $t$, proposals a label, $t$ and a
#   mask of 28x28. Random samples keep background from drowning the objects; true boxes join the proposals.
# * Each loss looks at some places and gives all others a gradient of exactly 0: boxes and masks only at positives, and
#   only at the true class.
# * A fresh network starts at log 2, log 4 and log 2. Check it before you train.
# * In the shared features the five gradients add up; they do not always agree.
# * Proposals are constants to the heads. With them held still, backward and differences agree to many digits.
#
# ## Exercises
#
# 1. Write the softmax cross-entropy and its gradient yourself: `make exercise NAME=cross_entropy`. Mind logits of 1000.
# 2. Set `positive_fraction` of the RPN to 0.02 with `dataclasses.replace(rpn, positive_fraction=0.02)` and draw the
#    sample again. Which of the five numbers must change, and which way? Predict, then look.
# 3. Without the appended truth: give `roi_targets` proposals of a *fresh* network, and count the positives. Then take
#    the true boxes out of the result. How many are left?
# 4. Weight `loss_mask` with 10 in `feature_gradients`. On which levels does the joint gradient change?
#
# ## Links
#
# * Source: [`rpn/loss.py`](../src/mrcnn_scratch/rpn/loss.py),
#   [`roi/sampling.py`](../src/mrcnn_scratch/roi/sampling.py), [`roi/loss.py`](../src/mrcnn_scratch/roi/loss.py),
#   [`ops/losses.py`](../src/mrcnn_scratch/ops/losses.py), [`mask_rcnn.py`](../src/mrcnn_scratch/mask_rcnn.py)
# * Tests: [`test_rpn_loss.py`](../tests/rpn/test_rpn_loss.py), [`test_sampling.py`](../tests/roi/test_sampling.py),
#   [`test_roi_loss.py`](../tests/roi/test_roi_loss.py), [`test_losses.py`](../tests/ops/test_losses.py),
#   [`test_mask_rcnn.py`](../tests/test_mask_rcnn.py)
# * Papers: Faster R-CNN, sections 3.1.2, 3.1.3 and 3.2 ([arXiv:1506.01497](https://arxiv.org/abs/1506.01497)); Fast
#   R-CNN, section 2.3 ([arXiv:1504.08083](https://arxiv.org/abs/1504.08083)); Mask R-CNN, sections 3 and 3.1
#   ([arXiv:1703.06870](https://arxiv.org/abs/1703.06870))
# * Next: [09 Training](09_training.ipynb)
