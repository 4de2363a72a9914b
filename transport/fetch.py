"""A blob of another machine, brought into memory that stands ready; a cut connection is taken up where it broke."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ..utils.errors import FetchFailed, InvalidBlob
from ..utils.log import get_logger
from .http_get import HttpGet
from .http_try import Interrupted, Target, backoff, run_try
from .limits import DEFAULT_LIMITS, DEFAULT_POLICY, FetchPolicy, TransportLimits
from .local_read import read_local
from .manifest import BlobManifest
from .readers import in_reader
from .receive import Reception, Sink

__all__ = ["Sink", "fetch_http", "read_local"]

log = get_logger("transport")


async def fetch_http(
    url: str,
    manifest: BlobManifest,
    sink: Sink,
    *,
    headers: Callable[[], Mapping[str, str]],
    limits: TransportLimits = DEFAULT_LIMITS,
    policy: FetchPolicy = DEFAULT_POLICY,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    on_bytes: Callable[[int], None] | None = None,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Fetches the blob at ``url`` into ``sink`` and verifies it; extra memory is one window and the header.

    Another thread reads and hashes, the event loop only waits. ``headers`` is asked anew for each try;
    ``on_bytes`` gets, on the event loop, the number of bytes that just came (bytes that come twice count twice).
    Redirects and proxies are not followed. Cancelling it cuts the connection and leaves the sink alone.

    Raises NotFound, NotAllowed, InvalidBlob (wrong length, hash or header, after one more full try where only the
    bytes were wrong), FetchFailed (no new bytes in ``policy.max_tries`` tries), InvalidInput (bad address or sink).
    """
    target = Target.parse(url)
    reception = Reception(manifest, sink, limits)
    report = _Report(asyncio.get_running_loop(), on_bytes)
    await _bring(target, reception, manifest, headers, policy, sleep, report, tls)
    try:
        await in_reader(reception.verify)
    except InvalidBlob as fault:
        log.warning("blob arrived wrong, fetching it once more", blob=manifest.hash, reason=fault.message)
        reception.restart()
        await _bring(target, reception, manifest, headers, policy, sleep, report, tls)
        await in_reader(reception.verify)


async def _bring(
    target: Target,
    reception: Reception,
    manifest: BlobManifest,
    headers: Callable[[], Mapping[str, str]],
    policy: FetchPolicy,
    sleep: Callable[[float], Awaitable[None]],
    report: _Report,
    tls: ssl.SSLContext | None,
) -> None:
    """Tries until all bytes are there. Progress is measured against the farthest byte ever reached, so that a sender
    who starts over and breaks at the same place again and again does not count as getting on."""
    failed = 0
    farthest = 0
    while True:
        attempt = HttpGet(target, reception, headers(), policy, tls, report.from_thread, manifest.size_bytes)
        try:
            await run_try(attempt, policy)
            return
        except Interrupted as error:
            reason = str(error)
        if reception.position == manifest.size_bytes:
            return  # all is there, only the end of the answer is not
        if reception.position >= farthest + policy.min_progress_bytes:
            farthest = reception.position
            failed = 0
        failed += 1
        if failed >= policy.max_tries:
            raise FetchFailed(
                f"The blob could not be fetched in {failed} tries: {reason}.",
                cure="Look whether the other machine runs and the network holds.",
                details={"position": reception.position, "size_bytes": manifest.size_bytes, "host": target.host},
            )
        await backoff(failed, policy, sleep)


class _Report:
    """Carries byte counts from the fetching thread to the event loop, several at a time where it is busy."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_bytes: Callable[[int], None] | None) -> None:
        self._loop = loop
        self._on_bytes: Callable[[int], Any] | None = on_bytes
        self._lock = threading.Lock()
        self._pending = 0

    def from_thread(self, count: int) -> None:
        """Takes note of ``count`` bytes."""
        if self._on_bytes is None:
            return
        with self._lock:
            first = self._pending == 0
            self._pending += count
        if first:
            with contextlib.suppress(RuntimeError):  # the loop is closed, nobody listens
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        with self._lock:
            count, self._pending = self._pending, 0
        if self._on_bytes is not None and count:
            self._on_bytes(count)
