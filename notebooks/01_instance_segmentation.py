# %% [markdown]
# # 01 Instance segmentation
#
# **What you will see**: what the task asks for, the toy scenes that the whole course runs on, and the one number that
# decides throughout whether two boxes, or two masks, are the same thing: intersection over union.
#
# **In**: an image `(H, W, 3)`, uint8.
#
# **Out**: for its `G` objects, boxes `(G, 4)`, labels `(G,)` and masks `(G, H, W)`.
#
# **Time**: 15 minutes of reading, a few seconds to run.
#
# **Before this**: [00 The whole journey](00_the_whole_journey.ipynb)

# %%
# %matplotlib inline
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mrcnn_scratch import visualize
from mrcnn_scratch.boxes import box_area, box_iou
from mrcnn_scratch.data import rle
from mrcnn_scratch.data.shapes import CLASSES, HELD_OUT, ShapesDataset, mask_boxes
from mrcnn_scratch.visualize import PALETTE
from mrcnn_scratch.weights import load_shapes

# %% [markdown]
# ## What the task asks for
#
# Show someone a picture and ask what is in it. There are four ways to answer:
#
# 1. *Classification*: there is a square and a triangle in it. One answer for the whole image.
# 2. *Detection*: a square here and a square there. One label and one box for each object.
# 3. *Semantic segmentation*: these pixels are square. One label for each pixel.
# 4. *Instance segmentation*: these pixels are the first square, those are the second. One label and one mask for each
#    object.
#
# Only the fourth says both which pixels and which object. Mask R-CNN gives it. Here is a scene of our toy data set,
# an image `(128, 128, 3)`, with its objects as boxes and as masks. The scene is made by the package and numbered: the
# same seed and number always give the same scene. It is one of the held-out scenes, which no network of ours trains
# on.

# %%
scenes = ShapesDataset(seed=0, length=200, first=HELD_OUT)
image, target = scenes[92]

figure = Figure(figsize=(9, 3.3), layout="constrained")
panels = figure.subplots(1, 3)
none = np.zeros(0, int)
visualize.draw_objects(panels[0], image, target.boxes[none], target.labels[none])
visualize.draw_objects(panels[1], image, target.boxes, target.labels, classes=CLASSES)
visualize.draw_objects(panels[2], image, target.boxes, target.labels, target.masks, classes=CLASSES)
for ax, title in zip(
    panels,
    ("the image", "detection: a box each", "instance segmentation: a mask each"),
    strict=True,
):
    ax.set_title(title, fontsize=10)
figure

# %% [markdown]
# Three objects: a triangle at the back, two squares in front of it and of each other. The colour of a drawing here
# and in the other notebooks is the *class*, so the outlines of both squares have one colour. The colour *inside* an object is
# chance and means nothing: the network must go by shape.

# %% [markdown]
# ## The Target of a scene
#
# What is known about a labelled image is kept in a `Target`. With `G` objects it holds boxes `(G, 4)`, labels `(G,)`
# and masks `(G, H, W)`; row `g` of each is object `g`.

# %%
for name in ("boxes", "labels", "masks", "areas"):
    array = getattr(target, name)
    print(f"{name:7} {array.shape!s:14} {array.dtype}")
print()
for box, label, area in zip(target.boxes, target.labels, target.areas, strict=True):
    print(f"label {label} = {CLASSES[label - 1]:9} box {box}, {area:.0f} pixels in the mask")

# %% [markdown]
# Labels count from 1. Label 0 is *background*: no object has it, but the network needs a name for "nothing here". The
# masks are one picture of yes and no for each object:

# %%
visualize.show_arrays(
    [image, *(mask.astype(int) for mask in target.masks)],
    ["the image", *(f"masks[{i}]: {CLASSES[label - 1]}" for i, label in enumerate(target.labels))],
)

# %% [markdown]
# Two rules of these labels are worth a look, because later numbers depend on them. A mask holds the *visible* pixels
# only: what another object hides is not in it. And a box is the smallest one around the mask, so it too follows what
# can be seen. Both can be checked:

