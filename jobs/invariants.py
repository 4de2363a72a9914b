"""What must hold between any two events, checked over all records. For tests and for hunting a bug, not for every day."""

from __future__ import annotations

from collections import Counter

from .forecast import STALL_MIN_S
from .ledger import Ledger
from .model import MAX_COPIES, Attempt, Group, Item, Job, Participant
from .selection import may_ask, open_to_asks, takers
from .states import (
    AT_WORK,
    LEADS,
    OPEN_ATTEMPT,
    AttemptState,
    ItemState,
    JobState,
    ParticipantState,
    Waits,
)
from .transitions import InvariantBroken

_WITH_FAILURE = frozenset({JobState.PARTIAL, JobState.FAILED, JobState.CANCELLED, JobState.DROPPED})


def validate(books: Ledger) -> None:
    """Raises `InvariantBroken`, with the subject's story, if any two records contradict each other."""
    if books.freed or books.asked or books.arrived or books.stranded or books.to_help:
        raise InvariantBroken("The machine stopped before everything was settled.")
    at_work = {group for job in books.jobs.values() for group in job.groups.values() if group.at_work}
    if set(books.at_work) != at_work:
        raise InvariantBroken("The groups that somebody works on are out of date.")
    for job in books.jobs.values():
        _check_job(books, job)
        for group in job.groups.values():
            _check_group(books, group)
        for item in job.items.values():
            _check_item(books, item)
    for participant in books.participants.values():
        _check_participant(books, participant)


def _check_job(books: Ledger, job: Job) -> None:
    def must(holds: bool, what: str) -> None:
        if not holds:
            raise InvariantBroken(f"Job {job.id}, {job.state.value}: {what}.", story=job.story)

    states = Counter(item.state for item in job.items.values())
    is_open = sum(count for state, count in states.items() if state.is_open)
    must(job.unfinished == is_open, "the count of unfinished items is wrong")
    must(job.waits_for_return == (job in books.timers), "it waits for somebody without an end, or for nobody")
    if job.state is JobState.PLANNED:
        must(
            states[ItemState.WAITING] + states[ItemState.HELD] == len(job.items),
            "an item was touched before the job was accepted",
        )
    if job.state is JobState.DONE:
        must(states[ItemState.DONE] == len(job.items), "it is done without all its items")
    if job.state is JobState.PARTIAL:
        must(states[ItemState.DONE] + states[ItemState.FAILED] == len(job.items), "it left an item behind")
        must(all(group.partial for group in job.groups.values() if group.done < group.items), "it may not be partial")
        must(all(group.done or not group.items for group in job.groups.values()), "a whole stage is missing")
    if job.state is JobState.RUNNING:
        must(bool(is_open) or job.is_late, "it runs without an open item")
        has_hope = all(
            (job.has_fallback or group.askers) and open_to_asks(group, failed_by)
            for group in job.groups.values()
            for failed_by in group.floating
        )
        must(bool(job.usable) or job.waits_for_return or has_hope, "nobody is left and it does not end")
    if job.state.is_open:
        usable = {
            participant_id
            for participant_id in job.participants
            if books.participants[participant_id].takes_work
            and books.participants[participant_id].takes_unpinned
            and participant_id not in job.left_out
        }
        must(job.usable == usable, "who may take its items is out of date")
        must(job.ended_s is None and job.failure is None, "it is open and has ended")
        must(not any(index in job.items for index in job.early), "a result was noted as early, and its item is there")
    else:
        must(not job.early, "results of items that were never added are kept")
        must(not is_open and not job.usable and not job.waits_for_return, "it has ended and is not cleaned up")
        must(job.ended_s is not None, "it has ended at no time")
        must((job.failure is not None) == (job.state in _WITH_FAILURE), "it has a failure or lacks one")


