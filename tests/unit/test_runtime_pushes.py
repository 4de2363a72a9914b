"""The master sends inputs to a real worker's route: each once where it is kept, each time where it is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakes.agents import until
from fakes.inputs import JOB, WORKER_ID, Depot, run_depot
from fakes.spools import picture
from flotilla.transport.limits import MIB
from flotilla.transport.spool import Spool
from flotilla.transport.uses import StoredBlob
from flotilla.utils.errors import LinkLost, SpoolFull
from flotilla.workers import messages as m


@pytest.fixture
async def depot(tmp_path: Path) -> AsyncIterator[Depot]:
    async with run_depot(tmp_path / "worker") as made:
        await until(lambda: bool(made.worker.agent._sessions))
        yield made


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """The master's own."""
    return Spool(None, tmp_path / "master", memory_cap_bytes=0, disk_cap_bytes=1 << 28, recycle_cap_bytes=0)


def puts(depot: Depot) -> int:
    return sum(request.startswith("PUT ") for request in depot.requests)


def key(blob: StoredBlob, job_id: str = JOB) -> tuple[str, str]:
    return job_id, blob.manifest.hash


async def test_what_is_kept_goes_once_over_a_link_for_a_job(depot: Depot, spool: Spool) -> None:
    blob = spool.write(picture(1))
    for _ in range(3):
        await depot.push(blob, keep=True)
    await asyncio.gather(*(depot.push(spool.write(picture(2)), keep=True) for _ in range(5)))
    assert puts(depot) == 2
    await depot.push(blob, keep=True, job_id="another")
    assert puts(depot) == 3
    assert depot.worker.spool.open(blob.manifest.hash).read_bytes() == blob.path.read_bytes()
    assert depot.held()[key(blob)] == (True, 0)


async def test_what_is_not_kept_goes_for_each_lease(depot: Depot, spool: Spool) -> None:
    blob = spool.write(picture(1))
    for _ in range(3):
        await depot.push(blob)
    assert puts(depot) == 3
    assert depot.held() == {key(blob): (False, 3)}


async def test_a_job_that_is_over_is_forgotten(depot: Depot, spool: Spool) -> None:
    blob = spool.write(picture(1))
    await depot.push(blob, keep=True)
    await depot.push(blob, keep=True, job_id="another")
    depot.pusher.forget_job(JOB)
    await depot.master.send(m.JobOver(job_id=JOB))
    await until(lambda: key(blob) not in depot.held())
    await depot.push(blob, keep=True)
    await depot.push(blob, keep=True, job_id="another")
    assert puts(depot) == 3


async def test_a_new_link_may_lead_to_a_worker_that_has_nothing(depot: Depot, spool: Spool) -> None:
    blob = spool.write(picture(1))
    await depot.push(blob, keep=True)
    await depot.worker.unlink(depot.master)
    depot.pusher.forget_worker(WORKER_ID)
    depot.master = depot.worker.link()
    await until(lambda: any(session.links for session in depot.worker.agent._sessions.values()))
    await depot.push(blob, keep=True)
    assert puts(depot) == 2
    assert depot.held() == {key(blob): (True, 0)}


async def test_one_that_failed_is_tried_again_by_the_next_who_needs_it(depot: Depot, spool: Spool) -> None:
    depot.worker.spool._disk.cap_bytes = MIB
    blob = spool.write(picture(1, 2 * MIB))
    first, second = (asyncio.ensure_future(depot.push(blob, keep=True)) for _ in range(2))
    with pytest.raises(SpoolFull):
        await first
    with pytest.raises(SpoolFull):
        await second
    assert puts(depot) == 2
    depot.worker.spool._disk.cap_bytes = 8 * MIB
    await depot.push(blob, keep=True)
    assert depot.held() == {key(blob): (True, 0)}


async def test_without_a_link_nothing_is_sent(depot: Depot, spool: Spool) -> None:
    blob = spool.write(picture(1))
    for keep in (False, True):
        with pytest.raises(LinkLost):
            await depot.pusher.push(WORKER_ID, depot.address, lambda: None, JOB, blob, keep=keep)
    links = iter([depot.master])
    with pytest.raises(LinkLost):  # lost between the first look and the request
        await depot.pusher.push(WORKER_ID, depot.address, lambda: next(links, None), JOB, blob, keep=True)
    assert puts(depot) == 0


async def test_a_push_that_is_cancelled_leaves_nothing_behind(depot: Depot, spool: Spool) -> None:
    depot.gate = asyncio.Event()
    pushing = asyncio.ensure_future(depot.push(spool.write(picture(1)), keep=True))
    await until(lambda: puts(depot) == 1)
    pushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pushing
    depot.gate.set()
    assert not depot.pusher._kept
    await depot.push(spool.write(picture(1)), keep=True)
    assert len(depot.held()) == 1
