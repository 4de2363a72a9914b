"""The journal: what became of jobs, items and attempts, written down so that it outlives this process.

A thread of its own does all the writing and reading; the event loop never waits for a disk. `Journal.put` only leaves a
record behind. A journal that fails harms no job: `Journal.status` says what is wrong.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.engine import URL

from ..utils.errors import JournalUnavailable
from ..utils.log import get_logger
from . import reading, retention, writing
from .database import Database
from .keeper import ROWS_AT_ONCE, Keeper
from .pending import Inbox
from .problems import DatabaseProblem
from .records import (
    MAX_ITEMS_PAGE,
    AttemptRecord,
    ItemRecord,
    JobFilter,
    JobPatch,
    JobRecord,
    JournalStatus,
    Page,
    Record,
    check_page,
)

log = get_logger("storage")

LINGER_S = 0.2
"""How long a record waits for newer ones about the same thing before it is written."""

FLUSH_S = 30.0
CLOSE_S = 5.0

T = TypeVar("T")
_PATCHED = frozenset(field.name for field in fields(JobRecord)) - {"id", "home"}
_AGAIN = object()


@dataclass(slots=True)
class _Call:
    """Something that the thread is asked to do, between its writes. ``work`` may return `_AGAIN` to be called later."""

    work: Callable[[], Any]
    done: Future[Any]
    begun: bool = False


class Journal:
    """What is known of the jobs of one home. Any thread may use it; the async methods belong to event loops."""

    def __init__(
        self,
        url: str | URL,
        home: str,
        *,
        wall_clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        database: Database | None = None,
    ) -> None:
        """``url`` is a secret (see `database.sqlite_url`); ``home`` the stable name of this instance, 1 to 100 characters.

        ``wall_clock`` gives seconds since 1970, ``monotonic`` seconds that only grow. Nothing is touched before `start`.
        """
        self._home = home
        self._wall_clock = wall_clock
        self._monotonic = monotonic
        self._keeper = Keeper(database or Database(url), home, wall_clock, monotonic)
        self._changed = threading.Condition()
        self._inbox = Inbox()
        self._inbox_since_s = 0.0
        self._calls: deque[_Call] = deque()
        self._sleeping = False
        self._thread: threading.Thread | None = None
        self._closing = False
        self._close_by_s = 0.0

    def start(self) -> None:
        """Begins to open the database, in its thread; returns at once. What was put before is written then."""
        with self._changed:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="flotilla-journal", daemon=True)
                self._thread.start()

    def put(self, *records: JobRecord | ItemRecord | AttemptRecord) -> None:
        """Leaves records to be written soon; a newer one about the same thing replaces an older one. Never blocks long.

        Items and attempts of a job that was never put, or is forgotten, are left out.
        """
        self._leave(records)

    def patch_job(self, job_id: str, **fields: Any) -> None:
        """Changes some fields of a job that was put before. Raises TypeError for a field that jobs do not have."""
        unknown = set(fields) - _PATCHED
        if unknown:
            raise TypeError(f"a job's record has no field {sorted(unknown)}")
        self._leave((JobPatch(job_id, fields),))

    async def flush(self) -> bool:
        """Waits until what was put so far is written, at most `FLUSH_S`. False: it could not be, and waits on."""
        until_s = self._monotonic() + FLUSH_S
        return bool(await self._call(lambda: self._flush_step(until_s)))

    async def jobs(self, wanted: JobFilter | None = None) -> Page[JobRecord]:
        """Jobs of this home without their large parts. Raises JournalUnavailable."""
        filter_ = wanted or JobFilter()
        return await self._read(lambda connection: reading.jobs(connection, self._home, filter_))

    async def job(self, job_id: str) -> JobRecord | None:
        """One job with everything; None when there is none. Raises JournalUnavailable."""
        return await self._read(lambda connection: reading.job(connection, self._home, job_id))

    async def items(self, job_id: str, limit: int = 1_000, offset: int = 0) -> Page[ItemRecord]:
        """Items of a job by index. Raises JournalUnavailable, InvalidInput for a page that cannot be."""
        check_page(limit, offset, MAX_ITEMS_PAGE)
        return await self._read(lambda connection: reading.items(connection, self._home, job_id, limit, offset))

    async def attempts(self, job_id: str, indexes: Collection[int] | None = None) -> list[AttemptRecord]:
        """Attempts of all items of a job or of some, by index and number. Raises JournalUnavailable."""
        wanted = None if indexes is None else tuple(indexes)
        return await self._read(lambda connection: reading.attempts(connection, self._home, job_id, wanted))

    async def forget(self, job_id: str) -> bool:
        """Deletes a job with its items and attempts; whether there was one. Raises JournalUnavailable."""

        def work() -> bool:
            self._keeper.drop(job_id)

            def change(connection: Connection) -> bool:
                keys = writing.job_keys(connection, self._home, [job_id])
                writing.forget_jobs(connection, keys.values())
                return bool(keys)

            return self._keeper.change(change)

        return await self._call(work)

    async def trim(self, max_age_s: float, max_bytes: int, keep: Collection[str] = ()) -> list[str]:
        """Forgets the oldest ended jobs: those that ended too long ago, and more until the rest fits in ``max_bytes``.

        Never an open one, and none of ``keep``. What homes left behind that nobody has seen for months goes as well.
        Returns the ids of this home's jobs that were forgotten. Raises JournalUnavailable.
        """
        now_s, kept = self._wall_clock(), tuple(keep)
        doomed = await self._read(
            lambda connection: retention.to_forget(connection, self._home, now_s, max_age_s, max_bytes, kept)
        )
        homes = await self._read(lambda connection: retention.gone_homes(connection, self._home, now_s, max_age_s))
        await self._forget_keys([job.key for job in doomed])
        for home in homes:
            await self._forget_keys(await self._read(partial(retention.keys_of_home, home=home)))
            await self._change(partial(retention.give_up_home, home=home))
        await self._change(lambda connection: writing.see_home(connection, self._home, now_s))
        if doomed or homes:
            await self._call(self._keeper.shrink)
            log.info("the journal was trimmed", jobs=len(doomed))
        return [job.id for job in doomed]

    def status(self) -> JournalStatus:
        """How the journal fares. From any thread, at once."""
        return self._keeper.status

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Writes what waits, as far as ``timeout_s`` allows, and ends the thread. Harmless when called again."""
        with self._changed:
            if not self._closing:
                self._closing = True
                self._close_by_s = self._monotonic() + timeout_s
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s)

    async def _forget_keys(self, keys: Collection[int]) -> None:
        for key in keys:  # one by one: other writers and readers have their turn between
            await self._change(partial(writing.forget_jobs, keys=[key]))

    def _leave(self, records: tuple[Record, ...]) -> None:
        if not records:
            return
        with self._changed:
            if self._closing:
                return
            if not self._inbox.rows:
                self._inbox_since_s = self._monotonic()
            self._inbox.leave(records)
            if self._sleeping or self._inbox.rows >= ROWS_AT_ONCE:
                self._changed.notify_all()

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await self._call(lambda: self._keeper.read(work))

    async def _change(self, work: Callable[[Connection], T]) -> T:
        return await self._call(lambda: self._keeper.change(work))

    async def _call(self, work: Callable[[], T]) -> T:
        """Has the thread do ``work``, after what was put before has been sorted in."""
        done: Future[T] = Future()
        with self._changed:
            if self._thread is None or self._closing:
                raise _unavailable("It is not running.")
            self._calls.append(_Call(work, done))
            self._changed.notify_all()
        return await asyncio.wrap_future(done)

    # What follows runs in the thread.

    def _run(self) -> None:
        try:
            while self._wait():
                call = self._next_call()  # first: what was put before it is then sorted in before it is carried out
                self._take_in()
                if self._keeper.due_in_s == 0.0:
                    self._keeper.work()
                if call is not None:
                    self._carry_out(call)
            self._finish()
        except Exception as error:
            log.error("the journal's thread ended", exc_info=error)
        finally:
            self._refuse_calls()
            self._keeper.close()

    def _wait(self) -> bool:
        """Sleeps until there is something to do. False: the journal is being closed, and all were answered or time is up."""
        with self._changed:
            while True:
                if self._closing and (not self._calls or self._monotonic() >= self._close_by_s):
                    return False
                if self._calls:
                    return True
                wait_s = self._wait_s()
                if wait_s is not None and wait_s <= 0:
                    return True
                self._sleeping = wait_s is None
                self._changed.wait(wait_s)
                self._sleeping = False
                if self._inbox.rows >= ROWS_AT_ONCE:
                    return True

    def _wait_s(self) -> float | None:
        due_in_s = self._keeper.due_in_s
        if not self._inbox.rows or self._keeper.status.state != "ok":
            return due_in_s
        lingers_s = self._inbox_since_s + LINGER_S - self._monotonic()
        return lingers_s if due_in_s is None else min(due_in_s, lingers_s)

    def _take_in(self) -> None:
        with self._changed:
            inbox, self._inbox = self._inbox, Inbox()
        self._keeper.take_in(inbox)

    def _next_call(self) -> _Call | None:
        with self._changed:
            return self._calls.popleft() if self._calls else None

    def _carry_out(self, call: _Call) -> None:
        if not call.begun and not call.done.set_running_or_notify_cancel():
            return
        call.begun = True
        try:
            found = call.work()
        except DatabaseProblem:
            call.done.set_exception(_unavailable(self._keeper.status.message))
        except Exception as error:
            call.done.set_exception(error)
        else:
            if found is not _AGAIN:
                call.done.set_result(found)
                return
            with self._changed:
                self._calls.append(call)

    def _flush_step(self, until_s: float) -> Any:
        keeper = self._keeper
        if keeper.due_in_s is None and keeper.status.state == "ok":
            return True
        if not keeper.work() or self._monotonic() > until_s:
            return False
        return _AGAIN

    def _finish(self) -> None:
        """Writes what is left while there is time."""
        self._take_in()
        keeper = self._keeper
        while keeper.waiting and self._monotonic() < self._close_by_s and keeper.work():
            pass
        if keeper.waiting:
            log.warning("the journal was closed before all was written", records=keeper.waiting)

    def _refuse_calls(self) -> None:
        with self._changed:
            self._closing = True
            calls, self._calls = list(self._calls), deque()
        for call in calls:
            if call.begun or call.done.set_running_or_notify_cancel():
                call.done.set_exception(_unavailable("It was closed."))


def _unavailable(cause: str) -> JournalUnavailable:
    return JournalUnavailable(
        f"The journal of jobs cannot be read now: {cause or 'its database does not answer.'}",
        cure="Flotilla's documentation has a page about the journal, docs/journal.md.",
    )
