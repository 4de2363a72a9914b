"""Servers that several contract tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from servers import postgres

REQUIRED = "FLOTILLA_TESTS_NEED_POSTGRES"
"""Set to 1 where the tests are to fail without PostgreSQL instead of being skipped, as CI does."""


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A real PostgreSQL. Where none is installed the test is skipped and says how to install it; in CI it fails."""
    try:
        with postgres.running() as server:
            yield server
    except postgres.NotInstalled as problem:
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(str(problem))
        pytest.skip(str(problem))
    except postgres.NoPostgres as problem:
        pytest.fail(str(problem))
