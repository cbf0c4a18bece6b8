# %% [markdown]
# # 11 Evaluation
#
# **What you will see:** how one number, the average precision (AP), is made of a ranking of detections: first on six
# detections that you can check on paper, point by point, then on 40 scenes with the trained network, until it equals
# `evaluate` to the digit.
#
# **In:** per image the detections (boxes $(D, 4)$, labels and scores $(D,)$, masks $(D, H, W)$) and the objects
# (boxes $(G, 4)$, labels $(G,)$, masks $(G, H, W)$).
#
# **Out:** AP and AR of boxes and of masks, over all classes and for each.
#
# **Time:** 15 minutes to read, 15 seconds to run.
#
# **Before this:** [10 Detection](10_detection.ipynb).

# %%
# %matplotlib inline
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from mrcnn_scratch.boxes import box_iou
from mrcnn_scratch.data.shapes import CLASSES, HELD_OUT, ShapesDataset
from mrcnn_scratch.evaluation import (
    IOU_THRESHOLDS,
    RECALL_LEVELS,
    average_precision,
    evaluate,
    format_table,
    match_detections,
    precision_recall,
)
from mrcnn_scratch.visualize import PALETTE
from mrcnn_scratch.visualize.parts import draw_boxes, draw_image
from mrcnn_scratch.weights import load_shapes

BLUE, RED, GREEN = PALETTE[5], PALETTE[3], PALETTE[2]

# %% [markdown]
# How good is a detector? "Share of images that are right" does not work: an image holds several objects, a detector may
# say any number of things about it, each with a score, and each box is a bit off. Three questions have to be settled:
#
# 1. When is **one** detection right? When it overlaps an object of its class enough, and that object is still free.
# 2. How many detections do we count? That depends on the score from which on we believe them. AP looks at **all** such
#    choices at once.
# 3. How much overlap is enough? COCO takes ten answers, .50 to .95, and averages.
#
# ## Six detections and four objects
#
# One class, one picture. Objects are A to D, detections 1 to 6, best score first.

# %%
objects = np.array([[5, 5, 25, 25], [40, 5, 60, 25], [75, 5, 95, 25], [40, 35, 60, 55]], float)
detected = np.array(
    [
        [5, 5, 25, 25],
        [8, 5, 28, 25],
        [42, 5, 62, 25],
        [10, 35, 30, 55],
        [75, 9, 95, 29],
        [45, 40, 65, 60],
    ],
    float,
)
scores = np.array([0.95, 0.90, 0.80, 0.70, 0.60, 0.50])

figure = Figure(figsize=(7, 4.2), dpi=100, layout="constrained")
ax = figure.subplots()
draw_image(ax, np.full((68, 100, 3), 255, np.uint8))
draw_boxes(ax, objects, "0.6", linewidth=4)
draw_boxes(ax, detected, BLUE, linewidth=1.5)
for (x1, y1, x2, y2), name in zip(objects, "ABCD", strict=True):
    ax.text((x1 + x2) / 2, (y1 + y2) / 2, name, color="0.45", fontsize=14, ha="center", va="center")
for i, ((x1, y1, x2, y2), score) in enumerate(zip(detected, scores, strict=True), start=1):
    below = i != 2
    ax.text(
        x1 if below else x2 + 1,
        y2 + 4 if below else y1 + 4,
        f"{i}: {score:.2f}",
        color=BLUE,
        fontsize=9,
    )
ax.set_title("grey: objects, blue: detections with their scores", fontsize=9)
figure

# %% [markdown]
# ## Right or wrong
#
# Detections choose in the order of their scores. Each takes the free object that it overlaps most, if that is at least the
# threshold. **An object can be taken once.** Written as it is said:


# %%
def match_slow(overlaps, threshold):
    """Which object each detection takes, best score first; -1 for none."""
    taken, choice = set(), []
    for row in overlaps:
        free = [g for g in range(len(row)) if g not in taken and row[g] >= threshold]
        best = max(free, key=lambda g: row[g]) if free else -1
        taken.add(best)
        choice.append(best)
    return choice


overlaps = box_iou(detected, objects)
choice = match_slow(overlaps, 0.5)
print("     " + "".join(f"{name:>6}" for name in "ABCD"))
for i, (row, g) in enumerate(zip(overlaps, choice, strict=True), start=1):
    reason = f"right: finds {'ABCD'[g]}" if g >= 0 else "wrong"
    print(f"{i} {scores[i - 1]:.2f}" + "".join(f"{value:6.2f}" for value in row) + f"   {reason}")

