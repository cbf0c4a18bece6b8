"""The command line: ``mrcnn-scratch train | evaluate | detect``."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import __version__, visualize
from .backend import keep_freed_memory
from .config import SHAPES, TrainingConfig
from .data.images import read_image
from .data.rle import encode_rle
from .data.shapes import HELD_OUT, ShapesDataset
from .errors import InputError
from .evaluation import evaluate, format_table
from .files import write_atomically
from .mask_rcnn import MaskRCNN
from .structures import Detections
from .train.run import Stopped, check_writable, detect_all, load_run, make_folder, train
from .weights import open_model


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when it went well, 2 when the input was wrong (one line says how), 130 when it was stopped by Ctrl-C.
    """
    options = build_parser().parse_args(arguments)
    keep_freed_memory()
    try:
        return int(options.run(options))
    except InputError as error:
        _complain(error)
        return 2
    except Stopped as stop:
        _complain(stop)
        return 130
    except KeyboardInterrupt:
        _complain("stopped")
        return 130


def _complain(reason: object) -> None:
    """One line, whatever the reason holds: a file's name may hold line ends."""
    print("mrcnn-scratch:", " ".join(str(reason).split()), file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="mrcnn-scratch", description="Mask R-CNN written out by hand: train it, measure it, use it."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_evaluate(commands)
    _add_detect(commands)
    return parser


def _add_train(commands: Any) -> None:
    default = TrainingConfig()
    command = commands.add_parser(
        "train",
        help="train a network on toy shapes",
        description="Train a network from scratch on toy shapes. DIR then holds config.json, metrics.csv, "
        "checkpoint.npz, model.npz, curves.png and detections.png, and the AP on held-out scenes is printed.",
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for all that the run leaves")
    command.add_argument(
        "--steps", type=_at_least(1), metavar="N", help=f"updates of the weights (default {default.steps})"
    )
    command.add_argument(
        "--batch-size", type=_at_least(1), metavar="B", help=f"images per step (default {default.batch_size})"
    )
    command.add_argument(
        "--images",
        type=_at_least(0),
        metavar="N",
        help=f"scenes to train on; 0: fresh scenes for ever (default {default.images})",
    )
    command.add_argument(
        "--seed", type=_at_least(0), metavar="S", help=f"decides every random choice (default {default.seed})"
    )
    command.add_argument("--lr", type=_positive, metavar="RATE", help=f"highest learning rate (default {default.lr})")
    command.add_argument("--schedule", choices=("cosine", "step"), help=f"how it falls (default {default.schedule})")
    command.add_argument(
        "--resume", action="store_true", help="go on with the run in DIR, to the same weights, bit for bit"
    )
    _add_device(command)
    command.set_defaults(run=_train)


def _add_evaluate(commands: Any) -> None:
    command = commands.add_parser(
        "evaluate",
        help="measure AP on held-out toy scenes",
        description="COCO AP of boxes and masks on toy scenes that no training run has seen.",
    )
    _add_model(command)
    command.add_argument("--images", type=_at_least(1), default=200, metavar="N", help="scenes (default %(default)s)")
    command.add_argument("--seed", type=_at_least(0), default=0, metavar="S", help="which scenes (default %(default)s)")
    command.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    _add_device(command)
    command.set_defaults(run=_evaluate)


def _add_detect(commands: Any) -> None:
    command = commands.add_parser(
        "detect",
        help="find the objects in pictures",
        description="For every IMAGE, DIR gets the detections in COCO results form (.json), and an overlay (.png) of "
        f"those with a score of {visualize.SHOWN_SCORE} or more.",
    )
    _add_model(command)
    command.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="any picture that Pillow reads")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for overlays and results")
    _add_device(command)
    command.set_defaults(run=_detect)


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "model",
        metavar="MODEL",
        help="a .npz that train wrote, a .pth of torchvision, or 'shapes': the network that comes with the package",
    )


def _add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--device", choices=("cpu", "gpu"), default="cpu", help="where to compute (default %(default)s)"
    )


