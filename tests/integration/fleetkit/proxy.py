"""A cable that can be cut: a TCP proxy on loopback, for the length of a ``with`` block."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlsplit

from .background import Background

CHUNK_BYTES = 64 * 1024


class Cable(Background):
    """Leads to the server at ``target``.

    Attributes:
        url: Its near end.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._writers: set[asyncio.StreamWriter] = set()
        self._broken = False
        self.url = ""

    def cut(self) -> None:
        """Ends every connection now, without a goodbye; until `mend` new ones end as well."""
        self.call(self._cut())

    def mend(self) -> None:
        """New connections go through again."""
        self._broken = False

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _close(self) -> None:
        self._server.close()
        await self._cut()

    async def _cut(self) -> None:
        self._broken = True
        for writer in list(self._writers):
            writer.transport.abort()

    async def _join(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        self._writers.add(near_out)
        try:
            if not self._broken:
                far_in, far_out = await asyncio.open_connection(self._host, self._port)
                self._writers.add(far_out)
                await asyncio.gather(self._pump(near_in, far_out), self._pump(far_in, near_out))
        except OSError:
            pass  # the server behind is gone; the near end shall notice
        finally:
            near_out.transport.abort()
            self._writers.discard(near_out)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(CHUNK_BYTES):
                sink.write(chunk)
                await sink.drain()
        sink.transport.abort()
        self._writers.discard(sink)
