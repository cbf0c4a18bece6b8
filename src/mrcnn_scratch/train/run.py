"""A training run in a folder: progress, figures, checkpoints, and going on after a stop."""

import csv
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from tqdm import tqdm

from .. import visualize
from ..config import Config, TrainingConfig
from ..data.shapes import HELD_OUT, ShapesDataset
from ..errors import InputError
from ..evaluation import evaluate, format_table
from ..mask_rcnn import MaskRCNN
from ..structures import Detections, Target
from .checkpoint import load_checkpoint, save_checkpoint, save_model, write_atomically
from .loop import Trainer

LOSSES = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")
COUNTS = ("positive_anchors", "positive_rois")
COLUMNS = ("step", *LOSSES, "total", "gradient_norm", "lr", *COUNTS, "seconds")
HELD_OUT_SCENES = 200


class Stopped(Exception):
    """The user pressed Ctrl-C; the step was finished and the checkpoint written."""


def train(out: Path, network: Config, config: TrainingConfig, *, device: str = "cpu", resume: bool = False) -> str:
    """Train on toy shapes, leaving in ``out`` config.json, metrics.csv, checkpoint.npz, model.npz, curves.png,
    detections.png.

    Args:
        out: the folder, made if need be.
        network: configuration of a new network; a resumed one has its own.
        config: of the run.
        device: "cpu" or "gpu".
        resume: go on from the checkpoint in ``out``.

    Returns:
        The AP table on held-out scenes.

    Raises:
        InputError: the folder cannot be written to, holds a run already, or holds none to resume; or a loss was not
        finite. Stopped: on Ctrl-C.
    """
    checkpoint_file = out / "checkpoint.npz"
    make_folder(out)
    if checkpoint_file.exists() and not resume:
        raise InputError(f"{out} holds a run already: add --resume to go on with it, or choose another folder")
    if resume:
        checkpoint = load_checkpoint(checkpoint_file)
        network = checkpoint.config
        config = replace(config, **checkpoint.training)
    model = MaskRCNN(network, np.random.default_rng((config.seed, 0, 3))).to(device)
    length = config.images or None
    trainer = Trainer(model, ShapesDataset(config.seed, length), length, config)
    if resume:
        trainer.restore(checkpoint)
    settings = {"network": network.to_dict(), "training": asdict(config)}
    _write_text(out / "config.json", json.dumps(settings, indent=2) + "\n")
    keep_metrics(out / "metrics.csv", trainer.steps_done)
    run_steps(trainer, out)
    save_model(model, out / "model.npz")
    return report(model, config.seed, out)


def run_steps(trainer: Trainer, out: Path) -> None:
    """Step until the run's end, with a progress bar; write figures and checkpoints on the way."""
    config = trainer.config

    def save() -> None:
        save_checkpoint(trainer.checkpoint(asdict(config)), out / "checkpoint.npz")

    bar = tqdm(total=config.steps, initial=trainer.steps_done, desc="training", unit="step", dynamic_ncols=True)
    with bar, open(out / "metrics.csv", "a", newline="") as file, _interruptions() as interrupted:
        writer = csv.DictWriter(file, COLUMNS)
        while trainer.steps_done < config.steps:
            row = trainer.step()
            writer.writerow({name: _short(value) for name, value in row.items()})
            bar.update()
            bar.set_postfix_str(
                f"loss {row['total']:.3f} (class {row['loss_classifier']:.3f} box {row['loss_box_reg']:.3f} "
                f"mask {row['loss_mask']:.3f} rpn {row['loss_objectness'] + row['loss_rpn_box_reg']:.3f})",
                refresh=False,
            )
            if interrupted() or trainer.steps_done % config.checkpoint_every == 0 or trainer.steps_done == config.steps:
                file.flush()
                save()
            if interrupted():
                raise Stopped(f"stopped after step {trainer.steps_done}; go on with --resume")


def report(model: MaskRCNN, seed: int, out: Path) -> str:
    """Draw curves.png and detections.png, and measure AP on held-out scenes.

    Returns:
        The AP table.
    """
    with open(out / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = {name: np.array([float(row[name]) for row in rows]) for name in COLUMNS}
    visualize.save(visualize.show_curves(metrics), out / "curves.png")
    scenes = ShapesDataset(seed, HELD_OUT_SCENES, first=HELD_OUT)
    detections, targets = detect_all(model, scenes)
    images = [scenes[i][0] for i in range(6)]
    figure = visualize.show_detections(images, targets[:6], detections[:6], scenes.classes)
    visualize.save(figure, out / "detections.png")
    return format_table(evaluate(detections, targets, scenes.classes), scenes.classes)


def detect_all(model: MaskRCNN, scenes: ShapesDataset, batch_size: int = 8) -> tuple[list[Detections], list[Target]]:
    """Run the network over a data set: its detections and the truth, image by image."""
    detections: list[Detections] = []
    targets: list[Target] = []
    for start in tqdm(range(0, len(scenes), batch_size), desc="evaluating", unit="batch", leave=False):
        examples = [scenes[i] for i in range(start, min(start + batch_size, len(scenes)))]
        detections += model.detect([image for image, _ in examples])
        targets += [target for _, target in examples]
    return detections, targets


def make_folder(path: Path) -> None:
    """Make a folder and make sure that it can be written to.

    Raises:
        InputError: it cannot.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror}") from None
    write_atomically(path / ".writable", lambda file: None)
    (path / ".writable").unlink()


def keep_metrics(path: Path, steps: int) -> None:
    """Leave the header and the rows up to ``steps`` in metrics.csv: what came after the checkpoint is done again."""
    kept: list[dict[str, Any]] = []
    if steps and path.exists():
        with open(path, newline="") as file:
            kept = [row for row in csv.DictReader(file) if (row["step"] or "").isdigit() and int(row["step"]) <= steps]
    lines = [",".join(COLUMNS), *(",".join(str(row.get(name, "")) for name in COLUMNS) for row in kept)]
    _write_text(path, "\n".join(lines) + "\n")


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"


@contextmanager
def _interruptions() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C is only noted, so that the step in hand is finished; a second one stops at once."""
    noted = False

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal noted
        if noted:
            raise KeyboardInterrupt
        noted = True

    try:
        old = signal.signal(signal.SIGINT, note)
    except ValueError:  # not in the main thread: Ctrl-C is somebody else's business
        yield lambda: False
        return
    try:
        yield lambda: noted
    finally:
        signal.signal(signal.SIGINT, old)
