"""Which jobs are to be forgotten: the oldest that ended, by age and by size."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, Text, cast, delete, func, select

from .models import HOMES, AttemptRow, HomeRow, ItemRow, JobRow
from .records import OPEN_STATES

JOB_BYTES = 1_500
ITEM_BYTES = 180
ATTEMPT_BYTES = 130
"""What a row takes up with its indexes, beside prompts and errors, rounded up; a test compares with SQLite's files."""

GONE_S = 90 * 24 * 3600.0
"""A home that was not seen for this long, and for the age at which jobs are forgotten, is given up with all its jobs."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A job that may be forgotten, and about how much room that gives."""

    key: int
    id: str
    size_bytes: int


def to_forget(
    connection: Connection, home: str, now_s: float, max_age_s: float, max_bytes: int, keep: Collection[str]
) -> list[Stored]:
    """Jobs of a home to forget, oldest first: those that ended too long ago, and more until the rest fits.

    Never one that is open, and never one of ``keep``. Another home's jobs do not count.
    """
    query = select(
        JobRow.key, JobRow.id, JobRow.state, JobRow.body_bytes, func.coalesce(JobRow.ended_s, JobRow.created_s)
    ).where(JobRow.home == home)
    rows = sorted(connection.execute(query).all(), key=lambda row: (row[4], row[0]))
    extra = _row_bytes(connection, home)
    sizes = {row[0]: JOB_BYTES + row[3] + extra.get(row[0], 0) for row in rows}
    excess = sum(sizes.values()) - max_bytes
    kept = frozenset(keep)
    found = []
    for key, job_id, state, _, ended_s in rows:
        if state in OPEN_STATES or job_id in kept:
            continue
        if ended_s < now_s - max_age_s or excess > 0:
            found.append(Stored(key, job_id, sizes[key]))
            excess -= sizes[key]
    return found


def gone_homes(connection: Connection, home: str, now_s: float, max_age_s: float) -> list[str]:
    """Other homes that nobody has seen for very long."""
    bound_s = now_s - max(GONE_S, max_age_s)
    query = select(HomeRow.home).where(HomeRow.seen_s < bound_s, HomeRow.home != home)
    return list(connection.execute(query).scalars())


def keys_of_home(connection: Connection, home: str) -> list[int]:
    """The numbers of all jobs of a home."""
    return list(connection.execute(select(JobRow.key).where(JobRow.home == home)).scalars())


def give_up_home(connection: Connection, home: str) -> None:
    """Deletes the note of a home; its jobs must be gone already."""
    connection.execute(delete(HOMES).where(HomeRow.home == home))


def _row_bytes(connection: Connection, home: str) -> dict[int, int]:
    """By job: about what its items and attempts take up."""
    found: dict[int, int] = {}
    for table, each in ((ItemRow, ITEM_BYTES), (AttemptRow, ATTEMPT_BYTES)):
        errors = func.coalesce(func.sum(func.length(cast(table.error, Text))), 0)
        query = (
            select(table.job_key, func.count(), errors)
            .join(JobRow, JobRow.key == table.job_key)
            .where(JobRow.home == home)
            .group_by(table.job_key)
        )
        for key, rows, error_chars in connection.execute(query):
            found[key] = found.get(key, 0) + int(rows) * each + int(error_chars)
    return found
