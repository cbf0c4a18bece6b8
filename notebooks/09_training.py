# %% [markdown]
# # 09 Training
#
# **What you will see** a network overfit one scene; what momentum, warm-up and clipping are for; a training run watched
# from inside; and three ways to break it.
#
# **In** scenes with their boxes, labels and masks, and a network with random weights.
#
# **Out** the same network, with weights that find objects in scenes that it has never seen.
#
# **Time** 15 minutes to read, about 4 minutes to run on 2 cores.
#
# **Before this** [08 Targets and losses](08_targets_and_losses.ipynb)

# %%
# %matplotlib inline
from dataclasses import replace
from unittest.mock import patch

import numpy as np
from matplotlib.figure import Figure

from mrcnn_scratch import mask_rcnn, weights
from mrcnn_scratch.config import SHAPES, AnchorConfig, TrainingConfig, TransformConfig
from mrcnn_scratch.data.shapes import CLASSES, HELD_OUT, ShapesConfig, ShapesDataset
from mrcnn_scratch.errors import InputError
from mrcnn_scratch.evaluation import evaluate
from mrcnn_scratch.mask_rcnn import MaskRCNN
from mrcnn_scratch.nn import Parameter
from mrcnn_scratch.roi import RoITargets, roi_targets
from mrcnn_scratch.train import SGD, Trainer
from mrcnn_scratch.train.optim import clip_scale, gradient_norm
from mrcnn_scratch.train.schedule import cosine, steps_down, warm_up
from mrcnn_scratch.visualize import PALETTE, draw_objects, show_curves, show_detections

ORANGE, SKY, GREEN, RED, PINK, BLUE, YELLOW = PALETTE

# %% [markdown]
# ## First test of any network: can it learn one scene by heart?
#
# Training is a loop over four lines: losses, backward, clip, step. Before hours go into it, ask the network for the
# easiest thing there is: the same scene `(128, 128, 3)` again and again. If a mistake is anywhere in the losses, in a
# backward, or in the optimiser, this is where it shows, in seconds. The whole loop, with the network at its real
# size:

# %%
image, target = ShapesDataset(seed=0, length=40, first=HELD_OUT)[37]
model = MaskRCNN(SHAPES, np.random.default_rng(0))
optimiser = SGD(model.named_parameters(), momentum=0.9, weight_decay=1e-4)
rng = np.random.default_rng(0)
totals, seen = [], {0: model.detect([image])[0]}
for step in range(1, 91):
    losses, backward = model.losses([image], [target], rng)
    optimiser.zero_grad()
    backward()
    norm = gradient_norm(optimiser.parameters.values())
    optimiser.step(lr=0.02 * min(1, step / 20), scale=clip_scale(norm, 10.0))
    totals.append(float(sum(losses.values())))
    if step in (45, 90):
        seen[step] = model.detect([image])[0]
print("weights:", sum(p.value.size for p in optimiser.parameters.values()))
print("loss at steps 1, 30, 60, 90:", [round(totals[i], 2) for i in (0, 29, 59, 89)])


# %%
def page(*widths, height=3.0):
    """A figure as wide as the page, and its panels."""
    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    return figure, axes


figure, axes = page(1, 1, 1, 1, height=2.6)
draw_objects(axes[0], image, target.boxes, target.labels, target.masks, classes=CLASSES)
axes[0].set_title(f"true: {len(target)} objects", fontsize=9)
for ax, (step, found) in zip(axes[1:], seen.items(), strict=True):
    sure = found.above(0.7)
    draw_objects(ax, image, sure.boxes, sure.labels, sure.masks, sure.scores, CLASSES)
    ax.set_title(f"after {step} steps: {len(sure)} over 0.7", fontsize=9)
figure

