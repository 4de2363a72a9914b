"""What waits to be written: one record for each thing, the newest, and never more than a stated number.

Not thread-safe: it belongs to whoever holds it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from .models import MAX_ID_LENGTH
from .records import AttemptRecord, ItemRecord, JobPatch, JobRecord, Record

MAX_JOBS = 2_000
"""Jobs that may wait. Their prompts can be large."""

MAX_ROWS = 300_000
"""Items that may wait, and attempts that may wait."""

JOBS_AT_ONCE = 100

INBOX_ROWS = 200_000
"""Records that may lie in an inbox unsorted."""


@dataclass(slots=True)
class Batch:
    """What is written in one transaction."""

    jobs: dict[str, JobRecord] = field(default_factory=dict)
    patches: dict[str, dict[str, Any]] = field(default_factory=dict)
    items: dict[tuple[str, int], ItemRecord] = field(default_factory=dict)
    attempts: dict[tuple[str, int, int], AttemptRecord] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.jobs) + len(self.patches) + len(self.items) + len(self.attempts)

    def records(self) -> Iterable[Record]:
        """All of them, in an order in which they can be put again."""
        yield from self.jobs.values()
        yield from (JobPatch(job_id, fields) for job_id, fields in self.patches.items())
        yield from self.items.values()
        yield from self.attempts.values()


class Pending:
    """Coalesces records by what they are about.

    ``dropped`` counts records that found no room or could not be written: while a database is out of reach for long, older
    attempts give way first, then items, then jobs.
    """

    def __init__(self) -> None:
        self._waiting = Batch()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def records(self) -> tuple[Record, ...]:
        """Everything that waits."""
        return tuple(self._waiting.records())

    def add(self, records: Iterable[Record]) -> None:
        """Takes newer records."""
        waiting = self._waiting
        for record in records:
            if isinstance(record, ItemRecord):
                waiting.items[record.job_id, record.index] = record
            elif isinstance(record, AttemptRecord):
                waiting.attempts[record.job_id, record.index, record.number] = record
            elif len(_job_id(record)) > MAX_ID_LENGTH:
                self.dropped += 1
            elif isinstance(record, JobRecord):
                waiting.patches.pop(record.id, None)
                waiting.jobs[record.id] = record
            else:
                self._patch(record)
        self._make_room()

    def take(self, most: int) -> Batch:
        """Removes what is to be written next: jobs before what hangs on them, about ``most`` records in all."""
        waiting, batch = self._waiting, Batch()
        _move(waiting.jobs, batch.jobs, JOBS_AT_ONCE)
        if not waiting.jobs:  # nothing is written before its job
            _move(waiting.patches, batch.patches, most)
            _move(waiting.items, batch.items, most - len(batch))
            _move(waiting.attempts, batch.attempts, most - len(batch))
        return batch

    def put_back(self, batch: Batch) -> None:
        """Takes back what could not be written; what came meanwhile is newer and stays."""
        newer = self._waiting
        self._waiting = batch
        self.add(newer.records())

    def forget(self, job_id: str) -> None:
        """Drops everything about a job."""
        waiting = self._waiting
        waiting.jobs.pop(job_id, None)
        waiting.patches.pop(job_id, None)
        waiting.items = {key: item for key, item in waiting.items.items() if key[0] != job_id}
        waiting.attempts = {key: attempt for key, attempt in waiting.attempts.items() if key[0] != job_id}

    def clear(self) -> None:
        """Drops everything."""
        self.dropped += len(self._waiting)
        self._waiting = Batch()

    def _patch(self, patch: JobPatch) -> None:
        waiting = self._waiting
        job = waiting.jobs.get(patch.job_id)
        if job is not None:
            waiting.jobs[patch.job_id] = replace(job, **patch.fields)
        else:
            waiting.patches.setdefault(patch.job_id, {}).update(patch.fields)

    def _make_room(self) -> None:
        waiting = self._waiting
        self.dropped += _shorten(waiting.attempts, MAX_ROWS) + _shorten(waiting.items, MAX_ROWS)
        self.dropped += _shorten(waiting.jobs, MAX_JOBS) + _shorten(waiting.patches, MAX_ROWS)


class Inbox:
    """Where records are left for whoever sorts them. Leaving some costs next to nothing, however many they are.

    Only when nobody takes them away for long are they sorted in here, so that an inbox does not grow without end either.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._left: list[tuple[Record, ...]] = []
        self._bound = INBOX_ROWS
        self._dropped = 0

    def leave(self, records: tuple[Record, ...]) -> None:
        """Takes newer records."""
        self._left.append(records)
        self.rows += len(records)
        if self.rows > self._bound and len(self._left) > 1:
            pending = self._sorted()
            self._left, self.rows = [pending.records()], len(pending)
            self._bound = max(INBOX_ROWS, 2 * self.rows)
            self._dropped += pending.dropped

    def empty_into(self, pending: Pending) -> None:
        """Moves everything."""
        for records in self._left:
            pending.add(records)
        pending.dropped += self._dropped

    def _sorted(self) -> Pending:
        pending = Pending()
        for records in self._left:
            pending.add(records)
        return pending


def _job_id(record: JobRecord | JobPatch) -> str:
    return record.id if isinstance(record, JobRecord) else record.job_id


def _move(source: dict[Any, Any], target: dict[Any, Any], most: int) -> None:
    """Moves the first ``most`` entries."""
    if most >= len(source):
        target.update(source)
        source.clear()
        return
    for key in [key for key, _ in zip(source, range(most), strict=False)]:
        target[key] = source.pop(key)


def _shorten(rows: dict[Any, Any], most: int) -> int:
    """Drops the oldest entries beyond ``most``; returns how many."""
    excess = len(rows) - most
    if excess > 0:
        for key in [key for key, _ in zip(rows, range(excess), strict=False)]:
            del rows[key]
    return max(0, excess)
