"""Upscales that are taken up again, and workers that come when one is on its way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from fakes.master import Master, heard, until
from fakes.tile_work import FakeWork, alone, pixels
from fakes.upscaling import Upscaling
from flotilla.graph.preflight import Capabilities
from flotilla.host.records import Outcome
from flotilla.runtime.wishes import Wishes
from flotilla.transport.values import IMAGE, Value
from flotilla.upscale.work import PIXELS, Values
from flotilla.workers import messages as m

CHAIN = [set(), {0}, {1}]
WIDE: list[set[int]] = [set()] * 6
ENOUGH = Capabilities(frozenset({"KitModel", "KitEncode"}))


@pytest.fixture
async def master(tmp_path: Path) -> AsyncIterator[Master]:
    made = Master(tmp_path)
    await made.linked()
    made.registry.patch_settings({"max_attempts": 1})
    yield made
    await made.close()


class OtherPicture(FakeWork):
    """Its pixels are not those of a `FakeWork`."""

    def cut(self, place: int) -> Values:
        shift = pixels(10)[PIXELS].data
        return {PIXELS: Value(IMAGE, super().cut(place)[PIXELS].data + shift)}


async def fail_at_the_second(master: Master) -> tuple[str, m.ItemFinished]:
    """A job whose first tile the first worker has, and whose second has failed. Its prompt is over."""
    up = Upscaling.post(master, Wishes(worker_ids=("w1",)))
    await up.begin(CHAIN)
    lease = await up.lease("w1")
    report = up.redrawn("w1", lease)
    await master.end("w1").send(report)
    await heard(master.end("w1"), m.Keep)
    await up.refuse("w1")
    await until(lambda: up.stage.finished)
    await up.end()
    assert up.state() == "failed"
    return up.job_id, report


async def resumed(master: Master, job_id: str) -> Upscaling:
    """The job's next life, begun."""
    await master.coordinator.revival.resume(job_id)
    master.queue.start(job_id)
    return Upscaling(master, job_id)


async def finish(up: Upscaling, work: FakeWork, places: Sequence[int]) -> None:
    """The first worker computes just these."""
    leases = [await up.serve("w1") for _ in places]
    assert [lease.index for lease in leases] == list(places)
    assert all(lease.attempt > 1 for lease in leases[:1])
    await up.over()
    await up.end()
    assert up.state() == "done"


async def test_a_finished_tile_is_not_computed_again(master: Master) -> None:
    job_id, _ = await fail_at_the_second(master)
    up = await resumed(master, job_id)
    work = await up.begin(CHAIN)
    await finish(up, work, [1, 2])
    assert work.result() == alone(CHAIN)
    released = [await heard(master.end("w1"), m.Release) for _ in CHAIN]
    assert {one.index for one in released} == {0, 1, 2}


async def test_a_tile_that_was_made_of_other_pixels_is_none(master: Master) -> None:
    """An image maker may give something else the second time, and a tile may have another number."""
    job_id, _ = await fail_at_the_second(master)
    up = await resumed(master, job_id)
    work = OtherPicture(CHAIN)
    await up.begin_with(work)
    released = await heard(master.end("w1"), m.Release)
    assert (released.index, released.attempt) == (0, 1)
    await finish(up, work, [0, 1, 2])
    assert work.result() == [22, 66, 154]


@pytest.mark.parametrize("same", [True, False])
async def test_a_tile_that_is_offered_when_its_item_is_there_already(master: Master, same: bool) -> None:
    """By a worker that could not be reached when the job was taken up again."""
    job_id, report = await fail_at_the_second(master)
    await away(master, "w1")
    up = await resumed(master, job_id)
    work = FakeWork(CHAIN) if same else OtherPicture(CHAIN)
    await up.begin_with(work)
    await back(master, "w1")
    await master.end("w1").send(report)
    if same:
        await until(lambda: 0 in work.numbers)
        assert work.numbers == {0: 2}
        await heard(master.end("w1"), m.Keep)
        await master.end("w1").send(report)  # the link was lost and is back
        await heard(master.end("w1"), m.Keep)
    else:
        released = await heard(master.end("w1"), m.Release)
        assert (released.index, released.attempt) == (0, 1)
        assert work.numbers == {}


