"""Time as a thing that is handed in, so that tests own it."""

from __future__ import annotations

import time
from typing import Protocol

MANUAL_EPOCH_S = 1_700_000_000.0
"""Where the wall of a manual clock begins: a day in November 2023."""


class Clock(Protocol):
    """Seconds that only grow (`now_s`) and seconds since 1970 (`wall_s`)."""

    def now_s(self) -> float:
        """Seconds since some fixed moment; never fewer than before."""
        ...

    def wall_s(self) -> float:
        """Seconds since 1970; a person may have moved the hands."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_s(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    def wall_s(self) -> float:
        """See `Clock`."""
        return time.time()


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, start_s: float = 1_000.0) -> None:
        self._now_s = start_s

    def now_s(self) -> float:
        """See `Clock`."""
        return self._now_s

    def wall_s(self) -> float:
        """See `Clock`."""
        return MANUAL_EPOCH_S + self._now_s

    def advance(self, seconds: float) -> None:
        """Moves time on. ``seconds`` must not be negative."""
        if seconds < 0:
            raise ValueError("time does not run backwards")
        self._now_s += seconds
