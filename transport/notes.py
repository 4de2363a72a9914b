"""Notes beside blobs: small files that say whom a blob is for, so that a later process knows what it has found.

``<hash>.<use>.note`` holds the note and the blob's manifest as JSON; ``.loose`` instead of ``.note`` marks a blob that
may go when room is short. A note is whole or not there at all. It is written to outlive the process, not a power failure,
as the blob itself: whoever reads the blob checks its hash.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..utils.errors import InvalidBlob, InvalidInput
from ..utils.files import PRIVATE_FILE_MODE
from .limits import DEFAULT_LIMITS, TransportLimits
from .manifest import BlobManifest, as_mapping, is_blob_hash

FIRM = ".note"
LOOSE = ".loose"
_DRAFT_SUFFIX = ".tmp"
_FORMAT = 1
_MAX_NOTE_FILE_BYTES = 64 * 1024 * 1024
_O_BINARY = getattr(os, "O_BINARY", 0)


@dataclass(frozen=True)
class FoundNote:
    """A note on disk. ``use`` tells apart several uses of one blob; ``since_s`` is when it was written, since 1970."""

    path: Path
    use: str
    loose: bool
    note: dict[str, Any]
    manifest: BlobManifest
    since_s: float


def check_note(note: Mapping[str, Any]) -> None:
    """Raises InvalidInput for a note that is not JSON."""
    try:
        json.dumps(dict(note), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise InvalidInput("The note for a blob holds something that JSON cannot.") from None


def write_note(
    folder: Path, use: str, note: Mapping[str, Any], manifest: BlobManifest, since_s: float, *, loose: bool = False
) -> Path:
    """Writes the note into ``folder``, which must be there, and returns its path. Raises OSError."""
    path = folder / f"{manifest.hash}.{use}{LOOSE if loose else FIRM}"
    content = {"format": _FORMAT, "since_s": since_s, "note": dict(note), "manifest": manifest.to_wire()}
    draft = path.with_name(path.name + _DRAFT_SUFFIX)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _O_BINARY, PRIVATE_FILE_MODE)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii"))
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    return path


def loosened(path: Path) -> Path:
    """Marks the note at ``path`` as loose and returns its new path. Raises OSError."""
    return path.replace(path.with_suffix(LOOSE))


def read_notes(folder: Path, limits: TransportLimits = DEFAULT_LIMITS) -> list[FoundNote]:
    """The notes in ``folder``, oldest first; what cannot be read as one is left out. A missing folder has none."""
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if path.suffix in (FIRM, LOOSE) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError, ValueError, RecursionError, InvalidBlob):
                    found.append(_read(path, limits))
    return sorted(found, key=lambda note: (note.since_s, note.path.name))


def _read(path: Path, limits: TransportLimits) -> FoundNote:
    with path.open("rb") as file:
        data = file.read(_MAX_NOTE_FILE_BYTES)
    content = as_mapping(json.loads(data), "A note")
    blob_hash, _, use = path.stem.partition(".")
    manifest = BlobManifest.from_wire(content.get("manifest"), limits)
    since_s = content.get("since_s")
    if not use or not is_blob_hash(blob_hash) or manifest.hash != blob_hash or content.get("format") != _FORMAT:
        raise InvalidBlob("The note is not about the blob that its name tells.")
    if not isinstance(since_s, (int, float)) or isinstance(since_s, bool) or not math.isfinite(since_s):
        raise InvalidBlob("The note does not tell how old it is.")
    note = dict(as_mapping(content.get("note"), "A note's content"))
    return FoundNote(path, use, path.suffix == LOOSE, note, manifest, float(since_s))
