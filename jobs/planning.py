"""A job as it was planned, made into a record."""

from __future__ import annotations

from ..utils.errors import InvalidInput
from .events import JobPlanned
from .model import Group, Item, Job


def make_job(event: JobPlanned, now_s: float) -> Job:
    """The job with its groups and items, in no index yet. Raises `InvalidInput` for a plan that makes no sense."""
    details = {"job_id": event.job_id}
    if event.max_attempts < 1:
        raise InvalidInput("A job needs at least one attempt per item.", details=details)
    if not event.stall_factor > 1.0:
        raise InvalidInput("A stall factor of 1 or less would call every item stuck.", details=details)
    job = Job(
        id=event.job_id,
        participants={participant_id: position for position, participant_id in enumerate(event.participants)},
        left_out=dict(event.left_out),
        max_attempts=event.max_attempts,
        planned_s=now_s,
        stall_factor=event.stall_factor,
        fallback_id=event.fallback,
    )
    for spec in event.items:
        if spec.index in job.items:
            raise InvalidInput(f"Item {spec.index} is planned twice.", details=details)
        if spec.attempts_before < 0:
            raise InvalidInput(f"Item {spec.index} has a negative number of attempts.", details=details)
        group = job.groups.get(spec.group)
        if group is None:
            group = job.groups[spec.group] = Group(job, spec.group, spec.group in event.partial_groups)
        job.items[spec.index] = Item(
            group=group,
            index=spec.index,
            planned_for=spec.planned_for,
            pinned=spec.pinned,
            pulled=spec.pulled and not spec.pinned,
            attempts_before=spec.attempts_before,
            last_number=spec.attempts_before,
        )
        group.items += 1
        group.unfinished += 1
    job.unfinished = len(job.items)
    return job
