# %% [markdown]
# # 10 Detection
#
# **What you will see:** how 200 proposals become a handful of objects with a class, a box and a mask: each filter on its
# own, with what it removes, until the result equals `model.detect` to the bit. Then four ways to make it fail, and at
# which stage each one fails.
#
# **In:** the feature pyramid and the proposals $(200, 4)$ of one image.
#
# **Out:** boxes $(R, 4)$, labels $(R,)$, scores $(R,)$ and masks $(R, H, W)$ of that image.
#
# **Time:** 15 minutes to read, 15 seconds to run.
#
# **Before this:** [09 Training](09_training.ipynb). Proposals are from [05](05_region_proposals.ipynb), heads from
# [07](07_heads.ipynb).

# %%
# %matplotlib inline
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from mrcnn_scratch import ops
from mrcnn_scratch.boxes import box_area, box_iou, clip_boxes, decode_boxes
from mrcnn_scratch.data.shapes import CLASSES, HELD_OUT, Shape, ShapesDataset, paint
from mrcnn_scratch.nms import batched_nms
from mrcnn_scratch.roi.pooler import assign_levels
from mrcnn_scratch.roi.postprocess import box_detections, mask_probabilities, paste_masks
from mrcnn_scratch.visualize import PALETTE, draw_array, draw_objects, show_arrays
from mrcnn_scratch.visualize.parts import dim, draw_boxes, draw_image
from mrcnn_scratch.weights import load_shapes

model = load_shapes()
settings = model.config.roi
image, target = ShapesDataset(seed=0, length=40, first=HELD_OUT)[
    19
]  # a scene that training never saw

batch = model.batch([image])
features, _ = model.features(batch.pixels)
(objectness, deltas), _ = model.rpn(features)
proposals, _ = model.proposals(objectness, deltas, model.anchors(features, batch.pixels), batch)[0]
print("proposals", proposals.shape)

# %% [markdown]
# ## From proposals to class probabilities
#
# RoI Align reads a $7 \times 7 \times 64$ patch of features for each proposal: $(200, 7, 7, 64)$. The box head turns each
# patch into 4 logits (background, square, circle, triangle) and 4 deltas for each of these: $(200, 4)$ and
# $(200, 4, 4)$. The softmax makes the logits $z$ of a proposal into probabilities,
#
# $$p_c = \frac{e^{z_c}}{\sum_j e^{z_j}},$$
#
# which add up to 1: the classes compete.

# %%
first_image = np.zeros(len(proposals), np.int64)  # all proposals are of image 0 of the batch
pooled, _ = model.pool(features, proposals, first_image, batch, settings.box_resolution)
(logits, box_deltas), _ = model.box_head(pooled)
probabilities = ops.softmax(logits)
print("pooled", pooled.shape, " logits", logits.shape, " box deltas", box_deltas.shape)

shown = [0, 1, 2, 4, 20, 150]
figure = Figure(figsize=(6.5, 3), dpi=100, layout="constrained")
ax = figure.subplots()
draw_array(ax, probabilities[shown], limits=(0, 1))
ax.set_xticks(range(4), ["background", *CLASSES], fontsize=9)
ax.set_yticks(range(len(shown)), [f"proposal {i}" for i in shown], fontsize=9)
ax.set_aspect("auto")
figure

# %% [markdown]
# Proposals come best first, by objectness. The first ones are sure of a class; further down nearly all of the probability
# is the background's. How much of the 200 is that?

# %%
names = ["background", *CLASSES]
winner = probabilities.argmax(axis=1)
for label, name in enumerate(names):
    print(f"{name:10} is the likeliest class of {(winner == label).sum():3} proposals")

# %% [markdown]
# ## Background is dropped, each class keeps its own box
#
# The background's column is cut off, and **each of the other three columns is treated as a detection of its own**: 200
# proposals times 3 classes are 600 pairs of a box and a score. A proposal is not forced to be what its largest
# probability says. Where two shapes overlap, one proposal may become a good circle and a good triangle.
#
# Each pair has its own four deltas, so its own box. They are decoded as in [05](05_region_proposals.ipynb), with the
# proposal as reference and after division by the weights $(10, 10, 5, 5)$. The network was trained on deltas multiplied
# by these, since at this stage true deltas are small numbers. For the best square of all, by hand:

