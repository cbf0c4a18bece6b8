# %% [markdown]
# # 07 Heads
#
# **What you will see** how the pooled features of a box become an answer: what it is, where exactly, and which pixels.
# Softmax and its gradient, boxes that are moved once more, and masks that do not compete.
#
# **In** pooled features of R boxes: `(R, 7, 7, 64)` for the box head, `(R, 14, 14, 64)` for the mask head.
#
# **Out** class logits `(R, 4)` (background and three shapes), box deltas `(R, 4, 4)`, mask logits `(R, 28, 28, 4)`;
# from them probabilities, boxes in pixels, and masks in the image.
#
# **Time** 20 minutes to read, a few seconds to run.
#
# **Before this** [06 RoI Align](06_roi_align.ipynb)

# %%
# %matplotlib inline
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw

from mrcnn_scratch import ops, weights
from mrcnn_scratch.boxes import box_iou, clip_boxes, decode_boxes, encode_boxes
from mrcnn_scratch.data.shapes import HELD_OUT, ShapesDataset
from mrcnn_scratch.roi import mask_loss, paste_masks
from mrcnn_scratch.visualize import PALETTE, show_arrays

ORANGE, SKY, GREEN, RED, PINK, BLUE, YELLOW = PALETTE
NAMES = ["background", "square", "circle", "triangle"]
COLOURS = ["0.6", ORANGE, SKY, GREEN]

# %% [markdown]
# ## Three questions about every box
#
# RoI Align has made the same grid of features of every proposal. Two small networks look at each grid (Mask R-CNN,
# figure 4):
#
# | head | in | layers | out |
# |---|---|---|---|
# | box head | `(R, 7, 7, 64)` | two fully connected of 256, two in parallel | logits `(R, 4)`, deltas `(R, 4, 4)` |
# | mask head | `(R, 14, 14, 64)` | four 3x3 convolutions, one transposed 2x2, one 1x1 | logits `(R, 28, 28, 4)` |
#
# The box head says *what* and *where*. The position inside the box is spent on that: it flattens the grid. The mask
# head says *which pixels*, so it keeps the grid and only convolves.
#
# Here is the scene of the last notebook, its proposals, and what the box head says about all of them.

# %%
model = weights.load_shapes()
scenes = ShapesDataset(seed=0, length=60, first=HELD_OUT)  # none of them was in training


def look(i):
    """Scene i up to its proposals: image, target, batch, features and proposals (K, 4)."""
    image, target = scenes[i]
    batch = model.batch([image])
    features, _ = model.features(batch.pixels)
    (objectness, deltas), _ = model.rpn(features)
    proposals, _ = model.proposals(
        objectness, deltas, model.anchors(features, batch.pixels), batch
    )[0]
    return image, target, batch, features, proposals


def box_answers(features, boxes, batch):
    """Class logits (R, 4) and deltas (R, 4, 4) of boxes (R, 4)."""
    pooled, _ = model.pool(
        features, boxes, np.zeros(len(boxes), np.int64), batch, 7
    )  # (R, 7, 7, 64)
    answers, _ = model.box_head(pooled)
    return answers


image, target, batch, features, proposals = look(2)
logits, deltas = box_answers(features, proposals, batch)
print("proposals", proposals.shape, "  logits", logits.shape, "  deltas", deltas.shape)

# %% [markdown]
# ## From logits to probabilities
#
# A logit is any number: the larger, the more the head believes in that class. To get probabilities $p_k$ of $K + 1$
# classes from logits $z_k$, make every number positive, then divide by the sum. That is *softmax*:
#
# $$p_k = \frac{e^{z_k}}{\sum_j e^{z_j}} .$$
#
# On numbers: $z = (2, 1, 0, -1)$ gives $e^z = (7.39, 2.72, 1, 0.37)$ with sum 11.48, so $p$ = (0.64, 0.24, 0.09,
# 0.03).

# %%
z = np.array([[2.0, 1.0, 0.0, -1.0]])
print("by hand   ", (np.exp(z) / np.exp(z).sum()).round(3))
print("package   ", ops.softmax(z).round(3))
print("z + 100   ", ops.softmax(z + 100).round(3))
print("3 z       ", ops.softmax(3 * z).round(3))

