"""Other versions of ComfyUI; the helpers are those of the integration tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
HELPERS = HERE.parent / "integration"
if str(HELPERS) not in sys.path:
    sys.path.insert(0, str(HELPERS))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks this folder's tests."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.matrix)
