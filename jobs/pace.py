"""How long the items of one group take, by participant: what the machine expects is made of what it has seen."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

_MEMORY = 8
"""Durations that a mean remembers: a first item that loaded a model is soon forgotten, and so is a busy hour."""

_STEADY_MEMORY = 3
"""Durations that count where all items are alike. A participant that becomes slower is known as such after so many."""

_MIN_SECONDS = 1e-4
"""Durations are taken for at least this long, so that a rate is always finite."""


class Pace:
    """Mean seconds per item of each participant and of all together: plain ones at first, then of the last ones or so."""

    __slots__ = ("_all", "_own", "rate")

    def __init__(self) -> None:
        self._own: dict[str, tuple[int, float]] = {}
        self._all: tuple[int, float] | None = None
        self.rate = 0.0
        """Items per second of all participants together that have a mean of their own."""

    def note(self, participant_id: str, seconds: float) -> None:
        """One more item was finished."""
        seconds = max(seconds, _MIN_SECONDS)
        before = self._own.get(participant_id)
        now = _blend(before, seconds)
        self._own[participant_id] = now
        self._all = _blend(self._all, seconds)
        self._replace_rate(before, now)

    def _replace_rate(self, before: tuple[int, float] | None, now: tuple[int, float]) -> None:
        self.rate = max(0.0, self.rate - (1.0 / before[1] if before else 0.0)) + 1.0 / now[1]

    def own(self, participant_id: str) -> float | None:
        """The participant's own mean; None when it has finished nothing yet."""
        known = self._own.get(participant_id)
        return None if known is None else known[1]

    def expected(self, participant_id: str) -> float | None:
        """Its own mean, else that of all; None when nothing was finished yet."""
        known = self._own.get(participant_id, self._all)
        return None if known is None else known[1]

    @property
    def mean(self) -> float | None:
        """The mean of all; None when nothing was finished yet."""
        return None if self._all is None else self._all[1]

    def __len__(self) -> int:
        return len(self._own)

    def means(self) -> Iterator[tuple[str, float]]:
        """All participants that have a mean of their own, with it."""
        for participant_id, (_count, mean) in self._own.items():
            yield participant_id, mean


class SteadyPace(Pace):
    """For items that all take the same time: what one of them took longer than another was not the item's doing.

    So the best of the last ones counts, and the first one only when there is no other: it may have loaded a model or waited
    for one. Someone who was slow once would else be given nothing when few items wait, and never be seen to be faster.
    """

    __slots__ = ("_first", "_last")

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, deque[float]] = {}
        self._first: float | None = None

    def note(self, participant_id: str, seconds: float) -> None:
        """One more item was finished."""
        seconds = max(seconds, _MIN_SECONDS)
        last = self._last.get(participant_id)
        if last is None:
            self._last[participant_id] = deque(maxlen=_STEADY_MEMORY)
            self._first = seconds if self._first is None else min(seconds, self._first)
            return
        last.append(seconds)
        now = (len(last), min(last))
        self._replace_rate(self._own.get(participant_id), now)
        self._own[participant_id] = now
        self._all = _blend(self._all, now[1])

    def expected(self, participant_id: str) -> float | None:
        """Its own best of late, else the mean of all, else the best first one; None when nothing was finished yet."""
        known = super().expected(participant_id)
        return self._first if known is None else known

    @property
    def mean(self) -> float | None:
        """The mean of all, else the best first one."""
        known = super().mean
        return self._first if known is None else known


def _blend(before: tuple[int, float] | None, seconds: float) -> tuple[int, float]:
    if before is None:
        return (1, seconds)
    count = min(before[0] + 1, _MEMORY)
    return (count, before[1] + (seconds - before[1]) / count)
