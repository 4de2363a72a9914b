"""Where waiting items are: in the queue of the participant that they are aimed at, or floating in their group."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Mapping

from .model import Group, Item, Participant
from .queues import ItemQueue
from .states import Waits


class WaitingRoom:
    """Puts items in queues and takes them out; knows which groups have floating items."""

    def __init__(self, participants: Mapping[str, Participant]) -> None:
        self._participants = participants
        self._groups: dict[tuple[int, int], Group] = {}
        self._order: list[tuple[int, int]] = []

    def enter(self, item: Item, waits: Waits) -> None:
        """Queues an item, which is in no queue."""
        item.waits = waits
        if waits is Waits.AIMED:
            self._participants[item.planned_for].aimed.add(item)
            return
        group = item.group
        if not group.waiting:
            self._groups[group.key] = group
            insort(self._order, group.key)
        group.waiting += 1
        group.floating.setdefault(item.failed_by, ItemQueue()).add(item)

    def leave(self, item: Item) -> None:
        """Takes an item out of its queue, if it is in one."""
        if item.waits is Waits.AIMED:
            self._participants[item.planned_for].aimed.discard(item)
        elif item.waits is Waits.FLOATING:
            group = item.group
            queue = group.floating[item.failed_by]
            queue.discard(item)
            if not queue:
                del group.floating[item.failed_by]
            group.waiting -= 1
            if not group.waiting:
                del self._groups[group.key]
                self._order.remove(group.key)
        item.waits = Waits.NOT

    def __iter__(self) -> Iterator[Group]:
        """Groups with floating items, those of the earliest accepted job first. Not to be changed meanwhile."""
        for key in self._order:
            yield self._groups[key]
