# %% [markdown]
# # 06 RoI Align
#
# **What you will see** how a box of any size becomes a grid of features of one fixed size, why nothing on the way may
# be rounded, and how the gradient finds its way back from the grid to the map.
#
# **In** a feature map `(N, H, W, C)`, boxes `(R, 4)` in pixels of the image, and the image of each box `(R,)`.
#
# **Out** features `(R, 7, 7, C)` for the box head, `(R, 14, 14, C)` for the mask head.
#
# **Time** 20 minutes to read, a few seconds to run.
#
# **Before this** [05 Region proposals](05_region_proposals.ipynb)

# %%
# %matplotlib inline
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mrcnn_scratch import ops, weights
from mrcnn_scratch.data.shapes import HELD_OUT, ShapesDataset
from mrcnn_scratch.roi.pooler import assign_levels
from mrcnn_scratch.visualize import PALETTE, draw_array, show_arrays

ORANGE, SKY, GREEN, RED, PINK, BLUE, YELLOW = PALETTE

# %% [markdown]
# ## Why this stage is needed
#
# The proposals of the last notebook have all sizes. The box head is made of fully connected layers: its weight matrix
# has one row for every number that comes in, so it needs the same count of numbers for every box. Something has to
# turn "the part of the map inside this box" into a grid of fixed size. In Mask R-CNN that is a 7x7 grid of *bins*.
#
# Here is a scene that training has never seen, one channel of its finest feature map P2, and one box in both. P2 has
# shape `(1, 32, 32, 64)`: the image has 128x128 pixels, so one pixel of the map stands for 4x4 pixels of the image.
# The *spatial scale* is 1/4, and the box in the map is the box in the image times 1/4.

# %%
model = weights.load_shapes()
image, target = ShapesDataset(seed=0, length=20, first=HELD_OUT)[2]
batch = model.batch([image])
features, _ = model.features(batch.pixels)
p2 = features[0]  # (1, 32, 32, 64)
channel = int(p2.std(axis=(0, 1, 2)).argmax())  # the one that varies most over the scene
box = target.boxes[1].astype(float)  # the circle's
print(
    "P2",
    p2.shape,
    "  box in the image",
    box,
    "  box in the map",
    box / 4,
    "  channel shown",
    channel,
)


# %%
def outline(ax, box, colour, width=2.0, style="-"):
    """Draw ``x1, y1, x2, y2`` in the coordinates of the panel."""
    x1, y1, x2, y2 = box
    ax.add_patch(
        Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, lw=width, ls=style, zorder=3)
    )


figure = Figure(figsize=(9, 4.4), layout="constrained")
left, right = figure.subplots(1, 2)
left.imshow(image, extent=(0, 128, 128, 0))
outline(left, box, "white")
left.set_title("the image, in pixels", fontsize=10)
right.imshow(p2[0, :, :, channel], cmap="cividis")
outline(right, box / 4, "white")
right.set_title(f"P2, channel {channel}, in pixels of the map", fontsize=10)
figure

# %% [markdown]
# The corners of the box in the map are not whole numbers. There is no pixel 13.5. What should be done about it?
#
# ## Rounding, and what it breaks
#
# The first answer (RoI pooling, Fast R-CNN, section 2.1) was to round. Round the corners to whole pixels, divide the
# box into 7x7 bins, round the edges of the bins as well, and keep the largest number of each bin. The shape in is
# `(H, W)` and a box, the shape out `(7, 7)`.


# %%
def roi_pool_slow(feature, box, scale, bins=7, summary=np.max):
    """RoI pooling: everything is rounded, then the largest number of each bin is kept. (H, W) -> (bins, bins)."""
    x1, y1, x2, y2 = np.round(np.asarray(box) * scale).astype(int)
    ys, xs = np.linspace(y1, max(y2, y1 + 1), bins + 1), np.linspace(x1, max(x2, x1 + 1), bins + 1)
    out = np.zeros((bins, bins))
    for i in range(bins):
        for j in range(bins):
            rows = slice(math.floor(ys[i]), math.ceil(ys[i + 1]))
            columns = slice(math.floor(xs[j]), math.ceil(xs[j + 1]))
            out[i, j] = summary(feature[rows, columns])
    return out


def align(feature, boxes, scale=0.25, bins=7, ratio=2, aligned=False):
    """The package's RoI Align of one channel: (H, W) and (R, 4) -> (R, bins, bins)."""
    boxes = np.reshape(boxes, (-1, 4)).astype(feature.dtype)
    pooled, _ = ops.roi_align(
        feature[None, :, :, None],
        boxes,
        np.zeros(len(boxes), np.int64),
        output_size=(bins, bins),
        spatial_scale=scale,
        sampling_ratio=ratio,
        aligned=aligned,
    )
    return pooled[..., 0]


