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
# # 03 Backbone and feature pyramid
#
# **What you will see**: how an image becomes five feature maps; why a deep network needs shortcuts; how much of the image one place of a map can see; how the pyramid adds coarse maps to fine ones; and where gradients meet and add up on the way back.
#
# **In**: images `(N, H, W, 3)`, normalised, here 128 x 128 pixels. **Out**: five maps P2 to P6, `(N, H/4, W/4, 64)` to `(N, H/64, W/64, 64)`.
#
# **Time**: 20 minutes to read, a few seconds to run.
#
# **Before this**: [02 Convolution](02_convolution.ipynb).

# %%
# %matplotlib inline
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mrcnn_scratch import ops, visualize, weights
from mrcnn_scratch.backbone import FPN
from mrcnn_scratch.backbone.resnet import ResidualBlock
from mrcnn_scratch.config import BackboneConfig, StageConfig
from mrcnn_scratch.data.shapes import Shape, ShapesConfig, ShapesDataset, paint
from mrcnn_scratch.mask_rcnn import MaskRCNN
from mrcnn_scratch.nn import BatchNorm2d, Conv2d, ReLU, Sequential
from mrcnn_scratch.rpn import rpn_losses, rpn_targets
from mrcnn_scratch.rpn.head import split_levels
from mrcnn_scratch.visualize import PALETTE

model = weights.load_shapes()
image, target = ShapesDataset(seed=0, length=40)[37]
batch = model.batch([image])
print("pixels", batch.pixels.shape, batch.pixels.dtype)

# %% [markdown]
# ## 1. A residual block, and why it has a shortcut
#
# A pixel says almost nothing about the object it belongs to. The **backbone** is a stack of convolutions that turns pixels into features: numbers that say "edge", "corner", "inside of a circle". Useful features need many layers. The trouble is training them.
#
# Take the smallest deep network: $n$ layers, one number each, $x_{i+1} = w\,x_i$. The chain rule multiplies the derivatives of all layers:
#
# $$\frac{\partial x_n}{\partial x_0} = \underbrace{w \cdot w \cdots w}_{n} = w^n .$$
#
# With $w = 0.5$ and $n = 24$ that is $6 \cdot 10^{-8}$: the first layer is told nothing. A **residual** layer adds its input to what it computes, $x_{i+1} = x_i + w\,x_i$. Now
#
# $$\frac{\partial x_n}{\partial x_0} = (1 + w)^n = 1 + n\,w + \binom{n}{2} w^2 + \dots + w^n .$$
#
# Each term is a route through the network: at every layer the signal goes either through the layer or around it. However small $w$ is, the route around everything has derivative 1 (He et al. 2016, section 3.1).
#
# The package's block: `x (N, H, W, C)` goes through two 3x3 convolutions, each with its normalisation, and is added to itself: `y = relu(branch(x) + x)`. Where stride or channels change, the shortcut is a 1x1 convolution. Below are 24 blocks with 8 channels. The *plain* stack is the same blocks with the shortcut cut. We send a random gradient in at the top and measure its size after every block. Normalisation is switched off for now (mean 0, variance 1, constant), so that only the weights act.


# %%
def make_blocks(norm, scale, depth=24, channels=8):
    """Residual blocks with He's initial weights times scale."""
    rng = np.random.default_rng(0)
    config, stage = BackboneConfig(norm=norm), StageConfig(1, channels, channels)
    blocks = [ResidualBlock(channels, stage, 1, config, rng) for _ in range(depth)]
    for block in blocks:
        for name, parameter in block.named_parameters():
            if name.endswith("conv.weight"):
                parameter.value = parameter.value * np.float32(scale)
    return blocks


def gradient_sizes(layers):
    """Root mean square of the gradient that arrives before each layer, and after the last."""
    rng = np.random.default_rng(1)
    x, backwards = rng.standard_normal((2, 24, 24, 8)).astype(np.float32), []
    for layer in layers:
        layer.set_training(True)
        x, backward = layer(x)
        backwards.append(backward)
    gradients = [rng.standard_normal(x.shape).astype(np.float32)]
    for backward in reversed(backwards):
        gradients.append(backward(gradients[-1]))
    return [float(np.sqrt((g**2).mean())) for g in reversed(gradients)]


def without_shortcut(blocks):
    return [Sequential([block.branch, ReLU()]) for block in blocks]


