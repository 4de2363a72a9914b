"""What every test shares: the checkout as package ``flotilla``, ``tests/`` on the path, profiles of hypothesis."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
if str(TESTS) not in sys.path:  # `from fakes.link import ...`, `from loader import ...`
    sys.path.insert(0, str(TESTS))

from loader import REPOSITORY, load_package  # noqa: E402

load_package()
pytest.register_assert_rewrite("fakes")  # before the first import of a fake: their asserts tell as much as a test's

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # only the property tests need it; the others still run
    pass
else:
    # Derandomized: a failure on one machine is a failure on all. No deadline: a busy machine is no failing test.
    _SLOW_IS_FINE = [HealthCheck.too_slow]
    settings.register_profile(
        "default", derandomize=True, deadline=None, max_examples=60, suppress_health_check=_SLOW_IS_FINE
    )
    settings.register_profile(
        "ci", derandomize=True, deadline=None, max_examples=300, suppress_health_check=_SLOW_IS_FINE
    )
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout under test."""
    return REPOSITORY