# %% [markdown]
# Detections with a score over 0.7: before, half way, and in the end, when the scene is known by heart. The network has
# learned nothing about scenes in general; but every part of the machine works.
#
# ## What a step does
#
# Plain gradient descent moves each weight $w$ against its gradient $g$: $w \leftarrow w - \eta g$, with the *learning
# rate* $\eta$. Take a bowl that is 20 times steeper one way than the other, $f(x, y) = \frac{1}{2} (x^2 + 20 y^2)$. Its
# gradient is $(x, 20 y)$, so a step multiplies $x$ by $1 - \eta$ and $y$ by $1 - 20 \eta$. Two things follow. If $|1 -
# 20 \eta| > 1$, that is if $\eta > 0.1$, every step makes $y$ *larger*: the steepest direction sets the limit. And with
# an $\eta$ below that limit, $x$ shrinks by less than 10% a step: the flattest direction sets the pace.
#
# Momentum keeps a running sum of gradients, the velocity $v$, and moves along it:
#
# $$ v \leftarrow \mu v + g, \qquad w \leftarrow w - \eta v, \qquad \mu = 0.9. $$
#
# Where gradients keep pointing the same way they add up, to as much as $1 / (1 - \mu) = 10$ times one of them. Where
# they point to and fro they cancel. The optimiser below is the package's own `SGD`; the parameter has shape `(2,)`.


# %%
def walk(lr, momentum, steps=60, start=(-9.0, 1.4)):
    """The places that SGD visits on f = (x^2 + 20 y^2) / 2: (steps + 1, 2)."""
    place = Parameter(np.array(start), decay=False)
    sgd = SGD([("place", place)], momentum=momentum, weight_decay=0.0)
    places = [place.value]
    for _ in range(steps):
        place.grad = place.value * np.array([1.0, 20.0])
        sgd.step(lr)
        places.append(place.value)
    return np.array(places)


x, y = np.meshgrid(np.linspace(-10, 4, 120), np.linspace(-3, 3, 80))
figure, axes = page(1, 1, 1, height=2.7)
for ax, (lr, momentum) in zip(axes, ((0.02, 0.0), (0.105, 0.0), (0.02, 0.9)), strict=True):
    path = walk(lr, momentum)
    ax.contour(
        x,
        y,
        (x**2 + 20 * y**2) / 2,
        levels=[1, 4, 10, 20, 35, 55, 80],
        colors="0.75",
        linewidths=0.8,
    )
    ax.plot(path[:, 0], path[:, 1], ".-", color=BLUE, markersize=5, linewidth=1)
    ax.plot(0, 0, "*", color=ORANGE, markersize=12)
    ax.set(xlim=(-10, 4), ylim=(-3, 3))
    ax.set_title(
        f"rate {lr}, momentum {momentum}\n60 steps end at f = {(path[-1] ** 2 @ [0.5, 10]):.2g}",
        fontsize=9,
    )
figure

# %% [markdown]
# Left: safe and slow. Middle: just over the limit of 0.1; it hurries along the valley, but swings wider with every
# step. Right: the small rate with momentum, which overshoots, swings back, and gets much closer. A network is such a
# bowl with a million directions, some much steeper than others.
#
# `SGD` also has *weight decay*: it adds $10^{-4} w$ to the gradient, a slight pull of all weights towards 0 (not of
# biases and norms).
#
# ## The learning rate over time
#
# A fresh network's gradients are large and point nowhere in particular, so the rate starts near 0 and climbs in a
# straight line: *warm-up*. At the end it falls to 0, so that the noise of random batches averages out: here along half
# a cosine; the papers divide it by ten, twice. Both factors are functions of the step alone, and are multiplied.

# %%
steps = np.arange(600)
figure, axes = page(1, 1, height=2.6)
factors = {
    "cosine": [warm_up(s, 60) * cosine(s, 600) for s in steps],
    "step": [warm_up(s, 60) * steps_down(s, 600) for s in steps],
}
for (name, values), colour in zip(factors.items(), (BLUE, ORANGE), strict=True):
    axes[0].plot(steps, values, color=colour, label=name)
axes[0].legend(frameon=False, fontsize=9)
axes[0].set_title("warm-up over 60 of 600 steps, times the decay", fontsize=9)
axes[0].set_xlabel("step", fontsize=9)
norms = np.linspace(0.1, 40, 200)
axes[1].plot(norms, [norm * clip_scale(norm, 10.0) for norm in norms], color=GREEN)
axes[1].set_title("length of the gradient, clipped at 10", fontsize=9)
axes[1].set_xlabel("before", fontsize=9)
axes[1].set_ylabel("after", fontsize=9)
figure