# %% [markdown]
# Adding the same $c$ to all logits changes nothing, for $e^{z_k + c} = e^c e^{z_k}$, and $e^c$ cancels. Only
# *differences* of logits count. That is useful: $e^{1000}$ is too large for a computer, but we may subtract the
# largest logit first, so that the largest exponential is $e^0 = 1$. The package does so. Multiplying the logits, on
# the other hand, makes the probabilities sharper.

# %%
large = z + 1000
with np.errstate(over="ignore", invalid="ignore"):
    print("as the formula is written:", np.exp(large) / np.exp(large).sum())
print("largest subtracted first: ", ops.softmax(large).round(3))

# %% [markdown]
# ## The background class
#
# Most proposals hold no object. So there is one class more than there are shapes: label 0, *background*. Take five
# proposals of the scene: the best for each object, the two about which the head is least sure, and the largest that
# touches no object.

# %%
overlap = box_iou(target.boxes, proposals)  # (2, K): triangle, circle
probabilities = ops.softmax(logits)  # (K, 4)
unsure = np.abs(probabilities[:, 0] - 0.5).argsort()[:2]  # nearest to half background, half object
sides = proposals[:, 2:] - proposals[:, :2]
away = int(np.where(overlap.max(axis=0) == 0, sides.prod(axis=1), 0).argmax())
shown = [*overlap.argmax(axis=1), *unsure, away]
print("proposals shown:", [int(i) for i in shown])


# %%
def by_name(values):
    """Numbers with the classes' names, as text."""
    return "  ".join(
        f"{name} {value:.2f}" for name, value in zip(NAMES[-len(values) :], values, strict=True)
    )


def outline(ax, box, colour, width=2.0, style="-"):
    """Draw ``x1, y1, x2, y2`` in pixels."""
    x1, y1, x2, y2 = box
    ax.add_patch(
        Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, lw=width, ls=style, zorder=3)
    )


def show_image(ax, image):
    ax.imshow(image, extent=(0, image.shape[1], image.shape[0], 0))
    ax.set(xticks=[], yticks=[])


# %%
figure = Figure(figsize=(9, 3.9), layout="constrained")
for column, i in enumerate(shown):
    top, bottom = figure.add_subplot(2, 5, column + 1), figure.add_subplot(2, 5, column + 6)
    show_image(top, image)
    outline(top, proposals[i], "white")
    top.set_title(f"IoU {overlap[0, i]:.2f} triangle\nIoU {overlap[1, i]:.2f} circle", fontsize=9)
    bottom.barh(NAMES, probabilities[i], color=COLOURS)
    bottom.set(xlim=(0, 1), xticks=[0, 0.5, 1])
    bottom.invert_yaxis()
    bottom.tick_params(labelsize=8, labelleft=column == 0)
    bottom.set_xlabel("probability", fontsize=8)
figure

# %% [markdown]
# The two boxes that fit get their shape, the one that touches nothing gets background. The two in between meet an
# object with an IoU near 0.5. In training a box was the object's from an IoU of 0.5 on and background below, so here
# the head is less sure.
#
# What if there were no background class? Leave its logit out and the softmax must still hand out 1 in all:

# %%
print("with background:   ", by_name(probabilities[away]))
print("without background:", by_name(ops.softmax(logits[[away], 1:])[0]))

# %% [markdown]
# Empty ground would have to be some shape. Softmax only compares; somebody has to stand for "none of these".
#
# ## Cross-entropy, and the gradient $p - y$
#
# How wrong is a probability? If the true class is $t$, the loss of one box is $L = -\log p_t$: 0 when $p_t = 1$, and
# ever larger as $p_t$ goes to 0. For a batch it is the mean over the boxes. Put the softmax in:
#
# $$L = -\log \frac{e^{z_t}}{\sum_j e^{z_j}} = -z_t + \log \sum_j e^{z_j}.$$
#
# Differentiate with respect to one logit $z_k$. The first part gives $-1$ if $k = t$ and 0 otherwise. The second gives
# $e^{z_k} / \sum_j e^{z_j} = p_k$. So, with $y$ the *one-hot* vector (1 at the true class, 0 elsewhere):
#
# $$\frac{\partial L}{\partial z_k} = p_k - y_k .$$
#
# What you say minus what is true. On the numbers of above with the second class true: $L = -\log 0.237 = 1.44$, and
# the gradient is $(0.644, 0.237 - 1, 0.087, 0.032)$.

