"""A job as it was planned, and items that come later, made into records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..utils.errors import InvalidInput
from .events import ItemSpec, JobPlanned
from .model import Group, Item, Job
from .pace import SteadyPace
from .states import ItemState


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
    for number in sorted(event.late_groups):
        job.groups[number] = Group(job, number, number in event.partial_groups, late=True, pace=SteadyPace())
    for item in make_items(job, event.items, partial_groups=event.partial_groups):
        if item.index in job.items:
            raise InvalidInput(f"Item {item.index} is planned twice.", details=details)
        enter(item)
    return job


def make_items(job: Job, specs: Iterable[ItemSpec], *, partial_groups: frozenset[int] | None = None) -> Iterator[Item]:
    """The items, one by one and not entered yet. Raises `InvalidInput` for one that makes no sense.

    New groups come with the plan, which says which of them may be partial; afterwards all items are of late ones.
    """
    details = {"job_id": job.id}
    for spec in specs:
        if spec.attempts_before < 0:
            raise InvalidInput(f"Item {spec.index} has a negative number of attempts.", details=details)
        group = job.groups.get(spec.group)
        if group is None and partial_groups is not None:
            group = job.groups[spec.group] = Group(job, spec.group, spec.group in partial_groups)
        if group is None or (partial_groups is None and not group.late):
            raise InvalidInput(f"Item {spec.index} is added to group {spec.group}, which is not late.", details=details)
        yield Item(
            group=group,
            index=spec.index,
            planned_for=spec.planned_for,
            pinned=spec.pinned,
            pulled=spec.pulled and not spec.pinned,
            attempts_before=spec.attempts_before,
            last_number=spec.attempts_before,
            state=ItemState.HELD if spec.held else ItemState.WAITING,
        )


def enter(item: Item) -> None:
    """The job has this item from now on."""
    item.job.items[item.index] = item
    item.job.unfinished += 1
    item.group.items += 1
    item.group.unfinished += 1
