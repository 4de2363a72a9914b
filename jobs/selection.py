"""Who gets the work: the only place in the project that chooses a participant, for an item or for a whole route.

The one rule: whoever is expected to finish first. All else here says who may be chosen, and when it is better that nobody
is: a participant leaves a waiting item to others that would have done all that waits before it would have done this one.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable

from ..utils.errors import NobodyCanRun
from .forecast import Forecast
from .ledger import Ledger
from .model import Attempt, Group, Item, Participant

WORTH_WAITING = 0.05
"""Share of its own time by which others must be earlier for a participant to leave an item to them."""

LARGE_FLEET = 32
"""From so many participants with a known pace on, when all that waits will be done is worked out only now and then."""

DRAIN_FRESH = 0.1
"""How long that holds, as a share of what an item takes."""


class Ranking:
    """Candidates by when they are expected to finish; of equals the one named first. Finishes may only grow."""

    def __init__(self, candidates: Iterable[str], finish: Callable[[str], float]) -> None:
        self._finish = finish
        self._heap = [(finish(candidate), place, candidate) for place, candidate in enumerate(candidates)]
        heapq.heapify(self._heap)

    def soonest(self) -> str | None:
        """Who is expected to finish first, as it is now; None when nobody is left."""
        while self._heap:
            finish, place, candidate = self._heap[0]
            now = self._finish(candidate)
            if now <= finish:
                return candidate
            heapq.heapreplace(self._heap, (now, place, candidate))
        return None

    def drop_soonest(self) -> None:
        """The one that was named last is no candidate any more."""
        heapq.heappop(self._heap)


def choose_route(participant_ids: Iterable[str], load: Callable[[str], float]) -> str:
    """The participant expected to finish first: the one with the least ``load``, of equals the first named.

    ``load`` is `Machine.load` plus, where it is known, what else the participant's queue holds. Raises `NobodyCanRun`
    when there is nobody to choose from.
    """
    chosen = Ranking(participant_ids, load).soonest()
    if chosen is None:
        raise NobodyCanRun("There is no participant to choose from.", cure="Enable a worker that is online.")
    return chosen


def may_ask(group: Group, participant: Participant) -> bool:
    """Whether this participant is served like anybody when it asks for items of the group."""
    job = group.job
    return participant.takes_work and participant.id in job.participants and participant.id not in job.left_out


def has_slot(books: Ledger, group: Group, participant_id: str) -> bool:
    """Whether this participant may take an item of the group by a slot, and not only because it asks."""
    return participant_id in books.free and participant_id in group.job.usable


def open_to_asks(group: Group, failed_by: frozenset[str]) -> bool:
    """Whether waiting items of the group that these have failed may go to those that ask.

    One that has failed is to blame perhaps, and would then end the prompt of the master, which is who asks: so only when
    nobody else is left, and not at all where it may be missing. In a late group its failure ends nothing.
    """
    return not failed_by or group.late or not (group.partial or group.job.usable)


def may_take(item: Item, participant_id: str) -> bool:
    """Whether this participant, one of those that the job has, may take this waiting item.

    One that has failed it before is asked again only when no other is left, not merely when the others are busy.
    """
    failed_by = item.failed_by
    if participant_id not in failed_by:
        return True
    job = item.job
    if not job.usable <= failed_by:
        return False
    askers = item.group.askers if open_to_asks(item.group, failed_by) else {}
    return all(other in failed_by or other not in job.participants for other in askers)


def may_help(books: Ledger, forecast: Forecast, attempt: Attempt, participant_id: str) -> bool:
    """Whether this participant may take over or copy an attempt of another: once, and not an item that it has failed.

    If the attempt is stuck, and so is everybody who has not tried the item yet, it is for anybody who is not at it.
    """
    item = attempt.item
    tried = {one.participant_id for one in item.attempts if not one.is_old} | item.failed_by
    if participant_id not in tried:
        return True
    is_stuck = forecast.is_stuck(attempt, tries=len(item.attempts))
    if not is_stuck or any(one.participant_id == participant_id for one in item.live):
        return False
    others = (books.participants[one] for one in item.job.usable if one not in tried)
    return all(any(forecast.is_stuck(held) for held in other.held) for other in others)


def takers(books: Ledger, group: Group, failed_by: frozenset[str]) -> list[str]:
    """Who would take waiting items that these have failed, in the order in which the job names its participants."""
    job = group.job
    head = group.floating[failed_by].first()
    if head is None:
        return []
    if len(books.free) < len(job.usable):  # at the cost of the smaller: in a busy fleet few are free
        found = {participant_id for participant_id in books.free if participant_id in job.usable}
    else:
        found = {participant_id for participant_id in job.usable if participant_id in books.free}
    if open_to_asks(group, failed_by):
        found.update(asker for asker in group.asks if may_ask(group, books.participants[asker]))
    return sorted((one for one in found if may_take(head, one)), key=job.participants.__getitem__)


def leaves_to_others(books: Ledger, forecast: Forecast, participant: Participant, item: Item) -> bool:
    """Whether the others will have done all that waits in the item's group before this participant would have done it.

    Only those count whose pace is known, and one whose own pace is not known takes what it gets. Nobody waits for others
    for longer than it would have worked, without any of them taking anything. While many items wait the answer costs one
    multiplication.
    """
    group = item.group
    pace, now_s = group.pace, books.now_s
    own_s = pace.own(participant.id)
    if own_s is None or (group.left_s is not None and now_s - group.left_s >= own_s):
        return False
    horizon_s = forecast.free_s(participant) + (1.0 - WORTH_WAITING) * own_s
    if group.waiting > (horizon_s - now_s) * pace.rate:
        return False
    if len(pace) < LARGE_FLEET or item.failed_by:
        # By then the participant itself will have done none, so that it does not matter that it is among them.
        return _done_by(horizon_s, _supply(books, forecast, item)) >= group.waiting
    if group.drained is None or group.drained[0] <= now_s:
        fresh_until_s = now_s + DRAIN_FRESH * (pace.mean or 0.0)
        group.drained = (fresh_until_s, _drained_s(now_s, group.waiting, _supply(books, forecast, item)))
    return horizon_s >= group.drained[1]


def _supply(books: Ledger, forecast: Forecast, item: Item) -> list[tuple[float, float]]:
    """When each that may take the item will be free for more, and how long it takes for one."""
    group = item.group
    usable, askers = group.job.usable, group.askers if open_to_asks(group, item.failed_by) else {}
    supply = []
    for one, mean_s in group.pace.means():
        other = books.participants[one]
        takes_part = (one in usable and other.slots > 0) or (one in askers and may_ask(group, other))
        if takes_part and (not item.failed_by or may_take(item, one)):
            supply.append((forecast.free_s(other), mean_s))
    return supply


def _done_by(at_s: float, supply: list[tuple[float, float]]) -> int:
    """How many more items will be done before this time."""
    return sum(math.ceil((at_s - free_s) / mean_s) - 1 for free_s, mean_s in supply if at_s - free_s > mean_s)


def _drained_s(now_s: float, waiting: int, supply: list[tuple[float, float]]) -> float:
    """When so many items will be done."""
    if not supply:
        return math.inf
    late_s = min(free_s + (waiting + 1) * mean_s for free_s, mean_s in supply)
    early_s = now_s
    least_s = min(mean_s for _, mean_s in supply) * WORTH_WAITING
    while late_s - early_s > least_s:
        middle_s = (early_s + late_s) / 2.0
        if _done_by(middle_s, supply) >= waiting:
            late_s = middle_s
        else:
            early_s = middle_s
    return late_s
