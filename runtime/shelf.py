"""Finished results of jobs that are not running: who holds which, so that a resumed job need not compute them again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ..transport.manifest import BlobManifest
from ..utils.log import get_logger

log = get_logger("shelf")

MAX_RESULTS = 200_000
"""Results noted at a time. Beyond that the jobs noted first are given up: their items are then computed again."""


@dataclass(frozen=True)
class Kept:
    """The result of one attempt, held by a participant. ``seconds``: how long it took to compute."""

    participant_id: str
    index: int
    attempt: int
    manifest: BlobManifest
    seconds: float


class Shelf:
    """Notes by job. Holds no results: those lie with the participants. Use from one thread."""

    def __init__(self) -> None:
        self._jobs: dict[str, dict[tuple[str, int, int], Kept]] = {}
        self._count = 0
        self._changed = asyncio.Event()

    def put(self, job_id: str, kept: Kept) -> None:
        """Notes a result; told again, it changes nothing."""
        job = self._jobs.setdefault(job_id, {})
        key = (kept.participant_id, kept.index, kept.attempt)
        if key not in job:
            self._count += 1
        job[key] = kept
        self._changed.set()
        while self._count > MAX_RESULTS and len(self._jobs) > 1:
            oldest = next(iter(self._jobs))
            log.warning("too many results are kept for jobs that do not run", given_up=oldest)
            self.take(oldest)

    def of(self, job_id: str) -> list[Kept]:
        """What is held for the job, by item."""
        return sorted(self._jobs.get(job_id, {}).values(), key=lambda kept: (kept.index, kept.attempt))

    def take(self, job_id: str) -> list[Kept]:
        """The same, no longer noted."""
        kept = self.of(job_id)
        self._count -= len(kept)
        self._jobs.pop(job_id, None)
        return kept

    def job_ids(self) -> list[str]:
        """The jobs for which something is held."""
        return list(self._jobs)

    def forget_participant(self, participant_id: str) -> None:
        """It cannot be reached. When it is back, it tells anew what it holds."""
        for job_id in self.job_ids():
            job = self._jobs[job_id]
            for key in [key for key in job if key[0] == participant_id]:
                del job[key]
                self._count -= 1
            if not job:
                del self._jobs[job_id]

    async def until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Waits until ``condition`` holds, looking after every note; False when ``timeout_s`` is over before."""

        async def look() -> None:
            while not condition():
                self._changed.clear()
                await self._changed.wait()

        try:
            await asyncio.wait_for(look(), timeout_s)
        except asyncio.TimeoutError:
            return False
        return True