def _check_group(books: Ledger, group: Group) -> None:
    job = group.job

    def must(holds: bool, what: str) -> None:
        if not holds:
            raise InvariantBroken(f"Group {group.number} of job {job.id}: {what}.", story=job.story)

    items = [item for item in job.items.values() if item.group is group]
    must(group.items == len(items), "the count of items is wrong")
    must(group.unfinished == sum(item.state.is_open for item in items), "the count of unfinished items is wrong")
    must(group.done == sum(item.state is ItemState.DONE for item in items), "the count of results is wrong")
    floating = {item.index for item in items if item.waits is Waits.FLOATING}
    queued = [item for queue in group.floating.values() for item in queue]
    must({item.index for item in queued} == floating, "the floating items are not in queue")
    must(group.waiting == len(queued) == len(floating), "an item floats twice, or is not counted")
    must((group in list(books.waiting)) == bool(floating), "its place among groups with floating items is out of date")
    for failed_by, queue in group.floating.items():
        must(all(item.failed_by == failed_by for item in queue) and bool(queue), "an item is in a wrong queue")
    at_work = {attempt for item in items if not item.pinned for attempt in item.attempts if attempt.state in AT_WORK}
    must(set(group.at_work) == at_work, "what is being worked on is out of date")
    must(job.state.is_open or not (group.asks or group.askers or group in books.timers), "an ended job is looked at")
    for asker in group.asks:
        must(asker in group.askers, "somebody asks who never asked")
    for asker in group.askers:
        must(books.participants[asker].is_reachable and asker not in job.left_out, "somebody asks who cannot be served")
    if group in books.timers:
        return
    # What nobody will look at again must need nobody's look.
    for failed_by in group.floating:
        must(not takers(books, group, failed_by), "items wait although somebody is free to take them")
    idle = any(participant_id in job.usable for participant_id in books.idle)
    asking = any(may_ask(group, books.participants[asker]) for asker in group.asks)
    must(not (group.at_work and (idle or asking)), "somebody is idle and never looks whether help is needed")
    if not job.usable and not job.waits_for_return and job.has_fallback:
        must(not (group.waiting and job.fallback_id in group.asks), "the fallback asks in vain")


def _check_item(books: Ledger, item: Item) -> None:
    def must(holds: bool, what: str) -> None:
        if not holds:
            name = f"Item {item.index} of job {item.job.id}, {item.state.value}"
            raise InvariantBroken(f"{name}: {what}.", story=item.job.story)

    numbers = [attempt.number for attempt in item.attempts]
    new = [number for number in numbers if number > item.attempts_before]
    must(new == [*range(item.attempts_before + 1, item.last_number + 1)], "attempts misnumbered")
    must(len(set(numbers)) == len(numbers) and all(number > 0 for number in numbers), "two attempts share a number")
    live = {attempt for attempt in item.attempts if attempt.state in OPEN_ATTEMPT}
    must(live == set(item.live) and len(live) == len(item.live), "the live attempts are not the open ones")
    leased_s = sorted(attempt.leased_s for attempt in live if attempt.state in AT_WORK)
    has_stuck = len(leased_s) > MAX_COPIES  # then only the youngest may not be stuck
    must(not has_stuck or leased_s[-1] - leased_s[-2] >= STALL_MIN_S, "too many are at it")
    must(sum(attempt.state is AttemptState.FETCHING for attempt in live) <= 1, "two results are brought over")
    leading = item.leading
    expected = LEADS[leading.state] if leading else None
    must(expected == (item.state if item.state in LEADS.values() else None), "its state is not that of its attempt")
    for attempt in live:
        holder = books.participants.get(attempt.participant_id)
        must(holder is not None and holder.is_reachable, "it is leased to nobody")
        must(holder is not None and attempt in holder.held, "its holder does not know")
    at_work = [attempt.participant_id for attempt in live if attempt.state in AT_WORK]
    must(len(at_work) == len(set(at_work)), "one participant is at it twice")
    for attempt in item.attempts:
        _check_result(item, attempt)
    done = [attempt for attempt in item.attempts if attempt.state is AttemptState.DONE]
    must((item.state is ItemState.DONE) == (len(done) == 1), "it is done without one result")
    must(done == ([item.winner] if item.winner else []), "its result came from nowhere")
    must((item.state is ItemState.FAILED) == (item.error is not None), "it failed without a reason")
    must(item.failures < item.job.max_attempts or item.state is not ItemState.WAITING, "it is tried once too often")
    waits = item.state is ItemState.WAITING and item.job.state is JobState.RUNNING
    must(waits == (item.waits is not Waits.NOT), "it waits in no queue, or is in one without waiting")
    if item.state is ItemState.HELD:
        must(not item.live and all(attempt.is_old for attempt in item.attempts), "somebody is at it though it is held")
    if item.waits is Waits.AIMED:
        aim = books.participants[item.planned_for]
        must(item in aim.aimed, "it waits for somebody who does not know")
        must(aim.id not in books.free, "it waits although somebody is free to take it")
        usable = aim.id in item.job.participants and aim.id not in item.job.left_out and aim.is_reachable
        must(usable and (item.pinned or aim.id in item.job.usable), "it waits for somebody who will not take it")
        must(not item.pulled, "a pulled item is aimed")
    if item.pinned:
        must(item.waits is not Waits.FLOATING, "a pinned item floats")
        own = {attempt.participant_id for attempt in item.attempts if not attempt.is_old}
        must(own <= {item.planned_for}, "a pinned item was moved")


