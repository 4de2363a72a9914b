"""Servers that several contract tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers import postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A real PostgreSQL. Without one the test fails and says how to install it: it is never skipped."""
    try:
        with postgres.running() as server:
            yield server
    except postgres.NoPostgres as problem:
        pytest.fail(str(problem))
