"""The state machine of jobs: events in, instructions out, time passed in. It alone decides who gets which item.

    machine = Machine()
    for instruction in machine.handle(JobPlanned(...), now_s):
        ...

Pure: no I/O, no clock, no threads. Call it from one thread. The books are in `ledger`, who is chosen in `selection`,
who waits for what in `leasing`, what may follow what in `transitions`, what must always hold in `invariants`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from ..utils.errors import Conflict, InvalidInput
from . import events as ev
from .instructions import Instruction, ReleaseResult, StopLease
from .invariants import validate
from .leasing import Leasing
from .ledger import Ledger
from .model import (
    OPEN_ATTEMPT,
    SLOT_HOLDING,
    Attempt,
    AttemptState,
    Failure,
    FailureKind,
    Item,
    ItemState,
    Job,
    JobState,
    Participant,
)
from .view import ItemView, JobView, view_item, view_job

DEFAULT_WAIT_FOR_RETURN_S = 5.0
"""How long a job with nobody left waits for a lost participant to reconnect, in seconds."""

DEFAULT_MAX_LOST = 5
"""Times that an item may lose its participant before each further loss counts as a failure of the item."""


class Machine:
    """All jobs and participants of one master.

    ``wait_for_return_s``: how long a job that nobody can run waits for a lost participant (0 = it fails at once).
    ``max_lost``: losses of one item that are not counted as its failures.
    """

    def __init__(
        self, *, wait_for_return_s: float = DEFAULT_WAIT_FOR_RETURN_S, max_lost: int = DEFAULT_MAX_LOST
    ) -> None:
        self._max_lost = max_lost
        self._books = Ledger()
        self._leasing = Leasing(self._books, wait_for_return_s)
        self._handlers: dict[type, Callable[[Any], None]] = {
            ev.ParticipantOnline: self._participant_online,
            ev.ParticipantOffline: self._participant_offline,
            ev.JobPlanned: self._job_planned,
            ev.JobAccepted: self._job_accepted,
            ev.JobDropped: self._job_dropped,
            ev.JobCancelled: self._job_cancelled,
            ev.PromptEnded: self._prompt_ended,
            ev.JobGathered: self._job_gathered,
            ev.FallbackReady: self._fallback_ready,
            ev.LeaseRefused: self._lease_refused,
            ev.LeaseHeld: self._lease_held,
            ev.ItemStarted: self._item_started,
            ev.ItemProgressed: self._item_progressed,
            ev.ItemFinished: self._item_finished,
            ev.ItemFailed: self._item_failed,
            ev.ResultFetched: self._result_fetched,
            ev.FetchFailed: self._fetch_failed,
            ev.TimePassed: self._time_passed,
        }

    def handle(self, event: ev.Event, now_s: float) -> list[Instruction]:
        """Takes one event and returns what is to be done about it, in order.

        ``now_s`` are seconds of a clock that only grows. Raises `InvalidInput` for a `JobPlanned` that makes no sense,
        and `InvalidTransition` if the machine itself is wrong; no other event can fail.
        """
        self._books.now_s = now_s
        if not isinstance(event, ev.ItemProgressed):
            self._books.remember(event)
        self._handlers[type(event)](event)
        self._leasing.settle()
        return self._books.take_instructions()

    def next_deadline_s(self) -> float | None:
        """When to send `TimePassed` at the latest; None while nothing waits for time."""
        return self._leasing.next_deadline_s()

    def load(self, participant_id: str) -> int:
        """Our own work ahead of a new item at this participant: leases it holds, items that wait or are planned for it.

        Planned jobs count from the moment they are planned, so that of many routes chosen in a burst each sees the
        ones before it.
        """
        return self._leasing.load(participant_id)

    def job(self, job_id: str) -> JobView | None:
        """A snapshot of the job with all items; None when it is not known."""
        job = self._books.jobs.get(job_id)
        return None if job is None else view_job(job)

    def item(self, job_id: str, index: int) -> ItemView | None:
        """A snapshot of one item; None when it is not known."""
        job = self._books.jobs.get(job_id)
        item = None if job is None else job.items.get(index)
        return None if item is None else view_item(item)

    def job_ids(self) -> Iterator[str]:
        """All known jobs, in the order in which they were planned."""
        return iter(list(self._books.jobs))

    def forget(self, job_id: str) -> None:
        """Drops all memory of an ended job, if there is any. Raises `Conflict` while it is open or not yet gathered.

        Only a job that is done waits to be gathered. After this, what a participant still says about the job is
        answered as for an unknown one.
        """
        job = self._books.jobs.get(job_id)
        if job is None:
            return
        if job.state.is_open or (job.state is JobState.DONE and not job.gathered):
            raise Conflict(f"Job {job_id} is {job.state.value} and its results have not been taken.")
        del self._books.jobs[job_id]

    def validate(self) -> None:
        """Checks that all records agree. Costs time in proportion to all there is. Raises `InvariantBroken`."""
        validate(self._books, self.load)

    # Participants

    def _participant_online(self, event: ev.ParticipantOnline) -> None:
        participant = self._books.participant(event.participant_id)
        self._books.put_online(participant, event.slots, event.takes_unpinned)
        self._leasing.send_elsewhere(participant, list(participant.aimed))

    def _participant_offline(self, event: ev.ParticipantOffline) -> None:
        participant = self._books.participants.get(event.participant_id)
        if participant is None:
            return
        if not participant.is_online:
            participant.reason = event.reason
            return
        self._books.put_offline(participant, event.reason)
        failure = _lost(participant)
        for item, attempt in list(participant.held.items()):
            if item.live is attempt:  # else its job has failed on the way
                self._lose(item, attempt, failure)
        self._leasing.send_elsewhere(participant, list(participant.aimed))

    def _lose(self, item: Item, attempt: Attempt, failure: Failure) -> None:
        attempt.error = failure
        self._books.move_attempt(item, attempt, AttemptState.LOST)
        item.losses += 1
        if item.pinned:
            self._leasing.fail_job(item.job, failure, item)
        elif item.losses > self._max_lost:
            self._count_failure(item, failure)
        else:
            self._leasing.requeue(item)

    # Jobs

    def _job_planned(self, event: ev.JobPlanned) -> None:
        if event.job_id in self._books.jobs:
            return
        if event.max_attempts < 1:
            raise InvalidInput("A job needs at least one attempt per item.", details={"job_id": event.job_id})
        job = Job(
            id=event.job_id,
            participants={participant_id: position for position, participant_id in enumerate(event.participants)},
            left_out=dict(event.left_out),
            max_attempts=event.max_attempts,
            planned_s=self._books.now_s,
            fallback_id=event.fallback,
        )
        for spec in event.items:
            if spec.index in job.items:
                raise InvalidInput(f"Item {spec.index} is planned twice.", details={"job_id": event.job_id})
            job.items[spec.index] = Item(job, spec.index, spec.planned_for, spec.pinned)
        self._books.add_job(job)

    def _job_accepted(self, event: ev.JobAccepted) -> None:
        job = self._books.jobs.get(event.job_id)
        if job is None or job.state is not JobState.PLANNED:
            return
        self._books.accept_job(job)
        for item in job.items.values():
            self._leasing.enqueue(item)
            if not job.state.is_open:
                return
        if not job.items:
            self._leasing.end_job(job, JobState.DONE, None)

    def _job_dropped(self, event: ev.JobDropped) -> None:
        self._end_if_open(event.job_id, JobState.DROPPED, Failure(FailureKind.DROPPED, event.reason))

    def _job_cancelled(self, event: ev.JobCancelled) -> None:
        self._end_if_open(event.job_id, JobState.CANCELLED, Failure(FailureKind.CANCELLED, event.reason))

    def _prompt_ended(self, event: ev.PromptEnded) -> None:
        failure = Failure(FailureKind.CANCELLED, "The prompt ended without needing it.")
        self._end_if_open(event.job_id, JobState.CANCELLED, failure)

    def _job_gathered(self, event: ev.JobGathered) -> None:
        job = self._books.jobs.get(event.job_id)
        if job is not None and not job.state.is_open:
            job.gathered = True

    def _fallback_ready(self, event: ev.FallbackReady) -> None:
        job = self._books.jobs.get(event.job_id)
        if job is not None:
            job.fallback_ready = True
            self._leasing.check_stranded(job)

    def _end_if_open(self, job_id: str, state: JobState, failure: Failure) -> None:
        job = self._books.jobs.get(job_id)
        if job is not None and job.state.is_open:
            self._leasing.end_job(job, state, failure)

    # Attempts

    def _find(self, event: ev.AttemptEvent) -> tuple[Item, Attempt] | None:
        """The attempt an event speaks of; None when there is no such attempt of this participant."""
        job = self._books.jobs.get(event.job_id)
        item = None if job is None else job.items.get(event.index)
        if item is None or not 1 <= event.attempt <= len(item.attempts):
            return None
        attempt = item.attempts[event.attempt - 1]
        return (item, attempt) if attempt.participant_id == event.participant_id else None

    def _find_running(self, event: ev.AttemptEvent) -> tuple[Item, Attempt] | None:
        """As `_find`, if the participant works on the attempt or has it in its queue."""
        found = self._find(event)
        return found if found is not None and found[1].state in SLOT_HOLDING else None

    def _lease_refused(self, event: ev.LeaseRefused) -> None:
        found = self._find_running(event)
        if found is None:
            return
        item, attempt = found
        participant = self._books.participants[event.participant_id]
        failure = Failure(FailureKind.REFUSED, event.reason, participant_id=participant.id)
        attempt.error = failure
        self._books.move_attempt(item, attempt, AttemptState.REFUSED)
        self._books.leave_out(item.job, participant, event.reason)
        if item.pinned:
            self._leasing.fail_job(item.job, failure, item)
            return
        self._leasing.requeue(item)
        self._leasing.send_elsewhere(participant, [other for other in participant.aimed if other.job is item.job])

    def _lease_held(self, event: ev.LeaseHeld) -> None:
        found = self._find(event)
        if found is None or found[1].state not in OPEN_ATTEMPT:
            self._books.order(StopLease(event.participant_id, event.job_id, event.index, event.attempt))

    def _item_started(self, event: ev.ItemStarted) -> None:
        self._begin(event)

    def _item_progressed(self, event: ev.ItemProgressed) -> None:
        item = self._begin(event)
        if item is None or math.isnan(event.fraction):
            return
        # Reordered reports must not make a bar run backwards.
        fraction = min(1.0, max(0.0, event.fraction))
        if fraction < item.fraction or (fraction == item.fraction and event.label == item.label):
            return
        item.fraction, item.label = fraction, event.label
        self._books.changed(item)

    def _begin(self, event: ev.AttemptEvent) -> Item | None:
        """The item that the participant is at work on, marked as running; None if it should not be at work on it."""
        found = self._find(event)
        if found is None:
            self._books.order(StopLease(event.participant_id, event.job_id, event.index, event.attempt))
            return None
        item, attempt = found
        if attempt.state is AttemptState.LEASED:
            self._books.move_attempt(item, attempt, AttemptState.RUNNING)
            self._books.move_item(item, ItemState.RUNNING)
            attempt.started_s = self._books.now_s
        if attempt.state is AttemptState.RUNNING:
            return item
        # A lost attempt of an item that is still wanted may go on: whoever is first wins.
        unwanted = attempt.state is AttemptState.LOST and not item.state.is_open
        if unwanted or attempt.state is AttemptState.STOPPED:
            self._books.order(StopLease(event.participant_id, event.job_id, event.index, event.attempt))
        return None

    def _item_finished(self, event: ev.ItemFinished) -> None:
        found = self._find(event)
        if found is None or not found[0].state.is_open:
            # Nobody needs it; the participant's spool must empty all the same.
            self._books.order(
                ReleaseResult(event.participant_id, event.job_id, event.index, event.attempt, event.result)
            )
            return
        item, attempt = found
        if attempt.state is AttemptState.FETCHING:
            return
        attempt.result, attempt.holds_result = event.result, True
        if item.live is attempt:
            self._books.fetch(item, attempt)
        elif self._is_better_than_live(item, attempt):
            if item.live is not None:
                self._books.stop(item, item.live)
            self._books.fetch(item, attempt)
        elif attempt.state is not AttemptState.SPARE:
            self._books.move_attempt(item, attempt, AttemptState.SPARE)

    def _is_better_than_live(self, item: Item, attempt: Attempt) -> bool:
        """Whether a late result should be fetched now: not while it cannot be reached or another is on its way.

        One that could not be brought over before does not displace work that is going on.
        """
        if not self._books.participants[attempt.participant_id].is_online:
            return False
        if item.live is None:
            return True
        failed_to_come = attempt.error is not None and attempt.error.kind == FailureKind.TRANSFER
        return item.live.state in SLOT_HOLDING and not failed_to_come

    def _item_failed(self, event: ev.ItemFailed) -> None:
        found = self._find_running(event)
        if found is not None:
            self._fail_attempt(*found, event.failure, retry=event.retry)

    def _fetch_failed(self, event: ev.FetchFailed) -> None:
        found = self._find(event)
        if found is not None and found[1].state is AttemptState.FETCHING:
            self._fail_attempt(*found, replace(event.failure, kind=FailureKind.TRANSFER), retry=True)

    def _fail_attempt(self, item: Item, attempt: Attempt, failure: Failure, *, retry: bool) -> None:
        if not failure.participant_id:
            failure = replace(failure, participant_id=attempt.participant_id)
        attempt.error = failure
        self._books.move_attempt(item, attempt, AttemptState.FAILED)
        item.failed_by |= {attempt.participant_id}
        if retry:
            self._count_failure(item, failure)
        else:
            self._leasing.fail_job(item.job, failure, item)

    def _count_failure(self, item: Item, failure: Failure) -> None:
        item.failures += 1
        if item.failures >= item.job.max_attempts:
            self._leasing.fail_job(item.job, failure, item)
        else:
            self._leasing.requeue(item)

    def _result_fetched(self, event: ev.ResultFetched) -> None:
        found = self._find(event)
        if found is None:
            return
        item, attempt = found
        if not attempt.holds_result:  # never offered, or the item has ended and all its results were released
            return
        item.fraction = 1.0
        self._books.close_item(item, ItemState.DONE, winner=attempt)
        if item.job.unfinished == 0:
            self._leasing.end_job(item.job, JobState.DONE, None)

    def _time_passed(self, _event: ev.TimePassed) -> None:
        self._leasing.check_deadlines()


def _lost(participant: Participant) -> Failure:
    message = f"{participant.id} went away: {participant.reason}."
    return Failure(FailureKind.LOST, message, participant_id=participant.id)
