"""What every test may ask for: the array library, a random generator, the folder of fixtures."""

import os
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
from cupy_double import LEDGER, strict_cupy
from hypothesis import HealthCheck, Phase, settings
from reference import FIXTURES

from mrcnn_scratch.backend import load_cupy
from mrcnn_scratch.errors import InputError
from mrcnn_scratch.mine import use_mine

settings.register_profile("laptop", deadline=None, max_examples=60)
settings.register_profile("ci", deadline=None, max_examples=60, derandomize=True)
settings.register_profile(
    "exercise",
    deadline=None,
    max_examples=30,
    derandomize=True,
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("ci" if os.environ.get("CI") else "laptop")

if os.environ.get("MRCNN_SCRATCH_MINE"):  # `make exercise`: before any test module has bound the package's functions
    settings.load_profile("exercise")  # a reader's function may be slow
    use_mine(os.environ["MRCNN_SCRATCH_MINE"])

NOT_RUN = "NOTHING WAS TESTED ON A GPU"


@contextmanager
def real_cupy():
    """CuPy and a GPU, or a skip that says what is missing."""
    try:
        library = load_cupy()
    except InputError as error:
        pytest.skip(f"{NOT_RUN}: {error}")
    yield library


ARRAY_LIBRARIES = {"numpy": lambda: nullcontext(np), "strict cupy": strict_cupy, "cupy": real_cupy}
"""Context managers by name. A test that asks for ``xp`` runs with each; with the real CuPy in ``make test-gpu``."""


@pytest.fixture(
    scope="session",
    params=[pytest.param(name, marks=[pytest.mark.gpu] * (name == "cupy")) for name in ARRAY_LIBRARIES],
)
def xp(request):
    """The library whose arrays operations get: make them by ``xp.asarray``, read them by ``to_host``."""
    with ARRAY_LIBRARIES[request.param]() as library:
        yield library


@pytest.fixture(scope="session")
def gpu():
    """The real CuPy, on a real GPU."""
    with real_cupy() as library:
        yield library


def pytest_terminal_summary(terminalreporter):
    """A green line must not be taken for a tested GPU."""
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if NOT_RUN in str(r.longrepr)]
    if skipped:
        terminalreporter.section(f"{NOT_RUN}: {len(skipped)} tests", red=True, bold=True)


@pytest.fixture(autouse=True)
def no_host_array_as_index():
    """CuPy takes a host array as an index and copies it to the device without a word: here that fails the test."""
    LEDGER.clear()
    yield
    assert LEDGER.count("index") == {}, "a host array was used as an index: to_device it once, where it can be seen"


@pytest.fixture
def rng():
    """A generator on the host. The same numbers in every test and every run."""
    return np.random.default_rng(2017)


@pytest.fixture(scope="session")
def fixtures():
    """``tests/fixtures``, where the files lie that tests compare with."""
    return FIXTURES
