"""The parts of the state machine: tables, selection, queues, the checker itself; and the machine at size."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable

import pytest
from flotilla.jobs import events as ev
from flotilla.jobs.instructions import FetchResult, FinishJob, Instruction, SendLease
from flotilla.jobs.invariants import validate
from flotilla.jobs.ledger import Ledger
from flotilla.jobs.machine import Machine
from flotilla.jobs.model import AttemptState, Item, ItemState, Job, JobState, ParticipantState, Waits
from flotilla.jobs.queues import ItemQueue
from flotilla.jobs.selection import choose_holder, choose_route, may_take
from flotilla.jobs.transitions import (
    ATTEMPT_TRANSITIONS,
    ITEM_TRANSITIONS,
    JOB_TRANSITIONS,
    InvalidTransition,
    InvariantBroken,
)
from flotilla.utils.errors import NobodyCanRun

# Tables


@pytest.mark.parametrize(
    ("table", "states", "first", "last"),
    [
        (
            JOB_TRANSITIONS,
            JobState,
            JobState.PLANNED,
            {JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.DROPPED},
        ),
        (ITEM_TRANSITIONS, ItemState, ItemState.WAITING, {ItemState.DONE, ItemState.FAILED, ItemState.CANCELLED}),
        (ATTEMPT_TRANSITIONS, AttemptState, AttemptState.LEASED, {AttemptState.DONE}),
    ],
)
def test_the_tables_are_complete(table: dict, states: type, first: object, last: set) -> None:  # type: ignore[type-arg]
    assert all(table.values()), "every transition says when it happens"
    assert {state for state in states if not any(was is state for was, _ in table)} == last  # type: ignore[attr-defined]
    reached, todo = {first}, [first]
    while todo:
        here = todo.pop()
        for was, to in table:
            if was is here and to not in reached:
                reached.add(to)
                todo.append(to)
    assert reached == set(states)  # type: ignore[call-overload]


def test_a_change_that_the_tables_lack_is_refused_with_the_story() -> None:
    books = Ledger()
    job = Job("j", {"a": 0}, {}, 3, 0.0)
    item = job.items[0] = Item(job, 0, "a", False)
    books.add_job(job)
    books.remember(ev.JobCancelled("j", "the story"))
    books.remember(ev.ItemStarted("j", 0, 1, "a"))
    books.remember(ev.ItemStarted("j", 5, 1, "a"))
    with pytest.raises(InvalidTransition, match="Item 0 of job j cannot go from waiting to running") as caught:
        books.move_item(item, ItemState.RUNNING)
    assert len(caught.value.story) == 2, "what concerns other items is left out"
    assert "the story" in str(caught.value)
    assert caught.value.details["story"] == list(caught.value.story)
    with pytest.raises(InvalidTransition, match="Job j cannot go from planned to done"):
        books.move_job(job, JobState.DONE)
    assert (item.state, job.state) == (ItemState.WAITING, JobState.PLANNED)


def test_stories_are_bounded() -> None:
    books = Ledger()
    books.add_job(Job("j", {"a": 0}, {}, 3, 0.0))
    for _ in range(10_000):
        books.remember(ev.ItemStarted("j", 0, 1, "a"))
    assert len(books.jobs["j"].story) < 1_000
    assert len(books.participants["a"].story) < 1_000


# Selection


def test_a_route_goes_to_the_least_loaded_and_of_equals_to_the_first() -> None:
    assert choose_route(("a", "b", "c"), {"a": 2.0, "b": 1.0, "c": 1.0}.__getitem__) == "b"
    assert choose_route(iter("ba"), lambda _: 0.0) == "b"
    with pytest.raises(NobodyCanRun):
        choose_route((), lambda _: 0.0)


def floating(failed_by: str = "", usable: str = "abc") -> Item:
    job = Job("j", {"a": 0, "b": 1, "c": 2}, {}, 3, 0.0, usable=set(usable))
    return Item(job, 0, "c", False, waits=Waits.FLOATING, failed_by=frozenset(failed_by))


@pytest.mark.parametrize(
    ("failed_by", "usable", "free", "chosen"),
    [
        ("", "abc", "ab", "b"),  # least loaded
        ("", "abc", "abc", "c"),  # planned for it
        ("c", "abc", "ac", "a"),  # it has failed there
        ("c", "abc", "c", None),  # others are merely busy
        ("ab", "ab", "ab", "b"),  # no other is left
        ("", "abc", "", None),
        ("", "", "abc", None),
        ("", "ab", "abxyz", "b"),  # more are free than may take it
    ],
)
def test_who_gets_a_floating_item(failed_by: str, usable: str, free: str, chosen: str | None) -> None:
    load = {"a": 3, "b": 1, "c": 7}.__getitem__
    item = floating(failed_by, usable)
    assert choose_holder(item, dict.fromkeys(free), load) == chosen
    takers = [who for who in free if who in usable and may_take(item, who)]
    assert bool(takers) == (chosen is not None), "the two sides of the choice disagree"


# Queues


def test_a_queue_keeps_leasing_order_whoever_leaves() -> None:
    jobs = [Job(f"j{seq}", {}, {}, 3, 0.0, seq=seq) for seq in (2, 1)]
    items = [Item(job, index, "a", False) for job in jobs for index in range(100)]
    queue = ItemQueue()
    for item in reversed(items):
        queue.add(item)
        queue.add(item)
    assert len(queue) == 200
    for item in items[1::2]:
        queue.discard(item)
        queue.discard(item)
    assert items[1] not in queue
    assert items[0] in queue
    expected = sorted(items[::2], key=lambda item: item.key)
    assert list(queue) == expected
    for item in expected:
        assert queue.first() is item
        queue.discard(item)
    assert queue.first() is None
    queue.add(items[1])
    assert queue.first() is items[1]


# The checker


def running_machine() -> tuple[Machine, Ledger]:
    machine = Machine()
    machine.handle(ev.ParticipantOnline("a", 1), 0.0)
    machine.handle(ev.ParticipantOnline("b", 1), 0.0)
    specs = (ev.ItemSpec(0, "a"), ev.ItemSpec(1, "a"), ev.ItemSpec(2, "b"))
    machine.handle(ev.JobPlanned("j", specs, ("a", "b")), 0.0)
    machine.handle(ev.JobAccepted("j"), 0.0)
    machine.validate()
    return machine, machine._books


def breaks(spoil: Callable[[Ledger, Job], object]) -> str:
    machine, books = running_machine()
    spoil(books, books.jobs["j"])
    with pytest.raises(InvariantBroken) as caught:
        validate(books, machine.load)
    return caught.value.message


def test_the_checker_sees_contradictions() -> None:
    def offline(books: Ledger, _job: Job) -> None:
        books.participants["a"].state = ParticipantState.OFFLINE

    def done_without_result(_books: Ledger, job: Job) -> None:
        job.items[1].state = ItemState.DONE

    def no_slots(books: Ledger, _job: Job) -> None:
        books.participants["b"].slots = books.participants["b"].overhang = 0

    assert "who may take its items" in breaks(lambda _, job: job.usable.clear())
    assert "out of date" in breaks(offline)
    assert "count" in breaks(done_without_result)
    assert "live attempt" in breaks(lambda _, job: setattr(job.items[0], "live", None))
    assert "its state is not" in breaks(lambda _, job: setattr(job.items[0], "state", ItemState.RUNNING))
    assert "holder does not know" in breaks(lambda books, _: books.participants["a"].held.clear())
    assert "leases do not match" in breaks(lambda books, _: setattr(books.participants["b"], "busy", 0))
    assert "reservations" in breaks(lambda books, _: setattr(books.participants["b"], "reserved", 1))
    assert "somebody is free" in breaks(lambda books, _: books.free.update({"a": None}))
    assert "waits in no queue" in breaks(lambda _, job: setattr(job.items[1], "waits", Waits.NOT))
    assert "does not know" in breaks(lambda books, job: books.participants["a"].aimed.discard(job.items[1]))
    assert "more leases" in breaks(no_slots)
    assert "settled" in breaks(lambda books, job: books.arrived.append(job.items[1]))


def test_the_checker_sees_a_result_kept_for_nobody() -> None:
    machine, books = running_machine()
    machine.handle(ev.JobCancelled("j", "enough"), 0.0)
    machine.validate()
    books.jobs["j"].items[0].attempts[0].holds_result = True
    with pytest.raises(InvariantBroken, match="a result is kept"):
        machine.validate()


# Size


def run_to_the_end(machine: Machine, todo: deque[Instruction], now_s: float) -> Counter[type]:
    """A fleet without faults: whatever is ordered happens."""
    told: Counter[type] = Counter()
    while todo:
        order = todo.popleft()
        told[type(order)] += 1
        if isinstance(order, SendLease):
            where = (order.job_id, order.index, order.attempt, order.participant_id)
            todo.extend(machine.handle(ev.ItemStarted(*where), now_s))
            todo.extend(machine.handle(ev.ItemFinished(*where, result="blob"), now_s))
        elif isinstance(order, FetchResult):
            where = (order.job_id, order.index, order.attempt, order.participant_id)
            todo.extend(machine.handle(ev.ResultFetched(*where), now_s))
    return told


@pytest.mark.parametrize("present", [1_000, 500])
def test_a_thousand_participants_and_ten_thousand_items_take_seconds(present: int) -> None:
    """With half of the fleet away, half of the items wait for anybody: the costlier way. Bound: 30 s of CPU."""
    ids = tuple(f"w{number}" for number in range(1_000))
    machine = Machine()
    began_s = time.process_time()
    for participant_id in ids[:present]:
        machine.handle(ev.ParticipantOnline(participant_id), 0.0)
    specs = tuple(ev.ItemSpec(index, ids[index % len(ids)]) for index in range(10_000))
    machine.handle(ev.JobPlanned("big", specs, ids), 0.0)
    todo = deque(machine.handle(ev.JobAccepted("big"), 0.0))
    for participant_id in ids[:50]:
        todo.extend(machine.handle(ev.ParticipantOffline(participant_id, "gone"), 1.0))
    told = run_to_the_end(machine, todo, 2.0)
    assert told[FinishJob] == 1
    assert told[FetchResult] == 10_000
    machine.validate()
    job = machine.job("big")
    assert job is not None
    assert job.state == "done"
    assert time.process_time() - began_s < 30.0


def test_many_jobs_in_the_queue_cost_no_scans() -> None:
    """2,000 accepted jobs wait for two participants; no event may look at all of them. Bound: 15 s of CPU."""
    machine = Machine()
    began_s = time.process_time()
    for participant_id in ("a", "b"):
        machine.handle(ev.ParticipantOnline(participant_id), 0.0)
    todo: deque[Instruction] = deque()
    for number in range(2_000):
        specs = (ev.ItemSpec(0, "a"), ev.ItemSpec(1, "gone"), ev.ItemSpec(2, "b"))
        machine.handle(ev.JobPlanned(f"j{number}", specs, ("a", "b", "gone")), 0.0)
        todo.extend(machine.handle(ev.JobAccepted(f"j{number}"), 0.0))
    told = run_to_the_end(machine, todo, 1.0)
    assert told[FinishJob] == 2_000
    assert time.process_time() - began_s < 15.0
    machine.validate()