# %%
print("objects at the busiest pixel:", target.masks.sum(axis=0).max())
print("boxes are those of the masks:", np.array_equal(mask_boxes(target.masks), target.boxes))

# %% [markdown]
# No pixel belongs to two objects. Real data sets such as COCO (Lin et al. 2014) label visible pixels too.

# %% [markdown]
# ## Semantic against instance
#
# Write the class of each pixel into one map `(H, W)`, and you have the semantic answer. Write the number of the
# object instead, and you have the instance answer. Both come from the same masks, in one line each.

# %%
numbers = np.arange(1, len(target) + 1)
semantic = np.einsum(
    "g,ghw->hw", target.labels, target.masks
)  # (H, W): 0 background, else the class
instance = np.einsum("g,ghw->hw", numbers, target.masks)  # (H, W): 0 background, else which object


# %%
def draw_labels_map(ax, labels, names, colours):
    """A map of whole numbers (H, W) in ``colours``, number 0 in grey, with a legend of ``names`` below."""
    ax.imshow(
        labels, cmap=ListedColormap(["#EEEEEE", *colours]), vmin=0, vmax=3, interpolation="nearest"
    )
    keys = [Rectangle((0, 0), 1, 1, color=colour) for colour in ("#DDDDDD", *colours)]
    ax.legend(
        keys,
        ["0: nothing", *names],
        fontsize=9,
        ncols=2,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.02),
    )


figure = Figure(figsize=(9, 4), layout="constrained")
panels = figure.subplots(1, 3)
panels[0].imshow(image)
draw_labels_map(
    panels[1], semantic, [f"{i}: {name}" for i, name in enumerate(CLASSES, start=1)], PALETTE[:3]
)
draw_labels_map(panels[2], instance, [f"object {i}" for i in numbers], PALETTE[3:6])
for ax, title in zip(
    panels, ("the image", "semantic: which class?", "instance: which object?"), strict=True
):
    ax.set_title(title, fontsize=10)
    ax.set(xticks=[], yticks=[])
figure

# %% [markdown]
# In the middle map the two squares have grown together: where one square covers another, the class on both sides of
# the edge is the same, so the edge is gone. "How many squares, and how large is each?" has no answer there. On the
# right every edge is kept.
#
# Could we count the connected regions of the semantic map instead? Let us try, with a flood fill: start at a pixel,
# walk to the neighbours of the same class until there are none left, and that is one region.


# %%
def count_regions_slow(mask):
    """How many connected pieces ``mask`` (H, W) bool has: pixels that share an edge hang together."""
    left, regions = set(map(tuple, np.argwhere(mask))), 0
    while left:
        regions, walk = regions + 1, [left.pop()]
        while walk:
            row, column = walk.pop()
            near = {
                (row - 1, column),
                (row + 1, column),
                (row, column - 1),
                (row, column + 1),
            } & left
            left -= near
            walk.extend(near)
    return regions


for label in (1, 3):
    regions, objects = count_regions_slow(semantic == label), (target.labels == label).sum()
    print(f"{CLASSES[label - 1]:9} regions in the semantic map: {regions}, objects: {objects}")

# %% [markdown]
# Wrong both ways. Two squares make one region, because they touch. One triangle makes two regions, because a square
# cuts it in two: look for its lower right tip, which peeps out beside the square. The semantic map cannot be repaired
# afterwards; what it never stored cannot be computed from it. The other direction is a mere table look-up, class of
# object number:

# %%
class_of_number = np.array([0, *target.labels])
print("semantic from instance:", np.array_equal(class_of_number[instance], semantic))

# %% [markdown]
# Why, then, does Mask R-CNN not predict the instance map directly, as a picture? Because the numbers of objects mean
# nothing: "object 2" could as well be called "object 1", so there is no right picture to learn, and their count
# varies. The way out is the plan of the whole course: first find *boxes*, each for one object, then answer inside
# each box the plain yes-or-no question "does this pixel belong to the object of this box?" (He et al. 2017, section
# 3).

# %% [markdown]
# ## The toy scenes
#
# `ShapesDataset(seed, length)` draws squares, circles and triangles on a plain background. They are small enough to
# train on in minutes, and keep what makes the task hard: several objects of one class, objects that hide each other,
# objects that the edge of the picture cuts off.

