"""The master's own results, put into its own spool as a worker puts its: a restarted master finds them again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from ..transport.assemble import Assembly
from ..transport.fetch import read_local
from ..transport.manifest import BlobManifest
from ..transport.readers import in_reader
from ..transport.spool import Spool
from ..transport.uses import Adopted, StoredBlob
from ..transport.values import Value
from ..utils.background import Background
from ..utils.clock import Clock
from ..utils.errors import FlotillaError
from ..utils.log import get_logger
from ..workers.entries import MASTER_ID
from .held import note_of, read_note
from .session import Key
from .shelf import Kept

log = get_logger("own_results")


class OwnResults:
    """Keeps what the master has computed until its job no longer needs it. Use from the server's loop."""

    def __init__(self, spool: Spool, home_id: str, clock: Clock) -> None:
        self._spool = spool
        self._home_id = home_id
        self._clock = clock
        self._held: dict[Key, tuple[Kept, StoredBlob]] = {}
        self._unwanted: set[Key] = set()  # released while they were being written
        self._writing: set[Key] = set()
        self._background = Background("own results")

    def keep(self, key: Key, values: Mapping[str, Value], seconds: float) -> None:
        """Writes the values in a thread. That there is no room is no failure: the job has them in memory."""
        if key in self._held or key in self._writing:
            return
        self._writing.add(key)
        self._background.spawn(self._write(key, values, seconds))

    def of(self, job_id: str) -> list[Kept]:
        """What the spool holds for a job."""
        own = [(key, kept, stored) for key, (kept, stored) in self._held.items() if key[0] == job_id]
        for key, _, stored in own:
            if not self._spool.holds(stored):  # it had to make room
                del self._held[key]
        return [kept for key, kept, _ in own if key in self._held]

    def release(self, key: Key) -> None:
        """The result is not needed any more. Harmless for one that is not here."""
        if key in self._writing:
            self._unwanted.add(key)
        held = self._held.pop(key, None)
        if held is not None:
            _, stored = held
            self._spool.release(stored.manifest.hash, stored.use)

    def adopt(self, found: Iterable[Adopted]) -> list[tuple[str, Kept]]:
        """Takes what an earlier process of this home has computed itself; returns it with the ids of the jobs."""
        adopted = []
        for one in found:
            read = read_note(one)
            if read is None or read[0] != self._home_id:
                continue
            _, key, seconds = read
            kept = Kept(MASTER_ID, key[1], key[2], one.blob.manifest, seconds)
            self._held[key] = (kept, one.blob)
            adopted.append((key[0], kept))
        return adopted

    async def load(self, manifest: BlobManifest, assembly: Assembly, place: int) -> None:
        """Reads a result back into ``assembly``. Raises NotFound or InvalidBlob."""
        path = self._spool.open(manifest.hash)
        sink = await in_reader(assembly.sink_for, place, manifest)
        if sink is None:
            return
        try:
            await in_reader(read_local, path, manifest, sink)
        except BaseException:
            assembly.abandon(sink)
            raise
        await in_reader(assembly.arrived, sink)

    async def close(self) -> None:
        """Waits for nothing: what is being written is only a second copy."""
        await self._background.close()

    async def _write(self, key: Key, values: Mapping[str, Value], seconds: float) -> None:
        note = note_of(self._home_id, key, seconds, self._clock.wall_s())
        try:
            stored = await asyncio.to_thread(self._spool.write, values, "exact", note)
        except FlotillaError as error:
            log.info("a result of this server could not be kept for a resume", job=key[0], item=key[1], reason=error)
            return
        finally:
            self._writing.discard(key)
        # Evicted first when room is short: nobody needs this copy unless the process ends.
        self._spool.loosen(stored.manifest.hash, stored.use)
        self._held[key] = (Kept(MASTER_ID, key[1], key[2], stored.manifest, seconds), stored)
        if key in self._unwanted:
            self._unwanted.discard(key)
            self.release(key)
