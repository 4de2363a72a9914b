"""One connection through a `proxy.Cable`: two directions, each with the cable's faults."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

CHUNK_BYTES = 64 * 1024
THROTTLE_STEP_S = 0.02
"""A throttled direction sends so much at a time as its speed allows in this many seconds."""

QUEUED_CHUNKS = 256
"""What one direction holds while it delays; more is held up at its source, as by any full buffer."""

HEAD_END = b"\r\n\r\n"
Underway = asyncio.Queue[tuple[float, bytes]]
"""Bytes with the loop's time at which they are to arrive; no bytes stand for the goodbye."""

_FLIP = 0xFF
_LINGER = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""Linger for no time at all: closing then resets the connection."""


@dataclass
class Faults:
    """What is wrong with a cable at present. The default is nothing.

    Attributes:
        broken: Connections end at once, new ones as well.
        swallows: Bytes and goodbyes vanish on the way, and both ends hear nothing.
        delay_s, jitter_s: How late bytes arrive: the delay, and up to so much more by a chance with a fixed seed.
        bytes_per_s: How fast each direction of a connection is at most; None for no limit.
        chance: Where the jitter comes from.
    """

    broken: bool = False
    swallows: bool = False
    delay_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: int | None = None
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    def lateness_s(self) -> float:
        """How late the next bytes arrive."""
        return self.delay_s + self.chance.random() * self.jitter_s


class Spoiler:
    """Flips all bits of one byte, ``after_bytes`` into the body of an HTTP answer."""

    def __init__(self, after_bytes: int) -> None:
        self._left = after_bytes
        self._tail = b""
        self._in_body = False
        self.done = False

    def spoil(self, chunk: bytes) -> bytes:
        """The next bytes of the answer, as they are to arrive."""
        if self.done:
            return chunk
        begin = 0
        if not self._in_body:
            seen = self._tail + chunk
            end = seen.find(HEAD_END)
            if end < 0:
                self._tail = seen[1 - len(HEAD_END) :]
                return chunk
            self._in_body = True
            begin = end + len(HEAD_END) - len(self._tail)
        place = begin + self._left
        if place >= len(chunk):
            self._left -= len(chunk) - begin
            return chunk
        self.done = True
        return chunk[:place] + bytes([chunk[place] ^ _FLIP]) + chunk[place + 1 :]


class Line:
    """A connection: the near end has come, the far end is made by `run`.

    Attributes:
        path: What the first HTTP request on it asks for; empty until it is known.
        carried_bytes: How much has come back from the far end.
        lost: Whether anything was swallowed: what follows on it would be rubbish.
    """

    def __init__(
        self,
        near_in: asyncio.StreamReader,
        near_out: asyncio.StreamWriter,
        faults: Callable[[], Faults],
        spoiler: Callable[[Line], Spoiler | None],
    ) -> None:
        """``faults`` tells the cable's present ones; ``spoiler`` what is to spoil this line's answer, if anything."""
        self._near_in, self._near_out = near_in, near_out
        self._far_out: asyncio.StreamWriter | None = None
        self._faults = faults
        self._spoiler_for = spoiler
        self._spoiler: Spoiler | None = None
        self.path = ""
        self.carried_bytes = 0
        self.lost = False

    async def run(self, host: str, port: int, connected: Callable[[], None]) -> None:
        """Carries bytes both ways until both ends have said goodbye. Raises OSError when one is gone without."""
        far_in, self._far_out = await asyncio.open_connection(host, port)
        connected()
        there: Underway = asyncio.Queue(QUEUED_CHUNKS)
        back: Underway = asyncio.Queue(QUEUED_CHUNKS)
        await _together(
            self._receive(self._near_in, there),
            self._send(there, self._far_out, self._ask),
            self._receive(far_in, back),
            self._send(back, self._near_out, self._answer),
        )

    async def swallow(self) -> None:
        """Leads nowhere: takes what the near end says, and gives nothing."""
        self.lost = True
        while await self._near_in.read(CHUNK_BYTES):
            pass
        await asyncio.Event().wait()  # the goodbye is swallowed too

    def reset(self) -> None:
        """Ends both ends with a reset."""
        for writer in self._writers():
            with contextlib.suppress(OSError):  # it may be closed already
                peer: socket.socket = writer.get_extra_info("socket")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
            writer.transport.abort()

    def part(self) -> None:
        """Ends both ends with a goodbye (FIN)."""
        for writer in self._writers():
            writer.close()

    def _writers(self) -> list[asyncio.StreamWriter]:
        return [writer for writer in (self._near_out, self._far_out) if writer is not None]

    async def _receive(self, source: asyncio.StreamReader, underway: Underway) -> None:
        clock = asyncio.get_running_loop()
        chunk = b" "
        while chunk:
            chunk = await source.read(CHUNK_BYTES)
            await underway.put((clock.time() + self._faults().lateness_s(), chunk))

    async def _send(self, underway: Underway, sink: asyncio.StreamWriter, change: Callable[[bytes], bytes]) -> None:
        clock = asyncio.get_running_loop()
        while True:
            due_s, chunk = await underway.get()
            await asyncio.sleep(max(0.0, due_s - clock.time()))
            if self._faults().swallows:
                self.lost = True
                if not chunk:
                    await asyncio.Event().wait()
            elif chunk:
                await self._paced(change(chunk), sink)
            else:
                sink.write_eof()
                return

    async def _paced(self, chunk: bytes, sink: asyncio.StreamWriter) -> None:
        while chunk:
            speed = self._faults().bytes_per_s
            count = len(chunk) if speed is None else max(1, int(speed * THROTTLE_STEP_S))
            sink.write(chunk[:count])
            await sink.drain()
            if speed is not None:
                await asyncio.sleep(min(count, len(chunk)) / speed)
            chunk = chunk[count:]

    def _ask(self, chunk: bytes) -> bytes:
        if not self.path:
            words = chunk.split(b"\r\n", 1)[0].split(b" ")
            self.path = words[1].decode("latin-1") if len(words) > 1 else "?"
        return chunk

    def _answer(self, chunk: bytes) -> bytes:
        self.carried_bytes += len(chunk)
        self._spoiler = self._spoiler or self._spoiler_for(self)
        return self._spoiler.spoil(chunk) if self._spoiler is not None else chunk


async def _together(*works: Coroutine[Any, Any, None]) -> None:
    """Runs all of them; the first error ends the others and is raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end