# %%
chosen = [scenes[i] for i in (42, 76, 87, 102, 23, 99)]
visualize.show_scenes(
    [image for image, _ in chosen], [target for _, target in chosen], CLASSES, columns=3
)

# %% [markdown]
# ## What a box is
#
# A box is four numbers, `x1, y1, x2, y2`: left, top, right, bottom. They are *positions*, measured in pixels from the
# top left corner of the image; `y` points down. A pixel is not a position but a small square: pixel number `i` covers
# the positions from `i` to `i + 1`. So the object below, in columns 2 to 5 and rows 1 to 3, reaches from position 2
# to position 6, and from 1 to 4.


# %%
def draw_grid(ax, colours, boxes=(), box_colours=PALETTE[3:]):
    """Pixels as squares: ``colours`` (H, W, 3), with ``boxes`` drawn over them and positions along the edges."""
    height, width = colours.shape[:2]
    ax.imshow(colours, extent=(0, width, height, 0))
    ax.set(xticks=range(width + 1), yticks=range(height + 1))
    ax.grid(color="0.6", linewidth=0.8)
    ax.tick_params(labelsize=8, top=True, labeltop=True, bottom=False, labelbottom=False)
    for (x1, y1, x2, y2), colour in zip(boxes, box_colours, strict=False):
        ax.add_patch(
            Rectangle(
                (x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=3, clip_on=False
            )
        )


white, grey, light = (1.0, 1.0, 1.0), (0.75, 0.75, 0.75), (0.88, 0.88, 0.88)
mask = np.zeros((6, 8), bool)
mask[1:4, 2:6] = True  # rows 1 to 3, columns 2 to 5
box = mask_boxes(mask[None])[0]
figure = Figure(figsize=(6, 4.6), layout="constrained")
ax = figure.subplots()
draw_grid(ax, np.where(mask[..., None], grey, white), [box])
for i in range(8):
    ax.text(i + 0.5, 5.5, f"pixel\n{i}", ha="center", va="center", fontsize=8, color="0.4")
for (x, y), text in {(2, 1): "(x1, y1) = (2, 1)", (6, 4): "(x2, y2) = (6, 4)"}.items():
    ax.plot(x, y, "o", color=PALETTE[3])
    ax.text(
        x,
        y + (-0.3 if y == 1 else 0.35),
        text,
        ha="center",
        va="center",
        fontsize=10,
        color=PALETTE[3],
    )
ax.set_title("numbers on the edge are positions, numbers inside are pixels", fontsize=10)
figure

# %%
x1, y1, x2, y2 = box
print(
    "box",
    box,
    " width",
    x2 - x1,
    " height",
    y2 - y1,
    " area",
    box_area(box),
    " pixels in the mask",
    mask.sum(),
)

# %% [markdown]
# With this convention the width is `x2 - x1`, the height `y2 - y1`, and the area of the box equals the number of
# pixels in it. `x2` is the first position *after* the object, like the end of a Python slice.
#
# Older code writes the numbers of the first and last *pixel* instead, here `2, 1, 5, 3`, and then needs `width = x2 -
# x1 + 1`. That works until boxes are resized, and this network resizes them all the time. Shrink the image to half
# its size, and shrink the box with it:

# %%
first_last = np.array([2, 1, 5, 3])
for scale in (1, 0.5, 0.25):
    (a1, _, a2, _), (b1, _, b2, _) = scale * box, scale * first_last
    print(
        f"scale {scale:4}: true width {4 * scale:3}   x2 - x1 = {a2 - a1:4}   with +1: {b2 - b1 + 1:4}"
    )

# %% [markdown]
# Positions scale as the picture does. With a `+1` the boxes come out too wide, and relatively more so the smaller
# they are. In this package, as in torchvision, no `+1` occurs anywhere.

# %% [markdown]
# ## IoU by hand
#
# When is a predicted box right? Never to the last digit. We need a number that says *how* right, 1 for equal boxes
# and 0 for boxes apart. Intersection over union (IoU) does this: the area that both boxes cover, divided by the area
# that at least one of them covers.
#
# $$\mathrm{IoU}(A, B) = \frac{|A \cap B|}{|A \cup B|}$$
#
# Here $|A|$ is the area of box $A$, $A \cap B$ is what lies in both boxes and $A \cup B$ what lies in either. Two
# boxes on an 8 x 8 grid; count the squares.

# %%
a = np.array([1.0, 1.0, 6.0, 5.0])
b = np.array([3.0, 2.0, 7.0, 7.0])


def covered(box):
    """Which pixels of the 8 x 8 grid lie in ``box``: (8, 8) bool."""
    x1, y1, x2, y2 = box.astype(int)
    inside = np.zeros((8, 8), bool)
    inside[y1:y2, x1:x2] = True
    return inside


both, either = covered(a) & covered(b), covered(a) | covered(b)
figure = Figure(figsize=(9, 3.6), layout="constrained")
panels = figure.subplots(1, 3)
for ax, part, title in zip(
    panels, (None, both, either), ("the boxes", "intersection", "union"), strict=True
):
    draw_grid(
        ax,
        np.full((8, 8, 3), 1.0) if part is None else np.where(part[..., None], light, white),
        [a, b],
    )
    ax.set_title(title if part is None else f"{title}: {part.sum()} squares", fontsize=10)
    for n, (row, column) in enumerate([] if part is None else np.argwhere(part), start=1):
        ax.text(column + 0.5, row + 0.5, n, ha="center", va="center", fontsize=9)
for (x, y), name, colour in (((1.5, 1.5), "A", PALETTE[3]), ((6.5, 6.5), "B", PALETTE[4])):
    panels[0].text(x, y, name, ha="center", va="center", fontsize=13, color=colour, weight="bold")
figure


# %% [markdown]
# The same as a program: go over all squares, and count.


# %%
def iou_slow(a, b, size=8):
    """IoU of two boxes with whole-numbered corners: count the squares of a ``size`` x ``size`` grid one by one."""
    intersection = union = 0
    for row in range(size):
        for column in range(size):
            in_a = a[0] <= column < a[2] and a[1] <= row < a[3]
            in_b = b[0] <= column < b[2] and b[1] <= row < b[3]
            intersection += in_a and in_b
            union += in_a or in_b
    return intersection, union, intersection / union


print("counted:  intersection {}, union {}, IoU {:.6f}".format(*iou_slow(a, b)))
print(f"box_iou:  {box_iou(a[None], b[None])[0, 0]:.6f}")

# %% [markdown]
# ### From counting to a formula
#
# Counting takes time and needs whole numbers. The formula comes from one dimension at a time. A position $x$ lies in
# both $[a_1, a_2]$ and $[b_1, b_2]$ if it is beyond both starts and before both ends. So the overlap begins at the
# *later* start and stops at the *earlier* end:
#
# $$w = \max(0,\; \min(a_2, b_2) - \max(a_1, b_1))$$
#
# If the boxes are apart, the earlier end comes before the later start and the difference is negative: there the
# maximum with 0 is needed.

# %%
figure = Figure(figsize=(9, 2.1), layout="constrained")
for ax, other, title in zip(
    figure.subplots(1, 2), ((3, 7), (6.5, 8)), ("x of A and B above", "apart"), strict=True
):
    start, end = max(1, other[0]), min(6, other[1])
    for y, (left, right), name, colour in (
        (2, (1, 6), "A", PALETTE[3]),
        (1, other, "B", PALETTE[4]),
    ):
        ax.plot((left, right), (y, y), color=colour, linewidth=7, solid_capstyle="butt")
        ax.text(left - 0.15, y, name, ha="right", va="center", fontsize=11, color=colour)
    if end > start:
        ax.axvspan(start, end, color=light)
    ax.set(xlim=(0, 8.5), ylim=(0.5, 2.5), yticks=[], xticks=range(9), xlabel="x")
    ax.set_title(
        f"{title}: earlier end {end:g} - later start {start:g} = {end - start:g}", fontsize=10
    )
figure

# %% [markdown]
# The intersection of two boxes is again a box, $w$ wide and, from the same formula with $y$, $h$ high. Its area is $I
# = w h$. The union needs no new geometry. Adding the two areas counts the common squares twice, so take them off
# once:
#
# $$|A \cup B| = |A| + |B| - I, \qquad \mathrm{IoU} = \frac{w h}{|A| + |B| - w h}$$
#
# On our grid: $|A| = 5 \cdot 4 = 20$, $|B| = 4 \cdot 5 = 20$, $w = 3$, $h = 3$, so the IoU is $9 / (20 + 20 - 9) =
# 9/31$. This is what `boxes.box_iou` does, for all pairs of `N` and `M` boxes at once: `(N, 4)` and `(M, 4)` to `(N,
# M)`.
#
# What happens without the maximum with 0? Take boxes that are apart in *both* directions. Two negative lengths
# multiply to a positive area:

# %%
c = np.array([4.0, 4.0, 6.0, 6.0])
d = np.array([0.0, 0.0, 2.0, 2.0])
w, h = min(c[2], d[2]) - max(c[0], d[0]), min(c[3], d[3]) - max(c[1], d[1])
print(f"w = {w}, h = {h}; IoU without the maximum: {w * h / (4 + 4 - w * h)}")
print("box_iou:", box_iou(c[None], d[None])[0, 0])

# %% [markdown]
# ## What an IoU looks like
#
# The network compares IoUs with thresholds all the time: 0.5, 0.7, 0.3. It helps to have seen them. Two equal squares
# with side 1, one moved by $d$ both to the right and down, overlap in a square of side $1 - d$, so
#
# $$\mathrm{IoU} = \frac{(1-d)^2}{2 - (1-d)^2} \quad\Longrightarrow\quad
# d = 1 - \sqrt{\frac{2\,\mathrm{IoU}}{1 + \mathrm{IoU}}}.$$


# %%
def draw_pair(ax, one, two, reach=0.82):
    """Two boxes on an empty panel, in the middle; the panel ends ``reach`` from there."""
    for (x1, y1, x2, y2), colour in ((one, PALETTE[3]), (two, PALETTE[5])):
        ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, facecolor=colour, alpha=0.35))
        ax.add_patch(
            Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=1.5)
        )
    x, y = (np.minimum(one, two)[:2] + np.maximum(one, two)[2:]) / 2
    ax.set(
        xlim=(x - reach, x + reach),
        ylim=(y + 0.82, y - 0.82),
        xticks=[],
        yticks=[],
        aspect="equal",
        frame_on=False,
    )


