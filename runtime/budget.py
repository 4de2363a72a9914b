"""A bound on what is under way at the same time, in bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ByteBudget:
    """Lets in what fits beside what is in already, first come first served; something larger than all of it goes alone.

    Use from one event loop.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._taken_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def take(self, size_bytes: int) -> AsyncIterator[None]:
        """Waits until ``size_bytes`` fit, and holds them meanwhile."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size_bytes, turn)
        self._waiting.append(entry)
        self._let_in()
        try:
            await turn
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
            else:  # let in at the very moment
                self._give_back(size_bytes)
            self._let_in()
            raise
        try:
            yield
        finally:
            self._give_back(size_bytes)

    def _let_in(self) -> None:
        while self._waiting:
            size_bytes, turn = self._waiting[0]
            if self._taken_bytes and self._taken_bytes + size_bytes > self._limit_bytes:
                return
            self._waiting.popleft()
            self._taken_bytes += size_bytes
            if not turn.done():  # cancelled, and not told yet: it gives the room back itself
                turn.set_result(None)

    def _give_back(self, size_bytes: int) -> None:
        self._taken_bytes -= size_bytes
        self._let_in()
