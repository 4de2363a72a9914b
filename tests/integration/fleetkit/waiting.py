"""Waiting for something to become true: bounded, and with a reason when it does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")

POLL_S = 0.02
WAIT_S = 20.0


def eventually(look: Callable[[], Seen], what: str, timeout_s: float = WAIT_S) -> Seen:
    """What ``look`` returns as soon as that is true (in Python's sense).

    Raises AssertionError after ``timeout_s`` seconds, naming ``what`` was waited for and what was seen last.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline_s:
            raise AssertionError(f"{what}: not within {timeout_s} s; last seen: {seen!r}")
        time.sleep(POLL_S)


def seconds_until(look: Callable[[], object], what: str, timeout_s: float = WAIT_S) -> float:
    """How many seconds pass until ``look`` is true. Raises as `eventually` does."""
    began_s = time.monotonic()
    eventually(look, what, timeout_s)
    return time.monotonic() - began_s
