# %% [markdown]
# # 02 Convolution
#
# **What you will see**: a convolution done one window at a time on paper-sized numbers, as one matrix product, and
# backward: where each gradient goes, why the kernel turns by 180 degrees on the way, and how to be sure that it is
# right.
#
# **In**: a map `x (N, H, W, C)`, a weight `(KH, KW, C, F)`, a bias `(F,)`.
#
# **Out**: a map `y (N, OH, OW, F)`, and `backward(dy)` that returns `dx`, `dweight`, `dbias`, each shaped like its
# input.
#
# **Time**: 20 minutes of reading, some 10 seconds to run.
#
# **Before this**: [01 Instance segmentation](01_instance_segmentation.ipynb)

# %%
# %matplotlib inline
import math
import time

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mrcnn_scratch import ops
from mrcnn_scratch.data.shapes import HELD_OUT, ShapesDataset
from mrcnn_scratch.nn import Conv2d
from mrcnn_scratch.visualize import PALETTE, draw_array, show_arrays
from mrcnn_scratch.weights import load_shapes

# %% [markdown]
# ## Why convolution
#
# A network that finds shapes must first find edges and corners, and an edge looks the same wherever it is. A fully
# connected layer does not know this. It has one weight for each pair of an input and an output number, and would have
# to learn the same edge again for every place. A convolution uses *one* small set of weights, the kernel, at every
# place. For the first layer on an image of 128 x 128 pixels, 3 channels in, 16 out, half the resolution:

# %%
inputs, outputs = 128 * 128 * 3, 64 * 64 * 16
print(f"fully connected: {inputs * outputs:>13,} weights")
print(f"3x3 convolution: {3 * 3 * 3 * 16:>13,} weights")

# %% [markdown]
# ## One window at a time
#
# Take the simplest case: one image, one channel, one kernel. Input `(5, 5)`, kernel `(3, 3)`, output `(3, 3)`. Lay
# the kernel over a window of the input, multiply the numbers that lie on each other, and add up the nine products:
# one output number. Then move the window by one.

# %%
x = np.random.default_rng(3).integers(0, 6, (5, 5)).astype(float)
kernel = np.array([[1.0, 2, 0], [0, -1, 3], [-2, 0, 1]])
y = np.array([[(x[i : i + 3, j : j + 3] * kernel).sum() for j in range(3)] for i in range(3)])


def outline(ax, row, column, height=3, width=3, colour=PALETTE[3]):
    """A frame around a part of an array that :func:`draw_array` has drawn."""
    place = (column - 0.5, row - 0.5)
    ax.add_patch(
        Rectangle(place, width, height, fill=False, edgecolor=colour, linewidth=3, clip_on=False)
    )


figure = Figure(figsize=(9, 5.8), layout="constrained")
for axes, (i, j) in zip(figure.subplots(3, 5), ((0, 0), (0, 1), (2, 2)), strict=True):
    window = x[i : i + 3, j : j + 3]
    steps = {
        "input": x,
        "window": window,
        "times kernel": kernel,
        "products": window * kernel,
        "output": y,
    }
    for ax, (title, array) in zip(axes, steps.items(), strict=True):
        draw_array(ax, array, limits=(-15, 15), signed=True)
        ax.set_title(title, fontsize=10)
    axes[3].set_title(f"products, sum {y[i, j]:g}", fontsize=10)
    outline(axes[0], i, j)
    outline(axes[4], i, j, 1, 1)
figure


# %% [markdown]
# With output row $i$ and column $j$, and $a$, $b$ counting rows and columns of the kernel $W$:
#
# $$y_{ij} = \sum_{a=0}^{2} \sum_{b=0}^{2} x_{i+a,\;j+b}\; W_{ab}$$
#
# Strictly this is a *cross-correlation*: in mathematics a convolution turns the kernel by 180 degrees first. Deep
# learning leaves the turn out, because a learned kernel can as well be learned turned, and keeps the name. We do the
# same. The turn will come back in the backward pass, so keep it in mind.
#
# The formula as a program is four loops. It is slow, and there is nothing in it to misunderstand:


# %%
def conv2d_slow(x, kernel):
    """Slide ``kernel`` (KH, KW) over ``x`` (H, W): (OH, OW)."""
    (height, width), (kh, kw) = x.shape, kernel.shape
    y = np.zeros((height - kh + 1, width - kw + 1))
    for i in range(y.shape[0]):  # every output row
        for j in range(y.shape[1]):  # and column
            for a in range(kh):  # every kernel row
                for b in range(kw):  # and column
                    y[i, j] += x[i + a, j + b] * kernel[a, b]
    return y


print("by hand, and four loops:", np.array_equal(conv2d_slow(x, kernel), y))

# %% [markdown]
# The package works on `(N, H, W, C)` and `(KH, KW, C, F)`, so our map and kernel get axes of length 1. `ops.conv2d`
# returns two things, the output and its own backward; we come to the second one below.


