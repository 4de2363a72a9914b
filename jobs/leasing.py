"""Waiting items, free slots and asks, and how they meet; and what becomes of items when nobody is left."""

from __future__ import annotations

from dataclasses import replace

from .endings import Endings
from .forecast import Forecast
from .ledger import Ledger
from .model import Failure, FailureKind, Group, Item, Job, Participant
from .selection import Ranking, has_slot, leaves_to_others, may_ask, may_take, open_to_asks, takers
from .states import AttemptState, ItemState, JobState, ParticipantState, Waits

FALLBACK_AFTER_S = 1.5
"""How long a job with a fallback waits for a lost participant: doing its work twice costs little more than waiting."""

LOOK_EVERY_S = (0.25, 5.0)
"""How often what was left to others, and what idle participants could help with, is looked at again: at least, at most."""

LOOK_SHARE = 0.25
"""The same as a share of what an item takes."""

LOOK_UNKNOWN_S = 1.0
"""The same while that is not known."""


class Leasing:
    """Works on the machine's books. ``wait_for_return_s`` as for `machine.Machine`."""

    def __init__(self, books: Ledger, forecast: Forecast, endings: Endings, wait_for_return_s: float) -> None:
        self._books = books
        self._forecast = forecast
        self._endings = endings
        self._wait_for_return_s = wait_for_return_s

    # Waiting

    def send_elsewhere(self, participant: Participant) -> None:
        """Queues again the items waiting for a participant that it cannot take any more."""
        for item in participant.aimed:
            if item.waits is Waits.AIMED and not _can_be_aimed(item, participant):
                self.place(item)

    def requeue(self, item: Item) -> None:
        """An item that nobody is at any more waits again."""
        self._books.move_item(item, ItemState.WAITING)
        self.place(item)

    def place(self, item: Item) -> None:
        """Decides what a waiting item waits for: a result at hand is brought over, else it is to be run.

        One that has left its plan waits for anybody.
        """
        for attempt in item.attempts:
            if attempt.state is AttemptState.SPARE and self._books.participants[attempt.participant_id].is_reachable:
                self._books.fetch(attempt)
                return
        participant = self._books.participant(item.planned_for)
        is_on_plan = item.pinned or (not item.pulled and not item.attempts and not item.attempts_before)
        if is_on_plan and _can_be_aimed(item, participant):
            self._books.queue(item, Waits.AIMED)
        elif not item.pinned:
            self._books.queue(item, Waits.FLOATING)
        else:
            reason = _reason(item.job, participant)
            failure = Failure(FailureKind.LOST, f"{participant.id} {reason}.", participant_id=participant.id)
            self._endings.fail_item(item, failure)

    # Meeting

    def fill(self, participant: Participant) -> None:
        """Serves the items whose turn it is, until this participant is busy or had better not take what there is.

        One that is left with nothing to do may be able to help others.
        """
        books = self._books
        while participant.id in books.free:
            item = self._next_for(participant)
            if item is None:
                break
            books.lease(item, participant)
        books.freed.pop(participant.id, None)
        if participant.id in books.idle:
            for group in books.at_work:
                if participant.id in group.job.usable:
                    books.to_help[group] = None

    def _next_for(self, participant: Participant) -> Item | None:
        """The waiting item whose turn it is when this participant has room.

        Groups of which it may not, or had better not, take anything are passed over one by one.
        """
        aimed = participant.aimed.first()
        for group in self._books.waiting:
            if aimed is not None and aimed.job.seq < group.job.seq:
                break
            if participant.id not in group.job.usable:
                continue
            item = self._first_of(group, participant)
            if item is not None:
                return item if aimed is None else min(item, aimed, key=lambda one: one.key)
        return aimed

    def _first_of(self, group: Group, participant: Participant, *, by_ask: bool = False) -> Item | None:
        """The first floating item of the group that the participant may take, unless it had better leave it."""
        heads = [
            queue.first() for failed_by, queue in group.floating.items() if not by_ask or open_to_asks(group, failed_by)
        ]
        candidates = [item for item in heads if item is not None and may_take(item, participant.id)]
        if not candidates:
            return None
        item = candidates[0] if len(candidates) == 1 else min(candidates, key=lambda one: one.key)
        if leaves_to_others(self._books, self._forecast, participant, item):
            self._leave(group)
            return None
        return item

    def serve(self, group: Group, participant: Participant) -> None:
        """Answers an ask, if there is something for it; it may also help others."""
        if participant.id not in group.asks:
            return
        if not may_ask(group, participant):
            self._books.stranded[group.job.id] = group.job
            return
        item = self._first_of(group, participant, by_ask=True)
        if item is not None:
            self._books.lease(item, participant, asked=True)
        elif group.at_work:
            self._books.to_help[group] = None

    def match(self, group: Group, failed_by: frozenset[str]) -> None:
        """Gives waiting items to those that have room or ask, whoever is expected to deliver first."""
        queue = group.floating.get(failed_by)
        if not queue:
            return
        books = self._books
        open_to = dict.fromkeys(takers(books, group, failed_by))
        ranking = Ranking(open_to, lambda one: self._forecast.finish_s(books.participants[one], group))
        while open_to and (item := queue.first()) is not None:
            chosen = item.planned_for if not item.pulled and item.planned_for in open_to else ranking.soonest()
            if chosen is None:
                return
            if chosen not in open_to:
                ranking.drop_soonest()
                continue
            participant = books.participants[chosen]
            if leaves_to_others(books, self._forecast, participant, item):
                self._leave(group)
                return
            books.lease(item, participant, asked=not has_slot(books, group, chosen))
            if not has_slot(books, group, chosen) and chosen not in group.asks:
                del open_to[chosen]

    def _leave(self, group: Group) -> None:
        if group.left_s is None:
            group.left_s = self._books.now_s
        self.look_later(group)

    def look_later(self, group: Group) -> None:
        """Looks again after a while: whoever was expected to be faster may not be."""
        mean_s = group.pace.mean
        least_s, most_s = LOOK_EVERY_S
        pause_s = LOOK_UNKNOWN_S if mean_s is None else min(max(mean_s * LOOK_SHARE, least_s), most_s)
        self._books.timers.set_earlier(group, self._books.now_s + pause_s)

    # Nobody left

    def check_stranded(self, job: Job) -> None:
        """What becomes of waiting items that nobody can take, at once or when nobody has come back in time: the fallback
        gets them as it asks for them, or they fail."""
        books = self._books
        if job.state is not JobState.RUNNING or job.usable or not job.floats:
            return
        deadline_s = max(
            (self._back_s(books.participants[one], job) for one in job.participants if one not in job.left_out),
            default=books.now_s,
        )
        if deadline_s > books.now_s:
            job.waits_for_return = True
            books.timers.set(job, deadline_s)
            return
        job.waits_for_return = False
        books.timers.clear(job)
        for group in job.groups.values():
            self._give_up(group)
            self._serve_fallback(group)

    def _back_s(self, participant: Participant, job: Job) -> float:
        """Until when it is worth while to wait for this participant."""
        if not participant.takes_unpinned:
            return self._books.now_s
        if participant.state is ParticipantState.RESTING and not job.has_fallback:
            return participant.resting_until_s or self._books.now_s
        if participant.offline_since_s is None:
            return self._books.now_s
        patience_s = min(self._wait_for_return_s, FALLBACK_AFTER_S) if job.has_fallback else self._wait_for_return_s
        return participant.offline_since_s + patience_s

    def _give_up(self, group: Group) -> None:
        """Fails the waiting items for which not even somebody who asks is left."""
        for item in _waiting(group):
            asks_come = (group.job.has_fallback or group.askers) and open_to_asks(group, item.failed_by)
            if item.waits is Waits.FLOATING and not asks_come:  # not waiting: its job has failed on the way
                self._endings.fail_item(item, self._nobody(item))

    def _serve_fallback(self, group: Group) -> None:
        job = group.job
        if group.waiting and job.has_fallback and job.fallback_id in group.asks:
            self._books.lease(_waiting(group)[0], self._books.participants[job.fallback_id], asked=True)

    def _nobody(self, item: Item) -> Failure:
        job = item.job
        ids = [*job.participants, *(other for other in job.left_out if other not in job.participants)]
        reasons = "; ".join(f"{other} {_reason(job, self._books.participant(other))}" for other in ids)
        message = f"Nobody can run item {item.index}: {reasons or 'no participant'}."
        failures = (one.error for one in reversed(item.attempts) if one.state is AttemptState.FAILED and not one.is_old)
        last = next(failures, None)
        if last is None:
            return Failure(FailureKind.NOBODY, message)
        return replace(last, message=f"{last.message} (And then: {message})")


def _waiting(group: Group) -> list[Item]:
    return sorted((item for queue in group.floating.values() for item in queue), key=lambda item: item.index)


def _can_be_aimed(item: Item, participant: Participant) -> bool:
    """Whether an item may wait for the participant it was planned for."""
    job = item.job
    if not item.pinned:
        return participant.id in job.usable
    return participant.is_reachable and participant.id in job.participants and participant.id not in job.left_out


def _reason(job: Job, participant: Participant) -> str:
    """Why a participant does not take the job's waiting items, to be put behind its name."""
    if participant.id in job.left_out:
        return f"was left out ({job.left_out[participant.id]})"
    if not participant.is_reachable:
        return f"is offline ({participant.reason})"
    if participant.id not in job.participants:
        return "does not take part"
    if participant.state is ParticipantState.RESTING:
        return participant.reason
    return "runs only what is pinned to it"
