"""Whole upscales in the modes of the reference: the pack beside the plain oracle, both with a real (tiny) model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from servers import on_host

SCRIPT = Path(__file__).resolve().parent / "host_scripts" / "upscale_parity.py"
CASES = (
    "linear",
    "chess, batch of 3",
    "linear, fitted tiles",
    "linear, odd size",
    "chess, tiles in batches",
    "bands",
    "half tiles and crossings",
    "seam blur and padding",
)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return on_host.run(SCRIPT, tmp_path_factory.mktemp("parity"))


@pytest.mark.parametrize("case", CASES)
def test_an_upscale_is_bit_for_bit_that_of_the_oracle(found: Any, case: str) -> None:
    ours, theirs = found[case]
    assert ours == theirs


def test_no_two_cases_are_alike(found: Any) -> None:
    assert set(found) == set(CASES)
    assert len({ours for ours, _theirs in found.values()}) == len(CASES)
