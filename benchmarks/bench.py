"""Time every operation, a whole training step and inference; beside PyTorch's operations where torch is installed.

    make bench

Medians over several runs. GFLOP/s count multiplications and additions of the matrix products alone, and are set against
this machine's own product of two large float32 matrices. Where torch is there, its turn comes right after ours each
time (A B A B), on as many threads.
"""

import os
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mrcnn_scratch import ops
from mrcnn_scratch.backend import keep_freed_memory, workers
from mrcnn_scratch.config import TrainingConfig
from mrcnn_scratch.data.shapes import ShapesDataset
from mrcnn_scratch.mask_rcnn import MaskRCNN
from mrcnn_scratch.nms import nms
from mrcnn_scratch.train import Trainer
from mrcnn_scratch.weights import load_shapes

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]

RNG = np.random.default_rng(0)


class Case(NamedTuple):
    """One line of the table."""

    name: str
    gflop: float
    ours: Callable[[], Any]
    torchs: Callable[[], Any] | None = None


def main() -> None:
    keep_freed_memory()
    print(f"{os.cpu_count()} cores, NumPy {np.__version__}, {torch_version()}")
    speed = sgemm_speed()
    print(f"sgemm 2048 x 2048 x 2048: {speed:.0f} GFLOP/s\n")
    print(f"{'operation, forward and backward':44}{'ms':>8}{'GFLOP/s':>9}{'of sgemm':>9}{'torch ms':>10}{'ratio':>7}")
    for case in cases():
        print(row(case, speed))
    print()
    whole_step()
    inference()


def torch_version() -> str:
    if torch is None:
        return "PyTorch not installed"
    torch.set_num_threads(os.cpu_count() or 1)
    return f"PyTorch {torch.__version__}"


def sgemm_speed() -> float:
    a = RNG.standard_normal((2048, 2048), dtype=np.float32)
    return 2 * 2.048**3 / min(seconds(lambda: a @ a) for _ in range(7))


def row(case: Case, speed: float) -> str:
    case.ours()
    ours, theirs = [], []
    for _ in range(9):
        ours.append(seconds(case.ours))
        if torch is not None and case.torchs is not None:
            theirs.append(seconds(case.torchs))
    median = statistics.median(ours)
    line = f"{case.name:44}{1e3 * median:8.2f}"
    line += f"{case.gflop / median:9.0f}{case.gflop / median / speed:9.0%}" if case.gflop else " " * 18
    if theirs:
        their_median = statistics.median(theirs)
        line += f"{1e3 * their_median:10.2f}{median / their_median:7.2f}"
    return line


def cases() -> list[Case]:
    """The shapes that a training step of the configuration ``shapes`` has."""
    return [
        convolution("conv 3x3 64-64, mask head (128, 14, 14)", (128, 14, 14, 64), 64, 3, 1),
        convolution("conv 3x3 64-64, P2 (8, 32, 32)", (8, 32, 32, 64), 64, 3, 1),
        convolution("conv 3x3 3-16 stride 2, stem (8, 128, 128)", (8, 128, 128, 3), 16, 3, 2),
        convolution("conv 3x3 64-128 stride 2 (8, 8, 8)", (8, 8, 8, 64), 128, 3, 2),
        convolution("conv 1x1 64-4, mask logits (128, 28, 28)", (128, 28, 28, 64), 4, 1, 1),
        transposed("transposed conv 2x2 64-64 (128, 14, 14)", (128, 14, 14, 64)),
        fully_connected("linear 3136-256 (512)", 512, 3136, 256),
        normalisation("batch norm (8, 32, 32, 16)", (8, 32, 32, 16)),
        rectifier("relu (128, 28, 28, 64)", (128, 28, 28, 64)),
        region_align("RoI Align 7x7, 512 boxes (8, 32, 32, 64)", 512, 7),
        region_align("RoI Align 14x14, 128 boxes (8, 32, 32, 64)", 128, 14),
        suppression("NMS of 500 boxes", 500),
    ]


def convolution(name: str, shape: tuple[int, ...], features: int, kernel: int, stride: int) -> Case:
    x, w = normal(shape), normal((kernel, kernel, shape[3], features))
    padding = kernel // 2

    def ours() -> Any:
        y, backward = ops.conv2d(x, w, stride=stride, padding=padding)
        return backward(y)

    multiplications = ops.conv2d(x, w, stride=stride, padding=padding)[0].size * kernel**2 * shape[3]
    leaf = as_leaf(w, (3, 2, 0, 1)), as_leaf(x, (0, 3, 1, 2))
    return Case(
        name,
        6 * multiplications / 1e9,
        ours,
        lambda: back(torch.nn.functional.conv2d(leaf[1], leaf[0], stride=stride, padding=padding)),
    )


