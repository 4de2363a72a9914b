"""How the journal treats a database that fails: it waits longer and longer, loses nothing that there is room for."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from fakes.database import MoodyDatabase
from fakes.records import HOME, item, job
from flotilla.storage import pending, reading
from flotilla.storage.keeper import FIRST_PAUSE_S, LONGEST_PAUSE_S, Keeper
from flotilla.storage.pending import Inbox
from flotilla.storage.problems import BrokenFile, DatabaseProblem, DatabaseUnusable
from flotilla.storage.records import JobFilter, Record
from flotilla.utils.clock import ManualClock

FULL = DatabaseProblem("database or disk is full")


@pytest.fixture
def database() -> MoodyDatabase:
    return MoodyDatabase()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def keeper(database: MoodyDatabase, clock: ManualClock) -> Iterator[Keeper]:
    keeper = Keeper(database, HOME, clock.wall_s, clock.now_s)
    yield keeper
    keeper.close()


def leave(keeper: Keeper, *records: Record) -> None:
    inbox = Inbox()
    inbox.leave(records)
    keeper.take_in(inbox)


def ids(keeper: Keeper) -> set[str]:
    return {record.id for record in keeper.read(lambda connection: reading.jobs(connection, HOME, JobFilter())).records}


def settle(keeper: Keeper) -> None:
    while keeper.due_in_s == 0.0:
        assert keeper.work()


def test_it_opens_writes_and_rests(keeper: Keeper) -> None:
    assert keeper.status.state == "starting"
    assert keeper.due_in_s == 0.0
    leave(keeper, job("j"))
    settle(keeper)
    assert keeper.due_in_s is None
    assert (keeper.status.state, keeper.status.jobs) == ("ok", 1)
    assert ids(keeper) == {"j"}


def test_pauses_grow_up_to_a_bound_and_begin_anew(keeper: Keeper, database: MoodyDatabase, clock: ManualClock) -> None:
    database.trouble = FULL
    pauses = []
    for _ in range(9):
        assert not keeper.work()
        pauses.append(keeper.due_in_s)
        clock.advance(pauses[-1] or 0.0)
        assert keeper.due_in_s == 0.0
    assert pauses == [FIRST_PAUSE_S, 2.0, 4.0, 8.0, 16.0, 32.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    database.trouble = None
    settle(keeper)
    database.trouble = FULL
    leave(keeper, job("j"))
    assert not keeper.work()
    assert keeper.due_in_s == FIRST_PAUSE_S


def test_what_was_put_meanwhile_is_written_later(keeper: Keeper, database: MoodyDatabase, clock: ManualClock) -> None:
    settle(keeper)
    leave(keeper, job("j"), item("j", 0))
    database.trouble = FULL
    assert not keeper.work()
    assert keeper.status.state == "degraded"
    assert "disk is full" in keeper.status.message
    leave(keeper, item("j", 0, state="done"), job("k"))
    database.trouble = None
    assert keeper.due_in_s == FIRST_PAUSE_S, "it is left alone for a while"
    clock.advance(FIRST_PAUSE_S)
    settle(keeper)
    assert keeper.status.state == "ok"
    assert keeper.status.message == ""
    assert ids(keeper) == {"j", "k"}
    items = keeper.read(lambda connection: reading.items(connection, HOME, "j", 9, 0))
    assert [one.state for one in items.records] == ["done"]


def test_a_sick_database_says_so_to_readers_and_is_told_of_once(
    keeper: Keeper, database: MoodyDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    settle(keeper)
    database.trouble = FULL
    leave(keeper, job("j"))
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            keeper.work()
        with pytest.raises(DatabaseProblem, match="full"):
            ids(keeper)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_reader_that_meets_the_trouble_first_degrades_it_too(keeper: Keeper, database: MoodyDatabase) -> None:
    settle(keeper)
    database.trouble = FULL
    with pytest.raises(DatabaseProblem):
        ids(keeper)
    assert keeper.status.state == "degraded"


def test_it_recovers_without_anything_to_write(keeper: Keeper, database: MoodyDatabase, clock: ManualClock) -> None:
    database.trouble = FULL
    keeper.work()
    database.trouble = None
    clock.advance(FIRST_PAUSE_S)
    settle(keeper)
    assert keeper.status.state == "ok"


def test_only_what_an_earlier_run_left_open_is_interrupted(
    keeper: Keeper, database: MoodyDatabase, clock: ManualClock
) -> None:
    leave(keeper, job("mine"))
    settle(keeper)
    database.trouble = FULL
    leave(keeper, job("other"))
    keeper.work()
    database.trouble = None
    clock.advance(FIRST_PAUSE_S)
    settle(keeper)
    found = keeper.read(lambda connection: reading.jobs(connection, HOME, JobFilter(state="running")))
    assert {record.id for record in found.records} == {"mine", "other"}


def test_memory_is_bounded_and_the_loss_is_told(
    keeper: Keeper, database: MoodyDatabase, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "MAX_ROWS", 10)
    settle(keeper)
    database.trouble = FULL
    leave(keeper, job("j"), *(item("j", index) for index in range(25)))
    keeper.work()
    assert keeper.waiting == 11
    assert "15 records were lost" in keeper.status.message
    database.trouble = None
    clock.advance(FIRST_PAUSE_S)
    settle(keeper)
    assert "15 records were lost" in keeper.status.message
    assert keeper.status.state == "ok"


def test_what_nobody_can_use_is_not_tried_again_and_holds_nothing(keeper: Keeper, database: MoodyDatabase) -> None:
    database.trouble = DatabaseUnusable("A newer version wrote it.")
    leave(keeper, job("j"))
    assert not keeper.work()
    assert keeper.due_in_s is None
    assert (keeper.status.state, keeper.waiting) == ("degraded", 0)
    assert keeper.status.message.startswith("A newer version wrote it.")
    leave(keeper, job("k"))
    assert keeper.waiting == 0
    assert not keeper.work()
    assert database.opened == 0


def test_an_error_that_nobody_foresaw_degrades_and_is_logged(
    keeper: Keeper, database: MoodyDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    database.trouble = ZeroDivisionError("oops")
    assert not keeper.work()
    assert keeper.status.state == "degraded"
    assert "nobody foresaw" in caplog.text


def test_a_file_that_breaks_later_is_replaced(keeper: Keeper, database: MoodyDatabase) -> None:
    settle(keeper)
    repaired = []
    database.repair = lambda problem: repaired.append(problem) or setattr(database, "trouble", None)  # type: ignore[assignment, method-assign, func-returns-value]
    database.trouble = BrokenFile("malformed")
    leave(keeper, job("j"))
    assert keeper.work()
    settle(keeper)
    assert len(repaired) == 1
    assert ids(keeper) == {"j"}
    assert keeper.status.state == "ok"


def test_a_file_that_cannot_be_replaced_degrades(keeper: Keeper, database: MoodyDatabase) -> None:
    settle(keeper)
    database.trouble = BrokenFile("malformed")  # in memory there is no file to move aside
    leave(keeper, job("j"))
    assert not keeper.work()
    assert keeper.status.state == "degraded"
    assert keeper.waiting == 1