# %% [markdown]
# On the right: *clipping*. All gradients together are one long vector; if it is longer than a limit, it is shortened to
# it, without a change of direction. In numbers: the gradient (3, 4) has length 5. With a limit of 1 it becomes (0.6,
# 0.8).

# %%
parameters = [Parameter(np.zeros(1)), Parameter(np.zeros(1))]
parameters[0].grad, parameters[1].grad = np.array([3.0]), np.array([4.0])
norm = gradient_norm(parameters)
print(
    "length",
    norm,
    " factor",
    clip_scale(norm, 1.0),
    " clipped",
    [float(p.grad[0] * clip_scale(norm, 1.0)) for p in parameters],
)

# %% [markdown]
# ## A run, watched from inside
#
# The real run, `mrcnn-scratch train`, is 1,500 steps of 8 scenes. To see a run from beginning to end here, four times
# over, this notebook trains a *smaller* network on an *easier* task: scenes with one or two objects, seen at 64 x 64
# pixels; half the channels; narrower heads; masks of 14 x 14; 600 steps. All of it is in the configuration; the code is
# the same.

# %%
scenes = ShapesConfig(max_objects=2)
small = replace(
    SHAPES,
    transform=TransformConfig(64, 64),
    fpn_channels=32,
    anchors=AnchorConfig(((16.0,), (32.0,), (64.0,), (96.0,), (128.0,))),
    rpn=replace(
        SHAPES.rpn,
        samples=64,
        pre_nms_train=200,
        pre_nms_test=200,
        post_nms_train=100,
        post_nms_test=50,
    ),
    roi=replace(
        SHAPES.roi,
        samples=32,
        mask_head=(32, 32),
        box_head=(128, 128),
        mask_resolution=7,
        detections=10,
    ),
)
settings = TrainingConfig(
    steps=600, batch_size=8, lr=0.03, warmup=60, images=0, colours=False, seed=0
)
held_out = ShapesDataset(seed=0, length=24, config=scenes, first=HELD_OUT)
held_images, held_targets = zip(*(held_out[i] for i in range(24)), strict=True)
PARTS = ("resnet.stem", "resnet.stages", "fpn", "rpn_head", "box_head", "mask_head")


def mask_ap(model):
    """Mask AP and AP50 on 24 scenes that are never trained on."""
    found = [one for i in range(0, 24, 8) for one in model.detect(held_images[i : i + 8])]
    figures = evaluate(found, held_targets, CLASSES)["mask"]
    return figures["AP"], figures["AP50"]


def run(model, settings, show=0):
    """Train; the metrics of every step as columns, and the AP after every 100 steps."""
    trainer = Trainer(model, ShapesDataset(seed=0, length=None, config=scenes), None, settings)
    rows, aps = [], {0: mask_ap(model)}
    for step in range(1, settings.steps + 1):
        row = trainer.step()
        groups = {
            g: [p for n, p in trainer.optimiser.parameters.items() if n.startswith(g)]
            for g in PARTS
        }
        rows.append(row | {group: gradient_norm(members) for group, members in groups.items()})
        if step % 100 == 0:
            aps[step] = mask_ap(model)
        if show and step % show == 0:
            print(
                f"step {step:4}  loss {row['total']:6.3f}  gradient {row['gradient_norm']:6.2f}  rate {row['lr']:.4f}"
            )
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}, aps


good_model = MaskRCNN(small, np.random.default_rng(0))
good, good_aps = run(good_model, settings, show=50)

# %% [markdown]
# `Trainer.step` is the loop from above, with two additions: it draws scenes and mirrors half of them, and it refuses to
# go on if a loss or a gradient is not finite. Here are its numbers over time, faint for every step and strong for their
# mean over the steps around.

# %%
show_curves({name: good[name] for name in good if name not in PARTS})

