"""The database of the journal: addresses, upgrades, broken files."""

from __future__ import annotations

import builtins
import shutil
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from flotilla.storage.database import Database, sqlite_url
from flotilla.storage.problems import BrokenFile, DatabaseProblem, DatabaseUnusable
from flotilla.storage.upgrade import HEAD, SCRIPTS, revision_of, upgrade
from flotilla.storage.writing import see_home
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL

SECOND = '''
"""A change that is only here."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    with op.batch_alter_table("flotilla_jobs") as table:
        table.add_column(sa.Column("mood", sa.Text, nullable=False, server_default="fine"))
'''


@pytest.fixture
def make() -> Iterator[Callable[..., Database]]:
    made: list[Database] = []

    def make(url: str | URL, scripts: Path = SCRIPTS) -> Database:
        made.append(Database(url, scripts))
        return made[-1]

    yield make
    for database in made:
        database.close()


def file_of(folder: Path) -> Path:
    return folder / "journal.db"


def value(path: Path, statement: str) -> Any:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchone()[0]


def see(database: Database, home: str) -> None:
    with database.writing() as connection:
        see_home(connection, home, 1.0)


def test_a_new_file_is_private_keeps_a_log_ahead_and_can_shrink(tmp_path: Path, make: Callable[..., Database]) -> None:
    folder = tmp_path / "new folder (1) 100% [x] #?"
    database = make(sqlite_url(folder))
    database.open()
    see(database, "a")
    assert value(file_of(folder), "SELECT home FROM flotilla_homes") == "a"
    assert value(file_of(folder), "PRAGMA journal_mode") == "wal"
    assert value(file_of(folder), "PRAGMA auto_vacuum") == 2
    with database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1
    if sys.platform != "win32":
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        assert set(modes.values()) == {0o600}, modes


def test_a_database_in_memory(make: Callable[..., Database]) -> None:
    database = make("sqlite://")
    database.open()
    see(database, "a")
    assert database.size_bytes() > 0


def test_opening_again_finds_what_was_there(tmp_path: Path, make: Callable[..., Database]) -> None:
    first = make(sqlite_url(tmp_path))
    first.open()
    see(first, "a")
    first.close()
    first.close()
    assert not first.is_open
    second = make(sqlite_url(tmp_path))
    second.open()
    assert value(file_of(tmp_path), "SELECT count(*) FROM flotilla_homes") == 1


def test_nothing_of_a_transaction_that_fails_remains(tmp_path: Path, make: Callable[..., Database]) -> None:
    database = make(sqlite_url(tmp_path))
    database.open()

    def fail() -> None:
        with database.writing() as connection:
            see_home(connection, "a", 1.0)
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    assert value(file_of(tmp_path), "SELECT count(*) FROM flotilla_homes") == 0


def test_what_is_not_open_says_so(tmp_path: Path, make: Callable[..., Database]) -> None:
    database = make(sqlite_url(tmp_path))
    with pytest.raises(DatabaseProblem, match="not open"), database.reading():
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["hunter2", "mysql://me:hunter2@host/db", "postgresql+asyncpg://me:hunter2@h/d", "://hunter2", "postgresql://me:hunter2@h:x/d"]
)  # fmt: skip
def test_addresses_that_are_of_no_use_are_not_shown(url: str, make: Callable[..., Database]) -> None:
    with pytest.raises(DatabaseUnusable) as caught:
        make(url).open()
    assert "hunter2" not in str(caught.value)
    assert "PostgreSQL" in str(caught.value) or "postgresql" in str(caught.value)


