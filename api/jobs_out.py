"""Jobs, items and attempts as the API shows them: as they stand now, or as the journal remembers them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..jobs.model import Failure, JobState
from ..jobs.view import ItemView, JobView
from ..runtime.jobrun import JobRun
from ..storage.records import AttemptRecord, ItemRecord, JobRecord
from . import wire


def live_job(run: JobRun, view: JobView, name_of: Callable[[str], str]) -> wire.JobOut:
    """A job that is held in memory."""
    return wire.JobOut(
        id=run.job_id,
        state=JobState(view.state),
        created_s=run.created_s,
        accepted_s=run.accepted_s,
        ended_s=run.ended_s,
        items_total=len(view.items),
        items_done=run.done,
        left_out=view.left_out,
        participants=[wire.ParticipantOut(id=one, name=name_of(one)) for one in view.participants],
        error=failure_out(view.failure),
        missing={str(index): reason for index, reason in run.missing.items()},
        lives=run.lives,
    )


def live_stages(run: JobRun) -> list[wire.StageOut]:
    """The distributed nodes of a job that is held in memory."""
    return [
        wire.StageOut(node_id=stage.node_id, class_type=stage.class_type, way=stage.way, count=len(stage.items))
        for stage in run.plan.stages
    ]


def live_item(run: JobRun, view: ItemView) -> wire.ItemOut:
    """An item of a job that is held in memory."""
    plan = run.item(view.index)
    return wire.ItemOut(
        index=view.index,
        node_id=plan.node_id,
        k=plan.k,
        state=view.state,
        participant=view.participant_id,
        planned_for=view.planned_for,
        attempts=[
            wire.AttemptOut(
                number=attempt.number,
                participant=attempt.participant_id,
                state=attempt.state,
                leased_s=run.wall_s(attempt.leased_s),
                started_s=None if attempt.started_s is None else run.wall_s(attempt.started_s),
                ended_s=None if attempt.ended_s is None else run.wall_s(attempt.ended_s),
                error=failure_out(attempt.error),
            )
            for attempt in view.attempts
        ],
        fraction=view.fraction,
        label=view.label,
        copies=view.copies,
        seconds=run.seconds.get(view.index),
        size_bytes=run.sizes.get(view.index),
        values=dict(plan.values),
        error=failure_out(view.error),
    )


def past_job(record: JobRecord) -> wire.JobOut:
    """A job of the journal."""
    return wire.JobOut(
        id=record.id,
        state=JobState(record.state),
        created_s=record.created_s,
        accepted_s=record.accepted_s,
        ended_s=record.ended_s,
        items_total=record.items_total,
        items_done=record.items_done,
        left_out=dict(record.left_out),
        participants=[
            wire.ParticipantOut(id=one, name=name)
            for one, name in record.participants.items()
            if one not in record.left_out
        ],
        error=_failure_of(record.failure),
        missing=dict(record.missing),
        lives=record.lives,
    )


def past_stages(plan: Mapping[str, Any]) -> list[wire.StageOut]:
    """The distributed nodes of a job of the journal, from its saved plan."""
    return [
        wire.StageOut(
            node_id=stage["node_id"],
            class_type=stage["class_type"],
            way=stage["way"],
            count=len(stage["planned_for"]),
        )
        for stage in plan.get("stages", ())
    ]


def past_values(plan: Mapping[str, Any], wanted: Iterable[int]) -> dict[int, dict[str, Any]]:
    """By index of an item, what each varying node gave in it; from a job's saved plan."""
    values: dict[int, dict[str, Any]] = {index: {} for index in wanted}
    first = 0
    for stage in plan.get("stages", ()):
        count = len(stage["planned_for"])
        for index in values:
            if first <= index < first + count:
                values[index] = {node_id: column[index - first] for node_id, column in stage["values"].items()}
        first += count
    return values


def past_item(item: ItemRecord, attempts: Iterable[AttemptRecord], values: Mapping[str, Any]) -> wire.ItemOut:
    """An item of the journal."""
    return wire.ItemOut(
        index=item.index,
        node_id=item.node_id,
        k=item.k,
        state=item.state,
        participant=item.participant_id,
        planned_for=item.planned_for,
        attempts=past_attempts(attempts),
        fraction=1.0 if item.state == "done" else 0.0,
        label="",
        copies=0,
        seconds=item.seconds,
        size_bytes=item.size_bytes,
        values=dict(values),
        error=_failure_of(item.error),
    )


def past_attempts(attempts: Iterable[AttemptRecord]) -> list[wire.AttemptOut]:
    """Attempts of the journal."""
    return [
        wire.AttemptOut(
            number=attempt.number,
            participant=attempt.participant_id,
            state=attempt.state,
            leased_s=attempt.leased_s,
            started_s=attempt.started_s,
            ended_s=attempt.ended_s,
            error=_failure_of(attempt.error),
        )
        for attempt in attempts
    ]


def failure_out(failure: Failure | None) -> wire.FailureOut | None:
    """Why something ended badly."""
    return None if failure is None else _failure_of(failure.to_json())


def _failure_of(failure: Mapping[str, Any] | None) -> wire.FailureOut | None:
    if failure is None:
        return None
    return wire.FailureOut(
        kind=str(failure.get("kind", "")),
        message=str(failure.get("message", "")),
        traceback=str(failure.get("traceback", "")),
        participant=failure.get("participant_id") or None,
        attempt=int(failure.get("attempt") or 0),
        node_id=str(failure.get("node_id", "")),
        node_type=str(failure.get("node_type", "")),
    )
