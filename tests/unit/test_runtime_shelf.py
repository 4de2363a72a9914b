"""Who holds which finished result of jobs that do not run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from flotilla.runtime import shelf as shelf_module
from flotilla.runtime.shelf import Kept, Shelf

MANIFEST: Any = object()


def kept(participant_id: str = "w1", index: int = 0, attempt: int = 1) -> Kept:
    return Kept(participant_id, index, attempt, MANIFEST, 1.0)


async def test_what_was_put_is_there_once_and_in_order() -> None:
    shelf = Shelf()
    for one in (kept(index=2), kept(index=1), kept(index=1), kept("w2", index=1)):
        shelf.put("job", one)
    shelf.put("other", kept(index=7))
    assert [(one.index, one.participant_id) for one in shelf.of("job")] == [(1, "w1"), (1, "w2"), (2, "w1")]
    assert [one.index for one in shelf.take("job")] == [1, 1, 2]
    assert shelf.of("job") == []
    assert shelf.job_ids() == ["other"]


async def test_a_participant_that_is_gone_holds_nothing() -> None:
    shelf = Shelf()
    shelf.put("a", kept("w1"))
    shelf.put("a", kept("w2", index=1))
    shelf.put("b", kept("w1"))
    shelf.forget_participant("w1")
    assert shelf.job_ids() == ["a"]
    assert [one.participant_id for one in shelf.of("a")] == ["w2"]


async def test_waiting_ends_with_the_note_that_was_waited_for() -> None:
    shelf = Shelf()
    waiting = asyncio.ensure_future(shelf.until(lambda: len(shelf.of("job")) == 2, timeout_s=5.0))
    await asyncio.sleep(0)
    shelf.put("job", kept(index=0))
    await asyncio.sleep(0)
    assert not waiting.done()
    shelf.put("job", kept(index=1))
    assert await waiting is True


async def test_waiting_in_vain_ends() -> None:
    assert await Shelf().until(lambda: False, timeout_s=0.01) is False


async def test_the_shelf_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_module, "MAX_RESULTS", 3)
    shelf = Shelf()
    for number in range(4):
        shelf.put(f"job{number}", kept())
    assert shelf.job_ids() == ["job1", "job2", "job3"]
    for index in range(10):  # one job alone is never given up
        shelf.put("job3", kept(index=index))
    assert shelf.job_ids() == ["job3"]
    assert len(shelf.of("job3")) == 10
