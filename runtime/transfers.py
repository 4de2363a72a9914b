"""The results of a job's items on their way to the master."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..jobs import events as ev
from ..jobs.instructions import FetchResult, KeepResult, ReleaseResult
from ..jobs.model import Failure
from ..transport.manifest import BlobManifest
from ..utils.background import Background
from ..utils.errors import FlotillaError
from ..utils.log import get_logger
from ..workers import messages as m
from ..workers.pool import WorkerPool
from ..workers.registry import WorkerRegistry
from .jobrun import JobRun
from .results import ResultFetcher

log = get_logger("transfers")


class Transfers:
    """Carries out the instructions about workers' results; ``feed`` takes the events that come of them."""

    def __init__(
        self, fetcher: ResultFetcher, registry: WorkerRegistry, pool: WorkerPool, feed: Callable[[ev.Event], None]
    ) -> None:
        self._fetcher = fetcher
        self._registry = registry
        self._pool = pool
        self._feed = feed
        self._background = Background("transfers")

    def start(self, run: JobRun, order: FetchResult) -> None:
        """Begins to bring the result over."""
        key = (order.index, order.attempt)
        task = run.fetching[key] = self._background.spawn(self._fetch(run, order))
        task.add_done_callback(lambda _task: run.fetching.pop(key, None))

    def release(self, run: JobRun | None, order: ReleaseResult) -> None:
        """Tells the worker that it may delete the result, and stops bringing it over. ``run`` None: a job long gone."""
        task = run.fetching.get((order.index, order.attempt)) if run is not None else None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        message = m.Release(job_id=order.job_id, index=order.index, attempt=order.attempt)
        self._background.spawn(self._pool.send(order.participant_id, message))

    def keep(self, run: JobRun, order: KeepResult) -> None:
        """The result is here: the worker may part with its copy when it is short of room."""
        offered = run.offers.get((order.index, order.attempt))
        if offered is not None:
            run.kept[order.index] = offered
        message = m.Keep(job_id=order.job_id, index=order.index, attempt=order.attempt)
        self._background.spawn(self._pool.send(order.participant_id, message))

    async def close(self) -> None:
        """Stops everything."""
        await self._background.close()

    async def _fetch(self, run: JobRun, order: FetchResult) -> None:
        item = run.item(order.index)
        stage = run.stages.get(item.node_id)
        if stage is None or not isinstance(order.result, BlobManifest):
            return
        worker_id = order.participant_id
        try:
            address = self._registry.get(worker_id).where
            await self._fetcher.fetch(
                worker_id, address, lambda: self._pool.link(worker_id), order.result, stage.assembly, item.k
            )
        except Exception as error:
            if not isinstance(error, FlotillaError):
                log.exception("a result could not be brought over", job=order.job_id, worker=worker_id)
            failure = Failure(kind="transfer", message=str(error) or type(error).__name__, participant_id=worker_id)
            self._feed(ev.FetchFailed(order.job_id, order.index, order.attempt, worker_id, failure))
            return
        self._feed(ev.ResultFetched(order.job_id, order.index, order.attempt, worker_id))
