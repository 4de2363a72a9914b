"""Whom a fault of the kit is meant for, and how fast an instance is to be. Nothing of the host, nothing of torch."""

from __future__ import annotations

import os
from collections import Counter

NAME_VARIABLE = "FLOTILLA_KIT_NAME"
"""What this instance is called, in its environment."""

NO_INDEX = -1


def name_of_this_instance() -> str:
    return os.environ.get(NAME_VARIABLE, "")


def names(text: str) -> list[str]:
    """``"w1, w2"`` → ``["w1", "w2"]``."""
    return [part.strip() for part in text.split(",") if part.strip()]


def is_meant(name: str, index: int, only_worker: str, only_items: str) -> bool:
    """Whether the instance called ``name`` is among ``only_worker`` and the item ``index`` among ``only_items``.

    Both are lists with commas; an empty one means all. Raises ValueError where an item is no number.
    """
    workers, items = names(only_worker), [int(item) for item in names(only_items)]
    return (not workers or name in workers) and (not items or index in items)


def speed_of(name: str, speeds: str) -> float:
    """How many times as fast as usual the instance called ``name`` is: ``"w1=4, w2=0.5"``; 1 for others.

    Raises ValueError for a speed that is not above 0.
    """
    table = dict(entry.split("=", 1) for entry in names(speeds))
    speed = float({key.strip(): value for key, value in table.items()}.get(name, "1"))
    if not speed > 0.0:
        raise ValueError(f"a speed must be above 0, got {speed}")
    return speed


class Rounds:
    """How many times something has happened in this process, by key."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def is_over(self, key: str, times: int) -> bool:
        """Counts once more; whether that is beyond ``times``. 0 times means for ever."""
        self._seen[key] += 1
        return 0 < times < self._seen[key]
