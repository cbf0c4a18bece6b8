"""Draw ``data_flow.svg``: the stages of Mask R-CNN and the shapes that pass between them.

python docs/images/data_flow.py

The shapes are those of the network that comes with the package, on one batch of toy scenes: they are read off the
network, so that the picture cannot disagree with the code.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from mrcnn_scratch.visualize import PALETTE
from mrcnn_scratch.weights import load_shapes

ORANGE, SKY, GREEN, RED, PINK, BLUE, _ = PALETTE
GREY = "#555555"
SIZE = 7.2, 9.1
"""Inches; at 100 pixels an inch that is as wide as a page, and one unit of the axes is one pixel."""
LEFT, MIDDLE, RIGHT = (10, 236), (282, 252), (574, 136)
"""x and width of the three columns."""


def main() -> None:
    shapes = read_shapes()
    figure = Figure(figsize=SIZE, dpi=100, facecolor="white")
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, 720), ylim=(910, 0))
    ax.axis("off")
    draw_features(ax, shapes)
    draw_regions(ax, shapes)
    draw_training(ax)
    with rc_context({"svg.hashsalt": "data_flow"}):  # the same file every time
        figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


def read_shapes() -> dict[str, str]:
    """Every shape as text, with N for the images, R for the regions and D for the detections."""
    model = load_shapes()
    batch = model.batch([np.zeros((128, 128, 3), np.uint8)])
    bottom_up, _ = model.resnet(batch.pixels)
    pyramid, _ = model.fpn(bottom_up)
    (objectness, deltas), _ = model.rpn(pyramid)
    roi = model.config.roi
    regions = np.array([[0, 0, 64, 64]], np.float32), np.array([0])
    small, _ = model.pool(pyramid, *regions, batch, roi.box_resolution)
    large, _ = model.pool(pyramid, *regions, batch, roi.mask_resolution)
    (logits, box_deltas), _ = model.box_head(small)
    masks, _ = model.mask_head(large)
    anchors = sum(level.shape[1] for level in objectness)
    return {
        "pixels": text("N", batch.pixels),
        "bottom_up": "\n".join(f"C{i}  {text('N', level)}" for i, level in enumerate(bottom_up, start=2)),
        "pyramid": "\n".join(f"P{i}  {text('N', level)}" for i, level in enumerate(pyramid, start=2)),
        "anchors": f"({anchors}, 4)",
        "rpn": f"objectness (N, {anchors})\ndeltas (N, {anchors}, {deltas[0].shape[2]})",
        "proposals": f"boxes (K, 4) an image, K up to {model.config.rpn.post_nms_test}",
        "small": text("R", small),
        "box_head": f"class logits {text('R', logits)}\ndeltas {text('R', box_deltas)}",
        "large": text("D", large),
        "mask_head": f"logits {text('D', masks)}",
        "detections": f"boxes (D, 4), D up to {roi.detections}",
    }


def text(first: str, array: np.ndarray) -> str:
    return f"({', '.join([first, *map(str, array.shape[1:])])})"


def draw_features(ax: Axes, shapes: dict[str, str]) -> None:
    """Left column: from the images to the pyramid."""
    box(ax, LEFT, 14, 52, "Images", "uint8 (H, W, 3), any sizes", GREY)
    box(ax, LEFT, 94, 52, "Normalise, resize, pad", shapes["pixels"], GREY)
    box(ax, LEFT, 174, 110, "Backbone (ResNet)", shapes["bottom_up"], SKY)
    box(ax, LEFT, 312, 130, "Feature pyramid (FPN)", shapes["pyramid"], BLUE)
    for top, bottom in ((66, 94), (146, 174), (284, 312)):
        arrow(ax, (128, top), (128, bottom))


def draw_regions(ax: Axes, shapes: dict[str, str]) -> None:
    """Middle column: from the pyramid to the masks; beside the proposals the anchors."""
    stages = [
        (14, 72, "RPN head", shapes["rpn"], GREEN),
        (138, 72, "Proposals", f"move anchors, clip, suppress (NMS)\n{shapes['proposals']}", GREEN),
        (262, 72, "RoI Align 7 x 7", f"from P2 to P5, by the size of the box\n{shapes['small']}", ORANGE),
        (376, 72, "Box head", shapes["box_head"], RED),
        (490, 72, "Detection", f"refine, suppress class by class\n{shapes['detections']}", RED),
        (614, 72, "RoI Align 14 x 14", f"at the refined boxes\n{shapes['large']}", ORANGE),
        (728, 52, "Mask head", shapes["mask_head"], PINK),
        (822, 72, "Masks", "of its class, pasted into the image\n(D, H, W) bool", PINK),
    ]
    for top, height, title, below, colour in stages:
        box(ax, MIDDLE, top, height, title, below, colour)
    for (top, height, *_), (bottom, *_) in pairwise(stages):
        arrow(ax, (408, top + height), (408, bottom))
    # The pyramid is read three times.
    ax.plot([246, 264, 264], [377, 377, 50], color=BLUE, lw=2)
    ax.plot([264, 264], [377, 650], color=BLUE, lw=2)
    for y in (50, 298, 650):
        arrow(ax, (264, y), (282, y), BLUE)
    box(ax, RIGHT, 138, 72, "Anchors", f"{shapes['anchors']}, from the\nmaps' sizes alone", GREEN)
    arrow(ax, (574, 174), (534, 174), GREEN)


def draw_training(ax: Axes) -> None:
    """Right column: the five losses; and what training alone adds."""
    for top, height, names in (
        (20, 60, "loss_objectness\nloss_rpn_box_reg"),
        (382, 60, "loss_classifier\nloss_box_reg"),
        (728, 52, "loss_mask"),
    ):
        frame(ax, RIGHT, top, height, ORANGE, dashed=True)
        middle = top + height / 2
        ax.text(642, middle, names, ha="center", va="center", fontsize=9.5, linespacing=1.5, zorder=6)
        arrow(ax, (534, middle), (574, middle), ORANGE, dashed=True)
    frame(ax, LEFT, 490, 178, ORANGE, dashed=True)
    ax.text(22, 502, "In training only", va="top", fontsize=11, weight="bold", zorder=6)
    lines = (
        "Targets: boxes (G, 4), labels (G,),\nmasks (G, H, W). Anchors and\nproposals are matched with\n"
        "them; a sample of each goes to\nthe losses. The mask head gets\n"
        "the sampled proposals that are\nobjects, not detections."
    )
    ax.text(22, 526, lines, va="top", fontsize=9.5, linespacing=1.4, zorder=6)
    notes = "N  images of the batch\nK  proposals of one image\nR  proposals of all images\nD  detections\n"
    notes += "G  objects of one image\n4  classes: background, 3 shapes\n4  also: the numbers of a box"
    ax.text(22, 690, notes, va="top", fontsize=9.5, linespacing=1.5)


def box(ax: Axes, column: tuple[int, int], top: int, height: int, title: str, below: str, colour: str) -> None:
    frame(ax, column, top, height, colour)
    middle = column[0] + column[1] / 2
    ax.text(middle, top + 8, title, ha="center", va="top", fontsize=11, weight="bold", zorder=6)
    ax.text(middle, top + 28, below, ha="center", va="top", fontsize=9.5, linespacing=1.4, zorder=6)


def frame(ax: Axes, column: tuple[int, int], top: int, height: int, colour: str, dashed: bool = False) -> None:
    style = "round,pad=0,rounding_size=6"
    face = "white" if dashed else colour + "22"
    ax.add_patch(
        FancyBboxPatch(
            (column[0], top),
            column[1],
            height,
            style,
            facecolor=face,
            edgecolor=colour,
            linewidth=1.6,
            linestyle="--" if dashed else "-",
            mutation_aspect=1,
            zorder=4,
        )
    )


def arrow(ax: Axes, start: tuple, end: tuple, colour: str = "#222222", dashed: bool = False) -> None:
    line = {"arrowstyle": "-|>", "color": colour, "lw": 1.8, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 13}
    ax.annotate("", end, start, arrowprops=line | {"linestyle": "--" if dashed else "-"}, zorder=5)


if __name__ == "__main__":
    main()
