"""What workers tell of jobs that do not run here: from before a restart, or long over. The journal knows which."""

from __future__ import annotations

from collections.abc import Iterable

from ..jobs.model import JobState
from ..storage.journal import Journal
from ..transport.manifest import BlobManifest
from ..utils.background import Background
from ..workers import messages as m
from ..workers.entries import MASTER_ID
from ..workers.pool import WorkerPool
from .own_results import OwnResults
from .shelf import Kept, Shelf

RESUMABLE = frozenset({JobState.INTERRUPTED, JobState.FAILED, JobState.PARTIAL})
"""States of ended jobs that can be taken up again."""
REMEMBERED_ANSWERS = 10_000


class Strangers:
    """Keeps what a resumed job could use, and sends the rest away. Use from the server's loop."""

    def __init__(self, shelf: Shelf, journal: Journal, pool: WorkerPool, own: OwnResults) -> None:
        self.shelf = shelf
        self._journal = journal
        self._pool = pool
        self._own = own
        self._background = Background("strangers")
        self._looking: set[str] = set()
        self._resumable: dict[str, bool] = {}

    def finished(self, worker_id: str, message: m.ItemFinished, manifest: BlobManifest) -> None:
        """A worker holds a result."""
        self.put(message.job_id, Kept(worker_id, message.index, message.attempt, manifest, message.seconds))

    def put(self, job_id: str, kept: Kept) -> None:
        """Somebody holds a result; it is sent away again if the journal says that nobody will want it."""
        self.shelf.put(job_id, kept)
        if self._resumable.get(job_id) is False:
            self.release(job_id)
        else:
            self._ask_journal(job_id)

    def put_all(self, job_id: str, held: Iterable[Kept]) -> None:
        """The same for several results of a job."""
        for kept in held:
            self.put(job_id, kept)

    def at_work(
        self, worker_id: str, message: m.LeaseAccepted | m.ItemStarted | m.ItemProgress | m.ItemPreview
    ) -> None:
        """A worker has an item in hand. One that has begun may go on if its result can be of use."""
        if isinstance(message, m.LeaseAccepted) or self._resumable.get(message.job_id) is False:
            stop = m.Stop(job_id=message.job_id, index=message.index, attempt=message.attempt)
            self._background.spawn(self._pool.send(worker_id, stop))
        else:
            self._ask_journal(message.job_id)

    def note(self, job_id: str, *, resumable: bool) -> None:
        """The job has ended, or runs again: what the journal said before no longer holds."""
        while len(self._resumable) >= REMEMBERED_ANSWERS:
            del self._resumable[next(iter(self._resumable))]
        self._resumable[job_id] = resumable

    def forgotten(self, job_ids: Iterable[str]) -> None:
        """The journal knows these jobs no longer, so that none of them will run again."""
        for job_id in job_ids:
            self.note(job_id, resumable=False)
            self.release(job_id)

    def forget_worker(self, worker_id: str) -> None:
        """Its link is gone; it tells anew when it is back."""
        self.shelf.forget_participant(worker_id)

    def release(self, job_id: str) -> None:
        """Nobody will want what is held for this job."""
        for kept in self.shelf.take(job_id):
            if kept.participant_id == MASTER_ID:
                self._own.release((job_id, kept.index, kept.attempt))
            else:
                message = m.Release(job_id=job_id, index=kept.index, attempt=kept.attempt)
                self._background.spawn(self._pool.send(kept.participant_id, message))

    async def close(self) -> None:
        """Stops everything."""
        await self._background.close()

    def _ask_journal(self, job_id: str) -> None:
        if job_id not in self._resumable and job_id not in self._looking:
            self._looking.add(job_id)
            self._background.spawn(self._look_up(job_id))

    async def _look_up(self, job_id: str) -> None:
        try:
            record = await self._journal.job(job_id)
        except Exception:
            # A journal that cannot be read says nothing; workers give up by themselves what nobody asks for.
            self._looking.discard(job_id)
            raise
        self._looking.discard(job_id)
        self.note(job_id, resumable=record is not None and JobState(record.state) in RESUMABLE)
        if not self._resumable[job_id]:
            self.release(job_id)
