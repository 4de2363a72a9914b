"""What becomes of the master's own prompts in the host's queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..host.records import HostQueue, MakeWatch, Outcome
from ..utils.background import Background
from .followers import outcome_of
from .jobrun import JobRun

RECONCILE_EVERY_S = 0.25


class PromptFollower:
    """Tells when prompts start and end: by the host's hook, and by looking for what the hook does not tell."""

    def __init__(
        self,
        queue: HostQueue,
        make_watch: MakeWatch,
        call_soon: Callable[..., None],
        unfinished: Callable[[], list[JobRun]],
        started: Callable[[str], None],
        ended: Callable[[str, Outcome | None], None],
    ) -> None:
        """``unfinished`` lists the jobs whose prompts matter; ``started`` takes a prompt's id, also more than once,
        ``ended`` that and how it ended (None: it never ran). Both are called on the server's loop."""
        self._queue = queue
        self._unfinished = unfinished
        self._started = started
        self._ended = ended
        self._ending: set[str] = set()
        self._background = Background("prompts")
        self._reconciler: asyncio.Task[None] | None = None
        self._hook = make_watch(
            lambda prompt_id: call_soon(started, prompt_id), lambda prompt_id: call_soon(self._has_ended, prompt_id)
        )

    def watch(self) -> None:
        """There is a job: watches as long as there is one."""
        self._hook.hold()
        if self._reconciler is None:
            self._reconciler = self._background.spawn(self._reconcile_while_busy())

    async def close(self) -> None:
        """Stops to watch."""
        self._hook.let_go()
        await self._background.close()

    async def _reconcile_while_busy(self) -> None:
        """Notices prompts that left the host's queue without our hearing of it: deleted, or no hook on this host."""
        while runs := self._unfinished():
            running, waiting = self._queue.live()
            for run in [run for run in runs if run.accepted_s is not None]:
                if run.job_id in running:
                    if not self._hook.available:
                        self._started(run.job_id)
                elif run.job_id not in waiting:
                    self._has_ended(run.job_id)
            await asyncio.sleep(RECONCILE_EVERY_S)
        self._reconciler = None
        self._hook.let_go()

    def _has_ended(self, prompt_id: str) -> None:
        if prompt_id not in self._ending and any(run.job_id == prompt_id for run in self._unfinished()):
            self._ending.add(prompt_id)
            self._background.spawn(self._conclude(prompt_id))

    async def _conclude(self, prompt_id: str) -> None:
        """The host writes down how a prompt ended a moment after its end."""
        try:
            outcome = await outcome_of(self._queue, prompt_id)
        finally:
            self._ending.discard(prompt_id)
        self._ended(prompt_id, outcome)
