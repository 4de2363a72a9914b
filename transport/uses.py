"""The books of a spool: which blob lies where, and who still has a use for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .manifest import BlobManifest
from .store import Store


@dataclass(frozen=True)
class StoredBlob:
    """A blob in the spool and where it lies. ``use`` names the use that a write with a note has taken, else ""."""

    manifest: BlobManifest
    path: Path
    use: str = field(default="", compare=False)


@dataclass(frozen=True)
class Adopted:
    """A blob that an earlier process of this home has left, with its note. ``loose``: it may go when room is short."""

    blob: StoredBlob
    note: dict[str, Any]
    loose: bool


@dataclass
class NotedUse:
    """A use with a note. ``path`` is None while the note is being written, or where it could not be; ``since_s`` is on
    the clock of this process."""

    since_s: float
    path: Path | None = None
    loose: bool = False


@dataclass
class Held:
    """A blob with its uses."""

    blob: StoredBlob
    store: Store
    plain_uses: int = 0
    noted: dict[str, NotedUse] = field(default_factory=dict)

    @property
    def is_loose(self) -> bool:
        """Whether nobody minds if it goes."""
        return self.plain_uses == 0 and all(use.loose for use in self.noted.values())

    def find(self, use: str) -> str:
        """The noted use of this name, for "" the oldest; "" if there is none."""
        if not use:
            return next(iter(self.noted), "")
        return use if use in self.noted else ""

    def lasting_files(self) -> Iterator[Path]:
        """The files that must outlive the process: those of a blob with a note."""
        notes = [use.path for use in self.noted.values() if use.path is not None]
        if notes:
            yield self.blob.path
            yield from notes
