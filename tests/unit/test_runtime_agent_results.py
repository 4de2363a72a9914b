"""What a worker keeps of finished items: until they are released, over lost links and restarts of either side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from fakes.agents import (
    ADDRESS,
    MASTER_HOME,
    PROMPT_ID,
    WORKER_HOME,
    Worker,
    heard,
    image,
    lease,
    start_item,
    until,
)
from flotilla.host.records import Outcome
from flotilla.runtime import agent as agent_module
from flotilla.transport.fetch import read_local
from flotilla.transport.manifest import BlobManifest
from flotilla.transport.spool import KEEP_S
from flotilla.utils.clock import ManualClock
from flotilla.utils.errors import SpoolFull
from flotilla.workers import messages as m

ONE_BLOB = {"disk_cap_bytes": 1024}
"""The result of one item and no more: a blob of the fakes has 640 bytes or more."""

MakeWorker = Callable[..., Worker]


@pytest.fixture
async def lives(tmp_path: Path) -> AsyncIterator[MakeWorker]:
    """Makes lives of one worker, on one clock; ends those that have not ended."""
    clock = ManualClock()
    made: list[Worker] = []

    def make(**caps: int) -> Worker:
        made.append(Worker(tmp_path, clock, **caps))
        return made[-1]

    yield make
    for worker in made:
        await worker.close()


async def adopt(worker: Worker) -> None:
    worker.agent.adopt(await asyncio.to_thread(worker.spool.adopt))


async def results_told(worker: Worker, home_id: str = MASTER_HOME) -> list[tuple[str, int, int]]:
    """Links a master and returns the results that it is told of."""
    master = worker.link(master_id="a master that comes later", home_id=home_id)
    await until(lambda: home_id in worker.agent._sessions and bool(worker.agent._sessions[home_id].links))
    expected = len(worker.agent._sessions[home_id].results)
    found: list[tuple[str, int, int]] = []
    while len(found) < expected:
        told = await heard(master, m.ItemFinished)
        found.append((told.job_id, told.index, told.attempt))
    return found


async def test_keep_lets_the_result_go_only_when_room_is_short(lives: MakeWorker) -> None:
    worker = lives(**ONE_BLOB)
    master = worker.link()
    kept = await worker.compute(master, 1, index=1)
    await master.send(lease(index=2, prompt_id="no room"))
    await heard(master, m.LeaseAccepted)
    worker.queue.start("no room")
    with pytest.raises(SpoolFull, match="finds no room"):
        worker.agent.deliver("no room", image(2))
    worker.queue.end("no room", Outcome("error", "flotilla.SpoolFull", "no room"))
    failed = await heard(master, m.ItemFailed)
    assert (failed.index, failed.kind, failed.retry) == (2, "spool_full", True)
    await master.send(m.Keep(job_id="job", index=1, attempt=1))
    session = worker.agent._sessions[MASTER_HOME]
    stored = session.results["job", 1, 1].stored
    await until(lambda: worker.spool._held[stored.manifest.hash].is_loose)
    second = await worker.compute(master, 3, index=3)
    assert second.manifest["hash"] != kept.manifest["hash"]
    assert not worker.spool.holds(stored)
    await worker.unlink(master)
    worker.agent._tidy()
    assert list(session.results) == [("job", 3, 1)]


async def test_what_was_kept_is_offered_again_to_the_master_that_links_again(lives: MakeWorker) -> None:
    worker = lives()
    master = worker.link()
    for index in (1, 2):
        await worker.compute(master, index, index=index)
    await master.send(m.Keep(job_id="job", index=1, attempt=1))
    await worker.unlink(master)
    assert await results_told(worker) == [("job", 1, 1), ("job", 2, 1)]


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
@pytest.mark.parametrize("memory_cap_bytes", [1 << 24, 0], ids=["memory", "disk"])
async def test_a_restarted_worker_offers_what_it_had_finished(
    lives: MakeWorker, killed: bool, memory_cap_bytes: int
) -> None:
    first = lives(memory_cap_bytes=memory_cap_bytes)
    master = first.link()
    told = await first.compute(master, 1, index=1)
    await first.compute(master, 2, index=2)
    await master.send(m.Keep(job_id="job", index=1, attempt=1))
    await master.send(m.Release(job_id="job", index=2, attempt=1))
    await until(lambda: first.spool.usage().blobs == 1)
    await first.close(killed=killed)
    second = lives(memory_cap_bytes=memory_cap_bytes)
    await adopt(second)
    again = second.link()
    offer = await heard(again, m.ItemFinished)
    assert offer == told
    manifest = BlobManifest.from_wire(offer.manifest)
    sink = {spec.name: memoryview(bytearray(spec.size_bytes)) for spec in manifest.tensors}
    read_local(second.spool.open(manifest.hash), manifest, sink)  # checks the hash
    await again.send(m.Release(job_id="job", index=1, attempt=1))
    await until(lambda: second.spool.usage().blobs == 0)


async def test_results_that_come_to_light_after_the_master_has_linked_are_offered(lives: MakeWorker) -> None:
    first = lives()
    await first.compute(first.link(), 1)
    await first.close(killed=True)
    second = lives()
    master = second.link()
    await heard(master, m.Capabilities)
    await adopt(second)
    assert (await heard(master, m.ItemFinished)).job_id == "job"


async def test_a_master_that_has_started_anew_finds_its_results(lives: MakeWorker) -> None:
    worker = lives()
    before = worker.link(master_id="first life")
    told = await worker.compute(before)
    await worker.unlink(before)
    after = worker.link(master_id="second life")
    assert await heard(after, m.ItemFinished) == told


async def test_a_master_that_has_started_anew_stops_what_it_does_not_know_and_results_stay(lives: MakeWorker) -> None:
    worker = lives()
    before = worker.link(master_id="first life")
    await worker.compute(before, 2, index=2)
    await start_item(worker, before)
    await worker.unlink(before)
    after = worker.link(master_id="second life")
    await heard(after, m.ItemStarted)
    for index in (1, 2):
        await after.send(m.Stop(job_id="job", index=index, attempt=1))
    await until(lambda: worker.queue.cancelled == [PROMPT_ID])
    assert worker.spool.usage().blobs == 1
    await after.send(m.Release(job_id="job", index=2, attempt=1))
    await until(lambda: worker.spool.usage().blobs == 0)


async def test_a_lease_that_was_given_before_the_masters_restart_is_answered_with_what_is_here(
    lives: MakeWorker,
) -> None:
    worker = lives()
    master = worker.link()
    told = await worker.compute(master)
    await master.send(lease(prompt_id="the same attempt again"))
    assert await heard(master, m.ItemFinished) == told
    await master.send(lease(index=2, prompt_id="second"))
    await heard(master, m.LeaseAccepted)
    worker.queue.start("second")
    await heard(master, m.ItemStarted)
    await master.send(lease(index=2, prompt_id="second, again"))
    assert (await heard(master, m.ItemStarted)).index == 2
    assert set(worker.queue.prompts) == {"second", "prompt 1 {}"}


async def test_masters_do_not_see_each_others_results(lives: MakeWorker) -> None:
    worker = lives()
    one, two = worker.link(home_id="one"), worker.link(home_id="two", master_id="master-2")
    for master in (one, two):
        await worker.compute(master, 1)  # the same address and even the same bytes
    assert worker.spool.usage().blobs == 1
    stored = worker.agent._sessions["one"].results["job", 1, 1].stored
    await one.send(m.Release(**ADDRESS))
    await until(lambda: not worker.spool.holds(stored))
    assert worker.agent._sessions["one"].results == {}
    assert list(worker.agent._sessions["two"].results) == [("job", 1, 1)]
    assert worker.spool.usage().blobs == 1
    await worker.close(killed=True)
    later = lives()
    await adopt(later)
    assert await results_told(later, "two") == [("job", 1, 1)]
    assert "one" not in later.agent._sessions


async def test_what_it_had_computed_as_a_master_is_not_the_agents(lives: MakeWorker) -> None:
    worker = lives()
    note = {"kind": "item", "master": WORKER_HOME, "job": "own", "index": 0, "attempt": 1, "seconds": 1.0}
    worker.spool.write(image(1), note=note)
    await worker.close(killed=True)
    later = lives()
    adopted = later.spool.adopt()
    later.agent.adopt(adopted)
    assert later.agent._sessions == {}
    assert later.spool.holds(adopted[0].blob)


@pytest.mark.parametrize(
    "change",
    [{"kind": "tile"}, {"master": ""}, {"master": 7}, {"job": ""}, {"index": -1}, {"attempt": "1"}, {"seconds": None}],
)
async def test_results_with_notes_that_say_nothing_are_dropped(lives: MakeWorker, change: dict[str, object]) -> None:
    worker = lives()
    note = {"kind": "item", "master": MASTER_HOME, "job": "job", "index": 0, "attempt": 1, "seconds": 1.0}
    worker.spool.write(image(1), note={**note, **change})
    await worker.close(killed=True)
    later = lives()
    await adopt(later)
    await until(lambda: later.spool.usage().blobs == 0)
    assert later.agent._sessions == {}


async def test_releasing_and_keeping_what_is_not_here_is_harmless(lives: MakeWorker) -> None:
    worker = lives()
    master = worker.link()
    await worker.compute(master)
    for kind in (m.Keep, m.Release, m.Stop):
        await master.send(kind(job_id="job", index=1, attempt=2))
        await master.send(kind(job_id="nobody", index=0, attempt=0))
    await worker.compute(master, 5, index=5)  # it still listens
    assert worker.spool.usage().blobs == 2


async def test_a_master_that_stays_away_loses_its_items_and_not_its_results(
    lives: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = lives()
    monkeypatch.setattr(agent_module, "ORPHAN_AFTER_S", 0.0)
    master = worker.link()
    await worker.compute(master, 2, index=2)
    await start_item(worker, master)
    await worker.unlink(master)
    await until(lambda: worker.queue.cancelled == [PROMPT_ID])
    assert await results_told(worker) == [("job", 2, 1)]


async def test_results_that_nobody_fetches_go_after_a_day_and_the_master_is_forgotten(
    lives: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = lives()
    monkeypatch.setattr(agent_module, "ORPHAN_AFTER_S", 0.0)
    master = worker.link()
    await worker.compute(master)
    await worker.unlink(master)
    worker.clock.advance(KEEP_S)  # type: ignore[attr-defined]
    worker.spool.trim(worker.clock.now_s())
    worker.agent._tidy()
    assert MASTER_HOME in worker.agent._sessions
    worker.clock.advance(1)  # type: ignore[attr-defined]
    worker.spool.trim(worker.clock.now_s())
    worker.agent._tidy()
    assert worker.agent._sessions == {}
    assert worker.spool.usage().blobs == 0


async def test_a_master_that_stays_linked_does_not_make_the_books_grow(lives: MakeWorker) -> None:
    worker = lives()
    master = worker.link()
    await worker.compute(master)
    worker.clock.advance(KEEP_S + 1)  # type: ignore[attr-defined]
    worker.spool.trim(worker.clock.now_s())
    worker.agent.queue_counts()
    assert worker.agent._sessions[MASTER_HOME].results == {}


async def test_a_failure_that_nobody_could_be_told_is_told_later_once(lives: MakeWorker) -> None:
    worker = lives()
    master = worker.link()
    await start_item(worker, master)
    await worker.unlink(master)
    worker.queue.end(PROMPT_ID, Outcome("error", "builtins.ValueError", "bad"))
    await until(lambda: PROMPT_ID not in worker.agent._by_prompt)
    again = worker.link()
    failed = await heard(again, m.ItemFailed)
    assert (failed.index, failed.message) == (1, "bad")
    await until(lambda: worker.agent._sessions[MASTER_HOME].items == {})


async def test_a_result_whose_attempt_was_stopped_while_it_was_written_is_dropped(lives: MakeWorker) -> None:
    worker = lives()
    master = worker.link()
    await start_item(worker, master)
    item = worker.agent._by_prompt[PROMPT_ID]
    stored = worker.spool.write(image(1), note={"any": "note"})
    await master.send(m.Stop(**ADDRESS))
    await until(lambda: item.state == "ended")
    worker.agent._delivered(item, stored, 1.0)
    await until(lambda: worker.spool.usage().blobs == 0)
    assert worker.agent._sessions[MASTER_HOME].results == {}


async def test_a_second_delivery_of_one_attempt_is_dropped(lives: MakeWorker) -> None:
    worker = lives()
    master = worker.link()
    await start_item(worker, master)
    for seed in (1, 2):
        await asyncio.to_thread(worker.agent.deliver, PROMPT_ID, image(seed))
    first = await heard(master, m.ItemFinished)
    assert await heard(master, m.ItemFinished) == first
    await until(lambda: worker.spool.usage().blobs == 1)