sizes = {}
for norm, scale in [("frozen", 0.5), ("frozen", 1.4), ("batch", 0.5), ("batch", 1.4)]:
    blocks = make_blocks(norm, scale)
    sizes[norm, scale] = gradient_sizes(blocks), gradient_sizes(without_shortcut(blocks))
    with_shortcut, plain = (s[0] / s[-1] for s in sizes[norm, scale])
    label = "no norm  " if norm == "frozen" else "BatchNorm"
    print(
        f"{label} weights x {scale}: at the first block the gradient is {with_shortcut:8.1e} times",
        end=" ",
    )
    print(f"the incoming one, plain {plain:8.1e}")

# %%
figure = Figure(figsize=(9, 3.3), layout="constrained")
panels = [("frozen", 0.5, "no norm, weights x 0.5"), ("frozen", 1.4, "no norm, weights x 1.4")]
panels.append(("batch", 0.5, "BatchNorm, weights x 0.5"))
for ax, (norm, scale, title) in zip(figure.subplots(1, 3), panels, strict=True):
    for values, name, style in zip(
        sizes[norm, scale], ("with shortcut", "plain"), ("-", "--"), strict=True
    ):
        ax.semilogy(values, style, color=PALETTE[5 if style == "-" else 3], label=name)
    ax.set_title(title, fontsize=10)
    ax.set_xlabel("block (0: next to the image)")
    ax.grid(alpha=0.3)
    ax.legend(fontsize=9)
figure.axes[0].set_ylabel("size of the gradient")
figure

# %% [markdown]
# Read each curve from right to left: the gradient enters at block 24 and travels to block 0. Left: with small weights the plain stack loses it completely; with shortcuts it arrives whole. Middle: with large weights both explode; a shortcut does not cure that. Right: normalisation does, nearly. It divides by the spread of what the convolution makes, so the scale of the weights hardly matters any more: the two `BatchNorm` lines above are almost the same. With it *and* the shortcut, the gradient changes little whatever the scale of the weights. That pair is what every ResNet is made of.
#
# ## 2. BatchNorm and its running statistics
#
# For each channel, over all $m = N H W$ places of the batch (Ioffe & Szegedy 2015), with learned scale $\gamma$ and shift $\beta$:
#
# $$\mu = \frac1m \sum_i x_i, \qquad \sigma^2 = \frac1m \sum_i (x_i - \mu)^2, \qquad y_i = \gamma\,\frac{x_i - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta .$$
#
# While training, $\mu$ and $\sigma^2$ are the batch's. In use, one image must not depend on its neighbours in the batch, so the layer keeps **running** averages, each step 0.9 of the old plus 0.1 of the new, and uses those. Input `(N, H, W, 1)`, with mean 3 and standard deviation 2.

# %%
norm = BatchNorm2d(channels=1)
norm.set_training(True)
rng = np.random.default_rng(0)
print("batch   batch mean  out mean  out std   running mean  running std")
for step in range(1, 41):
    x = (3 + 2 * rng.standard_normal((8, 4, 4, 1))).astype(np.float32)
    y, _ = norm(x)
    if step in (1, 2, 3, 10, 40):
        running = norm.mean.value[0], np.sqrt(norm.var.value[0])
        print(
            f"{step:5}{x.mean():12.2f}{y.mean():10.2f}{y.std():9.2f}{running[0]:14.2f}{running[1]:13.2f}"
        )
norm.set_training(False)
y, _ = norm(x)
print(f"\nin inference, with the running ones: out mean {y.mean():.2f}, out std {y.std():.2f}")

# %% [markdown]
# In training the output has mean 0 and standard deviation 1 from the first batch on. The running statistics start at 0 and 1 and need some tens of batches to arrive at 3 and 2. Use a network too early, and inference normalises with the wrong numbers. And statistics of one or two images a batch are noise, which is why detectors that start from a trained backbone keep the old ones as constants (He et al. 2016, appendix A; here `FrozenBatchNorm2d`).
#
# ## 3. Four stages
#
# The ResNet starts with a stem, a 3x3 convolution of stride 2, and goes on with four stages of residual blocks. The first block of each stage has stride 2. So a place of the maps C2, C3, C4, C5 stands for 4, 8, 16, 32 pixels of the image: the map C$l$ has **stride** $2^l$. Each stage halves both sides and doubles the channels.

