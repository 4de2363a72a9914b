"""A worker's preparation of jobs: prompts that load the models before the first item comes. They are no leases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from ..host.records import HostQueue, Outcome, Queued, Refused
from ..transport.limits import DEFAULT_LIMITS
from ..transport.values import json_fault
from ..utils.background import Background
from ..utils.errors import InvalidInput, JobCancelled
from ..utils.log import get_logger
from ..workers import messages as m
from .followers import PROGRESS_EVERY_S, outcome_of, refusal_reason
from .session import MasterSession, Preparation

log = get_logger("preparations")

NOTHING_SAID = "The preparation ended on the worker without having loaded anything."


class Preparations:
    """Runs each job's preparation once. Use from the server's loop, except `prepared`, which a node calls."""

    def __init__(self, queue: HostQueue, call_soon: Callable[..., None], changed: Callable[[], None]) -> None:
        """``changed`` hears when a prompt of ours has come into the host's queue or has left it."""
        self._queue = queue
        self._call_soon = call_soon
        self._changed = changed
        self._by_prompt: dict[str, Preparation] = {}
        self._background = Background("preparations")

    def find(self, prompt_id: str) -> Preparation | None:
        """The preparation whose prompt this is and which the host has not let go of. From any thread."""
        return self._by_prompt.get(prompt_id)

    @property
    def is_idle(self) -> bool:
        """Whether the host has none of our prompts."""
        return not self._by_prompt

    async def take(self, session: MasterSession, order: m.Prepare) -> None:
        """Queues the prompt. For a job that has been prepared before it tells again how that ended."""
        known = session.preparations.get(order.job_id)
        if known is not None:
            if known.report is not None:
                await session.send(known.report)
            return
        work = Preparation(session, order.job_id, order.prompt_id)
        session.preparations[order.job_id] = work
        self._by_prompt[order.prompt_id] = work
        try:
            answer: Queued | Refused = await self._queue.submit(order.prompt, order.prompt_id, order.extra_data)
        except Exception as error:
            log.exception("the host could not validate a preparation", job=order.job_id)
            answer = Refused({"message": f"{type(error).__name__}: {error}"}, {})
        if isinstance(answer, Refused):
            self._let_go(work)
            await self._tell(work, m.Prepared(job_id=work.job_id, ok=False, message=refusal_reason(answer)))
            return
        if work.unwanted:  # while the host was validating it
            self._queue.cancel(work.prompt_id)
        self._changed()
        self._background.spawn(self._follow(work))

    def prepared(self, prompt_id: str, facts: Mapping[str, Any]) -> None:
        """Called by the node that stands above the loaded models, in the prompt thread; see `context.prepared`."""
        work = self._by_prompt.get(prompt_id)
        if work is None:
            raise RuntimeError("this prompt is no preparation that a master has sent to this worker")
        if work.unwanted:
            raise JobCancelled("The master does not want this job to be prepared any more.")
        fault = json_fault(dict(facts), DEFAULT_LIMITS.max_json_depth)
        if fault:
            raise InvalidInput(f"The facts about a preparation cannot be sent: {fault}.")
        report = m.Prepared(job_id=work.job_id, ok=True, facts=dict(facts))
        self._call_soon(lambda: self._background.spawn(self._tell(work, report)))

    def ended(self, prompt_id: str) -> None:
        """The host says that a prompt is over; anybody's."""
        work = self._by_prompt.get(prompt_id)
        if work is not None:
            self._background.spawn(self._conclude(work))

    def drop(self, session: MasterSession, job_id: str) -> None:
        """The job is over: its preparation is stopped, if it still waits or runs, and forgotten."""
        work = session.preparations.pop(job_id, None)
        if work is not None:
            work.unwanted = True
            if work.prompt_id in self._by_prompt:
                self._queue.cancel(work.prompt_id)

    def drop_all(self, session: MasterSession) -> None:
        """The master is gone."""
        for job_id in list(session.preparations):
            self.drop(session, job_id)

    async def close(self) -> None:
        """Stops everything."""
        for prompt_id in list(self._by_prompt):
            self._queue.cancel(prompt_id)
        await self._background.close()

    async def _follow(self, work: Preparation) -> None:
        """Notices what no hook tells: that the prompt left the queue, whether it has run or not."""
        while not work.concluded:
            running, waiting = self._queue.live()
            if work.prompt_id not in running and work.prompt_id not in waiting:
                await self._conclude(work)
                return
            await asyncio.sleep(PROGRESS_EVERY_S)

    async def _conclude(self, work: Preparation) -> None:
        if work.concluded:
            return
        work.concluded = True
        outcome = await outcome_of(self._queue, work.prompt_id)
        await asyncio.sleep(0)  # what was said in the last moment is waiting in the loop
        self._let_go(work)
        await self._tell(work, m.Prepared(job_id=work.job_id, ok=False, message=_why(outcome)))

    async def _tell(self, work: Preparation, report: m.Prepared) -> None:
        """The first report counts, and none after the job was over."""
        if work.report is None and not work.unwanted:
            work.report = report
            await work.session.send(report)

    def _let_go(self, work: Preparation) -> None:
        if self._by_prompt.get(work.prompt_id) is work:
            del self._by_prompt[work.prompt_id]
        self._changed()


def _why(outcome: Outcome | None) -> str:
    if outcome is None:
        return "Somebody removed the preparation from the worker's queue."
    if outcome.status == "interrupted":
        return "Somebody interrupted the preparation on the worker."
    if outcome.status == "error":
        return outcome.message or "The preparation failed on the worker."
    return NOTHING_SAID
