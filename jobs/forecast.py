"""What is expected: when a participant will have done what it has, and when it would deliver one more item.

An attempt that takes longer than its item was expected to take is thought to need as long again as it is late: so what
is stuck looks worse the longer it lasts, and nothing waits for it for ever.
"""

from __future__ import annotations

from collections.abc import Iterator

from .ledger import Ledger
from .model import Attempt, Group, Participant
from .states import AT_WORK, AttemptState

UNKNOWN_S = 1.0
"""What an item is taken to need while nothing is known: then only numbers of items are compared."""

MIN_FRACTION = 0.1
"""Progress below this says nothing yet about how long the rest will take."""

STALL_MIN_S = 2.0
"""Nothing that has taken less is thought to be stuck."""

STALL_SILENT_S = 120.0
"""An attempt of which nothing was heard for this long is thought to be stuck, whatever is known about its pace."""

STALL_SILENT_LATE_S = 30.0
"""The same in late groups: there others may wait for the first items, and until those are done no pace is known."""

_MOST_DOUBLINGS = 10


class Forecast:
    """Reads the books; changes nothing."""

    def __init__(self, books: Ledger) -> None:
        self._books = books

    def seconds(self, participant_id: str, group: Group) -> float:
        """How long one item of the group is expected to take there."""
        expected = group.pace.expected(participant_id)
        return UNKNOWN_S if expected is None else expected

    def schedule(self, participant: Participant) -> Iterator[tuple[Attempt, float]]:
        """When each attempt that the participant has at work will be done; one after the other, as they were given."""
        at_s = self._books.now_s
        is_first = True
        for attempt in participant.held:
            if attempt.state is AttemptState.FETCHING:
                continue
            seconds = self.seconds(participant.id, attempt.item.group)
            if attempt.state is AttemptState.RUNNING:
                at_s += self._remaining_s(attempt, seconds)
            elif is_first:  # it should have begun when its participant was free for it
                at_s += _left_s(seconds, self.waits_s(attempt))
            else:
                at_s += seconds
            is_first = False
            yield attempt, at_s

    def free_s(self, participant: Participant) -> float:
        """When the participant will have done all that it has at work, and what is aimed at it."""
        at_s = self._books.now_s
        for _attempt, done_s in self.schedule(participant):
            at_s = done_s
        first = participant.aimed.first()
        ahead = len(participant.aimed)
        return at_s + ahead * self.seconds(participant.id, first.group) if first is not None else at_s

    def finish_s(self, participant: Participant, group: Group) -> float:
        """When the participant would deliver one more item of the group."""
        return self.free_s(participant) + self.seconds(participant.id, group)

    def _remaining_s(self, attempt: Attempt, seconds: float) -> float:
        told_s = self.told_remaining_s(attempt)
        return _left_s(seconds, self.elapsed_s(attempt)) if told_s is None else told_s

    def elapsed_s(self, attempt: Attempt) -> float:
        """How long an attempt has run, or been waited for."""
        began_s = attempt.leased_s if attempt.started_s is None else attempt.started_s
        return self._books.now_s - began_s

    def waits_s(self, attempt: Attempt) -> float:
        """For how long an attempt that has not begun could have, if nothing of ours was before it."""
        free_since_s = self._books.participants[attempt.participant_id].free_since_s
        return self._books.now_s - max(attempt.leased_s, free_since_s)

    def silent_s(self, attempt: Attempt) -> float:
        """How long nothing was heard of the attempt."""
        heard_s = attempt.leased_s if attempt.heard_s is None else attempt.heard_s
        return self._books.now_s - heard_s

    def is_stuck(self, attempt: Attempt, *, tries: int | None = None) -> bool:
        """Whether an attempt takes far longer than expected, or nothing was heard of it for long.

        Each further try of an item is given twice the time, so that what merely takes long is not tried for ever.
        ``tries`` are those to count, else all of the item that came to no end.
        """
        if attempt.state not in AT_WORK:
            return False
        item = attempt.item
        if tries is None:
            tries = sum(one.state in AT_WORK or one.state is AttemptState.STOPPED for one in item.attempts)
        patience = 2.0 ** min(max(tries - 1, 0), _MOST_DOUBLINGS)
        expected_s = item.group.pace.expected(attempt.participant_id)
        if expected_s is not None:
            longest_s = max(item.job.stall_factor * expected_s, STALL_MIN_S)
            if self.elapsed_s(attempt) > patience * longest_s:
                return True
        longest_silent_s = STALL_SILENT_LATE_S if item.group.late else STALL_SILENT_S
        return self.silent_s(attempt) > patience * longest_silent_s

    def told_remaining_s(self, attempt: Attempt) -> float | None:
        """What a running attempt still needs by its own progress; None while that says nothing."""
        if attempt.fraction < MIN_FRACTION or attempt.told_s is None or attempt.started_s is None:
            return None
        left_then_s = (attempt.told_s - attempt.started_s) * (1.0 - attempt.fraction) / attempt.fraction
        return _left_s(left_then_s, self._books.now_s - attempt.told_s)


def _left_s(seconds: float, elapsed_s: float) -> float:
    return abs(seconds - elapsed_s)