def _check_result(item: Item, attempt: Attempt) -> None:
    """A result is kept only where somebody will fetch it or tell its keeper to delete it."""

    def must(holds: bool, what: str) -> None:
        if not holds:
            name = f"Attempt {attempt.number} of item {item.index} of job {item.job.id}, {attempt.state.value}"
            raise InvariantBroken(f"{name}: {what}.", story=item.job.story)

    job = item.job
    if attempt.state in (AttemptState.FETCHING, AttemptState.SPARE):
        must(attempt.holds_result, "a result is to be fetched that nobody keeps")
    if attempt is item.winner:
        is_over = not job.state.wants_results or (job.state is JobState.DONE and job.gathered)
        must(attempt.holds_result != is_over, "a result is kept for nobody, or was given up too early")
    else:
        must(not attempt.holds_result or item.state.is_open, "a result is kept that nobody will take")


def _check_participant(books: Ledger, participant: Participant) -> None:
    def must(holds: bool, what: str) -> None:
        if not holds:
            raise InvariantBroken(
                f"Participant {participant.id}, {participant.state.value}: {what}.", story=participant.story
            )

    busy = sum(attempt.state in AT_WORK and not attempt.asked for attempt in participant.held)
    must(participant.busy == busy, "its leases do not match its count")
    must(busy <= max(participant.slots, participant.overhang), "it holds more leases than it has slots")
    must(participant.is_reachable or not participant.held, "it holds leases though it is offline")
    must(participant.is_reachable or not len(participant.aimed), "items wait for it though it is offline")
    must(all(attempt in attempt.item.live for attempt in participant.held), "it holds what is not its own")
    must(all(item.waits is Waits.AIMED for item in participant.aimed), "an item is in its queue without waiting for it")
    room = participant.takes_work and busy < participant.slots
    must((participant.id in books.free) == room, "whether it has room is out of date")
    is_idle = room and not busy and participant.takes_unpinned
    must((participant.id in books.idle) == is_idle, "whether it is idle is out of date")
    reserved = sum(
        item.planned_for == participant.id and not item.pulled
        for job in books.jobs.values()
        if job.state is JobState.PLANNED
        for item in job.items.values()
    )
    must(participant.reserved == reserved, "its reservations do not match the planned jobs")
    listed = {job.id for job in books.jobs.values() if job.state.is_open and participant.id in job.participants}
    must(set(participant.jobs) == listed, "its jobs are out of date")
    rests = participant.state is ParticipantState.RESTING
    must(rests == (participant in books.timers), "it rests without an end, or an end is due without a rest")
    must(rests == (participant.resting_until_s is not None), "until when it rests is out of date")
