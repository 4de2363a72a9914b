"""What the journal remembers, as plain records. Times are seconds since 1970; mappings hold JSON values only.

A record belongs to the journal once it was put: what put it must not change its mappings any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from ..jobs.states import JobState
from ..utils.errors import InvalidInput

OPEN_STATES = tuple(state.value for state in JobState if state.is_open)
"""States of a job of which something can still become. They are never trimmed."""

INTERRUPTED = JobState.INTERRUPTED.value
"""State of a job whose master stopped before it ended. Only the journal gives it."""

MAX_JOBS_PAGE = 1_000
MAX_ITEMS_PAGE = 100_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job. ``home`` is filled in by the journal; ``lives`` counts from 1 and grows with each resume.

    Lists of jobs leave ``prompt``, ``extra_data`` and ``plan`` empty: they may be megabytes. ``missing`` maps the index of
    an item, as text, to the reason; at most `writing.MAX_MISSING` of them are kept.
    """

    id: str
    home: str
    state: str
    created_s: float
    accepted_s: float | None = None
    ended_s: float | None = None
    client_id: str | None = None
    prompt: Mapping[str, Any] = field(default_factory=dict)
    extra_data: Mapping[str, Any] = field(default_factory=dict)
    wishes: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    participants: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    failure: Mapping[str, Any] | None = None
    lives: int = 1
    items_total: int = 0
    items_done: int = 0
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """An item. ``participant_id`` and ``attempt`` are those of its leading attempt or its winner; ``attempts`` were made so far."""

    job_id: str
    index: int
    node_id: str
    k: int
    state: str
    planned_for: str
    participant_id: str | None = None
    attempt: int | None = None
    attempts: int = 0
    seconds: float | None = None
    size_bytes: int | None = None
    error: Mapping[str, Any] | None = None
    ended_s: float | None = None


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One lease of an item to one participant."""

    job_id: str
    index: int
    number: int
    participant_id: str
    state: str
    leased_s: float
    started_s: float | None = None
    ended_s: float | None = None
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class JobPatch:
    """New values of some fields of a job that was put before."""

    job_id: str
    fields: Mapping[str, Any]


Record = JobRecord | ItemRecord | AttemptRecord | JobPatch


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs to list, newest first. Empty = any.

    ``state`` is one state or several with commas between; ``participant`` the id of somebody who was to take part;
    ``since_s`` and ``until_s`` bound when the job was created; ``text`` is looked for in its id and failure, in any case.
    """

    state: str = ""
    participant: str = ""
    since_s: float | None = None
    until_s: float | None = None
    text: str = ""
    limit: int = 50
    offset: int = 0

    def __post_init__(self) -> None:
        check_page(self.limit, self.offset, MAX_JOBS_PAGE)

    @property
    def states(self) -> tuple[str, ...]:
        """The states asked for."""
        return tuple(word for part in self.state.split(",") if (word := part.strip()))


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of ``total`` records, from the one at ``offset`` on."""

    records: tuple[T, ...]
    total: int
    limit: int
    offset: int


@dataclass(frozen=True, slots=True)
class JournalStatus:
    """How the journal fares. ``message`` says what is wrong and what to do; ``size_bytes`` is what the database takes up."""

    state: Literal["starting", "ok", "degraded"]
    message: str = ""
    jobs: int = 0
    size_bytes: int = 0


def check_page(limit: int, offset: int, most: int) -> None:
    """Raises InvalidInput unless 1 <= ``limit`` <= ``most`` and ``offset`` >= 0."""
    if not 1 <= limit <= most or offset < 0:
        raise InvalidInput(
            f"A page of {limit} records from {offset} on cannot be had.",
            cure=f"Ask for 1 to {most} records, from 0 or more on.",
        )
