"""The finished results that a worker keeps for its masters, in its spool and in its books."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import ValidationError

from ..transport.spool import Spool
from ..transport.uses import Adopted, StoredBlob
from ..utils.background import Background
from ..utils.log import get_logger
from ..workers import messages as m
from .session import HeldResult, Key, MasterSession

log = get_logger("held")

ITEM_NOTE = "item"
"""The kind of notes that are about an item's result."""


class HeldResults:
    """Keeps results from their delivery to their release. Use from the server's loop; files are removed in threads."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._background = Background("held results")

    def add(self, session: MasterSession, key: Key, stored: StoredBlob, seconds: float) -> HeldResult:
        """Takes a result into the books; of two for the same attempt the first stays."""
        known = session.results.get(key)
        if known is not None:
            self.drop(stored)
            return known
        job_id, index, attempt = key
        report = m.ItemFinished(
            job_id=job_id, index=index, attempt=attempt, manifest=stored.manifest.to_wire(), seconds=seconds
        )
        result = session.results[key] = HeldResult(stored, report)
        return result

    def loosen(self, session: MasterSession, key: Key) -> None:
        """The master has the result; it may go when room is short."""
        result = session.results.get(key)
        if result is not None:
            blob = result.stored
            self._background.spawn(_in_thread(self._spool.loosen, blob.manifest.hash, blob.use))

    def release(self, session: MasterSession, key: Key) -> None:
        """Nobody needs the result any more. Harmless for one that is not here."""
        result = session.results.pop(key, None)
        if result is not None:
            self.drop(result.stored)

    def drop(self, stored: StoredBlob) -> None:
        """Ends this use of the blob."""
        self._background.spawn(_in_thread(self._spool.release, stored.manifest.hash, stored.use))

    def prune(self, session: MasterSession) -> None:
        """Forgets results that the spool no longer has, for want of room or by age."""
        for key in [key for key, result in session.results.items() if not self._spool.holds(result.stored)]:
            del session.results[key]

    async def close(self) -> None:
        """Ends all tasks. Results stay in the spool."""
        await self._background.close()


def note_of(master_home_id: str, key: Key, seconds: float, ended_s: float) -> dict[str, Any]:
    """What is written beside the result of an attempt. ``seconds`` it took, ``ended_s`` since 1970."""
    job_id, index, attempt = key
    return {
        "kind": ITEM_NOTE,
        "master": master_home_id,
        "job": job_id,
        "index": index,
        "attempt": attempt,
        "seconds": seconds,
        "ended_s": ended_s,
    }


def read_note(adopted: Adopted) -> tuple[str, Key, float] | None:
    """The master's home, the attempt and its seconds, from a note; None for one that is not about an item."""
    note = adopted.note
    try:
        about = m.ItemFinished(
            job_id=note["job"],
            index=note["index"],
            attempt=note["attempt"],
            manifest={},
            seconds=note["seconds"],
        )
    except (KeyError, ValidationError):
        return None
    home_id = note.get("master")
    if note.get("kind") != ITEM_NOTE or not isinstance(home_id, str) or not home_id:
        return None
    return home_id, (about.job_id, about.index, about.attempt), about.seconds


async def _in_thread(act: Any, *args: str) -> None:
    await asyncio.to_thread(act, *args)
