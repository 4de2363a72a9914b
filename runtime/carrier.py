"""Carries the state machine's instructions to participants: leases, stops, and what becomes of results."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..graph.plan import build_item_prompt
from ..jobs import events as ev
from ..jobs import instructions as ins
from ..jobs.model import Failure, FailureKind
from ..utils.background import Background
from ..utils.errors import FlotillaError, LinkLost
from ..utils.log import get_logger
from ..workers import messages as m
from ..workers.entries import MASTER_ID, Precision
from ..workers.pool import WorkerPool
from .jobrun import JobRun
from .own_work import OwnWork
from .participants import ParticipantBook
from .tile_desk import TileDesk
from .tile_stage import TileStage
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
        tiles: TileDesk,
        feed: Callable[[ev.Event], None],
    ) -> None:
        self._pool = pool
        self._participants = participants
        self._own_work = own_work
        self._transfers = transfers
        self._tiles = tiles
        self._feed = feed
        self._sending: dict[tuple[str, int, int], asyncio.Task[None]] = {}
        self._background = Background("carrier")

    def carry_out(self, run: JobRun | None, order: ToParticipant) -> None:
        """``run`` is None for a job that is no longer known: then there are only things to stop and to release."""
        if order.participant_id == MASTER_ID:
            self._here(run, order)
        elif isinstance(order, ins.StopLease):
            self._stop_sending(order)
            stop = m.Stop(job_id=order.job_id, index=order.index, attempt=order.attempt)
            self._background.spawn(self._pool.send(order.participant_id, stop))
        elif isinstance(order, ins.ReleaseResult):
            self._transfers.release(run, order)
        elif run is None:
            log.error("an instruction for a job that is not known", job=order.job_id)
        elif isinstance(order, ins.SendLease):
            self._start_sending(run, order)
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

    def _start_sending(self, run: JobRun, lease: ins.SendLease) -> None:
        key = (lease.job_id, lease.index, lease.attempt)
        task = self._sending[key] = self._background.spawn(self._send_lease(run, lease))
        task.add_done_callback(lambda _task: self._sending.pop(key, None))

    def _stop_sending(self, order: ins.StopLease) -> None:
        """What is stopped before it was sent is not sent: pixels may take their time."""
        task = self._sending.get((order.job_id, order.index, order.attempt))
        if task is not None:
            task.cancel()

    async def _send_lease(self, run: JobRun, lease: ins.SendLease) -> None:
        """A lease that cannot be sent ends the item; a link that is lost meanwhile is told by the pool."""
        worker_id = lease.participant_id
        item = run.item(lease.index)
        stage = run.stages.get(item.node_id)
        try:
            if isinstance(stage, TileStage):
                prompt = await self._tiles.prompt(run, stage, item.k, worker_id)
                precision: Precision = "exact"
            else:
                prompt = build_item_prompt(run.plan, item)
                precision = self._participants.precision(worker_id)
            prompt = self._participants.fitted(prompt, worker_id)
            # From here on the message goes out whole: half of one would end the link.
            self._sending.pop((lease.job_id, lease.index, lease.attempt), None)
            await self._pool.send(worker_id, run.lease(lease.index, lease.attempt, prompt, precision))
        except LinkLost:
            return
        except Exception as error:
            log.warning("an item could not be sent", job=lease.job_id, worker=worker_id, error=error)
            # A worker that has no room for pixels, or does not get them, says nothing about the others.
            retry = isinstance(stage, TileStage) and isinstance(error, FlotillaError)
            kind = FailureKind.TRANSFER if retry else "plan"
            failure = Failure(kind=kind, message=str(error), participant_id=worker_id)
            self._feed(ev.ItemFailed(lease.job_id, lease.index, lease.attempt, worker_id, failure, retry=retry))