nothing_ignored = (
    np.zeros((1, 4), bool),
    np.zeros(4, bool),
)  # no object is out of range, none is a crowd
correct, excused = match_detections(
    overlaps, *nothing_ignored
)  # (1, 10, 6): area ranges, IoU thresholds, detections
print("the package agrees:", correct[0, 0].tolist() == [g >= 0 for g in choice])

# %% [markdown]
# Three ways to be wrong: 2 overlaps A well, but A is taken: a **duplicate**. 4 is on nothing. 6 is at the right object but
# overlaps it by less than .5.
#
# ## Precision and recall down the ranking
#
# Suppose we believe only the best $n$ detections. Of these, $h_n$ are right ("hits"). With $G$ objects in all,
#
# $$\text{precision}_n = \frac{h_n}{n} \;\text{(how much of what it says is true)}, \qquad
# \text{recall}_n = \frac{h_n}{G} \;\text{(how much of what is there it says)}.$$
#
# With $n$ growing, recall can only rise. Precision falls at every mistake and rises at every hit.

# %%
precision, recall = precision_recall(correct[0, 0], excused[0, 0], len(objects))
hits = np.cumsum(correct[0, 0])
print(" n  score   verdict  precision        recall")
for n in range(1, 7):
    verdict = "right" if correct[0, 0][n - 1] else "wrong"
    fractions = (
        f"{hits[n - 1]}/{n} = {precision[n - 1]:.3f}    {hits[n - 1]}/4 = {recall[n - 1]:.2f}"
    )
    print(f"{n:2}   {scores[n - 1]:.2f}   {verdict}    {fractions}")

# %% [markdown]
# Each $n$ is a point in the plane of recall and precision. Here is the curve, one detection at a time.


# %%
def draw_axes(ax, title):
    ax.set(xlim=(-0.03, 1.03), ylim=(0, 1.08), xticks=[0, 0.25, 0.5, 0.75, 1], yticks=[0, 0.5, 1])
    ax.tick_params(labelsize=8)
    ax.grid(color="0.9")
    ax.set_axisbelow(True)
    ax.set_title(title, fontsize=9)


figure = Figure(figsize=(9, 4.6), dpi=100, layout="constrained")
for n, ax in enumerate(figure.subplots(2, 3, sharex=True, sharey=True).flat, start=1):
    right = correct[0, 0][:n]
    ax.plot(recall[:n], precision[:n], color="0.6", zorder=1)
    ax.scatter(
        recall[:n][right], precision[:n][right], color=BLUE, marker="o", zorder=2, label="right"
    )
    ax.scatter(
        recall[:n][~right], precision[:n][~right], color=RED, marker="x", zorder=2, label="wrong"
    )
    draw_axes(ax, f"after {n}: {hits[n - 1]} right, {n - hits[n - 1]} wrong")
ax.legend(fontsize=8, loc="lower left")
figure.supxlabel("recall", fontsize=9)
figure.supylabel("precision", fontsize=9)
figure

# %% [markdown]
# A hit goes to the right, a mistake straight down. A perfect detector's curve runs along the top edge to recall 1. The
# **area under the curve** is a number for the whole ranking: that is what AP is to be.
#
# ## The envelope and 101 levels
#
# Two details make the area well defined. The zigzag first: at a recall of .5 we could be at precision .667 or .5, and
# nobody would choose the worse. And .6 at recall .75 is better in both than .5 at recall .5. So the height of the curve at
# recall $r$ is the **best precision at that recall or above**:
#
# $$\hat p(r) = \max_{n :\, \text{recall}_n \ge r} \text{precision}_n, \qquad \text{0 where no recall gets that far.}$$
#
# Then COCO reads this stair at 101 levels, $r = 0, .01, \ldots, 1$, and AP is the mean of the 101 heights.

# %%
heights = [
    max((p for p, r in zip(precision, recall, strict=True) if r >= level), default=0)
    for level in RECALL_LEVELS
]

figure = Figure(figsize=(9, 3.6), dpi=100, layout="constrained")
left, right = figure.subplots(1, 2)
left.plot(recall, precision, "o-", color="0.6", label="precision")
left.plot(RECALL_LEVELS, heights, "--", color=BLUE, label="envelope")
left.legend(fontsize=9, loc="lower left")
draw_axes(left, "the zigzag and its envelope")
right.bar(RECALL_LEVELS, heights, width=0.007, color=BLUE)
draw_axes(right, f"read at 101 levels: mean height {np.mean(heights):.3f}")
for ax in (left, right):
    ax.set_xlabel("recall", fontsize=9)