# %%
scores = probabilities[:, 1:]  # (200, 3)
best = scores[:, 0].argmax()
(x1, y1, x2, y2), (tx, ty, tw, th) = proposals[best], box_deltas[best, 1]
w, h = x2 - x1, y2 - y1
x, y = (x1 + x2) / 2 + tx / 10 * w, (y1 + y2) / 2 + ty / 10 * h
w, h = w * np.exp(tw / 5), h * np.exp(th / 5)
print("proposal", proposals[best].round(2), " deltas", box_deltas[best, 1].round(2))
print("by hand ", np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]).round(2))

boxes = decode_boxes(box_deltas[:, 1:], proposals[:, None], settings.box_weights)  # (200, 3, 4)
boxes = clip_boxes(boxes, batch.sizes[0])
print("package ", boxes[best, 0].round(2), " all boxes", boxes.shape)

# %% [markdown]
# ## The score threshold
#
# Of the 600 pairs most are nearly impossible. Those with a score of at most .05 go. The threshold is low on purpose:
# [11](11_evaluation.ipynb) will rank all detections, and a doubtful one at the end of the ranking costs little.

# %%
sides = boxes[..., 2:] - boxes[..., :2]
possible = (scores > settings.score_threshold) & (sides >= settings.min_side).all(axis=2)
row, column = np.nonzero(possible)
pair_boxes, pair_scores, pair_labels = boxes[row, column], scores[row, column], column + 1
print(
    f"{scores.size} pairs, {len(pair_scores)} over {settings.score_threshold}, from {len(np.unique(row))} proposals"
)
for label, name in enumerate(CLASSES, start=1):
    print(f"  {name:9}{(pair_labels == label).sum():4}")

# %% [markdown]
# What did the refinement do? For the pairs of each class, the overlap with the nearest true object of that class, before
# (the proposal) and after (the pair's own box).

# %%
for label, name in enumerate(CLASSES, start=1):
    mine = pair_labels == label
    true = target.boxes[target.labels == label]
    sure = mine & (pair_scores > 0.5)
    old, new = (
        box_iou(b, true).max(axis=1).mean() for b in (proposals[row[sure]], pair_boxes[sure])
    )
    print(
        f"{name:9} {sure.sum():3} pairs with a score over .5: mean IoU {old:.2f} before, {new:.2f} after"
    )

figure = Figure(figsize=(9, 4.7), dpi=100, layout="constrained")
sure = pair_scores > 0.5
colours = [PALETTE[label - 1] for label in pair_labels[sure]]
for ax, shown, title in zip(
    figure.subplots(1, 2), (proposals[row], pair_boxes), ("before", "after"), strict=True
):
    draw_image(ax, dim(image))
    draw_boxes(ax, shown[sure], colours, linewidth=1.2)
    ax.set_title(f"{sure.sum()} pairs over .5, {title} refinement", fontsize=9)
figure

# %% [markdown]
# The loose bundles have become tight ones. Colours are classes: orange square, blue circle, green triangle. This is the
# second chance for a box: anchor to proposal, proposal to detection.
#
# ## Suppression, class by class
#
# Every object still has its bundle. NMS with threshold .5 keeps one of each, **within each class**: the best circle
# cannot suppress a triangle, however much they overlap.

# %%
kept = batched_nms(pair_boxes, pair_scores, pair_labels, settings.nms_iou)
figure = Figure(figsize=(9, 3.4), dpi=100, layout="constrained")
for label, ax in enumerate(figure.subplots(1, 3), start=1):
    before = pair_labels == label
    after = kept[pair_labels[kept] == label]
    draw_image(ax, dim(image))
    draw_boxes(ax, pair_boxes[before], "0.75", linewidth=0.6)
    draw_boxes(ax, pair_boxes[after], PALETTE[label - 1], linewidth=2)
    listed = " ".join(f"{score:.2f}" for score in pair_scores[after])
    ax.set_title(
        f"{CLASSES[label - 1]}: {before.sum()} boxes, {len(after)} kept\n{listed}", fontsize=9
    )
figure

# %% [markdown]
# Thin grey boxes were suppressed, coloured ones stay, with their scores above. One of each class is sure. The others are
# the rivals that a low threshold lets in: boxes that lie too far from the sure one to be suppressed by it.
#
# Had all classes been suppressed together, a sure box could have removed a true object of another class:

# %%
together = batched_nms(pair_boxes, pair_scores, np.zeros_like(pair_labels), settings.nms_iou)
print("kept, class by class:", len(kept), "  all together:", len(together))

# %% [markdown]
# ## The best hundred
#
# At most 100 detections per image stay, as COCO's rules of evaluation have it. A toy scene never has as many.

