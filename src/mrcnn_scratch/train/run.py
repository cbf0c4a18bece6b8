"""A training run in a folder: progress, figures, checkpoints, and going on after a stop."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType

import numpy as np
from tqdm import tqdm

from .. import visualize
from ..config import Config, TrainingConfig, training_from_dict
from ..config_file import write_config
from ..errors import InputError
from ..evaluation import format_table
from ..files import alone_in, make_folder, remove_parts
from ..mask_rcnn import MaskRCNN
from ..measure import BAR_INTERVAL, measure
from ..weights import open_model
from ..weights.model_file import save_model
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .data import RunData, absolute, absolute_model, open_data
from .loop import Trainer
from .metrics import COLUMNS, appending, keep_metrics, read_metrics

FILES = ("config.toml", "metrics.csv", "checkpoint.npz", "model.npz", "curves.png", "detections.png")
EXAMPLES = 6


class Stopped(Exception):
    """The user pressed Ctrl-C; the step was finished and the checkpoint written."""


def train(
    out: Path,
    network: Config,
    config: TrainingConfig,
    *,
    device: str = "cpu",
    resume: bool = False,
    own_classes: bool = False,
) -> str:
    """Train, leaving in ``out`` config.toml, metrics.csv, checkpoint.npz, model.npz, curves.png, detections.png.

    Args:
        out: the folder, made if need be.
        network: configuration of a new network; a resumed one has its own.
        config: of the run.
        device: "cpu" or "gpu".
        resume: go on from the checkpoint in ``out``.
        own_classes: name the classes as the data does, whatever ``network`` says.

    Returns:
        The AP table on held-out images.

    Raises:
        InputError: the folder cannot be written to, holds a run already or is another's, or holds none to resume; the
            data are bad; or a loss was not finite.
        Stopped: on Ctrl-C.
    """
    saved = load_run(out) if resume else None
    if saved is None:
        refuse_to_overwrite(out)
        config = replace(config, data=absolute(config.data), start=absolute_model(config.start))
        _require_text(config)
    else:
        network, config = saved.config, training_from_dict(saved.training)
    data = open_data(config, None if own_classes and saved is None else network.classes)
    model = new_model(network, config, data) if saved is None else MaskRCNN(saved.config)
    trainer = Trainer(model.to(device), data.training, data.length, config)
    make_folder(out)  # only now: all that can be wrong beforehand leaves no trace
    with alone_in(out):
        remove_parts(out, FILES)
        if saved is not None:
            trainer.restore(load_run(out))  # again: another run may have gone on meanwhile
        else:  # before all else, so that a run can be resumed whenever it is killed
            refuse_to_overwrite(out)
            save_checkpoint(trainer.checkpoint(asdict(config)), out / "checkpoint.npz")
        write_config(out / "config.toml", model.config, config)
        keep_metrics(out / "metrics.csv", trainer.steps_done)
        run_steps(trainer, out)
        save_model(model, out / "model.npz")
        return report(model, data, out)


def _require_text(config: TrainingConfig) -> None:
    """Raise an InputError for a name in bytes that are no text: config.toml could not hold it."""
    for name in (config.start, *asdict(config.data).values()):
        if isinstance(name, str) and any("\ud800" <= character <= "\udfff" for character in name):
            raise InputError(f"the name {name!a} is not text in UTF-8: rename the file or folder")


def new_model(network: Config, config: TrainingConfig, data: RunData) -> MaskRCNN:
    """A network for the classes of ``data``: with fresh weights, or with those of the one that ``config`` starts from.

    Raises:
        InputError: ``network`` describes none that can be built, or there is none to start from.
    """
    rng = np.random.default_rng((config.seed, 0, 3))
    if not config.start:
        try:
            return MaskRCNN(replace(network, classes=data.measured.classes), rng)
        except (ValueError, ArithmeticError, LookupError, MemoryError) as error:  # -1 channels, for one
            raise InputError(f"configuration: there is no such network: {error}") from None
    source = open_model(config.start)
    model = MaskRCNN(replace(network, classes=source.config.classes), rng)
    try:
        model.load_state(source.state())
    except InputError as error:
        raise InputError(f"configuration: {config.start} is a network of other sizes: {error}") from None
    if source.config.classes != data.measured.classes:
        model.replace_predictors(data.measured.classes, rng)
    return model


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
    with bar, appending(out / "metrics.csv") as write_row, _interruptions() as interrupted:
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


def report(model: MaskRCNN, data: RunData, out: Path) -> str:
    """Draw curves.png and detections.png, and measure AP on the images set aside for that.

    Returns:
        The AP table.
    """
    rows = read_metrics(out / "metrics.csv")
    metrics = {name: np.array([float(row[name]) for row in rows]) for name in COLUMNS}
    visualize.save(visualize.show_curves(metrics), out / "curves.png")
    measured = measure(model, data.measured, batch_size=data.batch_size, examples=EXAMPLES, results=False)
    images, targets, found = zip(*measured.examples, strict=True)
    shown = [one.above(visualize.SHOWN_SCORE) for one in found]
    figure = visualize.show_detections(images, targets, shown, data.measured.classes)
    visualize.save(figure, out / "detections.png")
    table = format_table(measured.figures, data.measured.classes)
    if data.measured is data.training:
        table += "\nMeasured on the pictures that it was trained on: --val-data gives it others to be honest about."
    return table


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
