# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 04 Anchors
#
# **What you will see**: the boxes that every proposal starts from, laid over the scene; which of them answer for which object; which objects no anchor fits; and the four numbers that move an anchor onto its object.
#
# **In**: the sizes of the five pyramid maps, and an image's true boxes `(G, 4)`. **Out**: anchors `(A, 4)`, for each a match `(A,)`, and for the positive ones the deltas `(P, 4)` that the network must learn to predict.
#
# **Time**: 20 minutes to read, a few seconds to run.
#
# **Before this**: [03 Backbone and feature pyramid](03_backbone_and_pyramid.ipynb).

# %%
# %matplotlib inline
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mrcnn_scratch import visualize, weights
from mrcnn_scratch.boxes import MAX_LOG_SCALE, box_iou, decode_boxes, encode_boxes
from mrcnn_scratch.data.shapes import CLASSES, ShapesDataset
from mrcnn_scratch.matching import BELOW_LOW, BETWEEN, match, sample_balanced
from mrcnn_scratch.rpn import AnchorGenerator
from mrcnn_scratch.rpn.anchors import cell_anchors
from mrcnn_scratch.visualize import PALETTE

config = weights.load_shapes().config
scenes = ShapesDataset(seed=0, length=500)
image, target = scenes[37]
np.set_printoptions(precision=2, suppress=True)
print("sizes per level:", config.anchors.sizes)
print("aspect ratios, height / width:", config.anchors.aspect_ratios)

# %% [markdown]
# ## 1. Why anchors
#
# An image holds an unknown number of objects, but a network's output has a fixed shape. Anchors settle that: we lay thousands of boxes of set sizes over the image, and the network answers two questions about *each*: is this an object? how must the box move to fit it? The number of answers is fixed; the number of yeses is not. An anchor is no guess. It depends on the sizes of the maps alone, never on the picture (Faster R-CNN, section 3.1.1).
#
# ## 2. One place
#
# At each place of a level there is one anchor per aspect ratio. A box of size $s$ and ratio $r = h / w$ should have the area $s^2$ whatever its ratio. From $h = r\,w$ and $h\,w = s^2$ follows $r\,w^2 = s^2$, so
#
# $$w = s / \sqrt{r}, \qquad h = s \sqrt{r} .$$
#
# `cell_anchors(sizes, ratios)` gives the boxes of one place around the point (0, 0), `(ratios * sizes, 4)`, ratio by ratio, as $x_1, y_1, x_2, y_2$, with corners rounded to whole pixels. Halves go to the even neighbour: 2.5 to 2, 3.5 to 4. That is torchvision's rule, and its weights were trained with it. Here is what rounding does:

# %%
print("size ratio   exact w x h      rounded w x h   ratio becomes   area / size^2")
for size in (8, 16, 32, 64, 128):
    for ratio, (x1, y1, x2, y2) in zip((0.5, 1, 2), cell_anchors([size], [0.5, 1, 2]), strict=True):
        w, h = x2 - x1, y2 - y1
        exact = f"{size / ratio**0.5:6.2f} x {size * ratio**0.5:6.2f}"
        print(
            f"{size:4}{ratio:6}{exact:>18}{w:9.0f} x {h:3.0f}{h / w:14.2f}{w * h / size**2:16.2f}"
        )

# %% [markdown]
# The smallest anchors feel the rounding: an area over by an eighth. From size 32 on it is a few percent. On the scene, around its middle; the left panel is zoomed in:


# %%
def draw_box(ax, box, colour, **style):
    x1, y1, x2, y2 = box
    ax.add_patch(
        Rectangle(
            (x1, y1), x2 - x1, y2 - y1, fill=False, **({"linewidth": 2} | style), edgecolor=colour
        )
    )


figure = Figure(figsize=(9, 4.4), layout="constrained")
size_colours = dict(
    zip((8, 16, 32, 64, 128), ("white", *(PALETTE[i] for i in (0, 1, 6, 4))), strict=True)
)
for ax, sizes, reach in zip(
    figure.subplots(1, 2), [(8, 16, 32), (32, 64, 128)], [28, 96], strict=True
):
    ax.imshow(image // 2, extent=(0, 128, 128, 0))
    for size in sizes:
        for k, box in enumerate(cell_anchors([size], config.anchors.aspect_ratios) + 64):
            draw_box(ax, box, size_colours[size], label=f"size {size}" if k == 0 else None)
    ax.plot(64, 64, "+", color="white", markersize=10)
    ax.set(
        xlim=(64 - reach, 64 + reach),
        ylim=(64 + reach, 64 - reach),
        facecolor="0.2",
        xlabel="pixels",
    )
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, fontsize=9, facecolor="0.5")
figure

