"""Sphinx's configuration. ``make docs`` runs it over the whole repository, so that a link is right on the code host and
here: ``../src/mrcnn_scratch/nms.py`` is the file there, and the page with its text here."""

import ast
import inspect
import re
import textwrap
from pathlib import Path

from mrcnn_scratch import __version__

ROOT = Path(__file__).parents[1]

project = "mrcnn-scratch"
author = "the developers of mrcnn-scratch"
version = release = __version__
root_doc = "docs/index"
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
include_patterns = [
    "docs/*.md",
    "notebooks/*.ipynb",
    "exercises/README.md",
    "build/code/*.md",
    "build/code/**/*.md",
    "build/api/*.md",
]
include_patterns += ["CHANGELOG.md", "CONTRIBUTING.md"]
exclude_patterns = ["build/html", "build/doctrees", ".venv", "runs", "**/.*"]

myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # docs/execute.py has run them: in parallel, and only those that have changed
nb_ipywidgets_js = {}  # from another host, and there is no widget
nb_merge_streams = True
suppress_warnings = ["mystnb.unknown_mime_type"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_rtype = False

html_theme = "furo"
html_title = "Mask R-CNN, written out by hand"
html_static_path = ["_static", "../build/static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}}  # its parts would be fetched one by one

SHOWN = ("src", "tests", "exercises", "examples", "benchmarks", "docs", "notebooks")
LINK = re.compile(r"\]\(((?:\.\./)*)((?:" + "|".join(SHOWN) + r")/[\w./-]*|[\w./-]+\.py)(#[\w-]*)?\)")


def link_to_code(app, docname, source):
    """Turn links to files of the repository into links to the pages that show them."""
    folder = (ROOT / docname).parent

    def page(match):
        target = (folder / f"{match[1]}{match[2]}").resolve()
        if not target.is_relative_to(ROOT):
            return match[0]
        inside = target.relative_to(ROOT)
        shown = ROOT / "build" / "code" / inside / "index.md" if target.is_dir() else None
        if target.suffix == ".py":
            shown = ROOT / "build" / "code" / inside.parent / f"{inside.name}.md"
        if shown is None or not shown.exists():
            return match[0]
        return f"](/{shown.relative_to(ROOT).as_posix()})"

    if not docname.startswith("build/code"):
        source[0] = LINK.sub(page, source[0])


def as_it_is_written(app, what, name, thing, options, signature, returns):
    """A function's signature from its source: Python itself has forgotten that an ``Any`` was called ``Array``."""
    function = getattr(thing, "__init__", None) if what == "class" else thing
    try:
        [node] = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    if not isinstance(node, ast.FunctionDef):
        return None
    if node.args.args and node.args.args[0].arg in ("self", "cls"):
        node.args.args.pop(0)
    returned = None if node.returns is None or what == "class" else ast.unparse(node.returns)
    return f"({ast.unparse(node.args)})", returned


def setup(app):
    """Called by Sphinx."""
    app.connect("source-read", link_to_code)
    app.connect("autodoc-process-signature", as_it_is_written)
