"""One folder of a spool: what is in it, what it may hold, and segments that wait to be written again.

Writing into a file whose pages exist already is several times faster than into a fresh one, because the kernel need
not find and map memory for it. A memory folder therefore keeps released files as segments, up to a cap of its own.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ..utils.errors import SpoolFull
from .owned_folder import PRIVATE_FILE_MODE, OwnedFolder

SUFFIX = ".safetensors"
_DRAFT_PREFIX = "draft-"
_SEGMENT_PREFIX = "segment-"
_O_BINARY = getattr(os, "O_BINARY", 0)
_O_CLOEXEC = getattr(os, "O_CLOEXEC", 0)


@dataclass
class Segment:
    """A released file: ``size_bytes`` of pages that may be written again."""

    path: Path
    size_bytes: int
    idle_since_s: float


@dataclass
class Draft:
    """A file being written. ``reserved_bytes`` of the cap are set aside for it; ``fresh_bytes`` are not there yet."""

    path: Path
    reserved_bytes: int
    fresh_bytes: int


class Store:
    """Book-keeping of one folder. The spool calls it under its lock, except `open_draft`, `check_room` and `sweep`:
    under the lock files get other names, and only outside of it time is spent on making and removing them."""

    def __init__(self, root: Path, *, cap_bytes: int, recycle_cap_bytes: int, home: str = "") -> None:
        self.folder = OwnedFolder(root, home)
        self.cap_bytes = cap_bytes
        self._recycle_cap_bytes = recycle_cap_bytes
        self._segments: list[Segment] = []
        self._litter: deque[Path] = deque()  # names that nobody uses any more
        self._taken_bytes = 0

    @property
    def taken_bytes(self) -> int:
        """Bytes of files held and being written."""
        return self._taken_bytes

    @property
    def recycled_bytes(self) -> int:
        """Bytes of segments that wait to be used again."""
        return sum(segment.size_bytes for segment in self._segments)

    def path_of(self, blob_hash: str) -> Path:
        """Where the blob lies, if it is here."""
        return self.folder.path / f"{blob_hash}{SUFFIX}"

    def reserve(self, size_bytes: int) -> Draft:
        """Sets room aside for a draft of ``size_bytes``. Raises SpoolFull over the cap."""
        if self._taken_bytes + size_bytes > self.cap_bytes:
            raise SpoolFull(
                f"The spool holds {self._taken_bytes} of {self.cap_bytes} bytes; {size_bytes} more do not fit."
            )
        draft = Draft(self.folder.path / f"{_DRAFT_PREFIX}{secrets.token_hex(8)}", size_bytes, size_bytes)
        segment = self._take_segment(size_bytes)
        if segment is not None:
            segment.path.replace(draft.path)
            draft.reserved_bytes = max(size_bytes, segment.size_bytes)
            draft.fresh_bytes = draft.reserved_bytes - segment.size_bytes
        # Segments give way to what is needed now.
        while self._segments and self._taken_bytes + self.recycled_bytes + draft.reserved_bytes > self.cap_bytes:
            self._litter.append(self._segments.pop(0).path)
        self._taken_bytes += draft.reserved_bytes
        return draft

    def check_room(self, draft: Draft) -> None:
        """Raises SpoolFull if the file system has no room for what the draft needs beyond its recycled pages."""
        free_bytes = shutil.disk_usage(self.folder.path).free
        if draft.fresh_bytes > free_bytes:
            raise SpoolFull(f"The file system has {free_bytes} bytes free; {draft.fresh_bytes} more are needed.")

    @staticmethod
    def open_draft(draft: Draft) -> int:
        """A descriptor at the start of the draft, which may hold old bytes: cut it to its length before it is named."""
        return os.open(draft.path, os.O_RDWR | os.O_CREAT | _O_BINARY | _O_CLOEXEC, PRIVATE_FILE_MODE)

    def drop(self, draft: Draft) -> None:
        """Gives a draft up."""
        self._litter.append(draft.path)
        self._taken_bytes -= draft.reserved_bytes

    def commit(self, draft: Draft, blob_hash: str, size_bytes: int) -> Path:
        """Gives the finished draft its name."""
        path = self.path_of(blob_hash)
        draft.path.replace(path)
        self._taken_bytes += size_bytes - draft.reserved_bytes
        return path

    def adopt(self, path: Path, blob_hash: str, size_bytes: int) -> Path:
        """Takes a file from another folder under the same root. Raises OSError."""
        own = self.path_of(blob_hash)
        path.replace(own)
        self._taken_bytes += size_bytes
        return own

    def discard(self, path: Path) -> None:
        """Gives up a file that counts nowhere."""
        self._litter.append(path)

    def room_bytes(self) -> int:
        """What could be written now, once idle segments have given way: by the cap and by the file system."""
        free_bytes = shutil.disk_usage(self.folder.path).free + self.recycled_bytes
        return min(self.cap_bytes - self._taken_bytes, free_bytes)

    def evict(self, path: Path, size_bytes: int) -> None:
        """Takes a blob's name away and gives its file up, because room is short."""
        self._taken_bytes -= size_bytes
        self._rename_away(path)

    def remove(self, path: Path, size_bytes: int, now_s: float) -> None:
        """Takes a blob's name away and keeps its file as a segment, or gives it up."""
        self._taken_bytes -= size_bytes
        keep = self.recycled_bytes + size_bytes <= self._recycle_cap_bytes
        segment = self._rename_away(path, keep=keep)
        if keep and segment is not None:
            self._segments.append(Segment(segment, size_bytes, now_s))

    def trim(self, before_s: float) -> int:
        """Gives up segments idle since before ``before_s``; returns their bytes."""
        idle = [segment for segment in self._segments if segment.idle_since_s < before_s]
        self._segments = [segment for segment in self._segments if segment.idle_since_s >= before_s]
        self._litter.extend(segment.path for segment in idle)
        return sum(segment.size_bytes for segment in idle)

    def sweep(self) -> None:
        """Removes the files that were given up. Takes its time for large ones."""
        while True:
            try:
                path = self._litter.popleft()
            except IndexError:
                return
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def close(self, keep: Collection[Path]) -> None:
        """Removes everything but the files to ``keep``, see `OwnedFolder.close`."""
        self.folder.close(keep)

    def _rename_away(self, path: Path, *, keep: bool = False) -> Path | None:
        """The file's new name, under which it is swept unless it is to ``keep``; None where it cannot be renamed."""
        segment = path.with_name(f"{_SEGMENT_PREFIX}{secrets.token_hex(8)}")
        try:
            path.replace(segment)
        except OSError:
            return None  # somebody has removed it; Windows keeps what is being read, which then goes with the folder
        if not keep:
            self._litter.append(segment)
        return segment

    def _take_segment(self, size_bytes: int) -> Segment | None:
        """The segment that wastes least: the smallest that is large enough, else the largest."""
        if not self._segments:
            return None
        enough = [segment for segment in self._segments if segment.size_bytes >= size_bytes]
        key = _size
        best = min(enough, key=key) if enough else max(self._segments, key=key)
        if self._taken_bytes + max(size_bytes, best.size_bytes) > self.cap_bytes:
            return None
        self._segments.remove(best)
        return best


def _size(segment: Segment) -> int:
    return segment.size_bytes
