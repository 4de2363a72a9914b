"""Threads that stand ready for blocking work, so that the event loop never has to start one.

Starting a thread makes the starter wait until the new one has run: with other threads at work on large memory that took
the event loop more than 100 ms. Here a thread that takes up work first sees to it that another one waits for the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")

KEPT_IDLE = 8
"""So many threads stay when there is nothing to do."""


class Readers:
    """As many daemon threads as there is work at a time: at shutdown nobody waits for a peer that is silent."""

    def __init__(self, name: str, kept_idle: int = KEPT_IDLE) -> None:
        self._name = name
        self._kept_idle = kept_idle
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._begun = False

    def submit(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """Has a thread call ``work``; what it returns or raises is the future's, in the running event loop.

        Returns at once; only the very first call of all starts a thread. Cancelling the future does not stop the work.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()

        def serve() -> None:
            try:
                settle = functools.partial(_succeed, done, work())
            except BaseException as error:  # it is handed to whoever waits
                settle = functools.partial(_fail, done, error)
            with contextlib.suppress(RuntimeError):  # the loop is closed, nobody waits
                loop.call_soon_threadsafe(settle)

        self.run(serve)
        return done

    def run(self, work: Callable[[], None]) -> None:
        """Has a thread call ``work``, which must not raise."""
        with self._lock:
            is_first, self._begun = not self._begun, True
        if is_first:
            try:
                self._add()
            except RuntimeError:
                self._begun = False
                raise
        self._work.put(work)

    def _add(self) -> None:
        with self._lock:
            self._idle += 1
        try:
            threading.Thread(target=self._serve, name=self._name, daemon=True).start()
        except RuntimeError:  # the system gives no more threads
            with self._lock:
                self._idle -= 1
            raise

    def _serve(self) -> None:
        while True:
            work = self._work.get()
            with self._lock:
                self._idle -= 1
                is_last = self._idle == 0
            if is_last:
                with contextlib.suppress(RuntimeError):  # the next work waits until one of us is done
                    self._add()
            work()
            del work  # what it holds must not stay while this thread waits
            with self._lock:
                if self._idle >= self._kept_idle:
                    return
                self._idle += 1


def _succeed(done: asyncio.Future[Result], result: Result) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: asyncio.Future[Result], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)


READERS = Readers("flotilla-reader")


async def in_reader(work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
    """As `asyncio.to_thread`, in one of our own threads."""
    return await READERS.submit(functools.partial(work, *args, **kwargs))
