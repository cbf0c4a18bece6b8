"""The notebooks as they lie there: what a reader opens is what was written, and has all its parts."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py"))
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")

pytestmark = pytest.mark.site


def read(path):
    import nbformat

    return nbformat.read(path, 4)


def prose(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_there_are_fourteen():
    assert [path.name[:2] for path in SOURCES] == [f"{number:02}" for number in range(14)]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_what_is_shown_is_what_was_written(source):
    """The .ipynb holds the cells of the .py, each run, without an error; it is not too large to be kept."""
    import jupytext

    written, shown = jupytext.read(source), read(source.with_suffix(".ipynb"))
    assert [cell.source for cell in shown.cells] == [cell.source for cell in written.cells], "run: make notebooks"
    code = [cell for cell in shown.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)
    assert source.with_suffix(".ipynb").stat().st_size < 1.2e6


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_every_notebook_has_its_parts(source):
    text = prose(read(source.with_suffix(".ipynb")))
    for part in (
        "What you will see",
        "In",
        "Out",
        "Time",
        "Before this",
        "What you have learned",
        "Exercises",
        "Links",
    ):
        assert re.search(rf"(\*\*{part}\b|^#+ {part}\b)", text, re.M), part
    following = SOURCES[(SOURCES.index(source) + 1) % len(SOURCES)]
    assert f"({following.stem}.ipynb)" in text, "it does not lead on"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_its_links_lead_somewhere(source):
    """On the code host as well, where a link is a path in the repository."""
    broken = [
        link for link in LINK.findall(prose(read(source.with_suffix(".ipynb")))) if not (source.parent / link).exists()
    ]
    assert broken == []


@pytest.mark.parametrize(
    "page", [*sorted((ROOT / "docs").glob("*.md")), *ROOT.glob("*.md")], ids=lambda path: path.name
)
def test_the_pages_links_lead_somewhere(page):
    links = LINK.findall(re.sub(r"```.*?```", "", page.read_text(), flags=re.S))
    assert [link for link in links if not (page.parent / link).exists()] == []