unit = np.array([0.0, 0.0, 1.0, 1.0])
figure = Figure(figsize=(9, 1.7), layout="constrained")
for ax, iou in zip(figure.subplots(1, 9), np.arange(1, 10) / 10, strict=True):
    shift = 1 - np.sqrt(2 * iou / (1 + iou))
    draw_pair(ax, unit, unit + shift)
    ax.set_title(f"{box_iou(unit[None], unit[None] + shift)[0, 0]:.1f}", fontsize=12)
    ax.set_xlabel(f"moved\n{shift:.0%}", fontsize=9)
figure

# %% [markdown]
# IoU is stricter than it sounds. At 0.5, the usual threshold for "found", each box is moved by less than a fifth of
# its side each way, and the two clearly mean the same object. 0.7 already looks good, and 0.9 needs an error of a few
# per cent.
#
# There are many ways to an IoU of 0.5. It does not say *what* is wrong:

# %%
ways = {
    "moved sideways": np.array([1 / 3, 0, 4 / 3, 1]),
    "moved both ways": unit + 1 - np.sqrt(2 / 3),
    "twice as wide": np.array([0.0, 0, 2, 1]),
    "too large": 0.5 + (unit - 0.5) * np.sqrt(2),
    "half as high": np.array([0, 0.25, 1, 0.75]),
}
figure = Figure(figsize=(9, 2.1), layout="constrained")
for ax, (name, way) in zip(figure.subplots(1, 5), ways.items(), strict=True):
    draw_pair(ax, unit, way, reach=1.02)
    ax.set_title(f"{name}\nIoU {box_iou(unit[None], way[None])[0, 0]:.2f}", fontsize=10)
