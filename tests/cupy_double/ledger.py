"""What crossed between host and device, and why something was refused."""

import sys
from pathlib import Path
from typing import NamedTuple

import mrcnn_scratch

PACKAGE = Path(mrcnn_scratch.__file__).parent


class Refused(TypeError):
    """Real CuPy raises here."""


class Undefined(AssertionError):
    """Real CuPy goes on here, with a result that nobody has promised."""


class Event(NamedTuple):
    """One crossing."""

    kind: str  # "wait": the host waits for the device; "copy": host to device; "index": a host array used as an index
    where: str  # "roi/pooler.py pool" for a line of the package; "" for one of the tests
    line: int


class Ledger:
    """The crossings since it was last cleared."""

    def __init__(self):
        self.events = []

    def clear(self):
        """Forget them."""
        self.events = []

    def record(self, kind, times=1):
        """Write down that the line of the package which is being run crossed over."""
        self.events += [Event(kind, *_caller())] * times

    def count(self, kind):
        """Crossings of one kind that the package caused, by place: ``{"nms.py nms": 1}``."""
        counts = {}
        for event in self.events:
            if event.kind == kind and event.where:
                counts[event.where] = counts.get(event.where, 0) + 1
        return counts


def _caller():
    """The innermost function of the package on the stack, other than backend.py's, which only passes things on."""
    frame = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE) and path.name != "backend.py":
            # A comprehension or a lambda is part of the function that it stands in.
            function = frame.f_code.co_qualname.replace(".<locals>", "").split(".<")[0].removesuffix(".<lambda>")
            return f"{path.relative_to(PACKAGE).as_posix()} {function}", frame.f_lineno
        frame = frame.f_back
    return "", 0


LEDGER = Ledger()
