"""Integration tests: real ComfyUI servers. All tests here use the one fleet of the session."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:  # `from fleetkit.client import Client`, here and in other suites
    sys.path.insert(0, str(HERE))

from fleetkit.fixtures import (  # noqa: E402
    alone,
    alone_instance,
    bare,
    bare_instance,
    faulty,
    fleet,
    master,
    second,
    settled,
    w1,
    w2,
)

__all__ = [
    "alone",
    "alone_instance",
    "bare",
    "bare_instance",
    "faulty",
    "fleet",
    "master",
    "second",
    "settled",
    "w1",
    "w2",
]

LAST = ("test_refusals.py", "test_secrets.py")
"""The first restarts the second master with other keys; the other looks through all that the tests left behind."""


@pytest.fixture(autouse=True)
def _leaves_nothing(settled: None) -> None:
    """Each test here is followed by the check of `settled`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks this folder's tests, and moves `LAST` to the end."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.integration)
    names = {name: place for place, name in enumerate(LAST, start=1)}
    items.sort(key=lambda item: names.get(item.path.name, 0) if HERE in item.path.parents else 0)
