"""What the checker of the state machine's books sees; a checker that sees nothing would make every other test blind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flotilla.jobs import events as ev
from flotilla.jobs.invariants import validate
from flotilla.jobs.ledger import Ledger
from flotilla.jobs.machine import Machine
from flotilla.jobs.model import Job
from flotilla.jobs.states import ItemState, ParticipantState, Waits
from flotilla.jobs.transitions import InvariantBroken


def running_machine(more: tuple[str, ...] = ()) -> tuple[Machine, Ledger]:
    machine = Machine()
    people = ("a", "b", *more)
    for participant_id in people:
        machine.handle(ev.ParticipantOnline(participant_id, 1), 0.0)
    specs = (ev.ItemSpec(0, "a"), ev.ItemSpec(1, "a"), ev.ItemSpec(2, "b"))
    machine.handle(ev.JobPlanned("j", specs, people), 0.0)
    machine.handle(ev.JobAccepted("j"), 0.0)
    machine.validate()
    return machine, machine._books


def breaks(spoil: Callable[[Ledger, Job], object]) -> str:
    _machine, books = running_machine()
    spoil(books, books.jobs["j"])
    with pytest.raises(InvariantBroken) as caught:
        validate(books)
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
    assert "live attempts" in breaks(lambda _, job: setattr(job.items[0], "live", ()))
    assert "its state is not" in breaks(lambda _, job: setattr(job.items[0], "state", ItemState.RUNNING))
    assert "holder does not know" in breaks(lambda books, _: books.participants["a"].held.clear())
    assert "leases do not match" in breaks(lambda books, _: setattr(books.participants["b"], "busy", 0))
    assert "reservations" in breaks(lambda books, _: setattr(books.participants["b"], "reserved", 1))
    assert "somebody is free" in breaks(lambda books, _: books.free.update({"a": None}))
    assert "waits in no queue" in breaks(lambda _, job: setattr(job.items[1], "waits", Waits.NOT))
    assert "does not know" in breaks(lambda books, job: books.participants["a"].aimed.discard(job.items[1]))
    assert "more leases" in breaks(no_slots)
    assert "settled" in breaks(lambda books, job: books.to_help.update({job.groups[0]: None}))
    assert "works on are out of date" in breaks(lambda books, _: books.at_work.clear())
    assert "what is being worked on" in breaks(lambda _, job: job.groups[0].at_work.popitem())
    assert "count of results" in breaks(lambda _, job: setattr(job.groups[0], "done", 1))
    assert "rests without an end" in breaks(lambda books, _: books.timers.set(books.participants["a"], 9.0))
    assert "misnumbered" in breaks(lambda _, job: setattr(job.items[0], "last_number", 2))
    assert "asks who never asked" in breaks(lambda _, job: job.groups[0].asks.update({"a": None}))


def test_the_checker_sees_idle_ones_that_nobody_looks_at() -> None:
    machine, books = running_machine(more=("c",))
    validate(books)
    books.idle.clear()
    with pytest.raises(InvariantBroken, match="idle is out of date"):
        machine.validate()
    books.idle["c"] = None
    books.timers.clear(next(iter(books.at_work)))
    with pytest.raises(InvariantBroken, match="never looks whether help is needed"):
        machine.validate()


def test_the_checker_sees_a_result_kept_for_nobody() -> None:
    machine, books = running_machine()
    machine.handle(ev.JobCancelled("j", "enough"), 0.0)
    machine.validate()
    books.jobs["j"].items[0].attempts[0].holds_result = True
    with pytest.raises(InvariantBroken, match="a result is kept"):
        machine.validate()


def test_the_checker_sees_a_result_given_up_too_early() -> None:
    machine, books = running_machine()
    for event in (ev.ItemFinished("j", 2, 1, "b", "blob"), ev.ResultFetched("j", 2, 1, "b")):
        machine.handle(event, 0.0)
    machine.validate()
    books.jobs["j"].items[2].attempts[0].holds_result = False
    with pytest.raises(InvariantBroken, match="given up too early"):
        machine.validate()
