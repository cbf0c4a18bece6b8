"""Looks on while the tests call a reader's function, and calls the package's own on the same inputs."""

import contextlib
import copy
import functools
import signal
from typing import Any, NamedTuple

import numpy as np

from mrcnn_scratch.stand_ins import FORMS, Written, line_in

OUTPUTS = {
    "precision_recall": ("precision", "recall"),
    "conv2d": ("y",),
    "roi_align": ("y",),
    "cross_entropy": ("loss",),
}
GRADIENTS = {"conv2d": ("dx", "dweight", "dbias"), "roi_align": ("dfeatures",), "cross_entropy": ("dlogits",)}


class Endless(KeyboardInterrupt):
    """A reader's function has had its time. Not an Exception: neither it nor the tests shall catch it."""


class Seen(NamedTuple):
    """One call of a reader's function that went wrong."""

    name: str
    inputs: dict[str, Any]
    expected: dict[str, Any]
    got: dict[str, Any]
    backward: bool

    @property
    def size(self) -> int:
        return sum(np.size(value) for value in self.inputs.values())


class Onlooker:
    """Stands around a reader's function.

    Attributes:
        calls: how often it was called.
        seen: the smallest call so far whose outcome was wrong: the easiest one to work out on paper.
        endless: the line at which its patience ended.
    """

    def __init__(self, written: Written, own: Any, patience: float) -> None:
        self.written, self.mine, self.own, self.patience = written, written.function, own, patience
        functools.update_wrapper(self, written.function)
        self.calls = 0
        self.seen: Seen | None = None
        self.endless: tuple[Seen, int | None] | None = None

    def __call__(self, *arrays: Any, **options: Any) -> Any:
        self.calls += 1
        form, name = FORMS[self.written.name], self.written.name
        inputs = copy.deepcopy({**dict(zip(form.by_place, arrays, strict=True)), **options})
        ours = self._ours(self.own, inputs.values(), form.by_place, options)
        call = Seen(name, inputs, {}, {}, backward=False)
        mine = self._watched(self.mine, call, ours, OUTPUTS.get(name, ("result",)), *arrays, **options)
        if name not in GRADIENTS or not (isinstance(mine, tuple) and len(mine) == 2 and callable(mine[1])):
            return mine
        y, mine_backward = mine
        own_backward = ours[1] if ours is not None else None

        def backward(dy: Any) -> Any:
            with_dy = {**inputs, "dy" if name != "cross_entropy" else "dloss": copy.deepcopy(dy)}
            gradients = self._ours(own_backward, [copy.deepcopy(dy)], ["dy"], {}) if own_backward else None
            call = Seen(name, with_dy, {}, {}, backward=True)
            return self._watched(mine_backward, call, gradients, GRADIENTS[name], dy)

        return y, backward

    def _ours(self, own: Any, values: Any, by_place: Any, options: dict[str, Any]) -> Any:
        with contextlib.suppress(Exception):  # inputs that ours does not take either
            return own(*copy.deepcopy(list(values)[: len(by_place)]), **options)
        return None

    def _watched(self, part: Any, call: Seen, ours: Any, names: tuple[str, ...], *arrays: Any, **options: Any) -> Any:
        expected = _named(ours, names)
        try:
            with _alarm(self.patience):
                result = part(*arrays, **options)
        except Endless as stop:
            self.endless = call._replace(expected=expected), line_in(self.written.path, stop)
            raise
        except Exception:
            self._note(call._replace(expected=expected))
            raise
        got = _named(result, names)
        wrong = [name for name in expected if name not in got or differs(expected[name], got[name])]
        if wrong:
            some = {name: expected[name] for name in wrong}
            self._note(call._replace(expected=some, got={name: got.get(name) for name in wrong}))
        return result

    def _note(self, call: Seen) -> None:
        if self.seen is None or call.size <= self.seen.size:
            self.seen = call


def differs(expected: Any, got: Any) -> bool:
    """Whether two results differ by more than rounding."""
    try:
        expected, got = np.asarray(expected), np.asarray(got)
        if expected.shape != got.shape:
            return bool(expected.size or got.size)
        if expected.dtype.kind != "f":
            return not np.array_equal(expected, got)
        allowed = 1e-11 if expected.dtype == np.float64 else 1e-5
        return not (np.abs(expected - got) <= allowed * max(np.abs(expected).max(initial=0), 1e-30)).all()
    except (TypeError, ValueError):
        return True


def _named(result: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The parts of what a function returned, by name; without the backward among them."""
    if isinstance(result, tuple) and len(result) == 2 and callable(result[1]):
        result = result[0]
    if result is None and names != ("result",):
        return {}
    parts = result if len(names) > 1 and isinstance(result, tuple | list) else (result,)
    return dict(zip(names, parts, strict=False))


@contextlib.contextmanager
def _alarm(seconds: float) -> Any:
    """Raise :class:`Endless` in what runs inside, when its time is over. Where there are no alarms, never."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ring(*_: Any) -> None:
        raise Endless

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