# %%
bottom_up, _ = model.resnet(batch.pixels)
print("      shape                stride  numbers")
for level, feature in enumerate(bottom_up, start=2):
    print(f"C{level}  {feature.shape!s:20}  {128 // feature.shape[1]:5}{feature.size:9,}")
visualize.show_feature_maps(
    image, [feature[0] for feature in bottom_up], ["C2", "C3", "C4", "C5"], channels=3
)

# %% [markdown]
# C2 still looks like the picture: edges and colours, where they are to 4 pixels. C5 has 16 places for the whole picture, but a place of it knows a great deal: see next.
#
# ## 4. How much of the image does one place see?
#
# The **receptive field** of a place is the part of the image that can change it. Its side $r$ follows layer by layer. Let $j$ be the distance in pixels between neighbouring places (1 for the image). A $k \times k$ convolution of stride $s$ reads $k$ places that lie $j$ apart, which adds $(k-1)\,j$ pixels:
#
# $$r \leftarrow r + (k - 1)\,j, \qquad j \leftarrow s\,j .$$

# %%
layers = [("stem", 3, 2)]
for level in range(2, 6):
    layers += [(f"C{level}, first convolution", 3, 2), (f"C{level}, second convolution", 3, 1)]
r, j, theory = 1, 1, []
print("layer                     k  s    r    j")
for name, k, s in layers:
    r, j = r + (k - 1) * j, s * j
    print(f"{name:24}{k:3}{s:3}{r:5}{j:5}")
    if "second" in name:
        theory.append(r)

# %% [markdown]
# Now measure it. The gradient of one output place with respect to the image, `(N, H, W, 3)`, is not zero exactly at those pixels that can change the place. We set the upstream gradient to 1 at one place (all its channels) and 0 elsewhere, run the backward through the whole backbone and add up absolute values over scenes and colours.
#
# Two details. The field of C5 is larger than our scenes, so we use scenes of 384 pixels. And training mode would spoil the measurement: with the *batch's* statistics every pixel moves the mean, and so every output. We therefore load the same weights into a network whose statistics are constants.

# %%
frozen = MaskRCNN(replace(model.config, backbone=replace(model.config.backbone, norm="frozen")))
frozen.load_state(model.state())
frozen.set_training(True)  # keep the backwards
frozen.resnet.stem.conv.input_gradient = (
    True  # nobody learns the image, so by default this one is not computed
)

large = ShapesDataset(0, 4, ShapesConfig(size=384, min_objects=25, max_objects=25))
mean, std = (
    np.array(v, np.float32) for v in (model.config.transform.mean, model.config.transform.std)
)
pixels = np.stack(
    [(large[i][0] / np.float32(255) - mean) / std for i in range(4)]
)  # (4, 384, 384, 3)


def sensitivity(forward, level):
    """Absolute gradient (384, 384) of one place of map `level` with respect to the image."""
    maps, backward = forward(pixels)
    gradients = [np.zeros_like(m) for m in maps]
    place = maps[level].shape[1] // 2  # this place is centred on pixel 192 on every level
    gradients[level][:, place, place] = 1
    return np.abs(backward(gradients)).sum(axis=(0, 3))


fields = [sensitivity(frozen.resnet, level) for level in range(4)]
for level, (field, side) in enumerate(zip(fields, theory, strict=True), start=2):
    rows = np.flatnonzero(field.any(axis=1))
    inner = np.cumsum(np.sort(field.reshape(-1))[::-1])  # how few pixels hold 90% of it
    most = np.searchsorted(inner, 0.9 * inner[-1]) ** 0.5
    print(
        f"C{level}: rows {rows[0]} to {rows[-1]}: {len(rows):3} pixels measured, {side:3} computed;",
        end="  ",
    )
    print(f"90% of the gradient lies in as many pixels as a square of side {most:.0f} has")


