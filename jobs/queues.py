"""A queue of waiting items in leasing order, from which any item can leave cheaply."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import Item

_SLACK = 32
"""Stale heap entries that are tolerated before the heap is rebuilt."""


class ItemQueue:
    """Items by `Item.key`: earliest accepted job first, then lowest index. Adding is O(log n), leaving amortised O(1).

    Leaving only forgets the member; its heap entry goes when it comes to the top, or when stale ones outnumber members.
    """

    __slots__ = ("_heap", "_members")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int]] = []
        self._members: dict[tuple[int, int], Item] = {}

    def add(self, item: Item) -> None:
        """Queues an item; one that is in already stays where it is."""
        if item.key not in self._members:
            self._members[item.key] = item
            heapq.heappush(self._heap, item.key)

    def discard(self, item: Item) -> None:
        """Takes an item out, if it is in."""
        if self._members.pop(item.key, None) is not None and len(self._heap) > 2 * len(self._members) + _SLACK:
            self._heap = sorted(self._members)

    def first(self) -> Item | None:
        """The item whose turn it is, left in the queue; None when empty."""
        while self._heap:
            item = self._members.get(self._heap[0])
            if item is not None:
                return item
            heapq.heappop(self._heap)
        return None

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, item: Item) -> bool:
        return self._members.get(item.key) is item

    def __iter__(self) -> Iterator[Item]:
        """All items in leasing order, as they are now: the queue may change meanwhile."""
        return iter([self._members[key] for key in sorted(self._members)])
