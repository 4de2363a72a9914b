"""Tasks that run beside the code that started them, and are never forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from .errors import FlotillaError
from .log import get_logger

log = get_logger("background")


class Background:
    """Holds tasks until they end. Errors that nobody foresaw are logged; FlotillaErrors are somebody's ordinary news."""

    def __init__(self, what: str) -> None:
        """``what`` names the owner in the log."""
        self._what = what
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs ``work`` on the running loop."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    async def close(self) -> None:
        """Cancels what still runs and waits for its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, FlotillaError):
            log.error("work in the background failed", exc_info=error, of=self._what)
