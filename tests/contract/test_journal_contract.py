"""The journal, the same on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.records import HOME, NOW_S, attempt, item, job
from flotilla.storage import reading
from flotilla.storage.database import Database, sqlite_url
from flotilla.storage.journal import Journal
from flotilla.storage.models import Base
from flotilla.storage.records import ItemRecord, JobFilter, JobRecord
from flotilla.storage.upgrade import VERSION_TABLE
from flotilla.utils.errors import InvalidInput
from sqlalchemy.engine import URL


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    made: URL = request.getfixturevalue("postgres_server").new_database()
    return made


Open = Callable[..., Journal]


@pytest.fixture
def open_journal(url: URL) -> Iterator[Open]:
    """Starts journals on one database; they are closed at the end."""
    opened: list[Journal] = []

    def begin(home: str = HOME, wall_s: float = NOW_S) -> Journal:
        journal = Journal(url, home, wall_clock=lambda: wall_s)
        journal.start()
        opened.append(journal)
        return journal

    yield begin
    for journal in opened:
        journal.close()


@pytest.fixture
def journal(open_journal: Open) -> Journal:
    return open_journal()


async def test_what_was_put_is_read_back_whole(journal: Journal) -> None:
    whole = job(
        "j1",
        accepted_s=NOW_S + 0.125,
        client_id="c",
        prompt={"1": {"inputs": {"text": "ä€🙂 \u0000 \ud800 end"}}},
        extra_data={"preview_method": "auto"},
        wishes={"items": 3},
        plan={"stages": [1, 2.5, None]},
        participants={"master": "This machine", "w1": "GPU box"},
        left_out={"w2": "lacks a node"},
        failure={"kind": "error", "message": "no", "attempt": 2},
        lives=2,
        items_total=3,
        items_done=1,
        missing={"2": "lost"},
    )
    done = item("j1", 0, state="done", participant_id="w1", attempt=2, attempts=2, seconds=1.5, size_bytes=2**40)
    failed = item("j1", 1, state="failed", error={"kind": "error", "message": "no"}, ended_s=NOW_S)
    lease = attempt("j1", 1, 1, started_s=NOW_S, ended_s=NOW_S + 1, error={"kind": "oom", "message": "full"})
    journal.put(whole, done, failed, lease)
    assert await journal.flush()
    assert await journal.job("j1") == whole
    assert (await journal.items("j1")).records == (done, failed)
    assert await journal.attempts("j1") == [lease]
    assert journal.status().state == "ok"
    assert journal.status().jobs == 1
    assert journal.status().size_bytes > 0


async def test_reading_sees_what_was_just_put(journal: Journal) -> None:
    journal.put(job("j1"), item("j1", 0))
    assert (await journal.items("j1")).total == 1


async def test_unknown_jobs_are_empty(journal: Journal) -> None:
    assert await journal.job("nobody") is None
    assert (await journal.items("nobody")).records == ()
    assert await journal.attempts("nobody") == []
    assert not await journal.forget("nobody")


async def test_a_newer_record_replaces_and_a_patch_changes_only_its_fields(journal: Journal) -> None:
    first = job("j1", prompt={"1": {}}, plan={"a": 1}, participants={"w1": "Box"})
    journal.put(first, item("j1", 0), attempt("j1", 0, 1))
    await journal.flush()
    journal.put(item("j1", 0, state="done", attempts=1), attempt("j1", 0, 1, state="done"))
    journal.patch_job("j1", state="failed", failure={"kind": "error", "message": "x"}, missing={"0": "gone"})
    journal.patch_job("j1", ended_s=5.0, plan={"a": 2}, participants={"w2": "Other"})
    await journal.flush()
    assert await journal.job("j1") == replace(
        first,
        state="failed",
        failure={"kind": "error", "message": "x"},
        missing={"0": "gone"},
        ended_s=5.0,
        plan={"a": 2},
        participants={"w2": "Other"},
    )
    assert (await journal.items("j1")).records[0].state == "done"
    assert (await journal.attempts("j1"))[0].state == "done"
    assert (await journal.jobs(JobFilter(participant="w1"))).total == 0
    assert (await journal.jobs(JobFilter(participant="w2"))).total == 1


async def test_lists_leave_large_parts_out(journal: Journal) -> None:
    journal.put(job("j1", prompt={"1": {}}, plan={"a": 1}, extra_data={"preview_method": "auto"}, wishes={"items": 1}))
    (listed,) = (await journal.jobs()).records
    assert (listed.prompt, listed.plan, listed.extra_data) == ({}, {}, {})
    assert listed.wishes == {"items": 1}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (JobFilter(), ["j4", "j3", "j2", "j1"]),
        (JobFilter(state="done"), ["j4", "j2"]),
        (JobFilter(state="done, failed"), ["j4", "j3", "j2"]),
        (JobFilter(participant="w1"), ["j3", "j1"]),
        (JobFilter(since_s=2.0, until_s=3.0), ["j3", "j2"]),
        (JobFilter(text="MEMORY"), ["j3"]),
        (JobFilter(text="50%"), ["j3"]),
        (JobFilter(text="%"), ["j3"]),
        (JobFilter(text="_"), []),
        (JobFilter(text="J4"), ["j4"]),
        (JobFilter(limit=2, offset=1), ["j3", "j2"]),
        (JobFilter(state="done", participant="w1"), []),
    ],
)
async def test_filters_and_pages(journal: Journal, wanted: JobFilter, found: list[str]) -> None:
    journal.put(
        job("j1", created_s=1.0, participants={"w1": "a"}),
        job("j2", created_s=2.0, state="done"),
        job("j3", created_s=3.0, state="failed", participants={"w1": "a"}, failure={"message": "out of Memory at 50%"}),
        job("j4", created_s=4.0, state="done", participants={"w10": "b"}),
    )
    page = await journal.jobs(wanted)
    assert [record.id for record in page.records] == found
    assert page.total == (4 if wanted.limit == 2 else len(found))
    assert (page.limit, page.offset) == (wanted.limit, wanted.offset)


async def test_items_and_attempts_by_page_and_index(journal: Journal) -> None:
    journal.put(job("j1"), *(item("j1", index) for index in range(1_200)))
    journal.put(*(attempt("j1", index, number) for index in range(1_200) for number in (2, 1)))
    await journal.flush()
    page = await journal.items("j1", limit=2, offset=1_197)
    assert ([record.index for record in page.records], page.total) == ([1_197, 1_198], 1_200)
    some = await journal.attempts("j1", [*range(600), 5, 1_199])
    assert [(one.index, one.number) for one in some][-3:] == [(599, 2), (1_199, 1), (1_199, 2)]
    assert len(some) == 2 * 601
    assert len(await journal.attempts("j1")) == 2_400
    assert await journal.attempts("j1", []) == []


async def test_pages_that_cannot_be_are_refused(journal: Journal) -> None:
    for limit, offset in ((0, 0), (1, -1), (100_001, 0)):
        with pytest.raises(InvalidInput):
            await journal.items("j1", limit, offset)
    with pytest.raises(InvalidInput):
        JobFilter(limit=1_001)


async def test_items_without_their_job_are_left_out(journal: Journal) -> None:
    journal.put(item("gone", 0), attempt("gone", 0, 1), job("j1"), item("j1", 0))
    journal.patch_job("gone", state="done")
    assert await journal.flush()
    assert await journal.job("gone") is None
    assert (await journal.items("j1")).total == 1
    assert journal.status().message == ""


async def test_forgetting_takes_everything_along(journal: Journal, url: URL) -> None:
    journal.put(job("j1", participants={"w1": "a"}), item("j1", 0), attempt("j1", 0, 1), job("j2"), item("j2", 0))
    await journal.flush()
    journal.put(item("j1", 1))
    assert await journal.forget("j1")
    journal.put(item("j1", 2))
    assert await journal.flush()
    assert (await journal.items("j1")).total == 0
    assert (await journal.items("j2")).total == 1
    assert _rows(url) == {"flotilla_homes": 1, "flotilla_jobs": 1, "flotilla_job_bodies": 1, "flotilla_items": 1}


async def test_a_forgotten_job_can_begin_anew(journal: Journal) -> None:
    journal.put(job("j1"), item("j1", 7))
    await journal.flush()
    await journal.forget("j1")
    journal.put(job("j1", lives=2), item("j1", 1))
    assert [one.index for one in (await journal.items("j1")).records] == [1]


async def test_homes_in_one_database_do_not_see_each_other(open_journal: Open) -> None:
    mine, theirs = open_journal(), open_journal("other-home")
    mine.put(job("same", client_id="mine"), item("same", 0), job("mine"))
    theirs.put(job("same", client_id="theirs"))
    await mine.flush()
    await theirs.flush()
    assert [(one.home, one.client_id) for one in (await theirs.jobs()).records] == [("other-home", "theirs")]
    assert (await theirs.items("same")).total == 0
    assert await theirs.job("mine") is None
    assert not await theirs.forget("mine")
    assert theirs.status().jobs == 1
    assert await mine.trim(0.0, 0) == []
    assert await theirs.forget("same")
    assert (await mine.jobs()).total == 2


async def test_open_jobs_of_an_earlier_run_are_interrupted_and_nobody_elses(open_journal: Open) -> None:
    first, other = open_journal(), open_journal("other-home")
    first.put(job("running", state="running"), job("planned", state="planned"), job("done", state="done", ended_s=3.0))
    first.put(
        item("running", 0, state="done", participant_id="w1"), item("running", 1, state="running", participant_id="w1")
    )
    first.put(attempt("running", 0, 1, state="done"), attempt("running", 1, 1, state="running"))
    other.put(job("running", state="running"))
    await other.flush()
    first.close()
    second = open_journal(wall_s=NOW_S + 60)
    second.put(job("new", state="running"))
    states = {record.id: (record.state, record.ended_s) for record in (await second.jobs()).records}
    interrupted = ("interrupted", NOW_S + 60)
    assert states == {"running": interrupted, "planned": interrupted, "done": ("done", 3.0), "new": ("running", None)}
    assert [(one.state, one.participant_id) for one in (await second.items("running")).records] == [
        ("done", "w1"),
        ("waiting", None),
    ]
    assert [(one.state, one.ended_s) for one in await second.attempts("running")] == [
        ("done", None),
        ("lost", NOW_S + 60),
    ]
    assert [record.state for record in (await other.jobs()).records] == ["running"]


async def test_trimming_by_age(journal: Journal) -> None:
    journal.put(
        job("old", state="done", ended_s=NOW_S - 101),
        job("kept", state="failed", ended_s=NOW_S - 500),
        job("open", state="running", created_s=NOW_S - 900),
        job("no-end", state="dropped", created_s=NOW_S - 900),
        job("young", state="done", ended_s=NOW_S - 99),
    )
    assert await journal.trim(100.0, 10**9, keep={"kept"}) == ["no-end", "old"]
    assert {one.id for one in (await journal.jobs()).records} == {"kept", "open", "young"}
    await journal.flush()
    assert journal.status().jobs == 3


async def test_trimming_by_size_takes_the_oldest_first(journal: Journal) -> None:
    big = {"1": "x" * 100_000}
    journal.put(*(job(f"j{index}", state="done", ended_s=NOW_S - 10 + index, prompt=big) for index in range(5)))
    journal.put(job("open", state="running", created_s=1.0, prompt=big))
    assert await journal.trim(1e9, 450_000, keep={"j1"}) == ["j0", "j2"]
    assert await journal.trim(1e9, 450_000) == []
    assert await journal.trim(1e9, 0) == ["j1", "j3", "j4"]
    assert [one.id for one in (await journal.jobs()).records] == ["open"]


async def test_homes_that_are_long_gone_are_given_up(open_journal: Open, url: URL) -> None:
    gone = open_journal("gone", wall_s=NOW_S - 91 * 24 * 3600)
    away = open_journal("away", wall_s=NOW_S - 89 * 24 * 3600)
    for one in (gone, away):
        one.put(job("j1", state="running"), item("j1", 0))
        assert await one.flush()
        one.close()
    assert await open_journal().trim(60.0, 0) == []
    assert _rows(url) == {"flotilla_homes": 2, "flotilla_jobs": 1, "flotilla_job_bodies": 1, "flotilla_items": 1}


async def test_what_no_database_takes_is_left_out_and_harms_nothing_else(journal: Journal) -> None:
    bad = ItemRecord("j1", 1, "n", 0, "done", "master", size_bytes=2**70)
    journal.put(job("j1"), item("j1", 0), bad, item("j1", 2), attempt("j1", 0, 1, leased_s="soon"))  # type: ignore[arg-type]
    assert await journal.flush()
    assert [one.index for one in (await journal.items("j1")).records] == [0, 2]
    assert journal.status().state == "ok"
    assert "records were lost" in journal.status().message


async def test_odd_values_are_kept_as_far_as_json_knows_them(journal: Journal) -> None:
    journal.put(
        job("j1", prompt={"n": math.nan, "i": [math.inf, 1.0], "o": Path("x"), 1: True}, client_id="a\0b\ud800")
    )  # type: ignore[dict-item]
    found = await journal.job("j1")
    assert found is not None
    assert found.prompt == {"n": None, "i": [None, 1.0], "o": str(Path("x")), "1": True}
    assert found.client_id == "ab?"


async def test_errors_and_reasons_are_bounded(journal: Journal) -> None:
    error = {"message": "m", "traceback": "a" * 50_000 + "b" * 50_000}
    journal.put(
        job("j1", failure=error, missing={str(index): "no" for index in range(3_000)}), item("j1", 0, error=error)
    )
    found = await journal.job("j1")
    assert found is not None
    assert found.failure is not None
    text = found.failure["traceback"]
    assert len(text) < 17_000
    assert text.startswith("a")
    assert text.endswith("b")
    assert len(found.missing) == 1_000
    stored = (await journal.items("j1")).records[0].error
    assert stored is not None
    assert len(stored["traceback"]) < 17_000


async def test_a_hundred_thousand_items_do_not_hold_up_another_job(journal: Journal) -> None:
    journal.put(job("big"), *(item("big", index) for index in range(100_000)))
    journal.put(job("small"), item("small", 0))
    assert await journal.job("small") is not None
    assert (await journal.items("big", limit=1)).total < 100_000, "it waited until all was written"
    assert await journal.flush()
    assert (await journal.items("big", limit=1)).total == 100_000
    assert (await journal.items("small")).total == 1


async def test_fifty_threads_put_at_once(journal: Journal) -> None:
    ready = threading.Barrier(50)

    def work(name: str) -> None:
        ready.wait()
        journal.put(job(name))
        for index in range(40):
            journal.put(item(name, index), attempt(name, index, 1))
            journal.put(item(name, index, state="done"))
            journal.patch_job(name, items_done=index + 1)

    threads = [threading.Thread(target=work, args=(f"j{number}",)) for number in range(50)]
    for thread in threads:
        thread.start()
    await asyncio.to_thread(lambda: [thread.join() for thread in threads])
    assert await journal.flush()
    page = await journal.jobs(JobFilter(limit=100))
    assert [one.items_done for one in page.records] == [40] * 50
    for number in range(50):
        records = (await journal.items(f"j{number}")).records
        assert [one.state for one in records] == ["done"] * 40
        assert len(await journal.attempts(f"j{number}")) == 40


async def test_two_journals_that_open_an_empty_database_at_once(open_journal: Open) -> None:
    both = [open_journal("a"), open_journal("b")]
    for one in both:
        one.put(job("j1"))
    assert [await one.flush() for one in both] == [True, True]
    assert [one.status().jobs for one in both] == [1, 1]


async def test_migrations_make_what_the_models_say(open_journal: Open, url: URL) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    assert await open_journal().flush()
    database = Database(url)
    database.open()
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    database.close()


def _rows(url: URL) -> dict[str, int]:
    """How many rows each table has, of those that have any."""
    database = Database(url)
    database.open()
    with database.reading() as connection:
        counts = {table.name: len(connection.execute(table.select()).all()) for table in Base.metadata.tables.values()}
    database.close()
    return {name: count for name, count in counts.items() if count}


def test_the_fields_of_records_and_rows_agree() -> None:
    columns = set(Base.metadata.tables["flotilla_jobs"].columns.keys())
    assert set(reading._JOB_FIELDS) <= columns
    assert set(JobRecord.__dataclass_fields__) - set(reading._JOB_FIELDS) == {"prompt", "extra_data", "plan"}
