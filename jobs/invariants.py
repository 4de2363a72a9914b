"""What must hold between any two events, checked over all records. For tests and for hunting a bug, not for every day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from .ledger import Ledger
from .model import (
    OPEN_ATTEMPT,
    SLOT_HOLDING,
    AttemptState,
    Item,
    ItemState,
    Job,
    JobState,
    Participant,
    Waits,
)
from .selection import choose_holder
from .transitions import InvariantBroken

_LIVE_STATE = {
    ItemState.LEASED: AttemptState.LEASED,
    ItemState.RUNNING: AttemptState.RUNNING,
    ItemState.FETCHING: AttemptState.FETCHING,
}


def validate(books: Ledger, load: Callable[[str], int]) -> None:
    """Raises `InvariantBroken`, with the subject's story, if any two records contradict each other."""
    if books.freed or books.arrived or books.stranded:
        raise InvariantBroken("The machine stopped before everything was settled.")
    for job in books.jobs.values():
        _check_job(books, job)
        for item in job.items.values():
            _check_item(books, item, load)
    for participant in books.participants.values():
        _check_participant(books, participant)


def _check_job(books: Ledger, job: Job) -> None:
    def must(holds: bool, what: str) -> None:
        if not holds:
            raise InvariantBroken(f"Job {job.id}, {job.state.value}: {what}.", story=job.story)

    states = Counter(item.state for item in job.items.values())
    is_open = sum(count for state, count in states.items() if state.is_open)
    floating = {index for index, item in job.items.items() if item.waits is Waits.FLOATING}
    in_order = bool(job.floating) == (books.floating_jobs().get(job.seq) is job)
    must(in_order, "its place among jobs with floating items is out of date")
    must(job.unfinished == is_open, "the count of unfinished items is wrong")
    queued = [item for queue in job.floating.values() for item in queue]
    must({item.index for item in queued} == floating, "the floating items are not in queue")
    must(len(queued) == len(floating), "an item floats twice")
    for failed_by, queue in job.floating.items():
        must(all(item.failed_by == failed_by for item in queue) and bool(queue), "an item is in a wrong queue")
    if job.state is JobState.PLANNED:
        must(states[ItemState.WAITING] == len(job.items), "an item was touched before the job was accepted")
    if job.state is JobState.DONE:
        must(states[ItemState.DONE] == len(job.items), "it is done without all its items")
    if job.state is JobState.RUNNING:
        must(bool(is_open), "it runs without an open item")
        waited_for = job.deadline_s is not None or (job.has_fallback and not job.fallback_ready)
        must(bool(job.usable) or not floating or waited_for, "nobody is left and it does not end")
    if job.state.is_open:
        usable = {
            participant_id
            for participant_id in job.participants
            if books.participants[participant_id].is_online
            and books.participants[participant_id].takes_unpinned
            and participant_id not in job.left_out
        }
        must(job.usable == usable, "who may take its items is out of date")
        must(job.ended_s is None and job.failure is None, "it is open and has ended")
    else:
        must(not is_open and not job.usable and job.deadline_s is None, "it has ended and is not cleaned up")
        must(job.ended_s is not None, "it has ended at no time")
        must((job.failure is None) == (job.state is JobState.DONE), "it has a failure or lacks one")


def _check_item(books: Ledger, item: Item, load: Callable[[str], int]) -> None:
    def must(holds: bool, what: str) -> None:
        if not holds:
            name = f"Item {item.index} of job {item.job.id}, {item.state.value}"
            raise InvariantBroken(f"{name}: {what}.", story=item.job.story)

    live = [attempt for attempt in item.attempts if attempt.state in OPEN_ATTEMPT]
    must([attempt.number for attempt in item.attempts] == [*range(1, len(item.attempts) + 1)], "attempts misnumbered")
    must(live == ([item.live] if item.live else []), "the live attempt is not the only open one")
    expected = _LIVE_STATE.get(item.state)
    must(expected == (item.live.state if item.live else None), "its state is not that of its attempt")
    if item.live is not None:
        holder = books.participants.get(item.live.participant_id)
        must(holder is not None and holder.is_online, "it is leased to nobody")
        must(holder is not None and holder.held.get(item) is item.live, "its holder does not know")
    for attempt in item.attempts:
        must(not attempt.holds_result or item.state.is_open, "a result is kept that nobody will take")
        if attempt.state in (AttemptState.FETCHING, AttemptState.SPARE):
            must(attempt.holds_result, "a result is to be fetched that nobody keeps")
    done = [attempt for attempt in item.attempts if attempt.state is AttemptState.DONE]
    must((item.state is ItemState.DONE) == (len(done) == 1), "it is done without one result")
    must(done == ([item.winner] if item.winner else []), "its result came from nowhere")
    must((item.state is ItemState.FAILED) == (item.error is not None), "it failed without a reason")
    must(item.failures < item.job.max_attempts or item.state is not ItemState.WAITING, "it is tried once too often")
    waits = item.state is ItemState.WAITING and item.job.state is JobState.RUNNING
    must(waits == (item.waits is not Waits.NOT), "it waits in no queue, or is in one without waiting")
    if waits:
        must(choose_holder(item, books.free, load) is None, "it waits although somebody is free to take it")
    if item.waits is Waits.AIMED:
        aim = books.participants[item.planned_for]
        must(item in aim.aimed, "it waits for somebody who does not know")
        usable = aim.id in item.job.participants and aim.id not in item.job.left_out and aim.is_online
        must(usable and (item.pinned or aim.takes_unpinned), "it waits for somebody who will not take it")
    if item.pinned:
        must(item.waits is not Waits.FLOATING, "a pinned item floats")
        must(all(attempt.participant_id == item.planned_for for attempt in item.attempts), "a pinned item was moved")


def _check_participant(books: Ledger, participant: Participant) -> None:
    def must(holds: bool, what: str) -> None:
        if not holds:
            raise InvariantBroken(
                f"Participant {participant.id}, {participant.state.value}: {what}.", story=participant.story
            )

    busy = sum(attempt.state in SLOT_HOLDING for attempt in participant.held.values())
    must(participant.busy == busy, "its leases do not match its count")
    must(busy <= max(participant.slots, participant.overhang), "it holds more leases than it has slots")
    must(participant.is_online or not participant.held, "it holds leases though it is offline")
    must(participant.is_online or not len(participant.aimed), "items wait for it though it is offline")
    must(all(item.live is attempt for item, attempt in participant.held.items()), "it holds what is not its own")
    must(all(item.waits is Waits.AIMED for item in participant.aimed), "an item is in its queue without waiting for it")
    room = participant.is_online and busy < participant.slots
    must((participant.id in books.free) == room, "whether it has room is out of date")
    reserved = sum(
        item.planned_for == participant.id
        for job in books.jobs.values()
        if job.state is JobState.PLANNED
        for item in job.items.values()
    )
    must(participant.reserved == reserved, "its reservations do not match the planned jobs")
    listed = {job.id for job in books.jobs.values() if job.state.is_open and participant.id in job.participants}
    must(set(participant.jobs) == listed, "its jobs are out of date")
