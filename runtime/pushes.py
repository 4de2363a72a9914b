"""What workers need of the master before they can begin an item: blobs, sent to where the item goes."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote

from ..transport.http_put import put_file
from ..transport.limits import DEFAULT_POLICY, FetchPolicy
from ..transport.uses import StoredBlob
from ..utils.clock import Clock
from ..utils.errors import LinkLost
from ..utils.log import get_logger
from ..workers.address import WorkerAddress
from ..workers.link import Link
from ..workers.tokens import issue
from .results import BLOB_ROUTE

log = get_logger("pushes")

JOB_FIELD = "job"
KEEP_FIELD = "keep"
KEEP = "1"


class _Kept(NamedTuple):
    """A blob that a worker keeps until its job is over. ``session_id`` is the link's: what a new link finds, nobody knows."""

    worker_id: str
    session_id: str
    job_id: str
    blob_hash: str


def blob_target(blob_hash: str, job_id: str, *, keep: bool) -> str:
    """Path and query of a PUT, as the worker sees them and the token names them."""
    kept = f"&{KEEP_FIELD}={KEEP}" if keep else ""
    return f"{BLOB_ROUTE}{blob_hash}?{JOB_FIELD}={quote(job_id, safe='')}{kept}"


class InputPusher:
    """Sends blobs to workers and remembers what they keep. Use from the server's loop."""

    def __init__(self, *, clock: Clock, policy: FetchPolicy = DEFAULT_POLICY) -> None:
        self._clock = clock
        self._policy = policy
        self._kept: set[_Kept] = set()
        self._first: weakref.WeakValueDictionary[_Kept, asyncio.Lock] = weakref.WeakValueDictionary()

    async def push(
        self,
        worker_id: str,
        address: WorkerAddress,
        link: Callable[[], Link | None],
        job_id: str,
        blob: StoredBlob,
        *,
        keep: bool,
    ) -> None:
        """Sends the blob, whose file must stay until this returns.

        With ``keep`` the worker keeps it until the job is over, and this does nothing if it went there over the same
        link before. Without, the worker drops it with the item that names it: push it once for each lease.
        ``link`` gives the worker's present link, whose session signs the request. Raises LinkLost without one, else as
        `put_file` does. Cancelling it cuts the connection.
        """
        present = link()
        if present is None:
            raise LinkLost("The worker has no link now.")
        if not keep:
            await self._send(worker_id, address, link, job_id, blob, keep=False)
            return
        kept = _Kept(worker_id, present.session.id, job_id, blob.manifest.hash)
        if kept in self._kept:
            return
        lock = self._first.setdefault(kept, asyncio.Lock())
        async with lock:
            if kept in self._kept:  # somebody else was about it
                return
            await self._send(worker_id, address, link, job_id, blob, keep=True)
            self._kept.add(kept)

    def forget_worker(self, worker_id: str) -> None:
        """The worker's link is gone."""
        self._kept = {kept for kept in self._kept if kept.worker_id != worker_id}

    def forget_job(self, job_id: str) -> None:
        """The job is over; cancel what is still being pushed for it first."""
        self._kept = {kept for kept in self._kept if kept.job_id != job_id}

    async def _send(
        self,
        worker_id: str,
        address: WorkerAddress,
        link: Callable[[], Link | None],
        job_id: str,
        blob: StoredBlob,
        *,
        keep: bool,
    ) -> None:
        target = blob_target(blob.manifest.hash, job_id, keep=keep)
        size_bytes = blob.manifest.size_bytes

        def headers() -> dict[str, str]:
            present = link()
            if present is None:
                raise LinkLost("The worker's link was lost while it was being sent a blob.")
            age_s = self._clock.now_s() - present.began_s
            return {"Authorization": issue(present.session.key, present.session.id, "PUT", target, age_s)}

        began_s = self._clock.now_s()
        await put_file(address.url(target), blob.path, size_bytes, headers=headers, policy=self._policy)
        seconds = self._clock.now_s() - began_s
        log.debug("sent an input", worker=worker_id, job=job_id, size_bytes=size_bytes, seconds=seconds)