# %%
def draw_fields(fields, names, window=None):
    """Heat maps, each zoomed in on its own field, or all on `window` = (first pixel, last pixel)."""
    figure = Figure(figsize=(9, 2.5), layout="constrained")
    for ax, field, name in zip(figure.subplots(1, len(fields)), fields, names, strict=True):
        ax.imshow(
            (field / field.max()) ** 0.5, cmap="cividis", vmin=0, vmax=1, extent=(0, 384, 384, 0)
        )
        rows, columns = (np.flatnonzero(field.any(axis=axis)) for axis in (1, 0))
        low, high = (
            (rows[0] - len(rows) * 0.15, rows[-1] + len(rows) * 0.15) if window is None else window
        )
        ax.set(xlim=(low, high), ylim=(high, low), title=f"{name}: {len(rows)} x {len(columns)}")
        ax.set(xticks=[rows[0], 192, rows[-1] + 1], yticks=[rows[0], 192, rows[-1] + 1])
        ax.tick_params(labelsize=8)
    figure.colorbar(
        figure.axes[0].images[0],
        ax=figure.axes,
        label="root of |gradient|",
        aspect=12,
        ticks=[0, 1],
    )
    return figure


figure = draw_fields(fields, ["C2", "C3", "C4", "C5"])
for ax, side in zip(figure.axes, theory, strict=False):
    ax.add_patch(
        Rectangle(
            (192.5 - side / 2, 192.5 - side / 2),
            side,
            side,
            fill=False,
            color="white",
            linewidth=1.5,
        )
    )
figure

# %% [markdown]
# Each panel is zoomed in on its own field; the ticks are pixels. The white squares are computed, the colours measured: they agree to the pixel. (We colour the square root, or else the outer parts would be black.) Inside its square the gradient is far from even. It is largest in the middle and fades outwards, because many routes lead through the middle and few to a corner. What a place *in fact* looks at is smaller than what it *could* see.
#
# To get a feeling for the sizes, the same four squares on a scene of 128 pixels:

# %%
figure = Figure(figsize=(4.6, 4), layout="constrained")
ax = figure.subplots()
visualize.draw_objects(ax, image, target.boxes[:0], target.labels[:0])
for level, (side, colour) in enumerate(zip(theory, ("white", *PALETTE[:3]), strict=True), start=2):
    corner = 64.5 - side / 2
    ax.add_patch(
        Rectangle((corner, corner), side, side, fill=False, edgecolor="black", linewidth=4)
    )
    ax.add_patch(
        Rectangle(
            (corner, corner),
            side,
            side,
            fill=False,
            edgecolor=colour,
            linewidth=2,
            label=f"C{level}",
        )
    )
ax.set(xlim=(-32, 160), ylim=(160, -32), facecolor="0.8")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9, facecolor="0.8")
figure

# %% [markdown]
# C4 sees about one whole shape, C5 more than the picture. Beyond the picture's edge there are only zeros.
#
# And what does training mode do? The share of the image's pixels with a gradient from one place of C2:

# %%
learning = MaskRCNN(model.config)
learning.load_state(model.state())
learning.set_training(True)
learning.resnet.stem.conv.input_gradient = True
for name, network in [("constant statistics", frozen), ("the batch's statistics", learning)]:
    print(f"{name:24}{(sensitivity(network.resnet, 0) > 0).mean():8.2%}")

# %% [markdown]
# ## 5. The pyramid
#
# There is a conflict. C2 knows *where* (stride 4) but hardly *what*: its places see 15 pixels, and a shape is three times that. C5 knows *what*, but only to 32 pixels. The feature pyramid (Lin et al. 2017, section 3) gives each level both. With $\mathrm{lateral}_l$ a 1x1 convolution that brings every level to the same number of channels, from the top down:
#
# $$M_5 = \mathrm{lateral}_5(C_5), \qquad M_l = \mathrm{lateral}_l(C_l) + \mathrm{upsample}(M_{l+1}), \qquad P_l = \mathrm{conv3{\times}3}_l(M_l), \qquad P_6 = P_5[\,{::}2, {::}2\,].$$
#
# First on numbers: two levels with one channel, the laterals multiply by 1, and the 3x3 convolutions pass their centre through. C2 is `(1, 4, 4, 1)`, C3 is `(1, 2, 2, 1)`.

# %%
tiny = FPN([1, 1], 1, np.random.default_rng(0)).astype(np.float64)
for lateral, output in zip(tiny.lateral, tiny.output, strict=True):
    lateral.weight.value[:] = 1
    output.weight.value[:] = 0
    output.weight.value[1, 1] = 1
