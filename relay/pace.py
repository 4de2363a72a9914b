"""Doing a thing at once, and then no oftener than every so many seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from ..utils.clock import Clock


class Timer(Protocol):
    """What `CallLater` gives back."""

    def cancel(self) -> None:
        """It is not called any more."""
        ...


CallLater = Callable[[float, Callable[[], None]], Timer]
"""(seconds, what to call then) → the timer, on the server's loop."""


def call_later_on_loop(delay_s: float, act: Callable[[], None]) -> Timer:
    """The `CallLater` of the running event loop."""
    return asyncio.get_running_loop().call_later(delay_s, act)


class Pace:
    """Calls ``act`` when asked to, but lets ``every_s`` pass in between; what is asked for meanwhile happens then, once."""

    def __init__(self, act: Callable[[], None], every_s: float, clock: Clock, call_later: CallLater) -> None:
        self._act = act
        self._every_s = every_s
        self._clock = clock
        self._call_later = call_later
        self._next_s: float | None = None  # None = never acted
        self._timer: Timer | None = None

    def soon(self) -> None:
        """Acts at once if that is not too early, else as soon as it is not."""
        if self._timer is not None:
            return
        wait_s = 0.0 if self._next_s is None else self._next_s - self._clock.now_s()
        if wait_s <= 0:
            self.now()
        else:
            self._timer = self._call_later(wait_s, self.now)

    def now(self) -> None:
        """Acts, whatever the time."""
        self.stop()
        self._next_s = self._clock.now_s() + self._every_s
        self._act()

    def stop(self) -> None:
        """Forgets what was asked for."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