async def test_a_tile_that_is_offered_before_it_is_ready_waits_for_its_turn(master: Master) -> None:
    up = Upscaling.post(master, Wishes(worker_ids=("w1",)))
    await up.begin(CHAIN)
    await up.serve("w1")
    lease = await up.lease("w1")
    report = up.redrawn("w1", lease)
    await master.end("w1").send(report)
    await heard(master.end("w1"), m.Keep)
    await up.refuse("w1")
    await until(lambda: up.stage.finished)
    await up.end()
    await away(master, "w1")
    again = await resumed(master, up.job_id)
    work = await again.begin(CHAIN)
    request = await again.take()
    assert request[0] == 0
    await back(master, "w1")
    await master.end("w1").send(report)  # of place 1, while place 0 is open
    assert work.numbers == {}
    await again.compute(*request)
    await until(lambda: 1 in work.numbers)
    assert work.numbers == {0: 2, 1: 6}
    assert work.cuts.count(1) == 1, "compared when its pixels could be cut, and computed by nobody"


async def test_tiles_that_a_life_did_not_come_to_are_there_for_the_next(master: Master) -> None:
    job_id, _ = await fail_at_the_second(master)
    up = await resumed(master, job_id)
    await up.end(Outcome("error", message="no image"))
    assert up.state() == "failed"
    up = await resumed(master, job_id)
    work = await up.begin(CHAIN)
    await finish(up, work, [1, 2])
    assert work.result() == alone(CHAIN)


async def test_tiles_that_a_job_did_not_need_are_released(master: Master) -> None:
    job_id, _ = await fail_at_the_second(master)
    up = await resumed(master, job_id)
    await up.end()
    assert up.state() == "done"
    released = await heard(master.end("w1"), m.Release)
    assert (released.index, released.attempt) == (0, 1)


async def test_the_master_s_own_tiles_count_as_well(master: Master) -> None:
    up = Upscaling.post(master, Wishes(worker_ids=("w1",)))
    await up.begin([set()] * 3)
    lease = await up.lease("w1")
    place, attempt = await up.take()
    await up.compute(place, attempt)
    await until(lambda: bool(master.own_results.of(up.job_id)))
    address = {"job_id": lease.job_id, "index": lease.index, "attempt": lease.attempt}
    await master.end("w1").send(m.ItemFailed(**address, kind="exception", message="boom", retry=False))
    await heard(master.end("w1"), m.Stop)  # for the other one that it had
    await up.end()
    again = await resumed(master, up.job_id)
    work = await again.begin([set()] * 3)
    await until(lambda: work.numbers == {place: 2})
    for _ in range(2):
        await again.serve("w1")
    await again.over()
    await again.end()
    assert work.result() == [2, 2, 2]
    await until(lambda: not master.own_results.of(up.job_id))


# Workers that come later


async def away(master: Master, worker_id: str) -> None:
    master.registry.patch(worker_id, {"enabled": False})
    await until(lambda: master.pool.link(worker_id) is None)


async def back(master: Master, worker_id: str, capabilities: Capabilities = ENOUGH) -> None:
    before = master.end(worker_id)
    master.registry.patch(worker_id, {"enabled": True})
    await until(lambda: master.end(worker_id) is not before and master.pool.link(worker_id) is not None)
    await master.end(worker_id).send(m.Capabilities(data=capabilities.to_wire()))
    await until(lambda: master.coordinator.participants.capabilities(worker_id) is not None)


async def test_a_worker_that_comes_later_takes_tiles(master: Master) -> None:
    await away(master, "w2")
    up = Upscaling.post(master)
    assert master.coordinator.run(up.job_id).plan.participants == ("master", "w1")
    work = await up.begin(WIDE)
    await up.lease("w1")
    await back(master, "w2")
    lease = await up.serve("w2")
    await until(lambda: bool(work.numbers))
    assert work.numbers == {lease.index: 2}
    assert master.coordinator.view(up.job_id).participants == ("master", "w1", "w2")


async def test_a_worker_that_lacks_something_or_is_not_wished_for_does_not_join(master: Master) -> None:
    await away(master, "w2")
    anybody = Upscaling.post(master)
    only_one = Upscaling.post(master, Wishes(worker_ids=("w1",)))
    await back(master, "w2", Capabilities(frozenset({"KitModel"})))
    assert master.coordinator.view(anybody.job_id).participants == ("master", "w1")
    await master.end("w2").send(m.Capabilities(data=ENOUGH.to_wire()))
    await until(lambda: "w2" in master.coordinator.view(anybody.job_id).participants)
    assert "w2" not in master.coordinator.view(only_one.job_id).participants


async def test_items_that_are_somebody_s_own_are_not_joined(master: Master) -> None:
    await away(master, "w2")
    job_id = master.post()
    await back(master, "w2")
    assert "w2" not in master.coordinator.view(job_id).participants
