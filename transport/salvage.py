"""What dead processes have left in folders beside one's own: blobs with notes are worth taking over, the rest is not."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from .limits import DEFAULT_LIMITS, TransportLimits
from .notes import FoundNote, read_notes
from .owned_folder import DeadFolder, OwnedFolder
from .store import SUFFIX


@dataclass(frozen=True)
class Age:
    """How old a note may be. ``wall_s`` is now, since 1970."""

    wall_s: float
    keep_s: float

    def fresh_notes(self, folder: Path, limits: TransportLimits) -> list[FoundNote]:
        """The notes in ``folder`` that are worth something. A time to come is no better than one long past: somebody
        has moved the clock."""
        if folder.is_symlink():
            return []
        return [note for note in read_notes(folder, limits) if abs(self.wall_s - note.since_s) <= self.keep_s]


class Salvage:
    """Holds the folders of dead processes of one home, and removes them in the end unless that was cut short."""

    def __init__(self, folder: OwnedFolder, age: Age, limits: TransportLimits = DEFAULT_LIMITS) -> None:
        """``folder`` is one's own, beside which to look."""
        self._folder = folder
        self._age = age
        self._limits = limits
        self._dead: list[DeadFolder] = []

    def __enter__(self) -> Salvage:
        for path in self._folder.neighbours(of_this_home=True):
            dead = self._folder.seize(path)
            if dead is not None:
                self._dead.append(dead)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for dead in self._dead:
            if kind is None:
                dead.remove()
            else:
                dead.leave()

    def noted(self) -> list[tuple[Path, FoundNote]]:
        """Where a noted blob lies, and its note, oldest first.

        Notes and blobs are paired over all folders, each use once: a process may have died while it moved them.
        """
        blobs = {blob.stem: blob for dead in self._dead for blob in _blobs_in(dead.path)}
        notes = [note for dead in self._dead for note in self._age.fresh_notes(dead.path, self._limits)]
        uses = {(note.manifest.hash, note.use): note for note in notes if note.manifest.hash in blobs}
        ordered = sorted(uses.values(), key=lambda note: (note.since_s, note.path.name))
        return [(blobs[note.manifest.hash], note) for note in ordered]


def clear(folder: OwnedFolder, age: Age, limits: TransportLimits = DEFAULT_LIMITS) -> int:
    """Removes the dead folders of any home beside ``folder`` that hold no fresh notes; returns how many there were."""
    removed = 0
    for path in folder.neighbours():
        # Looked at before it is locked: its own home may be about to take it over, and must not find it locked.
        if age.fresh_notes(path, limits):
            continue
        dead = folder.seize(path)
        if dead is None:
            continue
        if age.fresh_notes(path, limits):
            dead.leave()
        else:
            dead.remove()
            removed += 1
    return removed


def _blobs_in(folder: Path) -> list[Path]:
    found: list[Path] = []
    if not folder.is_symlink():
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            found += [Path(entry.path) for entry in entries if entry.is_file(follow_symlinks=False)]
    return [path for path in found if path.suffix == SUFFIX]
