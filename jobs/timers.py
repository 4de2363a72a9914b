"""When to look at something again: at most one time per subject, the earliest first."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from itertools import count


class Timers:
    """Times by key. Setting and clearing is O(log n) and O(1); what was replaced stays in the heap until its time."""

    def __init__(self) -> None:
        self._at_s: dict[Hashable, float] = {}
        self._heap: list[tuple[float, int, Hashable]] = []
        self._places = count()

    def set(self, key: Hashable, at_s: float) -> None:
        """Looks at it then, and not when was said before."""
        if self._at_s.get(key) != at_s:
            self._at_s[key] = at_s
            heapq.heappush(self._heap, (at_s, next(self._places), key))

    def set_earlier(self, key: Hashable, at_s: float) -> None:
        """Looks at it then, unless an earlier time was said before."""
        known_s = self._at_s.get(key)
        if known_s is None or at_s < known_s:
            self.set(key, at_s)

    def clear(self, key: Hashable) -> None:
        """Does not look at it."""
        self._at_s.pop(key, None)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._at_s

    def next_s(self) -> float | None:
        """The earliest time; None when there is none."""
        while self._heap:
            at_s, _, key = self._heap[0]
            if self._at_s.get(key) == at_s:
                return at_s
            heapq.heappop(self._heap)
        return None

    def take_due(self, now_s: float) -> Hashable | None:
        """The key whose time came first, no longer set; None when no time has come."""
        at_s = self.next_s()
        if at_s is None or at_s > now_s:
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._at_s[key]
        return key
