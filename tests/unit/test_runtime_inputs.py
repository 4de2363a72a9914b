"""What a worker does with the inputs that masters have sent: who may read them, how long they stay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.agents import ADDRESS, PROMPT_ID, Worker, heard, image, lease, start_item, until
from fakes.inputs import Depot, run_depot
from fakes.spools import picture
from flotilla.host.records import Refused
from flotilla.runtime import agent as agent_module
from flotilla.runtime import inputs as inputs_module
from flotilla.runtime.inputs import one_off_inputs
from flotilla.transport.loose import read_values
from flotilla.transport.spool import Spool
from flotilla.transport.uses import StoredBlob
from flotilla.transport.values import Value
from flotilla.utils.errors import JobCancelled, NotFound
from flotilla.workers import messages as m

JOB = str(ADDRESS["job_id"])


@pytest.fixture
async def depot(tmp_path: Path) -> AsyncIterator[Depot]:
    async with run_depot(tmp_path / "worker") as made:
        await until(lambda: bool(made.worker.agent._sessions))
        yield made


@pytest.fixture
def pixels(tmp_path: Path) -> StoredBlob:
    return master_spool(tmp_path).write(picture(1))


@pytest.fixture
def mask(tmp_path: Path) -> StoredBlob:
    return master_spool(tmp_path).write({"value": Value("MASK", torch.rand(1, 4, 4))})


def master_spool(folder: Path) -> Spool:
    return Spool(None, folder / "master", memory_cap_bytes=0, disk_cap_bytes=1 << 26, recycle_cap_bytes=0)


def tile_prompt(pixels: StoredBlob, kept: StoredBlob | None = None) -> dict[str, Any]:
    nodes: dict[str, Any] = {"1": {"class_type": "FlotillaTile", "inputs": {"pixels": pixels.manifest.hash}}}
    if kept is not None:
        nodes["2"] = {"class_type": "FlotillaInput", "inputs": {"hash": kept.manifest.hash, "name": "value"}}
    return nodes


async def leased(depot: Depot, blob: StoredBlob, index: int = 1, attempt: int = 1) -> str:
    """Has a tile sent and leased; returns its prompt id."""
    await depot.push(blob, job_id=JOB)
    prompt_id = f"prompt of {index}.{attempt}"
    await depot.master.send(lease(index=index, attempt=attempt, prompt_id=prompt_id, prompt=tile_prompt(blob)))
    await heard(depot.master, m.LeaseAccepted)
    return prompt_id


async def run(depot: Depot, prompt_id: str) -> None:
    """The host runs the item, which delivers."""
    depot.worker.queue.start(prompt_id)
    await heard(depot.master, m.ItemStarted)
    await asyncio.to_thread(depot.worker.agent.deliver, prompt_id, image())
    depot.worker.queue.end(prompt_id)
    await until(lambda: prompt_id not in depot.worker.agent._by_prompt)


def holds(depot: Depot, blob: StoredBlob) -> bool:
    return (JOB, blob.manifest.hash) in depot.held()


def test_one_off_inputs_are_those_of_tiles(pixels: StoredBlob, mask: StoredBlob) -> None:
    assert one_off_inputs(tile_prompt(pixels, mask)) == {pixels.manifest.hash}
    model_tile = {"1": {"class_type": "FlotillaModelTile", "inputs": {"pixels": pixels.manifest.hash}}}
    assert one_off_inputs(model_tile) == {pixels.manifest.hash}
    odd: dict[str, Any] = {
        "1": {"class_type": "FlotillaTile", "inputs": {"pixels": ["2", 0]}},
        "2": {"class_type": "FlotillaTile", "inputs": {"pixels": "../etc"}},
        "3": {"class_type": "FlotillaTile"},
        "4": {"class_type": "LoadImage", "inputs": {"pixels": pixels.manifest.hash}},
        "5": None,
    }
    assert one_off_inputs(odd) == set()


async def test_an_item_reads_what_was_sent_for_its_job(depot: Depot, pixels: StoredBlob, mask: StoredBlob) -> None:
    await depot.push(mask, keep=True, job_id=JOB)
    prompt_id = await leased(depot, pixels)
    read = depot.worker.agent.input_values
    found = await asyncio.to_thread(read, prompt_id, pixels.manifest.hash)
    assert torch.equal(found["images"].data, picture(1)["images"].data)
    kept = await asyncio.to_thread(read, prompt_id, mask.manifest.hash)
    assert kept["value"].kind == "MASK"
    with pytest.raises(NotFound, match="not on this worker") as caught:
        read(prompt_id, "0" * 64)
    assert caught.value.cure
    with pytest.raises(RuntimeError):
        read("a prompt of somebody", pixels.manifest.hash)


async def test_what_was_sent_for_another_job_is_not_to_be_had(depot: Depot, mask: StoredBlob) -> None:
    await depot.push(mask, keep=True, job_id="other job")
    await start_item(depot.worker, depot.master)
    with pytest.raises(NotFound):
        depot.worker.agent.input_values(PROMPT_ID, mask.manifest.hash)


async def test_a_tile_goes_with_its_item_and_the_rest_with_the_job(
    depot: Depot, pixels: StoredBlob, mask: StoredBlob
) -> None:
    await depot.push(mask, keep=True, job_id=JOB)
    await run(depot, await leased(depot, pixels))
    await until(lambda: not holds(depot, pixels))
    assert holds(depot, mask)
    await depot.master.send(m.Release(**ADDRESS))
    await depot.master.send(m.JobOver(job_id=JOB))
    await until(lambda: depot.worker.spool.usage().blobs == 0)


async def test_a_tile_that_two_items_share_stays_for_the_second(depot: Depot, pixels: StoredBlob) -> None:
    first, second = await leased(depot, pixels, 1), await leased(depot, pixels, 2)
    await run(depot, first)
    assert holds(depot, pixels)
    assert depot.worker.agent.input_values(second, pixels.manifest.hash)
    await run(depot, second)
    assert not holds(depot, pixels)


async def test_a_tile_that_was_sent_again_stays_for_the_lease_that_is_to_come(depot: Depot, pixels: StoredBlob) -> None:
    first = await leased(depot, pixels, attempt=1)
    await depot.push(pixels, job_id=JOB)
    await depot.master.send(m.Stop(**ADDRESS))
    await until(lambda: first not in depot.worker.agent._by_prompt)
    assert holds(depot, pixels)
    await depot.master.send(lease(attempt=2, prompt_id="again", prompt=tile_prompt(pixels)))
    await heard(depot.master, m.LeaseAccepted)
    await run(depot, "again")
    assert not holds(depot, pixels)


@pytest.mark.parametrize("running", [False, True])
async def test_a_stopped_item_gives_its_tile_up(depot: Depot, pixels: StoredBlob, running: bool) -> None:
    prompt_id = await leased(depot, pixels)
    item = depot.worker.agent._by_prompt[prompt_id]
    if running:
        depot.worker.queue.start(prompt_id)
        await heard(depot.master, m.ItemStarted)
        depot.worker.queue.running.remove(prompt_id)  # the host is past the point where it looks for interrupts
    await depot.master.send(m.Stop(**ADDRESS))
    await until(lambda: not holds(depot, pixels))
    depot.worker.agent._by_prompt[prompt_id] = item
    with pytest.raises(JobCancelled):
        depot.worker.agent.input_values(prompt_id, pixels.manifest.hash)


async def test_an_item_that_the_host_refuses_gives_its_tile_up(depot: Depot, pixels: StoredBlob) -> None:
    depot.worker.queue.refuse = Refused({"message": "Node missing"}, {})
    await depot.push(pixels, job_id=JOB)
    await depot.master.send(lease(prompt=tile_prompt(pixels)))
    await heard(depot.master, m.LeaseRefused)
    assert not holds(depot, pixels)


async def test_a_file_does_not_go_while_it_is_read(
    depot: Depot, pixels: StoredBlob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A released file may be written anew at once: an item would then get another one's pixels."""
    prompt_id = await leased(depot, pixels)

    def reading(path: Path, manifest: Any) -> dict[str, Value]:
        asyncio.run_coroutine_threadsafe(depot.master.send(m.JobOver(job_id=JOB)), loop).result(5)
        asyncio.run_coroutine_threadsafe(until(lambda: not holds(depot, pixels)), loop).result(5)
        return read_values(path, manifest)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(inputs_module, "read_values", reading)
    found = await asyncio.to_thread(depot.worker.agent.input_values, prompt_id, pixels.manifest.hash)
    assert torch.equal(found["images"].data, picture(1)["images"].data)
    await until(lambda: depot.worker.spool.usage().blobs == 0)


