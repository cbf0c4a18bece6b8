# %% [markdown]
# # 12 From NumPy to CuPy
#
# **What you will see**: how the same lines run on a CPU and on a GPU; what the two have in common, where they differ, and
# what each crossing between them costs.
#
# **In**: a training step and a detection of the toy network. **Out**: the same numbers from another array library, and a
# count of how often the host had to wait.
#
# **Time**: 10 minutes. **Before this**: [11 Evaluation](11_evaluation.ipynb)

# %%
# %matplotlib inline
import sys

import numpy as np
from matplotlib.figure import Figure

from mrcnn_scratch import backend, nms, ops
from mrcnn_scratch.backend import array_module, to_device, to_host
from mrcnn_scratch.config import TrainingConfig
from mrcnn_scratch.data.shapes import ShapesDataset
from mrcnn_scratch.train import Trainer
from mrcnn_scratch.visualize import PALETTE, overlay, show_arrays
from mrcnn_scratch.weights import load_shapes

sys.path.append("../tests")  # the double of CuPy lives with the tests
from cupy_double import LEDGER, strict_cupy

# %% [markdown]
# ## One idea: ask the array
#
# CuPy has NumPy's functions under NumPy's names, for arrays that lie in the memory of a GPU. So an operation that is
# given an array `x` of any shape asks which of the two libraries `x` belongs to, and then writes what it would have
# written anyway:
#
# ```python
# def softmax(logits):
#     xp = array_module(logits)      # numpy or cupy
#     exponentials = xp.exp(logits - logits.max(axis=1, keepdims=True))
#     return exponentials / exponentials.sum(axis=1, keepdims=True)
# ```
#
# There is no global switch. Hand `softmax` a NumPy array and it runs here; hand it a CuPy array and it runs there.

# %%
logits = np.array([[1.0, 2.0, 3.0]])
print("belongs to", array_module(logits).__name__)
print("softmax   ", ops.softmax(logits).round(3))

# %% [markdown]
# ## A CuPy that needs no GPU
#
# You may not have a GPU at hand. The tests have the same trouble, and answer it with a **strict double**: a module that
# looks like CuPy from outside and computes with NumPy inside. Its arrays are wrapped: nothing gets from the "device" to the
# host by accident, and every crossing is written down. What follows runs on that double. With a real GPU, write
# `import cupy as xp` instead of `with strict_cupy() as xp:`. The package itself does not change by a line.

# %%
with strict_cupy() as xp:
    on_device = xp.asarray(logits)  # one copy, host to device
    result = ops.softmax(on_device)
    print("belongs to", array_module(result).__name__)
    print("softmax   ", to_host(result).round(3))

# %% [markdown]
# ## What is refused
#
# The double refuses what CuPy refuses. Four mistakes that NumPy would let pass:

# %%
mistakes = {
    "a host array in an operation": lambda xp, x: x + np.ones(3),
    "a NumPy function": lambda xp, x: np.exp(x),
    "slicing up to a device scalar": lambda xp, x: x[: (x > 1).sum()],
    "a keyword that CuPy lacks": lambda xp, x: x.max(initial=0),
}
with strict_cupy() as xp:
    x = xp.asarray([1.0, 2.0, 3.0])
    for name, mistake in mistakes.items():
        try:
            mistake(xp, x)
        except TypeError as error:
            print(f"{name:32} {str(error)[:88]}")

# %% [markdown]
# Worse are the mistakes that a GPU does *not* refuse. It goes on, with a result that nobody has promised:
#
# * `target[index] = values` where `index` names a place twice: thousands of threads write at once, and any of the values
#   may be the last one;
# * an index beyond the end wraps around without a word;
# * NaN or a negative float turned into an integer gives another number than on a CPU;
# * a write that overlaps what it reads: no thread waits for another.
#
# The double makes an error of each.

# %%
with strict_cupy() as xp:
    target, index = xp.zeros(4), xp.asarray([1, 1, 3])
    try:
        target[index] = xp.asarray([10.0, 20.0, 30.0])
    except AssertionError as error:
        print("assignment: ", error)
    backend.scatter_add(target, index, xp.asarray([10.0, 20.0, 30.0]))  # counts every duplicate
    print("scatter_add:", to_host(target))

# %% [markdown]
# ## The same numbers
#
# The trained network on two scenes, images (128, 128, 3) each: once on the CPU, once through the double.

# %%
scenes = ShapesDataset(seed=3, length=2)
images = [scenes[i][0] for i in range(2)]
cpu = load_shapes().detect(images)
with strict_cupy():
    device = load_shapes().to("gpu").detect(images)
pictures = [
    overlay(image, found.above(0.5), scenes.classes)
    for image, found in zip(images * 2, cpu + device, strict=True)
]
show_arrays(pictures, ["CPU"] * 2 + ["the double"] * 2, columns=4)

# %%
for one, other in zip(cpu, device, strict=True):
    boxes = np.abs(one.boxes - other.boxes).max()
    masks = (one.masks != other.masks).sum()
    print(
        f"{len(one)} detections; boxes differ by at most {boxes:.1e} pixels, masks in {masks} pixels"
    )

# %% [markdown]
# Here the two agree. On a real GPU expect differences in the last digits: it adds sums up in another order, and float32
# rounds every partial sum.
#
# ## What it costs: waiting
#
# A GPU works through a queue while Python runs ahead and fills it. That is where its speed comes from. Each time Python
# wants to *know* a number, it must wait until the queue is empty:

# %%
acts = {
    "x.sum()": lambda xp, x: x.sum(),
    "x[1:]": lambda xp, x: x[1:],
    "xp.where(x > 1, x, 0)": lambda xp, x: xp.where(x > 1, x, 0),
    "float(x.sum())": lambda xp, x: float(x.sum()),
    "if (x > 1).any()": lambda xp, x: bool((x > 1).any()),
    "x[x > 1]": lambda xp, x: x[x > 1],
    "to_device(host, like=x)": lambda xp, x: to_device(np.ones(3), like=x),
}
with strict_cupy() as xp:
    x = xp.asarray([1.0, 2.0, 3.0])
    for name, act in acts.items():
        LEDGER.clear()
        act(xp, x)
        kinds = ", ".join(event.kind for event in LEDGER.events)
        print(f"{name:26} {kinds or 'nothing: the GPU is told, and that is all'}")

# %% [markdown]
# A sum stays on the device as an array without axes: no wait. `float()` of it waits. A boolean index waits too, because the
# size of its result is known only to the GPU.
#
# ## A loop over boxes against one product
#
# Greedy suppression, as every textbook writes it, walks down R boxes and asks of each whether it overlaps one that is
# kept: R questions, R waits. [Notebook 05](05_region_proposals.ipynb) showed the other form: "a box falls if a kept, better
# box overlaps it", applied to all R boxes at once until nothing changes. It asks one question per *pass*.


# %%
def nms_slow(xp, boxes, scores, threshold):
    """The walk; R boxes (R, 4), R scores."""
    kept = []
    for i in to_host(xp.argsort(-scores)).tolist():
        if not any(
            float(nms.box_iou(boxes[i : i + 1], boxes[j : j + 1])[0, 0]) > threshold for j in kept
        ):
            kept.append(i)
    return kept


rng = np.random.default_rng(0)
counts, slow, fast = [10, 20, 40, 80], [], []
with strict_cupy() as xp:
    for count in counts:
        corner = rng.uniform(0, 100, (count, 2))
        boxes = xp.asarray(
            np.concatenate([corner, corner + rng.uniform(10, 40, (count, 2))], axis=1)
        )
        scores = xp.asarray(rng.random(count))
        for waits, function in ((slow, lambda *a: nms_slow(xp, *a)), (fast, nms.nms)):
            LEDGER.clear()
            kept = function(boxes, scores, 0.5)
            waits.append(sum(event.kind == "wait" for event in LEDGER.events))
print("boxes:", counts, " walk:", slow, " fixed point:", fast)

# %%
figure = Figure(figsize=(6, 3.2), layout="constrained")
ax = figure.subplots()
ax.plot(counts, slow, "o-", color=PALETTE[0], label="a walk over the boxes")
ax.plot(counts, fast, "s-", color=PALETTE[2], label="the fixed point (nms.py)")
ax.set(
    xlabel="boxes", ylabel="waits for the GPU", yscale="log", title="How often suppression waits"
)
ax.legend(frameon=False)
figure

# %% [markdown]
# The walk's waits grow about with the square of the number of boxes; the fixed point's hardly grow. Nothing about it is
# specific to a GPU: it is also what makes suppression fast in NumPy.
#
# ## A whole training step
#
# Where does a step of the toy network wait? 8 images, forward and backward through all five losses.

# %%
with strict_cupy():
    trainer = Trainer(
        load_shapes().to("gpu"), ShapesDataset(seed=0, length=8), 8, TrainingConfig(images=8)
    )
    trainer.step()
    LEDGER.clear()
    trainer.step()
    waits, copies = LEDGER.count("wait"), LEDGER.count("copy")
for where, count in sorted(waits.items(), key=lambda item: -item[1]):
    print(f"{count:3} waits   {where}")
print(f"{sum(waits.values()):3} waits in all, and {sum(copies.values())} copies to the device")

# %% [markdown]
# None of these places is inside a loop over boxes, anchors or RoIs. Suppression waits once a pass on each of the five
# levels, for all images together; the other numbers do not depend on what is in the images.
# [docs/gpu.md](../docs/gpu.md) says of each why it is there. A test holds the step to that budget, so that a careless
# `float(...)` somewhere is noticed on a machine without a GPU.
#
# ## What the double cannot tell
#
# How fast a GPU is; whether memory suffices; how its rounding differs; whether its drivers work. This project has had no
# GPU so far, and says so. If you have one, `make test-gpu` runs all of these tests on the real CuPy, compares gradients,
# trains for 50 steps, and prints a table of the parts of a step, CPU beside GPU.
#
# ## What you have learned
#
# * The array decides: `xp = array_module(x)`, and the same lines serve both libraries.
# * A GPU does not refuse everything that is wrong; some of it must be looked for on purpose.
# * The price of a GPU is waiting. Ask it for a number once a pass, not once a box.
# * Array code that avoids the questions is also what makes NumPy fast.
#
# ## Exercises
#
# 1. Put `print(float(y.mean()))` into `relu` in `ops/activation.py`, restart the notebook, and count the waits of a step
#    again. How many did you expect? (Count the ReLUs.) Take it out again.
# 2. Write `max_pool2d` with `winner[padded[tap] > y] = k` instead of `copyto`. What does the ledger say, and why?
# 3. With a GPU: `make test-gpu`. Which part of a step gains least, and why might that be?
#
# **Links**: [`backend.py`](../src/mrcnn_scratch/backend.py), [`nms.py`](../src/mrcnn_scratch/nms.py), the
# [double](../tests/cupy_double/module.py) and [its planted mistakes](../tests/test_cupy_double.py), the
# [budget](../tests/test_gpu_path.py). Next: [13 The real thing](13_the_real_thing.ipynb)