# %% [markdown]
# The five losses do not fall together. Objectness goes first; that is the easy part, most anchors being far from
# anything. The classifier's loss falls, and then *rises* or stays for a while: as the RPN gets better it proposes boxes
# that are harder to tell apart, and more of them are positive (see the curve of the RoIs). `loss_box_reg` shows it most
# clearly: it climbs before it falls, because ever more of the positives are real proposals, which need correction, and
# not appended true boxes, which need none. A falling sum is a good sign; a single loss that rises need not be a bad
# one.
#
# Which is why one measures what one wants: average precision on scenes that training has never seen
# ([11 Evaluation](11_evaluation.ipynb)). Beside it the gradient's length in each part of the network.

# %%
shipped = mask_ap(weights.load_shapes())
figure, (left, right) = page(1, 1.25, height=3.4)
for column, (name, colour) in enumerate((("AP", BLUE), ("AP50", ORANGE))):
    left.plot(
        list(good_aps),
        [ap[column] for ap in good_aps.values()],
        "o-",
        color=colour,
        label=f"mask {name}",
    )
    left.axhline(shipped[column], color=colour, linestyle=":", linewidth=1.2)
    side = {
        "y": shipped[column] + (0.015, -0.015)[name == "AP"],
        "va": ("bottom", "top")[name == "AP"],
    }
    left.text(x=600, s=f"shipped network, {name}", color=colour, fontsize=8, ha="right", **side)
left.set(ylim=(0, 1.12), xlabel="step")
left.set_title("on 24 held-out scenes", fontsize=9)
left.legend(frameon=False, fontsize=8, loc="lower right")
for name, colour in zip(PARTS, ("black", BLUE, SKY, GREEN, ORANGE, RED), strict=True):
    smooth = np.convolve(good[name], np.ones(25) / 25, "valid")
    right.plot(np.arange(len(smooth)) + 13, smooth, color=colour, label=name)
right.set(yscale="log", xlabel="step")
right.set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
right.minorticks_off()
right.set_title("length of the gradient per part, mean of 25 steps", fontsize=9)
right.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.18))
print("shipped network, 5,000 steps at full size:  AP {:.3f}, AP50 {:.3f}".format(*shipped))
print("this one, 600 steps:                        AP {:.3f}, AP50 {:.3f}".format(*good_aps[600]))
figure

# %% [markdown]
# AP stays at 0 for a while, although the loss falls from the first step: a detection counts only once class, box and
# mask are all good enough. Then it climbs. No part of the network is without a gradient and none drowns the others: the
# lengths stay within a factor of about ten of each other. That is what the initialisation, the norms and the scales of
# the losses are for. A curve that falls to 0 here would be a part that has stopped to learn.
#
# What 600 steps of the small network see, on four of the held-out scenes (scores of 0.5 and more):

# %%
found = [one.above(0.5) for one in good_model.detect(held_images[:4])]
show_detections(held_images[:4], held_targets[:4], found, CLASSES)

# %% [markdown]
# ## Three ways to break it
#
# Each is the same run with one thing changed, from the same weights and on the same scenes.
#
# ### 1. No warm-up: the full rate from step 0
#
# First without clipping, so that nothing hides what happens: sixty steps with the warm-up, and sixty without.


# %%
def first_steps(settings, count=60):
    """Lengths of the gradient in the first steps, until `count` or until the trainer gives up."""
    trainer = Trainer(
        MaskRCNN(small, np.random.default_rng(0)), ShapesDataset(0, None, scenes), None, settings
    )
    norms = []
    try:
        while trainer.steps_done < count:
            norms.append(trainer.step()["gradient_norm"])
    except InputError as error:
        print(error)
    return norms


unclipped = replace(settings, clip_norm=1e9)
with_warm_up, without = first_steps(unclipped), first_steps(replace(unclipped, warmup=0))
figure, axes = page(1, height=2.4)
axes[0].plot(
    range(1, len(with_warm_up) + 1), with_warm_up, color=BLUE, label="warm-up over 60 steps"
)
axes[0].plot(range(1, len(without) + 1), without, color=RED, label="no warm-up")
axes[0].set(yscale="log", xlabel="step", ylabel="length of the gradient")
axes[0].legend(frameon=False, fontsize=9)
figure

