"""Timers that fire when a test moves the clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flotilla.utils.clock import ManualClock


@dataclass
class ManualTimer:
    """One call to come. ``cancel`` keeps it away."""

    at_s: float
    act: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualTimers:
    """Stands in for an event loop's ``call_later``, on a clock of its own."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self._timers: list[ManualTimer] = []

    def call_later(self, delay_s: float, act: Callable[[], None]) -> ManualTimer:
        timer = ManualTimer(self.clock.now_s() + delay_s, act)
        self._timers.append(timer)
        return timer

    @property
    def pending(self) -> int:
        """Timers that are still to fire."""
        return sum(not timer.cancelled for timer in self._timers)

    def advance(self, seconds: float) -> None:
        """Moves the clock on; what falls due on the way happens at its time, in order."""
        end_s = self.clock.now_s() + seconds
        while True:
            self._timers = [timer for timer in self._timers if not timer.cancelled]
            due = min(self._timers, key=lambda timer: timer.at_s, default=None)
            if due is None or due.at_s > end_s:
                break
            self._timers.remove(due)
            self.clock.advance(max(0.0, due.at_s - self.clock.now_s()))
            due.act()
        self.clock.advance(max(0.0, end_s - self.clock.now_s()))
