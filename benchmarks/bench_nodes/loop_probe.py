"""How late this host's event loop is: a task that wants to wake every few milliseconds notes how much later it did.

``POST /bench/lag/begin`` starts it, ``POST /bench/lag/end`` stops it and answers ``{"lags_ms": [...]}``.
"""

from __future__ import annotations

import asyncio
import time

from aiohttp import web
from server import PromptServer

EVERY_S = 0.005
MS = 1_000.0


class Probe:
    """The task and what it has seen."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._lags_ms: list[float] = []

    def begin(self) -> None:
        """Starts anew. On the loop that is to be looked at."""
        self.end()
        self._lags_ms = []
        self._task = asyncio.get_running_loop().create_task(self._look())

    def end(self) -> list[float]:
        """Stops. How late each waking was, in milliseconds."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        return self._lags_ms

    async def _look(self) -> None:
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(EVERY_S)
            self._lags_ms.append((time.monotonic() - began_s - EVERY_S) * MS)


def register() -> None:
    """Adds the routes. Must run while the host imports packs."""
    probe = Probe()

    async def begin(_request: web.Request) -> web.Response:
        probe.begin()
        return web.json_response({})

    async def end(_request: web.Request) -> web.Response:
        return web.json_response({"lags_ms": probe.end()})

    routes = PromptServer.instance.routes
    routes.post("/bench/lag/begin")(begin)
    routes.post("/bench/lag/end")(end)