# %% [markdown]
# Move the box right by two pixels of the image, which is *half* a pixel of the map, in two steps of one. Dashed in
# white is the true box, in orange what rounding makes of it.

# %%
feature = p2[0, :, :, channel].astype(float)
right_by_one = np.array([1.0, 0, 1, 0])
moved = [box + shift * right_by_one for shift in (0, 1, 2)]
names = ["as it was", "moved 1 px", "moved 2 px"]
figure = Figure(figsize=(9, 3.3), layout="constrained")
for ax, b, name in zip(figure.subplots(1, 3), moved, names, strict=True):
    ax.imshow(feature, cmap="cividis", extent=(0, 32, 32, 0))
    outline(ax, np.round(b / 4), ORANGE, 2.5)
    outline(ax, b / 4, "white", 2, "--")
    ax.set(xlim=(12, 29), ylim=(32, 15), xticks=range(12, 30, 4), yticks=range(16, 33, 4))
    ax.set_title(f"{name}: x1 = {b[0] / 4} becomes {np.round(b[0] / 4):.0f}", fontsize=10)
figure

# %% [markdown]
# The true box moves every time. The rounded one stays where it is, until its right side jumps by a whole pixel of the
# map. What comes out of the pooling? A good one should answer a small move with a small change. The first row below is
# RoI pooling, the second is the package's RoI Align, which the rest of this notebook explains.

# %%
rounded = [roi_pool_slow(feature, b, 0.25) for b in moved]
sampled = list(align(feature, moved))
show_arrays(
    rounded + sampled,
    [f"RoI pooling, {n}" for n in names] + [f"RoI Align, {n}" for n in names],
    columns=3,
    same_scale=True,
    digits=1,
)

# %%
for way, pooled in (("RoI pooling", rounded), ("RoI Align", sampled)):
    steps = [np.abs(after - before).mean() for before, after in pairwise(pooled)]
    print(f"{way:12} mean change of a bin: first pixel {steps[0]:.3f}, second pixel {steps[1]:.3f}")

# %% [markdown]
# RoI pooling answers one of the two steps with nothing at all, and the other with a jump. RoI Align answers both,
# and about alike.
# (That the numbers of the first row are larger is another matter: it takes the largest of a bin, RoI Align the mean.)
#
# The same thing as a curve: let the box glide over 16 pixels of the image in steps of a quarter pixel, and follow one
# bin. The thin line is RoI pooling with the mean in place of the largest, so that only the rounding differs.

# %%
shifts = np.arange(0, 16.01, 0.25)
path = [box + s * right_by_one for s in shifts]
figure = Figure(figsize=(9, 3.2), layout="constrained")
for ax, (row, column) in zip(figure.subplots(1, 2, sharey=True), [(1, 1), (3, 4)], strict=True):
    ax.plot(
        shifts,
        [roi_pool_slow(feature, b, 0.25)[row, column] for b in path],
        color=RED,
        label="RoI pooling",
        lw=2,
    )
    mean = [roi_pool_slow(feature, b, 0.25, summary=np.mean)[row, column] for b in path]
    ax.plot(shifts, mean, color=RED, label="rounded, then the mean", lw=1)
    ax.plot(
        shifts, align(feature, path)[:, row, column], color=BLUE, label="RoI Align", lw=2, ls="--"
    )
    ax.set_title(f"bin in row {row}, column {column}", fontsize=10)
    ax.set_xlabel("how far the box has moved, pixels of the image", fontsize=9)
    ax.grid(color="0.9")
figure.axes[0].legend(fontsize=9)
figure

# %% [markdown]
# The red curves are staircases: the box moves by 4 pixels (one pixel of the map) and nothing changes, then everything
# jumps. Two things follow.
#
# * **The position is lost.** Rounding moves a corner by up to half a pixel of the map: 2 pixels of the image at stride
#   4, 16 pixels at stride 32. A class does not mind; a mask that should be right to the pixel does. RoI Align raised
#   mask AP by about 3 points in the paper, and by more at stricter IoU (Mask R-CNN, section 4.2, table 2c and 2d).
# * **The heads cannot learn the difference** between two boxes that round to the same one.
#
# RoI Align rounds nothing. It needs a way to read a map *between* its pixels.

# %% [markdown]
# ## Reading between the pixels
#
# A map has values only at whole positions $(h, w)$: row $h$, column $w$. To read it at $(y, x)$ in between, weigh the
# four pixels around by how near they are. Along one axis the weight of pixel $h$ falls linearly from 1 (at $y = h$) to
# 0 (one pixel away):
#
# $$\operatorname{hat}(t) = \max(0, 1 - |t|), \qquad
#   f(y, x) = \sum_{h} \sum_{w} \operatorname{hat}(y - h)\, \operatorname{hat}(x - w)\, F_{hw}.$$
#
# At most two rows and two columns have a weight above 0, so four pixels count. Take the 4x4 map that is numbered 0 to
# 15 row by row, and read it at $y = 1.25$, $x = 1.6$. By hand: rows 1 and 2 weigh 0.75 and 0.25, columns 1 and 2 weigh
# 0.4 and 0.6.