# %% [markdown]
# Three boxes a size: wide, square, high. The largest reach beyond the picture. That is allowed; proposals are clipped to the image later.
#
# ## 3. Every place of every level
#
# Level $l$ has one size and its own stride $2^l$, here 4 to 64 pixels: small anchors stand close together on the fine map, large ones far apart on the coarse map (FPN, section 4.1). The place in row $i$ and column $j$ has its anchors around the point $(j \cdot \text{stride},\; i \cdot \text{stride})$, the top left corner of its cell. In the last notebook the receptive field of a place was centred on just that pixel.
#
# The maps of a 128 x 128 image have 32, 16, 8, 4 and 2 places a side. Three anchors each:

# %%
generator = AnchorGenerator(config.anchors.sizes, config.anchors.aspect_ratios)
grids = [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2)]
levels = generator.levels(grids, image_size=(128, 128))
anchors = np.concatenate(levels)  # what generator(grids, (128, 128)) returns
for name, level, (rows, columns) in zip(("P2", "P3", "P4", "P5", "P6"), levels, grids, strict=True):
    print(
        f"{name}: {rows:2} x {columns:2} places x {generator.per_place} = {len(level):4} anchors",
        end="  ",
    )
    print(f"stride {128 // rows:2}, first {level[0]}")
print("together", anchors.shape)
figure = visualize.show_anchors(image, levels, ["P2", "P3", "P4", "P5", "P6"])
figure.set_size_inches(9, 2.1)
figure

# %% [markdown]
# White dots are the centres, and the coloured boxes those of the most central place. Most anchors are small, because there is most room for them.
#
# The order is fixed: level, row, column, anchor. Here is P5: at each centre the numbers of its three anchors within the level, and the anchors of two neighbouring places.

