"""The state machine of jobs: events in, instructions out, time passed in. It alone decides who gets which item.

    machine = Machine()
    for instruction in machine.handle(JobPlanned(...), now_s):
        ...

Pure: no I/O, no clock, no threads. Call it from one thread. The books are in `ledger`; who is chosen in `selection`; what
is expected in `forecast`; who waits for what in `leasing`; what idle ones do in `helping`; how things end in `endings`;
who gets a rest in `resting`; what a job gets while it runs in `additions`; what may follow what in `transitions`; what must always hold in `invariants`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from . import events as ev
from .additions import Additions
from .attempts import AttemptRules
from .endings import Endings
from .forecast import Forecast
from .helping import Helping
from .instructions import Instruction
from .invariants import validate
from .leasing import Leasing
from .ledger import Ledger
from .model import Failure, FailureKind, Group, Job, Participant
from .planning import make_job
from .resting import Resting
from .states import ItemState, JobState, ParticipantState
from .story import told
from .view import ItemView, JobView, ParticipantView, view_item, view_job, view_participant

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
        self._books = Ledger()
        self._resting = Resting(self._books)
        self._endings = Endings(self._books, self._resting)
        forecast = Forecast(self._books)
        self._leasing = Leasing(self._books, forecast, self._endings, wait_for_return_s)
        self._helping = Helping(self._books, forecast, self._leasing)
        attempts = AttemptRules(self._books, forecast, self._leasing, self._endings, self._resting, max_lost)
        self._attempts = attempts
        additions = Additions(self._books, self._leasing)
        self._handlers: dict[type, Callable[[Any], None]] = {
            ev.ParticipantOnline: self._participant_online,
            ev.ParticipantOffline: self._participant_offline,
            ev.JobPlanned: self._job_planned,
            ev.ItemsAdded: additions.items_added,
            ev.ItemsReady: additions.items_ready,
            ev.ParticipantJoined: additions.participant_joined,
            ev.JobAccepted: self._job_accepted,
            ev.JobDropped: self._job_dropped,
            ev.JobCancelled: self._job_cancelled,
            ev.PromptEnded: self._prompt_ended,
            ev.JobGathered: self._job_gathered,
            ev.JobForgotten: self._job_forgotten,
            ev.ItemAsked: self._item_asked,
            ev.LeaseRefused: attempts.lease_refused,
            ev.LeaseHeld: attempts.lease_held,
            ev.ItemStarted: attempts.item_started,
            ev.ItemProgressed: attempts.item_progressed,
            ev.ItemFinished: attempts.item_finished,
            ev.ItemFailed: attempts.item_failed,
            ev.ResultFetched: attempts.result_fetched,
            ev.FetchFailed: attempts.fetch_failed,
            ev.TimePassed: self._time_passed,
        }

    def handle(self, event: ev.Event, now_s: float) -> list[Instruction]:
        """Takes one event and returns what is to be done about it, in order.

        ``now_s`` are seconds of a clock that only grows. Raises `InvalidInput` for a `JobPlanned` or `ItemsAdded` that
        makes no sense, and `InvalidTransition` if the machine itself is wrong; no other event can fail.
        """
        self._books.now_s = now_s
        if not isinstance(event, ev.ItemProgressed):
            self._books.remember(event)
        self._handlers[type(event)](event)
        self._settle()
        return self._books.take_instructions()

    def next_deadline_s(self) -> float | None:
        """When to send `TimePassed` at the latest; None while nothing waits for time."""
        return self._books.timers.next_s()

    def load(self, participant_id: str) -> int:
        """Our own work ahead of a new item at this participant: leases it holds, items that wait or are planned for it.

        Planned jobs count from the moment they are planned, so that of many routes chosen in a burst each sees the
        ones before it. Items that are pulled weigh on nobody until they are leased.
        """
        participant = self._books.participants.get(participant_id)
        if participant is None:
            return 0
        return participant.busy + len(participant.aimed) + participant.reserved

    def job(self, job_id: str) -> JobView | None:
        """A snapshot of the job with all items; None when it is not known."""
        job = self._books.jobs.get(job_id)
        return None if job is None else view_job(job)

    def item(self, job_id: str, index: int) -> ItemView | None:
        """A snapshot of one item; None when it is not known."""
        job = self._books.jobs.get(job_id)
        item = None if job is None else job.items.get(index)
        return None if item is None else view_item(item)

    def participant(self, participant_id: str) -> ParticipantView | None:
        """A snapshot of one participant; None when it was never mentioned."""
        participant = self._books.participants.get(participant_id)
        return None if participant is None else view_participant(participant)

    def story(self, job_id: str) -> tuple[str, ...]:
        """What the machine was told about the job lately, oldest first; empty when it is not known."""
        job = self._books.jobs.get(job_id)
        return () if job is None else told(job.story)

    def job_ids(self) -> Iterator[str]:
        """All known jobs, in the order in which they were planned."""
        return iter(list(self._books.jobs))

    def validate(self) -> None:
        """Checks that all records agree. Costs time in proportion to all there is. Raises `InvariantBroken`."""
        validate(self._books)

    def _settle(self) -> None:
        """Looks at all that this event has left to look at, until nothing is left."""
        books = self._books
        while True:
            if books.freed:
                self._leasing.fill(books.participants[next(iter(books.freed))])
            elif books.asked:
                group, participant_id = next(iter(books.asked))
                del books.asked[(group, participant_id)]
                self._leasing.serve(group, books.participants[participant_id])
            elif books.arrived:
                queue = min(books.arrived, key=lambda one: one[0].key)
                del books.arrived[queue]
                self._leasing.match(*queue)
            elif books.stranded:
                self._leasing.check_stranded(books.stranded.pop(next(iter(books.stranded))))
            elif books.to_help:
                group = next(iter(books.to_help))
                del books.to_help[group]
                self._helping.look(group)
            else:
                return

    # Participants

    def _participant_online(self, event: ev.ParticipantOnline) -> None:
        participant = self._books.participant(event.participant_id)
        participant.slots = event.slots
        participant.takes_unpinned = event.takes_unpinned
        participant.overhang = participant.busy
        if participant.state is ParticipantState.RESTING and event.takes_unpinned:
            self._books.judge_all(participant)
        else:
            self._resting.left(participant)
            self._books.move_participant(participant, ParticipantState.ONLINE, "")
        self._leasing.send_elsewhere(participant)

    def _participant_offline(self, event: ev.ParticipantOffline) -> None:
        participant = self._books.participants.get(event.participant_id)
        if participant is None:
            return
        was_reachable = participant.is_reachable
        self._resting.left(participant)
        self._books.move_participant(participant, ParticipantState.OFFLINE, event.reason)
        if not was_reachable:
            return
        for job in self._books.jobs.values():  # also those that it is the fallback of
            if job.state.is_open:
                self._books.drop_asks(job, participant)
        self._attempts.lose_all(participant)
        self._leasing.send_elsewhere(participant)

    # Jobs

    def _job_planned(self, event: ev.JobPlanned) -> None:
        if event.job_id not in self._books.jobs:
            self._books.add_job(make_job(event, self._books.now_s))

    def _job_accepted(self, event: ev.JobAccepted) -> None:
        job = self._books.jobs.get(event.job_id)
        if job is None or job.state is not JobState.PLANNED:
            return
        self._books.accept_job(job)
        for item in job.items.values():
            if item.state is ItemState.WAITING:
                self._leasing.place(item)
            if not job.state.is_open:
                return
        self._endings.end_if_complete(job)

    def _job_dropped(self, event: ev.JobDropped) -> None:
        self._end_if_open(event.job_id, JobState.DROPPED, Failure(FailureKind.DROPPED, event.reason))

    def _job_cancelled(self, event: ev.JobCancelled) -> None:
        self._end_if_open(event.job_id, JobState.CANCELLED, Failure(FailureKind.CANCELLED, event.reason))

    def _prompt_ended(self, event: ev.PromptEnded) -> None:
        job = self._books.jobs.get(event.job_id)
        if event.failure is not None and job is not None and job.state is JobState.RUNNING:
            self._end_if_open(event.job_id, JobState.FAILED, event.failure)
            return
        if job is not None and job.state is JobState.RUNNING and self._endings.end_with_prompt(job):
            return
        failure = Failure(FailureKind.CANCELLED, "The prompt ended without needing it.")
        self._end_if_open(event.job_id, JobState.CANCELLED, failure)

    def _job_gathered(self, event: ev.JobGathered) -> None:
        job = self._books.jobs.get(event.job_id)
        if job is not None and not job.state.is_open:
            job.gathered = True
            if job.state is JobState.DONE:
                self._books.release_kept(job)

    def _job_forgotten(self, event: ev.JobForgotten) -> None:
        job = self._books.jobs.get(event.job_id)
        if job is not None and not job.state.is_open:
            if event.release:
                self._books.release_kept(job)
            del self._books.jobs[job.id]

    def _item_asked(self, event: ev.ItemAsked) -> None:
        job = self._books.jobs.get(event.job_id)
        group = None if job is None else job.groups.get(event.group)
        participant = self._books.participants.get(event.participant_id)
        if job is None or group is None or participant is None or not job.state.is_open:
            return
        is_known = participant.id in job.participants or participant.id == job.fallback_id
        if is_known and participant.takes_work and participant.id not in job.left_out:
            self._books.ask(group, participant)

    def _end_if_open(self, job_id: str, state: JobState, failure: Failure) -> None:
        job = self._books.jobs.get(job_id)
        if job is not None and job.state.is_open:
            self._endings.end_job(job, state, failure)

    # Time

    def _time_passed(self, _event: ev.TimePassed) -> None:
        while (subject := self._books.timers.take_due(self._books.now_s)) is not None:
            if isinstance(subject, Job):
                subject.waits_for_return = False
                self._leasing.check_stranded(subject)
            elif isinstance(subject, Group):
                self._books.to_help[subject] = None
            elif isinstance(subject, Participant):
                self._resting.wake(subject)
