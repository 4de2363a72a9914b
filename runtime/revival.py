"""Jobs of the journal taken up again: after a restart of the master, or to repeat what failed."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Collection
from typing import Protocol

from ..host.records import HostQueue, Refused
from ..jobs.model import JobState
from ..storage.journal import Journal
from ..storage.records import ItemRecord, JobRecord
from ..utils.clock import Clock
from ..utils.errors import Conflict, InvalidPrompt, NotFound
from ..utils.log import get_logger
from ..workers.entries import MASTER_ID
from ..workers.registry import WorkerRegistry
from .jobrun import JobRun
from .planner import Planner
from .shelf import Kept
from .strangers import RESUMABLE, Strangers

log = get_logger("revival")

TELLING_WAIT_S = 2.0
"""How long a resume waits for workers that are linked to tell which finished results they still hold."""

HOLDERS_WAIT_S = 10.0
"""How long it waits for those that held some and are not linked yet."""
PROMPT_WAIT_S = 5.0
"""How long the prompt of a job that has ended may take to end as well."""

PROMPT_LOOK_S = 0.02
ITEMS_PAGE = 1_000
RETRYABLE = frozenset({JobState.FAILED, JobState.PARTIAL})


class Begins(Protocol):
    """What the coordinator does for a job that is taken up again."""

    def set_aside(self, job_id: str) -> list[Kept]:
        """Forgets an ended job of the same id, if there is one; returns the results that are held for it.

        Raises Conflict while it runs."""
        ...

    def is_ending(self, job_id: str) -> bool:
        """Whether the job has ended and its prompt has not."""
        ...

    def register(self, run: JobRun) -> None:
        """The job exists."""
        ...

    def offer(self, run: JobRun, kept: Kept) -> None:
        """This result of an earlier life is at hand."""
        ...

    def accept(self, job_id: str) -> None:
        """The host has queued its prompt."""
        ...

    def drop(self, job_id: str, reason: str) -> None:
        """The host has refused its prompt."""
        ...


class Revival:
    """Use from the server's loop."""

    def __init__(
        self,
        coordinator: Begins,
        *,
        journal: Journal,
        planner: Planner,
        queue: HostQueue,
        registry: WorkerRegistry,
        strangers: Strangers,
        is_linked: Callable[[str], bool],
        clock: Clock,
    ) -> None:
        self._coordinator = coordinator
        self._journal = journal
        self._planner = planner
        self._queue = queue
        self._registry = registry
        self._strangers = strangers
        self._is_linked = is_linked
        self._clock = clock
        self._busy: set[str] = set()

    async def resume(self, job_id: str, states: Collection[JobState] = RESUMABLE) -> JobRun:
        """Queues the job's prompt again under the same id; items whose results exist are not computed again.

        Raises NotFound, Conflict for a job that is in none of ``states``, NobodyCanRun, InvalidPrompt.
        """
        if job_id in self._busy:
            raise Conflict("This job is being taken up already.")
        self._busy.add(job_id)
        try:
            return await self._resume(job_id, states)
        finally:
            self._busy.discard(job_id)

    def give_up(self, job_id: str) -> None:
        """An interrupted job is not to be taken up again: what is held for it may go."""
        self._journal.patch_job(job_id, state=JobState.CANCELLED.value, ended_s=self._clock.wall_s())
        self._strangers.forgotten([job_id])

    async def forget(self, job_id: str) -> None:
        """Drops all memory of an ended job, here, in the journal and in spools. Raises Conflict while it runs."""
        await self._set_aside(job_id)
        self._strangers.forgotten([job_id])
        await self._journal.forget(job_id)

    async def _resume(self, job_id: str, states: Collection[JobState]) -> JobRun:
        await self._journal.flush()
        record = await self._journal.job(job_id)
        if record is None:
            raise NotFound(f"There is no job {job_id}.", cure="Jobs are listed at /distributed/v2/jobs.")
        if JobState(record.state) not in states:
            wanted = " or ".join(sorted(state.value for state in states))
            raise Conflict(
                f"Job {job_id} is {record.state}; this is for a job that is {wanted}.",
                cure="Queue its workflow again to run it anew.",
                details={"state": record.state},
            )
        items = await self._items(job_id)
        await self._set_aside(job_id)
        self._strangers.note(job_id, resumable=True)
        await self._await_holders(job_id, items)
        attempts = {item.index: item.attempts for item in items}
        finished = set()
        for kept in self._strangers.shelf.of(job_id):
            finished.add(kept.index)
            # What the journal knows may be a moment older than the crash.
            attempts[kept.index] = max(kept.attempt, attempts.get(kept.index, 0))
        run = self._planner.revive(record, finished, attempts)
        self._coordinator.register(run)
        try:
            await self._submit(record)
        except BaseException:
            self._coordinator.drop(job_id, "the host refused the prompt")
            raise
        # No other task has had a turn since the host took the prompt, so it cannot have begun without them.
        for kept in self._strangers.shelf.take(job_id):
            self._coordinator.offer(run, kept)
        self._coordinator.accept(job_id)
        log.info("job taken up again", job=job_id, life=run.lives, items=len(items), finished=len(finished))
        return run

    async def _set_aside(self, job_id: str) -> None:
        """Takes the job out of memory and puts what is kept for it on the shelf. Raises Conflict while it runs."""
        waited_s = 0.0
        while self._coordinator.is_ending(job_id) and waited_s < PROMPT_WAIT_S:
            await asyncio.sleep(PROMPT_LOOK_S)
            waited_s += PROMPT_LOOK_S
        for kept in self._coordinator.set_aside(job_id):
            self._strangers.shelf.put(job_id, kept)

    async def _items(self, job_id: str) -> list[ItemRecord]:
        items: list[ItemRecord] = []
        while True:
            page = await self._journal.items(job_id, ITEMS_PAGE, len(items))
            items.extend(page.records)
            if len(page.records) < ITEMS_PAGE:
                return items

    async def _await_holders(self, job_id: str, items: list[ItemRecord]) -> None:
        """Waits until the workers that hold finished results have told so, as far as they may still come."""
        enabled = {entry.id for entry in self._registry.entries() if entry.enabled}
        holders = {
            item.index: item.participant_id
            for item in items
            if item.state == "done" and item.participant_id != MASTER_ID and item.participant_id in enabled
        }

        def missing() -> set[int]:
            return holders.keys() - {kept.index for kept in self._strangers.shelf.of(job_id)}

        await self._strangers.shelf.until(lambda: not missing(), TELLING_WAIT_S)
        if any(not self._is_linked(holders[index]) for index in missing()):
            await self._strangers.shelf.until(lambda: not missing(), HOLDERS_WAIT_S)
        if missing():
            log.warning("finished results are not to be had any more", job=job_id, items=len(missing()))

    async def _submit(self, record: JobRecord) -> None:
        extra_data = {**copy.deepcopy(dict(record.extra_data)), "client_id": record.client_id}
        self._queue.forget_outcome(record.id)  # that of the life before would be taken for this one's
        answer = await self._queue.submit(copy.deepcopy(dict(record.prompt)), record.id, extra_data)
        if isinstance(answer, Refused):
            parts = (str(answer.error.get(part) or "").strip() for part in ("message", "details"))
            text = ": ".join(part for part in parts if part) or "the prompt is not valid"
            raise InvalidPrompt(
                f"ComfyUI refuses the job's prompt now: {text.rstrip('.')}.",
                cure="Install what it needs, then try again.",
                details={"node_errors": answer.node_errors},
            )
