"""Which tasks must wait for which, from geometry alone, and the bookkeeping of a run over it.

A task reads its tiles' crops and changes their touched areas. So of two tasks where the one's touched area meets the
other's crop, the later one must see the earlier one's pixels, or the earlier one must be cut before the later one is
blended. Everything else may happen at once, and the result is that of the serial order. Ours; the reference is serial.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .geometry import Box
from .tasks import Task

WAITS = "waits"  # its result is not here; what it needs may be blended or not
ARRIVED = "arrived"  # its result is here, and waits until it may be blended
BLENDING = "blending"  # given out to be blended
BLENDED = "blended"
SKIPPED = "skipped"  # no result will come


@dataclass(frozen=True)
class Order:
    """By number of the task: earlier tasks that it must wait for.

    ``needs``: those that must be blended before its pixels may be cut. ``blend_after``: those that must be blended before
    it is, a superset of ``needs``; thanks to it an unfinished task's pixels can be cut again at any time, with the same
    bits. ``critical_path``: length of the longest chain of needs, in tasks: nobody can do it in fewer rounds.
    """

    needs: tuple[frozenset[int], ...]
    blend_after: tuple[frozenset[int], ...]
    critical_path: int


class _Piece(NamedTuple):
    """One tile of a task, as far as the order is concerned."""

    number: int
    from_source: bool
    crop: Box
    touch: Box


def order_of(tasks: Sequence[Task]) -> Order:
    """The order of tasks that are numbered from 0 as they come in ``tasks``. Time grows with the pairs that are near."""
    near = _Nearby([tile.window.crop for task in tasks for tile in task.tiles])
    needs: list[frozenset[int]] = []
    blend_after: list[frozenset[int]] = []
    depths: list[int] = []
    for task in tasks:
        needed: set[int] = set()
        before: set[int] = set()
        pieces = [_Piece(task.number, task.from_source, tile.window.crop, tile.touch) for tile in task.tiles]
        for piece in pieces:
            for earlier in near.to(piece.crop):
                if not piece.from_source and _meet(earlier.touch, piece.crop):
                    needed.add(earlier.number)
                elif _must_precede(earlier, piece):
                    before.add(earlier.number)
        for piece in pieces:  # a task's own tiles do not wait for each other
            near.add(piece)
        needs.append(frozenset(needed))
        blend_after.append(frozenset(needed | before))
        depths.append(1 + max((depths[number] for number in needed), default=0))
    return Order(tuple(needs), tuple(blend_after), max(depths, default=0))


def _must_precede(earlier: _Piece, later: _Piece) -> bool:
    """Whether ``earlier`` must be blended before ``later`` although ``later`` does not read what it changes."""
    return _meet(earlier.touch if earlier.from_source else earlier.crop, later.touch)


def _meet(one: Box, other: Box) -> bool:
    """`Box.meets`, for a large number of pairs. Of the empty boxes only ``NOWHERE`` is right here."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


class _Nearby:
    """A coarse grid over the canvas that knows which crops lie where, so that few pairs need a closer look."""

    def __init__(self, crops: Sequence[Box]) -> None:
        self._width = int(statistics.median(crop.width for crop in crops)) if crops else 1
        self._height = int(statistics.median(crop.height for crop in crops)) if crops else 1
        self._cells: defaultdict[tuple[int, int], list[_Piece]] = defaultdict(list)

    def add(self, piece: _Piece) -> None:
        for cell in self._cells_of(piece.crop):
            self._cells[cell].append(piece)

    def to(self, crop: Box) -> set[_Piece]:
        """What was put in and may meet ``crop``, and a little more."""
        found: set[_Piece] = set()
        for cell in self._cells_of(crop):
            found.update(self._cells[cell])
        return found

    def _cells_of(self, box: Box) -> Iterator[tuple[int, int]]:
        for row in range(box.y1 // self._height, (box.y2 - 1) // self._height + 1):
            for column in range(box.x1 // self._width, (box.x2 - 1) // self._width + 1):
                yield column, row


class Board:
    """What has happened to the tasks of an `Order`: who is ready, and what may be blended. For one thread.

    What is given out to be blended must be blended in the order in which it was given out, and then told (`blended`).
    A task is named ready once, when all that it needs is blended or skipped, unless its result is already here.
    """

    def __init__(self, order: Order) -> None:
        count = len(order.needs)
        self._states = [WAITS] * count
        self._needs_left = [len(needs) for needs in order.needs]
        self._blends_left = [len(before) for before in order.blend_after]
        self._needed_by = _turned(order.needs)
        self._blended_before = _turned(order.blend_after)
        self._open = count

    @property
    def is_over(self) -> bool:
        """Whether every task is blended or skipped."""
        return not self._open

    def start(self) -> list[int]:
        """The tasks that need nothing, in order."""
        return [number for number, left in enumerate(self._needs_left) if not left]

    def has_arrived(self, number: int) -> bool:
        """Whether nothing more is expected for the task: its result is here, or it is skipped."""
        return self._states[number] != WAITS

    def arrived(self, number: int) -> list[int]:
        """The result is here: what may be blended now, in order. Later results of the same task change nothing."""
        if self._states[number] != WAITS:
            return []
        self._states[number] = ARRIVED
        return self._give_out(number) if not self._blends_left[number] else []

    def blended(self, number: int) -> list[int]:
        """The task's pixels are on the canvas: the tasks that this makes ready, in order."""
        if self._states[number] != BLENDING:
            raise ValueError(f"task {number} is {self._states[number]}: it was not given out to be blended")
        self._states[number] = BLENDED
        return self._settle(number)

    def skipped(self, number: int) -> tuple[list[int], list[int]]:
        """No result will come: what may be blended now, and the tasks that this makes ready. Too late, if one came."""
        if self._states[number] != WAITS:
            return [], []
        self._states[number] = SKIPPED
        to_blend = [follower for freed in self._free(number) for follower in self._give_out(freed)]
        return to_blend, self._settle(number)

    def _settle(self, number: int) -> list[int]:
        self._open -= 1
        ready = []
        for follower in self._needed_by[number]:
            self._needs_left[follower] -= 1
            if not self._needs_left[follower] and self._states[follower] == WAITS:
                ready.append(follower)
        return ready

    def _give_out(self, first: int) -> list[int]:
        """``first``, and after it all that waited for it alone, directly or not."""
        given = [first]
        for number in given:  # grows while it is walked through
            self._states[number] = BLENDING
            given += self._free(number)
        return given

    def _free(self, number: int) -> list[int]:
        """The task stands in nobody's way any more: those whose results are here and that wait for nobody else."""
        freed = []
        for follower in self._blended_before[number]:
            self._blends_left[follower] -= 1
            if not self._blends_left[follower] and self._states[follower] == ARRIVED:
                freed.append(follower)
        return freed


def _turned(earlier: Sequence[frozenset[int]]) -> list[list[int]]:
    """For every task the later ones that name it, in order."""
    later: list[list[int]] = [[] for _ in earlier]
    for number, names in enumerate(earlier):
        for name in names:
            later[name].append(number)
    return later