# %%
loss, backward = ops.cross_entropy(z, np.array([1]))
print("loss    ", loss.round(4), "  -log p =", -np.log(ops.softmax(z)[0, 1]).round(4))
dz = backward(1.0)
print("gradient", dz.round(3), "  sum", dz.sum().round(12))

nudged = []
for k in range(4):  # nudge one logit up and down, watch the loss
    nudge = 1e-5 * (np.arange(4) == k)
    up, down = (ops.cross_entropy(z + sign * nudge, np.array([1]))[0] for sign in (1, -1))
    nudged.append((up - down) / 2e-5)
print("nudging ", np.round(nudged, 3))

# %% [markdown]
# The gradient sums to 0, as it must: adding the same to all logits changes nothing. As bars, for three boxes of the
# scene: one that is right, one that is less sure, and the right one again with a wrong label.

# %%
cases = [
    (shown[1], 2, "circle, called circle"),
    (shown[2], 0, "less sure, labelled background"),
    (shown[1], 1, "circle, labelled square"),
]
figure = Figure(figsize=(9, 3.6), layout="constrained")
for ax, (i, label, title) in zip(figure.subplots(1, 3, sharey=True), cases, strict=True):
    loss, backward = ops.cross_entropy(logits[[i]], np.array([label]))
    place = np.arange(4)
    ax.bar(place - 0.27, probabilities[i], 0.25, color=BLUE, label="$p$, predicted")
    ax.bar(place, place == label, 0.25, color="0.7", label="$y$, true")
    ax.bar(place + 0.27, backward(1.0)[0], 0.25, color=RED, label="gradient $p - y$")
    ax.axhline(0, color="black", lw=0.8)
    ax.set_xticks(place, ["back-\nground", *NAMES[1:]], fontsize=8)
    ax.set_title(f"{title}\nloss {loss:.3f}", fontsize=10)
figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
figure

# %% [markdown]
# A box that is right teaches nothing: its gradient is nearly 0. One that is wrong and sure of it gets a gradient of
# nearly 1 up and 1 down, never more: a wrong label can pull, but not without bound. A step *against* the gradient
# lowers the logits whose red bar points up and raises the one whose bar points down.

# %% [markdown]
# ## Moving the box once more
#
# A proposal is roughly right. The box head sees more (7x7 features of just this box, instead of one place of the map),
# so it moves the box once more, by the same four numbers as the RPN: with centre $(x, y)$, width $w$ and height $h$ of
# the proposal marked by $a$,
#
# $$x = x_a + \frac{d_x}{10} w_a, \quad y = y_a + \frac{d_y}{10} h_a, \quad
#   w = w_a\, e^{d_w / 5}, \quad h = h_a\, e^{d_h / 5}.$$
#
# The 10 and the 5 are explained below. The deltas have shape `(R, 4, 4)`: *one move per class*, since the same pixels
# suggest different boxes for different shapes. Only the move of the class in question is used.

# %%
box_weights = model.config.roi.box_weights  # (10, 10, 5, 5)


def refine(deltas, boxes, size):
    """Each box moved for each class: (R, 4, 4) and (R, 4) to (R, 4 classes, 4)."""
    return clip_boxes(decode_boxes(deltas, boxes[:, None], box_weights), size)


moved = refine(deltas, proposals, batch.sizes[0])  # (K, 4, 4)
rough = [int(np.abs(overlap[1] - iou).argmin()) for iou in (0.5, 0.6, 0.75)]
figure = Figure(figsize=(9, 3.3), layout="constrained")
for ax, i in zip(figure.subplots(1, 3), rough, strict=True):
    show_image(ax, image)
    outline(ax, proposals[i], "white", 2, "--")
    outline(ax, moved[i, 2], ORANGE, 2.5)
    after = box_iou(target.boxes[1:], moved[i, 2:3]).item()
    ax.set_title(f"IoU {overlap[1, i]:.2f} before, {after:.2f} after", fontsize=10)
