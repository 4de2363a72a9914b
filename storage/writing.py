"""Records into rows: one statement for many, new ones inserted, known ones replaced."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Table, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from ..jobs.states import OPEN_ATTEMPT, AttemptState, ItemState
from .database import dump_json
from .models import (
    ATTEMPTS,
    BODIES,
    HOMES,
    ITEMS,
    JOBS,
    PARTIES,
    AttemptRow,
    BodyRow,
    ItemRow,
    JobParticipantRow,
    JobRow,
)
from .pending import Batch
from .records import INTERRUPTED, OPEN_STATES, AttemptRecord, ItemRecord, JobRecord

MAX_MISSING = 1_000
"""Missing items of a job whose reasons are kept with the job. The items' own records tell the rest."""

MAX_ERROR_CHARS = 16_384
"""Of a traceback or message; beginning and end are kept."""

KEYS_AT_ONCE = 500

_BODY_FIELDS = ("prompt", "extra_data", "plan")
_OPEN_ITEMS = [state.value for state in ItemState if state.is_open]
_OPEN_ATTEMPTS = [state.value for state in OPEN_ATTEMPT]


def write(connection: Connection, home: str, batch: Batch) -> None:
    """Writes a batch. Items, attempts and patches of jobs that the database does not know are left out."""
    for job in batch.jobs.values():
        _write_job(connection, home, job)
    wanted = {*batch.patches, *(key[0] for key in batch.items), *(key[0] for key in batch.attempts)}
    keys = job_keys(connection, home, wanted)
    for job_id, fields in batch.patches.items():
        if job_id in keys:
            _patch_job(connection, keys[job_id], fields)
    items = [_item_row(keys[item.job_id], item) for item in batch.items.values() if item.job_id in keys]
    attempts = [_attempt_row(keys[one.job_id], one) for one in batch.attempts.values() if one.job_id in keys]
    _upsert(connection, ITEMS, items)
    _upsert(connection, ATTEMPTS, attempts)


def job_keys(connection: Connection, home: str, job_ids: Iterable[str]) -> dict[str, int]:
    """The numbers of jobs, of those that there are."""
    found: dict[str, int] = {}
    for some in _chunks(job_ids, KEYS_AT_ONCE):
        query = select(JobRow.id, JobRow.key).where(JobRow.home == home, JobRow.id.in_(some))
        found.update((str(job_id), int(key)) for job_id, key in connection.execute(query))
    return found


def see_home(connection: Connection, home: str, now_s: float) -> None:
    """Notes that this home is in use."""
    _upsert(connection, HOMES, [{"home": home, "seen_s": now_s}])


def interrupt_open_jobs(connection: Connection, home: str, now_s: float) -> int:
    """Marks the jobs that a master that is gone has left open; returns how many. Nobody holds their items any more."""
    keys = select(JobRow.key).where(JobRow.home == home, JobRow.state.in_(OPEN_STATES)).scalar_subquery()
    connection.execute(
        update(ATTEMPTS)
        .where(AttemptRow.job_key.in_(keys), AttemptRow.state.in_(_OPEN_ATTEMPTS))
        .values(state=AttemptState.LOST.value, ended_s=now_s)
    )
    connection.execute(
        update(ITEMS)
        .where(ItemRow.job_key.in_(keys), ItemRow.state.in_(_OPEN_ITEMS))
        .values(state=ItemState.WAITING.value, participant_id=None, attempt=None)
    )
    marked = connection.execute(
        update(JOBS).where(JobRow.home == home, JobRow.state.in_(OPEN_STATES)).values(state=INTERRUPTED, ended_s=now_s)
    )
    return int(marked.rowcount)


def forget_jobs(connection: Connection, keys: Collection[int]) -> None:
    """Deletes jobs with everything that hangs on them."""
    for some in _chunks(keys, KEYS_AT_ONCE):
        connection.execute(delete(JOBS).where(JobRow.key.in_(some)))


