"""What every test may ask for: the array library, a random generator, the folder of fixtures."""

import os
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import settings
from cupy_double import LEDGER, strict_cupy
from reference import FIXTURES

settings.register_profile("laptop", deadline=None, max_examples=60)
settings.register_profile("ci", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "laptop")

ARRAY_LIBRARIES = {"numpy": lambda: nullcontext(np), "strict cupy": strict_cupy}
"""Context managers by name. A test that asks for ``xp`` runs with each."""


@pytest.fixture(scope="session", params=sorted(ARRAY_LIBRARIES))
def xp(request):
    """The library whose arrays operations get: make them by ``xp.asarray``, read them by ``to_host``."""
    with ARRAY_LIBRARIES[request.param]() as library:
        yield library


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
