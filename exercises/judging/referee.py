"""Runs with the tests: chooses those of the exercise, looks on, and writes down in words what went wrong."""

import importlib
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mrcnn_scratch.mine import IN_USE, detached
from mrcnn_scratch.stand_ins import FORMS, MineError, line_in

from . import words
from .checks import OTHER_CASES
from .onlooker import Endless, Onlooker
from .words import shown


class Check(NamedTuple):
    """The outcome of one test."""

    title: str
    documentation: str
    passed: bool
    calls: int
    story: str  # why it failed


class Referee:
    """A plugin of pytest.

    Attributes:
        checks: the outcomes, in the order of the file.
        endless: the call that did not end, and the line it was at.
        broken: why no test could be run.
    """

    def __init__(self, path: Path, chosen: set[str], patience: float, first: bool) -> None:
        self.path, self.chosen, self.patience, self.first = path, chosen, patience, first
        self.checks: list[Check] = []
        self.broken = ""
        self.onlookers: list[Onlooker] = []

    @property
    def endless(self) -> Any:
        return next((onlooker.endless for onlooker in self.onlookers if onlooker.endless), None)

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if item.originalname in self.chosen and self._concerns_us(item)]
        for written in IN_USE.values():
            onlooker = Onlooker(written, _ORIGINALS[written.name], self.patience)
            written.function = onlooker
            self.onlookers.append(onlooker)

    def pytest_runtest_setup(self) -> None:
        for onlooker in self.onlookers:
            onlooker.calls, onlooker.seen = 0, None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: Any, call: Any) -> Any:
        report = yield
        if call.when == "call" or report.failed:
            if call.excinfo is None or not isinstance(call.excinfo.value, Endless):
                self._note(item, call, report)
            if report.failed and self.first:
                item.session.shouldstop = "first failure"
        return report

    def _concerns_us(self, item: Any) -> bool:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        return parameters.get("xp", "numpy") == "numpy" and parameters.get("name") not in OTHER_CASES

    def _note(self, item: Any, call: Any, report: Any) -> None:
        parameters, numbers = {}, {}
        if hasattr(item, "callspec"):
            parameters, numbers = item.callspec.params, item.callspec.indices
        story = "" if report.passed else self._story(item, call.excinfo, report.capstdout)
        self.checks.append(
            Check(
                words.title(item.originalname, parameters, numbers),
                "\n".join(textwrap.wrap(words.documentation(item.function), 100)),
                report.passed,
                sum(onlooker.calls for onlooker in self.onlookers),
                story,
            )
        )

    def _story(self, item: Any, excinfo: Any, printed: str) -> str:
        """What a failed test has to say: the call, what was expected, what came, and the line of the check."""
        error = excinfo.value
        seen = min(filter(None, (o.seen for o in self.onlookers)), key=lambda one: one.size, default=None)
        parts = [words.call_in_words(seen)] if seen else []
        if isinstance(error, MineError) and error.__cause__ is not None:
            parts.append(self._raised(error.__cause__))
        elif isinstance(error, MineError):
            parts.append(f"which will not do: {error}")
        elif not seen:
            reason = (str(error).splitlines() or ["this check fails"])[0]
            parts.append(f"What your function returned looks right, but: {reason}")
        parts.append(self._the_check(Path(item.path), error))
        if printed.strip():
            parts.append("your function printed, at the end:\n" + "\n".join(printed.strip().splitlines()[-5:]))
        return "\n".join(filter(None, parts))

    def _raised(self, cause: BaseException) -> str:
        line = line_in(self.path, cause)
        said = f"your function raised {type(cause).__name__}: {cause}"
        if line:
            said += f"\nat {shown(self.path)}, line {line}:\n    {words.statement(self.path, line).splitlines()[0]}"
        return "\n".join(filter(None, [said, words.hint(f"{type(cause).__name__}: {cause}")]))

    def _the_check(self, file: Path, error: BaseException) -> str:
        line = line_in(file, error)
        if line is None:
            return ""
        return f"the check ({shown(file)}, line {line}):\n" + textwrap.indent(words.statement(file, line), "    ")


_ORIGINALS: dict[str, Any] = {}
"""The package's own functions, as they were before a reader's took their places."""


def remember_originals() -> None:
    """To be called before a reader's functions are put in place."""
    for name, form in FORMS.items():
        _ORIGINALS[name] = detached(getattr(importlib.import_module(form.module, "mrcnn_scratch"), name))