async def test_a_master_that_stays_away_leaves_nothing(
    depot: Depot, pixels: StoredBlob, mask: StoredBlob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "ORPHAN_AFTER_S", 0.0)
    await depot.push(mask, keep=True, job_id=JOB)
    await leased(depot, pixels)
    await depot.worker.unlink(depot.master)
    await until(lambda: depot.worker.spool.usage().blobs == 0)
    await until(lambda: not depot.worker.agent._sessions)


async def test_a_master_that_is_back_hears_of_which_jobs_things_lie_here(depot: Depot, mask: StoredBlob) -> None:
    for job_id in ("first", "second"):
        await depot.push(mask, keep=True, job_id=job_id)
    await depot.worker.unlink(depot.master)
    depot.master = depot.worker.link()
    assert (await heard(depot.master, m.JobsHeld)).job_ids == ["first", "second"]
    await depot.master.send(m.JobOver(job_id="second"))
    await until(lambda: list(depot.held()) == [("first", mask.manifest.hash)])


async def test_masters_do_not_share_their_books(depot: Depot, mask: StoredBlob) -> None:
    await depot.push(mask, keep=True, job_id=JOB)
    other = depot.worker.link(master_id="master-2", home_id="another home")
    await other.send(m.JobOver(job_id=JOB))
    await other.send(lease(prompt_id="of the other"))
    await heard(other, m.LeaseAccepted)
    assert holds(depot, mask)
    with pytest.raises(NotFound):
        depot.worker.agent.input_values("of the other", mask.manifest.hash)


async def test_without_inputs_a_link_begins_as_ever(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    master = worker.link()
    await heard(master, m.Status)
    await worker.close()
    assert not any(isinstance(message, m.JobsHeld) for message in master.other.sent)  # type: ignore[union-attr]