# %%
def hat(t):
    return np.maximum(0, 1 - np.abs(t))


numbered = np.arange(16.0).reshape(4, 4)
y, x = 1.25, 1.6
point_weights = np.outer(hat(y - np.arange(4)), hat(x - np.arange(4)))  # (4, 4)
print("weights\n", point_weights.round(3), "\nsum of weights", point_weights.sum().round(6))
print("value read", (point_weights * numbered).sum().round(6), "  4 y + x =", 4 * y + x)

# %%
figure = Figure(figsize=(9, 4.3), layout="constrained")
left, right = figure.subplots(1, 2)
draw_array(left, numbered)
left.plot(x, y, "o", ms=8, color=RED, mec="white")
left.set_title("the map, and the point (y 1.25, x 1.6)", fontsize=10)
corners = [(1, 1, ORANGE), (1, 2, SKY), (2, 1, GREEN), (2, 2, PINK)]
for h, w, colour in corners:
    other_h, other_w = 3 - h, 3 - w  # the rectangle on the other side of the point
    low_y, low_x = min(y, other_h), min(x, other_w)
    size = abs(x - other_w), abs(y - other_h)
    right.add_patch(Rectangle((low_x, low_y), *size, fc=colour, alpha=0.6))
    right.text(
        low_x + size[0] / 2,
        low_y + size[1] / 2,
        f"{point_weights[h, w]:.2f}",
        ha="center",
        va="center",
    )
    right.plot(w, h, "o", ms=22, color=colour, clip_on=False)
    right.text(w, h, f"{numbered[h, w]:.0f}", ha="center", va="center", fontsize=10)
right.plot(x, y, "o", ms=8, color=RED, mec="white")
right.set(xlim=(0.8, 2.2), ylim=(2.2, 0.8), aspect="equal", xticks=[1, 2], yticks=[1, 2])
right.set_xlabel("x", fontsize=9)
right.set_ylabel("y", fontsize=9)
right.set_title("the weight of a pixel is the area of its colour", fontsize=10)
figure

# %% [markdown]
# On the right is the square between the centres of pixels 5, 6, 9 and 10. The point cuts it into four rectangles, and
# a pixel's weight is the area of the rectangle *opposite* to it: the nearer the point, the larger that rectangle. The
# four areas fill a square of side 1, so the weights sum to 1.
#
# The value read is $4y + x$ exactly. The numbered map *is* $4h + w$ at its pixels, and bilinear interpolation
# continues a ramp without error. We use that below to check a whole RoI Align on paper.
#
# ## Bins and samples
#
# Now the grid. A box in the map starts at $(y_0, x_0)$ and is $b_h$ by $b_w$ per bin: its height and width over 7. The
# bin in row $i$, column $j$ takes $S \times S$ samples, spread evenly, and averages them. $S$ is the *sampling ratio*:
#
# $$y_{is} = y_0 + \Bigl(i + \frac{s + 1/2}{S}\Bigr) b_h, \quad s = 0, \dots, S - 1, \qquad
#   Y_{ij} = \frac{1}{S^2} \sum_{s} \sum_{t} f(y_{is}, x_{jt}).$$
#
# The samples of the scene's box, on the part of P2 around it, for $S = 1, 2, 4$:

# %%
figure = Figure(figsize=(9, 3.4), layout="constrained")
x1, y1, x2, y2 = box / 4
bin_w, bin_h = (x2 - x1) / 7, (y2 - y1) / 7
for ax, ratio in zip(figure.subplots(1, 3), (1, 2, 4), strict=True):
    ax.imshow(feature, cmap="gray", alpha=0.6)
    for k in range(8):
        ax.plot([x1 + k * bin_w] * 2, [y1, y2], color="white", lw=1)
        ax.plot([x1, x2], [y1 + k * bin_h] * 2, color="white", lw=1)
    steps = (np.arange(7 * ratio) + 0.5) / ratio
    xs, ys = np.meshgrid(x1 + steps * bin_w, y1 + steps * bin_h)
    ax.plot(xs.ravel(), ys.ravel(), "o", ms=5 - ratio, color=ORANGE)
    outline(ax, (x1 + 2 * bin_w, y1 + 3 * bin_h, x1 + 3 * bin_w, y1 + 4 * bin_h), SKY, 2.5)
    ax.set(
        xlim=(x1 - 1, x2 + 1),
        ylim=(y2 + 1, y1 - 1),
        xticks=range(14, 28, 4),
        yticks=range(16, 31, 4),
    )
    ax.set_title(f"S = {ratio}: {ratio * ratio} per bin, {49 * ratio**2} in all", fontsize=10)
