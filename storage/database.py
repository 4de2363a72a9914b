"""The database of the journal: its address, its connections, its upgrades, and what to do with a broken file.

SQLite by default, in WAL mode; PostgreSQL (driver psycopg 3) when an address says so. Everything here blocks and belongs to
the journal's thread.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from ..utils.files import PRIVATE_FILE_MODE
from ..utils.log import get_logger
from .problems import BrokenFile, DatabaseProblem, DatabaseUnusable, problem_of
from .upgrade import SCRIPTS, upgrade

log = get_logger("storage")

BUSY_S = 2.0
"""How long SQLite waits for another process that writes."""

CONNECT_S = 5
"""How long a server may take to answer."""

STATEMENT_S = 60
"""How long a server may work on one statement."""

WAL_LIMIT_BYTES = 16 * 1024 * 1024
KEPT_ASIDE = 3
"""Broken files that are kept for people to look at."""

SIDE_FILES = ("", "-wal", "-shm")
PSYCOPG = "postgresql+psycopg"


def sqlite_url(folder: Path) -> URL:
    """The address of the journal in ``folder``. No text: not every version reads back a path with odd characters."""
    return URL.create("sqlite", database=str(folder / "journal.db"))


class Database:
    """A database of jobs, once `open` has gone well.

    Raises DatabaseProblem everywhere: `DatabaseUnusable` where trying again is of no use.
    """

    def __init__(self, url: str | URL, scripts: Path = SCRIPTS) -> None:
        """``url`` is a secret. ``scripts`` is the folder of alembic's migrations."""
        self._given = url
        self._scripts = scripts
        self._engine: Engine | None = None

    @property
    def is_open(self) -> bool:
        """Whether it can be read and written."""
        return self._engine is not None

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``. Known while it is open."""
        return self._opened.dialect.name

    def open(self) -> None:
        """Connects, and brings the tables up to date. A broken SQLite file is moved aside first; its content is kept."""
        url = _parsed(self._given)
        path = _file_of(url)
        try:
            self._open(url, path)
        except BrokenFile as problem:
            self.close()
            if path is None:
                raise DatabaseProblem(str(problem)) from None
            _move_aside(path)
            self._open(url, path)

    def repair(self, problem: BrokenFile) -> None:
        """Moves a file aside that turned out to be broken, and opens a new one."""
        path = _file_of(_parsed(self._given))
        self.close()
        if path is None:
            raise DatabaseProblem(str(problem))
        _move_aside(path)
        self.open()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read with."""
        with _translated(), self._opened.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction to write in; committed at the end, rolled back on any error."""
        with _translated(), self._opened.connect() as connection:
            connection.execution_options(flotilla_writes=True)
            with connection.begin():
                yield connection

    def shrink(self) -> None:
        """Gives room that is no longer used back to the disk."""
        engine = self._opened
        if engine.dialect.name != "sqlite":
            return  # PostgreSQL's own vacuum runs by itself
        with _translated(), closing(engine.raw_connection()) as pooled:
            driver = cast(sqlite3.Connection, pooled.driver_connection)
            # As a script: `execute` would stop after the first page.
            driver.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE);")

    def size_bytes(self) -> int:
        """What the database takes up: the files of SQLite, or the server's figure for the whole database."""
        path = _file_of(self._opened.url)
        if path is not None:
            return sum(_length(Path(f"{path}{side}")) for side in SIDE_FILES[:2])
        with self.reading() as connection:
            if self.dialect == "sqlite":
                pages, page_bytes = (
                    connection.exec_driver_sql(f"PRAGMA {what}").scalar_one() for what in ("page_count", "page_size")
                )
                return int(pages) * int(page_bytes)
            return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())

    def close(self) -> None:
        """Ends all connections. Harmless when there are none."""
        engine, self._engine = self._engine, None
        if engine is not None:
            with suppress(Exception):
                engine.dispose()

    @property
    def _opened(self) -> Engine:
        if self._engine is None:
            raise DatabaseProblem("The database is not open.")
        return self._engine

    def _open(self, url: URL, path: Path | None) -> None:
        with _translated():
            if path is not None:
                _make_private(path)
            self._engine = _engine(url)
        try:
            if self.dialect == "sqlite":
                self._check_file()
            with self.writing() as connection:
                upgrade(connection, self._scripts)
        except BaseException:
            self.close()
            raise

    def _check_file(self) -> None:
        with self.reading() as connection:
            found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
        if found != "ok":
            raise BrokenFile(found)


