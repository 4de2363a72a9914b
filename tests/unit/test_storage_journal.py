"""The journal's thread: it never holds anybody up, and it ends when it is told to."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fakes.database import MoodyDatabase
from fakes.records import HOME, NOW_S, attempt, item, job
from flotilla.storage.database import sqlite_url
from flotilla.storage.journal import Journal
from flotilla.storage.problems import DatabaseProblem
from flotilla.storage.records import JobFilter
from flotilla.utils.errors import JournalUnavailable

WAIT_S = 20.0


@pytest.fixture
def database() -> MoodyDatabase:
    return MoodyDatabase()


@pytest.fixture
def journal(database: MoodyDatabase) -> Iterator[Journal]:
    journal = Journal("not used", HOME, wall_clock=lambda: NOW_S, database=database)
    yield journal
    database.free.set()
    journal.close(WAIT_S)
    assert "flotilla-journal" not in {thread.name for thread in threading.enumerate()}


async def reached(database: MoodyDatabase) -> None:
    assert await asyncio.to_thread(database.reached.wait, WAIT_S)


async def test_nothing_waits_for_a_database_that_hangs(journal: Journal, database: MoodyDatabase) -> None:
    database.free.clear()
    journal.put(job("before the start"))
    journal.start()
    await reached(database)
    journal.put(job("j"), item("j", 0), attempt("j", 0, 1))
    journal.patch_job("j", state="done")
    assert journal.status().state == "starting"
    reader = asyncio.ensure_future(journal.jobs())
    await asyncio.sleep(0)
    assert not reader.done()
    database.free.set()
    page = await asyncio.wait_for(reader, WAIT_S)
    assert {record.id: record.state for record in page.records} == {"before the start": "running", "j": "done"}


async def test_closing_does_not_wait_for_ever(journal: Journal, database: MoodyDatabase) -> None:
    database.free.clear()
    journal.start()
    await reached(database)
    journal.put(job("j"))
    reader = asyncio.ensure_future(journal.job("j"))
    await asyncio.sleep(0)
    await asyncio.to_thread(journal.close, 0.01)
    database.free.set()
    with pytest.raises(JournalUnavailable):
        await asyncio.wait_for(reader, WAIT_S)


async def test_closing_writes_what_waits_and_may_be_done_again(tmp_path: Path) -> None:
    first = Journal(sqlite_url(tmp_path), HOME)
    first.close()
    first.close()
    second = Journal(sqlite_url(tmp_path), HOME)
    second.start()
    second.start()
    second.put(job("j", state="done"), *(item("j", index) for index in range(12_000)))
    second.close()
    second.put(job("late"))
    second.close()
    second.start()
    with pytest.raises(JournalUnavailable):
        await second.jobs()
    third = Journal(sqlite_url(tmp_path), HOME)
    third.start()
    assert [record.id for record in (await third.jobs()).records] == ["j"]
    assert (await third.items("j")).total == 12_000
    third.close()


async def test_a_journal_that_was_never_started_says_so(journal: Journal) -> None:
    with pytest.raises(JournalUnavailable, match="not running"):
        await journal.jobs()
    assert journal.status().state == "starting"


async def test_a_sick_database_is_told_to_readers_and_flushes(journal: Journal, database: MoodyDatabase) -> None:
    database.trouble = DatabaseProblem("database or disk is full")
    journal.start()
    journal.put(job("j"))
    assert not await journal.flush()
    with pytest.raises(JournalUnavailable, match="disk is full") as caught:
        await journal.job("j")
    assert caught.value.status == 503
    for call in (journal.forget("j"), journal.trim(1.0, 1), journal.items("j"), journal.attempts("j")):
        with pytest.raises(JournalUnavailable):
            await call
    assert journal.status().state == "degraded"
    database.trouble = None
    assert await journal.flush(), "a flush tries at once"
    assert journal.status().state == "ok"


async def test_what_was_forgotten_while_it_could_not_be_written_stays_forgotten(
    journal: Journal, database: MoodyDatabase
) -> None:
    journal.start()
    assert await journal.flush()
    database.trouble = DatabaseProblem("full")
    journal.put(job("j"), item("j", 0))
    with pytest.raises(JournalUnavailable):
        await journal.forget("j")
    database.trouble = None
    assert await journal.flush()
    assert (await journal.jobs()).total == 0


async def test_a_reader_that_gives_up_harms_nobody(journal: Journal, database: MoodyDatabase) -> None:
    database.free.clear()
    journal.start()
    await reached(database)
    reader = asyncio.ensure_future(journal.jobs())
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    database.free.set()
    assert await journal.flush()


async def test_an_unknown_field_is_a_mistake_of_the_caller(journal: Journal) -> None:
    for name in ("mood", "id", "home"):
        with pytest.raises(TypeError, match=name):
            journal.patch_job("j", **{name: 1})


async def test_putting_nothing_is_nothing(journal: Journal, database: MoodyDatabase) -> None:
    journal.put()
    journal.start()
    assert await journal.flush()
    assert journal.status().jobs == 0


async def test_many_records_at_once_cost_whoever_puts_them_next_to_nothing(
    journal: Journal, database: MoodyDatabase
) -> None:
    """What grows with the number of records is done by the thread: here only what was handed over is kept."""
    database.free.clear()
    journal.start()
    await reached(database)
    records = [item("j", index) for index in range(100_000)]
    begun_s = time.process_time()
    journal.put(job("j"), *records)
    assert time.process_time() - begun_s < 0.05
    begun_s = time.process_time()
    for record in records[:10_000]:
        journal.put(record)
    assert time.process_time() - begun_s < 0.5
    database.free.set()


async def test_forgotten_jobs_give_their_room_back(tmp_path: Path) -> None:
    journal = Journal(sqlite_url(tmp_path), HOME, wall_clock=lambda: NOW_S)
    journal.start()
    prompt = {str(number): {"inputs": {"text": "x" * 1_000}} for number in range(300)}
    who = "0a1b2c3d-0000-0000-0000-123456789abc"
    for number in range(20):
        journal.put(
            job(f"j{number}", state="done", ended_s=NOW_S + number, prompt=prompt),
            *(
                item(f"j{number}", index, state="done", planned_for=who, participant_id=who, attempt=1, attempts=1,
                     seconds=1.25, size_bytes=12_582_912, ended_s=NOW_S)
                for index in range(500)
            ),
            *(
                attempt(f"j{number}", index, 1, participant_id=who, started_s=NOW_S, ended_s=NOW_S)
                for index in range(500)
            ),
        )  # fmt: skip
    assert await journal.flush()
    await journal.trim(1e9, 10**9)
    full_bytes = journal.status().size_bytes
    assert full_bytes > 8_000_000
    bound_bytes = 3_000_000
    forgotten = await journal.trim(1e9, bound_bytes)
    assert await journal.flush()
    assert forgotten == [f"j{number}" for number in range(len(forgotten))]
    file_bytes = (tmp_path / "journal.db").stat().st_size
    assert bound_bytes * 0.6 < file_bytes <= bound_bytes, "the estimate of sizes is off, or the file did not shrink"
    assert journal.status().size_bytes == file_bytes
    journal.close()


async def test_the_address_is_in_no_message_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for url in ("postgresql://me:hunter2@127.0.0.1:1/db", "mysql://me:hunter2@127.0.0.1/db", "hunter2"):
        journal = Journal(url, HOME)
        journal.start()
        with closing(journal):
            assert not await journal.flush()
            assert journal.status().state == "degraded"
            with pytest.raises(JournalUnavailable) as caught:
                await journal.jobs(JobFilter())
        assert "hunter2" not in f"{caught.value} {journal.status()} {journal!r}"
    assert "hunter2" not in caplog.text
