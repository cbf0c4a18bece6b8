"""Build the site: ``make docs``. The result is ``build/html``, which opens without a server and asks no other host.

Besides what is written in ``docs`` and ``notebooks``: a page for every module (its docstrings) and a page for every
source file and test (its text), so that a reader without the repository can follow every link.
"""

import base64
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build"
MATHJAX = "https://registry.npmjs.org/mathjax/-/mathjax-3.2.2.tgz"
MATHJAX_SHA512 = "Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw=="
CODE = ("src/mrcnn_scratch", "tests", "exercises", "examples", "benchmarks", "docs")


def main() -> int:
    fetch_mathjax(BUILD / "static" / "mathjax" / "tex-svg.js")
    for folder in ("code", "api"):
        shutil.rmtree(BUILD / folder, ignore_errors=True)
    write_code_pages()
    write_api_pages()
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-j", "2", "-b", "html", "-c", "docs"]
    code = subprocess.call([*command, "-d", "build/doctrees", ".", "build/html"], cwd=ROOT)
    if code == 0:
        front = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=docs/index.html">'
        (BUILD / "html" / "index.html").write_text(f'{front}<a href="docs/index.html">Mask R-CNN</a>\n')
        print(f"open {BUILD / 'html' / 'index.html'}")
    return code


def fetch_mathjax(target: Path, attempts: int = 4) -> None:
    """MathJax in one file that needs no other, from the npm registry, if it is not there yet."""
    if target.exists():
        return
    for attempt in range(attempts):
        try:
            with urllib.request.urlopen(MATHJAX, timeout=60) as answer:
                archive = answer.read()
            break
        except OSError as error:
            if attempt == attempts - 1:
                sys.exit(f"cannot fetch MathJax from {MATHJAX}: {error}; the pages need it for their formulas")
            time.sleep(2**attempt)
    if base64.b64encode(hashlib.sha512(archive).digest()).decode() != MATHJAX_SHA512:
        sys.exit(f"{MATHJAX} is not the file that was tried: its SHA-512 differs")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        content = files.extractfile("package/es5/tex-svg.js").read()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def write_code_pages() -> None:
    """``build/code``: one page a file, and one a folder with what is in it."""
    for top in CODE:
        for folder in [ROOT / top, *(p for p in sorted((ROOT / top).rglob("*")) if p.is_dir())]:
            write_folder(folder)
    pages = "\n".join(f"{top}/index" for top in CODE)
    (BUILD / "code" / "index.md").write_text(f"# The code\n\n```{{toctree}}\n:maxdepth: 1\n\n{pages}\n```\n")


def write_folder(folder: Path) -> None:
    inside = folder.relative_to(ROOT)
    files = [p for p in sorted(folder.glob("*.py")) if p.stat().st_size]
    folders = [p for p in sorted(folder.iterdir()) if p.is_dir() and any(p.rglob("*.py"))]
    if not files and not folders:
        return
    out = BUILD / "code" / inside
    out.mkdir(parents=True, exist_ok=True)
    up = "../" * (len(out.relative_to(ROOT).parts))
    for path in files:
        text = f"# {path.name}\n\n`{inside / path.name}`\n\n"
        include = f"```{{literalinclude}} {up}{inside / path.name}\n:language: python\n:linenos:\n```\n"
        (out / f"{path.name}.md").write_text(text + include)
    entries = [f"{p.name}/index" for p in folders] + [f"{p.name}" for p in files]
    listing = "\n".join(entries)
    (out / "index.md").write_text(f"# {inside}\n\n```{{toctree}}\n:maxdepth: 1\n\n{listing}\n```\n")


def write_api_pages() -> None:
    """``build/api``: the docstrings, a page a module."""
    package = ROOT / "src" / "mrcnn_scratch"
    names = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        if not path.stat().st_size or parts[-1] == "__main__":
            continue
        names.append(name)
        # A package's page holds its own words; what it passes on is described where it is defined.
        members = "" if parts[-1] == "__init__" else "   :members:\n"
        (BUILD / "api").mkdir(parents=True, exist_ok=True)
        directive = f"```{{eval-rst}}\n.. automodule:: {name}\n{members}```\n"
        (BUILD / "api" / f"{name}.md").write_text(f"# {name}\n\n{directive}")
    listing = "\n".join(names)
    (BUILD / "api" / "index.md").write_text(
        f"# The package, from its docstrings\n\n```{{toctree}}\n:maxdepth: 1\n\n{listing}\n```\n"
    )


if __name__ == "__main__":
    sys.exit(main())