figure

# %% [markdown]
# The grey squares are pixels of the map, white lines are bins, dots are samples, and one bin is framed in blue. Bins
# are almost 2 pixels wide here. With $S = 1$ a pixel that lies midway between two samples hardly counts; with $S = 2$
# the samples are less than a pixel apart, and all pixels inside count about alike. The paper found that the exact
# number matters little as long as nothing is rounded (section 3); this package uses 2.
#
# ## Forward, on numbers that can be checked on paper
#
# Take the map $F_{hw} = 10 h + w$ of 10x10 pixels: the number tells the place. Bilinear reading gives
# $f(y, x) = 10 y + x$ exactly, and the samples of a bin lie evenly around its centre, so their mean is the value at
# the centre, whatever $S$ is.
#
# The box (2, 1, 8, 7) is 6x6. Three bins per side are 2 wide, with centres at $x = 3, 5, 7$ and $y = 2, 4, 6$. So the
# first row must be 23, 25, 27. Then move the box right by 0.3: every number must grow by 0.3.

# %%
ramp = 10.0 * np.arange(10)[:, None] + np.arange(10)
by_hand = 10.0 * np.array([[2], [4], [6]]) + np.array([3, 5, 7])
first, second = align(ramp, [(2, 1, 8, 7), (2.3, 1, 8.3, 7)], scale=1, bins=3)
figure = show_arrays(
    [ramp, first, second],
    ["the ramp 10 h + w", "box (2, 1, 8, 7)", "box (2.3, 1, 8.3, 7)"],
    columns=3,
    digits=1,
)
outline(figure.axes[0], (2, 1, 8, 7), RED)
for ratio in (1, 2, 4, 0):
    print(
        f"S = {ratio}: largest error {np.abs(align(ramp, (2, 1, 8, 7), 1, 3, ratio) - by_hand).max():.1e}"
    )
figure

# %% [markdown]
# Exact. ($S = 0$ stands for "as many samples as the bin is wide, box by box".)
#
# On any other map the same definition, written as plain loops, is the judge. It takes one channel and one box.


# %%
def roi_align_slow(feature, box, bins, ratio):
    """RoI Align by its definition: every bin, every sample, every pixel. (H, W) -> (bins, bins)."""
    height, width = feature.shape
    x1, y1, x2, y2 = box
    bin_h, bin_w = (y2 - y1) / bins, (x2 - x1) / bins
    out = np.zeros((bins, bins))
    for i, j, s, t in np.ndindex(bins, bins, ratio, ratio):
        y = y1 + (i + (s + 0.5) / ratio) * bin_h
        x = x1 + (j + (t + 0.5) / ratio) * bin_w
        point_weights = np.outer(hat(y - np.arange(height)), hat(x - np.arange(width)))
        out[i, j] += (point_weights * feature).sum() / ratio**2
    return out


slow = roi_align_slow(feature, box / 4, bins=7, ratio=2)
print(
    "largest difference between the loop and the package:",
    np.abs(slow - align(feature, box)[0]).max(),
)

# %% [markdown]
# ## Aligned or not: half a pixel
#
# One thing has been left open. Where *is* pixel $i$ of the map, in the image? It was made from the image's pixels
# $4i$ to $4i + 4$, so its centre is at $4i + 2$, not at $4i$. Hence position $p$ of the image is position
#
# $$\frac{p}{4} - \frac12$$
#
# in the map. The half is easily forgotten, and the first implementations did forget it: they read at $p / 4$, which is
# half a pixel of the map too far right and down. `aligned=True` subtracts it; the default `False` does not, as in
# torchvision's Mask R-CNN, whose weights we want to run.
#
# A test that shows it: let each pixel of the map hold the $x$ of its own centre, $4i + 2$. What RoI Align reads in a
# bin should then be the $x$ of that bin's centre in the image. The box is (12, 12, 28, 28), with 4 bins, so the
# centres are at 14, 18, 22, 26.

# %%
places = np.tile(4.0 * np.arange(10) + 2, (10, 1))  # (10, 10): the x of each pixel's centre
small_box = (12, 12, 28, 28)
for aligned in (False, True):
    print(
        f"aligned={aligned!s:5} reads x =",
        align(places, small_box, bins=4, ratio=1, aligned=aligned)[0, 0],
    )