# %%
kept = kept[: settings.detections]
found_boxes, found_labels, found_scores = pair_boxes[kept], pair_labels[kept], pair_scores[kept]
print(
    len(kept),
    "detections:",
    [f"{CLASSES[k - 1]} {s:.2f}" for k, s in zip(found_labels, found_scores, strict=True)],
)

# %% [markdown]
# ## Masks, only now
#
# The mask head runs **last**, on the few boxes that are left, not on 200. It also sees the refined boxes rather than the
# proposals. RoI Align with $14 \times 14$ bins gives $(R, 14, 14, 64)$, the head $(R, 28, 28, 4)$: a mask for each class.
# The class is decided already, so only that class's mask is read, through the logistic function: $(R, 28, 28)$.

# %%
pooled, _ = model.pool(
    features, found_boxes, np.zeros(len(kept), np.int64), batch, settings.mask_resolution
)
mask_logits, _ = model.mask_head(pooled)
small_masks = mask_probabilities(mask_logits, found_labels)
print("mask logits", mask_logits.shape, " of the own class", small_masks.shape)

# %% [markdown]
# A mask of $28 \times 28$ belongs to the box, whatever the box's size. **Pasting** stretches it over the box: each pixel of
# the image inside the box reads the small mask bilinearly. A pixel is the object's where the result is over .5.

# %%
pasted = paste_masks(small_masks, found_boxes, image.shape[:2])  # (R, 128, 128)
masks = pasted > settings.mask_threshold
sure = int((found_scores > 0.5).sum())
figure = show_arrays(
    [m for i in range(sure) for m in (small_masks[i], pasted[i], masks[i])],
    [
        t
        for i in range(sure)
        for t in (f"{CLASSES[found_labels[i] - 1]}: 28 x 28", "pasted", "over .5")
    ],
    columns=3,
    width=7,
)
for i in range(sure):
    for ax in figure.axes[3 * i + 1 : 3 * i + 3]:
        draw_boxes(ax, found_boxes[[i]] - 0.5, "white", linewidth=1)
figure

# %% [markdown]
# On the left the object always fills the square, since the box was cut tightly around it. The shape that hides another
# is cut out of its mask: masks are of visible pixels. The stretch blurs a little, and .5 is where the edge was.
#
# The network's input was the image itself here, since the scenes have the size the network wants. Otherwise boxes are
# first scaled back to the image as it was handed over, and masks are pasted there.
#
# ## The same as `model.detect`

# %%
detections = model.detect([image])[0]
pairs = {
    "boxes": (found_boxes, detections.boxes),
    "labels": (found_labels, detections.labels),
    "scores": (found_scores, detections.scores),
    "masks": (masks, detections.masks),
}
for name, (ours, theirs) in pairs.items():
    print(f"{name:7} {theirs.shape!s:14} equal: {np.array_equal(ours, theirs)}")

# %% [markdown]
# All of it in one strip, with the number of boxes after each step.

# %%
stages = {
    "proposals": proposals,
    "score over .05": pair_boxes,
    "NMS per class": found_boxes,
    "score over .5": found_boxes[found_scores > 0.5],
}
figure = Figure(figsize=(9, 2.3), dpi=100, layout="constrained")
axes = figure.subplots(1, len(stages) + 1)
for ax, (name, shown) in zip(axes, stages.items(), strict=False):
    draw_image(ax, dim(image))
    draw_boxes(ax, shown, PALETTE[0], linewidth=0.9)
    ax.set_title(f"{name}: {len(shown)}", fontsize=9)
draw_image(axes[-1], image)
draw_objects(
    axes[-1], image, found_boxes[:sure], found_labels[:sure], masks[:sure], classes=CLASSES
)
axes[-1].set_title("with masks", fontsize=9)
figure

# %% [markdown]
# The last threshold, .5, is not the network's. It is for pictures: what to show a person is up to whoever shows it.
#
# ## Where it fails, and at which stage
#
# An object is lost at one of four places: no proposal fits it; a proposal does, but its class gets no score; it had a
# score, but NMS gave its place to another; or all went well and the mask is wrong. We build scenes by hand, one
# difficulty at a time, and ask for each object how far it came:
#
# * **visible**: share of the whole shape that can be seen (the rest is hidden, or outside the picture),
# * **proposal**: IoU of the proposal that fits it best,
# * **before NMS**: best score of a refined box of the right class that fits it (IoU at least .5, and with no other object
#   more),
# * **after NMS**: the same, of what is left,
# * **mask**: mask IoU of that last one. A dash where there is none.