figure

# %% [markdown]
# IoU does not depend on the unit: resize the picture and it stays. The other side of this: one and the same error in
# *pixels* costs a small object more than a large one. Two pixels to the right:

# %%
for side in (4, 8, 16, 32, 64, 128):
    iou = box_iou(np.array([[0.0, 0, side, side]]), np.array([[2.0, 0, side + 2, side]]))[0, 0]
    print(f"a box of {side:3} x {side:3}, 2 pixels off: IoU {iou:.2f}")

# %% [markdown]
# ## IoU of masks
#
# For masks the same fraction is counted in pixels, and needs no geometry at all: `(a & b).sum() / (a | b).sum()`. It
# tells what boxes cannot. Two triangles can fill the two halves of one box:

# %%
row, column = np.indices((8, 8))
lower, upper = (column <= row), (column >= row)  # they share the diagonal
figure = Figure(figsize=(9, 3.3), layout="constrained")
for ax, part, title in zip(
    figure.subplots(1, 3), (lower, upper, lower & upper), ("A", "B", "in both"), strict=True
):
    draw_grid(ax, np.where(part[..., None], grey, white), mask_boxes(part[None]))
    ax.set_title(f"{title}: {part.sum()} pixels", fontsize=10)
figure

# %%
print("IoU of the boxes:", box_iou(mask_boxes(lower[None]), mask_boxes(upper[None]))[0, 0])
print(f"IoU of the masks: {(lower & upper).sum()} / {(lower | upper).sum()} = ", end="")
print((lower & upper).sum() / (lower | upper).sum())

