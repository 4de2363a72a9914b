"""What becomes of the master's own prompts in the host's queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..host.records import HostQueue, MakeWatch
from ..utils.background import Background
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
        ended: Callable[[str], None],
    ) -> None:
        """``unfinished`` lists the jobs whose prompts matter; ``started`` and ``ended`` take a prompt's id, on the
        server's loop, also more than once."""
        self._queue = queue
        self._unfinished = unfinished
        self._started = started
        self._ended = ended
        self._background = Background("prompts")
        self._reconciler: asyncio.Task[None] | None = None
        self._hook = make_watch(
            lambda prompt_id: call_soon(started, prompt_id), lambda prompt_id: call_soon(ended, prompt_id)
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
                    self._ended(run.job_id)
            await asyncio.sleep(RECONCILE_EVERY_S)
        self._reconciler = None
        self._hook.let_go()