# %%
figure = Figure(figsize=(9, 4.6), layout="constrained")
for ax, aligned in zip(figure.subplots(1, 2), (False, True), strict=True):
    centres = 4 * np.arange(10) + 2
    xs, ys = np.meshgrid(centres, centres)
    ax.plot(xs.ravel(), ys.ravel(), "s", ms=4, color="0.6", label="centres of the map's pixels")
    ax.set(
        xticks=range(0, 41, 4), yticks=range(0, 41, 4), xlim=(6, 34), ylim=(34, 6), aspect="equal"
    )
    ax.grid(color="0.9")
    ax.set_axisbelow(True)
    outline(ax, small_box, "black")
    read = align(places, small_box, bins=4, ratio=1, aligned=aligned)[0, 0]
    xs, ys = np.meshgrid(read, read)
    ax.plot(xs.ravel(), ys.ravel(), "o", ms=8, color=RED, label="where the samples read")
    ax.set_title(f"aligned={aligned}", fontsize=10)
    ax.set_xlabel("x in the image, pixels", fontsize=9)
    ax.tick_params(labelsize=8)
figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
figure

# %% [markdown]
# Left: the grid of samples sits 2 pixels of the image too far right and down, onto the edge of the box at two sides.
# Right: it is centred. A network trained with the shift learns to live with it, because the shift is the same for
# every box of a level. A network trained with one setting and run with the other is off by half a pixel of the map.
#
# The pictures of samples and gradients in this notebook use the package's default: pixel $i$ of the map at position
# $i$.

# %% [markdown]
# ## Backward: where the gradient goes
#
# RoI Align is a weighted sum of pixels, so its derivative is the weights. Write $a^{(r)}_{ij,hw}$ for the weight of
# pixel $(h, w)$ in bin $(i, j)$ of box $r$. With $L$ the loss,
#
# $$Y^{(r)}_{ij} = \sum_{h,w} a^{(r)}_{ij,hw} F_{hw}
#   \quad\Longrightarrow\quad
#   \frac{\partial L}{\partial F_{hw}} = \sum_r \sum_{i,j} a^{(r)}_{ij,hw}\, \frac{\partial L}{\partial Y^{(r)}_{ij}}.$$
#
# Read: each bin hands its gradient back to the pixels that it read, by the same weights, and a pixel that was read by
# several bins or boxes adds up what it gets. The box gets no gradient: to this stage it is a constant.
#
# The shape in is `dy (R, 7, 7, C)`, the shape out that of the map. Hand back a 1 from a single bin, from all bins of
# one box, and from all bins of two boxes that overlap.


# %%
def gradient(boxes, dy, size=16):
    """dL/dF (size, size) of a map at scale 1/4, for dL/dY of shape (R, 7, 7)."""
    boxes = np.asarray(boxes, float)
    _, backward = ops.roi_align(
        np.zeros((1, size, size, 1)),
        boxes,
        np.zeros(len(boxes), np.int64),
        output_size=(7, 7),
        spatial_scale=0.25,
        sampling_ratio=2,
    )
    return backward(dy[..., None])[0, :, :, 0]


box_a, box_b = (6, 6, 42, 40), (22, 18, 58, 56)
one_bin = np.zeros((1, 7, 7))
one_bin[0, 2, 4] = 1
maps = [
    gradient([box_a], one_bin),
    gradient([box_a], np.ones((1, 7, 7))),
    gradient([box_a, box_b], np.ones((2, 7, 7))),
]
titles = ["one bin of box A", "all 49 bins of box A", "all bins of A and of B"]

# %%
figure = Figure(figsize=(9, 3.7), layout="constrained")
for ax, dfeature, title in zip(figure.subplots(1, 3), maps, titles, strict=True):
    picture = ax.imshow(dfeature, cmap="cividis")
    outline(ax, np.array(box_a) / 4, "white")
    if title.endswith("B"):
        outline(ax, np.array(box_b) / 4, ORANGE)
    ax.set_title(f"{title}\nsum {dfeature.sum():.3f}", fontsize=10)
    bar = figure.colorbar(picture, ax=ax, location="bottom", aspect=20, pad=0.02)
    bar.ax.tick_params(labelsize=8)
figure

# %%
alone = gradient([box_a], np.ones((1, 7, 7))) + gradient([box_b], np.ones((1, 7, 7)))
print("both together, minus the sum of each alone:", np.abs(maps[2] - alone).max())

# %% [markdown]
# * One bin reaches a few pixels: those its 4 samples lie between. The weights sum to 1, so the gradient does.
# * A whole box is about even inside (the waves are where samples lie close to a pixel) and fades at the rim. Nothing
#   is lost: 49 bins handed back 1 each, and 49 arrived.
# * Two boxes simply add; where they overlap the map gets both. That is why `dfeatures[...] += ...` stands in the
#   source, and why an assignment there would be a silent bug.
#
# The same on the scene: the box head's logit "this is a circle", one box, back through the head and through RoI Align
# to all 64 channels of P2. Shown is the length of the gradient over the channels.

