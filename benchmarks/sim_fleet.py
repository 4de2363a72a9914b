"""Who takes part in a simulation, what befalls them, and how soon such a fleet could possibly be done."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

MASTER = "master"
MASTER_SLOTS = 10_000
"""The machine sets no bound for the master: its node asks for one item at a time."""

EPSILON = 1e-9
"""Work that is short of whole by this part of an item is whole: floating point sums are not exact."""

_BISECTIONS = 60
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Crash:
    """The process dies at once and all it works on is lost; its spool is on disk. ``back_after_s`` None = for good."""

    at_s: float
    back_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Freeze:
    """Nothing moves and nothing is said, nothing of it is lost. Longer than a link's patience, and the link is given up."""

    at_s: float
    for_s: float


@dataclass(frozen=True, slots=True)
class Stall:
    """The work stands still, the heart beats on. What is begun meanwhile stands still as well."""

    at_s: float
    for_s: float = math.inf


Fault = Crash | Freeze | Stall


@dataclass(frozen=True, slots=True)
class Member:
    """A participant; an item takes ``base_s / speed`` seconds on it. Faults come in the order of their times, one at a time."""

    id: str
    speed: float = 1.0
    slots: int = 2
    joins_s: float = 0.0
    faults: tuple[Fault, ...] = ()


Way = Literal["pull", "one_each", "route"]


@dataclass(frozen=True, slots=True)
class Setup:
    """One simulation. A member called `MASTER` computes inside its waiting prompt: first item 0, then what it asks for."""

    members: tuple[Member, ...]
    items: int
    way: Way = "pull"
    base_s: float = 4.0
    warm_up_s: float = 0.0  # more for the first item after a start, by everybody: the model is loaded
    jitter: float = 0.0  # durations are spread evenly by this part to either side, by member and item
    failures: float = 0.0  # chance that an attempt raises, at its end
    max_attempts: int = 3
    latency_s: float = 0.002  # of a message, one way
    fetch_s: float = 0.01  # of a result, on top of two messages
    progress_every_s: float | None = 0.25
    seed: int = 0


@dataclass(slots=True)
class _Spell:
    """A time of being there without interruption: from when, until when, and the pauses in it."""

    began_s: float
    ended_s: float = math.inf
    pauses: list[tuple[float, float]] = field(default_factory=list)

    def worked_s(self, until_s: float) -> float:
        end_s = min(until_s, self.ended_s)
        paused_s = sum(max(0.0, min(end_s, to_s) - from_s) for from_s, to_s in self.pauses)
        return max(0.0, end_s - self.began_s - paused_s)


def lower_bound_s(setup: Setup) -> float:
    """The smallest T at which the fleet could have made all items, if it cost nothing to talk and all was known before.

    The smallest T with ``sum over members and their spells of floor((worked(T) - warm_up_s) · speed / base_s) >= executions``. A
    spell is a time between joining, crashing and coming back: what is begun in one must end in it. A freeze or a stall
    is a pause in a spell. ``executions = ceil(items / (1 - failures))``: with a chance p of failing at its end, an item
    costs 1 / (1 - p) whole attempts on average. Where chance has a hand in it (``failures``, ``jitter``, which is left
    out of account), it is a yardstick that a lucky run may beat by a little. inf where the fleet can never do it.
    """
    executions = math.ceil(setup.items / (1.0 - setup.failures) - EPSILON)
    spells = [(member, list(_spells(member))) for member in setup.members]

    def can(until_s: float) -> bool:
        made = 0
        for member, there in spells:
            for spell in there:
                worked_s = max(0.0, spell.worked_s(until_s) - setup.warm_up_s)
                made += math.floor(worked_s * member.speed / setup.base_s + EPSILON)
        return made >= executions

    if not executions:
        return 0.0
    slowest = min(member.speed for member in setup.members)
    latest_s = max((time_s for member in setup.members for time_s in _times(member)), default=0.0)
    high_s = latest_s + setup.warm_up_s + (executions + 1) * setup.base_s / slowest
    if not can(high_s):
        return math.inf
    low_s = 0.0
    for _ in range(_BISECTIONS):
        middle_s = (low_s + high_s) / 2.0
        low_s, high_s = (low_s, middle_s) if can(middle_s) else (middle_s, high_s)
    return high_s


def _spells(member: Member) -> Iterator[_Spell]:
    spell: _Spell | None = _Spell(member.joins_s)
    for fault in member.faults:
        if spell is None:
            return
        if not isinstance(fault, Crash):
            spell.pauses.append((fault.at_s, fault.at_s + fault.for_s))
            continue
        spell.ended_s = fault.at_s
        yield spell
        spell = None if fault.back_after_s is None else _Spell(fault.at_s + fault.back_after_s)
    if spell is not None:
        yield spell


def _times(member: Member) -> Iterator[float]:
    """When things change for a member, as far as they are finite."""
    yield member.joins_s
    for fault in member.faults:
        lasts_s = fault.back_after_s if isinstance(fault, Crash) else fault.for_s
        yield fault.at_s + (lasts_s if lasts_s is not None and math.isfinite(lasts_s) else 0.0)


def chance(*numbers: int) -> float:
    """A number in 0..1 that depends on ``numbers`` alone (splitmix64), the same on every machine."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state / (_MASK + 1)


def speeds_log_uniform(count: int, least: float, most: float, seed: int) -> Sequence[float]:
    """``count`` speeds between two bounds, evenly spread on a logarithmic scale, in an order by chance."""
    steps = max(1, count - 1)
    even = [least * (most / least) ** (place / steps) for place in range(count)]
    order = sorted(range(count), key=lambda place: chance(seed, place))
    return [even[place] for place in order]


def equal_members(count: int, speed: float = 1.0) -> tuple[Member, ...]:
    """``count`` workers of one speed."""
    return tuple(Member(f"w{number}", speed) for number in range(count))
