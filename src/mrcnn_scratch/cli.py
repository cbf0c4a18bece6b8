"""The command line: ``mrcnn-scratch train | evaluate | detect | inspect | shapes``. What the commands do is in
``commands``."""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__, commands, visualize
from .backend import keep_freed_memory
from .config import OWN_IMAGES, OWN_TRAINING, TrainingConfig
from .errors import InputError
from .train.run import Stopped


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when it went well, 1 when ``inspect`` found something bad, 2 when the input was wrong (one line says how), 130
        when it was stopped by Ctrl-C.
    """
    options = build_parser().parse_args(arguments)
    keep_freed_memory()
    _print_what_cannot_be_printed()
    try:
        return int(options.run(options))
    except InputError as error:
        commands.complain(error)
        return 2
    except Stopped as stop:
        commands.complain(stop)
        return 130
    except KeyboardInterrupt:
        commands.complain("stopped")
        return 130
    except MemoryError:
        commands.complain("there is not enough memory: use smaller pictures, or fewer at a time (--help says how)")
        return 2
    except BrokenPipeError:  # | head
        sys.stderr.close()
        return 141


def _print_what_cannot_be_printed() -> None:
    """As escapes: a file's name need not be text, and a terminal need not know a class's letters."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="mrcnn-scratch", description="Mask R-CNN written out by hand: train it, measure it, use it."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_train, _add_evaluate, _add_detect, _add_inspect, _add_shapes):
        add(subparsers)
    return parser