# %% [markdown]
# Perfect as boxes, wrong as masks. This is why instance segmentation is judged by mask IoU, and why a box detector
# alone is not enough.
#
# Now for the scene of the beginning, and the trained network that comes with the package. `detect` returns boxes,
# labels, scores and masks; we keep those that it is at least half sure of, and compare each with each object.

# %%
found = load_shapes().detect([image])[0].above(0.5)
visualize.show_detections([image], [target], [found], CLASSES)

# %%
intersection = (found.masks[:, None] & target.masks[None]).sum(axis=(2, 3))  # (R, G)
union = (found.masks[:, None] | target.masks[None]).sum(axis=(2, 3))  # (R, G)
tables, titles = (
    [box_iou(found.boxes, target.boxes), intersection / union],
    ["IoU of boxes", "IoU of masks"],
)
figure = visualize.show_arrays(tables, titles, columns=2, width=8, signed=False)
for ax in figure.axes:
    ax.set_xticks(
        range(len(target)),
        [f"object {i}\n{CLASSES[label - 1]}" for i, label in enumerate(target.labels, 1)],
    )
    ax.set_yticks(
        range(len(found)),
        [f"found {i}\n{CLASSES[label - 1]}" for i, label in enumerate(found.labels, 1)],
    )
    ax.tick_params(labelsize=9, length=0)
figure

# %% [markdown]
# A row is a detection, a column an object; detections come best first, so their order is another. In each row one
# number stands out: this is how evaluation finds out which object a detection means ([notebook
# 11](11_evaluation.ipynb)). The boxes of neighbours overlap, so some of the other numbers in the box table are well
# above 0. Those in the mask table are nearly 0, because no pixel belongs to two objects. The mask of the triangle
# lacks the tip beside the square: to the network, too, the two pieces are hard to see as one.

# %% [markdown]
# ## Masks in a file: run-length encoding
#
# A mask of `H x W` pixels takes `H * W` yes or no, nearly all of them equal to their neighbour. COCO's files store
# how *long* each run of equal pixels is instead. The pixels are read column by column, top to bottom, and the first
# run is of zeros by convention, so that nobody needs to say which kind it is.