def _write_job(connection: Connection, home: str, job: JobRecord) -> None:
    body = {name: getattr(job, name) for name in _BODY_FIELDS}
    row = {
        "home": home,
        "id": job.id,
        "state": job.state,
        "created_s": job.created_s,
        "accepted_s": job.accepted_s,
        "ended_s": job.ended_s,
        "client_id": _text(job.client_id),
        "wishes": dict(job.wishes),
        "lives": job.lives,
        "items_total": job.items_total,
        "items_done": job.items_done,
        "body_bytes": _json_bytes(body),
        **_columns_of({name: getattr(job, name) for name in ("participants", "left_out", "failure", "missing")}),
    }
    _upsert(connection, JOBS, [row], unique=("home", "id"))
    key = job_keys(connection, home, [job.id])[job.id]
    _upsert(connection, BODIES, [{"job_key": key, **{name: dict(value) for name, value in body.items()}}])
    _write_participants(connection, key, job.participants)


def _patch_job(connection: Connection, key: int, fields: Mapping[str, Any]) -> None:
    body = {name: dict(fields[name]) for name in _BODY_FIELDS if name in fields}
    row = _columns_of({name: value for name, value in fields.items() if name not in body})
    if body:
        before = connection.execute(select(BODIES).where(BodyRow.job_key == key)).mappings().one()
        after = {name: body.get(name, before[name]) for name in _BODY_FIELDS}
        connection.execute(update(BODIES).where(BodyRow.job_key == key).values(**body))
        row["body_bytes"] = _json_bytes(after)
    if row:
        connection.execute(update(JOBS).where(JobRow.key == key).values(**row))
    if "participants" in fields:
        _write_participants(connection, key, fields["participants"])


def _write_participants(connection: Connection, key: int, participants: Mapping[str, str]) -> None:
    connection.execute(delete(PARTIES).where(JobParticipantRow.job_key == key))
    if participants:
        connection.execute(insert(PARTIES), [{"job_key": key, "participant_id": one} for one in participants])


def _columns_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a job as columns; what people and other machines have a hand in is bounded."""
    row = dict(fields)
    if "failure" in row:
        row["failure"] = _bounded(row["failure"])
        row["failure_message"] = _text(str((row["failure"] or {}).get("message", "")))
    if "missing" in row:
        row["missing"] = dict(islice(row["missing"].items(), MAX_MISSING))
    if "client_id" in row:
        row["client_id"] = _text(row["client_id"])
    for name in ("participants", "left_out", "wishes"):
        if name in row:
            row[name] = dict(row[name])
    return row


def _item_row(key: int, item: ItemRecord) -> dict[str, Any]:
    return {
        "job_key": key,
        "index": item.index,
        "node_id": _text(item.node_id),
        "k": item.k,
        "state": item.state,
        "planned_for": _text(item.planned_for),
        "participant_id": _text(item.participant_id),
        "attempt": item.attempt,
        "attempts": item.attempts,
        "seconds": item.seconds,
        "size_bytes": item.size_bytes,
        "error": _bounded(item.error),
        "ended_s": item.ended_s,
    }


def _attempt_row(key: int, attempt: AttemptRecord) -> dict[str, Any]:
    return {
        "job_key": key,
        "index": attempt.index,
        "number": attempt.number,
        "participant_id": _text(attempt.participant_id),
        "state": attempt.state,
        "leased_s": attempt.leased_s,
        "started_s": attempt.started_s,
        "ended_s": attempt.ended_s,
        "error": _bounded(attempt.error),
    }


def _upsert(connection: Connection, table: Table, rows: list[dict[str, Any]], unique: Collection[str] = ()) -> None:
    """Inserts rows, or replaces those that have the same ``unique`` columns (the primary key if none are named)."""
    if not rows:
        return
    make: Callable[..., Any] = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    same = [table.c[name] for name in unique] or list(table.primary_key.columns)
    statement = make(table)
    replaced = {name: statement.excluded[name] for name in rows[0] if name not in {column.name for column in same}}
    connection.execute(statement.on_conflict_do_update(index_elements=same, set_=replaced), rows)


def _chunks(values: Iterable[Any], size: int) -> Iterable[list[Any]]:
    rest = iter(values)
    while some := list(islice(rest, size)):
        yield some


def _json_bytes(value: Any) -> int:
    return len(dump_json(value))


def _bounded(error: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {name: _short(value) if isinstance(value, str) else value for name, value in error.items()}


def _short(text: str) -> str:
    if len(text) <= MAX_ERROR_CHARS:
        return text
    half = MAX_ERROR_CHARS // 2
    return f"{text[:half]}\n…\n{text[-half:]}"


def _text(value: str | None) -> str | None:
    """Text that every database takes: no NUL, no half of a surrogate pair."""
    if value is None:
        return None
    return value.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
