"""The state machine at size: no event may look at all there is. Bounds are wide; they catch what grows with the square."""

from __future__ import annotations

import time
from collections import Counter, deque

import pytest
from flotilla.jobs import events as ev
from flotilla.jobs.instructions import FetchResult, FinishJob, Instruction, SendLease
from flotilla.jobs.machine import Machine


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
    """With half of the fleet away, half of the items wait for anybody: the costlier way. Bound: 60 s of CPU."""
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
    assert time.process_time() - began_s < 60.0


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


def test_a_hundred_thousand_held_items_cost_no_scans() -> None:
    """Each item is ready when the one 1,000 places before it is done; nobody may look at those held. Bound: 60 s of CPU."""
    count, width, enough = 100_000, 1_000, 20_000
    machine = Machine()
    began_s = time.process_time()
    for participant_id in ("a", "b"):
        machine.handle(ev.ParticipantOnline(participant_id), 0.0)
    machine.handle(ev.JobPlanned("big", (), ("a", "b"), late_groups=frozenset({0})), 0.0)
    machine.handle(ev.JobAccepted("big"), 0.0)
    specs = tuple(ev.ItemSpec(index, "a", pulled=True, held=index >= width) for index in range(count))
    todo = deque(machine.handle(ev.ItemsAdded("big", specs), 0.0))
    told: Counter[type] = Counter()
    slowest_s = 0.0
    while told[FetchResult] < enough:
        order = todo.popleft()
        told[type(order)] += 1
        event_s = time.process_time()
        if isinstance(order, SendLease):
            where = (order.job_id, order.index, order.attempt, order.participant_id)
            todo.extend(machine.handle(ev.ItemFinished(*where, result="blob"), 1.0))
        elif isinstance(order, FetchResult):
            where = (order.job_id, order.index, order.attempt, order.participant_id)
            todo.extend(machine.handle(ev.ResultFetched(*where), 1.0))
            todo.extend(machine.handle(ev.ItemsReady("big", (order.index + width,)), 1.0))
        slowest_s = max(slowest_s, time.process_time() - event_s)
    assert slowest_s < 1.0
    machine.validate()
    assert isinstance(machine.handle(ev.PromptEnded("big"), 2.0)[-1], FinishJob)
    assert time.process_time() - began_s < 60.0
