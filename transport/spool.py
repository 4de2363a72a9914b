"""The spool: where an instance keeps the blobs it has produced and not yet handed over.

A blob is written once, hashed on the way, into a draft that gets its name only when it is whole. It lies in a memory
folder while that has room, else on disk. Two instances may share a root: each has its own locked folder in it.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from ..utils.clock import Clock, SystemClock
from ..utils.errors import Conflict, NotFound, SpoolFull
from ..utils.log import get_logger
from .codec import BlobPlan, plan_blob
from .limits import DEFAULT_LIMITS, TransportLimits
from .manifest import BlobManifest
from .store import Draft, Store
from .values import Value

RECYCLE_IDLE_S = 60.0  # after this the memory of released blobs goes back to the system
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM})

log = get_logger("transport")


@dataclass(frozen=True)
class StoredBlob:
    """A blob in the spool and where it lies."""

    manifest: BlobManifest
    path: Path


@dataclass(frozen=True)
class SpoolUsage:
    """How full a spool is. ``memory_bytes`` and ``disk_bytes`` count blobs and drafts, not ``recycled_bytes``."""

    blobs: int
    memory_bytes: int
    memory_cap_bytes: int
    recycled_bytes: int
    disk_bytes: int
    disk_cap_bytes: int


@dataclass
class _Held:
    blob: StoredBlob
    store: Store
    uses: int


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
        limits: TransportLimits = DEFAULT_LIMITS,
        clock: Clock | None = None,
    ) -> None:
        """``memory_root`` is a folder in a memory file system, or None. Raises OSError if no folder can be made on disk."""
        self._limits = limits
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}
        self._closed = False
        self._disk = Store(disk_root, cap_bytes=disk_cap_bytes, recycle_cap_bytes=0)
        self._memory: Store | None = None
        if memory_root is not None and memory_cap_bytes > 0:
            try:
                self._memory = Store(memory_root, cap_bytes=memory_cap_bytes, recycle_cap_bytes=recycle_cap_bytes)
            except OSError as error:
                log.warning("no spool in memory, disk serves alone", reason=error)

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders that blobs may lie in, memory first."""
        return tuple(store.folder.path for store in self._stores())

    def write(self, values: Mapping[str, Value], precision: str = "exact") -> StoredBlob:
        """Writes ``values`` as a blob and takes one use of it; the same content twice is one file with two uses.

        Raises InvalidInput or TooLarge for values that cannot travel, SpoolFull where no folder has room.
        """
        plan = plan_blob(values, precision, self._limits)
        faults = []
        for store in self._stores():
            try:
                return self._write_into(store, plan)
            except SpoolFull as fault:
                faults.append(f"{store.folder.path.parent}: {fault.message}")
        raise SpoolFull(
            f"A result of {plan.size_bytes} bytes finds no room. " + " ".join(faults),
            cure="Free space there, raise FLOTILLA_SPOOL_CAP_BYTES, or let results be collected before more are made.",
            details={"size_bytes": plan.size_bytes, "held_blobs": len(self._held)},
        )

    def open(self, blob_hash: str) -> Path:
        """Where the blob lies. Raises NotFound."""
        return self.get(blob_hash).path

    def get(self, blob_hash: str) -> StoredBlob:
        """The blob. Raises NotFound."""
        with self._lock:
            held = self._held.get(blob_hash)
        if held is None:
            raise NotFound("The spool holds no such blob.", details={"hash": blob_hash})
        return held.blob

    def release(self, blob_hash: str) -> bool:
        """Gives one use back; after the last one the file goes. False if the spool does not hold the blob.

        A released file may be overwritten by the next blob while somebody still reads it: release after the last
        reader is done. (A reader that is not sees a wrong hash, never wrong values.)
        """
        with self._lock:
            held = self._held.get(blob_hash)
            if held is None:
                return False
            held.uses -= 1
            if held.uses == 0:
                del self._held[blob_hash]
                held.store.remove(held.blob.path, held.blob.manifest.size_bytes, self._clock.now_s())
        held.store.sweep()
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
        """Gives memory back that nobody has reused for `RECYCLE_IDLE_S`; returns the bytes. Call it now and then."""
        with self._lock:
            freed_bytes = sum(store.trim(now_s - RECYCLE_IDLE_S) for store in self._stores())
        for store in self._stores():
            store.sweep()
        return freed_bytes

    def clear_at_start(self) -> int:
        """Removes what instances that are gone have left under the same roots; returns how many there were."""
        return sum(store.folder.clear_dead() for store in self._stores())

    def close(self) -> None:
        """Removes all blobs and the folders. A second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._held.clear()
        for store in self._stores():
            store.folder.close()

    def _stores(self) -> list[Store]:
        return [self._memory, self._disk] if self._memory else [self._disk]

    def _write_into(self, store: Store, plan: BlobPlan) -> StoredBlob:
        with self._lock:
            if self._closed:
                raise Conflict("The spool is closed.")
            draft = store.reserve(plan.size_bytes)
        store.sweep()
        try:
            store.check_room(draft)
            blob_hash = _fill(draft, plan)
            with self._lock:
                blob = self._commit(store, draft, plan, blob_hash)
        except BaseException as error:
            with self._lock:
                store.drop(draft)
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                raise SpoolFull(f"The file system ran full: {error.strerror}.") from error
            raise
        finally:
            store.sweep()
        return blob

    def _commit(self, store: Store, draft: Draft, plan: BlobPlan, blob_hash: str) -> StoredBlob:
        if self._closed:
            raise Conflict("The spool was closed while a result was being written.")
        held = self._held.get(blob_hash)
        if held is not None:
            held.uses += 1
            store.drop(draft)
            return held.blob
        path = store.commit(draft, blob_hash, plan.size_bytes)
        blob = StoredBlob(plan.manifest(blob_hash), path)
        self._held[blob_hash] = _Held(blob, store, uses=1)
        return blob


def _fill(draft: Draft, plan: BlobPlan) -> str:
    """Writes the blob's bytes and cuts the draft to its length; returns the hash in hex."""
    hasher = blake3()
    fd = Store.open_draft(draft)
    try:
        for chunk in plan.chunks():
            hasher.update(chunk)
            while chunk.nbytes:
                chunk = chunk[os.write(fd, chunk) :]
        os.ftruncate(fd, plan.size_bytes)
    finally:
        os.close(fd)
    return hasher.hexdigest()