tiny.set_training(True)
c2 = np.arange(16.0).reshape(1, 4, 4, 1)
c3 = np.array([[100.0, 200], [300, 400]]).reshape(1, 2, 2, 1)
(p2, p3, extra), backward = tiny([c2, c3])
above, _ = ops.upsample_nearest(c3, (4, 4))
titles = ["lateral of C2", "+ upsampled M3", "= P2", "P3", "extra level: P3[::2, ::2]"]
figure = visualize.show_arrays(
    [a[0, :, :, 0] for a in (c2, above, p2, p3, extra)], titles, columns=5, width=9
)
figure

# %% [markdown]
# Nearest upsampling only repeats: each coarse number is written to four places. The sum keeps the detail of the fine map and adds what the coarse one knows. No places are invented, and the extra level is every second place of the last one, no arithmetic at all.
#
# Now a real scene, M4 `(1, 8, 8, 64)`, which is made of C4 and M5. We draw the channel that varies most.

# %%
top, _ = model.fpn.lateral[3](bottom_up[3])  # M5 (1, 4, 4, 64)
m4_lateral, _ = model.fpn.lateral[2](bottom_up[2])  # (1, 8, 8, 64)
m4_above, _ = ops.upsample_nearest(top, (8, 8))
m4 = m4_lateral + m4_above
channel = m4[0].std(axis=(0, 1)).argmax()
parts = [a[0, :, :, channel] for a in (m4_lateral, m4_above, m4)]
titles = ["lateral of C4", "+ upsampled M5", f"= M4, channel {channel}"]
visualize.show_arrays(parts, titles, columns=3, width=9, same_scale=True, digits=1)

# %% [markdown]
# The middle picture has blocks of 2 x 2 equal numbers, from the 4 x 4 places of M5; the left one has none. The 3x3 convolution on top smooths the seams of the blocks. One line says that this is what the package does:

# %%
p4, _ = model.fpn.output[2](m4)
pyramid, _ = model.features(batch.pixels)
print("P4 by hand equals the package's:", np.allclose(p4, pyramid[2], atol=1e-5))
print("P6 is every second place of P5: ", np.array_equal(pyramid[4], pyramid[3][:, ::2, ::2]))
for level, feature in enumerate(pyramid, start=2):
    print(f"P{level} {feature.shape}")

# %% [markdown]
# What did the top-down path do to the receptive fields? One place of P2 reads, by its 3x3 convolution, 3 x 3 places of M2. At the border of a cell of M5 those lie in two cells, which are 32 pixels apart. So there the side is C5's 183 plus 32, and the same holds for P3 and P4. P5 reads three places of M5: 183 plus 64.

# %%
pyramid_fields = [sensitivity(frozen.features, level) for level in range(4)]
extents = [int(field.any(axis=1).sum()) for field in pyramid_fields]
print("computed:", [theory[3] + 32] * 3 + [theory[3] + 64], " measured:", extents)
draw_fields(pyramid_fields, ["P2", "P3", "P4", "P5"], window=(59, 325))

# %% [markdown]
# All panels now have one scale. Every level sees all that C5 sees (what), and the finer the level, the smaller the bright spot in the middle (where). The fields of P2 to P4 lie a little to the upper left: the place at pixel 192 is the first in its cell of M5, so its left neighbour belongs to the cell before.
#
# ## 6. What each level responds to
#
# The RPN head turns every place of every level into **objectness**, the probability that one of its anchors holds an object (notebook 05). Here is a scene with small and large shapes, painted by hand, and per level the highest objectness of each place, a map `(H_l, W_l)`.

# %%
grey, red, blue, green = (90, 90, 90), (215, 70, 40), (60, 110, 220), (60, 190, 110)
shapes = [Shape(1, 88, 42, 30, red), Shape(2, 24, 26, 12, blue), Shape(3, 22, 68, 10, green)]
shapes += [Shape(2, 28, 104, 5, red), Shape(1, 72, 104, 10, blue), Shape(2, 108, 104, 7, green)]
mixed, mixed_target = paint(128, grey, shapes)
features, _ = model.features(model.batch([mixed]).pixels)
(objectness, _), _ = model.rpn(features)
figure = Figure(figsize=(9, 6.2), layout="constrained")
axes = figure.subplots(2, 3).reshape(-1)
axes[0].imshow(mixed, extent=(0, 128, 128, 0))
axes[0].set_title("scene", fontsize=10)
for level, (ax, feature, logits) in enumerate(
    zip(axes[1:], features, objectness, strict=True), start=2
):
    score = 1 / (1 + np.exp(-logits.reshape(*feature.shape[1:3], 3).max(axis=-1)))
    half = 64 / len(score)  # a place is centred on its cell's top left corner
    ax.imshow(score, cmap="cividis", vmin=0, vmax=1, extent=(-half, 128 - half, 128 - half, -half))
    for x1, y1, x2, y2 in mixed_target.boxes:
        for colour, linewidth in (("black", 3), ("white", 1.2)):
            ax.add_patch(
                Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=colour, linewidth=linewidth)
            )
    ax.set_title(f"P{level}, anchors of {2 ** (level + 1)} pixels", fontsize=10)