figure

# %% [markdown]
# On paper: the levels 0 to .25 are 26, and read 1. The 25 up to .50 read 2/3, the 25 up to .75 read 3/5, and the last 25
# were never reached and read 0.

# %%
print("by hand            ", (26 * 1 + 25 * 2 / 3 + 25 * 3 / 5 + 25 * 0) / 101)
print("101 loops          ", float(np.mean(heights)))
print("average_precision()", average_precision(precision, recall))

# %% [markdown]
# ## How much overlap is enough?
#
# Detection 5 overlaps C by 2/3: right at .5, wrong at .75. A strict threshold asks for exact boxes. COCO averages over
# ten of them, so that half right boxes earn half the points.

# %%
aps = []
for threshold, verdicts in zip(IOU_THRESHOLDS, correct[0], strict=True):
    p, r = precision_recall(verdicts, np.zeros(6, bool), len(objects))
    aps.append(average_precision(p, r))
    shown = " ".join("right" if ok else "  -  " for ok in verdicts)
    print(f"IoU {threshold:.2f}   {shown}   AP {aps[-1]:.3f}  recall {r[-1]:.2f}")
print(f"AP, the mean of the ten: {np.mean(aps):.3f}")

# %% [markdown]
# The last column's mean is **AR**, average recall: how much is found when every detection is believed. It ignores false
# alarms, so a detector that says everything everywhere could have a perfect AR.
#
# ## Why duplicates hurt, and when they do not
#
# Take the duplicate away; or leave it, with the lowest score of all.


# %%
def ap_of(verdicts):
    return average_precision(
        *precision_recall(np.array(verdicts), np.zeros(len(verdicts), bool), 4)
    )


print(f"right DUPLICATE right wrong right wrong   AP50 {ap_of([1, 0, 1, 0, 1, 0]):.3f}")
print(f"right           right wrong right wrong   AP50 {ap_of([1, 1, 0, 1, 0]):.3f}")
print(f"right right wrong right wrong DUPLICATE   AP50 {ap_of([1, 1, 0, 1, 0, 0]):.3f}")

# %% [markdown]
# A duplicate counts as a plain mistake. It costs as much as there are hits below it in the ranking, whose precision it
# lowers. **Below the last hit a mistake costs nothing.** That is why the network's score threshold is as low as .05:
# doubtful detections at the end can only gain. And it is why NMS matters: without it every sure object brings sure
# duplicates, which stand above everything doubtful.
#
# Only the order counts: halve all scores, or square them, and AP stays what it is. AP does not say whether a score of .9
# means "right in 9 of 10 cases".
#
# ## The trained network on 40 scenes
#
# For each class, the detections of **all images are ranked together**. Matching is done image by image, since a detection
# can only find an object in its own image.

# %%
model = load_shapes()
scenes = [
    ShapesDataset(seed=0, length=40, first=HELD_OUT)[i] for i in range(40)
]  # training never saw them
images, targets = [image for image, _ in scenes], [target for _, target in scenes]
detections = model.detect(images)
print(sum(map(len, targets)), "objects,", sum(map(len, detections)), "detections")


# %%
def mask_iou_slow(found, true):
    """IoU of every detected mask with every true one, pixel by pixel: (D, G)."""
    both = (found[:, None] & true[None]).sum(axis=(2, 3))
    either = (found[:, None] | true[None]).sum(axis=(2, 3))
    return both / np.maximum(either, 1)


def ranking(label, kind, detections=detections):
    """Of one class over all images, best score first: verdicts (10, N), image of each (N,), objects."""
    verdicts, all_scores, where, count = [], [], [], 0
    for i, (found, target) in enumerate(zip(detections, targets, strict=True)):
        mine, true = found.labels == label, target.labels == label
        if kind == "box":
            iou = box_iou(found.boxes[mine].astype(float), target.boxes[true].astype(float))
        else:
            iou = mask_iou_slow(found.masks[mine], target.masks[true])
        correct, _ = match_detections(
            iou, np.zeros((1, true.sum()), bool), np.zeros(true.sum(), bool)
        )
        verdicts.append(correct[0])
        all_scores.append(found.scores[mine])
        where += [(i, d) for d in np.flatnonzero(mine)]
        count += int(true.sum())
    order = np.argsort(-np.concatenate(all_scores), kind="stable")
    return np.concatenate(verdicts, axis=1)[:, order], [where[k] for k in order], count