# %%
def fitting(boxes, labels, target, g):
    """Which detections are object ``g``'s: right class, IoU of at least .5, and with no other object more."""
    iou = box_iou(boxes, target.boxes)
    return (labels == target.labels[g]) & (iou[:, g] >= 0.5) & (iou.argmax(axis=1) == g)


def before_suppression(image):
    """The proposals, and what the box head makes of them with every step but NMS."""
    batch = model.batch([image])
    features, _ = model.features(batch.pixels)
    (objectness, deltas), _ = model.rpn(features)
    proposals, _ = model.proposals(
        objectness, deltas, model.anchors(features, batch.pixels), batch
    )[0]
    pooled, _ = model.pool(
        features, proposals, np.zeros(len(proposals), np.int64), batch, settings.box_resolution
    )
    (logits, box_deltas), _ = model.box_head(pooled)
    all_pass = replace(settings, nms_iou=1.0, detections=1000)
    return proposals, box_detections(logits, box_deltas, proposals, batch.sizes[0], all_pass)


def how_far(image, target, wholes):
    """Per object: visible share, best proposal IoU, best score before and after NMS, mask IoU."""
    proposals, candidates = before_suppression(image)
    found = model.detect([image])[0]
    rows = []
    for g, whole in enumerate(wholes):
        best_proposal = box_iou(proposals, target.boxes[[g]]).max()
        before = candidates.scores[fitting(candidates.boxes, candidates.labels, target, g)].max(
            initial=0
        )
        mine = fitting(found.boxes, found.labels, target, g)
        masks = found.masks[mine][:1]
        overlap = (
            ((masks & target.masks[g]).sum() / (masks | target.masks[g]).sum()) if mine.any() else 0
        )
        after = found.scores[mine].max(initial=0)
        rows.append((target.areas[g] / whole, best_proposal, before, after, overlap))
    return np.array(rows)


def scene(background, *shapes):
    """A hand-made scene, and the number of pixels that each shape would have if nothing hid it."""
    wholes = [paint(400, (0, 0, 0), [replace(s, x=200, y=200)])[1].areas[0] for s in shapes]
    return (*paint(128, background, shapes), wholes)


def show_series(scenes, values, what, which=(0,), rows_shown=(16, 112)):
    """Pictures with what is detected (score over .3), and a table for each of the objects ``which``."""
    figure = Figure(
        figsize=(9, 2 * (0.3 + 2.2 * np.ptp(rows_shown) / 128)), dpi=100, layout="constrained"
    )
    for ax, (picture, _, _), value in zip(figure.subplots(2, 4).flat, scenes, values, strict=True):
        seen = model.detect([picture])[0].above(0.3)
        draw_objects(ax, picture, seen.boxes, seen.labels, seen.masks, seen.scores, CLASSES)
        ax.set_ylim(*rows_shown[::-1])
        ax.set_title(f"{what} {value}", fontsize=9)
    lines = []
    for g in which:
        name = "lower" if g == 0 and len(scenes[0][1]) > 1 else "upper" if g else "only"
        lines.append(f"the {name} {CLASSES[scenes[0][1].labels[g] - 1]}:")
        lines.append(f"{what:>14}  visible  proposal  before NMS  after NMS   mask")
        for one, value in zip(scenes, values, strict=True):
            visible, proposal, *others = how_far(*one)[g]
            before, after, mask = (f"{v:.2f}" if v > 0 else "-" for v in others)
            lines.append(
                f"{value:14}{visible:9.2f}{proposal:10.2f}{before:>12}{after:>11}{mask:>7}"
            )
    print("\n".join(lines))
    return figure


# %% [markdown]
# ### Occlusion: a circle goes behind a square
#
# The circle is pushed under the square, bit by bit.

# %%
BACKGROUND, PALE, DARK = (60, 90, 150), (205, 215, 230), (110, 40, 80)
shifts = [0, 14, 22, 26, 30, 34, 38, 42]
scenes = [
    scene(BACKGROUND, Shape(2, 38 + s, 64, 26, PALE), Shape(1, 84, 64, 26, DARK)) for s in shifts
]
show_series(scenes, shifts, "moved by")