# %%
boxes = box.astype(np.float32)[None]
pooled, backward_pool = model.pool(
    features, boxes, np.zeros(1, np.int64), batch, 7
)  # (1, 7, 7, 64)
model.box_head.set_training(
    True
)  # keeps the backward; the head has no BatchNorm, so nothing else changes
(logits, deltas), backward_head = model.box_head(pooled)
dlogits = np.zeros_like(logits)
dlogits[0, 2] = 1  # label 2 is the circle
dpooled = backward_head(dlogits, np.zeros_like(deltas))  # (1, 7, 7, 64)
dp2 = backward_pool(dpooled)[0]  # (1, 32, 32, 64)
model.set_training(False)
print("gradient of the bins", dpooled.shape, "  of P2", dp2.shape)

# %%
figure = Figure(figsize=(9, 3.4), layout="constrained")
axes = figure.subplots(1, 3)
axes[0].imshow(image, extent=(-0.5, 31.5, 31.5, -0.5))
axes[1].imshow(np.linalg.norm(dpooled[0], axis=2), cmap="cividis")
axes[2].imshow(np.linalg.norm(dp2[0], axis=2), cmap="cividis")
for ax, title in zip(
    axes, ("the scene", "gradient of the 7x7 bins", "gradient of P2"), strict=True
):
    ax.set_title(title, fontsize=10)
    ax.set(xticks=[], yticks=[])
for ax in (axes[0], axes[2]):
    outline(ax, box / 4 - (0.5 if ax is axes[0] else 0), "white", 1.5)
figure

# %% [markdown]
# The right picture is the middle one stretched back over the box. Outside the box, P2 gets nothing from this RoI.
#
# ### Is it right? Ask the numbers
#
# Nudge one pixel of a random map up and down by $\varepsilon$ and watch $L = \sum_{ij} g_{ij} Y_{ij}$ with a random
# $g$. The slope $(L_+ - L_-) / 2\varepsilon$ must be what `backward(g)` says, for every pixel.

# %%
rng = np.random.default_rng(0)
small = rng.normal(size=(8, 8))
two_boxes = np.array([[1.2, 0.7, 6.1, 5.5], [3.0, 2.0, 7.9, 6.6]])
settings = {"output_size": (3, 3), "spatial_scale": 1.0, "sampling_ratio": 2}
g = rng.normal(size=(2, 3, 3, 1))
zeros = np.zeros(2, np.int64)

_, backward = ops.roi_align(small[None, :, :, None], two_boxes, zeros, **settings)
analytic = backward(g)[0, :, :, 0]
numeric = np.zeros_like(small)
for place in np.ndindex(*small.shape):
    nudge = np.zeros_like(small)
    nudge[place] = 1e-4
    up, _ = ops.roi_align((small + nudge)[None, :, :, None], two_boxes, zeros, **settings)
    down, _ = ops.roi_align((small - nudge)[None, :, :, None], two_boxes, zeros, **settings)
    numeric[place] = ((up - down) * g).sum() / 2e-4
print("largest difference:", np.abs(analytic - numeric).max())
show_arrays(
    [analytic, numeric], ["what backward says", "what nudging says"], columns=2, same_scale=True
)

# %% [markdown]
# ## Two small matrices instead of loops
#
# The weight of a pixel in a sample is a product of a part for the row and a part for the column. So is the mean over
# the samples of a bin. Call the part for rows $A^y$, of shape `(7, H)`, and that for columns $A^x$, `(7, W)`:
#
# $$A^y_{ih} = \frac1S \sum_s \operatorname{hat}(y_{is} - h), \qquad
#   A^x_{jw} = \frac1S \sum_t \operatorname{hat}(x_{jt} - w).$$
#
# Put that into the definition of $Y$ and move the sums:
#
# $$Y_{ij} = \sum_h \sum_w A^y_{ih} F_{hw} A^x_{jw}, \qquad\text{that is}\qquad Y = A^y F (A^x)^\top .$$
#
# Row $i$ of $A^y$ says how much bin row $i$ reads of each row of the map.


# %%
def axis_matrix_slow(start, stop, bins, size, ratio):
    """Row i: how much bin i reads of each of ``size`` pixels along one axis. -> (bins, size)."""
    out = np.zeros((bins, size))
    for i, s in np.ndindex(bins, ratio):
        sample = start + (i + (s + 0.5) / ratio) * (stop - start) / bins
        out[i] += hat(sample - np.arange(size)) / ratio
    return out


x1, y1, x2, y2 = box / 4
a_y = axis_matrix_slow(y1, y2, 7, 32, 2)  # (7, 32)
a_x = axis_matrix_slow(x1, x2, 7, 32, 2)  # (7, 32)
pooled = a_y @ feature @ a_x.T  # (7, 7)
print("matrices against the loop:   ", np.abs(pooled - slow).max())
print("matrices against the package:", np.abs(pooled - align(feature, box)[0]).max())

