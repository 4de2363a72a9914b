"""Remote pictures on their way to a screen: labelled with who made them, at a bounded rate, the newest one wins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..host.records import HostScreen
from ..utils.background import Background
from ..utils.clock import Clock
from ..utils.errors import FlotillaError
from ..utils.log import get_logger
from . import pictures
from .news import PreviewNews
from .pace import CallLater, Timer

log = get_logger("relay")

PREVIEW_EVENT = "flotilla.preview"
EVERY_S_PER_JOB = 0.25
EVERY_S_PER_PARTICIPANT = 0.5
SMALL_EDGE_PX = 256
MAX_DATA_URL_CHARS = 40_000


class PreviewDesk:
    """Holds at most one picture per job and participant, and works on one at a time. On the server's loop."""

    def __init__(self, screen: HostScreen, clock: Clock, names: Callable[[str], str], call_later: CallLater) -> None:
        self._screen = screen
        self._clock = clock
        self._names = names
        self._call_later = call_later
        self._clients: dict[str, str] = {}  # by job
        self._waiting: dict[tuple[str, str], PreviewNews] = {}  # by job and participant, who waits longest first
        self._next_s: dict[tuple[str, str], float] = {}
        self._job_next_s: dict[str, float] = {}
        self._work: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._background = Background("previews")

    def open_job(self, job_id: str, client_id: str) -> None:
        """From now on pictures of this job are shown to that client."""
        self._clients[job_id] = client_id

    def close_job(self, job_id: str) -> None:
        """Nothing of this job is shown any more."""
        self._clients.pop(job_id, None)
        self._job_next_s.pop(job_id, None)
        for key in [key for key in self._next_s if key[0] == job_id]:
            del self._next_s[key]
        for key in [key for key in self._waiting if key[0] == job_id]:
            del self._waiting[key]

    def offer(self, news: PreviewNews) -> None:
        """A picture has come. Dropped when nobody looks."""
        if self._screen.listens(self._clients.get(news.job_id, "")):
            self._waiting[news.job_id, news.participant_id] = news
            self._go_on()

    def show(self, job_id: str, node_id: str, jpeg: bytes) -> None:
        """Shows a picture of the master's own on the node, to the client of the job."""
        self._screen.send_preview(jpeg, node_id, job_id, self._clients.get(job_id, ""))

    async def close(self) -> None:
        """Shows nothing any more."""
        self._stop_timer()
        self._clients.clear()
        self._waiting.clear()
        await self._background.close()

    def _go_on(self) -> None:
        """Begins with the picture that waits longest of those that may be shown now, or waits for the first that may."""
        self._stop_timer()
        if self._work is not None or not self._waiting:
            return
        now_s = self._clock.now_s()
        first_s = min(self._due_s(key) for key in self._waiting)
        if first_s > now_s:
            self._timer = self._call_later(first_s - now_s, self._go_on)
            return
        key = next(key for key in self._waiting if self._due_s(key) <= now_s)
        self._job_next_s[key[0]] = now_s + EVERY_S_PER_JOB
        self._next_s[key] = now_s + EVERY_S_PER_PARTICIPANT
        self._work = self._background.spawn(self._show(self._waiting.pop(key)))
        self._work.add_done_callback(self._shown)

    def _due_s(self, key: tuple[str, str]) -> float:
        return max(self._job_next_s.get(key[0], 0.0), self._next_s.get(key, 0.0))

    def _shown(self, _task: asyncio.Task[None]) -> None:
        self._work = None
        self._go_on()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _show(self, news: PreviewNews) -> None:
        name = self._names(news.participant_id)
        try:
            jpeg, small = await asyncio.to_thread(_render, news.data, name)
        except FlotillaError as error:
            log.debug("a preview cannot be shown", job=news.job_id, participant=news.participant_id, error=error)
            return
        client_id = self._clients.get(news.job_id, "")
        if not client_id:  # the job has ended meanwhile
            return
        if news.on_node:
            self._screen.send_preview(jpeg, news.node_id, news.job_id, client_id)
        message: dict[str, Any] = {
            "job_id": news.job_id,
            "index": news.index,
            "node_id": news.node_id,
            "participant": news.participant_id,
            "name": name,
            "image": small,
        }
        self._screen.send_event(PREVIEW_EVENT, message, client_id)


def _render(data: str, name: str) -> tuple[bytes, str]:
    """The labelled picture as a JPEG, and the plain one, small, as a data URL. Raises InvalidInput and TooLarge."""
    image = pictures.decode(data)
    return pictures.labelled(image, name), pictures.data_url(image, SMALL_EDGE_PX, MAX_DATA_URL_CHARS)
