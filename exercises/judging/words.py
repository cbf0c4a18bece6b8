"""What the judge says, in words."""

import ast
import inspect
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from .onlooker import Seen, differs

ROOT = Path(__file__).resolve().parents[2]

ALL_SHOWN, ALL_SHOWN_DEEP = 80, 24
"""Arrays of more numbers than this are not printed: tables, and what has more than two axes and is hard to read."""

SPELLED = {"iou": "IoU", "pytorch's": "PyTorch's"}
"""What the name of a test cannot spell."""

HINTS = {
    "read-only": "An input must not be written to: make a copy first, such as x = x.copy().",
    "RuntimeWarning": "NumPy's warnings count as mistakes here: look for a division by 0 or a number too large.",
    "is not defined": "Is a name misspelled, or an import missing?",
}


def title(name: str, parameters: dict[str, Any], numbers: dict[str, int]) -> str:
    """A check in words, from the name of its test and what it is run with."""
    words = name.removeprefix("test_").replace("_s_", "'s ").replace("_", " ")
    words = words[:-2] + "'s" if words.endswith(" s") else words
    words = " ".join(SPELLED.get(word, word) for word in words.split())
    shown = []
    for key, value in parameters.items():
        if key == "xp" or (key == "name" and isinstance(value, str)):
            continue
        simple = isinstance(value, str | int | float | bool | tuple)
        shown.append(f"{key} = {value}" if simple else f"{key} {numbers[key] + 1}")
    return words[:1].upper() + words[1:] + (f" ({', '.join(shown)})" if shown else "")


def documentation(function: Any) -> str:
    """What a test says about itself."""
    return " ".join((inspect.getdoc(function) or "").split())


def example(path: Path, name: str) -> str:
    """The example in the docstring of a function of a file."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            _, _, after = (ast.get_docstring(node) or "").partition("Example")
            return textwrap.dedent(after.partition(":\n")[2].split("\n\n")[0]).rstrip()
    return ""


def statement(path: Path, line: int) -> str:
    """The statement of a file that a line belongs to, at most six lines of it."""
    source = path.read_text("utf-8")
    covering = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    if not covering:
        return ""
    innermost = max(covering, key=lambda node: node.lineno)
    lines = source.splitlines()[innermost.lineno - 1 : innermost.end_lineno]
    lines = lines if len(lines) <= 6 else [*lines[:5], "    ..."]
    return textwrap.dedent("\n".join(lines))


def shown(path: Path) -> str:
    """A path as short as it goes."""
    path = path.resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def call_in_words(seen: Seen) -> str:
    """The inputs of a call, what was expected and what came."""
    called = f"{seen.name}({', '.join(k for k in seen.inputs if k not in ('dy', 'dloss'))})"
    lines = [f"called: {called}" + (", and then its backward" if seen.backward else ""), "with"]
    lines += [_entry(name, value) for name, value in seen.inputs.items()]
    if seen.expected:
        differences = {}
        if seen.got:
            differences = {name: _first_difference(value, seen.got[name]) for name, value in seen.expected.items()}
        lines += ["expected", *(_entry(name, value, differences.get(name)) for name, value in seen.expected.items())]
    if seen.got:
        lines += ["got", *(_entry(name, value, differences.get(name)) for name, value in seen.got.items())]
    return "\n".join(lines)


def hint(text: str) -> str:
    """What to do about an error message that everybody meets once."""
    return next((advice for key, advice in HINTS.items() if key in text), "")


def _entry(name: str, value: Any, place: tuple[int, ...] | None = None) -> str:
    return textwrap.indent(f"{name} = " + textwrap.indent(_shown(value, place), " " * (len(name) + 3)).lstrip(), "    ")


def _shown(value: Any, place: tuple[int, ...] | None = None) -> str:
    """Small arrays as they are, and without the axes of length 1 that only make brackets; of large ones the shape."""
    if not isinstance(value, np.ndarray | list | tuple) or (isinstance(value, tuple) and len(value) < 5):
        return repr(value.item() if isinstance(value, np.generic) else value)
    try:
        array = np.asarray(value)
    except ValueError:
        return repr(value)
    squeezed = array.squeeze() if array.ndim > 2 else array
    if is_large(array):
        text = f"an array of shape {array.shape}"
        return f"{text}; at {list(place)} it is {array[place]!s}" if place is not None else text
    with np.printoptions(precision=6, suppress=bool(array.size) and _moderate(array), floatmode="maxprec"):
        text = np.array2string(squeezed, separator=", ")
    if array.size == 0:
        return f"nothing, of shape {array.shape}"
    return text if squeezed.shape == array.shape else f"{text}    (shape {array.shape})"


def is_large(value: Any) -> bool:
    """Whether an array is shown by its shape alone."""
    return np.size(value) > (ALL_SHOWN if np.squeeze(value).ndim <= 2 else ALL_SHOWN_DEEP)


def _moderate(array: np.ndarray) -> bool:
    """Whether plain decimals show an array well."""
    if array.dtype.kind != "f":
        return True
    sizes = np.abs(array[np.isfinite(array) & (array != 0)])
    return not sizes.size or bool(sizes.min() > 1e-4 and sizes.max() < 1e6)


def _first_difference(expected: Any, got: Any) -> tuple[int, ...] | None:
    """Where two large arrays of one shape are furthest apart."""
    try:
        if np.shape(expected) != np.shape(got) or not is_large(expected) or not differs(expected, got):
            return None
    except ValueError:  # rows of different lengths
        return None
    apart = np.abs(np.asarray(expected, float) - np.asarray(got, float))
    return tuple(int(i) for i in np.unravel_index(np.nan_to_num(apart, nan=np.inf).argmax(), apart.shape))
