"""Brings the results of workers' items into the memory where they are gathered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from ..transport.assemble import Assembly
from ..transport.fetch import Sink, fetch_http, read_local
from ..transport.manifest import BlobManifest
from ..transport.readers import in_reader
from ..transport.samehost import NonceOffer, blob_path, prove
from ..utils.clock import Clock
from ..utils.errors import FlotillaError, NotFound
from ..utils.log import get_logger
from ..workers import messages as m
from ..workers.address import WorkerAddress
from ..workers.link import Link
from ..workers.tokens import issue

log = get_logger("results")

BLOB_ROUTE = "/distributed/v2/blobs/"

READ_AT_A_TIME = 2
"""Spool files read at the same time: two keep the memory busy, and more only keep the event loop from the processor."""


class ResultFetcher:
    """Fetches over HTTP, or straight from the worker's spool where that was proved to be a folder of this machine."""

    def __init__(self, *, clock: Clock, same_host: bool = True) -> None:
        """``same_host`` = False fetches over HTTP even then."""
        self._clock = clock
        self._same_host = same_host
        self._folders: dict[str, list[Path]] = {}
        self._reads = asyncio.Semaphore(READ_AT_A_TIME)

    def is_same_host(self, worker_id: str) -> bool:
        """Whether this worker's spool is read directly."""
        return worker_id in self._folders

    async def note_spool(self, worker_id: str, offer: m.SpoolOffer) -> None:
        """Proves, or fails to prove, that this worker's spool folders lie on this machine."""
        self._folders.pop(worker_id, None)
        if not self._same_host:
            return
        offers = [NonceOffer(place.nonce_path, place.digest) for place in offer.places]
        proved = [place.folder for place in offers if await asyncio.to_thread(prove, place)]
        if proved:
            self._folders[worker_id] = proved
            log.info("a worker's spool is read directly", worker=worker_id)

    def forget_worker(self, worker_id: str) -> None:
        """The worker is gone; the next link has to prove its folders anew."""
        self._folders.pop(worker_id, None)

    async def fetch(
        self,
        worker_id: str,
        address: WorkerAddress,
        link: Callable[[], Link | None],
        manifest: BlobManifest,
        assembly: Assembly,
        place: int,
    ) -> None:
        """Brings the blob of item ``place`` into ``assembly``. Raises a FlotillaError that names what went wrong.

        ``link`` gives the worker's present link, whose session signs the request; a lost one may be back by then.
        """
        sink = await in_reader(assembly.sink_for, place, manifest)
        if sink is None:
            return  # another participant was first
        try:
            if not await self._read_directly(worker_id, manifest, sink):
                await self._read_over_http(address, link, manifest, sink)
        except BaseException:
            assembly.abandon(sink)
            raise
        await _uncancelled(in_reader(assembly.arrived, sink))

    async def _read_over_http(
        self, address: WorkerAddress, link: Callable[[], Link | None], manifest: BlobManifest, sink: Sink
    ) -> None:
        path = BLOB_ROUTE + manifest.hash

        def headers() -> dict[str, str]:
            present = link()
            if present is None:
                return {}
            age_s = self._clock.now_s() - present.began_s
            return {"Authorization": issue(present.session.key, present.session.id, "GET", path, age_s)}

        await fetch_http(address.url(path), manifest, sink, headers=headers)

    async def _read_directly(self, worker_id: str, manifest: BlobManifest, sink: Sink) -> bool:
        for folder in self._folders.get(worker_id, ()):
            try:
                async with self._reads:
                    await _uncancelled(in_reader(read_local, blob_path(folder, manifest.hash), manifest, sink))
                return True
            except NotFound:
                continue
            except FlotillaError as error:
                log.warning("reading a spool directly failed, fetching instead", worker=worker_id, error=error)
                return False
        return False


async def _uncancelled(work: Coroutine[Any, Any, object]) -> None:
    """Awaits ``work`` to its end even when cancelled meanwhile: its thread writes into memory that must stay ours."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
