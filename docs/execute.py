"""Run the notebooks: ``make notebooks``.

Each ``notebooks/NN_name.py`` (jupytext's percent format) is run from top to bottom and written, with what it printed
and drew, to ``notebooks/NN_name.ipynb``. An error, a warning, or anything else on stderr fails. Without --force a
notebook whose source and whose package have not changed since is left as it is.

The sources are what is edited and reviewed: plain Python, which diffs by line and which ruff can read. The ``.ipynb``
are what a reader opens, on the code host or in Jupyter: they hold the pictures.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
TIMEOUT = 900


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", help="beginnings of names, such as 05; all by default")
    parser.add_argument("--check", action="store_true", help="run, but leave the .ipynb as they are")
    parser.add_argument("--force", action="store_true", help="also those that have not changed")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default %(default)s)")
    options = parser.parse_args()
    sources = [p for p in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.py")) if p.name.startswith(tuple(options.names or [""]))]
    if not sources:
        print(f"no notebook begins with {' or '.join(options.names)}")
        return 1
    with ThreadPoolExecutor(options.jobs) as pool:
        failures = [m for m in pool.map(lambda p: run(p, options.check, options.force), sources) if m]
    for message in failures:
        print(message, file=sys.stderr)
    return 1 if failures else 0


def run(source: Path, check: bool, force: bool) -> str | None:
    """Run one notebook; what went wrong, if something did."""
    target, stamp = source.with_suffix(".ipynb"), fingerprint(source)
    if not force and not check and target.exists() and nbformat.read(target, 4).metadata.get("fingerprint") == stamp:
        print(f"{source.name:40} unchanged", flush=True)
        return None
    notebook = jupytext.read(source)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    start = time.perf_counter()
    try:
        client = NotebookClient(notebook, timeout=TIMEOUT, startup_timeout=300, kernel_name="python3")
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "2", "TQDM_DISABLE": "1"}
        # What the cells write to stderr is in their outputs; this is what the kernel itself has to say.
        client.execute(cwd=str(NOTEBOOKS), env=environment, stderr=subprocess.DEVNULL)
    except CellExecutionError as error:
        return f"{source.name}: {error}"
    print(f"{source.name:40}{time.perf_counter() - start:6.1f} s", flush=True)
    if noise := stderr(notebook):
        return f"{source.name} wrote to stderr:\n{noise}"
    if not check:
        write(notebook, target, stamp)
    return None


def stderr(notebook: nbformat.NotebookNode) -> str:
    """Warnings and the like."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.get("name") == "stderr")


def write(notebook: nbformat.NotebookNode, target: Path, stamp: str) -> None:
    """As small and as stable as it can be: no times, no random ids, no kernel's version."""
    notebook.metadata = {
        "fingerprint": stamp,
        "kernelspec": notebook.metadata["kernelspec"],
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata.pop("execution", None)
        if "outputs" in cell:
            cell.outputs = merged(cell.outputs)
    nbformat.write(notebook, target)


def merged(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """What was printed in a row as one output: how the kernel cuts it up depends on the moment."""
    whole: list[nbformat.NotebookNode] = []
    for output in outputs:
        if whole and output.output_type == whole[-1].output_type == "stream" and output.name == whole[-1].name:
            whole[-1].text += output.text
        else:
            whole.append(output)
    return whole


def fingerprint(source: Path) -> str:
    """Of a notebook's source and of all of the package that it may call."""
    digest = hashlib.sha256()
    for path in [source, *sorted((ROOT / "src" / "mrcnn_scratch").rglob("*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
