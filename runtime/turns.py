"""Whose turn it is: jobs are worked on in the order of the host's queue, a bounded number of them ahead of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Turns:
    """Ids of jobs that wait for their turn, and of those that have it. Use from the server's loop."""

    def __init__(self, ahead: Callable[[], int], begin: Callable[[str], None]) -> None:
        """``ahead`` says how many jobs may be worked on besides the first, ``begin`` hears whose turn it is."""
        self._ahead = ahead
        self._begin = begin
        self._waiting: deque[str] = deque()
        self._active: set[str] = set()

    def add(self, job_id: str) -> None:
        """The job waits for its turn, which may be now."""
        self._waiting.append(job_id)
        self.go_on()

    def take(self, job_id: str) -> None:
        """It is this job's turn now, if it still waits: the host has begun with its prompt."""
        if job_id in self._waiting:
            self._waiting.remove(job_id)
            self._activate(job_id)

    def end(self, job_id: str) -> None:
        """The job is over. Call `go_on` afterwards."""
        self._active.discard(job_id)
        if job_id in self._waiting:
            self._waiting.remove(job_id)

    def go_on(self) -> None:
        """Gives turns to those who wait, as far as there are any."""
        while self._waiting and len(self._active) < 1 + self._ahead():
            self._activate(self._waiting.popleft())

    def _activate(self, job_id: str) -> None:
        self._active.add(job_id)
        self._begin(job_id)
