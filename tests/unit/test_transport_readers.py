"""Threads that stand ready: work never waits for other work, the caller never starts threads, and few are kept."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable

import pytest
from flotilla.transport.readers import Readers, in_reader

WAIT_S = 10.0


def names(readers_name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == readers_name]


def blocked(readers: Readers, count: int) -> tuple[list[threading.Event], threading.Event]:
    """So many works that have begun and wait for the second event."""
    begun = [threading.Event() for _ in range(count)]
    go_on = threading.Event()

    def work_of(event: threading.Event) -> Callable[[], None]:
        def work() -> None:
            event.set()
            assert go_on.wait(WAIT_S)

        return work

    for event in begun:
        readers.run(work_of(event))
    return begun, go_on


def test_all_work_runs_at_the_same_time() -> None:
    readers = Readers("readers-at-once")
    begun, go_on = blocked(readers, 12)
    assert all(event.wait(WAIT_S) for event in begun)
    go_on.set()


def test_only_the_first_call_starts_a_thread_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    readers = Readers("readers-by-others")
    starters: list[int] = []
    start = threading.Thread.start

    def noting(thread: threading.Thread) -> None:
        starters.append(threading.get_ident())
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noting)
    begun, go_on = blocked(readers, 6)
    assert all(event.wait(WAIT_S) for event in begun)
    go_on.set()
    assert starters.count(threading.get_ident()) == 1
    assert len(starters) >= 6


def test_few_threads_are_kept_and_used_again() -> None:
    readers = Readers("readers-kept", kept_idle=2)
    begun, go_on = blocked(readers, 8)
    assert all(event.wait(WAIT_S) for event in begun)
    busy = names("readers-kept")
    assert len(busy) >= 8
    go_on.set()
    deadline_s = time.monotonic() + WAIT_S
    while len(names("readers-kept")) > 2:
        assert time.monotonic() < deadline_s
        busy[0].join(0.01)
    assert names("readers-kept")
    done = threading.Event()
    readers.run(done.set)
    assert done.wait(WAIT_S)


def test_threads_do_not_hold_up_the_end_of_the_process() -> None:
    readers = Readers("readers-daemon")
    done = threading.Event()
    readers.run(done.set)
    assert done.wait(WAIT_S)
    assert all(thread.daemon for thread in names("readers-daemon"))


async def test_results_and_errors_come_back_to_the_loop() -> None:
    assert await in_reader(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_reader(divmod, 7, 0)


async def test_what_nobody_waits_for_any_more_is_dropped() -> None:
    readers = Readers("readers-dropped")
    go_on = threading.Event()
    done = readers.submit(lambda: go_on.wait(WAIT_S))
    done.cancel()
    go_on.set()
    assert await readers.submit(lambda: "next") == "next"
    await asyncio.sleep(0)
    assert done.cancelled()


async def test_a_system_without_more_threads_makes_work_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    readers = Readers("readers-scarce")
    assert await readers.submit(lambda: 1) == 1
    monkeypatch.setattr(threading.Thread, "start", _no_more)
    results = [readers.submit(functools.partial(int, number)) for number in range(20)]
    assert await asyncio.gather(*results) == list(range(20))


def test_a_system_without_any_thread_says_so_and_may_be_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    readers = Readers("readers-none")
    with monkeypatch.context() as without:
        without.setattr(threading.Thread, "start", _no_more)
        with pytest.raises(RuntimeError):
            readers.run(lambda: None)
    done = threading.Event()
    readers.run(done.set)
    assert done.wait(WAIT_S)


def _no_more(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
