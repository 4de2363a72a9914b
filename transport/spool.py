"""The spool: where an instance keeps the blobs it has produced and not yet handed over.

A blob is written once, hashed on the way, into a draft that gets its name only when it is whole. It lies in a memory
folder while that has room, else on disk. Two instances may share a root: each has its own locked folder in it.

A blob may be written with a note that tells whom it is for. Such a blob outlives the process: the next process of the
same home takes it over (`Spool.adopt`). What its owner has called loose goes, oldest first, when nothing else makes room.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..utils.clock import Clock, SystemClock
from ..utils.errors import Conflict, NotFound, SpoolFull, TooLarge
from ..utils.log import get_logger
from .codec import BlobPlan, plan_blob
from .limits import DEFAULT_LIMITS, TransportLimits
from .manifest import BlobManifest
from .notes import FoundNote, check_note, loosened, write_note
from .salvage import Age, Salvage, clear
from .store import Draft, Store
from .upload import Upload
from .uses import Adopted, Held, NotedUse, StoredBlob
from .values import Value

RECYCLE_IDLE_S = 60.0  # after this the memory of released blobs goes back to the system
KEEP_S = 24 * 3600.0
"""For so long a noted blob waits for its release, over restarts."""
_USE_BYTES = 8

log = get_logger("transport")

_Begun = TypeVar("_Begun")


@dataclass(frozen=True)
class SpoolUsage:
    """How full a spool is. ``memory_bytes`` and ``disk_bytes`` count blobs and drafts, not ``recycled_bytes``."""

    blobs: int
    memory_bytes: int
    memory_cap_bytes: int
    recycled_bytes: int
    disk_bytes: int
    disk_cap_bytes: int


class Spool:
    """Blobs by hash. Every method may be called from any thread; no lock is held while bytes are written."""

    def __init__(
        self,
        memory_root: Path | None,
        disk_root: Path,
        *,
        memory_cap_bytes: int,
        disk_cap_bytes: int,
        recycle_cap_bytes: int,
        home_id: str = "",
        keep_s: float = KEEP_S,
        limits: TransportLimits = DEFAULT_LIMITS,
        clock: Clock | None = None,
    ) -> None:
        """``memory_root`` is a folder in a memory file system, or None. ``home_id`` stays the same over restarts;
        ``keep_s`` may be changed at any time. Raises OSError if no folder can be made on disk."""
        self.keep_s = keep_s
        self._limits = limits
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._held: dict[str, Held] = {}
        self._closed = False
        self._disk = Store(disk_root, cap_bytes=disk_cap_bytes, recycle_cap_bytes=0, home=home_id)
        self._memory: Store | None = None
        if memory_root is not None and memory_cap_bytes > 0:
            try:
                self._memory = Store(
                    memory_root, cap_bytes=memory_cap_bytes, recycle_cap_bytes=recycle_cap_bytes, home=home_id
                )
            except OSError as error:
                log.warning("no spool in memory, disk serves alone", reason=error)

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders that blobs may lie in, memory first."""
        return tuple(store.folder.path for store in self._stores())

    def write(
        self, values: Mapping[str, Value], precision: str = "exact", note: Mapping[str, Any] | None = None
    ) -> StoredBlob:
        """Writes ``values`` as a blob and takes one use of it; the same content twice is one file with two uses.

        With a ``note`` (JSON) the blob outlives this process, see `adopt`. Raises InvalidInput or TooLarge for values
        that cannot travel, SpoolFull where no folder has room, not even without what is loose.
        """
        if note is not None:
            check_note(note)
        plan = plan_blob(values, precision, self._limits)
        use = "" if note is None else secrets.token_hex(_USE_BYTES)
        blob = self._somewhere(plan.size_bytes, lambda store: self._write_into(store, plan, use))
        if note is not None:
            self._put_note(blob, note, since_s=self._clock.wall_s())
        return blob

    def receive(self, size_bytes: int) -> Upload:
        """Room for a blob of ``size_bytes`` that another machine sends; end the upload whatever happens.

        Raises TooLarge over the cap of a blob, SpoolFull where no folder has room, not even without what is loose.
        """
        cap_bytes = self._limits.max_blob_bytes
        if size_bytes > cap_bytes:
            raise TooLarge(f"The blob has {size_bytes} bytes; {cap_bytes} are allowed.", cure="Send less at once.")
        return self._somewhere(size_bytes, lambda store: self._begin(store, size_bytes))

    def take(self, blob_hash: str) -> StoredBlob:
        """Takes one more use of a blob that is here, without a note. Raises NotFound."""
        with self._lock:
            held = self._held.get(blob_hash)
            if held is not None:
                held.plain_uses += 1
                return held.blob
        raise _no_such_blob(blob_hash)

    def open(self, blob_hash: str) -> Path:
        """Where the blob lies. Raises NotFound."""
        return self.get(blob_hash).path

    def get(self, blob_hash: str) -> StoredBlob:
        """The blob. Raises NotFound."""
        with self._lock:
            held = self._held.get(blob_hash)
        if held is None:
            raise _no_such_blob(blob_hash)
        return held.blob

    def holds(self, blob: StoredBlob) -> bool:
        """Whether this use of the blob is still there: neither released nor gone for want of room or by age."""
        with self._lock:
            held = self._held.get(blob.manifest.hash)
            return held is not None and (blob.use in held.noted if blob.use else held.plain_uses > 0)

    def release(self, blob_hash: str, use: str = "") -> bool:
        """Gives one use back; after the last one the file goes. False if the spool does not hold the blob (any more).

        ``use`` says which, for a blob with notes; without it, one that has no note, else the oldest. A released file
        may be overwritten by the next blob while somebody still reads it: release after the last reader is done. (A
        reader that is not sees a wrong hash, never wrong values.)
        """
        with self._lock:
            held = self._held.get(blob_hash)
            if held is None or not self._give_up(held, use):
                return False
        held.store.sweep()
        return True

    def loosen(self, blob_hash: str, use: str = "") -> bool:
        """Says that this use may end when room is short. False if the spool does not hold it. ``use`` as in `release`."""
        with self._lock:
            held = self._held.get(blob_hash)
            found = held.noted.get(held.find(use)) if held is not None else None
            if found is None:
                return False
            if not found.loose and found.path is not None:
                try:
                    found.path = loosened(found.path)
                except OSError as error:  # it only matters after a restart
                    log.warning("a note could not be marked", reason=error)
            found.loose = True
        return True

    def held(self) -> list[StoredBlob]:
        """All blobs, oldest first."""
        with self._lock:
            return [held.blob for held in self._held.values()]

    def usage(self) -> SpoolUsage:
        """How full the spool is now."""
        with self._lock:
            memory = self._memory
            return SpoolUsage(
                blobs=len(self._held),
                memory_bytes=memory.taken_bytes if memory else 0,
                memory_cap_bytes=memory.cap_bytes if memory else 0,
                recycled_bytes=memory.recycled_bytes if memory else 0,
                disk_bytes=self._disk.taken_bytes,
                disk_cap_bytes=self._disk.cap_bytes,
            )

    def trim(self, now_s: float) -> int:
        """Ends noted uses older than ``keep_s`` and gives memory back that nobody has reused for `RECYCLE_IDLE_S`;
        returns the latter's bytes. Call it now and then."""
        with self._lock:
            for held in list(self._held.values()):
                for use in [use for use, noted in held.noted.items() if noted.since_s < now_s - self.keep_s]:
                    self._give_up(held, use)
            freed_bytes = sum(store.trim(now_s - RECYCLE_IDLE_S) for store in self._stores())
        for store in self._stores():
            store.sweep()
        return freed_bytes

    def adopt(self) -> list[Adopted]:
        """Takes over the noted blobs that dead processes of this home have left, oldest first. Blocks; call it once."""
        adopted: list[Adopted] = []
        age = Age(self._clock.wall_s(), self.keep_s)
        for store in self._stores():
            with Salvage(store.folder, age, self._limits) as salvage:
                for path, found in salvage.noted():
                    blob = self._take_over(store, path, found)
                    if blob is not None:
                        adopted.append(Adopted(blob, found.note, found.loose))
        if adopted:
            log.info("took over results of the process before", count=len(adopted))
        return adopted

    def clear_at_start(self) -> int:
        """Removes what instances that are gone have left under the same roots; returns how many there were.

        Left alone is what holds notes younger than ``keep_s``, of any home: somebody may come back for it.
        """
        age = Age(self._clock.wall_s(), self.keep_s)
        return sum(clear(store.folder, age, self._limits) for store in self._stores())

    def close(self) -> None:
        """Removes all blobs without notes, and the folders if nothing stays in them. A second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            staying = [(held.store, path) for held in self._held.values() for path in held.lasting_files()]
            self._held.clear()
        for store in self._stores():
            store.close({path for owner, path in staying if owner is store})

    def _stores(self) -> list[Store]:
        return [self._memory, self._disk] if self._memory else [self._disk]

    # Writing

    def _somewhere(self, size_bytes: int, begin: Callable[[Store], _Begun]) -> _Begun:
        """What ``begin`` makes of the first folder that has room for so much."""
        faults = []
        for store in self._stores():
            try:
                return begin(store)
            except SpoolFull as fault:
                faults.append(f"{store.folder.path.parent}: {fault.message}")
        for store in self._stores():
            while self._make_room(store, size_bytes):
                try:
                    return begin(store)
                except SpoolFull:  # another result was quicker
                    continue
        raise SpoolFull(
            f"A result of {size_bytes} bytes finds no room. " + " ".join(faults),
            cure="Free space there, raise FLOTILLA_SPOOL_CAP_BYTES, or let results be collected before more are made.",
            details={"size_bytes": size_bytes, "held_blobs": len(self._held)},
        )

    def _make_room(self, store: Store, size_bytes: int) -> bool:
        """Ends loose uses, oldest first, if that can make room for a blob. False if nothing was done."""
        with self._lock:
            missing_bytes = size_bytes - store.room_bytes()
            gone: list[Held] = []
            for held in self._held.values():
                if missing_bytes <= 0 and gone:
                    break
                if held.store is store and held.is_loose:
                    gone.append(held)
                    missing_bytes -= held.blob.manifest.size_bytes
            if missing_bytes > 0 or not gone:
                return False
            store.trim(float("inf"))
            for held in gone:
                for use in held.noted.values():
                    self._discard_note(store, use)
                del self._held[held.blob.manifest.hash]
                store.evict(held.blob.path, held.blob.manifest.size_bytes)
        store.sweep()
        log.info("results that were fetched made room for a new one", count=len(gone), size_bytes=size_bytes)
        return True

    def _write_into(self, store: Store, plan: BlobPlan, use: str) -> StoredBlob:
        upload = self._begin(store, plan.size_bytes, use)
        upload.write(plan.chunks())
        return upload.seal(plan.manifest)

    def _begin(self, store: Store, size_bytes: int, use: str = "") -> Upload:
        """A draft with room for it, in the books and on the file system. Raises SpoolFull."""
        with self._lock:
            if self._closed:
                raise Conflict("The spool is closed.")
            draft = store.reserve(size_bytes)
        store.sweep()
        commit, drop = partial(self._commit, store, draft, use), partial(self._drop, store, draft)
        upload = Upload(draft, size_bytes, commit, drop, self._limits)
        with upload.or_abandoned():
            store.check_room(draft)
        return upload

    def _drop(self, store: Store, draft: Draft) -> None:
        with self._lock:
            store.drop(draft)
        store.sweep()

    def _commit(self, store: Store, draft: Draft, use: str, manifest: BlobManifest) -> StoredBlob:
        """Takes a use of the blob, which is the finished draft or has been here before."""
        with self._lock:
            if self._closed:
                raise Conflict("The spool was closed while a blob was being written.")
            held = self._held.get(manifest.hash)
            if held is not None:
                store.drop(draft)
            else:
                path = store.commit(draft, manifest.hash, manifest.size_bytes)
                held = self._held[manifest.hash] = Held(StoredBlob(manifest, path), store)
            if use:
                held.noted[use] = NotedUse(self._clock.now_s())
            else:
                held.plain_uses += 1
        store.sweep()
        return replace(held.blob, use=use)

    def _put_note(self, blob: StoredBlob, note: Mapping[str, Any], *, since_s: float, loose: bool = False) -> None:
        try:
            path = write_note(blob.path.parent, blob.use, note, blob.manifest, since_s, loose=loose)
        except OSError as error:
            log.warning("a result will not outlive this process, its note could not be written", reason=error)
            return
        with self._lock:
            held = self._held.get(blob.manifest.hash)
            use = held.noted.get(blob.use) if held is not None else None
            if use is not None:
                use.path = path
                return
        path.unlink(missing_ok=True)
        raise Conflict("The spool was closed while a result was being written.")

    # Ending, under the lock

    def _give_up(self, held: Held, use: str) -> bool:
        if not use and held.plain_uses:
            held.plain_uses -= 1
        else:
            noted = held.noted.pop(held.find(use), None)
            if noted is None:
                return False
            self._discard_note(held.store, noted)
        if not held.plain_uses and not held.noted:
            del self._held[held.blob.manifest.hash]
            held.store.remove(held.blob.path, held.blob.manifest.size_bytes, self._clock.now_s())
        return True

    @staticmethod
    def _discard_note(store: Store, use: NotedUse) -> None:
        if use.path is not None:
            store.discard(use.path)

    # Taking over

    def _take_over(self, store: Store, path: Path, found: FoundNote) -> StoredBlob | None:
        """The blob at ``path``, which is in this spool afterwards; None if it is no file of its size or cannot be had."""
        manifest = found.manifest
        with self._lock:
            if self._closed:
                raise Conflict("The spool was closed while results were being taken over.")
            held = self._held.get(manifest.hash)
            if held is None:
                try:
                    if path.stat().st_size != manifest.size_bytes:
                        return None
                    own = store.adopt(path, manifest.hash, manifest.size_bytes)
                except OSError as error:
                    log.warning("a result of the process before could not be taken over", reason=error)
                    return None
                held = self._held[manifest.hash] = Held(StoredBlob(manifest, own), store)
            age_s = max(0.0, self._clock.wall_s() - found.since_s)
            held.noted[found.use] = NotedUse(self._clock.now_s() - age_s, loose=found.loose)
        blob = replace(held.blob, use=found.use)
        self._put_note(blob, found.note, since_s=found.since_s, loose=found.loose)
        return blob


def _no_such_blob(blob_hash: str) -> NotFound:
    return NotFound("The spool holds no such blob.", details={"hash": blob_hash})
