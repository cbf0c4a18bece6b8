# %% [markdown]
# # 05 Region proposals
#
# **What you will see:** how 4092 anchors become 200 boxes worth looking at: the objectness of each anchor, its move to
# where the object is, the shortlist per level, clipping, and non-maximum suppression, one suppression at a time.
#
# **In:** the feature pyramid, per level $(1, H_l, W_l, 64)$, and the anchors, per level $(3 H_l W_l, 4)$.
#
# **Out:** proposals $(K, 4)$ in pixels with scores $(K,)$, best first, $K \le 200$.
#
# **Time:** 20 minutes to read, 10 seconds to run.
#
# **Before this:** [04 Anchors](04_anchors.ipynb).

# %%
# %matplotlib inline
import numpy as np
from IPython.display import HTML
from matplotlib.figure import Figure

from mrcnn_scratch.boxes import box_iou, clip_boxes, decode_boxes
from mrcnn_scratch.data.shapes import CLASSES, HELD_OUT, ShapesConfig, ShapesDataset
from mrcnn_scratch.nms import nms
from mrcnn_scratch.ops.activation import logistic
from mrcnn_scratch.visualize import PALETTE, nms_slider, show_arrays, show_proposals, show_scenes
from mrcnn_scratch.visualize.parts import dim, draw_boxes, draw_image
from mrcnn_scratch.weights import load_shapes

model = load_shapes()
scenes = ShapesDataset(seed=0, length=40, first=HELD_OUT)  # scenes that training never saw
image, target = scenes[19]
show_scenes([image], [target], CLASSES)

# %% [markdown]
# Anchors know nothing of this picture. The same 4092 boxes are laid over every image, and only a few lie near an object.
# The heads that name objects and draw masks are expensive: running them on 4092 boxes would be a waste, since nearly
# all are background. The **region proposal network** (RPN) is a cheap first look that answers two questions for every
# anchor:
#
# * **objectness**, one number: is an object here, of whatever class?
# * **deltas**, four numbers: how should this anchor move and stretch to fit it?
#
# ## Two outputs per anchor
#
# The RPN's head is a 3×3 convolution and two 1×1 convolutions, the same weights on all five levels. With three anchors at
# each place it gives $3$ objectness logits and $3 \times 4$ deltas there. Reshaped: objectness $(1, 3 H_l W_l)$ and
# deltas $(1, 3 H_l W_l, 4)$ per level.

# %%
batch = model.batch([image])
features, _ = model.features(batch.pixels)
(objectness, deltas), _ = model.rpn(features)
anchors = model.anchors(features, batch.pixels)
levels = ["P2", "P3", "P4", "P5", "P6"]

print("level  grid     anchors  objectness   deltas         best logit")
for name, f, o, d in zip(levels, features, objectness, deltas, strict=True):
    grid = f"{f.shape[1]} x {f.shape[2]}"
    print(f"{name:6} {grid:9}{o.size:6}   {o.shape!s:12} {d.shape!s:14} {o.max():6.2f}")
print("all             ", sum(o.size for o in objectness))

# %% [markdown]
# A logit $z$ becomes a probability by the logistic function $\sigma(z) = 1 / (1 + e^{-z})$. At each place of a level we
# show the largest of its three. The small levels have few places, so each of their squares stands for a large piece of
# the picture.

# %%
maps = [
    logistic(o).reshape(*f.shape[1:3], 3).max(axis=-1)
    for o, f in zip(objectness, features, strict=True)
]
titles = [
    f"{name}: anchors of size {s[0]:.0f}"
    for name, s in zip(levels, model.config.anchors.sizes, strict=True)
]
show_arrays([image, *maps], ["the scene", *titles], columns=3, same_scale=True, digits=1)

# %% [markdown]
# Only P4 and P5 light up. Their anchors are 32 and 64 pixels large, like the shapes of these scenes. P2, P3 and P6 say
# "no" everywhere, since no object here is 8, 16 or 128 pixels large. And objectness is not one dot per object but a
# **blob**: neighbouring anchors see the same object, and each says yes. Much of this notebook is about undoing that.
#
# ## The best anchors, before and after their deltas
#
# The deltas $(t_x, t_y, t_w, t_h)$ of an anchor with centre $(x_a, y_a)$ and size $(w_a, h_a)$ mean
#
# $$x = x_a + t_x w_a, \quad y = y_a + t_y h_a, \quad w = w_a e^{t_w}, \quad h = h_a e^{t_h}.$$
#
# The shift is counted in anchor widths and the size in factors. So the same four numbers mean the same thing on an
# anchor of 8 pixels and on one of 128, and one head can serve all levels. Here is the most confident anchor, by hand.

