"""Every ``xp.name(...)`` in the package is a name that real CuPy has, called with arguments that it takes.

This reads the source, so it sees the lines that no test runs as well.
"""

import ast

import pytest
from cupy_double import API, signature
from cupy_double.ledger import PACKAGE

SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "backend.py")


def xp_names(tree):
    """``(dotted name after xp, the call or None, line)`` for each use of ``xp`` in a module."""
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            name = dotted(node)
            if name is not None:
                yield name, calls.get(id(node)), node.lineno


def dotted(node):
    """ "lib.stride_tricks.as_strided" of ``xp.lib.stride_tricks.as_strided``; None if it does not start at ``xp``."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    is_xp = isinstance(node, ast.Name) and node.id == "xp"
    is_module = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "array_module"
    return ".".join(reversed(parts)) if is_xp or is_module else None


def wrong(source):
    """What CuPy would refuse in a module's text, one line each."""
    problems = []
    for name, call, line in xp_names(ast.parse(source)):
        if name not in API:
            problems.append(f"line {line}: CuPy has no {name}")
        elif call is not None and signature(name) is not None:
            given = [None for arg in call.args if not isinstance(arg, ast.Starred)]
            keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
            try:
                signature(name).bind_partial(*given, **keywords)
            except TypeError as error:
                problems.append(f"line {line}: {name}{signature(name)}: {error}")
    return problems


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_cupy_has_it(path):
    assert wrong(path.read_text()) == []


def test_only_the_backend_names_cupy():
    for path in SOURCES:
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        imports = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Import | ast.ImportFrom)]
        modules = {alias.name for node in imports for alias in node.names} | {getattr(n, "module", "") for n in imports}
        assert not {"cupy", "cupyx"} & (names | modules), path


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("xp.vecdot(a, b)", "CuPy has no vecdot"),
        ("xp.lib.stride_tricks.nothing(a)", "CuPy has no lib.stride_tricks.nothing"),
        ("array_module(a).insert(a, 0, 1)", "CuPy has no insert"),
        ("xp.argsort(a, stable=True)", "unexpected keyword argument 'stable'"),
        ("xp.sum(a, axis=0, initial=0)", "unexpected keyword argument 'initial'"),
        ("f = lambda a: xp.max(a, where=a)", "unexpected keyword argument 'where'"),
        ("xp.triu(a, 1, 2)", "too many positional arguments"),
        ("y = xp.float128", "CuPy has no float128"),
    ],
)
def test_finds_a_planted_mistake(line, complaint):
    [problem] = wrong(line)
    assert complaint in problem


def test_sees_the_names_there_are():
    names = {name for path in SOURCES for name, _, _ in xp_names(ast.parse(path.read_text()))}
    assert {"matmul", "lib.stride_tricks.as_strided", "float32", "zeros_like", "dot"} <= names
    assert len(names) > 40
