"""A real PostgreSQL server in a temporary folder, reached by a Unix socket alone, gone with the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

START_S = 60.0
STOP_S = 20.0
OWNER = "tester"
OTHER_USERS = ("postgres", "nobody")
DEBIAN_PROGRAMS = Path("/usr/lib/postgresql")
CURE = "Install it: sudo apt-get install -y postgresql (Debian, Ubuntu), brew install postgresql (macOS)."


class NoPostgres(Exception):
    """There is no PostgreSQL here, or it does not start. The message says what to do."""


class NotInstalled(NoPostgres):
    """There is none at all."""


class Server:
    """A running server; every database on it is a test's own."""

    def __init__(self, socket_folder: Path) -> None:
        self._folder = socket_folder
        self._made = 0

    def new_database(self, user: str = OWNER) -> URL:
        """Makes an empty database, which belongs to `OWNER`, and returns the address by which ``user`` reaches it."""
        self._made += 1
        name = f"journal {self._made}"  # a name that must be quoted everywhere
        self.run(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return URL.create("postgresql", username=user, database=name, query={"host": str(self._folder)})

    def run(self, statement: sql.Composed | sql.SQL) -> None:
        """Runs one statement as the server's owner."""
        with psycopg.connect(host=str(self._folder), user=OWNER, dbname="postgres", autocommit=True) as connection:
            connection.execute(statement)


def program(name: str) -> str:
    """The path of one of PostgreSQL's programs. Raises NotInstalled."""
    found = shutil.which(name)
    if found:
        return found
    versions = sorted(DEBIAN_PROGRAMS.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    if not versions:
        raise NotInstalled(f"{name} is not installed. {CURE}")
    return str(versions[-1])


@contextmanager
def running() -> Iterator[Server]:
    """A server for as long as the block runs. Raises NoPostgres."""
    folder = Path(tempfile.mkdtemp(prefix="flotilla-pg-"))  # short: a socket's path has about 100 characters
    process: subprocess.Popen[bytes] | None = None
    try:
        who = _other_user(folder)
        cluster = folder / "data"
        made = subprocess.run(
            [program("initdb"), "-D", str(cluster), "-U", OWNER, "--auth=trust", "--encoding=UTF8", "--no-sync"],
            capture_output=True,
            text=True,
            check=False,
            **who,
        )
        if made.returncode:
            raise NoPostgres(f"initdb failed: {made.stderr.strip()[-500:]}")
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(folder),
            "fsync": "off",
            "max_connections": "20",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [program("postgres"), "-D", str(cluster), *options], stdout=log, stderr=subprocess.STDOUT, **who
            )
        _await_start(process, folder)
        yield Server(folder)
    finally:
        if process is not None:
            _stop(process)
        shutil.rmtree(folder, ignore_errors=True)


def _other_user(folder: Path) -> dict[str, Any]:
    """PostgreSQL refuses to run as root: then the folder goes to somebody else, as whom it is started."""
    if sys.platform == "win32":
        raise NoPostgres("These tests reach PostgreSQL by a Unix socket: run them on Linux or macOS.")
    if os.getuid() != 0:
        return {}
    import pwd  # not on Windows

    for name in OTHER_USERS:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(folder, user.pw_uid, user.pw_gid)
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": folder}
    raise NoPostgres(f"PostgreSQL does not run as root, and there is none of the users {', '.join(OTHER_USERS)}.")


def _await_start(process: subprocess.Popen[bytes], folder: Path) -> None:
    until_s = time.monotonic() + START_S
    while True:
        try:
            psycopg.connect(host=str(folder), user=OWNER, dbname="postgres", connect_timeout=2).close()
            return
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > until_s:
                tail = (folder / "log").read_text(errors="replace")[-1000:]
                raise NoPostgres(f"PostgreSQL did not start: {error}\n{tail}") from None
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)  # "fast": ends the sessions that are still there
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