# %% [markdown]
# The first steps look innocent. One of them is too long, lands where the slope is steeper, the gradient there is
# longer, the next step is longer still: the middle panel of the bowl. `Trainer` stops and says so, instead of writing
# nan into the weights. With clipping, as in all other runs here, steps have a limit and nothing blows up. Is such a run
# well? The runs from here on have their clipping back.

# %%
hasty, hasty_aps = run(MaskRCNN(small, np.random.default_rng(0)), replace(settings, warmup=0))
print(f"no warm-up, clipped: AP {hasty_aps[600][0]:.3f}")
for label, metrics in {"no warm-up": hasty, "as it should be": good}.items():
    norms = metrics["gradient_norm"][:60]
    print(
        f"{label:16} longest gradient in 60 steps {norms.max():6.1f}, clipped in {(norms > 10).sum()} of them"
    )

# %% [markdown]
# ### 2. The true boxes not appended
#
# `roi_targets` appends the true boxes to the proposals. Take them out of its sample again: they are the positives whose
# delta is exactly 0.


# %%
def without_truth(*arguments):
    """roi_targets' sample without the true boxes."""
    sample = roi_targets(*arguments)
    is_truth = (sample.labels > 0) & (sample.deltas == 0).all(axis=1)
    return RoITargets(*(column[~is_truth] for column in sample))


with patch.object(mask_rcnn, "roi_targets", without_truth):
    untold, untold_aps = run(MaskRCNN(small, np.random.default_rng(0)), settings)
print(f"no truth appended: AP {untold_aps[600][0]:.3f}")
print(
    f"positive proposals per step, steps 1 to 20: {untold['positive_rois'][:20].mean():.1f},",
    end=" ",
)
print(f"in the good run {good['positive_rois'][:20].mean():.1f}")

# %% [markdown]
# ### 3. A flipped gradient
#
# One minus sign too many, in one place: the gradient that the box head sends back into the features. The head's own
# weights get the right one.


# %%
class Flipped(MaskRCNN):
    """The box branch sends the features the negative of their gradient."""

    def box_branch(self, *arguments):
        """As MaskRCNN's, with the wrong sign."""
        losses, backward = super().box_branch(*arguments)
        return losses, lambda loss_weights: [-dlevel for dlevel in backward(loss_weights)]


flipped, flipped_aps = run(Flipped(small, np.random.default_rng(0)), settings)
print(f"flipped: AP {flipped_aps[600][0]:.3f}")

# %% [markdown]
# All four runs. The losses are means of 25 steps.

# %%
runs = {
    "as it should be": (good, good_aps, BLUE, "-"),
    "no warm-up": (hasty, hasty_aps, RED, "--"),
    "no truth appended": (untold, untold_aps, ORANGE, "-."),
    "flipped gradient": (flipped, flipped_aps, "black", ":"),
}
figure, axes = page(1, 1, 1, height=3.3)
for ax, name in zip(axes, ("total", "loss_classifier"), strict=False):
    for label, (metrics, _, colour, style) in runs.items():
        smooth = np.convolve(metrics[name], np.ones(25) / 25, "valid")
        ax.plot(np.arange(len(smooth)) + 13, smooth, color=colour, linestyle=style, label=label)
    ax.set_title(f"{name}, training", fontsize=9)
for _, aps, colour, style in runs.values():
    axes[2].plot(
        list(aps),
        [ap[0] for ap in aps.values()],
        color=colour,
        linestyle=style,
        marker="o",
        markersize=4,
    )
axes[2].set_title("mask AP, held out", fontsize=9)
for ax in axes:
    ax.set_xlabel("step", fontsize=9)
figure.legend(
    *axes[0].get_legend_handles_labels(),
    loc="outside lower center",
    ncols=4,
    fontsize=9,
    frameon=False,
)
figure