figure

# %% [markdown]
# Dashed in white the proposal, in orange the box that the circle's move makes of it. And what the *other* classes
# would have done with the last of them:

# %%
figure = Figure(figsize=(9, 2.7), layout="constrained")
for label, ax in enumerate(figure.subplots(1, 4)):
    show_image(ax, image)
    outline(ax, proposals[rough[2]], "white", 2, "--")
    outline(ax, moved[rough[2], label], COLOURS[label] if label else "black", 2.5)
    ax.set_title(f"as {NAMES[label]}", fontsize=10)
figure

# %% [markdown]
# Each class has its own idea. Background has a move as well, to keep the arrays even, but it is never trained and
# never used. The loss of a box looks at the move of its true class alone.
#
# Is it worth it? All proposals of 20 scenes that meet an object with an IoU of 0.5 or more, before and after:

# %%
before, after = [], []
for i in range(20):
    _, truth, one, levels, boxes = look(i)
    iou = box_iou(truth.boxes, boxes)  # (G, K)
    near = np.flatnonzero(iou.max(axis=0) >= 0.5)
    owner = iou[:, near].argmax(axis=0)
    answers = box_answers(levels, boxes[near], one)
    better = refine(answers[1], boxes[near], one.sizes[0])[
        np.arange(len(near)), truth.labels[owner]
    ]
    before += iou[owner, near].tolist()
    after += box_iou(truth.boxes, better)[owner, np.arange(len(near))].tolist()
before, after = np.array(before), np.array(after)
print(f"{len(before)} proposals: mean IoU {before.mean():.2f} before, {after.mean():.2f} after")
print(f"better after the move: {(after > before).mean():.0%}")

# %%
figure = Figure(figsize=(5, 4.4), layout="constrained")
ax = figure.subplots()
ax.plot(before, after, "o", ms=4, alpha=0.6, color=BLUE)
ax.plot([0.4, 1], [0.4, 1], color="0.5", lw=1)
ax.set(
    xlim=(0.48, 1),
    ylim=(0.3, 1.02),
    xlabel="IoU of the proposal",
    ylabel="IoU after the move of the true class",
)
ax.grid(color="0.9")
figure

# %% [markdown]
# Points above the line are boxes that got better: nearly all.
#
# ## Why 10, 10, 5, 5
#
# Targets are the other way round: `encode_boxes` says which deltas *would* turn a proposal into its object. A proposal
# that counts as an object's has an IoU of at least 0.5 with it, so it is off by a small part of its own size: small
# numbers. The weights multiply them. Here are the targets of all such proposals of 40 scenes, encoded with weights of
# 1, and with (10, 10, 5, 5).

# %%
found, wanted = [], []
for i in range(40):
    _, truth, _, _, boxes = look(i)
    iou = box_iou(truth.boxes, boxes)
    near = np.flatnonzero(iou.max(axis=0) >= 0.5)
    found.append(boxes[near])
    wanted.append(truth.boxes[iou[:, near].argmax(axis=0)])
found, wanted = np.concatenate(found), np.concatenate(wanted)
print("proposals and the objects they should become:", found.shape, wanted.shape)

# %%
figure = Figure(figsize=(9, 4.6), layout="constrained")
axes = figure.subplots(2, 4, sharey="row")
bins = np.linspace(-4, 4, 60)
for row, scale in zip(axes, ((1.0, 1.0, 1.0, 1.0), box_weights), strict=True):
    targets = encode_boxes(wanted, found, scale)  # (P, 4)
    for ax, values, name, weight in zip(
        row, targets.T, ("dx", "dy", "dw", "dh"), scale, strict=True
    ):
        ax.hist(values, bins, color=RED if weight == 1 else BLUE)
        ax.set_title(f"{name}, weight {weight:.0f}: spread {values.std():.2f}", fontsize=9)
        ax.tick_params(labelsize=8)
axes[0, 0].set_ylabel("proposals", fontsize=9)
axes[1, 0].set_ylabel("proposals", fontsize=9)
figure