def _add_train(subparsers: Any) -> None:
    shapes, own = TrainingConfig(), OWN_TRAINING
    command = subparsers.add_parser(
        "train",
        help="train a network on toy shapes, or on your own labelled pictures",
        description="Train a network on toy shapes, or with --data on your own pictures. DIR then holds config.toml, "
        "metrics.csv, checkpoint.npz, model.npz, curves.png and detections.png, and the AP on held-out images is "
        "printed. Where a default is different for your own pictures, it is given second.",
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for all that the run leaves")
    _add_data(command, "train on")
    command.add_argument(
        "--val-data", metavar="JSON", help="COCO instances file to measure on (default: that of --data)"
    )
    command.add_argument("--val-image-dir", metavar="DIR", help="folder of its pictures")
    command.add_argument("--start", metavar="MODEL", help="start from this network instead of random weights")
    command.add_argument("--config", type=Path, metavar="TOML", help="settings by name, such as a run's config.toml")
    numbers = {
        "--steps": (_at_least(1), "N", f"updates of the weights (default {shapes.steps}, {own.steps})"),
        "--batch-size": (_at_least(1), "B", f"images per step (default {shapes.batch_size}, {own.batch_size})"),
        "--images": (_at_least(0), "N", f"toy scenes; 0: fresh ones for ever (default {shapes.images})"),
        "--seed": (_at_least(0), "S", f"decides every random choice (default {shapes.seed})"),
        "--lr": (_positive, "RATE", f"learning rate before warm-up and schedule (default {shapes.lr}, {own.lr})"),
    }
    for name, (kind, metavar, text) in numbers.items():
        command.add_argument(name, type=kind, metavar=metavar, help=text)
    command.add_argument("--schedule", choices=("cosine", "step"), help=f"how it falls (default {shapes.schedule})")
    command.add_argument("--flip", action=argparse.BooleanOptionalAction, help="mirror half of the images (default)")
    command.add_argument(
        "--colours",
        action=argparse.BooleanOptionalAction,
        help="permute and negate colours (default on toy shapes, where they mean nothing)",
    )
    _add_sizes(command)
    command.add_argument(
        "--resume", action="store_true", help="go on with the run in DIR, to the same weights, bit for bit"
    )
    _add_device(command)
    _add_mine(command)
    command.set_defaults(run=commands.train)


def _add_evaluate(subparsers: Any) -> None:
    command = subparsers.add_parser(
        "evaluate",
        help="measure AP on held-out toy scenes, or on your own labelled pictures",
        description="COCO AP of boxes and masks: on toy scenes that no training run has seen, or with --data on yours.",
    )
    _add_model(command)
    _add_data(command, "measure on")
    command.add_argument("--images", type=_at_least(1), metavar="N", help="toy scenes (default 200)")
    command.add_argument("--seed", type=_at_least(0), metavar="S", help="which toy scenes (default 0)")
    command.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    command.add_argument("--results", type=Path, metavar="FILE", help="write every detection there, as COCO results")
    _add_device(command)
    _add_mine(command)
    command.set_defaults(run=commands.evaluate)


def _add_detect(subparsers: Any) -> None:
    command = subparsers.add_parser(
        "detect",
        help="find the objects in pictures",
        description="For every picture, DIR gets all detections in COCO results form (.json), and an overlay (.png) of "
        "those with at least the score asked for.",
    )
    _add_model(command)
    command.add_argument(
        "images", nargs="+", metavar="IMAGE", help="pictures, folders of pictures, or patterns such as 'a/*.jpg'"
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for overlays and results")
    command.add_argument(
        "--score",
        type=_probability,
        default=visualize.SHOWN_SCORE,
        metavar="S",
        help="the least score to draw, from 0 to 1 (default %(default)s)",
    )
    command.add_argument("--masks", action="store_true", help="also write each mask drawn as a black and white .png")
    _add_device(command)
    _add_mine(command)
    command.set_defaults(run=commands.detect)


def _add_inspect(subparsers: Any) -> None:
    command = subparsers.add_parser(
        "inspect",
        help="look at labelled pictures before a long run",
        description="Counts and sizes of the objects of a COCO instances file, how the anchors fit them, what is wrong "
        "with which annotation, and a sheet of pictures. Ends with 1 if something is wrong.",
    )
    command.add_argument("data", metavar="JSON", help="COCO instances file")
    command.add_argument("--image-dir", required=True, metavar="DIR", help="folder of its pictures")
    command.add_argument(
        "--sheet", type=Path, default=Path("contact-sheet.png"), metavar="PNG", help="the sheet (default %(default)s)"
    )
    command.add_argument("--config", type=Path, metavar="TOML", help="settings that training will have")
    _add_sizes(command)
    command.set_defaults(run=commands.inspect)


def _add_shapes(subparsers: Any) -> None:
    command = subparsers.add_parser(
        "shapes",
        help="write toy scenes as pictures and a COCO instances file",
        description="DIR gets images/000001.png, ... and annotations.json: the toy scenes for any other tool.",
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder that must not hold any yet")
    command.add_argument("--images", type=_at_least(1), default=100, metavar="N", help="how many (default %(default)s)")
    command.add_argument("--seed", type=_at_least(0), default=0, metavar="S", help="which (default %(default)s)")
    command.add_argument("--held-out", action="store_true", help="the scenes that evaluate measures on")
    command.set_defaults(run=commands.shapes)


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "model",
        metavar="MODEL",
        help="a .npz that train wrote, a .pth of torchvision, or 'shapes': the network that comes with the package",
    )


def _add_data(command: argparse.ArgumentParser, purpose: str) -> None:
    command.add_argument("--data", metavar="JSON", help=f"COCO instances file to {purpose} (default: toy shapes)")
    command.add_argument("--image-dir", metavar="DIR", help="folder of its pictures")
    command.add_argument("--skip-bad", action="store_true", default=None, help="leave out bad annotations and images")


def _add_sizes(command: argparse.ArgumentParser) -> None:
    low, high = OWN_IMAGES.transform.min_size, OWN_IMAGES.transform.max_size
    command.add_argument(
        "--min-size",
        type=_at_least(1),
        metavar="PIXELS",
        help=f"pictures are resized until their short side is this (default 128, {low}) ...",
    )
    command.add_argument(
        "--max-size", type=_at_least(1), metavar="PIXELS", help=f"... or their long side this (default 128, {high})"
    )


def _add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--device", choices=("cpu", "gpu"), default="cpu", help="where to compute (default %(default)s)"
    )


def _add_mine(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--mine",
        action="append",
        default=[],
        metavar="FILE",
        help="use the function of this exercise, such as exercises/nms.py, in place of the package's; may be given for "
        "several. A run does not remember it: give it again with --resume, evaluate and detect",
    )


def _at_least(lowest: int) -> Any:
    def whole_number(text: str) -> int:
        if not text.isdecimal() or not text.isascii() or len(text) > 18 or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"must be a whole number, at least {lowest}, not {text!r}")
        return int(text)

    return whole_number


def _positive(text: str) -> float:
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return value


def _probability(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, not {text!r}")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


if __name__ == "__main__":
    sys.exit(main())