# %% [markdown]
# Read the columns from left to right. The proposal fails first: anchors have ratios from 1:2 to 2:1, and the sliver that
# is left of the circle is thinner than any of them. The box head can still make a fitting box of a poor proposal, for a
# while. Then the score goes too: a sliver of a circle does not look like one, and training scenes hold few of them.
#
# Where there is a number before NMS and a dash after it, a fitting box was there, but NMS kept another one of the same
# class and the same object, with a better score and a worse fit (in the picture, a box that reaches further under the
# square). The box head does not know where the hidden circle should end, and **the score says how sure the class is, not
# how well the box fits**.
#
# ### Same colours: a triangle in the background's colour
#
# The triangle's grey is the background's plus a few steps of 255.

# %%
contrasts = [1, 2, 3, 4, 6, 10, 20, 40]
scenes = [
    scene((100, 120, 140), Shape(3, 64, 64, 26, (100 + c, 120 + c, 140 + c))) for c in contrasts
]
show_series(scenes, contrasts, "contrast")

# %% [markdown]
# A well-fitting proposal is there even where nothing is detected. The class score is what fails, and the edge of the mask
# with it. Look at your own eyes' answer in the first three pictures, too: all that tells the object from its background
# is a difference of a few steps, and a network that multiplies and adds has a smaller signal where its input has one.
#
# ### Two squares, side by side
#
# Two objects of one class, so NMS lets them compete. The left one is the lower.

# %%
shifts = [46, 34, 28, 24, 21, 18, 12, 8]
scenes = [
    scene(BACKGROUND, Shape(1, 48, 64, 24, PALE), Shape(1, 48 + s, 64, 24, DARK)) for s in shifts
]
show_series(scenes, shifts, "apart by")

# %% [markdown]
# It looks like the circle's story, and it is: a label's box goes round the *visible* pixels, so the true boxes of these
# two squares hardly overlap. But the box head also proposes boxes that reach under the upper square, as if the lower one
# were whole. Look for a high score before NMS and a dash after it: such a wider box had an even higher score, and the
# fitting one fell. Other half-strip-half-square boxes stay, since they overlap neither neighbour by more than .5: false
# positives with a good score, the price of not knowing where the lower square ends.
#
# ### One square on the other
#
# Now the small one lies in the middle of the large one. The box of the large one's visible pixels is its whole box, so
# here true boxes do overlap, by $\mathrm{IoU} = (2 s + 1)^2 / 61^2$ for a half size of $s$ on one of 30. That is over .5
# from $s = 22$ on.

# %%
sizes = [10, 14, 17, 20, 22, 24, 26, 28]
scenes = [scene(BACKGROUND, Shape(1, 64, 64, 30, PALE), Shape(1, 64, 64, s, DARK)) for s in sizes]
show_series(scenes, sizes, "half size", which=(0, 1))

# %% [markdown]
# Compare "before NMS" and "after NMS" in both tables. Before, there are fitting boxes of both squares for nearly all sizes,
# most with scores near 1. After, once the two overlap by more than .5, **at most one is left**, whatever the network
# said. Some are lost at smaller overlaps too: NMS compares *detected* boxes, and a mixed box, half of one square and half
# of the other, can suppress a fitting one. This is NMS's bargain: two heavily overlapping boxes of one class are nearly
# always the same object, so it never lets both live. No training can mend that.
#
# And where the large square is found, its mask is poor: the box covers only a part of it, and a mask ends where its box
# ends. Training scenes hold no such pairs (boxes overlap by at most .3 there).
#
# ### Two circles of the very same colour
#
# No pixel between them says where one ends.

# %%
shifts = [52, 46, 40, 32, 28, 24, 16, 8]
scenes = [
    scene(BACKGROUND, Shape(2, 44, 64, 24, PALE), Shape(2, 44 + s, 64, 24, PALE)) for s in shifts
]
show_series(scenes, shifts, "apart by")

# %% [markdown]
# The outline still tells them apart for a while, but the mask of the lower one suffers: nothing in the picture says which
# one is on top, so that part can only be guessed. Then two become one long circle. On the last picture a person would
# say the same.
#
# ### Sizes never seen
#
# Training scenes hold half sizes from 20 to 32 pixels. Here are circles far below and above.

# %%
sizes = [5, 8, 12, 30, 40, 48, 56, 62]
scenes = [scene(BACKGROUND, Shape(2, 64, 64, s, PALE)) for s in sizes]
show_series(scenes, sizes, "half size", rows_shown=(0, 128))

