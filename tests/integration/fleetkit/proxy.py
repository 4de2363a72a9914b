"""A cable with faults: a TCP proxy on loopback, for the length of a ``with`` block.

It stands between a master and a worker, so that links and blobs go through it. Every fault can be switched on and off
while connections are open; `mend` ends them all.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

from .background import Background
from .cable_line import Faults, Line, Spoiler

BLOBS_PATH = "/distributed/v2/blobs/"


class Cable(Background):
    """Leads to the server at ``target``.

    Attributes:
        url: Its near end.
        connections: How many connections have been asked for.
        spoiled: How many blobs it has corrupted (see `corrupt`).
        overtaken: How many held connections were let through after a later one (see `hold_next`).
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._lines: dict[Line, asyncio.Task[Any]] = {}
        self._faults = Faults()
        self._to_spoil: list[int] = []
        self._spoilers: list[Spoiler] = []
        self._hold_next = False
        self.url = ""
        self.connections = 0
        self.overtaken = 0

    @property
    def spoiled(self) -> int:
        return sum(spoiler.done for spoiler in self._spoilers)

    def cut(self, *, kindly: bool = False) -> None:
        """Ends every connection now, with a reset, or ``kindly`` with a goodbye; until `mend` new ones end as well."""
        self._faults.broken = True
        self.call(self._end("", kindly))

    def drop(self, path: str, *, kindly: bool = False) -> None:
        """Ends, once, the connections whose first request's path begins with ``path``. New ones go through."""
        self.call(self._end(path, kindly))

    def swallow(self) -> None:
        """Both ends hear nothing more of each other, not even a goodbye: half-open. New connections lead nowhere."""
        self._faults.swallows = True

    def delay(self, delay_s: float, jitter_s: float = 0.0) -> None:
        """Everything arrives so much later; the jitter is the same sequence for every cable."""
        self._faults.delay_s, self._faults.jitter_s = delay_s, jitter_s

    def throttle(self, bytes_per_s: int) -> None:
        """Each direction of each connection is at most so fast."""
        self._faults.bytes_per_s = bytes_per_s

    def corrupt(self, after_bytes: int, times: int = 1) -> None:
        """Each of the next ``times`` blobs has one byte flipped, ``after_bytes`` into its body."""
        self._to_spoil = [after_bytes] * times

    def hold_next(self) -> None:
        """The next connection is held until a later one has gone through (or until `mend`)."""
        self._hold_next = True

    def mend(self) -> None:
        """Ends all faults. Connections on which something was swallowed are reset; held ones go through."""
        self.call(self._mend())

    def carried_bytes(self, path: str = "") -> int:
        """How much has come back on the open connections whose first request's path begins with ``path``."""
        return sum(line.carried_bytes for line in list(self._lines) if line.path.startswith(path))

    async def _open(self) -> None:
        self._overtake = asyncio.Event()
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _close(self) -> None:
        self._server.close()
        tasks = list(self._lines.values())
        await self._end("", kindly=False)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _end(self, path: str, kindly: bool) -> None:
        for line, task in list(self._lines.items()):
            if line.path.startswith(path):
                if kindly:
                    line.part()
                else:
                    task.cancel()

    async def _mend(self) -> None:
        self._faults = Faults()
        self._to_spoil, self._hold_next = [], False
        self._overtake.set()
        self._overtake = asyncio.Event()
        for line, task in list(self._lines.items()):
            if line.lost:
                task.cancel()

    async def _join(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        self.connections += 1
        line = Line(near_in, near_out, lambda: self._faults, self._spoiler_for)
        task = asyncio.current_task()
        assert task is not None
        self._lines[line] = task
        try:
            await self._carry(line)
        except (OSError, asyncio.CancelledError):  # an end is gone, or a fault wants it: the other shall notice
            line.reset()
        else:
            line.part()
        finally:
            del self._lines[line]

    async def _carry(self, line: Line) -> None:
        if self._hold_next:
            self._hold_next = False
            await self._overtake.wait()
            self.overtaken += 1
        if self._faults.broken:
            raise ConnectionAbortedError("the cable is cut")
        if self._faults.swallows:
            await line.swallow()
            return
        await line.run(self._host, self._port, self._through)

    def _through(self) -> None:
        """A connection has reached the far end: one that is held for it may follow."""
        self._overtake.set()
        self._overtake = asyncio.Event()

    def _spoiler_for(self, line: Line) -> Spoiler | None:
        if not self._to_spoil or not line.path.startswith(BLOBS_PATH):
            return None
        self._spoilers.append(Spoiler(self._to_spoil.pop()))
        return self._spoilers[-1]
