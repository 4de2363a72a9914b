"""Waiting items, free slots and how they meet; and the ends of jobs, which may come of it when nobody is left."""

from __future__ import annotations

import heapq

from .ledger import Ledger
from .model import AttemptState, Failure, FailureKind, Item, ItemState, Job, JobState, Participant, Waits
from .selection import choose_holder

FALLBACK_AFTER_S = 1.5
"""How long a job with a fallback waits for a lost participant: doing its work twice costs little more than waiting."""


class Leasing:
    """Works on the machine's books. ``wait_for_return_s`` as for `machine.Machine`."""

    def __init__(self, books: Ledger, wait_for_return_s: float) -> None:
        self._books = books
        self._wait_for_return_s = wait_for_return_s
        self._deadlines: list[tuple[float, str]] = []

    def load(self, participant_id: str) -> int:
        """As `Machine.load`."""
        participant = self._books.participants.get(participant_id)
        if participant is None:
            return 0
        return participant.busy + len(participant.aimed) + participant.reserved

    # Ends

    def fail_job(self, job: Job, failure: Failure, item: Item) -> None:
        """Fails the job because of this one of its items."""
        item.error = failure
        self._books.close_item(item, ItemState.FAILED)
        self.end_job(job, JobState.FAILED, failure)

    def end_job(self, job: Job, state: JobState, failure: Failure | None) -> None:
        """Ends the job: stops all that is going on for it, releases all results kept for it."""
        for item in job.items.values():
            if item.state.is_open:
                self._books.close_item(item, ItemState.CANCELLED)
        self._books.close_job(job, state, failure)

    # Waiting

    def send_elsewhere(self, participant: Participant, items: list[Item]) -> None:
        """Queues again those of the items waiting for a participant that it cannot take any more."""
        for item in items:
            if item.waits is Waits.AIMED and not _can_be_aimed(item, participant):
                self.enqueue(item)

    def requeue(self, item: Item) -> None:
        """An item whose attempt ended badly: brought in from where a result is at hand, else to be run again."""
        self._books.move_item(item, ItemState.WAITING)
        item.fraction, item.label = 0.0, ""
        for attempt in item.attempts:
            is_spare = attempt.state is AttemptState.SPARE
            if is_spare and self._books.participants[attempt.participant_id].is_online:
                self._books.fetch(item, attempt)
                return
        self.enqueue(item)

    def enqueue(self, item: Item) -> None:
        """Decides for whom a waiting item waits; an item that has left its plan waits for anybody."""
        participant = self._books.participant(item.planned_for)
        if _can_be_aimed(item, participant) and (item.pinned or not item.attempts):
            self._books.queue(item, Waits.AIMED)
        elif not item.pinned:
            self._books.queue(item, Waits.FLOATING)
        else:
            reason = _reason(item.job, participant)
            failure = Failure(FailureKind.LOST, f"{participant.id} {reason}.", participant_id=participant.id)
            self.fail_job(item.job, failure, item)

    def settle(self) -> None:
        """Matches waiting items and free slots until nothing is left to match."""
        books = self._books
        while True:
            if books.freed:
                self._fill(books.participants[next(iter(books.freed))])
            elif books.arrived:
                item = books.arrived.popleft()
                if item.waits is not Waits.NOT:
                    self._try_lease(item)
            elif books.stranded:
                job = books.stranded.pop(next(iter(books.stranded)))
                self.check_stranded(job)
            else:
                return

    def _fill(self, participant: Participant) -> None:
        """Serves the items whose turn it is, until this participant is busy or no item may go to it."""
        books = self._books
        while participant.id in books.free:
            item = books.next_for(participant)
            if item is None or not self._try_lease(item):
                break
        books.freed.pop(participant.id, None)

    def _try_lease(self, item: Item) -> bool:
        holder_id = choose_holder(item, self._books.free, self.load)
        if holder_id is None:
            return False
        self._books.lease(item, self._books.participants[holder_id])
        return True

    # Nobody left

    def check_stranded(self, job: Job) -> None:
        """What becomes of unleased items that nobody can take, at once or when nobody has come back in time: the fallback
        gets them, or the job fails. A fallback that is not ready yet is waited for."""
        if job.state is not JobState.RUNNING or job.usable or not job.floating:
            return
        patience_s = min(self._wait_for_return_s, FALLBACK_AFTER_S) if job.has_fallback else self._wait_for_return_s
        deadline_s = max(
            (
                participant.offline_since_s + patience_s
                for participant in (self._books.participants[participant_id] for participant_id in job.participants)
                if participant.offline_since_s is not None
                and participant.takes_unpinned
                and participant.id not in job.left_out
            ),
            default=self._books.now_s,
        )
        if deadline_s > self._books.now_s:
            job.deadline_s = deadline_s
            heapq.heappush(self._deadlines, (deadline_s, job.id))
            return
        stranded = sorted((item for queue in job.floating.values() for item in queue), key=lambda item: item.index)
        if not job.has_fallback:
            self.fail_job(job, self._nobody(job, stranded[0]), stranded[0])
        elif job.fallback_ready:
            for item in stranded:
                self._books.lease(item, self._books.participant(str(job.fallback_id)))

    def _nobody(self, job: Job, item: Item) -> Failure:
        ids = [*job.participants, *(other for other in job.left_out if other not in job.participants)]
        reasons = "; ".join(f"{other} {_reason(job, self._books.participant(other))}" for other in ids)
        return Failure(FailureKind.NOBODY, f"Nobody can run item {item.index}: {reasons or 'no participant'}.")

    def next_deadline_s(self) -> float | None:
        """As `Machine.next_deadline_s`."""
        while self._deadlines:
            deadline_s, job_id = self._deadlines[0]
            job = self._books.jobs.get(job_id)
            if job is not None and job.deadline_s == deadline_s:
                return deadline_s
            heapq.heappop(self._deadlines)
        return None

    def check_deadlines(self) -> None:
        """Fails the jobs to which nobody came back in time."""
        while (deadline_s := self.next_deadline_s()) is not None and deadline_s <= self._books.now_s:
            _, job_id = heapq.heappop(self._deadlines)
            job = self._books.jobs[job_id]
            job.deadline_s = None
            self.check_stranded(job)


def _can_be_aimed(item: Item, participant: Participant) -> bool:
    """Whether an item may wait for the participant it was planned for."""
    if not item.pinned:
        return participant.id in item.job.usable
    return participant.is_online and participant.id in item.job.participants and participant.id not in item.job.left_out


def _reason(job: Job, participant: Participant) -> str:
    """Why a participant does not take the job's waiting items, to be put behind its name."""
    if participant.id in job.left_out:
        return f"was left out ({job.left_out[participant.id]})"
    if not participant.is_online:
        return f"is offline ({participant.reason})"
    if participant.id not in job.participants:
        return "does not take part"
    return "runs only what is pinned to it"
