"""Time a training step and its parts on the CPU and on the GPU, in turns (A B A B).

    make test-gpu

Milliseconds, medians. The clock is stopped when the GPU has done the work, not when it has been told to.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mrcnn_scratch.backend import load_cupy, synchronise
from mrcnn_scratch.config import SHAPES, TrainingConfig
from mrcnn_scratch.data.shapes import ShapesDataset
from mrcnn_scratch.errors import InputError
from mrcnn_scratch.mask_rcnn import MaskRCNN
from mrcnn_scratch.train import Trainer

IMAGES = 8


def main() -> int:
    try:
        load_cupy()
    except InputError as error:
        print(f"NOTHING WAS TIMED ON A GPU: {error}")
        return 1
    print(table(MaskRCNN(SHAPES), MaskRCNN(SHAPES).to("gpu"), rounds=15))
    return 0


def table(on_cpu: MaskRCNN, on_gpu: MaskRCNN, rounds: int) -> str:
    """One line per part: its name, the CPU's time, the GPU's, and how many times faster the GPU was."""
    runs: dict[str, list[dict[str, float]]] = {"cpu": [], "gpu": []}
    measures = {"cpu": Measure(on_cpu), "gpu": Measure(on_gpu)}
    for _ in range(rounds + 2):
        for device, measure in measures.items():
            runs[device].append(measure.once())
    lines = [f"{f'training step of {IMAGES} images':34}{'CPU ms':>9}{'GPU ms':>9}{'ratio':>8}"]
    for part in runs["cpu"][0]:
        # The first rounds compile kernels and warm the caches.
        cpu, gpu = (1e3 * statistics.median(run[part] for run in runs[device][2:]) for device in ("cpu", "gpu"))
        lines.append(f"{part:34}{cpu:9.2f}{gpu:9.2f}{cpu / gpu:8.1f}")
    return "\n".join(lines)


class Measure:
    """Runs the parts of a step on one network."""

    def __init__(self, model: MaskRCNN) -> None:
        self.model = model
        self.trainer = Trainer(model, ShapesDataset(0, 64), 64, TrainingConfig(images=64, batch_size=IMAGES))
        self.images, self.targets = zip(*(ShapesDataset(0, IMAGES)[i] for i in range(IMAGES)), strict=True)

    def once(self) -> dict[str, float]:
        """Seconds by part."""
        model, times = self.model, {}

        def timed(name: str, part: Callable[[], Any]) -> Any:
            synchronise(model.like)
            start = time.perf_counter()
            result = part()
            synchronise(model.like)
            times[name] = time.perf_counter() - start
            return result

        model.set_training(True)
        batch = timed("images to batch", lambda: model.batch(self.images))
        features, backward_features = timed("backbone and pyramid, forward", lambda: model.features(batch.pixels))
        timed("backbone and pyramid, backward", lambda: backward_features([level * 0.01 for level in features]))
        (objectness, deltas), _ = timed("RPN head, forward", lambda: model.rpn(features))
        anchors = timed("anchors", lambda: model.anchors(features, batch.pixels))
        timed("proposals", lambda: model.proposals(objectness, deltas, anchors, batch))
        rng = np.random.default_rng(0)
        _, backward = timed("all losses, forward", lambda: model.losses(self.images, self.targets, rng))
        timed("all losses, backward", backward)
        timed("whole step", self.trainer.step)
        return times


if __name__ == "__main__":
    sys.exit(main())
