"""Rows into records. Lists leave the large parts of jobs where they are."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, func, or_, select

from .models import ATTEMPTS, BODIES, ITEMS, JOBS, AttemptRow, BodyRow, ItemRow, JobParticipantRow, JobRow
from .records import AttemptRecord, ItemRecord, JobFilter, JobRecord, Page
from .writing import KEYS_AT_ONCE, job_keys

_JOB_FIELDS = (
    "id", "home", "state", "created_s", "accepted_s", "ended_s", "client_id", "wishes", "participants", "left_out",
    "failure", "lives", "items_total", "items_done", "missing",
)  # fmt: skip


def jobs(connection: Connection, home: str, wanted: JobFilter) -> Page[JobRecord]:
    """The jobs of a home that fit, newest first."""
    conditions = _conditions(home, wanted)
    total = connection.execute(select(func.count()).select_from(JOBS).where(*conditions)).scalar_one()
    query = (
        select(JOBS)
        .where(*conditions)
        .order_by(JobRow.created_s.desc(), JobRow.key.desc())
        .limit(wanted.limit)
        .offset(wanted.offset)
    )
    rows = connection.execute(query).mappings()
    return Page(tuple(_job_record(row) for row in rows), int(total), wanted.limit, wanted.offset)


def job(connection: Connection, home: str, job_id: str) -> JobRecord | None:
    """One job with everything."""
    query = (
        select(JOBS, BodyRow.prompt, BodyRow.extra_data, BodyRow.plan)
        .join(BODIES, BodyRow.job_key == JobRow.key)
        .where(JobRow.home == home, JobRow.id == job_id)
    )
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        return None
    return _job_record(row, prompt=row["prompt"], extra_data=row["extra_data"], plan=row["plan"])


def items(connection: Connection, home: str, job_id: str, limit: int, offset: int) -> Page[ItemRecord]:
    """Items of a job by index; none when there is no such job."""
    key = job_keys(connection, home, [job_id]).get(job_id)
    if key is None:
        return Page((), 0, limit, offset)
    total = connection.execute(select(func.count()).select_from(ITEMS).where(ItemRow.job_key == key)).scalar_one()
    query = select(ITEMS).where(ItemRow.job_key == key).order_by(ItemRow.index).limit(limit).offset(offset)
    rows = connection.execute(query).mappings()
    return Page(tuple(ItemRecord(job_id=job_id, **_without_key(row)) for row in rows), int(total), limit, offset)


def attempts(
    connection: Connection, home: str, job_id: str, indexes: Collection[int] | None = None
) -> list[AttemptRecord]:
    """Attempts of a job by index and number, of all items or of some."""
    key = job_keys(connection, home, [job_id]).get(job_id)
    if key is None:
        return []
    query = select(ATTEMPTS).where(AttemptRow.job_key == key).order_by(AttemptRow.index, AttemptRow.number)
    if indexes is None:
        queries = [query]
    else:
        wanted = sorted(set(indexes))
        starts = range(0, len(wanted), KEYS_AT_ONCE)
        queries = [query.where(AttemptRow.index.in_(wanted[start : start + KEYS_AT_ONCE])) for start in starts]
    rows = (row for one in queries for row in connection.execute(one).mappings())
    return [AttemptRecord(job_id=job_id, **_without_key(row)) for row in rows]


def count_jobs(connection: Connection, home: str) -> int:
    """How many jobs of a home there are."""
    return int(connection.execute(select(func.count()).select_from(JOBS).where(JobRow.home == home)).scalar_one())


def _conditions(home: str, wanted: JobFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [JobRow.home == home]
    if wanted.states:
        found.append(JobRow.state.in_(wanted.states))
    if wanted.since_s is not None:
        found.append(JobRow.created_s >= wanted.since_s)
    if wanted.until_s is not None:
        found.append(JobRow.created_s <= wanted.until_s)
    if wanted.participant:
        theirs = select(JobParticipantRow.job_key).where(JobParticipantRow.participant_id == wanted.participant)
        found.append(JobRow.key.in_(theirs))
    if wanted.text:
        where = (JobRow.id, JobRow.failure_message)
        found.append(or_(*(column.icontains(wanted.text, autoescape=True) for column in where)))
    return found


def _job_record(row: RowMapping, **bodies: Any) -> JobRecord:
    return JobRecord(**{name: row[name] for name in _JOB_FIELDS}, **bodies)


def _without_key(row: RowMapping) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "job_key"}
