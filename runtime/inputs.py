"""What masters have sent a worker for its items: blobs in the worker's spool, and who still has a use for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from ..graph.classes import MODEL_TILE, TILE
from ..transport.loose import read_values
from ..transport.manifest import is_blob_hash
from ..transport.readers import in_reader
from ..transport.spool import Spool
from ..transport.upload import Upload
from ..transport.uses import StoredBlob
from ..transport.values import Value
from ..upscale.work import PIXELS
from ..utils.background import Background
from ..utils.errors import Conflict, FlotillaError, NotFound
from ..utils.log import get_logger
from .session import Arrival, HeldInput, MasterSession

log = get_logger("inputs")

_TAKE_PIXELS = frozenset({TILE, MODEL_TILE})
"""The nodes whose input `PIXELS` names the blob of this item alone."""


def one_off_inputs(prompt: Mapping[str, Any]) -> frozenset[str]:
    """The hashes of the blobs that the prompt of an item names and no other item needs."""
    nodes = [node for node in prompt.values() if isinstance(node, Mapping) and node.get("class_type") in _TAKE_PIXELS]
    named = [node["inputs"].get(PIXELS) for node in nodes if isinstance(node.get("inputs"), Mapping)]
    return frozenset(name for name in named if is_blob_hash(name))


class Inputs:
    """The inputs of all masters. Use from the server's loop, `values` from any thread; files are worked on in threads.

    An input belongs to a job of a master. One that is to be kept stays until the job is over. Any other is sent once for
    each item that names it, and goes with the last of them.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._background = Background("inputs")

    async def receive(
        self, session: MasterSession, arrival: Arrival, size_bytes: int, pieces: AsyncIterator[list[bytes]]
    ) -> bool:
        """Takes an input whose bytes come as ``pieces``. False if the blob was here already: then none is looked at.

        Raises InvalidBlob for other bytes than promised, TooLarge and SpoolFull, Conflict if the job ended meanwhile.
        Leaves nothing behind unless it returns.
        """
        session.arrivals.add(arrival)
        try:
            stored, is_new = await self._known(arrival.blob_hash), False
            if stored is None:
                stored, is_new = await self._store(arrival.blob_hash, size_bytes, pieces), True
            self._enter(session, arrival, stored)
            return is_new
        finally:
            session.arrivals.discard(arrival)

    def values(self, session: MasterSession, job_id: str, blob_hash: str) -> dict[str, Value]:
        """The values of an input, in memory of their own. Blocks. Raises NotFound."""
        if (job_id, blob_hash) not in session.inputs:
            raise _gone(blob_hash)
        try:
            # While it is read it must not go: its file might be written anew.
            blob = self._spool.take(blob_hash)
        except NotFound:
            raise _gone(blob_hash) from None
        try:
            return read_values(blob.path, blob.manifest)
        finally:
            self._spool.release(blob_hash)

    def drop(self, session: MasterSession, job_id: str, hashes: Iterable[str], wanted: Iterable[str]) -> None:
        """An item that named these one-off inputs is over; ``wanted`` are those that other items name as well."""
        still = frozenset(wanted)
        for blob_hash in hashes:
            held = session.inputs.get((job_id, blob_hash))
            if held is None:
                continue
            held.sent = max(0, held.sent - 1)
            if not held.sent and not held.kept and blob_hash not in still:
                self._remove(session, (job_id, blob_hash))

    def drop_job(self, session: MasterSession, job_id: str) -> None:
        """The job is over, and nothing that is on its way for it is wanted."""
        for arrival in session.arrivals:
            arrival.wanted = arrival.wanted and arrival.job_id != job_id
        for key in [key for key in session.inputs if key[0] == job_id]:
            self._remove(session, key)

    def drop_all(self, session: MasterSession) -> None:
        """The master is gone."""
        for job_id in {key[0] for key in session.inputs} | {arrival.job_id for arrival in session.arrivals}:
            self.drop_job(session, job_id)

    async def close(self) -> None:
        """Ends all tasks; the files go with the spool."""
        await self._background.close()

    async def _known(self, blob_hash: str) -> StoredBlob | None:
        try:
            return await in_reader(self._spool.take, blob_hash)
        except NotFound:
            return None

    async def _store(self, blob_hash: str, size_bytes: int, pieces: AsyncIterator[list[bytes]]) -> StoredBlob:
        """Writes what comes in a thread, while the next pieces are read from the network."""
        upload = await self._begin(size_bytes)
        at_work: asyncio.Future[Any] | None = None
        try:
            async for batch in pieces:
                if at_work is not None:
                    await asyncio.shield(at_work)
                at_work = asyncio.ensure_future(in_reader(upload.write, batch))
            if at_work is not None:
                await asyncio.shield(at_work)
            finishing = at_work = asyncio.ensure_future(in_reader(upload.finish, blob_hash))
            return await asyncio.shield(finishing)
        finally:
            if at_work is not None:  # only one thread at a time may touch the upload
                await asyncio.gather(at_work, return_exceptions=True)
            await in_reader(upload.abandon)  # nothing to do where it has ended well

    async def _begin(self, size_bytes: int) -> Upload:
        """Room for an input. Given back if this is cancelled while it is being taken."""
        taking = asyncio.ensure_future(in_reader(self._spool.receive, size_bytes))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            self._background.spawn(self._give_back(taking))
            raise

    async def _give_back(self, taking: asyncio.Future[Upload]) -> None:
        with contextlib.suppress(FlotillaError):
            await in_reader((await taking).abandon)

    def _enter(self, session: MasterSession, arrival: Arrival, stored: StoredBlob) -> None:
        if not arrival.wanted:
            self._release(stored.manifest.hash)
            raise Conflict("The job was over before its input had come.", details={"hash": arrival.blob_hash})
        key = (arrival.job_id, arrival.blob_hash)
        held = session.inputs.get(key)
        if held is None:
            held = session.inputs[key] = HeldInput()
        else:  # one use is enough
            self._release(stored.manifest.hash)
        held.kept = held.kept or arrival.keep
        held.sent += 0 if arrival.keep else 1

    def _remove(self, session: MasterSession, key: tuple[str, str]) -> None:
        del session.inputs[key]
        self._release(key[1])

    def _release(self, blob_hash: str) -> None:
        self._background.spawn(self._release_in_thread(blob_hash))

    async def _release_in_thread(self, blob_hash: str) -> None:
        await in_reader(self._spool.release, blob_hash)


def _gone(blob_hash: str) -> NotFound:
    return NotFound(
        "An input that the master has sent is not on this worker any more.",
        cure="The item is tried elsewhere. If it goes on, look whether somebody empties this worker's spool folder.",
        details={"hash": blob_hash},
    )