# %% [markdown]
# Circles of one and a half times the largest trained size are still found, and so are some of half the smallest. Beyond,
# it falls apart: first a good box without a proper mask, then no fitting proposal. There are anchors of 8 and of 128 pixels,
# but on those levels the RPN has met no object: every anchor there was background in every scene, and it learned to say
# so. Large circles are reached by stretching 64-pixel anchors, as long as that goes. **An anchor that exists is not an
# anchor that has learned.** The cure is in the data: show it such sizes, for example by resizing images at random.
#
# Proposal, score and mask for every second size:

# %%
sizes = list(range(4, 64, 2))
rows = [how_far(*scene(BACKGROUND, Shape(2, 64, 64, s, PALE)))[0] for s in sizes]
figure = Figure(figsize=(9, 3.2), dpi=100, layout="constrained")
ax = figure.subplots()
ax.axvspan(20, 32, color="0.9", label="sizes in training")
ax.plot(sizes, [r[1] for r in rows], "o-", color=PALETTE[5], label="IoU of the best proposal")
ax.plot(sizes, [r[3] for r in rows], "s-", color=PALETTE[3], label="score of the detection")
ax.plot(sizes, [r[4] for r in rows], "^-", color=PALETTE[2], label="IoU of its mask")
ax.set(xlabel="half size of the circle, pixels", ylim=(-0.03, 1.05))
ax.legend(fontsize=9, loc="lower center")
ax.grid(color="0.9")
figure

# %% [markdown]
# The mask does not fade, it breaks off, at a size where box and score are still good. Such a cliff has a cause that can be
# found. RoI Align reads the level $k = \lfloor 4 + \log_2(\sqrt{wh} / 224) \rfloor$, and at $\sqrt{wh} = 112$ that changes from
# 2 to 3:

# %%
lines = ["half size   sqrt(w h)   level   mask IoU"]
for s in range(48, 58, 2):
    picture, truth, _ = scene(BACKGROUND, Shape(2, 64, 64, s, PALE))
    seen = model.detect([picture])[0]
    side = float(np.sqrt(box_area(seen.boxes[0])))
    level = 2 + int(assign_levels(seen.boxes[:1], [1 / 4, 1 / 8, 1 / 16, 1 / 32], settings)[0])
    overlap = (seen.masks[0] & truth.masks[0]).sum() / (seen.masks[0] | truth.masks[0]).sum()
    lines.append(f"{s:9}   {side:9.1f}   P{level:<5}   {overlap:8.2f}")
print("\n".join(lines))

# %% [markdown]
# All objects in training are smaller than 112 pixels, so the heads have only ever read P2. A box just over 112 reads P3,
# whose features the mask head has never seen.
#
# ## What you have learned
#
# * A proposal times a class is a detection of its own, with its own score and its own refined box. Background is only what
#   takes the rest of the probability.
# * Filters follow in the order of their price: score, then NMS class by class, then the best 100. The mask head runs
#   last, on what is left.
# * A mask of 28 × 28 is stretched over its box and cut at .5.
# * Every failure has a place: no proposal, no score, suppressed, or a wrong mask. Looking at the stages in order finds it.
# * A score says how sure the class is, not how well the box fits, and NMS goes by the score.
# * The network can do what it was shown. Sizes, overlaps and contrasts outside of training fail, each at its own stage.
#
# ## Exercises
#
# 1. Set the NMS threshold to .7 for one square on the other: `model.config = replace(model.config, roi=replace(settings,
#    nms_iou=0.7))`. Predict first: which pairs come back, and what else does on the scene above?
# 2. Suppress all classes together on the scene with the circle under the square. When does the circle fall?
# 3. Make a scene that has two failures at once, and find the stage of each with `how_far`.
# 4. Paste a mask into a box half of which lies outside the image. What must `paste_masks` not do?
#
# ## Links
#
# * Source: [`roi/postprocess.py`](../src/mrcnn_scratch/roi/postprocess.py),
#   [`mask_rcnn.py`](../src/mrcnn_scratch/mask_rcnn.py) (`detect`), [`nms.py`](../src/mrcnn_scratch/nms.py),
#   [`roi/pooler.py`](../src/mrcnn_scratch/roi/pooler.py) (levels)
# * Tests: [`test_postprocess.py`](../tests/roi/test_postprocess.py), [`test_mask_rcnn.py`](../tests/test_mask_rcnn.py)
# * Papers: He et al. 2017, [Mask R-CNN](https://arxiv.org/abs/1703.06870), section 3.1, "Inference"; Girshick 2015,
#   [Fast R-CNN](https://arxiv.org/abs/1504.08083), section 3
# * Next: [11 Evaluation](11_evaluation.ipynb)