# %%
print(f"{'':20}{'last 50 losses':>16}{'gradient':>10}{'positives':>11}{'AP':>7}{'AP50':>7}")
for label, (metrics, aps, _, _) in runs.items():
    last = {
        name: metrics[name][-50:].mean() for name in ("total", "gradient_norm", "positive_rois")
    }
    numbers = f"{last['total']:16.2f}{last['gradient_norm']:10.2f}{last['positive_rois']:11.1f}"
    print(f"{label:20}{numbers}{aps[600][0]:7.3f}{aps[600][1]:7.3f}")

# %% [markdown]
# Look at the losses first, as one does. Up to step 200 they hardly differ, apart from a bump with which the flipped run
# begins; by its sum nobody could tell which run is ill. In the end AP differs far more than the sum does.
#
# * **No warm-up.** Clipping kept the run finite, not healthy. The first gradients are about as long in both runs; but
#   here each of them moved the weights at the full rate, to a place from where the run recovers slowly, if at all.
# * **No truth appended.** At first the heads see fewer positives and must wait for the RPN. On these scenes that is not
#   for long: objects are large, and even a fresh network's proposals cover some of them by chance. So this run comes
#   late rather than never. With small objects it would wait longer.
# * **A flipped gradient.** The heads learn what can be learned from features that the backward makes *worse* for them
#   with every step. Nothing is infinite, no shape is wrong, the loss even falls after its bump, for background is easy,
#   and then lies still. A gradient check finds such a mistake in a second. From the loss alone one would go on tuning
#   the rate.
#
# One run of each with one seed is an illustration, not a measurement: another seed, or only another number of cores,
# which rounds the sums in another order, moves AP by several hundredths and more.
#
# ## What you have learned
#
# * First overfit one scene. If that fails, nothing else needs trying.
# * The steepest direction limits the rate, the flattest sets the pace; momentum helps with both, warm-up carries the
#   network over its first steps, the decay calms its last.
# * The sum of the losses is what is trained, AP is what is wanted. Watch both, and the gradient's length.
# * A broken run can have an ordinary loss curve.
#
# ## Exercises
#
# From the root of the repository, with the environment of `make test`:
#
# 1. Train with your own function in place of the package's. Write `exercises/nms.py` (`make exercise NAME=nms` judges
#    it), then `mrcnn-scratch train --mine exercises/nms.py --out runs/mine --steps 300`, and the same without `--mine`
#    into another folder. Should the two `metrics.csv` be equal? To which digit? Then raise your threshold by 0.2 and
#    predict.
# 2. `mrcnn-scratch train --out runs/fast --steps 300 --lr 0.4`. Does it stop, and at which step? Which column of
#    `metrics.csv` would have warned you first?
# 3. In this notebook, flip `mask_branch` in place of `box_branch`; then pass `{"loss_mask": -1.0}` on to its backward,
#    which also flips the head's own gradient. One of the two fails loudly. Which, and why?
# 4. `mrcnn-scratch train --out runs/few --images 8 --steps 600`: eight scenes, again and again. Compare `curves.png`
#    and the AP table with a run on `--images 0`. What does the loss not tell?
#
# ## Links
#
# * Source: [`train/loop.py`](../src/mrcnn_scratch/train/loop.py),
#   [`train/optim.py`](../src/mrcnn_scratch/train/optim.py),
#   [`train/schedule.py`](../src/mrcnn_scratch/train/schedule.py), [`train/run.py`](../src/mrcnn_scratch/train/run.py)
# * Tests: [`test_loop.py`](../tests/train/test_loop.py), [`test_optim.py`](../tests/train/test_optim.py),
#   [`test_schedule.py`](../tests/train/test_schedule.py), [`test_run.py`](../tests/train/test_run.py)
# * Papers: Mask R-CNN, section 3.1, "Training" ([arXiv:1703.06870](https://arxiv.org/abs/1703.06870)); Faster R-CNN,
#   section 3.1.3 ([arXiv:1506.01497](https://arxiv.org/abs/1506.01497)); warm-up: Goyal et al. 2017, section 2.2
#   ([arXiv:1706.02677](https://arxiv.org/abs/1706.02677)); the cosine: Loshchilov and Hutter 2017
#   ([arXiv:1608.03983](https://arxiv.org/abs/1608.03983))
# * Next: [10 Detection](10_detection.ipynb)
