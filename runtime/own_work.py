"""Items that the master computes itself, in its own prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..graph.plan import build_item_prompt
from ..jobs import events as ev
from ..jobs.instructions import FetchResult, ReleaseResult, SendLease, StopLease
from ..jobs.model import Failure
from ..transport.manifest import BlobManifest
from ..transport.values import Value
from ..utils.background import Background
from ..utils.clock import Clock
from ..utils.errors import FlotillaError
from ..utils.log import get_logger
from ..workers.entries import MASTER_ID
from .jobrun import JobRun
from .own_results import OwnResults
from .participants import ParticipantBook
from .tile_stage import TileStage

log = get_logger("own_work")


class OwnWork:
    """Carries out the instructions that are meant for the master as a participant.

    The item that the plan gives to the master is its prompt, which is in the host's queue already. Others it takes when
    its waiting node asks for one; the node then adds them to the running prompt.
    """

    def __init__(
        self, participants: ParticipantBook, results: OwnResults, clock: Clock, feed_soon: Callable[[ev.Event], None]
    ) -> None:
        """``feed_soon`` hands an event to the state machine once it is done with the present one."""
        self._participants = participants
        self._results = results
        self._clock = clock
        self._feed_soon = feed_soon
        self._background = Background("own work")

    def start(self, run: JobRun, lease: SendLease) -> None:
        """The master is to compute an item."""
        item = run.item(lease.index)
        stage = run.stages.get(item.node_id)
        if item.by_master_prompt:
            run.own_attempts[lease.index] = lease.attempt
            if lease.index in run.own_began_s:  # its prompt runs already
                self._feed_soon(ev.ItemStarted(run.job_id, lease.index, lease.attempt, MASTER_ID))
            return
        if stage is None:
            return
        if MASTER_ID not in run.plan.participants:
            prompt = stage.side.probe() if isinstance(stage, TileStage) else build_item_prompt(run.plan, item)
            missing = self._participants.missing_here(prompt)
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
            if item.by_master_prompt and item.index not in run.own_began_s:
                run.own_began_s[item.index] = self._clock.now_s()
                if item.index in run.own_attempts:
                    attempt = run.own_attempts[item.index]
                    self._feed_soon(ev.ItemStarted(run.job_id, item.index, attempt, MASTER_ID))

    def stop(self, run: JobRun, order: StopLease) -> None:
        """The item is no longer wanted; what has begun goes on and is then dropped."""
        stage = run.stages.get(run.item(order.index).node_id)
        if stage is not None:
            stage.withdraw(run.item(order.index).k, order.attempt)

    def done(self, run: JobRun, index: int, attempt: int, values: Mapping[str, Value]) -> None:
        """The node has put the item into the assembly."""
        now_s = self._clock.now_s()
        seconds = now_s - run.own_began_s.get(index, now_s)
        run.seconds.setdefault(index, seconds)
        if run.item(index).by_master_prompt:
            attempt = run.own_attempts.get(index, attempt)
        if run.ended_s is None:
            self._results.keep((run.job_id, index, attempt), values, seconds)
        self._feed_soon(ev.ItemFinished(run.job_id, index, attempt, MASTER_ID, None))

    def fetch(self, run: JobRun, order: FetchResult) -> None:
        """The result of an item: in the assembly already, or in the spool since an earlier life of the job."""
        if isinstance(order.result, BlobManifest):
            self._background.spawn(self._load(run, order, order.result))
        else:
            self._feed_soon(ev.ResultFetched(order.job_id, order.index, order.attempt, MASTER_ID))

    def release(self, order: ReleaseResult) -> None:
        """The result is not needed any more."""
        self._results.release((order.job_id, order.index, order.attempt))

    async def close(self) -> None:
        """Stops everything."""
        await self._background.close()

    async def _load(self, run: JobRun, order: FetchResult, manifest: BlobManifest) -> None:
        item = run.item(order.index)
        stage = run.stages.get(item.node_id)
        if stage is None:
            return
        try:
            await self._results.load(manifest, stage.assembly, item.k)
        except (FlotillaError, OSError) as error:
            failure = Failure(kind="transfer", message=str(error), participant_id=MASTER_ID)
            self._feed_soon(ev.FetchFailed(order.job_id, order.index, order.attempt, MASTER_ID, failure))
            return
        run.sizes.setdefault(order.index, manifest.size_bytes)
        self._feed_soon(ev.ResultFetched(order.job_id, order.index, order.attempt, MASTER_ID))
