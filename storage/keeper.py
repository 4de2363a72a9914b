"""The journal's state in its own thread: the database, what waits to be written, and how long to leave a sick one alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from ..utils.log import get_logger
from . import reading, writing
from .database import Database
from .pending import Batch, Inbox, Pending
from .problems import BrokenFile, DatabaseProblem, DatabaseUnusable, problem_of, told
from .records import JournalStatus

log = get_logger("storage")

ROWS_AT_ONCE = 5_000
"""Rows of one transaction: tens of milliseconds, so that whatever comes meanwhile need not wait long."""

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0

T = TypeVar("T")


class Keeper:
    """Writes and reads, and knows how the database fares. Belongs to one thread; `status` may be read by any.

    A database that fails is left alone for a while that grows with every failure. What is put meanwhile waits.
    """

    def __init__(
        self, database: Database, home: str, wall_clock: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        self._database = database
        self._home = home
        self._wall_clock = wall_clock
        self._monotonic = monotonic
        self._pending = Pending()
        self._status = JournalStatus("starting")
        self._marked = False  # what an earlier process left open was marked
        self._unusable = False
        self._pause_s = 0.0
        self._retry_at_s = 0.0
        self._counted = True

    @property
    def status(self) -> JournalStatus:
        """How the journal fares."""
        status, lost = self._status, self._pending.dropped
        if not lost:
            return status
        return JournalStatus(
            status.state, f"{status.message} {lost} records were lost.".strip(), status.jobs, status.size_bytes
        )

    @property
    def waiting(self) -> int:
        """How many records wait to be written."""
        return len(self._pending)

    @property
    def due_in_s(self) -> float | None:
        """When `work` has something to do: seconds from now, or None."""
        if self._unusable:
            return None
        if not self._healthy:
            return max(0.0, self._retry_at_s - self._monotonic())
        return 0.0 if len(self._pending) or not self._counted else None

    def take_in(self, inbox: Inbox) -> None:
        """Takes newer records."""
        inbox.empty_into(self._pending)
        if self._unusable:
            self._pending.clear()

    def drop(self, job_id: str) -> None:
        """Forgets what waits about a job."""
        self._pending.forget(job_id)

    def work(self) -> bool:
        """Opens, if need be, and writes one batch; with nothing to write, counts. False: the database is sick."""
        if self._unusable:
            return False
        try:
            if not self._healthy:
                self._recover()
            if len(self._pending):
                self._write(self._pending.take(ROWS_AT_ONCE))
            else:
                self._count()
        except Exception as error:
            self._degrade(self._problem(error))
        return self._healthy

    def read(self, work: Callable[[Connection], T]) -> T:
        """Runs ``work`` with a connection to read with. Raises DatabaseProblem."""
        return self._run(lambda: self._reading(work))

    def change(self, work: Callable[[Connection], T]) -> T:
        """Runs ``work`` in a transaction. Raises DatabaseProblem."""
        self._counted = False
        return self._run(lambda: self._writing(work))

    def shrink(self) -> None:
        """Gives room that was freed back to the disk. Raises DatabaseProblem."""
        self._counted = False
        self._run(self._database.shrink)

    def close(self) -> None:
        """Lets the database go."""
        self._database.close()

    @property
    def _healthy(self) -> bool:
        return self._status.state == "ok"

    def _run(self, work: Callable[[], T]) -> T:
        if not self._healthy:
            raise DatabaseProblem(self._status.message or "The journal is not open yet.")
        try:
            return work()
        except Exception as error:
            problem = self._problem(error)
            self._degrade(problem)
            raise problem from None

    def _problem(self, error: Exception) -> DatabaseProblem:
        """Any error as a problem of the database; one that nobody foresaw is logged with its trace."""
        problem = problem_of(error)
        if problem is None:
            if not isinstance(error, SQLAlchemyError):
                log.error("the journal met an error that nobody foresaw", exc_info=error)
            problem = DatabaseProblem(told(error))
        return problem

    def _reading(self, work: Callable[[Connection], T]) -> T:
        with self._database.reading() as connection:
            return work(connection)

    def _writing(self, work: Callable[[Connection], T]) -> T:
        with self._database.writing() as connection:
            return work(connection)

    def _recover(self) -> None:
        if not self._database.is_open:
            self._database.open()
        with self._database.writing() as connection:
            writing.see_home(connection, self._home, self._wall_clock())
            if not self._marked:
                found = writing.interrupt_open_jobs(connection, self._home, self._wall_clock())
        if not self._marked and found:
            log.info("jobs of an earlier run were left open; they can be resumed", jobs=found)
        self._marked = True
        if self._status.state == "degraded":
            log.info("the journal works again", waiting=len(self._pending))
        self._pause_s = 0.0
        self._status = JournalStatus("ok", "", self._status.jobs, self._status.size_bytes)
        self._counted = False

    def _write(self, batch: Batch) -> None:
        try:
            self._writing(lambda connection: writing.write(connection, self._home, batch))
        except DatabaseProblem:
            self._pending.put_back(batch)
            raise
        except Exception as error:  # something in it cannot be written: find out what, and write the rest
            log.warning("records cannot be written together", error=type(error).__name__, records=len(batch))
            self._write_one_by_one(batch)
        self._counted = False

    def _write_one_by_one(self, batch: Batch) -> None:
        lost = 0
        try:
            with self._database.writing() as connection:
                for record in batch.records():
                    one = Pending()
                    one.add([record])
                    try:
                        with connection.begin_nested():
                            writing.write(connection, self._home, one.take(1))
                    except DatabaseProblem:
                        raise
                    except Exception as error:
                        if problem_of(error) is not None:
                            raise
                        lost += 1
        except DatabaseProblem:
            self._pending.put_back(batch)
            raise
        if lost:
            self._pending.dropped += lost
            log.warning("records that no database takes were left out", records=lost)

    def _count(self) -> None:
        with self._database.reading() as connection:
            jobs = reading.count_jobs(connection, self._home)
        self._status = JournalStatus("ok", "", jobs, self._database.size_bytes())
        self._counted = True

    def _degrade(self, problem: DatabaseProblem) -> None:
        if isinstance(problem, BrokenFile) and self._database.is_open:
            try:
                self._database.repair(problem)
            except DatabaseProblem as worse:
                problem = worse
            else:
                return
        self._unusable = isinstance(problem, DatabaseUnusable)
        self._pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * self._pause_s))
        self._retry_at_s = self._monotonic() + self._pause_s
        if self._status.state != "degraded":
            log.warning("the journal cannot be written; jobs run all the same", cause=str(problem))
        message = f"{problem} Jobs run, but are not written down." if not self._unusable else str(problem)
        self._status = JournalStatus("degraded", message, self._status.jobs, self._status.size_bytes)
        if self._unusable:
            self._database.close()
            self._pending.clear()
