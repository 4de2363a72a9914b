"""What workers' links bring to the master: states and messages become events of the state machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..jobs import events as ev
from ..jobs.model import Failure
from ..transport.manifest import BlobManifest
from ..utils.background import Background
from ..utils.errors import InvalidInput
from ..utils.log import get_logger
from ..workers import messages as m
from ..workers.connection import WorkerHealth
from ..workers.pool import WorkerPool
from ..workers.registry import WorkerRegistry
from .jobrun import JobRun
from .participants import ParticipantBook
from .results import ResultFetcher
from .shelf import Kept
from .strangers import Strangers
from .tile_desk import TileDesk
from .wording import describe_refusal, failure_of

log = get_logger("inbox")


@dataclass(frozen=True)
class WorkerInbox:
    """``feed`` takes events, ``run_of`` finds a job that is remembered, ``preview`` takes pictures of running items,
    ``removed`` hears of workers that are not in the registry any more, ``capable`` of those that have told what they can
    run."""

    registry: WorkerRegistry
    pool: WorkerPool
    fetcher: ResultFetcher
    participants: ParticipantBook
    strangers: Strangers
    background: Background
    feed: Callable[[ev.Event], None]
    run_of: Callable[[str], JobRun | None]
    preview: Callable[[JobRun, str, m.ItemPreview], None]
    removed: Callable[[str], None]
    tiles: TileDesk
    capable: Callable[[str], None]

    def on_state(self, worker_id: str, health: WorkerHealth) -> None:
        """A worker's link has come or gone."""
        if health.state == "online":
            slots = self.registry.settings().worker_slots
            self.feed(ev.ParticipantOnline(worker_id, slots=slots, takes_unpinned=True))
            return
        self.fetcher.forget_worker(worker_id)
        self.participants.forget(worker_id)
        self.strangers.forget_worker(worker_id)
        self.tiles.worker_gone(worker_id)
        self.feed(ev.ParticipantOffline(worker_id, health.message or health.reason))
        if all(entry.id != worker_id for entry in self.registry.entries()):
            self.removed(worker_id)

    async def on_message(self, worker_id: str, message: m.Message) -> None:
        """A worker's link brought a message."""
        if isinstance(message, m.Capabilities):
            self.participants.note_capabilities(worker_id, message)
            self.capable(worker_id)
        elif isinstance(message, m.Status):
            self.participants.note_status(worker_id, message)
        elif isinstance(message, m.SpoolOffer):
            self.background.spawn(self.fetcher.note_spool(worker_id, message))
        elif isinstance(message, m.ItemFinished):
            self._item_finished(worker_id, message)
        elif isinstance(message, (m.LeaseAccepted, m.ItemStarted, m.ItemProgress, m.ItemPreview)):
            self._about_work(worker_id, message)
        elif isinstance(message, m.ItemFailed):
            failure = failure_of(worker_id, message)
            self.feed(
                ev.ItemFailed(message.job_id, message.index, message.attempt, worker_id, failure, retry=message.retry)
            )
        elif isinstance(message, m.JobsHeld):
            for job_id in message.job_ids:
                run = self.run_of(job_id)
                if run is None or run.ended_s is not None:
                    self.background.spawn(self.pool.send(worker_id, m.JobOver(job_id=job_id)))
        elif isinstance(message, m.Prepared):
            self.tiles.prepared(self.run_of(message.job_id), worker_id, message)
        elif isinstance(message, m.LeaseRefused):
            self._lease_refused(worker_id, message)

    def _about_work(
        self, worker_id: str, message: m.LeaseAccepted | m.ItemStarted | m.ItemProgress | m.ItemPreview
    ) -> None:
        """Something that a worker has in hand. What belongs to no job that runs is left alone or stopped."""
        about = (message.job_id, message.index, message.attempt, worker_id)
        run = self.run_of(message.job_id)
        if run is None:
            self.strangers.at_work(worker_id, message)
        elif isinstance(message, m.LeaseAccepted):
            self.feed(ev.LeaseHeld(*about))
        elif isinstance(message, m.ItemStarted):
            self.feed(ev.ItemStarted(*about))
        elif isinstance(message, m.ItemPreview):
            self.preview(run, worker_id, message)
        else:
            self.feed(ev.ItemProgressed(*about, message.fraction, message.label))

    def _item_finished(self, worker_id: str, message: m.ItemFinished) -> None:
        try:
            manifest = BlobManifest.from_wire(message.manifest)
        except InvalidInput as error:
            failure = Failure(kind="transfer", message=str(error), participant_id=worker_id)
            self.feed(ev.ItemFailed(message.job_id, message.index, message.attempt, worker_id, failure, retry=True))
            return
        run = self.run_of(message.job_id)
        if run is None:
            self.strangers.finished(worker_id, message, manifest)
            return
        kept = Kept(worker_id, message.index, message.attempt, manifest, message.seconds)
        if self.tiles.takes(run, kept):
            return
        if 0 <= message.index < len(run.plan.items):
            run.note_offer(kept)
        self.feed(ev.ItemFinished(message.job_id, message.index, message.attempt, worker_id, manifest))

    def _lease_refused(self, worker_id: str, message: m.LeaseRefused) -> None:
        reason = describe_refusal(message)
        log.warning("a worker cannot run an item", job=message.job_id, worker=worker_id, reason=reason)
        self.background.spawn(self.pool.send(worker_id, m.AskCapabilities()))
        self.feed(ev.LeaseRefused(message.job_id, message.index, message.attempt, worker_id, reason))