# %%
figure = Figure(figsize=(5, 5), layout="constrained")
ax = figure.subplots()
ax.imshow(image // 2, extent=(0, 128, 128, 0))
for place in range(16):
    x, y = (levels[3][3 * place, :2] + levels[3][3 * place, 2:]) / 2
    colour = {5: PALETTE[0], 6: PALETTE[1]}.get(place, "white")
    for box in levels[3][3 * place : 3 * place + 3] if colour != "white" else ():
        draw_box(ax, box, colour, linewidth=1.5)
    ax.plot(x, y, "o", color=colour, markersize=5)
    ax.text(
        x + 2,
        y + 2,
        f"{3 * place}-{3 * place + 2}",
        color=colour,
        fontsize=9,
        va="top",
        bbox={"color": "0.2", "pad": 1.5},
        zorder=3,
    )
ax.set(
    xlim=(-20, 132),
    ylim=(132, -20),
    facecolor="0.2",
    xticks=range(0, 129, 32),
    yticks=range(0, 129, 32),
)
figure

# %% [markdown]
# The right and lower edges have no centres: the last ones lie a stride before them.
#
# The RPN head's output for a level, `(N, H, W, 3)`, has its places row by row and its channels last, so reshaped to `(N, H*W*3)` its numbers are already in the anchors' order. The obvious version is four loops:


# %%
def anchors_slow(sizes, ratios, grids, image_size):
    boxes = []
    for level_sizes, (rows, columns) in zip(sizes, grids, strict=True):
        for row in range(rows):
            for column in range(columns):
                x, y = column * (image_size[1] // columns), row * (image_size[0] // rows)
                for x1, y1, x2, y2 in cell_anchors(level_sizes, ratios):
                    boxes.append([x + x1, y + y1, x + x2, y + y2])
    return np.array(boxes)


slow = anchors_slow(config.anchors.sizes, config.anchors.aspect_ratios, grids, (128, 128))
print("same boxes, same order:", np.array_equal(slow, anchors))

# %% [markdown]
# ## 4. Which anchor answers for which object
#
# For training, every anchor needs the right answer. The measure is **intersection over union**, IoU, from 0 (apart) to 1 (equal). `box_iou(objects, anchors)` is `(G, A)`: one row an object, one column an anchor. Some of its columns, first the best anchor of each object; `P5:4049` is anchor 4049, which lies on P5:

# %%
iou = box_iou(target.boxes, anchors)  # (G, A)
level_of = np.repeat(np.arange(2, 7), [len(level) for level in levels])
names = [f"{i} {CLASSES[label - 1]}" for i, label in enumerate(target.labels)]
best = iou.argmax(axis=1)
shown = np.concatenate([best, best[:3] + 1, [3072 + 768 + 60, 500]])
print("IoU".ljust(12), *(f"P{level_of[a]}:{a:<5}" for a in shown))
for name, row in zip(names, iou, strict=True):
    print(name.ljust(12), *(f"{row[a]:<8.2f}" for a in shown))
print("\nbest of each object:", iou.max(axis=1))

# %%
figure = Figure(figsize=(9, 2.6), layout="constrained")
for i, ax in enumerate(figure.subplots(1, len(target))):
    visualize.draw_objects(ax, image, target.boxes[:0], target.labels[:0])
    draw_box(ax, target.boxes[i], "white")
    draw_box(ax, anchors[best[i]], "black", linestyle="--")
    ax.set_title(f"{names[i]}: IoU {iou[i, best[i]]:.2f}", fontsize=10)
    ax.set(xlim=(-20, 136), ylim=(136, -20), facecolor="0.7")
figure

# %% [markdown]
# White is the object's box, dashed its best anchor of all 4,092. `match` turns the table into one answer an anchor, `(A,)`, by its best IoU over the objects (Faster R-CNN, section 3.1.2):
#
# | best IoU | answer | meaning |
# |---|---|---|
# | at least 0.7 | index of the object | **positive**: say yes, and move onto that object |
# | below 0.3 | -1 | **negative**: say no |
# | between | -2 | **ignored**: neither answer would be fair, the loss does not see it |
#
# Alone that rule has a hole. Of the four objects here only one has an anchor at 0.7. The other three would be nobody's, and the network would learn to say nothing about them. So there is a second rule, *low quality*: whatever its IoU, **each object's best anchor is positive** (with ties, all of them). First on numbers, two objects and five anchors:

# %%
table = np.array([[0.80, 0.50, 0.20, 0.10, 0.00], [0.10, 0.20, 0.45, 0.25, 0.45]])
rules = {"high, low": False, "and low quality": True}
print("IoU\n", table)
for name, low_quality in rules.items():
    print(f"{name:16}", match(table, high=0.7, low=0.3, allow_low_quality=low_quality))

# %% [markdown]
# Object 1 reaches 0.45 at best, twice. Without the second rule both of those anchors are ignored (-2) and object 1 does not exist for the loss. With it, both answer for object 1. (An anchor made positive in this way answers for *its own* best object. When two objects share their best anchor, one of them still goes without.) Now the scene:

# %%
options = {"high": config.rpn.positive_iou, "low": config.rpn.negative_iou}
strict = match(iou, **options, allow_low_quality=False)
matched = match(iou, **options, allow_low_quality=True)
for name, answers in (("high and low alone", strict), ("with low quality", matched)):
    counts = [int((answers == i).sum()) for i in range(len(target))]
    print(f"{name:20} positives per object {counts}", end="  ")
    print(f"negatives {(answers == BELOW_LOW).sum()}  ignored {(answers == BETWEEN).sum()}")


# %%
def draw_groups(ax, groups):
    """Anchors as outlines, one (boxes, colour, style, width, name) a group."""
    for boxes, colour, style, width, name in groups:
        for k, box in enumerate(boxes):
            label = f"{name} ({len(boxes)})" if k == 0 else None
            draw_box(ax, box, colour, linestyle=style, linewidth=width, label=label)
    ax.set(xlim=(-40, 168), ylim=(168, -40), xticks=[], yticks=[], facecolor="0.9")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), fontsize=9, ncols=2)


