"""The books of the state machine: every record, every index over them, and the only functions that change a state.

Rules (who gets what, when a job fails) are elsewhere; here it is only seen to that all records agree at any time.
"""

from __future__ import annotations

from .events import Event
from .instructions import FetchResult, FinishJob, KeepResult, ReleaseResult, SendLease, StopLease
from .model import Attempt, Failure, Group, Item, Job, Participant
from .outbox import Outbox
from .states import AT_WORK, LEADS, OPEN_ATTEMPT, AttemptState, ItemState, JobState, ParticipantState, Waits
from .timers import Timers
from .transitions import (
    ATTEMPT_TRANSITIONS,
    ITEM_TRANSITIONS,
    JOB_TRANSITIONS,
    PARTICIPANT_TRANSITIONS,
    InvalidTransition,
)
from .waiting import WaitingRoom


class Ledger(Outbox):
    """All records. ``now_s`` is the time of the event being handled.

    Lists of things to look at are left for the rules, and are empty between events: ``freed`` (participants with room),
    ``asked`` (new asks), ``arrived`` (queues that items joined), ``stranded`` (jobs that may have nobody left) and
    ``to_help`` (groups that idle participants may be able to help).
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.jobs: dict[str, Job] = {}
        self.participants: dict[str, Participant] = {}
        self.waiting = WaitingRoom(self.participants)
        self.timers = Timers()
        self.free: dict[str, None] = {}  # participants with room
        self.idle: dict[str, None] = {}  # those of them that have nothing to do
        self.at_work: dict[Group, None] = {}  # groups that somebody works on
        self.freed: dict[str, None] = {}
        self.asked: dict[tuple[Group, str], None] = {}
        self.arrived: dict[tuple[Group, frozenset[str]], None] = {}
        self.stranded: dict[str, Job] = {}
        self.to_help: dict[Group, None] = {}
        self._accepted = 0

    # Participants

    def participant(self, participant_id: str) -> Participant:
        """The record, made on first mention."""
        found = self.participants.get(participant_id)
        if found is None:
            found = self.participants[participant_id] = Participant(participant_id)
        return found

    def move_participant(self, participant: Participant, to: ParticipantState, reason: str) -> None:
        """Sets a participant's state and the reason for it. Raises `InvalidTransition`.

        What it holds and what waits for it must then be moved by the caller.
        """
        self.changes(participant)
        if to is not participant.state:
            if (participant.state, to) not in PARTICIPANT_TRANSITIONS:
                raise InvalidTransition(
                    f"Participant {participant.id} cannot go from {participant.state.value} to {to.value}.",
                    story=participant.story,
                )
            is_gone = to is ParticipantState.OFFLINE
            participant.state = to
            participant.offline_since_s = self.now_s if is_gone else None
        participant.reason = reason
        self.judge_all(participant)

    def judge_all(self, participant: Participant) -> None:
        """Brings all indexes in line with what the participant is now."""
        for job in participant.jobs.values():
            self.judge(job, participant)
        self._count_room(participant)

    def judge(self, job: Job, participant: Participant) -> None:
        """Brings `Job.usable` in line with what the participant is now."""
        usable = participant.takes_work and participant.takes_unpinned and participant.id not in job.left_out
        if usable == (participant.id in job.usable):
            return
        if usable:
            job.usable.add(participant.id)
            job.waits_for_return = False
            self.timers.clear(job)
            return
        job.usable.discard(participant.id)
        self._fewer(job)

    def leave_out(self, job: Job, participant: Participant, reason: str) -> None:
        """Bars a participant from a job; what waits for it there must then be moved by the caller."""
        job.left_out.setdefault(participant.id, reason)
        self.judge(job, participant)
        self.drop_asks(job, participant)

    def _fewer(self, job: Job) -> None:
        """Somebody fewer may take the job's items: whoever has failed one may take it again once no other is left."""
        for group in job.groups.values():
            for failed_by in group.floating:
                if failed_by:
                    self.arrived[(group, failed_by)] = None
        if not job.usable and job.floats:
            self.stranded[job.id] = job

    def _count_room(self, participant: Participant) -> None:
        if participant.takes_work and participant.busy < participant.slots:
            self.free[participant.id] = None
            self.freed[participant.id] = None
        else:
            self.free.pop(participant.id, None)
            self.freed.pop(participant.id, None)
        if participant.id in self.free and not participant.busy and participant.takes_unpinned:
            self.idle[participant.id] = None
        else:
            self.idle.pop(participant.id, None)

    # Asks

    def ask(self, group: Group, participant: Participant) -> None:
        """This participant would take an item of the group."""
        group.asks[participant.id] = group.askers[participant.id] = None
        self.asked[(group, participant.id)] = None

    def drop_asks(self, job: Job, participant: Participant) -> None:
        """This participant takes no items by asking any more."""
        dropped = False
        for group in job.groups.values():
            group.asks.pop(participant.id, None)
            dropped |= group.askers.pop(participant.id, 0) is None
        if dropped:
            self._fewer(job)

    # Jobs

    def add_job(self, job: Job) -> None:
        """A planned job with all its items: from now on its items weigh on the participants they are aimed at."""
        self.jobs[job.id] = job
        for participant_id in job.participants:
            self._enlist(job, self.participant(participant_id))
        for item in job.items.values():
            self.reserve(item)

    def join(self, job: Job, participant: Participant) -> None:
        """The job has one more participant, which may have room, or may have asked for its items as the fallback."""
        job.left_out.pop(participant.id, None)
        job.participants[participant.id] = len(job.participants)
        self._enlist(job, participant)
        self._count_room(participant)
        for group in job.groups.values():
            if participant.id in group.asks:
                self.asked[(group, participant.id)] = None

    def _enlist(self, job: Job, participant: Participant) -> None:
        participant.jobs[job.id] = job
        self.judge(job, participant)

    def reserve(self, item: Item) -> None:
        """While its job is planned, an item weighs on the participant it is aimed at."""
        participant = self.participant(item.planned_for)
        if item.job.state is JobState.PLANNED:
            participant.reserved += not item.pulled

    def accept_job(self, job: Job) -> None:
        """The job's place in the order is fixed; its items are still to be put in queues."""
        self.move_job(job, JobState.RUNNING)
        self._accepted += 1
        job.seq = self._accepted
        job.accepted_s = self.now_s

    def move_job(self, job: Job, to: JobState) -> None:
        """Sets a job's state. Raises `InvalidTransition`."""
        if (job.state, to) not in JOB_TRANSITIONS:
            raise InvalidTransition(f"Job {job.id} cannot go from {job.state.value} to {to.value}.", story=job.story)
        if job.state is JobState.PLANNED:
            for item in job.items.values():
                self.participants[item.planned_for].reserved -= not item.pulled
        job.state = to

    def close_job(self, job: Job, to: JobState, failure: Failure | None) -> None:
        """Ends a job whose items have all been closed."""
        self.move_job(job, to)
        job.ended_s = self.now_s
        job.failure = failure
        job.usable.clear()
        job.waits_for_return = False
        self.timers.clear(job)
        for group in job.groups.values():
            group.asks.clear()
            group.askers.clear()
            self.timers.clear(group)
        for participant_id in job.participants:
            del self.participants[participant_id].jobs[job.id]
        if not to.wants_results:
            self.release_kept(job)
        for index, offers in job.early.items():
            for (number, participant_id), result in offers.items():
                self.order(ReleaseResult(participant_id, job.id, index, number, result))
        job.early.clear()
        self.finished(FinishJob(job.id, to, failure))

    def release_kept(self, job: Job) -> None:
        """Nobody needs the results of this job any more."""
        for item in job.items.values():
            if item.winner is not None and item.winner.holds_result:
                self._release(item.winner)

    # Items

    def move_item(self, item: Item, to: ItemState) -> None:
        """Sets an item's state and takes it out of any queue. Raises `InvalidTransition`."""
        if (item.state, to) not in ITEM_TRANSITIONS:
            story = [entry for entry in item.job.story if getattr(entry[1], "index", item.index) == item.index]
            name = f"Item {item.index} of job {item.job.id}"
            raise InvalidTransition(f"{name} cannot go from {item.state.value} to {to.value}.", story=story)
        self.waiting.leave(item)
        item.state = to
        if not to.is_open:
            item.job.unfinished -= 1
            item.group.unfinished -= 1
            item.group.done += to is ItemState.DONE
        self.changed(item)

    def follow(self, item: Item) -> bool:
        """Gives an item the state of its leading attempt. False if nobody is at it."""
        leading = item.leading
        if leading is None:
            return False
        state = LEADS[leading.state]
        if item.state is not state:
            self.move_item(item, state)
        return True

    def close_item(self, item: Item, to: ItemState, winner: Attempt | None = None) -> None:
        """Ends an item: the winner's result is kept, whatever else works on it is stopped and its results released."""
        if winner is not None:
            self.move_attempt(winner, AttemptState.DONE)
            winner.error = None
            item.winner = winner
            self.keep(winner)
        for attempt in item.attempts:
            self.stop(attempt)
            if attempt.holds_result and attempt is not winner:
                self._release(attempt)
        self.move_item(item, to)

    def queue(self, item: Item, waits: Waits) -> None:
        """Puts a waiting item of a running job in a queue."""
        self.waiting.leave(item)
        self.waiting.enter(item, waits)
        if waits is Waits.AIMED:
            if item.planned_for in self.free:
                self.freed[item.planned_for] = None
            return
        self.arrived[(item.group, item.failed_by)] = None
        if not item.job.usable:
            self.stranded[item.job.id] = item.job

    # Attempts

    def recall(self, item: Item, number: int, participant_id: str) -> Attempt:
        """Records an attempt of an earlier life of the job whose result is at hand."""
        self.participant(participant_id)
        attempt = Attempt(item, number, participant_id, AttemptState.SPARE, self.now_s, ended_s=self.now_s)
        item.attempts.insert(0, attempt)
        self.changed(item)
        return attempt

    def lease(self, item: Item, participant: Participant, *, asked: bool = False) -> None:
        """Gives an item to a participant with room, or to one that asked: then it ends that ask."""
        item.last_number += 1
        item.group.left_s = None
        attempt = Attempt(item, item.last_number, participant.id, AttemptState.LEASED, self.now_s, asked)
        item.attempts.append(attempt)
        if asked:
            del item.group.asks[participant.id]
        self._enter(attempt, AttemptState.LEASED)
        self.follow(item)
        self.order(SendLease(participant.id, item.job.id, item.index, attempt.number))

    def begin(self, attempt: Attempt) -> None:
        """The participant works on it now."""
        self.move_attempt(attempt, AttemptState.RUNNING)
        attempt.started_s = self.now_s
        self.follow(attempt.item)

    def fetch(self, attempt: Attempt) -> None:
        """Has the result that this attempt offers brought over. Copies that have not begun are stopped, others go on."""
        item = attempt.item
        for other in item.live:
            if other is not attempt and other.state is AttemptState.LEASED:
                self.stop(other)
        self.move_attempt(attempt, AttemptState.FETCHING)
        attempt.fraction = 1.0
        attempt.was_sent_for = True
        self.follow(item)
        self.order(FetchResult(attempt.participant_id, item.job.id, item.index, attempt.number, attempt.result))

    def stop(self, attempt: Attempt) -> None:
        """Ends an attempt that is not needed. One that got lost is stopped too where its participant is back."""
        state = attempt.state
        lost_but_back = state is AttemptState.LOST and self.participants[attempt.participant_id].is_reachable
        if state in AT_WORK or lost_but_back:
            self.order(StopLease(attempt.participant_id, attempt.item.job.id, attempt.item.index, attempt.number))
        if state in OPEN_ATTEMPT or state is AttemptState.SPARE or lost_but_back:
            self.move_attempt(attempt, AttemptState.STOPPED)

    def move_attempt(self, attempt: Attempt, to: AttemptState) -> None:
        """Sets an attempt's state, not yet its item's. Raises `InvalidTransition`."""
        if (attempt.state, to) not in ATTEMPT_TRANSITIONS:
            name = f"Attempt {attempt.number} of item {attempt.item.index} of job {attempt.item.job.id}"
            raise InvalidTransition(
                f"{name} cannot go from {attempt.state.value} to {to.value}.",
                story=self.participants[attempt.participant_id].story,
            )
        self._enter(attempt, to)

    def _enter(self, attempt: Attempt, to: AttemptState) -> None:
        """Sets an attempt's state, and with it who holds the item and how many slots are taken."""
        item, participant = attempt.item, self.participants[attempt.participant_id]
        was_live = attempt in participant.held
        was_at_work = was_live and attempt.state in AT_WORK
        attempt.state = to
        self.changed(item)
        if to in OPEN_ATTEMPT and not was_live:
            item.live += (attempt,)
            participant.held[attempt] = None
            attempt.ended_s = None
            attempt.fraction, attempt.label = 0.0, ""
        elif was_live and to not in OPEN_ATTEMPT:
            item.live = tuple(other for other in item.live if other is not attempt)
            del participant.held[attempt]
            attempt.ended_s = self.now_s
        if was_at_work != (to in AT_WORK):
            self._count_work(attempt, participant, begins=not was_at_work)

    def _count_work(self, attempt: Attempt, participant: Participant, *, begins: bool) -> None:
        group = attempt.item.group
        if not attempt.asked:
            participant.busy += 1 if begins else -1
        if not begins:
            participant.free_since_s = self.now_s
        if not attempt.item.pinned and begins:
            group.at_work[attempt] = None
            if group not in self.at_work:
                self.at_work[group] = None
                self.to_help[group] = None
        elif not attempt.item.pinned:
            del group.at_work[attempt]
            if not group.at_work:
                del self.at_work[group]
        self._count_room(participant)

    def keep(self, attempt: Attempt) -> None:
        """Says that the result has arrived and is to be kept."""
        item = attempt.item
        self.order(KeepResult(attempt.participant_id, item.job.id, item.index, attempt.number))

    def _release(self, attempt: Attempt) -> None:
        item = attempt.item
        self.order(
            ReleaseResult(attempt.participant_id, item.job.id, item.index, attempt.number, result=attempt.result)
        )
        attempt.result, attempt.holds_result = None, False

    # Stories

    def remember(self, event: Event) -> None:
        """Adds an event to the stories of its subjects."""
        entry = (self.now_s, event)
        job = self.jobs.get(getattr(event, "job_id", ""))
        if job is not None:
            job.story.append(entry)
        participant = self.participants.get(getattr(event, "participant_id", ""))
        if participant is not None:
            participant.story.append(entry)