# %% [markdown]
# (The two rows have different heights.) Above, everything crowds around 0: a head that says "do not move" would have
# almost no loss, and the classifier's loss would drown it. Below, the standard deviations (the "spread" in the titles)
# come near 1, so that the four numbers and the logits are of one kind. The weights are one over 0.1, 0.1, 0.2 and 0.2,
# the spreads that Fast R-CNN's code divided by; ours come out much the same. Decoding divides by the weights again.
#
# ## Smooth L1
#
# How wrong is a delta? Let $d$ be predicted minus wanted. The square $d^2/2$ has the gradient $d$: one box that is far
# off dominates the batch. The absolute value $|d|$ has the gradient $\pm 1$ however near the aim is: it never settles.
# *Smooth L1* joins the two (Fast R-CNN, equation 3). With $\beta$ where they meet,
#
# $$\ell(d) = \begin{cases} d^2 / (2 \beta) & |d| < \beta \\ |d| - \beta / 2 & \text{otherwise} \end{cases}
#   \qquad \ell'(d) = \operatorname{clip}(d / \beta, -1, 1).$$
#
# At $|d| = \beta$ both pieces are $\beta / 2$ with slope 1, so the curve has no kink. Here $\beta = 1/9$. By hand:
# $\ell(0.05) = 0.0025 \cdot 9 / 2 = 0.01125$ and $\ell(1) = 1 - 1/18 = 0.9444$.

# %%
beta = model.config.roi.smooth_l1_beta
d = np.linspace(-3, 3, 601)
zero = np.zeros(1)
values = np.array([ops.smooth_l1(d[i : i + 1], zero, beta=beta)[0] for i in range(len(d))])
_, backward = ops.smooth_l1(d, np.zeros_like(d), beta=beta)
slopes = backward(1.0)
for number in (0.05, 1.0):
    print(f"smooth L1 of {number}: {ops.smooth_l1(np.array([number]), zero, beta=beta)[0]:.5f}")

# %%
figure = Figure(figsize=(9, 3.6), layout="constrained")
axes = figure.subplots(1, 3)
for ax, l2, l1, smooth in zip(
    axes,
    (d * d / 2, d * d / 2, d),
    (np.abs(d), np.abs(d), np.sign(d)),
    (values, values, slopes),
    strict=True,
):
    ax.plot(d, l2, color=GREEN, lw=2, ls=":", label="L2: $d^2/2$")
    ax.plot(d, l1, color=ORANGE, lw=2, ls="--", label="L1: $|d|$")
    ax.plot(d, smooth, color=BLUE, lw=2, label=r"smooth L1, $\beta = 1/9$")
    ax.set_xlabel("$d$ = predicted - wanted", fontsize=9)
    ax.tick_params(labelsize=8)
    ax.grid(color="0.9")
axes[0].set(xlim=(-0.3, 0.3), ylim=(-0.01, 0.3))
for ax, title in zip(
    axes, ("loss of one delta, near 0", "loss, further out", "gradient"), strict=True
):
    ax.set_title(title, fontsize=10)
figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
figure

# %% [markdown]
# Near 0 the blue gradient shrinks with the error, so training settles. Far out it stays at 1, so no box shouts.
#
# ## The mask head
#
# Now the pixels. RoI Align pools 14x14 features of the box, four 3x3 convolutions look at them, a transposed
# convolution doubles the grid to 28x28, and a 1x1 convolution gives one logit per class and pixel: `(R, 28, 28, 4)`.
# Each logit goes through a sigmoid *on its own*:
#
# $$m = \sigma(z) = \frac{1}{1 + e^{-z}} .$$
#
# Here the box is the circle's. All four masks that the head makes of this one RoI:


# %%
def mask_logits(features, boxes, batch):
    """(R, 4) boxes to (R, 28, 28, 4) logits."""
    pooled, _ = model.pool(
        features, boxes, np.zeros(len(boxes), np.int64), batch, 14
    )  # (R, 14, 14, 64)
    logits, _ = model.mask_head(pooled)
    return logits


