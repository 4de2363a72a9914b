"""The coordinator's part of upscales: tiles become items, workers get models ready, pixels go to who is to redraw them."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from PIL import Image

from ..graph.classes import PREPARE
from ..graph.plan import StagePlan
from ..graph.prompt import Prompt
from ..graph.tiles import with_tiles
from ..jobs import events as ev
from ..jobs.model import Failure, FailureKind
from ..relay import pictures
from ..relay.relay import Relay
from ..transport.manifest import BlobManifest
from ..transport.spool import Spool
from ..transport.uses import StoredBlob
from ..upscale.work import ABOUT, PIXELS, Values, made_of
from ..utils.background import Background
from ..utils.clock import Clock
from ..utils.ids import new_id
from ..utils.log import get_logger
from ..workers import messages as m
from ..workers.entries import MASTER_ID
from ..workers.pool import WorkerPool
from ..workers.registry import WorkerRegistry
from .bridge import NodeCalls
from .budget import ByteBudget
from .followers import FAILURE_KINDS
from .jobrun import JobRun
from .own_results import OwnResults
from .pushes import InputPusher
from .shelf import Kept
from .tile_stage import TileStage

log = get_logger("tiles")

PUSHED_AT_ONCE_BYTES = 64 * 1024 * 1024
"""Pixels on their way to one worker, at most, unless a single tile has more."""


class TileDesk:
    """Use from the server's loop, except where something else is said."""

    def __init__(
        self,
        *,
        pool: WorkerPool,
        registry: WorkerRegistry,
        pusher: InputPusher,
        spool: Spool,
        own_results: OwnResults,
        clock: Clock,
        relay: Relay,
        feed: Callable[[ev.Event], None],
        call_soon: Callable[..., None],
        added: Callable[[JobRun, Sequence[int]], None],
        fitted: Callable[[Prompt, str], Prompt],
    ) -> None:
        """``added`` hears of new items by index, ``fitted`` writes a prompt in a worker's spelling of file names."""
        self._pool = pool
        self._registry = registry
        self._pusher = pusher
        self._spool = spool
        self._own_results = own_results
        self._clock = clock
        self._relay = relay
        self._feed = feed
        self._call_soon = call_soon
        self._added = added
        self._fitted = fitted
        self._budgets: dict[str, ByteBudget] = {}  # by worker, so that a slow line holds up nobody else
        self._background = Background("tiles")
        self._preparing: dict[str, tuple[JobRun, set[str]]] = {}  # by job: workers that have not said how it went
        self._parked: dict[str, dict[int, list[Kept]]] = {}  # by job and item: results of an earlier life
        self._opened: dict[str, set[int]] = {}  # by job: items whose pixels can be cut

    def stage(
        self,
        run: JobRun,
        plan: StagePlan,
        calls: NodeCalls,
    ) -> TileStage:
        """The stage of an upscale."""
        node_id = plan.node_id
        soon = self._call_soon
        return TileStage(
            run.plan,
            plan,
            calls,
            added=lambda tiles, ready: soon(self._add, run, node_id, tiles, ready),
            ready=lambda places: soon(self._make_ready, run, node_id, places),
            failed=lambda place, attempt, error: soon(self._failed_here, run, node_id, place, attempt, _failure(error)),
            show=lambda image: self._picture(run, node_id, image),
            keep=self._spool.write,
            clock=self._clock,
            salt=run.salt(plan.on_failure),
        )

    def prompt_started(self, run: JobRun) -> None:
        """The host begins with the job's prompt: workers load what their tiles need, while the master makes the picture."""
        stage = next(iter(tile_stages(run)), None)
        if stage is None or run.job_id in self._preparing:
            return
        prompt = stage.side.prompt_ready(PREPARE, {})
        waiting: set[str] = set()
        self._preparing[run.job_id] = run, waiting
        for worker_id in run.plan.participants:
            if prompt is not None and self._pool.link(worker_id) is not None:
                waiting.add(worker_id)
                self._background.spawn(self._prepare(run, worker_id, self._fitted(prompt, worker_id)))
        self._check_preparing(run)

    def prepared(self, run: JobRun | None, worker_id: str, message: m.Prepared) -> None:
        """A worker has the models, or could not load them: then its first tile will tell why."""
        if run is None:
            return
        if message.ok:
            for stage in tile_stages(run):
                stage.note_facts(message.facts)
        else:
            log.warning("a worker could not prepare", job=run.job_id, worker=worker_id, reason=message.message)
        if run.job_id in self._preparing:
            self._preparing[run.job_id][1].discard(worker_id)
            self._check_preparing(run)

    def worker_gone(self, worker_id: str) -> None:
        """The link to a worker is lost."""
        self._pusher.forget_worker(worker_id)
        for run, preparing in list(self._preparing.values()):
            preparing.discard(worker_id)
            self._check_preparing(run)

    async def prompt(self, run: JobRun, stage: TileStage, place: int, worker_id: str) -> Prompt:
        """The prompt that computes a tile on a worker, which has all that it names by then.

        Raises LinkLost and other FlotillaErrors.
        """
        work, at = stage.work_of(place)
        for blob in stage.data_blobs:
            await self._push(run.job_id, worker_id, blob, keep=True)
        budget = self._budgets.setdefault(worker_id, ByteBudget(PUSHED_AT_ONCE_BYTES))
        async with budget.take(work.size_bytes(at)):
            values = await asyncio.wrap_future(stage.cut(place))
            inputs = work.root_inputs(at)
            made = await asyncio.to_thread(made_of, values, stage.plan.node_id, inputs)
            async with self._spooled(values) as pixels:
                await self._push(run.job_id, worker_id, pixels, keep=False)
        constants = {name: _constant(value) for name, value in inputs.items()}
        constants |= {PIXELS: pixels.manifest.hash, "made_of": made}
        return stage.side.prompt(stage.data, work.root_class, constants, names=work.roots)

    def takes(self, run: JobRun, kept: Kept) -> bool:
        """Takes a result of an earlier life of a tile, which has to be looked at first: which tile an item is may have
        changed. False if it is none."""
        index = kept.index
        if run.ended_s is not None or index < 0 or not tile_stages(run):
            return False
        if index < len(run.plan.items):
            item = run.item(index)
            stage = run.stages[item.node_id]
            if not isinstance(stage, TileStage) or kept.attempt > run.attempts_before.get(index, 0):
                return False
            if (index, kept.attempt) in run.offers:  # looked at before
                return False
            if index in self._opened.get(run.job_id, ()):
                self._background.spawn(self._offer(run, stage, item.k, [kept]))
                return True
        self._parked.setdefault(run.job_id, {}).setdefault(index, []).append(kept)
        return True

    def job_ended(self, run: JobRun) -> list[Kept]:
        """The job is over: workers drop what they were sent for it. Returns results that have not been looked at."""
        job_id = run.job_id
        self._preparing.pop(job_id, None)
        self._opened.pop(job_id, None)
        parked = self._parked.pop(job_id, {})
        stages = tile_stages(run)
        for stage in stages:
            for blob in stage.data_blobs:
                self._spool.release(blob.manifest.hash, blob.use)
            stage.data_blobs.clear()
        if stages:
            self._pusher.forget_job(job_id)
            for worker_id in run.plan.participants:
                if self._pool.link(worker_id) is not None:
                    self._background.spawn(self._pool.send(worker_id, m.JobOver(job_id=job_id)))
        return [kept for listed in parked.values() for kept in listed]

    async def close(self) -> None:
        """Stops everything."""
        await self._background.close()

    # Tiles become items

    def _add(self, run: JobRun, node_id: str, tiles: Sequence[dict[str, Any]], ready: Sequence[int]) -> None:
        stage = run.stages.get(node_id)
        if not isinstance(stage, TileStage) or run.ended_s is not None:
            return
        before = len(run.plan.items)
        run.plan = with_tiles(run.plan, stage.plan.number, tiles)
        for one in run.stages.values():
            one.grow(run.plan)
        new = run.plan.items[before:]
        log.info("tiles added to a job", job=run.job_id, node=node_id, tiles=len(new))
        specs = (
            ev.ItemSpec(
                item.index,
                item.planned_for,
                group=item.stage,
                pulled=True,
                attempts_before=run.attempts_before.get(item.index, 0),
                held=True,
            )
            for item in new
        )
        self._feed(ev.ItemsAdded(run.job_id, tuple(specs)))
        self._added(run, [item.index for item in new])
        self._make_ready(run, node_id, ready)

    def _make_ready(self, run: JobRun, node_id: str, places: Sequence[int]) -> None:
        stage = run.stages.get(node_id)
        if not isinstance(stage, TileStage) or run.ended_s is not None:
            return
        self._opened.setdefault(run.job_id, set()).update(stage.plan.items[place].index for place in places)
        parked = self._parked.get(run.job_id, {})
        now = []
        for place in places:
            index = stage.plan.items[place].index
            if index in parked:
                self._background.spawn(self._offer(run, stage, place, parked.pop(index)))
            else:
                now.append(index)
        if now:
            self._feed(ev.ItemsReady(run.job_id, tuple(now)))

    async def _offer(self, run: JobRun, stage: TileStage, place: int, offers: Sequence[Kept]) -> None:
        """Results of an earlier life count if they were made from the same pixels."""
        index = stage.plan.items[place].index
        try:
            values = await asyncio.wrap_future(stage.cut(place))
            work, at = stage.work_of(place)
            wanted = await asyncio.to_thread(made_of, values, stage.plan.node_id, work.root_inputs(at))
        except Exception:
            log.exception("the pixels of a tile could not be compared", job=run.job_id, item=index)
            wanted = ""
        for kept in offers:
            if wanted and _told_made_of(kept.manifest) == wanted and run.ended_s is None:
                run.note_offer(kept)
                offer = ev.ItemFinished(run.job_id, index, kept.attempt, kept.participant_id, kept.manifest)
                self._feed(offer)
            else:
                self._release(run.job_id, kept)
        self._feed(ev.ItemsReady(run.job_id, (index,)))

    def _release(self, job_id: str, kept: Kept) -> None:
        if kept.participant_id == MASTER_ID:
            self._own_results.release((job_id, kept.index, kept.attempt))
        else:
            message = m.Release(job_id=job_id, index=kept.index, attempt=kept.attempt)
            self._background.spawn(self._pool.send(kept.participant_id, message))

    def _failed_here(self, run: JobRun, node_id: str, place: int, attempt: int, failure: Failure) -> None:
        stage = run.stages.get(node_id)
        if stage is not None:
            index = stage.plan.items[place].index
            self._feed(ev.ItemFailed(run.job_id, index, attempt, MASTER_ID, failure))

    # What workers are sent

    @asynccontextmanager
    async def _spooled(self, values: Values) -> AsyncIterator[StoredBlob]:
        """These values in this instance's spool, for the length of the block."""
        writing = asyncio.ensure_future(asyncio.to_thread(self._spool.write, values))
        try:
            yield await asyncio.shield(writing)
        finally:  # also when this is cancelled in the middle of writing, which goes on
            writing.add_done_callback(self._release_written)

    def _release_written(self, writing: asyncio.Future[StoredBlob]) -> None:
        if not writing.cancelled() and writing.exception() is None:
            blob = writing.result()
            self._spool.release(blob.manifest.hash, blob.use)

    async def _prepare(self, run: JobRun, worker_id: str, prompt: Prompt) -> None:
        extra = {"client_id": f"flotilla-{run.job_id}", "flotilla": {"job": run.job_id, "prepares": True}}
        message = m.Prepare(job_id=run.job_id, prompt_id=new_id(), prompt=prompt, extra_data=extra)
        await self._pool.send(worker_id, message)

    def _check_preparing(self, run: JobRun) -> None:
        if run.job_id in self._preparing and not self._preparing[run.job_id][1]:
            for stage in tile_stages(run):
                stage.note_facts(None)

    async def _push(self, job_id: str, worker_id: str, blob: StoredBlob, *, keep: bool) -> None:
        address = self._registry.get(worker_id).where
        await self._pusher.push(worker_id, address, lambda: self._pool.link(worker_id), job_id, blob, keep=keep)

    def _picture(self, run: JobRun, node_id: str, image: Image.Image) -> None:
        """In the picture's thread."""
        jpeg = pictures.encode(image).jpeg
        self._call_soon(self._relay.picture, run.job_id, node_id, jpeg)


def tile_stages(run: JobRun) -> list[TileStage]:
    """The upscales among a job's stages."""
    return [stage for stage in run.stages.values() if isinstance(stage, TileStage)]


def _told_made_of(manifest: BlobManifest) -> str:
    """What a tile's result says that it was made from; "" if it says nothing."""
    about = manifest.values.get(ABOUT, {}).get("json")
    return str(about.get("made_of", "")) if isinstance(about, dict) else ""


def _constant(value: Any) -> Any:
    """An input of a node as a prompt can hold it: structures as JSON text, lest a list be taken for a link."""
    return json.dumps(value, sort_keys=True) if isinstance(value, (dict, list)) else value


def _failure(error: BaseException) -> Failure:
    return Failure(
        kind=FAILURE_KINDS.get(type(error).__name__, FailureKind.ERROR),
        message=f"{type(error).__name__}: {error}",
        traceback="".join(traceback.format_exception(type(error), error, error.__traceback__)),
        participant_id=MASTER_ID,
    )
