"""Who gets the work: the only place in the project that chooses a participant, for an item or for a whole route."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from ..utils.errors import NobodyCanRun
from .model import Item, Waits


def choose_route(participant_ids: Iterable[str], load: Callable[[str], float]) -> str:
    """The participant expected to finish first: the one with the least ``load``, of equals the first named.

    ``load`` is `Machine.load` plus, where it is known, what else the participant's queue holds. Raises `NobodyCanRun`
    when there is nobody to choose from.
    """
    ids = list(participant_ids)
    if not ids:
        raise NobodyCanRun("There is no participant to choose from.", cure="Enable a worker that is online.")
    return min(ids, key=load)


def choose_holder(item: Item, free: Mapping[str, object], load: Callable[[str], float]) -> str | None:
    """Which of the participants with a free slot gets this waiting item; None when it had better wait.

    Its planned participant if it waits for that one. Else whoever has not failed it before; those who have are asked
    again only when no other is left, not merely when the others are busy.
    """
    if item.waits is Waits.AIMED:
        return item.planned_for if item.planned_for in free else None
    job = item.job
    pool: Collection[str] = _common(job.usable, free)
    if item.failed_by and not _all_have_failed(item):
        pool = [participant_id for participant_id in pool if participant_id not in item.failed_by]
    if not pool:
        return None
    if item.planned_for in pool:
        return item.planned_for
    return choose_route(sorted(pool, key=job.participants.__getitem__), load)


def may_take(item: Item, participant_id: str) -> bool:
    """Whether this participant, usable for the job, may take this floating item; agrees with `choose_holder`."""
    return participant_id not in item.failed_by or _all_have_failed(item)


def _all_have_failed(item: Item) -> bool:
    return item.job.usable <= item.failed_by


def _common(usable: set[str], free: Mapping[str, object]) -> list[str]:
    """Members of both, at the cost of the smaller: on a busy fleet few are free, in a small job few are usable."""
    if len(free) < len(usable):
        return [participant_id for participant_id in free if participant_id in usable]
    return [participant_id for participant_id in usable if participant_id in free]