masks = mask_logits(
    features, target.boxes, batch
)  # (2, 28, 28, 4): the triangle's box, the circle's box
circle = masks[1]  # (28, 28, 4)
by_sigmoid, _ = ops.sigmoid(circle)
x1, y1, x2, y2 = target.boxes[1].astype(int)
show_arrays(
    [image[y1:y2, x1:x2], *by_sigmoid.transpose(2, 0, 1)],
    ["the RoI", *(f"mask of {name}" for name in NAMES)],
    columns=5,
    same_scale=True,
)

# %% [markdown]
# Dark is 0, bright is 1. The masks of *square* and *circle* agree: "these pixels are the object". The triangle's says
# something muddled: it was never trained on a circle's box. That of background was never asked for: the last
# layer's weights for it are still random, and so is what it makes of the shared features.
#
# None of this does any harm. The box head has already said "circle", so **only the circle's mask is used**, in
# training as in detection. The mask head is never asked what the thing is; it is asked: "if this were a circle, which
# pixels would be its?" Classes do not compete.
#
# ### What if they did?
#
# The natural alternative is a softmax over the classes at each pixel, as in semantic segmentation. Take the very same
# logits:

# %%
by_softmax = ops.softmax(circle.reshape(-1, 4)).reshape(28, 28, 4)
show_arrays(
    [by_sigmoid[..., 2], by_softmax[..., 1], by_softmax[..., 2], by_softmax[..., 3]],
    ["sigmoid: circle", "softmax: square", "softmax: circle", "softmax: triangle"],
    same_scale=True,
)

# %%
row, column = 14, 14  # a pixel in the middle of the circle
print("logits at the centre:", by_name(circle[row, column]))
print("sigmoid, each alone: ", by_name(by_sigmoid[row, column]))
print("softmax over classes:", by_name(by_softmax[row, column]))
for name, mask in (("sigmoid", by_sigmoid), ("softmax", by_softmax)):
    print(
        f"{name}: pixels of the circle's mask over 0.5: {(mask[..., 2] > 0.5).mean():.0%} of the box"
    )

# %% [markdown]
# At the centre, square and circle are both sure that this is the object's. The softmax makes them share one
# probability, and over part of the disc the circle's share falls below one half, although nobody doubts those pixels.
#
# The comparison is unfair in one respect: these logits were trained for sigmoids. But trained for a softmax, the head
# would have to decide the class again at every pixel, which the box head has just done, with a view of the whole box.
# The paper trained both: sigmoids gained 5.5 points of mask AP (section 4.2, table 2b).
#
# ### The gradient goes to one channel
#
# The mask loss is the mean *binary cross-entropy* over the 28x28 pixels of the true class's channel. For a pixel with
# probability $m$ and target $t$, $\ell = -t \log m - (1 - t) \log (1 - m)$. With $m = \sigma(z)$ and
# $\sigma' = \sigma (1 - \sigma)$:
#
# $$\frac{\partial \ell}{\partial z} = \Bigl( -\frac{t}{m} + \frac{1 - t}{1 - m} \Bigr)\, m (1 - m)
#   = -t (1 - m) + (1 - t)\, m = m - t .$$
#
# Again: what you say minus what is true. The target is the object's true mask, cut out by the box: RoI Align of the
# mask, to 28x28.

# %%
truth, _ = ops.roi_align(
    target.masks[1:, :, :, None].astype(np.float32),
    target.boxes[1:],
    np.zeros(1, np.int64),
    output_size=(28, 28),
    spatial_scale=1.0,
    sampling_ratio=0,
)  # (1, 28, 28, 1)
loss, backward = mask_loss(masks[1:], np.array([2]), truth[..., 0])
dmasks = backward(1.0)  # (1, 28, 28, 4)
print(f"loss {loss:.4f}")
for label, name in enumerate(NAMES):
    print(
        f"gradient of the {name} channel, sum of sizes: {np.abs(dmasks[0, :, :, label]).sum():.5f}"
    )
expected = (by_sigmoid[..., 2] - truth[0, :, :, 0]) / 28**2
print("difference from (m - t) / 784:", np.abs(dmasks[0, :, :, 2] - expected).max())

# %%
figure = show_arrays(
    [truth[0, :, :, 0], by_sigmoid[..., 2], 28**2 * dmasks[0, :, :, 2]],
    ["target $t$", "predicted $m$", "784 times the gradient: $m - t$"],
    columns=3,
)
figure