@contextmanager
def _translated() -> Iterator[None]:
    """Errors that speak of the database become a DatabaseProblem; errors about data stay what they are."""
    try:
        yield
    except Exception as error:
        problem = problem_of(error)
        if problem is None or problem is error:
            raise
        raise problem from None  # the original may show the address, or what was written


def _parsed(given: str | URL) -> URL:
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        raise DatabaseUnusable(
            "The address in FLOTILLA_DATABASE_URL cannot be read. It looks like postgresql://user:password@host/database."
        ) from None
    if url.drivername in ("postgres", "postgresql", PSYCOPG):
        return url.set(drivername=PSYCOPG)
    if url.drivername not in ("sqlite", "sqlite+pysqlite"):
        kind = url.drivername.partition("+")[0]
        raise DatabaseUnusable(
            f"The journal can be kept in SQLite or PostgreSQL (driver psycopg), not in {kind[:20]!r}."
        )
    return url


def _file_of(url: URL) -> Path | None:
    if not url.drivername.startswith("sqlite") or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database))


def _engine(url: URL) -> Engine:
    shared: dict[str, Any] = {"hide_parameters": True, "json_serializer": dump_json}
    if not url.drivername.startswith("sqlite"):
        settings = {
            "connect_timeout": CONNECT_S,
            "application_name": "flotilla",
            "keepalives_idle": CONNECT_S,
            "tcp_user_timeout": STATEMENT_S * 1000,
        }
        try:
            engine = create_engine(
                url,
                connect_args={name: value for name, value in settings.items() if name not in url.query},
                pool_size=1,
                max_overflow=0,
                pool_pre_ping=True,
                **shared,
            )
        except (ModuleNotFoundError, NoSuchModuleError, ImportError):
            raise DatabaseUnusable(
                "FLOTILLA_DATABASE_URL names a PostgreSQL server, but Python's driver for it is not installed. "
                'Install it where ComfyUI runs: pip install "psycopg[binary]"'
            ) from None
        event.listen(engine, "connect", _prepare_postgresql)
        return engine
    engine = create_engine(url, connect_args={"timeout": BUSY_S}, **shared)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_postgresql(connection: Any, _record: object) -> None:
    # Not by the connection's own parameters: proxies such as PgBouncer refuse those.
    for setting in ("statement_timeout", "lock_timeout"):
        connection.execute(f"SET {setting} = {STATEMENT_S * 1000}")
    connection.commit()


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver would begin transactions where it sees fit, and never around a change of tables.
    connection.isolation_level = None
    if connection.execute("PRAGMA page_count").fetchone() == (0,):
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # counts only for a file that is still empty
    for pragma in (
        "journal_mode = WAL",
        f"journal_size_limit = {WAL_LIMIT_BYTES}",
        "synchronous = NORMAL",
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def _begin_sqlite(connection: Connection) -> None:
    # Who reads first and writes later can be refused when another process wrote in between.
    writes = connection.get_execution_options().get("flotilla_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _make_private(path: Path) -> None:
    """Makes the file before SQLite does, readable by its owner alone; SQLite's side files take after it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE_FILE_MODE))


def _move_aside(path: Path) -> None:
    """Renames a broken file and its side files, and deletes all but the newest few that were moved earlier."""
    number = 1 + max((_number_of(one) for one in path.parent.glob(f"{path.name}.broken-*")), default=0)
    target = path.with_name(f"{path.name}.broken-{number:03d}")
    with _translated():
        for side in SIDE_FILES:
            source = Path(f"{path}{side}")
            if source.exists():
                source.replace(f"{target}{side}")
    log.warning("the journal's file is broken; it was moved aside and a new one begun", kept_as=target.name)
    for old in path.parent.glob(f"{path.name}.broken-*"):
        if _number_of(old) <= number - KEPT_ASIDE:
            with suppress(OSError):
                old.unlink()


def _number_of(path: Path) -> int:
    digits = path.name.rpartition(".broken-")[2].partition("-")[0]
    return int(digits) if digits.isdecimal() else 0


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def dump_json(value: Any) -> str:
    """JSON that every database takes: numbers that JSON does not know become null, what is no JSON becomes text."""
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return json.dumps(_plain(value), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)