verdicts, _, count = ranking(2, "box")
print("circles:", count, "objects, the ranking at IoU .5 and at .9 (o right, . wrong):")
for t in (0, 8):
    print(f"{IOU_THRESHOLDS[t]:.2f} ", "".join("o" if ok else "." for ok in verdicts[t]))

# %% [markdown]
# Nearly all hits stand before the mistakes: that is what a high AP looks like. At .9 some of the sure ones turn into
# mistakes, and the curve starts to zigzag.

# %%
figure = Figure(figsize=(9, 3.3), dpi=100, layout="constrained")
styles = {0: (BLUE, "-"), 5: (GREEN, "--"), 8: (RED, "-.")}  # IoU .50, .75, .90
for label, ax in enumerate(figure.subplots(1, 3, sharey=True), start=1):
    verdicts, _, count = ranking(label, "box")
    for t, (colour, style) in styles.items():
        p, r = precision_recall(verdicts[t], np.zeros_like(verdicts[t]), count)
        ap = average_precision(p, r)
        # From recall 0 on, and down to 0 after the last recall that was reached.
        ax.plot(
            [0, *r, r[-1]],
            [1, *p, 0],
            color=colour,
            linestyle=style,
            label=f"IoU {IOU_THRESHOLDS[t]:.2f}: AP {ap:.2f}",
        )
    draw_axes(ax, f"{CLASSES[label - 1]}, {count} objects: boxes")
    ax.set_xlabel("recall", fontsize=9)
    ax.legend(fontsize=8, loc="lower left")
figure.axes[0].set_ylabel("precision", fontsize=9)
figure

# %% [markdown]
# ## The same as `evaluate`
#
# AP of a class is the mean over the ten thresholds; AP of the whole is the mean over the classes. Each class weighs the
# same, however many objects it has.

# %%
ours = {
    kind: np.array(
        [
            [average_precision(*precision_recall(v, np.zeros_like(v), count)) for v in verdicts]
            for verdicts, _, count in (ranking(label, kind) for label in (1, 2, 3))
        ]
    )
    for kind in ("box", "mask")
}  # (classes, thresholds)
result = evaluate(detections, targets, CLASSES)
for kind in ("box", "mask"):
    pairs = (
        ("AP", ours[kind].mean()),
        ("AP50", ours[kind][:, 0].mean()),
        ("AP75", ours[kind][:, 5].mean()),
    )
    print(
        kind, "".join(f"  {name} {value:.6f} = {result[kind][name]:.6f}" for name, value in pairs)
    )
    assert all(np.isclose(value, result[kind][name]) for name, value in pairs)
print()
print(format_table(result, CLASSES))

# %% [markdown]
# One number hides where the points are lost. AP at each of the ten thresholds shows it:

# %%
figure = Figure(figsize=(9, 3.3), dpi=100, layout="constrained")
marks = "so^"
for ax, kind in zip(figure.subplots(1, 2, sharey=True), ("box", "mask"), strict=True):
    for k, name in enumerate(CLASSES):
        ax.plot(
            IOU_THRESHOLDS,
            ours[kind][k],
            marker=marks[k],
            color=(PALETTE[0], PALETTE[5], GREEN)[k],
            label=name,
        )
    ax.set(xlabel="IoU threshold", ylim=(0, 1.05), title=f"{kind} AP {ours[kind].mean():.3f}")
    ax.title.set_fontsize(9)
    ax.grid(color="0.9")
    ax.legend(fontsize=9, loc="lower left")
figure.axes[0].set_ylabel("AP at that threshold")
figure

# %% [markdown]
# Flat, then falling: the objects are found, and beyond some threshold it is a question of single pixels. The boxes of
# circles and triangles fall earlier than those of squares. A square's side is a long straight edge, while a circle's rim
# and a triangle's tip reach the box with a few pixels only. Masks hold out longer, since they count all pixels, but
# at .95 they fall hardest: a circle 50 pixels across has about 1960 pixels, of which .95 allows about 100 to be wrong, and
# its rim alone is about 157 pixels long.
#
# ## The worst mistakes
#
# The curves say how many, pictures say which. The wrong detections (IoU .5, boxes) with the highest scores:

