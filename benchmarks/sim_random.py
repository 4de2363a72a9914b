"""Small fleets by chance, to look for the ones that a scheduler gets wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from .sim_fleet import MASTER, Crash, Fault, Freeze, Member, Setup, Stall, Way, chance

COUNTS = (1, 2, 3, 3, 4, 6, 8)
SPEEDS = (0.25, 0.5, 1.0, 1.0, 1.0, 2.0, 4.0, 8.0)
ITEMS = (1, 2, 3, 5, 8, 13, 24, 50, 100)
BASES_S = (0.5, 2.0, 4.0, 20.0)
JITTERS = (0.0, 0.0, 0.1, 0.4)
WARM_UPS_S = (0.0, 0.0, 0.0, 5.0, 20.0)
FAILURES = (0.0, 0.0, 0.0, 0.05)
WAYS: tuple[Way, ...] = ("pull", "pull", "pull", "pull", "one_each", "route")
REPORTS_S = (None, 0.25)
MANY_ATTEMPTS = 10
FAULTY, LATE, WITH_MASTER = 0.35, 0.25, 0.5
LATEST_S, FAULT_WITHIN_S = 40.0, 60.0

_Choice = TypeVar("_Choice")


class Dice:
    """Numbers and choices, one after the other, that follow from the seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._throws = 0

    def throw(self) -> float:
        """0..1."""
        self._throws += 1
        return chance(self._seed, self._throws)

    def between(self, least: float, most: float) -> float:
        return least + (most - least) * self.throw()

    def one_of(self, choices: Sequence[_Choice]) -> _Choice:
        return choices[int(self.throw() * len(choices))]


def random_setup(seed: int) -> Setup:
    """1 to 8 participants of any speed, every third with a fault. The first has none: so every job can end."""
    dice = Dice(seed)
    has_master = dice.throw() < WITH_MASTER
    members = [_member(dice, number, has_master=has_master) for number in range(dice.one_of(COUNTS))]
    way = dice.one_of(WAYS)
    if has_master and way == "route":
        way = "pull"
    items = dice.one_of(ITEMS)
    return Setup(
        tuple(members),
        items=len(members) if way == "one_each" else items,
        way=way,
        base_s=dice.one_of(BASES_S),
        warm_up_s=dice.one_of(WARM_UPS_S),
        jitter=dice.one_of(JITTERS),
        failures=dice.one_of(FAILURES),
        max_attempts=MANY_ATTEMPTS,
        progress_every_s=dice.one_of(REPORTS_S),
        seed=seed,
    )


def _member(dice: Dice, number: int, *, has_master: bool) -> Member:
    speed = dice.one_of(SPEEDS)
    if not number:
        return Member(MASTER if has_master else "w0", speed)
    joins_s = dice.between(0.0, LATEST_S) if dice.throw() < LATE else 0.0
    faults = (_fault(dice, joins_s),) if dice.throw() < FAULTY else ()
    return Member(f"w{number}", speed, joins_s=joins_s, faults=faults)


def _fault(dice: Dice, joins_s: float) -> Fault:
    at_s = joins_s + dice.between(0.1, FAULT_WITHIN_S)
    choices: tuple[Fault, ...] = (
        Crash(at_s),
        Crash(at_s, back_after_s=dice.between(0.5, 15.0)),
        Freeze(at_s, for_s=dice.between(1.0, 30.0)),
        Stall(at_s, for_s=dice.between(2.0, 60.0)),
        Stall(at_s, for_s=math.inf),
    )
    return dice.one_of(choices)
