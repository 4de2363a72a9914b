"""What is said about attempts, and what follows for their items: rule by rule, on the machine's books."""

from __future__ import annotations

import math
from dataclasses import replace

from . import events as ev
from .endings import Endings
from .forecast import Forecast
from .instructions import ReleaseResult, StopLease
from .leasing import Leasing
from .ledger import Ledger
from .model import Attempt, Failure, FailureKind, Item, Participant
from .resting import Resting
from .states import AT_WORK, OPEN_ATTEMPT, AttemptState, ItemState


class AttemptRules:
    """Handlers of all `events.AttemptEvent`. ``max_lost`` as for `machine.Machine`."""

    def __init__(
        self,
        books: Ledger,
        forecast: Forecast,
        leasing: Leasing,
        endings: Endings,
        resting: Resting,
        max_lost: int,
    ) -> None:
        self._books = books
        self._forecast = forecast
        self._leasing = leasing
        self._endings = endings
        self._resting = resting
        self._max_lost = max_lost

    def _find(self, event: ev.AttemptEvent) -> Attempt | None:
        """The attempt an event speaks of; None when there is no such attempt of this participant."""
        item = self._item(event)
        attempt = None if item is None else item.attempt(event.attempt)
        return attempt if attempt is not None and attempt.participant_id == event.participant_id else None

    def _item(self, event: ev.AttemptEvent) -> Item | None:
        job = self._books.jobs.get(event.job_id)
        return None if job is None else job.items.get(event.index)

    def _find_at_work(self, event: ev.AttemptEvent) -> Attempt | None:
        """As `_find`, if the participant works on the attempt or has it in its queue."""
        attempt = self._find(event)
        return attempt if attempt is not None and attempt.state in AT_WORK else None

    def _stop_there(self, event: ev.AttemptEvent) -> None:
        self._books.order(StopLease(event.participant_id, event.job_id, event.index, event.attempt))

    # At work

    def lease_refused(self, event: ev.LeaseRefused) -> None:
        """The participant is left out of the job."""
        attempt = self._find_at_work(event)
        if attempt is None:
            return
        item, participant = attempt.item, self._books.participants[event.participant_id]
        failure = Failure(FailureKind.REFUSED, event.reason, participant_id=participant.id, attempt=attempt.number)
        attempt.error = failure
        self._books.move_attempt(attempt, AttemptState.REFUSED)
        self._books.leave_out(item.job, participant, event.reason)
        if item.pinned:
            self._endings.fail_item(item, failure)
            return
        self._go_on(item)
        self._leasing.send_elsewhere(participant)

    def lease_held(self, event: ev.LeaseHeld) -> None:
        """It is in the participant's queue, where it may be no more."""
        attempt = self._find(event)
        if attempt is None or attempt.state not in OPEN_ATTEMPT:
            self._stop_there(event)

    def item_started(self, event: ev.ItemStarted) -> None:
        """The participant is at it."""
        self._begin(event)

    def item_progressed(self, event: ev.ItemProgressed) -> None:
        """The participant is at it, and so far."""
        attempt = self._begin(event)
        if attempt is None or math.isnan(event.fraction):
            return
        # Reordered reports must not make a bar run backwards.
        fraction = min(1.0, max(0.0, event.fraction))
        if fraction < attempt.fraction or (fraction == attempt.fraction and event.label == attempt.label):
            return
        if fraction > attempt.fraction:
            attempt.told_s = self._books.now_s
        attempt.fraction, attempt.label = fraction, event.label
        if attempt.item.leading is attempt:
            self._books.changed(attempt.item)

    def _begin(self, event: ev.AttemptEvent) -> Attempt | None:
        """The attempt that the participant is at work on, marked as running; None if it should not be at work on it."""
        attempt = self._find(event)
        if attempt is None:
            self._stop_there(event)
            return None
        if attempt.state is AttemptState.LEASED:
            self._books.begin(attempt)
        if attempt.state is AttemptState.RUNNING:
            attempt.heard_s = self._books.now_s
            return attempt
        # A lost attempt of an item that is still wanted may go on: whoever is first wins.
        unwanted = attempt.state is AttemptState.LOST and not attempt.item.state.is_open
        if unwanted or attempt.state is AttemptState.STOPPED:
            self._stop_there(event)
        return None

    # Results

    def item_finished(self, event: ev.ItemFinished) -> None:
        """A result is offered: brought over, unless it is not needed or another is on its way."""
        if self._comes_early(event):
            return
        attempt = self._find(event) or self._recall(event)
        if attempt is None or not attempt.item.state.is_open:
            self._tell_what_becomes_of(attempt, event)
            return
        if attempt.state is AttemptState.FETCHING:
            return
        attempt.result, attempt.holds_result = event.result, True
        if attempt.state in AT_WORK:
            self._note_pace(attempt)
        if attempt.state in AT_WORK or self._should_displace(attempt):
            if any(other.state is AttemptState.FETCHING for other in attempt.item.live):
                self._books.move_attempt(attempt, AttemptState.SPARE)
            else:
                self._books.fetch(attempt)
        elif attempt.state is not AttemptState.SPARE:
            self._books.move_attempt(attempt, AttemptState.SPARE)

    def _tell_what_becomes_of(self, attempt: Attempt | None, event: ev.ItemFinished) -> None:
        """Nobody needs it now. What the job was made of is kept; for the rest, the spool must empty all the same."""
        if attempt is not None and attempt is attempt.item.winner and attempt.holds_result:
            attempt.result = event.result
            self._books.keep(attempt)
        else:
            self._books.order(
                ReleaseResult(event.participant_id, event.job_id, event.index, event.attempt, event.result)
            )

    def _comes_early(self, event: ev.ItemFinished) -> bool:
        """Notes a result of an item that is still to be added: an earlier life of the job had it."""
        job = self._books.jobs.get(event.job_id)
        if job is None or not job.state.is_open or not job.is_late or event.index in job.items:
            return False
        job.early.setdefault(event.index, {})[(event.attempt, event.participant_id)] = event.result
        return True

    def _recall(self, event: ev.ItemFinished) -> Attempt | None:
        """An attempt of an earlier life of the job, now that it offers a result that is wanted."""
        item = self._item(event)
        if item is None or not item.state.is_open or not 1 <= event.attempt <= item.attempts_before:
            return None
        if item.attempt(event.attempt) is not None:
            return None
        return self._books.recall(item, event.attempt, event.participant_id)

    def _should_displace(self, attempt: Attempt) -> bool:
        """Whether a late result should be fetched now: not before the job starts and what must come before has happened,
        nor while it cannot be reached or another is on its way. One that could not be brought over before does not displace work that is going on.
        """
        item = attempt.item
        if (
            not item.job.seq
            or item.state is ItemState.HELD
            or not self._books.participants[attempt.participant_id].is_reachable
        ):
            return False
        if any(other.state is AttemptState.FETCHING for other in item.live):
            return False
        failed_to_come = attempt.error is not None and attempt.error.kind == FailureKind.TRANSFER
        return not item.live or not failed_to_come

    def _note_pace(self, attempt: Attempt) -> None:
        """How long it took. What was waiting behind other work began when that had ended.

        A pinned item tells nothing: the master's own prompt may be answered by its cache.
        """
        if attempt.item.pinned:
            return
        began_s = attempt.started_s
        if began_s is None:
            began_s = max(attempt.leased_s, self._books.participants[attempt.participant_id].free_since_s)
        attempt.item.group.pace.note(attempt.participant_id, self._books.now_s - began_s)

    def result_fetched(self, event: ev.ResultFetched) -> None:
        """The result is here: the first that comes wins."""
        attempt = self._find(event)
        # Not sent for: it arrived for an earlier life of the job. Of an item that has ended: another result won.
        if attempt is None or not attempt.was_sent_for or not attempt.holds_result or not attempt.item.state.is_open:
            return
        if not attempt.is_old:
            self._resting.succeeded(self._books.participants[attempt.participant_id])
        self._endings.deliver(attempt.item, attempt)

    # Failures

    def item_failed(self, event: ev.ItemFailed) -> None:
        """The work failed there."""
        attempt = self._find_at_work(event)
        if attempt is not None:
            self._fail(attempt, event.failure, retry=event.retry)

    def fetch_failed(self, event: ev.FetchFailed) -> None:
        """The result did not come. One of an earlier life of the job was worth a try, and nothing more."""
        attempt = self._find(event)
        if attempt is None or attempt.state is not AttemptState.FETCHING:
            return
        failure = replace(event.failure, kind=FailureKind.TRANSFER, attempt=attempt.number)
        if attempt.is_old:
            attempt.error = failure
            self._books.move_attempt(attempt, AttemptState.FAILED)
            self._go_on(attempt.item)
        else:
            self._fail(attempt, failure, retry=True)

    def _fail(self, attempt: Attempt, failure: Failure, *, retry: bool) -> None:
        item = attempt.item
        failure = replace(
            failure, participant_id=failure.participant_id or attempt.participant_id, attempt=attempt.number
        )
        attempt.error = failure
        self._books.move_attempt(attempt, AttemptState.FAILED)
        item.failed_by |= {attempt.participant_id}
        if self._resting.strike(attempt, failure):
            self._hand_on(self._books.participants[attempt.participant_id])
        if not item.state.is_open:  # its job has failed on the way
            return
        if not retry:
            self._endings.fail_item(item, failure)
        else:
            tries = len(item.attempts) - 1  # without this one
            if all(self._forecast.is_stuck(other, tries=tries) for other in item.live):  # or nobody else is at it
                self._count_failure(item, failure)
            else:
                self._books.follow(item)

    def _hand_on(self, participant: Participant) -> None:
        """What one that begins to rest has not begun goes elsewhere."""
        for attempt in list(participant.held):
            if attempt.state is AttemptState.LEASED and not attempt.item.pinned and not attempt.asked:
                self._books.stop(attempt)
                self._go_on(attempt.item)
        self._leasing.send_elsewhere(participant)

    def _count_failure(self, item: Item, failure: Failure) -> None:
        item.failures += 1
        if item.failures >= item.job.max_attempts:
            self._endings.fail_item(item, failure)
        else:
            self._go_on(item)

    def _go_on(self, item: Item) -> None:
        """One attempt less: the others go on, or the item waits again."""
        if not self._books.follow(item):
            self._leasing.requeue(item)

    # Losses

    def lose_all(self, participant: Participant) -> None:
        """The participant went away, with all that it held."""
        message = f"{participant.id} went away: {participant.reason}."
        failure = Failure(FailureKind.LOST, message, participant_id=participant.id)
        for attempt in list(participant.held):
            if attempt in participant.held:  # else its job has failed on the way
                self._lose(attempt, failure)

    def _lose(self, attempt: Attempt, failure: Failure) -> None:
        item = attempt.item
        failure = attempt.error = replace(failure, attempt=attempt.number)
        self._books.move_attempt(attempt, AttemptState.LOST)
        if item.pinned:
            self._endings.fail_item(item, failure)
        elif not self._books.follow(item):
            item.losses += 1
            if item.losses > self._max_lost:
                self._count_failure(item, failure)
            else:
                self._leasing.requeue(item)