# %%
mistakes = []
for label in (1, 2, 3):
    verdicts, where, _ = ranking(label, "box")
    mistakes += [where[n] for n in np.flatnonzero(~verdicts[0])]
mistakes.sort(key=lambda place: -detections[place[0]].scores[place[1]])

figure = Figure(figsize=(9, 2.6), dpi=100, layout="constrained")
for ax, (i, d) in zip(figure.subplots(1, 4), mistakes[:4], strict=True):
    found = detections[i]
    draw_image(ax, images[i])
    draw_boxes(ax, targets[i].boxes, "black", linewidth=1, halo=True)
    draw_boxes(ax, found.boxes[[d]], RED, linewidth=2.5, halo=True)
    ax.set_title(f"{CLASSES[found.labels[d] - 1]} {found.scores[d]:.2f}", fontsize=9)
figure

# %% [markdown]
# Black boxes are the true ones, the red one is the mistake. There are two kinds: a box that is half on one shape and half
# on its neighbour, as in [10](10_detection.ipynb), and a piece of background between shapes. Colours mean nothing in these
# scenes, so background with straight edges on two sides, which belong to its neighbours, does resemble a square.
#
# ## NMS, measured
#
# What is the right NMS threshold? Now we can ask the data. Only the box head's threshold changes; the network is the same.

# %%
settings = model.config.roi
thresholds = [0.05, 0.3, 0.5, 0.7, 0.9, 1.0]
measured, lines = [], []
for threshold in thresholds:
    model.config = replace(model.config, roi=replace(settings, nms_iou=threshold))
    found = model.detect(images)
    figures = evaluate(found, targets, CLASSES)["box"]
    measured.append((figures["AP50"], figures["AP"], figures["AR"]))
    row = "".join(
        f"  {name} {value:.3f}"
        for name, value in zip(("AP50", "AP", "AR"), measured[-1], strict=True)
    )
    lines.append(f"NMS at {threshold:.2f}: {sum(map(len, found)):5} detections{row}")
model.config = replace(model.config, roi=settings)
print("\n".join(lines))

# %%
figure = Figure(figsize=(7, 3.2), dpi=100, layout="constrained")
ax = figure.subplots()
for k, (name, colour) in enumerate((("AP50", BLUE), ("AP", GREEN), ("AR", RED))):
    ax.plot(thresholds, [row[k] for row in measured], marker="o^s"[k], color=colour, label=name)
ax.set(xlabel="NMS threshold of the box head (1: none)", ylim=(0, 1.05))
ax.grid(color="0.9")
ax.legend(fontsize=9, loc="lower left")
figure

# %% [markdown]
# Over a wide range the threshold hardly matters here. Without NMS, AP collapses under duplicates while AR even rises: among many copies there is a better-fitting one. AR alone
# would say that NMS does harm. A number is only as good as what it counts.
#
# ## What you have learned
#
# * A detection is right if it overlaps a free object of its class by at least the threshold. Each object can be found once,
#   so duplicates are mistakes.
# * Down the ranking, precision says how much is true, recall how much is found. AP is the mean height of the envelope of
#   that curve at 101 recalls.
# * COCO's AP is the mean over ten IoU thresholds and over classes. AP50 forgives boxes that are off, AP75 less.
# * AP sees only the order of the scores, and mistakes below the last hit are free.
# * AR ignores false alarms. Curves and pictures tell what a single number hides.
#
# ## Exercises
#
# 1. Write `average_precision` yourself: `make exercise NAME=average_precision`.
# 2. Detection 6 gets a score of .99. Compute AP50 on paper, then with `ap_of`.
# 3. Give detection 6 the box `[43, 38, 63, 58]`. At which thresholds does AP change, and by how much?
# 4. Square all scores of `detections` (`dataclasses.replace(d, scores=d.scores**2)`), and evaluate again. Then give every
#    detection the same score. Predict first.
#
# ## Links
#
# * Source: [`evaluation.py`](../src/mrcnn_scratch/evaluation.py)
# * Tests: [`test_evaluation.py`](../tests/test_evaluation.py), which also compares with pycocotools
# * Paper: Lin et al. 2014, [COCO](https://arxiv.org/abs/1405.0312); the rules are on
#   [cocodataset.org](https://cocodataset.org/#detection-eval)
# * Next: [12 NumPy to CuPy](12_numpy_to_cupy.ipynb)
