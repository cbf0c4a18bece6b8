"""Judge an exercise: python exercises/judge.py nms

The package's own tests of the function are run with yours in its place. What failed is told with the inputs, what was
expected and what your function gave.
"""

import argparse
import contextlib
import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SHOWN = 3
"""Failures that are told in full."""
TOTAL_SECONDS = 900


def main(arguments: list[str] | None = None) -> int:
    """0 if all checks pass, 1 if not."""
    parser = argparse.ArgumentParser(prog="judge.py", description="Judge an exercise: is your function right?")
    parser.add_argument("exercise", nargs="?", help="such as nms, or a file of that name: my/nms.py")
    parser.add_argument("--patience", type=float, default=10, metavar="S", help="seconds for one call (default 10)")
    parser.add_argument("--first", action="store_true", help="stop at the first failure")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # in this process
    options = parser.parse_args(arguments)
    if not options.exercise:
        return overview()
    path = Path(options.exercise) if options.exercise.endswith(".py") else HERE / f"{options.exercise}.py"
    if options.here:
        return judge(path, options.patience, options.first)
    from judging import words

    # In a process of its own: whatever happens in the reader's function, there is somebody left to tell.
    command = [sys.executable, __file__, "--here", str(path), "--patience", str(options.patience)]
    try:
        code = subprocess.run(command + ["--first"] * options.first, timeout=TOTAL_SECONDS).returncode
    except subprocess.TimeoutExpired:
        print(f"Stopped after {TOTAL_SECONDS // 60} minutes. Does a loop in {words.shown(path)} never end?")
        return 1
    except KeyboardInterrupt:
        return 130
    if code not in (0, 1):
        print(f"Python itself was ended while it ran {words.shown(path)} (exit code {code}). Does it call exit()?")
    return min(abs(code), 1)


def overview() -> int:
    """All exercises, and which are written."""
    from mrcnn_scratch.mine import EXERCISES, not_written

    print("make exercise NAME=...\n")
    for name, functions in EXERCISES.items():
        missing = not_written(HERE / f"{name}.py")
        state = "not written yet" if set(functions) <= set(missing) else "begun" if missing else "written"
        print(f"  {name:<18} {', '.join(functions):<36} {state}")
    return 0


def judge(path: Path, patience: float = 10, first: bool = False) -> int:
    """Judge the exercise in ``path``, in this process; print what there is to say. 0 if all checks pass, else 1."""
    from judging import words

    from mrcnn_scratch.errors import InputError
    from mrcnn_scratch.mine import EXERCISES, not_written, use_mine, use_ours

    names = EXERCISES.get(path.stem, ())
    try:
        missing = [name for name in not_written(path) if name in names] if names else []
        if names and len(missing) == len(names):
            print(f"{' and '.join(names)}: not written yet. Open {words.shown(path)}. This is what should come out:\n")
            for name in names:
                print("    " + words.example(path, name).replace("\n", "\n    ") + "\n")
            return 1
        use_mine(path)  # whatever is wrong with the file is said here; the tests will load it themselves
        use_ours()
    except InputError as error:
        print(error)
        return 1
    for name in missing:
        print(f"{name}: not written yet. Until it is, the package's own stands in for it.")
    began = time.monotonic()
    referee = run_tests(path, patience, first)
    if referee.endless:
        return tell_endless(path, referee)
    failed = [check for check in referee.checks if not check.passed]
    if not referee.checks or referee.broken:
        print(f"The checks could not be run: {referee.broken or 'none was found'}")
        return 1
    if failed:
        return tell_failures(path, failed, len(referee.checks))
    return tell_success(path, referee.checks, time.monotonic() - began, missing)


def run_tests(path: Path, patience: float, first: bool) -> Any:
    """The package's tests of an exercise, with the functions of ``path``."""
    import pytest
    from hypothesis.internal.conjecture import engine
    from judging.checks import CHECKS
    from judging.referee import Referee, remember_originals

    file, chosen = CHECKS[path.stem]
    referee = Referee(path, {f"test_{name}" for name in chosen.split()}, patience, first)
    options = [
        "-q",
        "--assert=plain",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-c",
        str(ROOT / "setup.cfg"),
        "--rootdir",
        str(ROOT),
    ]
    remember_originals()
    engine.MAX_SHRINKING_SECONDS = 3  # a reader's function may be slow, and a small enough example is soon found
    os.environ["MRCNN_SCRATCH_MINE"] = str(path)
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        code = pytest.main([*options, str(ROOT / file)], plugins=[referee])
    if code not in (0, 1, 2):
        referee.broken = said.getvalue().strip()[-2000:]
    return referee


def tell_endless(path: Path, referee: Any) -> int:
    from judging import words

    seen, line = referee.endless
    print(f"\nStopped: one call of {seen.name} took longer than {referee.patience:g} seconds. Does a loop never end?")
    if line:
        print(
            f"It was in {words.shown(path)}, line {line}:\n\n    " + words.statement(path, line).split("\n")[0] + "\n"
        )
    print(words.call_in_words(seen))
    return 1


def tell_failures(path: Path, failed: list[Any], count: int) -> int:
    print(f"\n{path.stem}: {len(failed)} of {count} checks failed.")
    for number, check in enumerate(failed[:SHOWN], start=1):
        print(f"\n{number}. {check.title}")
        print(indented("\n".join(filter(None, [check.documentation, check.story]))))
    if len(failed) > SHOWN:
        print(f"\n{len(failed) - SHOWN} more failed. Mend these first: the others often go with them.")
    print(f"\nThen again: make exercise NAME={path.stem}")
    return 1


def tell_success(path: Path, checks: list[Any], seconds: float, missing: list[str]) -> int:
    from judging import words

    print(f"\n{path.stem}: all {len(checks)} checks passed, in {seconds:.1f} seconds.\n")
    width = min(max(len(check.title) for check in checks), 80)
    print(f"    {'checked':<{width}}  calls")
    for check in checks:
        print(f"    {check.title[:80]:<{width}}  {check.calls:5}")
    if missing:
        print(f"\nNext: write {' and '.join(missing)}.")
        return 1
    print(f"\nNext, train with it:\n    .venv/bin/mrcnn-scratch train --out runs/mine --mine {words.shown(path)}")
    print("If yours loops over every number, that takes hours: exercises/README.md says how to try it on one picture.")
    return 0


def indented(text: str) -> str:
    return "\n".join("   " + line if line else "" for line in text.split("\n"))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # | head
        sys.stderr.close()
        sys.exit(1)
