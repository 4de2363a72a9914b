"""Items that the master computes itself, in its own prompt."""

from __future__ import annotations

from collections.abc import Callable

from ..graph.plan import build_item_prompt
from ..jobs import events as ev
from ..jobs.instructions import SendLease, StopLease
from ..utils.clock import Clock
from ..utils.log import get_logger
from ..workers.entries import MASTER_ID
from .jobrun import JobRun
from .participants import ParticipantBook
from .stage import FIRST_ATTEMPT

log = get_logger("own_work")


class OwnWork:
    """Carries out the instructions that are meant for the master as a participant.

    The item that the plan gives to the master is its prompt, which is in the host's queue already. Others come to it
    when nobody else is left for them; the waiting node then adds them to the running prompt.
    """

    def __init__(self, participants: ParticipantBook, clock: Clock, feed_soon: Callable[[ev.Event], None]) -> None:
        """``feed_soon`` hands an event to the state machine once it is done with the present one."""
        self._participants = participants
        self._clock = clock
        self._feed_soon = feed_soon

    def start(self, run: JobRun, lease: SendLease) -> None:
        """The master is to compute an item."""
        item = run.item(lease.index)
        stage = run.stages.get(item.node_id)
        if item.by_master_prompt or stage is None:
            return
        missing = self._participants.missing_here(build_item_prompt(run.plan, item))
        if missing:
            self._feed_soon(ev.LeaseRefused(lease.job_id, lease.index, lease.attempt, MASTER_ID, missing))
            return
        log.warning("nobody else is left for an item, the master computes it", job=run.job_id, item=lease.index)
        run.own_began_s[lease.index] = self._clock.now_s()
        stage.request(item.k, lease.attempt)
        self._feed_soon(ev.ItemStarted(lease.job_id, lease.index, lease.attempt, MASTER_ID))

    def prompt_started(self, run: JobRun) -> None:
        """The host begins to execute the job's prompt, and with it the master's planned items."""
        for item in run.plan.items:
            if item.by_master_prompt:
                run.own_began_s.setdefault(item.index, self._clock.now_s())
                self._feed_soon(ev.ItemStarted(run.job_id, item.index, FIRST_ATTEMPT, MASTER_ID))

    def stop(self, run: JobRun, order: StopLease) -> None:
        """The item is no longer wanted; what has begun goes on and is then dropped."""
        stage = run.stages.get(run.item(order.index).node_id)
        if stage is not None:
            stage.withdraw(run.item(order.index).k, order.attempt)

    def done(self, run: JobRun, index: int, attempt: int) -> None:
        """The node has put the item into the assembly."""
        now_s = self._clock.now_s()
        run.seconds.setdefault(index, now_s - run.own_began_s.get(index, now_s))
        self._feed_soon(ev.ItemFinished(run.job_id, index, attempt, MASTER_ID, None))