rng = np.random.default_rng(0)
positive, ignored = np.flatnonzero(matched >= 0), np.flatnonzero(matched == BETWEEN)
negative = rng.choice(np.flatnonzero(matched == BELOW_LOW), 40, replace=False)
figure = Figure(figsize=(9, 3.6), layout="constrained")
groups = [
    [(anchors[positive], PALETTE[5], "-", 2, "positive")],
    [(anchors[ignored], PALETTE[0], "-", 1, "ignored")],
    [(anchors[negative], PALETTE[3], "-", 0.8, "negative, some")],
]
for ax, group in zip(figure.subplots(1, 3), groups, strict=True):
    ax.imshow(image // 2 + 127, extent=(0, 128, 128, 0))
    draw_groups(ax, [*group, (target.boxes, "black", ":", 1.5, "object")])
figure

# %% [markdown]
# A handful of positives (one object has two: a tie), some tens that fit neither answer, and thousands of negatives, of which 40 are drawn. Most are small, and lie inside shapes as well as beside them: a small anchor in the middle of a large circle is background as far as its IoU can tell.
#
# How much depends on the second rule? Over 500 scenes of the kind that the network was trained on:

# %%
best_ious, chosen_levels = [], np.zeros(5, int)
for i in range(len(scenes)):
    boxes = scenes[i][1].boxes
    table = box_iou(boxes, anchors)
    best_ious.append(table.max(axis=1))
    answers = match(table, **options, allow_low_quality=True)
    chosen_levels += np.bincount(level_of[answers >= 0] - 2, minlength=5)
best_ious = np.concatenate(best_ious)
print(f"{len(best_ious)} objects; best IoU at least 0.7: {(best_ious >= 0.7).mean():.0%}, ", end="")
print(f"median {np.median(best_ious):.2f}, lowest {best_ious.min():.2f}")
print("positive anchors per level:", {f"P{k + 2}": int(n) for k, n in enumerate(chosen_levels)})

# %% [markdown]
# The rule for exceptions is the rule here. Most objects owe their only positive anchor to it. And nearly all positives are on P4 and P5: the other levels hear almost only "no". That is what the objectness curves of the last notebook showed.
#
# ## 5. Which objects can no anchor reach?
#
# Take concentric squares: an anchor of side $s$ and an object of side $t > s$ have IoU $s^2 / t^2$. Neighbouring sizes differ by a factor of 2. Worst off is the object in the middle of that factor, $t = \sqrt 2\,s$, with IoU $1/2$ to the smaller *and* to the larger. So even a perfectly centred square may miss 0.7. Position costs more: an object between two centres lies up to half a stride away in both directions.
#
# We sweep synthetic boxes: sides $\sqrt{\text{area}}$ from 4 to 180 pixels, aspect ratios $h / w$ from 1/8 to 8. Each is put at random positions of a large image (so that the picture's edge plays no role), and we keep its best IoU with any anchor. Left, the luckiest position; right, the mean over positions.

# %%
wide = 512  # the same strides as above on a larger image
field = AnchorGenerator(config.anchors.sizes, config.anchors.aspect_ratios)
field = field([(wide // stride,) * 2 for stride in (4, 8, 16, 32, 64)], (wide, wide))
near = (np.abs((field[:, :2] + field[:, 2:]) / 2 - wide / 2) <= 64).all(axis=1)
field = field[near]  # positions below stay within 32 pixels of the middle

side = np.geomspace(4, 256, 49)
ratio = np.geomspace(1 / 8, 8, 31)
half = (
    np.stack(
        np.broadcast_arrays(side / ratio[:, None] ** 0.5, side * ratio[:, None] ** 0.5), axis=-1
    )
    / 2
)
reach = []  # best IoU of each synthetic box, one array per position
for centre in wide / 2 + np.random.default_rng(0).uniform(-32, 32, (24, 2)):
    boxes = np.concatenate([centre - half, centre + half], axis=-1).reshape(-1, 4)
    reach.append(
        box_iou(boxes.astype(np.float32), field).max(axis=1).reshape(len(ratio), len(side))
    )
reach = np.stack(reach)  # (positions, ratios, sides)
print("boxes tried:", reach.size, " anchors each:", len(field))
print(f"highest mean over the positions: {reach.mean(axis=0).max():.2f}")
print(
    f"of all boxes an anchor reaches 0.7 for {(reach >= 0.7).mean():.0%}, 0.5 for {(reach >= 0.5).mean():.0%}"
)

# %%
figure = Figure(figsize=(9, 3.9), layout="constrained")
panels = (
    (reach.max(axis=0), "the luckiest of 24 positions"),
    (reach.mean(axis=0), "mean over positions"),
)
for ax, (values, title) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
    colours = ax.pcolormesh(side, ratio, values, cmap="cividis", vmin=0, vmax=1, shading="nearest")
    ax.contour(side, ratio, values, levels=[0.5, 0.7], colors="white", linewidths=[1, 2.4])
    ax.plot(*np.meshgrid([8, 16, 32, 64, 128], [0.5, 1, 2]), "kx", markersize=6)
    ax.set(xscale="log", yscale="log", title=title, xlabel="side: root of the area, pixels")
    ax.set_xticks([4, 8, 16, 32, 64, 128], ["4", "8", "16", "32", "64", "128"], minor=False)
    ax.set_yticks([1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8], ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    ax.minorticks_off()
objects = np.concatenate([scenes[i][1].boxes for i in range(0, 500, 5)])
w, h = (objects[:, 2:] - objects[:, :2]).T
figure.axes[1].scatter((w * h) ** 0.5, h / w, s=5, color=PALETTE[3], label="objects of 100 scenes")
figure.axes[1].legend(fontsize=9, loc="lower left")
figure.axes[0].set_ylabel("aspect ratio, height / width")
figure.colorbar(colours, ax=figure.axes, label="best IoU")
figure

# %% [markdown]
# The crosses are the anchors' own sizes and ratios; the thin line is IoU 0.5, the thick one 0.7. Left, islands of good fit around the crosses. Long thin boxes, tiny ones and huge ones lie outside of the 0.5 line, however lucky their position. Right, there is no island at all: the stride is half of the anchors' side, so a typical object lies off centre, and on average not even a box of an anchor's own size and shape reaches 0.7. Most objects of our scenes lie between the sizes 32 and 64, the smaller ones in the middle of the gap.
#
# What helps? More sizes and ratios a place, or smaller strides: more anchors, more work. Or anchors that only need to be *near*, because the network moves them. That is the next section.
#
# ## 6. Deltas: moving an anchor onto its object
#
# An anchor $(x_a, y_a, w_a, h_a)$, centre and size, shall become a box $(x, y, w, h)$. The network does not predict the box but (Faster R-CNN, eq. 2)
#
# $$d_x = \frac{x - x_a}{w_a}, \qquad d_y = \frac{y - y_a}{h_a}, \qquad d_w = \log\frac{w}{w_a}, \qquad d_h = \log\frac{h}{h_a},$$
#
# which `encode_boxes(objects, anchors, weights)` computes, `(..., 4)`. Solved for the box, this is `decode_boxes`:
#
# $$x = x_a + d_x\,w_a, \qquad y = y_a + d_y\,h_a, \qquad w = w_a\,e^{d_w}, \qquad h = h_a\,e^{d_h} .$$
#
# The weights scale the four numbers; the RPN uses 1. By hand: an anchor of 40 x 20 with its centre at (50, 50), and an object of 20 x 40 at (60, 45).

# %%
ones = (1.0, 1.0, 1.0, 1.0)
anchor, box = np.array([30.0, 40, 70, 60]), np.array([50.0, 25, 70, 65])
deltas = encode_boxes(box, anchor, ones)
print("10 / 40, -5 / 20, log(20 / 40), log(40 / 20) =", deltas)
print("and back:", decode_boxes(deltas, anchor, ones))

# %% [markdown]
# On the scene: the best anchor of one object, and the four deltas applied one pair after the other.

# %%
i = 0
anchor, box = anchors[best[i]], target.boxes[i]
deltas = encode_boxes(box, anchor, ones)
steps = {
    "the anchor": [0, 0, 0, 0],
    "dx, dy: centre moved": [1, 1, 0, 0],
    "dw, dh too: size changed": [1, 1, 1, 1],
}
figure = Figure(figsize=(9, 3.3), layout="constrained")
for ax, (title, on) in zip(figure.subplots(1, 3), steps.items(), strict=True):
    moved = decode_boxes(deltas * np.array(on, np.float32), anchor, ones)
    visualize.draw_objects(ax, image, target.boxes[:0], target.labels[:0])
    for (x1, y1, x2, y2), colour, style in ((box, "white", "-"), (moved, "black", "--")):
        draw_box(ax, (x1, y1, x2, y2), colour, linestyle=style)
        ax.plot((x1 + x2) / 2, (y1 + y2) / 2, "+", color=colour, markersize=9, markeredgewidth=2)
    ax.set(xlim=(-16, 128), ylim=(128, -16), facecolor="0.7")
    ax.set_title(f"{title}\nIoU {box_iou(box[None], moved[None]).item():.2f}", fontsize=10)
print(f"object {names[i]}: dx, dy, dw, dh =", deltas)
figure

# %% [markdown]
# Why these four and not simply the differences in pixels?
#
# **Divided by the anchor's size**, the deltas do not change with scale. A convolution sees the same pattern when an object and its anchor both are twice as large on the next level, and it should be allowed to give the same answer. One head serves five levels only because of this.
#
# **The logarithm** makes growing and shrinking alike: twice as wide is $+0.69$, half as wide is $-0.69$, where plain ratios would be 2 and 0.5. And $w_a\,e^{d_w}$ is positive whatever the network says. There is no impossible answer.
#
# **The clamp.** The exponential has a price: an early, wild network may say $d_w = 20$, and $e^{20}$ widths overflow what follows. `decode_boxes` bounds $d_w$ and $d_h$ at $\log(1000 / 16)$, so no box grows more than 62.5 times. The lower side needs no bound: a box can shrink towards 0, but not beyond.

# %%
small, large = np.array([10.0, 10, 26, 26]), np.array([100.0, 100, 164, 164])
print(
    "16 pixel anchor, box moved by 4:  ", encode_boxes(small + np.array([4, 0, 4, 0]), small, ones)
)
print(
    "64 pixel anchor, box moved by 16: ",
    encode_boxes(large + np.array([16, 0, 16, 0]), large, ones),
)
print("\n   dw   width unclamped   width by decode_boxes   (anchor 16 wide)")
for dw in (-20.0, -0.69, 0.0, 0.69, MAX_LOG_SCALE, 5.0, 20.0, 100.0):
    x1, _, x2, _ = decode_boxes(np.array([0, 0, dw, 0]), small, ones)
    print(f"{dw:7.2f}{16 * np.exp(dw):16.4g}{x2 - x1:22.4g}")

# %% [markdown]
# A positive's deltas are what the box loss compares with the network's (notebook [08](08_targets_and_losses.ipynb)). A look at what there is to learn, over 500 scenes: the deltas of all positives.

# %%
found = []
for k in range(len(scenes)):
    boxes = scenes[k][1].boxes
    answers = match(box_iou(boxes, anchors), **options, allow_low_quality=True)
    found.append(encode_boxes(boxes[answers[answers >= 0]], anchors[answers >= 0], ones))
found = np.concatenate(found)
figure = Figure(figsize=(9, 2.5), layout="constrained")
for ax, values, name in zip(
    figure.subplots(1, 4, sharey=True), found.T, ("dx", "dy", "dw", "dh"), strict=True
):
    ax.hist(values, bins=np.linspace(-0.85, 0.85, 35), color=PALETTE[5])
    ax.set_title(f"{name}: std {values.std():.2f}", fontsize=10)
figure.axes[0].set_ylabel("positive anchors")
print(f"{len(found)} positives, largest |delta| {np.abs(found).max():.2f}")
figure

# %% [markdown]
# All are small numbers around 0: easy targets. The size deltas tend to two heaps, below and above 0: most objects lie between two anchor sizes, and their anchor is either too large or too small. Sizes spread about twice as wide as centres. The box head (notebook [07](07_heads.ipynb)) evens out such a factor with the weights 10, 10, 5, 5.
#
# ## 7. A balanced sample
#
# With a few positives among thousands of negatives, a loss over all anchors would be the negatives' loss, and "no" everywhere would cost almost nothing. So the loss sees a random sample: here 128 an image, at most half of them positive, negatives fill the rest (Faster R-CNN, section 3.1.3, with 256). `sample_balanced` returns indices `(S,)`, positives first.

# %%
rng = np.random.default_rng(0)
for name, answers in (
    ("this scene", matched),
    ("a made-up one", np.where(np.arange(4092) < 300, 0, BELOW_LOW)),
):
    chosen = sample_balanced(
        answers, size=config.rpn.samples, positive_fraction=config.rpn.positive_fraction, rng=rng
    )
    kept, there = (answers[chosen] >= 0).sum(), (answers >= 0).sum()
    print(
        f"{name:14} {there:3} positives of {len(answers)} ({there / len(answers):6.2%})", end="  "
    )
    print(
        f"sampled {len(chosen)}: {kept:2} positives ({kept / len(chosen):.0%}), {len(chosen) - kept} negatives"
    )

chosen = sample_balanced(matched, size=128, positive_fraction=0.5, rng=np.random.default_rng(0))
centres = (anchors[:, :2] + anchors[:, 2:]) / 2
figure = Figure(figsize=(4.9, 4), layout="constrained")
ax = figure.subplots()
ax.imshow(image // 2 + 127, extent=(0, 128, 128, 0))
for index, colour, marker, name in (
    (chosen[matched[chosen] == BELOW_LOW], PALETTE[3], "o", "negative"),
    (chosen[matched[chosen] >= 0], PALETTE[5], "s", "positive"),
):
    sizes = 2.0 ** level_of[index] * 2.5
    ax.scatter(
        *centres[index].T,
        s=sizes,
        c=colour,
        marker=marker,
        edgecolors="white",
        linewidths=0.6,
        label=name,
    )
ax.set(xlim=(-4, 132), ylim=(132, -4), xticks=[], yticks=[])
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
ax.set_title("centres of the 128 sampled; larger: coarser level", fontsize=10)
figure

# %% [markdown]
# This scene has too few positives to make half, so all of them are in, and one negative in thirty or so. The next step of training draws other negatives.
#
# **Crowds.** Where a COCO label says only "a crowd of people here" (`iscrowd`), anchors that lie mostly inside of that region are not sampled as negatives (`leave_out` turns their -1 into -2), because what the network finds there is not wrong.
#
# ## What you have learned
#
# * Anchors are fixed boxes: $w = s/\sqrt r$, $h = s\sqrt r$, corners rounded, at every place of every level, in the order level, row, column, anchor.
# * An anchor is positive from IoU 0.7, negative below 0.3, ignored between. Each object's best anchor is positive in any case, and in our scenes that is what most objects live on.
# * Sizes a factor of 2 apart leave centred squares with IoU 1/2 in the worst case; thin, tiny and huge objects fare worse. Deltas make up for it.
# * Deltas are relative to the anchor, logarithmic in size, and bounded before the exponential.
# * The loss sees a small balanced sample, not all anchors.
#
# ## Exercises
#
# 1. Write `cell_anchors` and `place_anchors`, the layout over one level, yourself: `make exercise NAME=anchors`. Then `make exercise NAME=matching` and `make exercise NAME=boxes` (encode and decode).
# 2. In section 5 give each level two sizes, `[(s, s * 2**0.5) for (s,) in config.anchors.sizes]`. Predict the worst IoU of a centred square, then look at the left plot. How many anchors is that for our scenes?
# 3. Lower `high` to 0.5 in section 4. How many positives do the four objects get, and why is there still need for the second rule?
# 4. In the table of section 4's small example change the last 0.45 to 0.44. What changes, and why does a tie give two positives?
#
# ## Links
#
# * Source: [`rpn/anchors.py`](../src/mrcnn_scratch/rpn/anchors.py), [`matching.py`](../src/mrcnn_scratch/matching.py), [`boxes.py`](../src/mrcnn_scratch/boxes.py), and where they meet: [`rpn/loss.py`](../src/mrcnn_scratch/rpn/loss.py)
# * Tests: [`test_anchors.py`](../tests/rpn/test_anchors.py), [`test_matching.py`](../tests/test_matching.py), [`test_boxes.py`](../tests/test_boxes.py), [`test_rpn_loss.py`](../tests/rpn/test_rpn_loss.py)
# * Papers: Ren et al. 2015, sections 3.1.1 to 3.1.3 ([arXiv:1506.01497](https://arxiv.org/abs/1506.01497)); Lin et al. 2017, section 4.1 ([arXiv:1612.03144](https://arxiv.org/abs/1612.03144))
# * Next: [05 Region proposals](05_region_proposals.ipynb)
