"""Read-only snapshots of jobs and participants, for APIs, progress displays and errors. Results are not in them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .model import Attempt, Failure, Item, Job, Participant
from .states import ItemState
from .story import told


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One lease. Times are seconds of the machine's clock; None = not yet."""

    number: int
    participant_id: str
    state: str
    leased_s: float
    started_s: float | None
    ended_s: float | None
    error: Failure | None


@dataclass(frozen=True, slots=True)
class ItemView:
    """One item. ``participant_id`` has it now or delivered it, else None; the times are those of that attempt.

    ``planned_for`` is whom the plan meant it for, ``fraction`` (0..1) and ``label`` tell how far the attempt is,
    ``error`` is what ended the item or, while it is open, what ended its last attempt. Of several attempts at work,
    ``copies`` of them, the one that is furthest is shown. ``group`` is the number of its stage.
    """

    index: int
    group: int
    state: str
    planned_for: str
    pinned: bool
    copies: int
    participant_id: str | None
    attempt: int | None
    attempts: tuple[AttemptView, ...]
    fraction: float
    label: str
    started_s: float | None
    ended_s: float | None
    error: Failure | None


@dataclass(frozen=True, slots=True)
class JobView:
    """One job with its items in planned order. ``left_out`` maps participants to why they may not take part.

    ``missing`` are the indexes of items that have failed for good.
    """

    job_id: str
    state: str
    participants: tuple[str, ...]
    left_out: dict[str, str]
    items: tuple[ItemView, ...]
    unfinished: int
    missing: tuple[int, ...]
    planned_s: float
    accepted_s: float | None
    ended_s: float | None
    failure: Failure | None
    gathered: bool

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ParticipantView:
    """One participant. ``reason`` says why it is offline or rests, ``story`` what was heard of it lately."""

    id: str
    state: str
    reason: str
    resting_until_s: float | None
    failures_in_row: int
    story: tuple[str, ...]


def view_participant(participant: Participant) -> ParticipantView:
    """A snapshot of the participant as it is now."""
    return ParticipantView(
        id=participant.id,
        state=participant.state.value,
        reason=participant.reason,
        resting_until_s=participant.resting_until_s,
        failures_in_row=len(participant.strikes),
        story=told(participant.story),
    )


def view_item(item: Item) -> ItemView:
    """A snapshot of the item as it is now."""
    shown = item.leading or item.winner
    last_error = item.attempts[-1].error if item.attempts and item.state.is_open else None
    return ItemView(
        index=item.index,
        group=item.group.number,
        state=item.state.value,
        planned_for=item.planned_for,
        pinned=item.pinned,
        copies=len(item.live),
        participant_id=shown.participant_id if shown else None,
        attempt=shown.number if shown else None,
        attempts=tuple(_view_attempt(attempt) for attempt in item.attempts),
        fraction=shown.fraction if shown else 0.0,
        label=shown.label if shown else "",
        started_s=shown.started_s if shown else None,
        ended_s=shown.ended_s if shown else None,
        error=item.error or last_error,
    )


def view_job(job: Job) -> JobView:
    """A snapshot of the job and all its items as they are now."""
    return JobView(
        job_id=job.id,
        state=job.state.value,
        participants=tuple(job.participants),
        left_out=dict(job.left_out),
        items=tuple(view_item(item) for item in job.items.values()),
        unfinished=job.unfinished,
        missing=tuple(item.index for item in job.items.values() if item.state is ItemState.FAILED),
        planned_s=job.planned_s,
        accepted_s=job.accepted_s,
        ended_s=job.ended_s,
        failure=job.failure,
        gathered=job.gathered,
    )


def _view_attempt(attempt: Attempt) -> AttemptView:
    return AttemptView(
        number=attempt.number,
        participant_id=attempt.participant_id,
        state=attempt.state.value,
        leased_s=attempt.leased_s,
        started_s=attempt.started_s,
        ended_s=attempt.ended_s,
        error=attempt.error,
    )