def transposed(name: str, shape: tuple[int, ...]) -> Case:
    x, w = normal(shape), normal((2, 2, shape[3], shape[3]))

    def ours() -> Any:
        y, backward = ops.conv_transpose2d(x, w, stride=2)
        return backward(y)

    leaf = as_leaf(w, (2, 3, 0, 1)), as_leaf(x, (0, 3, 1, 2))
    return Case(
        name,
        6 * x.size * 4 * shape[3] / 1e9,
        ours,
        lambda: back(torch.nn.functional.conv_transpose2d(leaf[1], leaf[0], stride=2)),
    )


def fully_connected(name: str, rows: int, inputs: int, features: int) -> Case:
    x, w = normal((rows, inputs)), normal((inputs, features))

    def ours() -> Any:
        y, backward = ops.linear(x, w)
        return backward(y)

    leaf = as_leaf(w, (1, 0)), as_leaf(x, (0, 1))
    return Case(
        name, 6 * rows * inputs * features / 1e9, ours, lambda: back(torch.nn.functional.linear(leaf[1], leaf[0]))
    )


def normalisation(name: str, shape: tuple[int, ...]) -> Case:
    x, w, b = normal(shape), normal(shape[3:]), normal(shape[3:])

    def ours() -> Any:
        (y, _, _), backward = ops.batch_norm(x, w, b)
        return backward(y)

    leaf = as_leaf(x, (0, 3, 1, 2)), as_leaf(w, (0,)), as_leaf(b, (0,))
    return Case(
        name,
        0,
        ours,
        lambda: back(torch.nn.functional.batch_norm(leaf[0], None, None, leaf[1], leaf[2], training=True)),
    )


def rectifier(name: str, shape: tuple[int, ...]) -> Case:
    x = normal(shape)

    def ours() -> Any:
        y, backward = ops.relu(x)
        return backward(y)

    leaf = as_leaf(x, (0, 3, 1, 2))
    return Case(name, 0, ours, lambda: back(torch.relu(leaf)))


def region_align(name: str, count: int, resolution: int) -> Case:
    features, boxes = normal((8, 32, 32, 64)), random_boxes(count)
    images = np.arange(count) % 8

    def ours() -> Any:
        y, backward = ops.roi_align(
            features,
            boxes,
            images,
            output_size=(resolution, resolution),
            spatial_scale=0.25,
            sampling_ratio=2,
        )
        return backward(y)

    return Case(name, 0, ours)


def suppression(name: str, count: int) -> Case:
    boxes, scores = random_boxes(count), RNG.random(count, dtype=np.float32)
    return Case(name, 0, lambda: nms(boxes, scores, 0.7))


def whole_step() -> None:
    """Median of a training step of 8 images, and how much of it are matrix products."""
    model = MaskRCNN()
    trainer = Trainer(model, ShapesDataset(0, 500), 500, TrainingConfig(lr=0.01, warmup=1))
    for _ in range(60):  # until the RPN finds objects: the mask head's work grows with them
        trainer.step()
    rows = [trainer.step() for _ in range(25)]
    positives = statistics.mean(row["positive_rois"] for row in rows)
    median = statistics.median(row["seconds"] for row in rows)
    products = matrix_product_share(trainer)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"training step, 8 images, {positives:.0f} positive RoIs: {1e3 * median:.0f} ms median")
    print(f"  matrix products: {products:.0%} of the cores' time")
    print(f"peak memory of this process so far: {peak:.0f} MB")


def matrix_product_share(trainer: Trainer, steps: int = 10) -> float:
    """Share of the cores' time in a step that is spent inside ``matmul``, measured by wrapping it.

    Threads multiply side by side, so the sum over threads is set against the time of all cores.
    """
    inside = 0.0
    original = np.matmul

    def timed(*args: Any, **kwargs: Any) -> Any:
        nonlocal inside
        start = time.perf_counter()
        result = original(*args, **kwargs)
        inside += time.perf_counter() - start
        return result

    np.matmul = timed  # type: ignore[assignment]
    try:
        total = sum(trainer.step()["seconds"] for _ in range(steps))
    finally:
        np.matmul = original
    return inside / (total * workers(trainer.model.like))


def inference() -> None:
    """Per image, with the trained network: an untrained one finds a hundred objects everywhere."""
    model, scenes = load_shapes(), ShapesDataset(0, 40, first=10**9)
    images = [scenes[i][0] for i in range(40)]
    for batch_size in (1, 8):
        batches = [images[i : i + batch_size] for i in range(0, 40, batch_size)]
        model.detect(batches[0])
        times = [seconds(lambda b=batch: model.detect(b)) / batch_size for batch in batches for _ in range(3)]
        print(f"inference, {batch_size} at a time: {1e3 * statistics.median(times):.1f} ms an image")


def normal(shape: tuple[int, ...]) -> Any:
    return RNG.standard_normal(shape, dtype=np.float32)


def random_boxes(count: int) -> Any:
    centre, size = RNG.uniform(20, 108, (count, 2)), RNG.uniform(40, 64, (count, 2))
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32)


def as_leaf(array: Any, order: tuple[int, ...]) -> Any:
    return None if torch is None else torch.from_numpy(array.transpose(order).copy()).requires_grad_()


def back(y: Any) -> None:
    y.backward(y.detach())


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
