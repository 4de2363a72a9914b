"""What only a server does to a journal: connections that end, rights that are missing, tables from the future."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fakes.records import HOME, job
from flotilla.storage.database import Database
from flotilla.storage.journal import Journal
from psycopg import sql
from servers import postgres
from sqlalchemy import text
from sqlalchemy.engine import URL

Open = Callable[[URL], Journal]


@pytest.fixture
def open_journal() -> Iterator[Open]:
    opened: list[Journal] = []

    def begin(url: URL) -> Journal:
        opened.append(Journal(url, HOME))
        opened[-1].start()
        return opened[-1]

    yield begin
    for journal in opened:
        journal.close()


async def test_connections_that_end_are_made_anew(postgres_server: postgres.Server, open_journal: Open) -> None:
    journal = open_journal(postgres_server.new_database())
    journal.put(job("before"))
    assert await journal.flush()
    postgres_server.run(sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"))
    journal.put(job("after"))
    assert await journal.flush()
    assert {record.id for record in (await journal.jobs()).records} == {"before", "after"}


async def test_missing_rights_are_named(postgres_server: postgres.Server, open_journal: Open) -> None:
    postgres_server.run(sql.SQL("CREATE ROLE guest LOGIN"))
    url = postgres_server.new_database(user="guest")
    journal = open_journal(url)
    journal.put(job("j"))
    assert not await journal.flush()
    assert "permission denied" in journal.status().message
    rights = Database(url.set(username=postgres.OWNER))
    rights.open()
    with rights.writing() as connection:
        for kind in ("TABLES", "SEQUENCES"):
            connection.execute(text(f"GRANT ALL ON ALL {kind} IN SCHEMA public TO guest"))
    rights.close()
    assert await journal.flush(), "somebody gave it what it needs"
    assert (await journal.jobs()).total == 1


async def test_a_newer_database_is_left_alone(postgres_server: postgres.Server, open_journal: Open) -> None:
    url = postgres_server.new_database()
    database = Database(url)
    database.open()
    with database.writing() as connection:
        connection.execute(text("UPDATE flotilla_version SET version_num = '9999'"))
    journal = open_journal(url)
    journal.put(job("j"))
    assert not await journal.flush()
    assert "newer version of Flotilla" in journal.status().message
    with database.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM flotilla_jobs")).scalar_one() == 0
        assert connection.execute(text("SELECT count(*) FROM flotilla_homes")).scalar_one() == 0
    database.close()


def test_statements_are_bounded_in_time(postgres_server: postgres.Server) -> None:
    database = Database(postgres_server.new_database())
    database.open()
    with database.reading() as connection:
        assert connection.execute(text("SHOW statement_timeout")).scalar_one() == "1min"
        assert connection.execute(text("SHOW lock_timeout")).scalar_one() == "1min"
    database.close()
