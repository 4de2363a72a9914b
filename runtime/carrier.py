"""Carries the state machine's instructions to participants: leases, stops, and what becomes of results."""

from __future__ import annotations

from collections.abc import Callable

from ..jobs import events as ev
from ..jobs import instructions as ins
from ..jobs.model import Failure
from ..utils.background import Background
from ..utils.errors import LinkLost
from ..utils.log import get_logger
from ..workers import messages as m
from ..workers.entries import MASTER_ID
from ..workers.pool import WorkerPool
from .jobrun import JobRun
from .own_work import OwnWork
from .participants import ParticipantBook
from .transfers import Transfers

log = get_logger("carrier")

ToParticipant = ins.SendLease | ins.StopLease | ins.FetchResult | ins.KeepResult | ins.ReleaseResult
"""The instructions about one attempt of one participant."""


class Carrier:
    """``feed`` takes the events that come of an instruction. Use from the server's loop."""

    def __init__(
        self,
        pool: WorkerPool,
        participants: ParticipantBook,
        own_work: OwnWork,
        transfers: Transfers,
        feed: Callable[[ev.Event], None],
    ) -> None:
        self._pool = pool
        self._participants = participants
        self._own_work = own_work
        self._transfers = transfers
        self._feed = feed
        self._background = Background("carrier")

    def carry_out(self, run: JobRun | None, order: ToParticipant) -> None:
        """``run`` is None for a job that is no longer known: then there are only things to stop and to release."""
        if order.participant_id == MASTER_ID:
            self._here(run, order)
        elif isinstance(order, ins.StopLease):
            stop = m.Stop(job_id=order.job_id, index=order.index, attempt=order.attempt)
            self._background.spawn(self._pool.send(order.participant_id, stop))
        elif isinstance(order, ins.ReleaseResult):
            self._transfers.release(run, order)
        elif run is None:
            log.error("an instruction for a job that is not known", job=order.job_id)
        elif isinstance(order, ins.SendLease):
            self._background.spawn(self._send_lease(run, order))
        elif isinstance(order, ins.FetchResult):
            self._transfers.start(run, order)
        else:
            self._transfers.keep(run, order)

    async def close(self) -> None:
        """Stops everything."""
        await self._transfers.close()
        await self._background.close()

    def _here(self, run: JobRun | None, order: ToParticipant) -> None:
        """For the master as a participant."""
        if isinstance(order, ins.ReleaseResult):
            self._own_work.release(order)
        elif run is None:
            return
        elif isinstance(order, ins.SendLease):
            self._own_work.start(run, order)
        elif isinstance(order, ins.StopLease):
            self._own_work.stop(run, order)
        elif isinstance(order, ins.FetchResult):
            self._own_work.fetch(run, order)

    async def _send_lease(self, run: JobRun, lease: ins.SendLease) -> None:
        """A lease that cannot be sent ends the item; a link that is lost meanwhile is told by the pool."""
        try:
            worker_id = lease.participant_id
            capabilities = self._participants.capabilities(worker_id)
            precision = self._participants.precision(worker_id)
            await self._pool.send(worker_id, run.lease(lease.index, lease.attempt, capabilities, precision))
        except LinkLost:
            return
        except Exception as error:
            log.warning("an item could not be sent", job=lease.job_id, worker=lease.participant_id, error=error)
            failure = Failure(kind="plan", message=str(error), participant_id=lease.participant_id)
            self._feed(
                ev.ItemFailed(lease.job_id, lease.index, lease.attempt, lease.participant_id, failure, retry=False)
            )