# %%
def as_map(array):
    """(H, W) as a batch of one image with one channel: (1, H, W, 1)."""
    return array[None, :, :, None]


def as_weight(kernel):
    """(KH, KW) as a weight from one channel to one channel: (KH, KW, 1, 1)."""
    return kernel[:, :, None, None]


y_fast, backward = ops.conv2d(as_map(x), as_weight(kernel))
print("shape", y_fast.shape, "  equal:", np.allclose(y_fast[0, :, :, 0], y))

# %%
big = np.random.default_rng(0).standard_normal((256, 256))
start = time.perf_counter()
slow = conv2d_slow(big, kernel)
middle = time.perf_counter()
fast = ops.conv2d(as_map(big), as_weight(kernel))[0][0, :, :, 0]
ratio = (middle - start) / (time.perf_counter() - middle)
print(
    "equal:",
    np.allclose(slow, fast),
    f"  four loops take about 10^{round(math.log10(ratio))} times as long",
)

# %% [markdown]
# ## Channels in and out
#
# An image has three channels, later maps have 16 to 128. Each input channel has a kernel of its own, and the results
# are added. That gives *one* output channel; for $F$ of them the layer has $F$ such sets. In full, with image $n$,
# input channel $c$ of $C$, output channel $f$, bias $B$, stride $s$ and padding $p$ (both explained below):
#
# $$y_{nijf} = B_f + \sum_{a,b,c} x_{n,\;i s + a - p,\;j s + b - p,\;c}\; W_{abcf}$$
#
# Two channels in, one out, with the sum taken apart:

# %%
two = np.stack([x, x.T], axis=-1)  # (5, 5, 2)
weight = np.stack([kernel, [[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]], axis=-1)[
    ..., None
]  # (3, 3, 2, 1)
parts = [conv2d_slow(two[..., c], weight[..., c, 0]) for c in range(2)]
together = ops.conv2d(two[None], weight)[0][0, :, :, 0]
rows = [[two[..., c], weight[..., c, 0], parts[c]] for c in range(2)]
names = [[f"x, channel {c}", f"W, channel {c}", f"result {c}"] for c in range(2)]
panels = [*rows[0], together, *rows[1], parts[0] + parts[1]]
show_arrays(panels, [*names[0], "conv2d of both", *names[1], "result 0 + result 1"], signed=True)

# %% [markdown]
# Now on a real scene, `(1, 128, 128, 3)`, with four kernels written by hand: a weight `(3, 3, 3, 4)`. Each one
# averages the three colours and does its own thing with the neighbours.

# %%
image = ShapesDataset(seed=0, length=100, first=HELD_OUT)[92][0]
vertical = np.array([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])  # left minus right
kernels = {
    "blur": np.full((3, 3), 1 / 9),
    "left minus right": vertical,
    "above minus below": vertical.T,
    "centre minus around": np.array([[-1.0, -1, -1], [-1, 8, -1], [-1, -1, -1]]),
}
weight = np.stack(
    [np.stack([k / 3] * 3, axis=-1) for k in kernels.values()], axis=-1
)  # (3, 3, 3, 4)
maps, _ = ops.conv2d(image[None] / 255.0, weight, padding=1)
print("weight", weight.shape, "  output", maps.shape)
show_arrays([image, *np.moveaxis(maps[0], -1, 0)], ["the image", *kernels], columns=5)

# %% [markdown]
# The second kernel answers where the left side is brighter (orange) or darker (violet) than the right side, and is
# silent inside a shape and along horizontal edges. The third does the same for above and below. Nobody writes such
# kernels for a network: it learns them. Here are eight of the 16 that the trained network has in its first layer, and
# what they answer on this scene. A kernel `(3, 3, 3)` is drawn as a picture with three colour channels; grey is 0.
# Each map has its own scale.

# %%
model = load_shapes()
pixels = model.batch([image]).pixels
stem = model.resnet.stem.conv
answers, backward_stem = ops.conv2d(
    pixels, stem.weight.value, stride=stem.stride, padding=stem.padding
)
print(
    "x",
    pixels.shape,
    "  weight",
    stem.weight.value.shape,
    "  stride",
    stem.stride,
    "  y",
    answers.shape,
)
filters = [stem.weight.value[..., f] for f in range(8)]
coloured = [0.5 + 0.5 * f / abs(f).max() for f in filters]
show_arrays(
    [*coloured, *(answers[0, ..., f] for f in range(8))],
    [f"{n} {f}" for n in ("kernel", "map") for f in range(8)],
    columns=8,
)

# %% [markdown]
# Learned kernels are less tidy than ours. Most of these mix a question about colour (whole shapes differ) with one about
# edges (thin lines along the borders). That is enough: the layers behind combine the 16 answers.

# %% [markdown]
# ## im2col: the same as one matrix product
#
# Processors multiply large matrices very well, and loop over small windows badly. So lay each window out as one
# *row*, and the kernel as one *column*. The product of a row and a column is what a window gives, so all windows
# together are one matrix product. The rows are called patches, the trick *im2col*. Patches `(9, 9)`: 9 windows of 9
# numbers.

# %%
patches = np.lib.stride_tricks.sliding_window_view(x, (3, 3)).reshape(9, 9)
column = kernel.reshape(9, 1)
figure = Figure(figsize=(9, 3.9), layout="constrained")
axes = figure.subplots(1, 5, width_ratios=(5, 9, 1, 1, 3))
steps = {
    "input": x,
    "patches: a row for each window": patches,
    "kernel": column,
    "y": patches @ column,
    "y as a map": y,
}
for ax, (title, array) in zip(axes, steps.items(), strict=True):
    draw_array(ax, array, limits=(-15, 15), signed=True)
    ax.set_title(title, fontsize=10)
for text in [text for ax in axes[1:4] for text in ax.texts]:
    text.set_fontsize(9)
for ax, place in (
    (axes[0], (0, 1)),
    (axes[1], (1, 0, 1, 9)),
    (axes[3], (1, 0, 1, 1)),
    (axes[4], (0, 1, 1, 1)),
):
    outline(ax, *place)
figure

# %% [markdown]
# The frame follows one window: in the input, as row 1 of the patches, and as its output. With channels a row holds
# `KH*KW*C` numbers, and the kernels are `F` columns:
#
# `(N*OH*OW, KH*KW*C) @ (KH*KW*C, F) -> (N*OH*OW, F)`
#
# The price is memory. Each pixel lies in up to nine windows, so the patches hold nine times the input. `ops.conv2d`
# therefore makes them some rows at a time in a small buffer that stays in the processor's cache, and never keeps
# them.

# %% [markdown]
# ## Stride and padding
#
# Two knobs decide which output reads which inputs. *Padding* $p$ puts $p$ rows and columns of zeros on every side, so
# that windows may hang over the edge. *Stride* $s$ moves the window by $s$ instead of 1, which makes the output about
# $s$ times smaller each way. In one dimension, with a kernel of 3:


# %%
def draw_reads(ax, size, kernel, stride, padding):
    """Which inputs (below) each output (above) reads; zeros of the padding are hollow."""
    starts = range(-padding, size + padding - kernel + 1, stride)
    for number, start in enumerate(starts):
        colour = PALETTE[(3, 5, 2)[number % 3]]
        centre = start + (kernel - 1) / 2
        ax.plot(centre, 1, "s", color=colour, markersize=13)
        ax.text(centre, 1, number, ha="center", va="center", color="white", fontsize=9)
        for place in range(start, start + kernel):
            ax.plot((centre, place), (0.93, 0.07), color=colour, linewidth=1.5)
    for place in range(-padding, size + padding):
        inside = 0 <= place < size
        ax.plot(place, 0, "o", color="0.25", markersize=13, fillstyle="full" if inside else "none")
        ax.text(
            place,
            0,
            place if inside else 0,
            ha="center",
            va="center",
            color="white" if inside else "0.25",
            fontsize=9,
        )
    ax.set(
        xlim=(-1.6, size + 0.6),
        ylim=(-0.3, 1.3),
        xticks=[],
        yticks=(0, 1),
        yticklabels=("inputs", "outputs"),
    )
    ax.set_title(
        f"stride {stride}, padding {padding}: {size} inputs, {len(starts)} outputs", fontsize=10
    )


figure = Figure(figsize=(9, 4.2), layout="constrained")
for ax, (stride, padding) in zip(
    figure.subplots(2, 2).flat, ((1, 0), (1, 1), (2, 0), (2, 1)), strict=True
):
    draw_reads(ax, 6, 3, stride, padding)
figure

# %% [markdown]
# Without padding the output shrinks and the pixels at the edge are read less often. With $K = 3$, $p = 1$, $s = 1$
# the size stays: this is the usual layer. Bottom left is a trap: stride 2 without padding never reads the last input.
#
# How many outputs are there? A window that starts at position $t$ covers $t$ to $t + K - 1$. The first one starts at
# $-p$. The last input, padding included, is at $H + p - 1$, so a window must start at $H + p - K$ at the latest.
# Starts are $s$ apart, so
#
# $$OH = \left\lfloor \frac{(H + p - K) - (-p)}{s} \right\rfloor + 1
# = \left\lfloor \frac{H + 2p - K}{s} \right\rfloor + 1.$$

# %%
print("  H  K  s  p   formula  conv2d")
for height, k, stride, padding in (
    (6, 3, 1, 0),
    (6, 3, 1, 1),
    (6, 3, 2, 0),
    (6, 3, 2, 1),
    (7, 3, 2, 1),
    (9, 1, 2, 0),
):
    formula = (height + 2 * padding - k) // stride + 1
    result, _ = ops.conv2d(
        np.ones((1, height, height, 1)), np.ones((k, k, 1, 1)), stride=stride, padding=padding
    )
    print(f"{height:3}{k:3}{stride:3}{padding:3}{formula:8}{result.shape[1]:9}")

# %% [markdown]
# The same in two dimensions: how many windows read each pixel of a 6 x 6 map? We count them with a loop.


# %%
def count_reads_slow(size, kernel, stride, padding):
    """How many windows read each pixel of a (size, size) map."""
    reads = np.zeros((size + 2 * padding, size + 2 * padding))
    for i in range(0, len(reads) - kernel + 1, stride):
        for j in range(0, len(reads) - kernel + 1, stride):
            reads[i : i + kernel, j : j + kernel] += 1
    return reads[padding : padding + size, padding : padding + size]


settings = [(1, 0), (1, 1), (2, 0), (2, 1)]
counts = [count_reads_slow(6, 3, *setting) for setting in settings]
show_arrays(counts, [f"stride {s}, padding {p}" for s, p in settings], same_scale=True)

# %% [markdown]
# Remember these pictures. A pixel that nine windows read will get nine contributions to its gradient; one that none
# reads gets none.

# %% [markdown]
# ## Backward: the three gradients
#
# Training needs to know how a loss $L$, a single number, changes with each weight. Somewhere behind our layer the
# loss is computed from $y$, and backpropagation hands us `dy`, shaped like `y`: $dy_{ij} = \partial L / \partial
# y_{ij}$. We owe three answers: `dweight` and `dbias` to learn from, and `dx` for the layer before us, which does the
# same in turn.
#
# The chain rule says: if a number reaches the loss by several paths, add up over the paths. Each path goes through
# one output $y_{ij}$:
#
# $$\frac{\partial L}{\partial \theta}
# = \sum_{ij} \frac{\partial L}{\partial y_{ij}} \frac{\partial y_{ij}}{\partial \theta}
# = \sum_{ij} dy_{ij}\, \frac{\partial y_{ij}}{\partial \theta}$$
#
# for any number $\theta$: a weight, the bias, a pixel.
#
# We stay with stride 1 and no padding: $y_{ij} = B + \sum_{ab} x_{i+a,\,j+b} W_{ab}$.
#
# ### The bias
#
# $B$ is added to every output, so $\partial y_{ij} / \partial B = 1$ and $dB = \sum_{ij} dy_{ij}$.
#
# ### The weight
#
# In output $(i, j)$ the weight $W_{ab}$ is multiplied by $x_{i+a,\,j+b}$, so that is the derivative, and
#
# $$dW_{ab} = \sum_{ij} dy_{ij}\; x_{i+a,\;j+b}.$$
#
# Compare with the forward formula: this is again a correlation, of `x` with `dy` in the place of the kernel. One
# kernel place meets one input number per output, and those together are a part of `x` as large as `dy`, shifted by
# $(a, b)$:

# %%
dy = np.array([[1.0, 0, -2], [0, 3, 0], [-1, 0, 2]])
dkernel = conv2d_slow(x, dy)
figure = Figure(figsize=(9, 4.1), layout="constrained")
for axes, (a, b) in zip(figure.subplots(2, 4), ((0, 0), (1, 2)), strict=True):
    part = x[a : a + 3, b : b + 3]
    steps = {
        f"x that W[{a}, {b}] meets": x,
        "times dy": dy,
        f"products, sum {dkernel[a, b]:g}": part * dy,
        "dW": dkernel,
    }
    for ax, (title, array) in zip(axes, steps.items(), strict=True):
        draw_array(ax, array, limits=(-15, 15), signed=True)
        ax.set_title(title, fontsize=10)
    outline(axes[0], a, b)
    outline(axes[3], a, b, 1, 1)
figure

# %% [markdown]
# In terms of patches it is one product again: forward `y = patches @ W`, backward `dW = patches.T @ dy`.
#
# ### The input
#
# A pixel $x_{uv}$ is read by several outputs. Output $(i, j)$ reads it at kernel place $a = u - i$, $b = v - j$, if
# there is such a place; there it is multiplied by $W_{ab}$. So
#
# $$dx_{uv} = \sum_{ij} dy_{ij}\; W_{u-i,\;v-j} \qquad (W = 0 \text{ outside the kernel}).$$
#
# Read the sum from the side of the output: *every output stamps its kernel, times its $dy$, onto the window that it
# has read*, and where stamps overlap they add up. Our `dy` has five numbers that are not 0, so there are five stamps:

# %%
dx = np.zeros((5, 5))
stamps, titles = [], []
for i, j in np.argwhere(dy):
    stamp = np.zeros((5, 5))
    stamp[i : i + 3, j : j + 3] = dy[i, j] * kernel
    dx += stamp  # the += matters: see below
    stamps.append(stamp)
    titles.append(f"dy[{i}, {j}] = {dy[i, j]:g}")
figure = show_arrays(
    [dy, kernel, *stamps, dx], ["dy", "kernel W", *titles, "dx: sum of the stamps"], same_scale=True
)
for ax, (i, j) in zip(figure.axes[2:7], np.argwhere(dy), strict=True):
    outline(ax, i, j)
figure

# %% [markdown]
# Now read the sum from the side of the pixel. It asks every output that has read it. As the output's row $i$ rises,
# the kernel's row $u - i$ *falls*: pixel and output run in opposite directions. Count the kernel from its other end,
# $a' = K - 1 - (u - i)$, so that $i = u - (K - 1) + a'$, and likewise $b'$ for the columns:
#
# $$dx_{uv} = \sum_{a'b'} dy_{\,u - (K-1) + a',\;v - (K-1) + b'}\;\; W_{K-1-a',\;K-1-b'}$$
#
# The kernel appears with both indices reversed: turned by 180 degrees. And the index of `dy` starts at $-(K-1)$: it
# needs $K - 1$ zeros on every side. So `dx` is a correlation of the padded `dy` with the turned kernel. One pixel,
# framed:

# %%
turned = kernel[::-1, ::-1]
padded_dy = np.pad(dy, 2)
steps = {"kernel": kernel, "turned by 180 degrees": turned, "dy with 2 rows of zeros": padded_dy}
steps["dx"] = conv2d_slow(padded_dy, turned)
figure = show_arrays(list(steps.values()), list(steps), signed=True)
outline(figure.axes[2], 2, 1)
outline(figure.axes[3], 2, 1, 1, 1)
figure

# %%
dx_package, dweight = backward(as_map(dy))  # and dbias, had there been a bias
print("stamps equal gathering:   ", np.array_equal(dx, steps["dx"]))
print("package, dx:              ", np.allclose(dx_package[0, :, :, 0], dx))
print("package, dweight:         ", np.allclose(dweight[:, :, 0, 0], dkernel))

# %% [markdown]
# Both readings are in the package. With stride 1 it gathers, since that is one product of patches of `dy`. With a
# larger stride it scatters stamps, which now lie $s$ apart. Gathering would need $s - 1$ zeros between the numbers of
# `dy`:

# %%
dy2 = np.array([[1.0, -2], [3, 1]])
spread = np.zeros((3, 3))
spread[::2, ::2] = dy2
_, backward_2 = ops.conv2d(as_map(x), as_weight(kernel), stride=2)
dx2 = backward_2(as_map(dy2))[0][0, :, :, 0]
print("zeros between, then as before:", np.allclose(conv2d_slow(np.pad(spread, 2), turned), dx2))
show_arrays(
    [dy2, spread, kernel, dx2],
    ["dy at stride 2", "dy with zeros between", "kernel", "dx: stamps 2 apart"],
    signed=True,
)

# %% [markdown]
# ### The same as a matrix
#
# There is a third view, which explains the turn without any indices. A convolution is linear in `x`: so it is a
# matrix $M$ `(9, 25)` times the 25 pixels. Column $k$ of $M$ is the answer to a map that is 1 at pixel $k$ and 0
# elsewhere. For a linear map $y = M x$ the backward is always $dx = M^\top dy$.

# %%
M = np.stack([conv2d_slow(unit.reshape(5, 5), kernel).reshape(-1) for unit in np.eye(25)], axis=1)
print("M x  = y: ", np.allclose(M @ x.reshape(-1), y.reshape(-1)))
print("M' dy = dx:", np.allclose(M.T @ dy.reshape(-1), dx.reshape(-1)))
figure = Figure(figsize=(9, 3.3), layout="constrained")
axes = figure.subplots(1, 2, width_ratios=(25, 9))
draw_array(axes[0], M)
draw_array(axes[1], M.T)
axes[0].set(xlabel="25 pixels of x", ylabel="9 outputs", title="M: a row is a window that reads")
axes[1].set(xlabel="9 numbers of dy", ylabel="25 pixels of dx", title="M transposed")
figure

# %% [markdown]
# A row of $M$ is the kernel, spread out over the pixels that one window reads; every row is the row above, moved.
# Read by columns instead, as $M^\top$ does, the same kernel numbers come in reverse order: this is the turn. The
# matrix is mostly zeros and repeats nine numbers, which is why nobody ever builds it.

# %% [markdown]
# ## Is it right? Ask the differences
#
# A wrong gradient raises no error. The network trains anyway, only worse. So every backward in this package is
# checked against the definition of a derivative: change one number a little both ways, and see how much the loss
# changes.
#
# $$\frac{\partial L}{\partial \theta} \approx \frac{L(\theta + h) - L(\theta - h)}{2h}$$
#
# As loss take $L = \sum dy \cdot y$ with fixed random numbers `dy`: its derivative with respect to `y` is exactly
# `dy`. This time with everything: 2 images, 2 channels in, 3 out, stride 2, padding 1.


# %%
def differences_slow(loss, array, h=1e-5):
    """d loss / d array, one number at a time."""
    gradient = np.zeros_like(array)
    for place in np.ndindex(array.shape):
        old = array[place]
        array[place] = old + h
        above = loss()
        array[place] = old - h
        below = loss()
        array[place] = old
        gradient[place] = (above - below) / (2 * h)
    return gradient


rng = np.random.default_rng(0)
arrays = {
    name: rng.standard_normal(s)
    for name, s in (("x", (2, 6, 5, 2)), ("weight", (3, 3, 2, 3)), ("bias", (3,)))
}
out, backward = ops.conv2d(*arrays.values(), stride=2, padding=1)
upstream = rng.standard_normal(out.shape)
for (name, array), gradient in zip(arrays.items(), backward(upstream), strict=True):
    checked = differences_slow(
        lambda: (ops.conv2d(*arrays.values(), stride=2, padding=1)[0] * upstream).sum(), array
    )
    print(
        f"d{name:7} {gradient.shape!s:13} greatest difference {abs(checked - gradient).max():.0e}"
    )

# %% [markdown]
# ## Two typical mistakes
#
# *The turn forgotten*: `dx` as a correlation with the kernel as it is. *A missing `+=`*: stamps that overwrite each
# other instead of adding up. Both give arrays of the right shape, with numbers of the right size:


# %%
def dx_not_turned(dy, kernel):
    """The first mistake, stride 1."""
    return conv2d_slow(np.pad(dy, len(kernel) - 1), kernel)


def dx_stamps_slow(dy, kernel, stride=1, add=True):
    """The backward as stamps; without ``add`` the second mistake."""
    side, k = (len(dy) - 1) * stride + len(kernel), len(kernel)
    dx = np.zeros((side, side))
    for i, j in np.ndindex(dy.shape):
        window = dx[i * stride : i * stride + k, j * stride : j * stride + k]
        window[...] = (window if add else 0) + dy[i, j] * kernel
    return dx


wrong = [dx_not_turned(dy, kernel), dx_stamps_slow(dy, kernel, add=False)]
show_arrays(
    [dx, *wrong],
    ["right", "kernel not turned", "= in place of +="],
    columns=3,
    width=8,
    same_scale=True,
)

# %% [markdown]
# Does a check by differences find them? Only if it *can*. Each mistake has a case in which it makes no difference:

# %%
symmetric = np.array([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])
for name, k in (("our kernel", kernel), ("a symmetric one", symmetric)):
    error = abs(dx_not_turned(dy, k) - dx_stamps_slow(dy, k)).max()
    print(f"not turned, {name:17} greatest error {error:g}")
for stride in (1, 2, 3):
    error = abs(
        dx_stamps_slow(dy, kernel, stride, add=False) - dx_stamps_slow(dy, kernel, stride)
    ).max()
    print(f"no +=, stride {stride}              greatest error {error:g}")

# %% [markdown]
# A symmetric kernel is its own turn, and windows that lie 3 apart do not overlap. This is why the tests of this
# package use random numbers and several strides, and why the check itself is tested on wrong gradients
# ([`test_gradcheck.py`](../tests/test_gradcheck.py)).
#
# The same `+=` has a larger brother. One weight is often used several times: on every image of a batch, and, in the
# region proposal head, on five pyramid levels. Each use gives a `dweight`, and the chain rule adds them. So a layer's
# backward *adds* to the gradient of its weight. Here one layer is applied to two maps of different size:

# %%
layer = Conv2d(2, 3, 3, np.random.default_rng(0))
layer.set_training(True)  # in inference a layer keeps nothing for a backward
maps = [rng.standard_normal((1, size, size, 2)).astype(np.float32) for size in (8, 4)]
alone = []
for passes in ([maps[0]], [maps[1]], maps):
    layer.weight.grad = None
    results = [layer(one) for one in passes]  # first every forward,
    for out, backward in results:  # then every backward, each of which remembers its own input
        backward(np.ones_like(out))
    alone.append(layer.weight.grad)
print(
    "gradient of both uses = sum of the two:", np.allclose(alone[2], alone[0] + alone[1], atol=1e-5)
)

# %% [markdown]
# ## On the trained network
#
# The first layer of the trained network, backward, on the scene from above. Give one single output a gradient of 1,
# at row 30, column 34 of map 5: which pixels does it want changed? By the stamp rule: its window, by the kernel of
# map 5.

# %%
danswers = np.zeros_like(answers)
danswers[0, 30, 34, 5] = 1
dpixels, dstem = backward_stem(danswers)
rows, columns = (np.flatnonzero(abs(dpixels[0]).max(axis=(1 - axis, 2))) for axis in (0, 1))
print("dx", dpixels.shape, "  dweight", dstem.shape)
print("pixels with a gradient: rows", rows, "columns", columns)
part = dpixels[0, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
print("equal to kernel 5:", np.array_equal(part, stem.weight.value[..., 5]))

# %% [markdown]
# Stride 2 and padding 1 have moved it to where it belongs: the window of output row $i$ starts at pixel row $2 i -
# 1$.

# %% [markdown]
# ## A 1x1 convolution is a linear layer on every pixel
#
# With a kernel of 1 x 1 the sums over $a$ and $b$ have one term each, and $y_{ijf} = B_f + \sum_c x_{ijc} W_{cf}$:
# each pixel's `C` numbers go through the same fully connected layer, and neighbours do not matter. The pyramid uses
# it to bring all maps to the same number of channels, the proposal head to turn features into scores. Forward and
# backward agree with `ops.linear`, to which the pixels are just `N*H*W` rows:

# %%
features = rng.standard_normal((2, 4, 4, 8))  # (N, H, W, C)
weight, bias = rng.standard_normal((8, 3)), rng.standard_normal(3)
by_conv, backward_conv = ops.conv2d(features, weight[None, None], bias)
by_linear, backward_linear = ops.linear(features.reshape(-1, 8), weight, bias)
print("forward ", by_conv.shape, by_linear.shape, np.allclose(by_conv.reshape(-1, 3), by_linear))
upstream = rng.standard_normal(by_conv.shape)
pairs = zip(
    ("dx", "dweight", "dbias"),
    backward_conv(upstream),
    backward_linear(upstream.reshape(-1, 3)),
    strict=True,
)
for name, a, b in pairs:
    print(
        f"{name:8} {a.shape!s:15} {b.shape!s:8} equal: {np.allclose(a.reshape(-1), b.reshape(-1))}"
    )

# %% [markdown]
# ## A filter learned by hand-written gradient descent
#
# Now everything comes together. Somebody has an edge detector, `left minus right` from above, and shows us only its
# inputs and its outputs $t$ (targets). Can we find its nine numbers? Start with random ones, and repeat:
#
# 1. forward: $y$ = conv2d(x, W);
# 2. loss: half the mean squared error over the $n$ outputs, $L = \frac{1}{2n} \sum (y - t)^2$, so $dy = (y - t) / n$;
# 3. backward: `dweight`;
# 4. one step downhill: $W \leftarrow W - \eta \, dW$ with learning rate $\eta$.
#
# Nobody asks for `dx` here, so `input_gradient=False` spares the work.


# %%
def learn(x, targets, steps, rate):
    """Gradient descent on a 3x3 kernel: the losses (steps,) and the kernel before each step."""
    weight = np.random.default_rng(1).standard_normal((3, 3, 1, 1)) * 0.3
    losses, history = [], []
    for _ in range(steps):
        y, backward = ops.conv2d(x, weight, input_gradient=False)
        losses.append(((y - targets) ** 2).mean() / 2)
        history.append(weight[:, :, 0, 0])
        _, dweight = backward((y - targets) / y.size)
        weight = weight - rate * dweight
    return losses, history


# %% [markdown]
# Two kinds of input, both `(2, 128, 128, 1)` with mean 0 and spread 1: two scenes in grey, and pure noise, in which
# neighbouring pixels have nothing to do with each other.

# %%
scenes = np.stack([ShapesDataset(0, 2, first=HELD_OUT)[i][0].mean(axis=2) for i in range(2)])[
    ..., None
]
inputs = {
    "scenes": (scenes - scenes.mean()) / scenes.std(),
    "noise": rng.standard_normal(scenes.shape),
}
runs = {}
for name, data in inputs.items():
    targets, _ = ops.conv2d(data, as_weight(vertical))
    runs[name] = learn(data, targets, steps=201, rate=0.2)
    print(f"{name:7} loss {runs[name][0][0]:.2f} -> {runs[name][0][-1]:.0e}", end="   ")
    print(f"greatest error of a weight {abs(runs[name][1][-1] - vertical).max():.0e}")

# %%
figure = Figure(figsize=(8, 3), layout="constrained")
ax = figure.subplots()
for (name, (losses, _)), colour in zip(runs.items(), (PALETTE[3], PALETTE[5]), strict=True):
    ax.semilogy(np.maximum(losses, 1e-16), color=colour, linewidth=2, label=f"learned from {name}")
ax.set(xlabel="step", ylabel="loss, logarithmic", ylim=(1e-16, 100))
ax.grid(color="0.9")
ax.legend(fontsize=10, frameon=False)
figure

# %%
shown = (0, 2, 10, 50, 200)
learned = [runs[name][1][step] for name in inputs for step in shown]
titles = [f"{name}, step {step}" for name in inputs for step in shown]
rows = [*learned[:5], vertical, *learned[5:], vertical]
show_arrays(
    rows,
    [*titles[:5], "wanted", *titles[5:], "wanted"],
    columns=6,
    same_scale=True,
    signed=True,
    digits=1,
)

# %% [markdown]
# The noise finds the detector in some twenty steps. The scenes are on the way, but slow. Why? Most pixels of a scene
# equal their neighbours, so most windows show nine nearly equal numbers. Those tell the descent about one thing only,
# the *sum* of the kernel, and they tell it very loudly:

# %%
for name in inputs:
    print(
        f"{name:7} sum of the kernel:",
        "  ".join(f"step {t}: {runs[name][1][t].sum():+.3f}" for t in (0, 1, 2, 5, 10, 50)),
    )

# %% [markdown]
# With the scenes the sum overshoots its goal, 0, and comes back in each step. A slightly larger learning rate would
# make it explode: this one direction forbids larger steps, while all others need them, because only the few windows
# at edges tell about them. In noise every window tells something about every weight, and all directions are learned
# at the same speed. It is one reason why networks normalise their features between layers.

# %% [markdown]
# ## Transposed convolution: the backward as a layer
#
# The mask head must make a map *larger*, from 14 x 14 to 28 x 28. We already have an operation that turns a small map
# into a larger one: the stamps of `dx`. Used forward, it is called a transposed convolution, because it multiplies by
# $M^\top$. Every input pixel stamps the kernel, times its value, onto the output, $s$ apart. Input `(2, 2)`, kernel
# `(3, 3)`, stride 2, output $(2 - 1) \cdot 2 + 3 = 5$ a side:

# %%
small = np.array([[1.0, 2], [-1, 3]])
stamp = np.array([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])
large = ops.conv_transpose2d(as_map(small), as_weight(stamp), stride=2)[0][0, :, :, 0]
_, backward = ops.conv2d(np.zeros((1, 5, 5, 1)), as_weight(stamp), stride=2)
by_backward = backward(as_map(small))[0][0, :, :, 0]
stamps = np.zeros((2, 2, 5, 5))
for i, j in np.ndindex(2, 2):
    stamps[i, j, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] = small[i, j] * stamp
panels = [small, stamp, *stamps.reshape(4, 5, 5), large, by_backward]
titles = [
    "input",
    "kernel",
    *(f"stamp of input[{i}, {j}]" for i, j in np.ndindex(2, 2)),
    "output",
    "dx of conv2d",
]
figure = show_arrays(panels, titles, same_scale=True, signed=True)
for ax, (i, j) in zip(figure.axes[2:6], np.ndindex(2, 2), strict=True):
    outline(ax, 2 * i, 2 * j)
figure

# %%
print("sum of the stamps:     ", np.array_equal(stamps.sum(axis=(0, 1)), large))
print("the backward of conv2d:", np.array_equal(by_backward, large))

# %% [markdown]
# Backward it works the other way around: the `dx` of a transposed convolution is a plain convolution of `dy`. Mask
# R-CNN's mask head uses a 2 x 2 kernel with stride 2, whose stamps lie side by side without overlap (He et al. 2017,
# figure 4).

# %% [markdown]
# ## What you have learned
#
# * A convolution lays one small kernel over every window; laid out as rows, the windows make it one matrix product.
# * $OH = \lfloor (H + 2p - K)/s \rfloor + 1$, and stride without padding can leave inputs unread.
# * Backward, `dweight` correlates the input with `dy`; for `dx` every output stamps the kernel where it has read,
#   which is the same as gathering with the kernel turned. Both follow from one rule: add up over all paths.
# * A gradient is checked by differences, with random numbers: symmetric kernels and windows without overlap hide
#   mistakes.
# * A 1x1 convolution is a linear layer per pixel; a transposed convolution is the `dx` of a convolution, used
#   forward.
#
# ## Exercises
#
# 1. Write `conv2d` with its backward yourself: `make exercise NAME=conv2d`. Begin with loops; the tests of ours judge
#    it, with strides, padding and channels.
# 2. Which kernel moves a picture by one pixel to the right? Predict it, then try it on the scene with `padding=1`.
#    What does its `dx` do with `dy`?
# 3. Call `learn` with `rate=1.5` and `steps=20` on both inputs. Predict which of the two still goes down, and what
#    the sum of the other's kernel does.
# 4. Blur twice with a 3x3 kernel of ninths. Which single kernel, and of which size, does the same? Find it with
#    `ops.conv2d` on the kernel itself.
#
# ## Links
#
# * Source: [`ops/conv.py`](../src/mrcnn_scratch/ops/conv.py), [`ops/linear.py`](../src/mrcnn_scratch/ops/linear.py),
#   [`nn/layers.py`](../src/mrcnn_scratch/nn/layers.py)
# * Tests: [`ops/test_conv.py`](../tests/ops/test_conv.py), which begins with examples by hand,
#   [`gradcheck.py`](../tests/gradcheck.py), the check by differences
# * Papers: the mask head's transposed convolution in Mask R-CNN, figure 4
#   ([arXiv:1703.06870](https://arxiv.org/abs/1703.06870)); the layers that come next in ResNet
#   ([arXiv:1512.03385](https://arxiv.org/abs/1512.03385))
# * Next: [03 Backbone and pyramid](03_backbone_and_pyramid.ipynb)