for ax in axes:
    ax.set(xlim=(0, 128), ylim=(128, 0), xticks=[], yticks=[], facecolor="0.85")
figure.colorbar(axes[1].images[0], ax=axes, label="highest objectness", aspect=30)
figure

# %% [markdown]
# The white frames are the shapes' boxes; on light grey no place is centred. P4 answers around the small shapes and is silent on the large one. P5 answers at the large one, and around most others as well: one of its places stands for 32 pixels, and of sizes that it never met in training it is no good judge. The other levels stay dark.
#
# A cleaner question: for a single square of growing side, how high does each level's highest objectness get?

# %%
sides = np.arange(5, 110, 4)
squares = [paint(128, grey, [Shape(1, 64, 64, int(side) // 2, red)])[0] for side in sides]
features, _ = model.features(model.batch(squares).pixels)
(objectness, _), _ = model.rpn(features)
figure = Figure(figsize=(9, 3.2), layout="constrained")
ax = figure.subplots()
styles = [("-", 0), ("--", 4), ("-", 5), ("-.", 3), (":", 2)]
for level, (logits, (style, colour)) in enumerate(zip(objectness, styles, strict=True), start=2):
    highest = 1 / (1 + np.exp(-logits.max(axis=1)))
    ax.plot(
        sides,
        highest,
        style,
        color=PALETTE[colour],
        linewidth=2,
        label=f"P{level} ({2 ** (level + 1)})",
    )
ax.axvspan(41, 65, color="0.9", zorder=0, label="in training")
ax.set(xlabel="side of the square, pixels", ylabel="highest objectness", ylim=(-0.03, 1.05))
ax.legend(title="level (anchor size)", fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
figure

# %% [markdown]
# Small squares light up P4, large ones P5, and between them both do. P2, P3 and P6 stay almost silent. Not because they could not see: the scenes that this network was trained on hold no shape that their anchors fit, so they were taught almost nothing but to say no. Notebook [04](04_anchors.ipynb) counts that. The squares of the training scenes have sides in the grey band; outside of it you see a network guess.
#
# ## 7. Gradients that arrive at a shared map add
#
# M3 of the tiny pyramid has three readers: P3, the upsampling into M2, and through P3 the extra level. When a number $x$ is read by $u = f(x)$ and by $v = g(x)$, the loss changes through both:
#
# $$\frac{\partial L}{\partial x} = \frac{\partial L}{\partial u}\,\frac{\partial u}{\partial x} + \frac{\partial L}{\partial v}\,\frac{\partial v}{\partial x} .$$
#
# So on the way back **a fork becomes a sum**, and repeating a value, as upsampling does, is a fork too. Take $L$ = the sum of all outputs, so that every upstream gradient is 1. Predict the gradient of C3 before you read the picture.

# %%
dc2, dc3 = backward([np.ones_like(a) for a in (p2, p3, extra)])


def total(c3):
    return sum(level.sum() for level in tiny([c2, c3])[0])


numeric = np.zeros_like(c3)
for place in np.ndindex(c3.shape):
    step = np.zeros_like(c3)
    step[place] = 1e-3
    numeric[place] = (total(c3 + step) - total(c3 - step)) / 2e-3
titles = ["gradient of C2", "gradient of C3", "the same by nudging C3"]
visualize.show_arrays(
    [a[0, :, :, 0] for a in (dc2, dc3, numeric)], titles, columns=3, width=6.5, same_scale=True
)

# %% [markdown]
# Each number of C3 gets 1 from P3 and 1 from each of its four copies in P2. The top left one gets one more, from the extra level, which reads only that place. Nudging C3 and watching $L$ says the same.
#
# In the real network every C$l$ is read twice: by its lateral, and by the next stage of the ResNet. We take the RPN's loss on our scene, and follow its gradient to C4, `(1, 8, 8, 64)`. The next notebooks explain the loss; here it only supplies a gradient.

# %%
stem, _ = frozen.resnet.stem(batch.pixels)
maps, stage_backwards = [stem], []
for stage in frozen.resnet.stages:
    y, stage_backward = stage(maps[-1])
    maps.append(y)
    stage_backwards.append(stage_backward)
features, backward_fpn = frozen.fpn(maps[1:])
_, _, backward_rpn = frozen.rpn_branch(features, [target], batch, np.random.default_rng(0))
dc = backward_fpn(backward_rpn({}))  # of C2..C5, through the laterals
through_lateral, through_stage = dc[2], stage_backwards[3](dc[3])
both = through_lateral + through_stage
spread = [d[0].std(axis=(0, 1)) for d in (through_lateral, through_stage)]
channel = np.minimum(*spread).argmax()  # one where both have something to say
parts = [10_000 * a[0, :, :, channel] for a in (through_lateral, through_stage, both)]
titles = [
    "through the lateral",
    "+ through stage C5",
    f"= gradient of C4, channel {channel} (times 10,000)",
]
visualize.show_arrays(parts, titles, columns=3, width=9, same_scale=True, digits=1)

# %% [markdown]
# Two messages for the same features, which may well disagree in sign. In the source this is one line of `ResNet`'s backward: `dx = dx + dfeatures[i - 1]`. To forget it raises no error. The network still learns, only worse: one of the two readers never has a say.
#
# ## 8. The same weights on five levels
#
# The other kind of sharing: the RPN head has one set of weights and is applied to P2 to P6. In this package a layer's call returns its output *and* a closure for its own backward. Five calls are five closures, and each remembers its own input. For a 1x1 convolution with one channel, $y_l = w\,x_l$ and $\partial L / \partial w = \sum_l x_l\,\partial L / \partial y_l$. With $x = 1, 2, 3, 4, 5$ and every $\partial L / \partial y_l = 1$ that is 15.
#
# Many textbook layers store their input on `self` instead. Here is one, to see what happens.


# %%
class CachingConv:
    """A convolution as often written: forward leaves its input on self for backward. Do not do this."""

    def __init__(self, weight):
        self.weight, self.grad = weight, np.zeros_like(weight)

    def forward(self, x):
        self.x = x  # the next call overwrites it
        return ops.conv2d(x, self.weight, padding=self.weight.shape[0] // 2)[0]

    def backward(self, dy):
        _, backward = ops.conv2d(self.x, self.weight, padding=self.weight.shape[0] // 2)
        dx, dweight = backward(dy)
        self.grad += dweight
        return dx


def both_gradients(weight, inputs, dys):
    """The weight gradient of one layer called on all inputs: by closures, and by a cache on self."""
    closures, caching = (
        Conv2d(*weight.shape[2:], len(weight), np.random.default_rng(0), bias=False),
        CachingConv(weight),
    )
    closures.weight.value = weight
    closures.set_training(True)
    backwards = [closures(x)[1] for x in inputs]
    for x in inputs:
        caching.forward(x)
    for backward, dy in zip(backwards, dys, strict=True):
        backward(dy)
        caching.backward(dy)
    return closures.weight.grad, caching.grad


one = np.ones((1, 1, 1, 1))
right, wrong = both_gradients(one, [value * one for value in (1, 2, 3, 4, 5)], [one] * 5)
print(f"x = 1, 2, 3, 4, 5: closures {right.item():.0f}, cache on self {wrong.item():.0f}")

rng = np.random.default_rng(0)
inputs = [rng.standard_normal((1, 8, 8, 4)) for _ in range(5)]
dys = [rng.standard_normal((1, 8, 8, 6)) for _ in range(5)]
right, wrong = both_gradients(rng.standard_normal((3, 3, 4, 6)), inputs, dys)
cosine = (right * wrong).sum() / np.linalg.norm(right) / np.linalg.norm(wrong)
print(
    f"five random maps: error {np.linalg.norm(wrong - right) / np.linalg.norm(right):.2f} of the true size, ",
    end="",
)
print(f"cosine of the angle between them {cosine:.2f}")

# %% [markdown]
# The cached layer multiplies every upstream gradient by the *last* input: $5 + 5 + 5 + 5 + 5 = 25$. On random maps the error is larger than the gradient itself, and the direction nearly unrelated. Nothing raises. With maps of different sizes there would at least be an error about shapes.
#
# Last, the real head and the real loss. We let each level's gradient through alone, with zeros for the others, and look at what arrives at the weight of the head's 3x3 convolution, `(3, 3, 64, 64)`. Then all five at once.

# %%
(objectness, deltas), _ = frozen.rpn(features)
anchors = frozen.anchors(features, batch.pixels)
sample = rpn_targets(np.concatenate(anchors), [target], frozen.config.rpn, np.random.default_rng(0))
_, backward_loss = rpn_losses(
    *(np.concatenate(a, axis=1) for a in (objectness, deltas)), sample, frozen.config.rpn
)
counts = [len(a) for a in anchors]
dobjectness, ddeltas = (split_levels(d, counts) for d in backward_loss(1.0, 1.0))


def head_gradient(levels):
    """Gradient of the head's 3x3 weight when only `levels` send one back."""
    weight = frozen.rpn_head.conv.weight
    weight.grad = None
    _, backward = frozen.rpn(features)
    backward(
        *([d if i in levels else 0 * d for i, d in enumerate(ds)] for ds in (dobjectness, ddeltas))
    )
    return weight.grad


alone = [head_gradient([level]) for level in range(5)]
together = head_gradient(range(5))
for level, gradient in enumerate(alone):
    print(f"P{level + 2} alone: length of the gradient {np.linalg.norm(gradient):.4f}")
print(f"all five: length {np.linalg.norm(together):.4f}")
print("sum of the five = all five:", np.allclose(sum(alone), together, atol=1e-6))

# %% [markdown]
# The lengths do not add up, because the five gradients point in different directions; the arrays do. P4 and P5 weigh most: the anchors of this scene's objects lie there (notebook 04). What they all teach is one detector, so what is learned about a shape on P4 also serves on P5.
#
# ## What you have learned
#
# * A shortcut gives the gradient a route with derivative 1; normalisation keeps the scale of the weights out of it. A deep network wants both.
# * A receptive field grows by $(k-1)\,j$ per convolution. It can be measured as the support of a gradient, and its middle counts most.
# * The pyramid adds upsampled coarse maps to 1x1 laterals of fine ones, so every level knows both where and what. P6 is every second place of P5.
# * A map with two readers gets the sum of two gradients. Weights used five times get the sum of five.
# * A backward must remember the input of *its own* call. Closures do. One slot on `self` does not.
#
# ## Exercises
#
# 1. Predict, then change `depth=24` to 6 and to 48 in `make_blocks`: how do the ends of the three plots move?
# 2. Give every stage two blocks instead of one. What are the four receptive fields? Change the list `layers`. Then build `ResNet(BackboneConfig(stages=..., norm="frozen"), rng)` (from `mrcnn_scratch.backbone`) with random weights, switch on `set_training(True)` and `stem.conv.input_gradient`, and measure with `sensitivity`. Why does one level measure less than you computed?
# 3. In the tiny pyramid, replace the upstream gradient of P2 by the numbers 0 to 15. Work out the gradient of C3 on paper, then check.
# 4. The convolution under all of this: `make exercise NAME=conv2d` asks you to write it with its backward.
#
# ## Links
#
# * Source: [`backbone/resnet.py`](../src/mrcnn_scratch/backbone/resnet.py), [`backbone/fpn.py`](../src/mrcnn_scratch/backbone/fpn.py), [`ops/normalization.py`](../src/mrcnn_scratch/ops/normalization.py), [`ops/resample.py`](../src/mrcnn_scratch/ops/resample.py), [`nn/parameter.py`](../src/mrcnn_scratch/nn/parameter.py)
# * Tests: [`test_resnet.py`](../tests/backbone/test_resnet.py), [`test_fpn.py`](../tests/backbone/test_fpn.py), [`test_normalization.py`](../tests/ops/test_normalization.py), [`test_resample.py`](../tests/ops/test_resample.py)
# * Papers: He et al. 2016, sections 3.1 to 3.3 ([arXiv:1512.03385](https://arxiv.org/abs/1512.03385)); Ioffe & Szegedy 2015, section 3 ([arXiv:1502.03167](https://arxiv.org/abs/1502.03167)); Lin et al. 2017, sections 3 and 4.1 ([arXiv:1612.03144](https://arxiv.org/abs/1612.03144))
# * Next: [04 Anchors](04_anchors.ipynb)