def _train(options: argparse.Namespace) -> int:
    names = {field.name for field in fields(TrainingConfig)}
    given = {name: value for name, value in vars(options).items() if name in names and value is not None}
    config = replace(TrainingConfig(), **given)
    if options.resume:
        _check_unchanged(options.out, given)
    print(train(options.out, SHAPES, config, device=options.device, resume=options.resume))
    print(f"\nDetections beside the truth: {options.out / 'detections.png'}\nCurves: {options.out / 'curves.png'}")
    return 0


def _check_unchanged(out: Path, given: dict[str, Any]) -> None:
    """A resumed run has its settings; refuse others, which would make it another run."""
    saved = load_run(out).training
    for name, value in given.items():
        if saved.get(name) != value:
            option = "--" + name.replace("_", "-")
            raise InputError(
                f"the run in {out} has {option} {saved.get(name)}, not {value}: leave {option} out to go on with it"
            )


def _evaluate(options: argparse.Namespace) -> int:
    model = _model(options)
    scenes = ShapesDataset(options.seed, options.images, first=HELD_OUT)
    if len(model.config.classes) != len(scenes.classes):
        raise InputError(
            f"{options.model} knows {len(model.config.classes)} classes; toy scenes have {len(scenes.classes)}"
        )
    if options.json is not None:  # better known now than after minutes of work
        if options.json.is_dir():
            raise InputError(f"cannot write {options.json}: it is a folder")
        check_writable(options.json.parent)
    result = evaluate(*detect_all(model, scenes), scenes.classes)
    print(format_table(result, scenes.classes))
    if options.json is not None:
        _write_json(options.json, _nan_to_none(result))
    return 0


def _detect(options: argparse.Namespace) -> int:
    model = _model(options)
    names = _output_names(options.images, options.out)
    make_folder(options.out)
    failures = 0
    for path, name in zip(options.images, names, strict=True):
        try:
            image = read_image(path)
        except InputError as error:
            _complain(error)
            failures += 1
            continue
        found = model.detect([image])[0]
        shown = found.above(visualize.SHOWN_SCORE)
        picture = Image.fromarray(visualize.overlay(image, shown, model.config.classes))
        write_atomically(options.out / f"{name}.png", lambda file, p=picture: p.save(file, "PNG"))  # type: ignore[misc]
        _write_json(options.out / f"{name}.json", coco_results(found, path.name))
        counts = ", ".join(
            f"{n} {model.config.classes[k - 1]}"
            for k, n in zip(*np.unique(shown.labels, return_counts=True), strict=True)
        )
        print(f"{path}: {counts or 'nothing found'}")
    return 2 if failures else 0


def coco_results(found: Detections, image_id: str | int) -> list[dict[str, Any]]:
    """Detections in COCO's results form: boxes as x, y, width, height, masks as compressed run lengths."""
    rows = []
    for (x1, y1, x2, y2), label, score, mask in zip(
        found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), found.masks, strict=True
    ):
        rows.append(
            {
                "image_id": image_id,
                "category_id": label,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
                "segmentation": encode_rle(mask),
            }
        )
    return rows


def _output_names(images: Sequence[Path], out: Path) -> list[str]:
    """One name per image: its own without the ending, or with it where two would meet."""
    stems = [path.stem for path in images]
    names = [path.name if stems.count(path.stem) > 1 else path.stem for path in images]
    if len(set(names)) < len(names):
        raise InputError("two images have the same name: detect them into different folders")
    for path, name in zip(images, names, strict=True):
        if path.resolve() == (out / f"{name}.png").resolve():
            raise InputError(f"the overlay would overwrite {path}: choose another --out")
    return names


def _model(options: argparse.Namespace) -> MaskRCNN:
    return open_model(options.model).to(options.device)


def _nan_to_none(value: Any) -> Any:
    """JSON has no NaN, which is the AP of a class without objects."""
    if isinstance(value, dict):
        return {key: _nan_to_none(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def _at_least(lowest: int) -> Any:
    def whole_number(text: str) -> int:
        if not text.isdecimal() or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"must be a whole number, at least {lowest}, not {text!r}")
        return int(text)

    return whole_number


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())