# %%
small = np.zeros((5, 6), bool)
small[1:4, 1:3] = True
small[2:5, 3] = True
runs = rle.run_lengths(small)
figure = Figure(figsize=(9, 3.9), layout="constrained")
top, bottom = figure.subplots(2, 1, height_ratios=(3, 1))
draw_grid(top, np.where(small[..., None], grey, white))
draw_grid(bottom, np.where(small.T.reshape(1, -1, 1), grey, white))
for place, (x, y) in enumerate(np.ndindex(6, 5)):
    top.text(x + 0.5, y + 0.5, place, ha="center", va="center", fontsize=9)
    bottom.text(place + 0.5, 0.5, place, ha="center", va="center", fontsize=8)
for end, length in zip(np.cumsum(runs), runs, strict=True):
    bottom.text(
        end - length / 2, 1.5, f"{length}", ha="center", va="center", fontsize=11, weight="bold"
    )
    bottom.axvline(end, ymin=-0.3, color=PALETTE[3], linewidth=2, clip_on=False)
for ax, title in (
    (top, "the mask, pixels in reading order"),
    (bottom, "the same pixels in a row, and the runs below"),
):
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.set_title(title, fontsize=10)
figure

# %%
print("runs:", runs, "of zeros, ones, zeros, ...; together", sum(runs), "pixels")
print("back:", np.array_equal(rle.decode_runs(runs, small.shape), small))
for mask, label in zip(target.masks, target.labels, strict=True):
    text = rle.encode_rle(mask)["counts"]
    print(
        f"{CLASSES[label - 1]:9} {mask.size} pixels, {len(rle.run_lengths(mask)):3} runs, {len(text):3} characters"
    )

# %% [markdown]
# A mask takes about two runs for each column that it touches, instead of a number for each pixel. The last figure is
# COCO's compressed form, which writes the runs as text, each as its difference from the run two before it.
# Neighbouring columns are alike, so the difference is small, and mostly one character is enough.
#
# Nothing in this notebook has a backward. Boxes and masks of a target are given, and IoU is used to *decide* (which
# anchor belongs to which object, which box to drop), not to learn from. The first stage with a derivative comes next.

# %% [markdown]
# ## What you have learned
#
# * Semantic segmentation labels pixels; instance segmentation labels objects. The semantic map loses the border
#   between two objects of one class, and does not know that two pieces are one object.
# * A `Target` holds boxes `(G, 4)`, labels `(G,)` from 1, masks `(G, H, W)` of visible pixels.
# * A box is `x1, y1, x2, y2` in positions; the width is `x2 - x1`, with no `+1`, and so it can be resized.
# * IoU is intersection over union; overlap per axis is earlier end minus later start, and never below 0.
# * An IoU of 0.5 looks close already. Boxes can agree where masks do not.
#
# ## Exercises
#
# 1. Write `box_iou` yourself: `make exercise NAME=iou`. Your function is judged by the tests of ours. Think of boxes
#    that are apart in both directions, boxes that touch in an edge, and boxes without area.
# 2. Two equal squares are moved against each other *sideways* only, by a share $d$ of their side. Which $d$ gives an
#    IoU of 0.5, of 0.7? Predict on paper, then check with `box_iou`.
# 3. A box has twice the width and twice the height of another, and the same centre. Predict the IoU. What if it has
#    the same corner instead of the same centre?
# 4. Find a scene in `scenes` where the number of regions of every class *does* equal the number of its objects, and
#    one more where it does not. How common are they among the 200?
#
# ## Links
#
# * Source: [`boxes.py`](../src/mrcnn_scratch/boxes.py), [`structures.py`](../src/mrcnn_scratch/structures.py),
#   [`data/shapes.py`](../src/mrcnn_scratch/data/shapes.py), [`data/rle.py`](../src/mrcnn_scratch/data/rle.py)
# * Tests: [`test_boxes.py`](../tests/test_boxes.py), [`data/test_shapes.py`](../tests/data/test_shapes.py),
#   [`data/test_rle.py`](../tests/data/test_rle.py)
# * Papers: the task and the idea in Mask R-CNN, sections 1 and 3
#   ([arXiv:1703.06870](https://arxiv.org/abs/1703.06870)); the labels in COCO
#   ([arXiv:1405.0312](https://arxiv.org/abs/1405.0312))
# * Next: [02 Convolution](02_convolution.ipynb)
