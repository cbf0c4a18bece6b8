"""A training run in a folder: progress, figures, checkpoints, and going on after a stop."""

import csv
import json
import math
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import numpy as np
from tqdm import tqdm

from .. import visualize
from ..config import Config, TrainingConfig, training_from_dict
from ..data.shapes import HELD_OUT, ShapesDataset
from ..errors import InputError
from ..evaluation import evaluate, format_table
from ..files import write_atomically
from ..mask_rcnn import MaskRCNN
from ..structures import Detections, Target
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint, save_model
from .loop import Trainer

LOSSES = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")
COUNTS = ("positive_anchors", "positive_rois")
COLUMNS = ("step", *LOSSES, "total", "gradient_norm", "lr", *COUNTS, "seconds")
FILES = ("config.json", "metrics.csv", "checkpoint.npz", "model.npz", "curves.png", "detections.png")
HELD_OUT_SCENES = 200
BAR_INTERVAL = 0.1 if sys.stderr.isatty() else 30
"""Seconds between two states of a progress bar: in a log file, where each is a line, seldom."""


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
            finite.
        Stopped: on Ctrl-C.
    """
    saved = load_run(out) if resume else None
    if saved is None:
        refuse_to_overwrite(out)
    else:
        network, config = saved.config, training_from_dict(saved.training)
    model = MaskRCNN(network, np.random.default_rng((config.seed, 0, 3))).to(device)
    length = config.images or None
    trainer = Trainer(model, ShapesDataset(config.seed, length), length, config)
    if saved is not None:
        trainer.restore(saved)
    make_folder(out)
    if saved is None:  # before all else, so that a run can be resumed whenever it is killed
        save_checkpoint(trainer.checkpoint(asdict(config)), out / "checkpoint.npz")
    settings = {"network": network.to_dict(), "training": asdict(config)}
    _write_text(out / "config.json", json.dumps(settings, indent=2) + "\n")
    keep_metrics(out / "metrics.csv", trainer.steps_done)
    run_steps(trainer, out)
    save_model(model, out / "model.npz")
    return report(model, config.seed, out)


def load_run(out: Path) -> Checkpoint:
    """The last checkpoint of the run in ``out``.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = out / "checkpoint.npz"
    if not os.path.isfile(path):
        raise InputError(f"{out} holds no run to go on with (no checkpoint.npz): leave --resume out to start one")
    return load_checkpoint(path)


def refuse_to_overwrite(out: Path) -> None:
    """Raise an InputError if ``out`` holds files that a new run would write."""
    if os.path.exists(out / "checkpoint.npz"):
        raise InputError(f"{out} holds a run already: add --resume to go on with it, or choose another folder")
    for name in FILES:
        if os.path.exists(out / name):
            raise InputError(f"{out} holds a file {name}, which this run would overwrite: choose another folder")


def run_steps(trainer: Trainer, out: Path) -> None:
    """Step until the run's end, with a progress bar; write figures and checkpoints on the way.

    Raises:
        InputError: a loss was not finite, or a file cannot be written.
        Stopped: on Ctrl-C, after the step in hand; everything is on disk.
    """
    config = trainer.config
    bar = tqdm(
        total=config.steps,
        initial=trainer.steps_done,
        desc="training",
        unit="step",
        dynamic_ncols=True,
        mininterval=BAR_INTERVAL,
    )
    with bar, _rows(out / "metrics.csv") as write_row, _interruptions() as interrupted:
        while trainer.steps_done < config.steps:
            row = trainer.step()
            write_row(row)  # before the checkpoint: a row too many is dropped on resuming, one too few is lost
            bar.update()
            bar.set_postfix_str(
                f"loss {row['total']:.3f} (class {row['loss_classifier']:.3f} box {row['loss_box_reg']:.3f} "
                f"mask {row['loss_mask']:.3f} rpn {row['loss_objectness'] + row['loss_rpn_box_reg']:.3f})",
                refresh=False,
            )
            stop = interrupted()  # asked once: Ctrl-C may come between two questions
            if stop or trainer.steps_done % config.checkpoint_every == 0 or trainer.steps_done == config.steps:
                save_checkpoint(trainer.checkpoint(asdict(config)), out / "checkpoint.npz")
            if stop:
                raise Stopped(f"stopped after step {trainer.steps_done}; go on with --resume")


def report(model: MaskRCNN, seed: int, out: Path) -> str:
    """Draw curves.png and detections.png, and measure AP on held-out scenes.

    Returns:
        The AP table.
    """
    rows = read_metrics(out / "metrics.csv")
    metrics = {name: np.array([float(row[name]) for row in rows]) for name in COLUMNS}
    visualize.save(visualize.show_curves(metrics), out / "curves.png")
    scenes = ShapesDataset(seed, HELD_OUT_SCENES, first=HELD_OUT)
    detections, targets = detect_all(model, scenes)
    images = [scenes[i][0] for i in range(min(6, len(scenes)))]
    shown = [found.above(visualize.SHOWN_SCORE) for found in detections[: len(images)]]
    figure = visualize.show_detections(images, targets[: len(images)], shown, scenes.classes)
    visualize.save(figure, out / "detections.png")
    return format_table(evaluate(detections, targets, scenes.classes), scenes.classes)


def detect_all(model: MaskRCNN, scenes: ShapesDataset, batch_size: int = 8) -> tuple[list[Detections], list[Target]]:
    """Run the network over a data set: its detections and the truth, image by image."""
    detections: list[Detections] = []
    targets: list[Target] = []
    starts = range(0, len(scenes), batch_size)
    for start in tqdm(starts, desc="evaluating", unit="batch", leave=False, mininterval=BAR_INTERVAL):
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
    check_writable(path)


def check_writable(folder: Path) -> None:
    """Raise an InputError unless files can be written into ``folder``."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cannot write into the folder {folder}: {error.strerror}") from None


def keep_metrics(path: Path, steps: int) -> None:
    """Leave the header and the rows up to ``steps`` in metrics.csv: what came after the checkpoint is done again."""
    rows = read_metrics(path) if steps and os.path.exists(path) else []
    kept = [row for row in rows if float(row["step"]) <= steps]
    _write_text(path, "".join(",".join(line) + "\n" for line in [COLUMNS, *(row.values() for row in kept)]))


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, each ``{column: text of a number}``. A last row that was cut off is left out.

    Raises:
        InputError: the file cannot be read or has other columns.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    if tuple(header) != COLUMNS:
        raise InputError(f"{path} is no table of a training run: its first line must be {','.join(COLUMNS)}")
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows if _is_whole(row)]


def _is_whole(row: list[str]) -> bool:
    try:
        return len(row) == len(COLUMNS) and all(math.isfinite(float(text)) for text in row)
    except ValueError:
        return False


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"


@contextmanager
def _rows(path: Path) -> Iterator[Callable[[dict[str, float]], None]]:
    """Inside, each call appends a row to metrics.csv, to be seen there at once."""

    def write_row(row: dict[str, float]) -> None:
        file.write(",".join(_short(row[name]) for name in COLUMNS) + "\n")

    try:
        with open(path, "a", encoding="utf-8", newline="", buffering=1) as file:
            yield write_row
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


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