# %%
figure = Figure(figsize=(9, 4.0), layout="constrained")
axes = figure.subplots(1, 4, width_ratios=[32, 32, 7, 7])
panels = {
    "$A^y$\n(7, 32)": a_y,
    "$F$\n(32, 32)": feature,
    "$(A^x)^T$\n(32, 7)": a_x.T,
    "$Y$\n(7, 7)": pooled,
}
for ax, (title, array), sign in zip(axes, panels.items(), ("", "×", "×", "="), strict=True):
    ax.imshow(array, cmap="cividis", vmin=None if array is feature else min(array.min(), 0))
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=10)
    ax.set_ylabel(sign, fontsize=16, rotation=0, va="center", labelpad=10)
outline(axes[1], box / 4, "white", 1.5)
figure

# %% [markdown]
# All four have the same size of pixel. Each row of $A^y$ is a short bright dash: a bin reads 2 to 3 rows of the map,
# and the next bin reads a little further on. A matrix product does in one go what the loop did in six nested ones, for
# all channels at once.
#
# The backward comes for free. $Y$ is linear in $F$, and the transpose of "multiply by $A^y$ and by $A^x$" is
#
# $$\frac{\partial L}{\partial F} = (A^y)^\top \, \frac{\partial L}{\partial Y} \, A^x .$$

# %%
dy = rng.normal(size=(7, 7))
by_matrices = a_y.T @ dy @ a_x
by_package = gradient([box], dy[None], size=32)
print("backward by matrices against the package:", np.abs(by_matrices - by_package).max())

# %% [markdown]
# This is how `ops/roi_align.py` works, forward and backward. What it adds is that boxes near each other share one
# window of the map, so that the matrices need not span all of it.
#
# ## Which level a box reads
#
# The pyramid has four levels that RoIs can read, P2 to P5, with strides 4, 8, 16, 32. A large box on a fine level
# would spread its 14x14 samples thinly over 100 pixels; a small box on a coarse level would squeeze them into one
# pixel. FPN's rule (equation 1) keeps the box at a similar size in pixels of its map:
#
# $$k = \Bigl\lfloor k_0 + \log_2 \frac{\sqrt{w h}}{224} \Bigr\rfloor, \qquad k_0 = 4,$$
#
# clamped to the levels there are. $w$ and $h$ are the box's sides in pixels of the image; 224 is the size of
# ImageNet's pictures, on which such backbones were trained. Twice the size, one level up.

