"""Participants that keep failing get a rest: growing pauses without new work, until they deliver again."""

from __future__ import annotations

from .ledger import Ledger
from .model import Attempt, Failure, Item, Participant
from .states import JobState, ParticipantState

STRIKES = 3
"""Items that fail at a participant in a row, without a success between them, before it rests."""

FIRST_REST_S = 5.0
"""The first rest. Each further one in a row lasts twice as long."""

LONGEST_REST_S = 300.0
"""No rest lasts longer."""

MAX_STRIKES = 20
"""Failed items that are remembered of one participant."""

MAX_REASON = 200
"""Characters of the last failure that the reason for a rest shows."""


class Resting:
    """Counts failures in a row. Whoever rested may try one item: if that fails as well it rests again, for longer."""

    def __init__(self, books: Ledger) -> None:
        self._books = books

    def strike(self, attempt: Attempt, failure: Failure) -> bool:
        """An item failed at a participant. Whether that begins to rest now: what it has is then to be moved."""
        participant = self._books.participants[attempt.participant_id]
        participant.strikes[(attempt.item.job.id, attempt.item.index)] = failure.message
        if len(participant.strikes) > MAX_STRIKES:
            del participant.strikes[next(iter(participant.strikes))]
        if not self._needs_rest(participant):
            return False
        rest_s = min(FIRST_REST_S * 2.0**participant.rests, LONGEST_REST_S)
        participant.rests += 1
        participant.resting_until_s = self._books.now_s + rest_s
        self._books.timers.set(participant, participant.resting_until_s)
        count, last = len(participant.strikes), failure.message[:MAX_REASON]
        reason = f"rests for {rest_s:g} s after {count} failures in a row, last: {last}"
        self._books.move_participant(participant, ParticipantState.RESTING, reason)
        return True

    def _needs_rest(self, participant: Participant) -> bool:
        """Not one that only does what it asks for or what is pinned to it, nor the only one that a job has."""
        if len(participant.strikes) < STRIKES or not participant.takes_work or not participant.takes_unpinned:
            return False
        return not any(
            job.state is JobState.RUNNING and job.usable == {participant.id} for job in participant.jobs.values()
        )

    def succeeded(self, participant: Participant) -> None:
        """It delivered: all is forgiven."""
        if participant.strikes or participant.rests:
            participant.strikes.clear()
            participant.rests = 0
            self.wake(participant)

    def forgive(self, item: Item) -> None:
        """The item failed wherever it was tried, so it was to blame and not they."""
        for participant_id in item.failed_by:
            participant = self._books.participants[participant_id]
            participant.strikes.pop((item.job.id, item.index), None)
            if len(participant.strikes) < STRIKES:
                self.wake(participant)

    def wake(self, participant: Participant) -> None:
        """Its rest is over, if it rests."""
        if participant.state is ParticipantState.RESTING:
            self._end(participant)
            self._books.move_participant(participant, ParticipantState.ONLINE, "")

    def left(self, participant: Participant) -> None:
        """It went offline: it does not rest any more, but what it failed is remembered."""
        self._end(participant)

    def _end(self, participant: Participant) -> None:
        participant.resting_until_s = None
        self._books.timers.clear(participant)