def test_a_driver_that_is_missing_is_named_with_its_cure(
    make: Callable[..., Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without_driver(name: str, *arguments: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "psycopg":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without_driver)
    with pytest.raises(DatabaseUnusable, match=r"pip install \"psycopg\[binary\]\"") as caught:
        make("postgres://me:hunter2@host/db").open()
    assert "hunter2" not in str(caught.value)


def test_a_server_that_is_not_there_can_be_tried_again(make: Callable[..., Database]) -> None:
    with pytest.raises(DatabaseProblem) as caught:
        make("postgresql://me:hunter2@127.0.0.1:1/db").open()
    assert not isinstance(caught.value, DatabaseUnusable)
    assert "hunter2" not in str(caught.value)


def test_a_folder_that_cannot_be_made_can_be_tried_again(tmp_path: Path, make: Callable[..., Database]) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DatabaseProblem):
        make(sqlite_url(tmp_path / "file")).open()


def test_a_file_that_another_process_holds_is_a_problem_for_a_while(
    tmp_path: Path, make: Callable[..., Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flotilla.storage.database.BUSY_S", 0.0)
    database = make(sqlite_url(tmp_path))
    database.open()
    with closing(sqlite3.connect(file_of(tmp_path), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseProblem, match="locked"):
            see(database, "a")
        other.execute("ROLLBACK")
        see(database, "a")


@pytest.mark.parametrize("garbage", [b"this is no database at all" * 400, b"SQLite format 3\0" + b"\xff" * 8_000])
def test_a_broken_file_is_moved_aside_and_kept(tmp_path: Path, make: Callable[..., Database], garbage: bytes) -> None:
    file_of(tmp_path).write_bytes(garbage)
    database = make(sqlite_url(tmp_path))
    database.open()
    see(database, "a")
    assert (tmp_path / "journal.db.broken-001").read_bytes() == garbage


def test_a_database_with_a_broken_page_is_moved_aside(tmp_path: Path, make: Callable[..., Database]) -> None:
    database = make(sqlite_url(tmp_path))
    database.open()
    for number in range(2_000):
        see(database, f"home-{number}")
    database.close()
    content = bytearray(file_of(tmp_path).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8_192] = b"\xee" * 8_192
    file_of(tmp_path).write_bytes(bytes(content))
    database.open()
    see(database, "a")
    assert (tmp_path / "journal.db.broken-001").read_bytes() == bytes(content)
    assert value(file_of(tmp_path), "SELECT count(*) FROM flotilla_homes") == 1


def test_only_a_few_broken_files_are_kept(tmp_path: Path, make: Callable[..., Database]) -> None:
    for number in range(5):
        file_of(tmp_path).write_bytes(b"no" * 5_000)
        Path(f"{file_of(tmp_path)}-wal").write_bytes(bytes([number]))
        database = make(sqlite_url(tmp_path))
        database.open()
        database.close()
    names = {path.name for path in tmp_path.glob("*broken*") if "-wal" not in path.name and "-shm" not in path.name}
    assert names == {f"journal.db.broken-{number:03d}" for number in (3, 4, 5)}


def test_a_file_that_breaks_later_is_replaced(tmp_path: Path, make: Callable[..., Database]) -> None:
    database = make(sqlite_url(tmp_path))
    database.open()
    see(database, "before")
    database.repair(BrokenFile("malformed"))
    see(database, "after")
    assert value(file_of(tmp_path), "SELECT home FROM flotilla_homes") == "after"
    assert value(tmp_path / "journal.db.broken-001", "SELECT home FROM flotilla_homes") == "before"


def test_repair_of_what_has_no_file_is_refused(make: Callable[..., Database]) -> None:
    database = make("sqlite://")
    database.open()
    with pytest.raises(DatabaseProblem, match="bad page"):
        database.repair(BrokenFile("bad page"))


def test_the_newest_migration_is_the_one_that_the_code_names() -> None:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_an_older_database_is_upgraded_with_its_content(tmp_path: Path, make: Callable[..., Database]) -> None:
    database = make(sqlite_url(tmp_path))
    database.open()
    with database.writing() as connection:
        connection.execute(
            text(
                "INSERT INTO flotilla_jobs (home, id, state, created_s, wishes, participants, left_out, failure_message, lives,"
                " items_total, items_done, missing, body_bytes) VALUES ('h', 'j', 'done', 1, '{}', '{}', '{}', '', 1, 0, 0, '{}', 0)"
            )
        )
        connection.execute(text("INSERT INTO flotilla_job_participants VALUES (1, 'w1')"))
    scripts = tmp_path / "ComfyUI-Flotilla (copy) [2] 100% 'new'"
    shutil.copytree(SCRIPTS, scripts)
    (scripts / "versions" / "r0002_mood.py").write_text(SECOND, encoding="utf-8")
    with database.writing() as connection:
        upgrade(connection, scripts, "0002")
    with database.reading() as connection:
        assert connection.execute(text("SELECT id, mood FROM flotilla_jobs")).all() == [("j", "fine")]
        assert connection.execute(text("SELECT participant_id FROM flotilla_job_participants")).scalar_one() == "w1"
        assert revision_of(connection) == "0002"


def test_a_newer_database_is_left_alone(tmp_path: Path, make: Callable[..., Database]) -> None:
    database = make(sqlite_url(tmp_path))
    database.open()
    with database.writing() as connection:
        connection.execute(text("UPDATE flotilla_version SET version_num = '9999'"))
    database.close()
    before = file_of(tmp_path).read_bytes()
    with pytest.raises(DatabaseUnusable, match="newer version of Flotilla"):
        make(sqlite_url(tmp_path)).open()
    assert file_of(tmp_path).read_bytes() == before


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    scripts = tmp_path / "scripts"
    shutil.copytree(SCRIPTS, scripts)
    (scripts / "versions" / "r0002_mood.py").write_text(SECOND + "    raise ValueError('half way')\n", encoding="utf-8")
    database = Database(sqlite_url(tmp_path), scripts)

    def migrate() -> None:
        with database.writing() as connection:
            upgrade(connection, scripts, "0002")

    database.open()
    with pytest.raises(ValueError, match="half way"):
        migrate()
    with database.reading() as connection:
        assert revision_of(connection) == "0001"
        columns = connection.exec_driver_sql("PRAGMA table_info(flotilla_jobs)").all()
    database.close()
    assert "mood" not in {column[1] for column in columns}


def test_an_upgrade_to_date_needs_no_alembic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Database(sqlite_url(tmp_path)).open()
    for name in ("alembic", "alembic.command", "alembic.config", "alembic.script"):
        monkeypatch.setitem(sys.modules, name, None)
    engine = create_engine(sqlite_url(tmp_path))
    with engine.begin() as connection:
        upgrade(connection)
    engine.dispose()
