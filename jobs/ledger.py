"""The books of the state machine: every record, every index over them, and the only functions that change a state.

Rules (who gets what, when a job fails) are in `machine`; here it is only seen to that all records agree at any time.
"""

from __future__ import annotations

from bisect import insort
from collections import deque

from .events import Event
from .instructions import FetchResult, FinishJob, Instruction, ItemChanged, ReleaseResult, SendLease, StopLease
from .model import (
    OPEN_ATTEMPT,
    SLOT_HOLDING,
    Attempt,
    AttemptState,
    Failure,
    Item,
    ItemState,
    Job,
    JobState,
    Participant,
    ParticipantState,
    Waits,
)
from .queues import ItemQueue
from .selection import may_take
from .transitions import ATTEMPT_TRANSITIONS, ITEM_TRANSITIONS, JOB_TRANSITIONS, InvalidTransition


class Ledger:
    """All records. ``now_s`` is the time of the event being handled.

    Three lists of things to look at are left for the machine: ``freed`` (participants with room), ``arrived`` (items
    that began to wait) and ``stranded`` (jobs that may have nobody left). They are empty between events.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.jobs: dict[str, Job] = {}
        self.participants: dict[str, Participant] = {}
        self.free: dict[str, None] = {}
        self.freed: dict[str, None] = {}
        self.arrived: deque[Item] = deque()
        self.stranded: dict[str, Job] = {}
        self._accepted = 0
        self._floating_jobs: dict[int, Job] = {}
        self._floating_order: list[int] = []
        self._commands: list[Instruction] = []
        self._changed: dict[tuple[str, int], None] = {}
        self._finished: list[FinishJob] = []

    # Instructions

    def take_instructions(self) -> list[Instruction]:
        """What came of this event: commands in order, then changed items, then ended jobs."""
        changed = [ItemChanged(job_id, index) for job_id, index in self._changed]
        taken = [*self._commands, *changed, *self._finished]
        self._commands, self._changed, self._finished = [], {}, []
        return taken

    def order(self, command: Instruction) -> None:
        """Adds a command to what comes of this event."""
        self._commands.append(command)

    def changed(self, item: Item) -> None:
        """Notes that something that can be seen of the item is different."""
        self._changed[(item.job.id, item.index)] = None

    # Participants

    def participant(self, participant_id: str) -> Participant:
        """The record, made on first mention."""
        found = self.participants.get(participant_id)
        if found is None:
            found = self.participants[participant_id] = Participant(participant_id)
        return found

    def put_online(self, participant: Participant, slots: int, takes_unpinned: bool) -> None:
        """Online, or online still with other terms."""
        participant.state = ParticipantState.ONLINE
        participant.slots = slots
        participant.takes_unpinned = takes_unpinned
        participant.overhang = participant.busy
        participant.reason = ""
        participant.offline_since_s = None
        for job in participant.jobs.values():
            self.judge(job, participant)
        self._count_room(participant)

    def put_offline(self, participant: Participant, reason: str) -> None:
        """Offline; what it holds and what waits for it must then be moved by the caller."""
        participant.state = ParticipantState.OFFLINE
        participant.reason = reason
        participant.offline_since_s = self.now_s
        for job in participant.jobs.values():
            self.judge(job, participant)
        self._count_room(participant)

    def judge(self, job: Job, participant: Participant) -> None:
        """Brings `Job.usable` in line with what the participant is now."""
        usable = participant.is_online and participant.takes_unpinned and participant.id not in job.left_out
        if usable == (participant.id in job.usable):
            return
        if usable:
            job.usable.add(participant.id)
            job.deadline_s = None
            return
        job.usable.discard(participant.id)
        # Whoever has failed an item may take it again once nobody else is left.
        for failed_by, queue in job.floating.items():
            if job.usable <= failed_by:
                self.arrived.extend(queue)
        if job.floating and not job.usable:
            self.stranded[job.id] = job

    def leave_out(self, job: Job, participant: Participant, reason: str) -> None:
        """Bars a participant from a job; what waits for it there must then be moved by the caller."""
        job.left_out.setdefault(participant.id, reason)
        self.judge(job, participant)

    def _count_room(self, participant: Participant) -> None:
        if participant.is_online and participant.busy < participant.slots:
            self.free[participant.id] = None
            self.freed[participant.id] = None
        else:
            self.free.pop(participant.id, None)
            self.freed.pop(participant.id, None)

    # Jobs

    def add_job(self, job: Job) -> None:
        """A planned job with all its items: from now on its items weigh on the participants they are planned for."""
        self.jobs[job.id] = job
        job.unfinished = len(job.items)
        for participant_id in job.participants:
            participant = self.participant(participant_id)
            participant.jobs[job.id] = job
            self.judge(job, participant)
        for item in job.items.values():
            self.participant(item.planned_for).reserved += 1

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
                self.participants[item.planned_for].reserved -= 1
        job.state = to

    def close_job(self, job: Job, to: JobState, failure: Failure | None) -> None:
        """Ends a job whose items have all been closed."""
        self.move_job(job, to)
        job.ended_s = self.now_s
        job.failure = failure
        job.deadline_s = None
        job.usable.clear()
        for participant_id in job.participants:
            del self.participants[participant_id].jobs[job.id]
        self._finished.append(FinishJob(job.id, to, failure))

    # Items

    def move_item(self, item: Item, to: ItemState) -> None:
        """Sets an item's state and takes it out of any queue. Raises `InvalidTransition`."""
        if (item.state, to) not in ITEM_TRANSITIONS:
            story = [entry for entry in item.job.story if getattr(entry[1], "index", item.index) == item.index]
            name = f"Item {item.index} of job {item.job.id}"
            raise InvalidTransition(f"{name} cannot go from {item.state.value} to {to.value}.", story=story)
        self._leave_queue(item)
        item.state = to
        if not to.is_open:
            item.job.unfinished -= 1
        self.changed(item)

    def close_item(self, item: Item, to: ItemState, winner: Attempt | None = None) -> None:
        """Ends an item: whatever else works on it is stopped, every result kept for it is released."""
        if winner is not None:
            self.move_attempt(item, winner, AttemptState.DONE)
            winner.error = None
            item.winner, item.result = winner, winner.result
        for attempt in item.attempts:
            self.stop(item, attempt)
            if attempt.holds_result:
                self._release(item, attempt)
        self.move_item(item, to)

    def queue(self, item: Item, waits: Waits) -> None:
        """Puts a waiting item of a running job in a queue."""
        self._leave_queue(item)
        item.waits = waits
        self.arrived.append(item)
        job = item.job
        if waits is Waits.AIMED:
            self.participants[item.planned_for].aimed.add(item)
            return
        if not job.floating:
            self._floating_jobs[job.seq] = job
            insort(self._floating_order, job.seq)
        job.floating.setdefault(item.failed_by, ItemQueue()).add(item)
        if not job.usable:
            self.stranded[job.id] = job

    def floating_jobs(self) -> dict[int, Job]:
        """Jobs with floating items by their place in the order of acceptance, earliest first."""
        return {seq: self._floating_jobs[seq] for seq in self._floating_order}

    def _leave_queue(self, item: Item) -> None:
        if item.waits is Waits.AIMED:
            self.participants[item.planned_for].aimed.discard(item)
        elif item.waits is Waits.FLOATING:
            job = item.job
            queue = job.floating[item.failed_by]
            queue.discard(item)
            if not queue:
                del job.floating[item.failed_by]
            if not job.floating:
                del self._floating_jobs[job.seq]
                self._floating_order.remove(job.seq)
        item.waits = Waits.NOT

    def next_for(self, participant: Participant) -> Item | None:
        """The waiting item whose turn it is when this participant has room.

        Jobs with floating items that this participant may not take are passed over one by one; there are some only
        while jobs list unlike participants and others are too busy to take what was lost.
        """
        aimed = participant.aimed.first()
        for seq in self._floating_order:
            if aimed is not None and aimed.job.seq < seq:
                break
            job = self._floating_jobs[seq]
            if participant.id not in job.usable:
                continue
            heads = [queue.first() for queue in job.floating.values()]
            candidates = [item for item in heads if item is not None and may_take(item, participant.id)]
            if aimed is not None:
                candidates.append(aimed)
            if candidates:
                return min(candidates, key=lambda item: item.key)
        return aimed

    # Attempts

    def lease(self, item: Item, participant: Participant) -> None:
        """Gives a waiting item to a participant with room."""
        attempt = Attempt(len(item.attempts) + 1, participant.id, AttemptState.LEASED, self.now_s)
        item.attempts.append(attempt)
        self.move_item(item, ItemState.LEASED)
        self._enter(item, attempt, AttemptState.LEASED)
        self.order(SendLease(participant.id, item.job.id, item.index, attempt.number))

    def fetch(self, item: Item, attempt: Attempt) -> None:
        """Has the result that this attempt offers brought over."""
        self.move_attempt(item, attempt, AttemptState.FETCHING)
        self.move_item(item, ItemState.FETCHING)
        item.fraction = 1.0
        self.order(FetchResult(attempt.participant_id, item.job.id, item.index, attempt.number, attempt.result))

    def stop(self, item: Item, attempt: Attempt) -> None:
        """Ends an attempt that is not needed. One that got lost is stopped too where its participant is back."""
        state = attempt.state
        lost_but_back = state is AttemptState.LOST and self.participants[attempt.participant_id].is_online
        if state in SLOT_HOLDING or lost_but_back:
            self.order(StopLease(attempt.participant_id, item.job.id, item.index, attempt.number))
        if state in OPEN_ATTEMPT or state is AttemptState.SPARE or lost_but_back:
            self.move_attempt(item, attempt, AttemptState.STOPPED)

    def move_attempt(self, item: Item, attempt: Attempt, to: AttemptState) -> None:
        """Sets an attempt's state and everything that follows from it. Raises `InvalidTransition`."""
        if (attempt.state, to) not in ATTEMPT_TRANSITIONS:
            name = f"Attempt {attempt.number} of item {item.index} of job {item.job.id}"
            raise InvalidTransition(
                f"{name} cannot go from {attempt.state.value} to {to.value}.",
                story=self.participants[attempt.participant_id].story,
            )
        self._enter(item, attempt, to)

    def _enter(self, item: Item, attempt: Attempt, to: AttemptState) -> None:
        """Sets an attempt's state, and with it who holds the item and how many slots are taken."""
        participant = self.participants[attempt.participant_id]
        held = item.live is attempt
        was_busy = held and attempt.state in SLOT_HOLDING
        attempt.state = to
        self.changed(item)
        if to in OPEN_ATTEMPT and not held:
            item.live = attempt
            item.fraction, item.label = 0.0, ""
            participant.held[item] = attempt
            attempt.ended_s = None
        elif held and to not in OPEN_ATTEMPT:
            item.live = None
            del participant.held[item]
            attempt.ended_s = self.now_s
        if was_busy != (to in SLOT_HOLDING):
            participant.busy += -1 if was_busy else 1
            self._count_room(participant)

    def _release(self, item: Item, attempt: Attempt) -> None:
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
