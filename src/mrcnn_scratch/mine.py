"""A reader's own functions in the package's place: what the exercises are for.

    use_mine("exercises/nms.py")

and from then on every suppression in this process, in training as in detection, is done by the ``nms`` of that file. A
reader's function may know NumPy only and be slow. It gets host arrays, and what it returns is checked, brought to the
dtype and the device that the package works with, and refused in one line that names the file if it does not fit.
"""

import ast
import importlib
import inspect
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import InputError
from .stand_ins import FORMS, Written, at, line_in

EXERCISES: dict[str, tuple[str, ...]] = {
    "iou": ("box_iou",),
    "nms": ("nms",),
    "boxes": ("encode_boxes", "decode_boxes"),
    "anchors": ("cell_anchors", "place_anchors"),
    "matching": ("match",),
    "average_precision": ("precision_recall", "average_precision"),
    "cross_entropy": ("cross_entropy",),
    "conv2d": ("conv2d",),
    "roi_align": ("roi_align",),
}
"""What each exercise asks for. A file is named after its exercise: ``nms.py``."""


IN_USE: dict[str, Written] = {}
"""The readers' functions that stand in the package's place, by name."""

_PUT: dict[str, list[tuple[types.ModuleType, str, Any]]] = {}
"""By function, where something was put: module, name, and what stood there before."""


def use_mine(path: str | Path) -> list[str]:
    """Put a reader's functions in the package's place, everywhere in this process.

    Args:
        path: the file, named after its exercise, such as ``exercises/nms.py``.

    Returns:
        The names of the functions that were replaced. Of two that a file should hold, one may still be unwritten: the
        package's own then stays.

    Raises:
        InputError: there is no such file or exercise; it cannot be imported; a function is missing, takes other
            arguments, or none is written yet.
    """
    path = Path(path)
    if path.stem not in EXERCISES:
        raise InputError(f"{path}: there is no exercise {path.stem!r}: name the file after one: {', '.join(EXERCISES)}")
    names = EXERCISES[path.stem]
    unwritten = not_written(path)
    if set(names) <= set(unwritten):
        raise InputError(f"{path}, line {unwritten[names[0]]}: {' and '.join(names)}: not written yet")
    use_ours(*names)  # those of an earlier try: what the file itself imports from the package must be the package's
    module = _load(path)
    found = [Written(path, name, _function(module, path, name)) for name in names if name not in unwritten]
    for written in found:
        form = FORMS[written.name]
        own = getattr(importlib.import_module(form.module, __package__), written.name)
        if written.function is own:  # would meet its own stand-in when it calls its neighbours
            written.function = detached(own)
        for name, stand_in in form.stand_ins(written).items():
            _put(written.name, getattr(sys.modules[own.__module__], name), stand_in)
        IN_USE[written.name] = written
    return [written.name for written in found]


def use_ours(*names: str) -> None:
    """Put the package's own functions back: those of ``names``, or all."""
    for name in names or tuple(_PUT):
        for module, attribute, before in _PUT.pop(name, []):
            setattr(module, attribute, before)
        IN_USE.pop(name, None)


def not_written(path: Path) -> dict[str, int]:
    """The functions in a file that do nothing but raise NotImplementedError, and the line of each.

    Raises:
        InputError: the file cannot be read, or is not Python.
    """
    functions = [node for node in _parse(path).body if isinstance(node, ast.FunctionDef)]
    return {node.name: node.lineno for node in functions if _only_raises(node)}


def arguments(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of a function's arguments: those given by place, and those given by name."""
    return FORMS[name].by_place, FORMS[name].by_name


def detached(function: Callable[..., Any]) -> Callable[..., Any]:
    """A copy of one of the package's functions whose neighbours, as it sees them, stay those of now."""
    copy = types.FunctionType(
        function.__code__, dict(function.__globals__), function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _put(name: str, own: Any, stand_in: Any) -> None:
    """``stand_in`` wherever a module of the package has bound ``own``: modules import names, not each other."""
    package = sys.modules[__package__]
    for module_name, module in list(sys.modules.items()):
        if module_name != package.__name__ and not module_name.startswith(package.__name__ + "."):
            continue
        for attribute in [key for key, value in vars(module).items() if value is own]:
            setattr(module, attribute, stand_in)
            _PUT.setdefault(name, []).append((module, attribute, own))


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except SyntaxError as error:
        raise InputError(f"{path}, line {error.lineno}: this is not Python: {error.msg}") from None
    except ValueError as error:
        raise InputError(f"{path}: this is not Python: {error}") from None


def _load(path: Path) -> types.ModuleType:
    """The file as a module. Compiled anew each time, since a reader changes it and tries again."""
    module = types.ModuleType(f"mine_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses, for one, look for it
    try:
        exec(compile(_parse(path), str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{path}, line {line_in(path, error)}: importing it raised {type(error).__name__}: {error}"
        ) from error
    return module


def _function(module: types.ModuleType, path: Path, name: str) -> Callable[..., Any]:
    function = getattr(module, name, None)
    form = FORMS[name]
    wanted = ", ".join((*form.by_place, *(("*", *form.by_name) if form.by_name else ())))
    if not callable(function):
        raise InputError(f"{path}: there is no function {name}: write def {name}({wanted})")
    signature = inspect.signature(function)
    try:
        signature.bind(*form.by_place, **dict.fromkeys(form.by_name))
    except TypeError:
        raise InputError(
            f"{at(path, function)}: {name} takes {signature}, and should take ({wanted}) as in the exercise"
        ) from None
    return function  # type: ignore[no-any-return]


def _only_raises(function: ast.FunctionDef) -> bool:
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return len(body) == 1 and isinstance(body[0], ast.Raise) and "NotImplementedError" in ast.unparse(body[0])