# %% [markdown]
# All that is left to learn here is the rim. The three other channels get exactly 0.
#
# ### How the grid doubles
#
# A convolution gathers a window into one number. A *transposed* convolution does the reverse: each input pixel stamps
# the kernel, times its value, onto the output. With a 2x2 kernel and stride 2 the stamps lie side by side: 14x14
# becomes 28x28. One channel, by hand:

# %%
small = np.array([[1.0, 2, 0], [0, 3, 1], [2, 0, 1]])
kernel = np.array([[1.0, 0.5], [0.5, 0]])
stamped, backward = ops.conv_transpose2d(
    small[None, :, :, None], kernel[:, :, None, None], stride=2
)
dsmall, dkernel = backward(np.ones_like(stamped))
print(
    "gradient of the input for dy = 1:",
    dsmall[0, :, :, 0].tolist(),
    "  of the kernel:",
    dkernel[:, :, 0, 0].tolist(),
)
show_arrays(
    [small, kernel, stamped[0, :, :, 0]],
    ["in: 3x3", "kernel: 2x2", "out: 6x6, a stamp per pixel"],
    columns=3,
)

# %% [markdown]
# The block at the top in the middle is $2 \cdot$ kernel. The backward gathers: each input pixel's gradient is the sum
# over its own 2x2 block, weighed by the kernel (for `dy` of ones the sum of the kernel, 2), and each place of the
# kernel gets the sum over all stamps (here the sum of the input, 10). In the network there are 64 channels in and 64
# out, so each stamp is a sum over 64 kernels, and four neighbouring outputs can say four different things about where
# an edge runs.
#
# ## From 28x28 to the image
#
# The mask lives in the box's own grid, the box anywhere in the image. Pasting stretches the one over the other,
# bilinearly, and leaves probabilities `(H, W)`. Only then comes the threshold. Here for both objects, in the boxes
# that the network itself found, with the contours at 0.3, 0.5 and 0.7.

# %%
found = model.detect_boxes(features, [proposals], batch)[0]
found = type(found)(*(part[found.scores > 0.5] for part in found))  # the sure ones
inside = model.detect_masks(features, [found], batch)[0]  # (D, 28, 28), of each one's own class
pasted = paste_masks(inside, found.boxes, image.shape[:2])  # (D, 128, 128)
print("masks", inside.shape, "pasted", pasted.shape)