# %%
toy_boxes = np.concatenate(
    [ShapesDataset(seed=0, length=100, first=HELD_OUT)[i][1].boxes for i in range(100)]
)
toy_sides = np.sqrt((toy_boxes[:, 2:] - toy_boxes[:, :2]).prod(axis=1))
sides = np.geomspace(16, 900, 400)
squares = np.stack([0 * sides, 0 * sides, sides, sides], axis=1)
scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
level = assign_levels(squares, scales, model.config.roi) + 2  # (400,): 2 for P2
figure = Figure(figsize=(9, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
left.plot(sides, level, color=BLUE, lw=2)
left.set(yticks=[2, 3, 4, 5], yticklabels=["P2", "P3", "P4", "P5"])
left.set_title("the level that a square box reads", fontsize=10)
right.plot(sides, sides / 2.0**level, color=RED, lw=2)
right.axhspan(14, 28, color=SKY, alpha=0.3)
right.set_title("its side in pixels of that level", fontsize=10)
for ax in (left, right):
    ax.axvspan(toy_sides.min(), toy_sides.max(), color=ORANGE, alpha=0.2)
    ax.set(
        xscale="log",
        xticks=[16, 28, 56, 112, 224, 448, 896],
        xticklabels=[16, 28, 56, 112, 224, 448, 896],
    )
    ax.minorticks_off()
    ax.set_xlabel("side of the box, pixels of the image", fontsize=9)
    ax.grid(color="0.9")
    ax.tick_params(labelsize=8)
left.text(np.sqrt(toy_sides.min() * toy_sides.max()), 4.5, "toy shapes", ha="center", fontsize=9)
figure

# %% [markdown]
# From 56 to 896 the box has 14 to 28 pixels on its level (the blue band): 2 to 4 per bin of a 7x7 grid, which is what
# $S = 2$ was made for. Below 56 pixels there is no finer level to go to, and above 896 no coarser one.
#
# The toy shapes (orange) are all smaller than 112 pixels in images of 128, so with the paper's 224 **every RoI of the
# toy network reads P2**. The levels above still matter to it: they reach P2 through the top-down sums, and they make
# the larger anchors' proposals.

# %%
print(
    "levels read by",
    len(toy_boxes),
    "toy boxes:",
    np.unique(assign_levels(toy_boxes, scales, model.config.roi) + 2),
)
halved = replace(model.config.roi, canonical_size=112)
print(
    "if 224 were 112:", np.unique(assign_levels(toy_boxes, scales, halved) + 2, return_counts=True)
)

# %% [markdown]
# ## Boxes at the edge and boxes without size
#
# Two rules for samples near the edge, the same as torchvision's. The border pixel's value reaches one more pixel out,
# to -1 and to $H$; whatever is further out reads 0. On a map of ones, where a bin shows which part of it could be
# read:

# %%
ones = np.ones((8, 8))
odd_boxes = {
    "inside": (1, 1, 7, 7),
    "over the corner": (-4, -4, 4, 4),
    "outside": (9, 9, 14, 14),
    "no width": (3, 1, 3, 7),
    "back to front": (6, 6, 2, 2),
}
figure = Figure(figsize=(9, 3.0), layout="constrained")
for ax, (name, odd) in zip(figure.subplots(1, 5), odd_boxes.items(), strict=True):
    draw_array(ax, align(ones, odd, scale=1, bins=4)[0], limits=(0, 1))
    ax.set_title(f"{name}\n{odd}", fontsize=9)
figure

# %% [markdown]
# "Over the corner": a bin is 2 pixels wide, with samples at -3.5 and -2.5, then -1.5 and -0.5, and so on. The first
# bin reads nothing. Of the second, one sample is beyond -1 and the other reads the border: a half along each axis. "No
# width" and "back to front" read something as well, and that is on purpose: with `aligned=False` a side shorter than
# one pixel of the map counts as one, so that such a box is a small box and not a division by zero. A map that holds
# the column of each pixel shows where they read:

# %%
column_numbers = np.tile(np.arange(10.0), (10, 1))
for name in ("no width", "back to front"):
    for aligned in (False, True):
        read = align(column_numbers, odd_boxes[name], scale=1, bins=4, aligned=aligned)[0, 0]
        print(
            f"{name:14} {odd_boxes[name]}  aligned={aligned!s:5}  the bins of a row read x =",
            read.round(3),
        )

# %% [markdown]
# With `aligned=True` nothing is clamped: all samples of a box without width lie on one line, and a box that is back to
# front is read mirrored. Proposals are clipped and sorted before they come here, so training never meets such boxes; a
# function should still say what it does with them, and the tests hold it to that.
#
# ## What you have learned
#
# * Heads need one size of input; RoI Align makes `(R, 7, 7, C)` of boxes of any size.
# * Rounding loses up to half a pixel of the map, 2 to 16 pixels of the image, and answers a glide with jumps. Bilinear
#   samples, averaged in bins, lose nothing and are exact on a ramp.
# * `aligned` is a matter of half a pixel of the map: where the centre of pixel 0 is.
# * The backward hands each bin's gradient to the pixels it read, by the same weights; overlapping boxes add.
# * Separable weights make it two matrix products: $Y = A^y F (A^x)^\top$, $dF = (A^y)^\top dY A^x$.
#
# ## Exercises
#
# 1. Write RoI Align and its backward yourself: `make exercise NAME=roi_align`. Start from `roi_align_slow`, then add
#    the batch index, the spatial scale, the rules for the edge, and the backward. The tests tell you what is missing.
# 2. Predict, then try: on the map $F_{hw} = w^2$, is RoI Align still exact at the bins' centres? Larger or smaller?
#    Does a larger $S$ help?
# 3. Predict, then try: what does the middle heat map of the backward look like with `sampling_ratio=1`? And what is
#    its sum?
# 4. Make `box_b` half as wide and half as high as box A. Predict, then draw: how large is its gradient inside,
#    compared with A's, and what is its sum?
#
# ## Links
#
# * Source: [`ops/roi_align.py`](../src/mrcnn_scratch/ops/roi_align.py),
#   [`roi/pooler.py`](../src/mrcnn_scratch/roi/pooler.py)
# * Tests: [`tests/ops/test_roi_align.py`](../tests/ops/test_roi_align.py),
#   [`tests/roi/test_pooler.py`](../tests/roi/test_pooler.py)
# * Papers: RoI Align is in Mask R-CNN, section 3 ([arXiv:1703.06870](https://arxiv.org/abs/1703.06870)); RoI pooling
#   in Fast R-CNN, section 2.1 ([arXiv:1504.08083](https://arxiv.org/abs/1504.08083)); the choice of level in FPN,
#   section 4.2 ([arXiv:1612.03144](https://arxiv.org/abs/1612.03144))
# * Next: [07 Heads](07_heads.ipynb)