# %%
a, d, o = anchors[3], deltas[3][0], objectness[3][0]  # P5
best = o.argmax()
(x1, y1, x2, y2), (tx, ty, tw, th) = a[best], d[best]
xa, ya, wa, ha = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
x, y, w, h = xa + tx * wa, ya + ty * ha, wa * np.exp(tw), ha * np.exp(th)

print(
    f"anchor: centre ({xa:.1f}, {ya:.1f}), size {wa:.1f} x {ha:.1f}, probability {logistic(o)[best]:.4f}"
)
print(f"deltas: {tx:.3f} {ty:.3f} {tw:.3f} {th:.3f}")
print(f"box:    centre ({x:.1f}, {y:.1f}), size {w:.1f} x {h:.1f}")
print("by hand:     ", np.round([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 2))
print("decode_boxes:", decode_boxes(d[best], a[best], (1.0, 1.0, 1.0, 1.0)).round(2))

# %% [markdown]
# The same for every anchor of P4 and P5 that is more likely an object than not.

# %%
sure = [np.flatnonzero(logistic(objectness[level][0]) > 0.5) for level in (2, 3)]
before = np.concatenate([anchors[level][s] for level, s in zip((2, 3), sure, strict=True)])
after = np.concatenate(
    [
        decode_boxes(deltas[i][0][s], anchors[i][s], (1.0, 1.0, 1.0, 1.0))
        for i, s in zip((2, 3), sure, strict=True)
    ]
)
colours = [PALETTE[1]] * len(sure[0]) + [PALETTE[0]] * len(sure[1])

figure = Figure(figsize=(9, 4.7), dpi=100, layout="constrained")
for ax, boxes, title in zip(
    figure.subplots(1, 2), (before, after), ("anchors", "moved by their deltas"), strict=True
):
    draw_image(ax, dim(image))
    draw_boxes(ax, boxes, colours, linewidth=1.2)
    ax.set_title(f"{len(boxes)} {title} (blue: of P4, orange: of P5)", fontsize=9)
    ax.set(xlim=(-16, 144), ylim=(144, -16), facecolor="0.85")
figure

# %% [markdown]
# On the left the anchors sit on a grid and fit nothing. On the right they have gathered around the three objects: many
# boxes per object, each a slightly different guess. Some reach beyond the picture.
#
# ## Top n per level
#
# Most anchors are hopeless, so each level keeps only its best 500 (1000 in torchvision's large networks). The shortlist is
# made **per level**, since P2 alone has three quarters of all anchors: on a common shortlist its many places would get
# many chances. A stable sort puts the earlier of two equal anchors first, so the result does not hang on chance.

# %%
wanted = model.config.rpn.pre_nms_test
shortlists = [np.argsort(-o[0], kind="stable")[:wanted] for o in objectness]
moved = [
    decode_boxes(d[0][s], a[s], (1.0,) * 4)
    for d, a, s in zip(deltas, anchors, shortlists, strict=True)
]
logits = [o[0][s] for o, s in zip(objectness, shortlists, strict=True)]
for name, o, chosen in zip(levels, objectness, logits, strict=True):
    print(
        f"{name}: {o.size:5} anchors, {len(chosen):4} stay, logits {chosen[0]:6.2f} down to {chosen[-1]:6.2f}"
    )

# %% [markdown]
# Logits of -10 are on the list too: a shortlist is a bound on work, not a judgement. P4 to P6 are small enough to stay
# whole.
#
# ## Clipping, and boxes with nothing left
#
# No pixel lies outside the picture, so boxes are cut off at its edge: $x$ into $[0, W]$ and $y$ into $[0, H]$.

# %%
size = batch.sizes[0]  # (height, width)
clipped = [clip_boxes(boxes, size) for boxes in moved]
for name, boxes, inside in zip(levels, moved, clipped, strict=True):
    print(
        f"{name}: {(boxes != inside).any(axis=1).sum():3} of {len(boxes)} boxes reached beyond the picture"
    )

figure = Figure(figsize=(9, 4.7), dpi=100, layout="constrained")
for ax, boxes, title in zip(
    figure.subplots(1, 2), (moved[4], clipped[4]), ("moved", "clipped"), strict=True
):
    draw_image(ax, dim(image))
    draw_boxes(ax, boxes, PALETTE[0], linewidth=1.5)
    ax.set_title(f"the {len(boxes)} boxes of P6, {title}", fontsize=9)
    ax.set(xlim=(-90, 200), ylim=(200, -90), facecolor="0.85")
figure

# %% [markdown]
# A box that lay wholly outside is squeezed onto the edge, and its width or height becomes 0. Such a box shows no pixel, and
# a later stage would divide by its width. So boxes with a side under `min_side` are dropped. Three boxes by hand:

# %%
boxes = np.array([[100, 20, 150, 60], [130, 20, 150, 60], [127.9995, 20, 140, 60]], np.float32)
inside = clip_boxes(boxes, size)
for box, cut in zip(boxes, inside, strict=True):
    sides = cut[2:] - cut[:2]
    print(
        box,
        "->",
        cut,
        " sides",
        sides.round(4),
        " kept:",
        bool((sides >= model.config.rpn.min_side).all()),
    )

large_enough = [(b[:, 2:] - b[:, :2] >= model.config.rpn.min_side).all(axis=1) for b in clipped]
print("dropped on this scene:", sum(int((~kept).sum()) for kept in large_enough))

# %% [markdown]
# The network learned from true boxes that all end at the edge, so it rarely points outside. The check is there for
# the time before it has learned that.
#
# ## Non-maximum suppression, one suppression at a time
#
# Several boxes per object are left. **Greedy non-maximum suppression** (NMS) keeps the best box, removes all boxes that
# overlap it by more than a threshold (they are probably the same object), then does the same with the best of those that
# are left, and so on. Six boxes are enough to see all of it. They are named in the order of their scores.

# %%
small = np.array(
    [
        [10, 10, 50, 50],  # A
        [16, 10, 56, 50],  # B, a little to the right of A
        [20, 66, 60, 96],  # C, elsewhere
        [27, 10, 67, 50],  # D, to the right of B
        [36, 10, 76, 50],  # E, to the right of D
        [22, 68, 62, 98],  # F, close to C
    ],
    float,
)
small_scores = np.array([0.95, 0.90, 0.85, 0.80, 0.70, 0.60])
letters = "ABCDEF"
iou = box_iou(small, small)
figure = show_arrays(
    [iou, np.triu(iou > 0.5, 1)],
    ["IoU", "1: suppressed by the row's box, if that is kept"],
    width=7,
)
for ax in figure.axes:
    ax.set_xticks(range(6), letters)
    ax.set_yticks(range(6), letters)
figure

# %% [markdown]
# $\mathrm{IoU}(A, B)$ on paper: the boxes share $34 \times 40 = 1360$ square pixels of
# $1600 + 1600 - 1360 = 1840$, so $.74$. On the right, a 1 in row $i$, column $j$ says "if $i$ is kept, $j$ falls": A
# against B, B against D, C against F, D against E. Only the part above the diagonal matters, since only a better box can
# suppress.
#
# The walk, written as it is said:


# %%
def nms_slow(boxes, scores, threshold):
    """Greedy suppression. Returns what is kept, best first, and a diary: (box taken, boxes that fall by it)."""
    left = sorted(range(len(boxes)), key=lambda i: -scores[i])
    kept, diary = [], []
    while left:
        best, *others = left
        overlaps = box_iou(boxes[[best]], boxes[others])[0]
        fallen = [j for j, overlap in zip(others, overlaps, strict=True) if overlap > threshold]
        kept.append(best)
        diary.append((best, fallen))
        left = [j for j in others if j not in fallen]
    return kept, diary


kept, diary = nms_slow(small, small_scores, 0.5)
for best, fallen in diary:
    print(f"take {letters[best]}: suppresses {', '.join(letters[j] for j in fallen) or 'nobody'}")
print(
    "kept:",
    [letters[i] for i in kept],
    " package:",
    [letters[i] for i in nms(small, small_scores, 0.5)],
)


# %%
def draw_state(ax, taken, fallen, new):
    """Kept solid, suppressed dashed, undecided thin; the box taken now is drawn bold."""
    for i, (x1, y1, x2, y2) in enumerate(small):
        colour = PALETTE[5] if i in taken else PALETTE[3] if i in fallen else "0.5"
        style = "--" if i in fallen else "-"
        width = 3 if i == new else 1.8 if i in taken else 1.2
        ax.plot(
            [x1, x2, x2, x1, x1],
            [y1, y1, y2, y2, y1],
            color=colour,
            linestyle=style,
            linewidth=width,
        )
        x, y = {"E": (x2 - 6, y2 - 2), "F": (x2 + 2, y2 - 2)}.get(letters[i], (x1 + 2, y1 + 8))
        ax.text(x, y, letters[i], color=colour, fontsize=11, weight="bold")
    ax.set(xlim=(5, 81), ylim=(102, 5), xticks=[], yticks=[], aspect="equal")


figure = Figure(figsize=(9, 3.2), dpi=100, layout="constrained")
axes = figure.subplots(1, len(diary) + 1)
draw_state(axes[0], set(), set(), None)
axes[0].set_title("start", fontsize=9)
for step, (best, fallen) in enumerate(diary, start=1):
    taken = {b for b, _ in diary[:step]}
    gone = {j for _, f in diary[:step] for j in f}
    draw_state(axes[step], taken, gone, best)
    axes[step].set_title(
        f"take {letters[best]}: {', '.join(letters[j] for j in fallen)} falls", fontsize=9
    )
figure

# %% [markdown]
# Grey is undecided, blue is kept, dashed orange is suppressed. Look at D: B overlaps it by more than .5, but B is gone
# when it is D's turn. **A suppressed box suppresses nobody.** That is what makes the order matter, and what makes NMS
# look like a loop that cannot be avoided.
#
# ## The same answer without the walk
#
# A Python loop over hundreds of boxes is slow, and on a GPU each round would wait for the one before. The package says
# the rule as an equation. With $k_j = 1$ if box $j$ is kept and $S_{ij} = 1$ if $i$ is better than $j$ and overlaps it by
# more than the threshold:
#
# $$k_j = 1 \iff \sum_i k_i S_{ij} = 0.$$
#
# $k$ stands on both sides. Start from "all are kept", put that in on the right, get a new $k$ on the left, and repeat:
# one vector-matrix product a pass.

# %%
suppresses = np.triu(iou > 0.5, 1)
passes = [np.ones(6, bool)]
while len(passes) == 1 or (passes[-1] != passes[-2]).any():
    passes.append((passes[-1].astype(int) @ suppresses) == 0)

for number, k in enumerate(passes):
    print(
        f"pass {number}:",
        " ".join(letter if on else "." for letter, on in zip(letters, k, strict=True)),
    )

# %%
figure = Figure(figsize=(9, 2.7), dpi=100, layout="constrained")
for number, (ax, k) in enumerate(zip(figure.subplots(1, len(passes)), passes, strict=True)):
    draw_state(ax, set(np.flatnonzero(k)), set(np.flatnonzero(~k)), None)
    ax.set_title("start: all kept" if number == 0 else f"pass {number}", fontsize=9)
figure

# %% [markdown]
# Pass 1 is too strict: it lets B suppress D although B itself falls. Pass 2 notices that B is gone, so D comes back, and E
# with it, since D was not there in pass 1. Pass 3 removes E again. Pass 4 changes nothing, and that is the sign to stop.
#
# **Why it is greedy's answer.** The best box has nobody above it: it is right after pass 1. If the best $n$ boxes are
# right, the next one depends on those alone, so it is right one pass later. Each pass makes at least one more box right,
# and once right it stays. When a pass changes nothing, all are right. The worst case is a chain of boxes that each
# suppress the next, one pass each. Real chains are short:

# %%
for name, boxes, scores in zip(levels, clipped, logits, strict=True):
    s = np.triu(box_iou(boxes, boxes) > model.config.rpn.nms_iou, 1)  # they are sorted already
    k, count = np.ones(len(boxes), bool), 0
    while True:
        again, count = (k.astype(np.float32) @ s) == 0, count + 1
        if (again == k).all():
            break
        k = again
    same = np.flatnonzero(k).tolist() == nms_slow(boxes, scores, model.config.rpn.nms_iou)[0]
    print(
        f"{name}: {len(boxes):3} boxes, {count} passes, {k.sum():3} kept, the walk agrees: {same}"
    )

# %% [markdown]
# ## Suppression on the scene
#
# Each level is suppressed on its own, with threshold .7. Here are the boxes of P4 and P5 with an objectness of at least
# .05; the others would cover the picture.

# %%
kept = [
    nms(boxes, scores, model.config.rpn.nms_iou)
    for boxes, scores in zip(clipped, logits, strict=True)
]
after_nms = [boxes[k] for boxes, k in zip(clipped, kept, strict=True)]
p45 = slice(2, 4)
boxes, scores = np.concatenate(clipped[p45]), logistic(np.concatenate(logits[p45]))
boxes_left = np.concatenate(after_nms[p45])
scores_left = logistic(np.concatenate([o[k] for o, k in zip(logits[p45], kept[p45], strict=True)]))
shown, shown_left = scores >= 0.05, scores_left >= 0.05
show_proposals(image, boxes[shown], boxes_left[shown_left], scores[shown], scores_left[shown_left])

# %% [markdown]
# The bundles of bright boxes have become a few. Boxes that are wrong but overlap nobody stay: NMS does not ask how good a
# box is, only whether a better one is near. The box head will say of those what they are: background ([10](10_detection.ipynb)).
#
# ## Move the threshold yourself
#
# The forty most promising boxes of P4 and P5, put together. The IoUs are computed once; the slider only says from which
# overlap on a box falls. Solid boxes are kept, dashed ones suppressed. (Move it with the mouse or the arrow keys. If you
# read this where scripts are not run, the three pictures below it show three of its positions.)

# %%
forty = np.argsort(-scores, kind="stable")[:40]
boxes, scores = boxes[forty], scores[forty]
thresholds = np.linspace(0, 1, 41).round(3).tolist()
HTML(nms_slider(image, boxes, scores, thresholds))

# %%
figure = Figure(figsize=(9, 3.4), dpi=100, layout="constrained")
for ax, threshold in zip(figure.subplots(1, 3), (0.1, 0.5, 0.9), strict=True):
    solid = nms(boxes, scores, threshold)
    others = np.setdiff1d(np.arange(len(boxes)), solid)
    draw_image(ax, dim(image))
    draw_boxes(ax, boxes[others], "0.75", linewidth=0.6)
    ax.collections[-1].set_linestyle((0, (3, 4)))
    draw_boxes(ax, boxes[solid], PALETTE[0], linewidth=2)
    ax.set_title(f"threshold {threshold}: {len(solid)} of {len(boxes)} kept", fontsize=9)
figure

# %% [markdown]
# Too low, and neighbours that are different objects suppress each other: the circle and the triangle overlap. Too high,
# and every object keeps its crowd of near copies. The RPN takes .7, a generous value: it may keep several boxes per
# object, since the box head will look again and suppress again, with .5 and class by class ([10](10_detection.ipynb)).
# It must not lose an object, since **nothing after the RPN can bring one back**.
#
# ## The best over all levels
#
# Last, the survivors of all levels are put together and the best 200 stay.

# %%
everything = np.concatenate(after_nms)
final_logits = np.concatenate([o[k] for o, k in zip(logits, kept, strict=True)])
of_level = np.repeat(levels, [len(k) for k in kept])
final = np.argsort(-final_logits, kind="stable")[: model.config.rpn.post_nms_test]
proposals = everything[final]

for name in levels:
    print(
        f"{name}: {(of_level == name).sum():4} survive suppression, {(of_level[final] == name).sum():4} are proposals"
    )
their_boxes, their_scores = model.proposals(objectness, deltas, anchors, batch)[0]
print("model.proposals gives the same boxes:", np.array_equal(their_boxes, proposals))

# %% [markdown]
# ## What each step costs: recall
#
# The **recall** of a set of boxes is the share of objects that some box in it fits, with an IoU of at least $t$. It cannot
# grow when boxes are only removed, so it shows what each step loses. First this scene: the best IoU that each object
# can hope for.


# %%
def every_step(image):
    """The boxes after each step, by the step's name; best first within each level."""
    batch = model.batch([image])
    features, _ = model.features(batch.pixels)
    (objectness, deltas), _ = model.rpn(features)
    anchors = model.anchors(features, batch.pixels)
    best = [np.argsort(-o[0], kind="stable")[: model.config.rpn.pre_nms_test] for o in objectness]
    ones = (1.0, 1.0, 1.0, 1.0)
    moved = [decode_boxes(d[0], a, ones) for d, a in zip(deltas, anchors, strict=True)]
    top = [m[b] for m, b in zip(moved, best, strict=True)]
    inside = [clip_boxes(boxes, batch.sizes[0]) for boxes in top]
    large = [(b[:, 2:] - b[:, :2] >= model.config.rpn.min_side).all(axis=1) for b in inside]
    kept = [
        boxes[ok][nms(boxes[ok], o[0][b][ok], model.config.rpn.nms_iou)]
        for boxes, ok, o, b in zip(inside, large, objectness, best, strict=True)
    ]
    return {
        "anchors": np.concatenate(anchors),
        "moved": np.concatenate(moved),
        "top 500 per level": np.concatenate(top),
        "clipped": np.concatenate(inside),
        "tiny dropped": np.concatenate([b[ok] for b, ok in zip(inside, large, strict=True)]),
        "after NMS": np.concatenate(kept),
        "best 200": model.proposals(objectness, deltas, anchors, batch)[0][0],
    }


names = [CLASSES[label - 1] for label in target.labels]
print(f"{'best IoU with the':20}{'boxes':>6}" + "".join(f"{name:>10}" for name in names))
for step, boxes in every_step(image).items():
    best_iou = box_iou(target.boxes, boxes).max(axis=1)
    print(f"{step:20}{len(boxes):6}" + "".join(f"{value:10.2f}" for value in best_iou))

# %% [markdown]
# Moving the anchors lifts every object. The shortlist, clipping and the check for tiny boxes cost nothing here. NMS lowers the best IoU a little: of a
# bundle it keeps the box with the highest *score*, and that need not be the one that fits best. Now over 40 scenes.

# %%
fits, counts = {}, {}
for i in range(len(scenes)):
    scene, truth = scenes[i]
    for step, boxes in every_step(scene).items():
        fits.setdefault(step, []).append(box_iou(truth.boxes, boxes).max(axis=1))
        counts.setdefault(step, []).append(len(boxes))
fits = {step: np.concatenate(values) for step, values in fits.items()}

print(f"{len(fits['anchors'])} objects{'boxes':>17}   recall at IoU .5   .7   .8   .9")
recall = {
    step: [(values >= t).mean() for t in (0.5, 0.7, 0.8, 0.9)] for step, values in fits.items()
}
for step, values in recall.items():
    print(
        f"{step:20}{np.mean(counts[step]):7.0f}            "
        + " ".join(f"{value:6.2f}" for value in values)
    )

# %%
figure = Figure(figsize=(9, 3.6), dpi=100, layout="constrained")
ax = figure.subplots()
marks, colours = ("o", "s", "^", "D"), (PALETTE[5], PALETTE[2], PALETTE[0], PALETTE[3])
for column, (t, mark, colour) in enumerate(zip((0.5, 0.7, 0.8, 0.9), marks, colours, strict=True)):
    ax.plot(
        [values[column] for values in recall.values()],
        marker=mark,
        color=colour,
        label=f"IoU {t} or more",
    )
labels = [f"{step}\n{np.mean(counts[step]):.0f} boxes" for step in recall]
ax.set_xticks(range(len(labels)), labels, fontsize=8)
ax.set(ylim=(-0.03, 1.05), ylabel="recall of 40 scenes' objects")
ax.grid(color="0.9")
ax.legend(fontsize=9, loc="center right")
figure

# %% [markdown]
# The deltas are what makes the difference; without them few anchors reach .7. From there on the number of boxes falls
# twentyfold, and recall at .5 hardly at all. Clipping even helps a little at .9, with objects at the picture's edge. What
# NMS costs shows at the strict thresholds.
#
# Was NMS needed, then? Suppose that the heads can afford only $k$ boxes per image. Compare the $k$ best with and without
# it, on scenes that are fuller than those of training, up to nine shapes each.

# %%
crowded = ShapesDataset(
    seed=0, length=40, config=ShapesConfig(min_objects=6, max_objects=9), first=HELD_OUT
)
budgets = [1, 2, 3, 5, 10, 20, 50, 100, 200]
best_k = {
    "with NMS": [],
    "without NMS": [],
}  # per scene the best IoU of each object, for each budget
for i in range(len(crowded)):
    scene, truth = crowded[i]
    one = model.batch([scene])
    f, _ = model.features(one.pixels)
    (o, d), _ = model.rpn(f)
    a = model.anchors(f, one.pixels)
    first = np.argsort(-np.concatenate(o, axis=1)[0], kind="stable")[: budgets[-1]]
    plain = decode_boxes(
        np.concatenate(d, axis=1)[0][first], np.concatenate(a)[first], (1.0, 1.0, 1.0, 1.0)
    )
    lists = {
        "with NMS": model.proposals(o, d, a, one)[0][0],
        "without NMS": clip_boxes(plain, one.sizes[0]),
    }
    for name, boxes in lists.items():
        best_k[name].append(
            np.stack([box_iou(truth.boxes, boxes[:k]).max(axis=1) for k in budgets])
        )

figure = Figure(figsize=(9, 3.6), dpi=100, layout="constrained")
for ax, t in zip(figure.subplots(1, 2, sharey=True), (0.5, 0.7), strict=True):
    for (name, values), colour, mark in zip(
        best_k.items(), (PALETTE[5], PALETTE[3]), "os", strict=True
    ):
        shares = (np.concatenate(values, axis=1) >= t).mean(axis=1)
        ax.plot(budgets, shares, marker=mark, color=colour, label=name)
    ax.set_xscale("log")
    ax.set_xticks(budgets, budgets)
    ax.minorticks_off()
    ax.set(xlabel="boxes per image (the best k)", ylim=(0, 1.05))
    ax.set_title(f"recall at IoU {t}", fontsize=9)
    ax.grid(color="0.9")
    ax.legend(fontsize=9, loc="lower right")
figure

# %% [markdown]
# On the left, with a list of 10 to 50, NMS finds more objects: without it the places go to copies of the easy ones. On the right
# the long list without NMS is the better one: it still holds the copies that fit best, and NMS keeps the copy with the
# best *score*. The heads need a box to start from rather than a perfect one, since they refine it, and IoU .5 is where
# a proposal counts as an object's. So the left picture is what matters here, and the cost of a long list decides: every
# proposal goes through the box head.
#
# ## No gradient from here
#
# Sorting, choosing and suppressing have no useful derivative, so `model.proposals` returns no `backward`. The heads treat
# proposals as constants, and their losses say nothing about how a proposal should have moved. The RPN learns from its own
# two losses, which look at objectness and deltas *before* all of this. [08](08_targets_and_losses.ipynb) shows them.
#
# ## What you have learned
#
# * The RPN gives each anchor a probability of being any object, and four numbers that move it: shifts in units of the
#   anchor's size, and logarithms of factors.
# * Proposals are made by: the best $n$ of each level, move, clip, drop what has no side left, suppress, the best 200
#   of all levels.
# * NMS keeps the best box of each bundle. A suppressed box suppresses nobody.
# * Greedy NMS is the fixed point of one equation, which a few matrix products reach.
# * Recall tells what each step costs. What is lost here is lost for good, so thresholds are generous.
#
# ## Exercises
#
# 1. Write `nms` yourself: `make exercise NAME=nms`. The tests tell you about ties, empty inputs and the threshold itself.
# 2. Predict what the six boxes give with threshold .3 and with .6, on paper, from the IoU matrix. Then run `nms_slow`.
# 3. Make a chain of ten boxes of 20 x 20, each shifted by 4 pixels, and count the passes at threshold .5. Reverse the
#    scores: what changes?
# 4. Put `deltas = [0 * d for d in deltas]` before `moved` in `every_step`: no anchor moves. How much recall is left at .5?
#
# ## Links
#
# * Source: [`rpn/head.py`](../src/mrcnn_scratch/rpn/head.py), [`rpn/proposals.py`](../src/mrcnn_scratch/rpn/proposals.py),
#   [`nms.py`](../src/mrcnn_scratch/nms.py), [`boxes.py`](../src/mrcnn_scratch/boxes.py); the slider is
#   [`visualize/slider.py`](../src/mrcnn_scratch/visualize/slider.py)
# * Tests: [`test_proposals.py`](../tests/rpn/test_proposals.py), [`test_nms.py`](../tests/test_nms.py),
#   [`test_boxes.py`](../tests/test_boxes.py)
# * Papers: Ren et al. 2015, [Faster R-CNN](https://arxiv.org/abs/1506.01497), section 3.1 and equation 2; Lin et al. 2017,
#   [FPN](https://arxiv.org/abs/1612.03144), section 4.1
# * Next: [06 RoI Align](06_roi_align.ipynb)