# %%
figure = Figure(figsize=(9, 3.7), layout="constrained")
left, right = figure.subplots(1, 2, width_ratios=[3, 2])
show_image(left, image // 2 + 100)
for label, box, mask in zip(found.labels, found.boxes, pasted, strict=True):
    outline(left, box, COLOURS[label], 1.5, "--")
    pixels = np.arange(128) + 0.5
    for level, colour in ((0.3, BLUE), (0.5, "black"), (0.7, RED)):
        left.contour(pixels, pixels, mask, levels=[level], colors=[colour], linewidths=1.3)
left.set(xlim=(5, 110), ylim=(128, 60))
left.set_title("contours at 0.3 (blue), 0.5 (black), 0.7 (red)", fontsize=10)
for label, mask in zip(found.labels, pasted, strict=True):
    real = target.masks[list(target.labels).index(label)]
    levels = np.arange(0.05, 1, 0.05)
    ious = [((mask > level) & real).sum() / ((mask > level) | real).sum() for level in levels]
    right.plot(levels, ious, "o-", ms=3, color=COLOURS[label], label=NAMES[label])
right.set(ylim=(0.8, 1), xlabel="threshold", ylabel="IoU of the mask with the true one")
right.set_title("what the threshold does", fontsize=10)
right.legend(fontsize=9)
right.grid(color="0.9")
figure

# %% [markdown]
# The three contours lie close together: the head is sure except at the rim. So the threshold matters little over a
# wide range. On these two objects a little more than the usual 0.5 would do better.
#
# ## What 28x28 cannot show
#
# A box of 180 pixels has bins of more than 6 pixels. What is thinner than that can only come out as a faint
# probability. To see the loss of the grid alone, without any network, take a *true* mask of a thin triangle, resample
# it to a grid as the targets of training are, paste it back, and cut at 0.5. A perfect head could do no better.

# %%
canvas = Image.new("L", (200, 200), 0)
ImageDraw.Draw(canvas).polygon([(10, 10), (190, 172), (172, 190)], fill=1)
thin = np.asarray(canvas).astype(float)  # (200, 200)
thin_box = np.array([[10.0, 10, 191, 191]])
results, titles = [], []
for side in (7, 14, 28, 56):
    grid, _ = ops.roi_align(
        thin[None, :, :, None],
        thin_box,
        np.zeros(1, np.int64),
        output_size=(side, side),
        spatial_scale=1.0,
        sampling_ratio=0,
    )
    back = paste_masks(grid[..., 0], thin_box, (200, 200))[0] > 0.5
    iou = (back & (thin > 0)).sum() / (back | (thin > 0)).sum()
    results.append(np.where(back, 1.0, 0) + np.where(thin > 0, 2.0, 0))
    titles.append(f"{side}x{side}: IoU {iou:.2f}")

# %%
colours = np.array([[1, 1, 1], [0.84, 0.37, 0], [0.34, 0.71, 0.91], [0.15, 0.15, 0.15]])
figure = show_arrays([colours[r.astype(int)] for r in results], titles)
figure.supxlabel("black: kept, blue: lost, orange: added", fontsize=10)
figure

# %% [markdown]
# The tip goes first: where the triangle is thinner than half a bin, no bin is more than half full. With 28x28 most of
# the shape survives. That is why the box head's 7x7 would not do, and why the transposed convolution is there. The
# paper's choice of 28 suits objects that fill their box; for large or spindly ones later work refines the rim.
#
# ## What you have learned
#
# * Softmax turns logits into probabilities; only differences count, and background must be a class of its own.
# * The gradient of cross-entropy is $p - y$; that of the mask's binary cross-entropy is $m - t$.
# * The box head moves each proposal once more, with one move per class; weights (10, 10, 5, 5) bring the targets to a
#   spread near 1, and smooth L1 keeps far boxes from dominating.
# * The mask head draws one mask per class, each with its own sigmoid; the box head's class chooses which is used, so
#   masks do not compete.
# * Masks are 28x28 in the box's own grid; pasting stretches them, and what is thinner than half a bin is lost.
#
# ## Exercises
#
# 1. Write the cross-entropy and its backward yourself: `make exercise NAME=cross_entropy`. Mind large logits, and the
#    mean.
# 2. Predict, then try: `ops.softmax(z)` for $z = (0, 0, 0, 0)$, and the cross-entropy of it. What loss does a fresh
#    network with 3 shapes start from?
# 3. Take the *triangle's* box (`masks[0]`) in place of the circle's and draw its four masks, then the softmax over
#    them. Who competes with whom now?
# 4. Make the thin triangle thinner or thicker. From which width at the base on does 28x28 keep an IoU of 0.9?
#
# ## Links
#
# * Source: [`roi/box_head.py`](../src/mrcnn_scratch/roi/box_head.py),
#   [`roi/mask_head.py`](../src/mrcnn_scratch/roi/mask_head.py), [`roi/loss.py`](../src/mrcnn_scratch/roi/loss.py),
#   [`roi/postprocess.py`](../src/mrcnn_scratch/roi/postprocess.py),
#   [`ops/losses.py`](../src/mrcnn_scratch/ops/losses.py)
# * Tests: [`tests/roi/test_box_head.py`](../tests/roi/test_box_head.py),
#   [`tests/roi/test_mask_head.py`](../tests/roi/test_mask_head.py),
#   [`tests/roi/test_postprocess.py`](../tests/roi/test_postprocess.py),
#   [`tests/ops/test_losses.py`](../tests/ops/test_losses.py)
# * Papers: Mask R-CNN, section 3 and figure 4 ([arXiv:1703.06870](https://arxiv.org/abs/1703.06870)); Fast R-CNN,
#   section 2.3 ([arXiv:1504.08083](https://arxiv.org/abs/1504.08083))
# * Next: [08 Targets and losses](08_targets_and_losses.ipynb)
