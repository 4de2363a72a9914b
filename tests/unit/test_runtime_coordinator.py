"""The master's coordinator: real state machine, registry and pool; fake host, fake links, results without a network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch
from fakes.master import Master, heard, image, prompt, until
from flotilla.graph.preflight import Capabilities
from flotilla.runtime.wishes import Wishes
from flotilla.utils.errors import InvalidInput, JobCancelled, JobFailed, NobodyCanRun
from flotilla.workers import messages as m


@pytest.fixture
async def master(tmp_path: Path) -> AsyncIterator[Master]:
    made = Master(tmp_path)
    await made.linked()
    yield made
    await made.close()


async def test_each_participant_gets_its_item_and_results_come_in_order(master: Master) -> None:
    job_id = master.post(seed=5)
    stage = master.coordinator.stage_of(job_id, "3")
    assert stage is not None
    assert stage.own_place() == 0
    leases = {worker: await heard(master.end(worker), m.Lease) for worker in ("w1", "w2")}
    assert [leases[worker].prompt["1"]["inputs"]["seed"] for worker in ("w1", "w2")] == [6, 7]
    assert leases["w1"].prompt["3"]["class_type"] == "FlotillaDeliver"
    for worker in ("w2", "w1"):  # the later item first
        lease = leases[worker]
        await master.end(worker).send(master.finish(lease, lease.prompt["1"]["inputs"]["seed"]))
        await heard(master.end(worker), m.Keep)
    assert not stage.finished
    master.queue.start(job_id)
    await asyncio.to_thread(stage.deliver_own, image(5))
    await until(lambda: stage.finished)
    joined = stage.results()["images"]
    assert torch.equal(joined, torch.cat([image(seed)["images"].data for seed in (5, 6, 7)]))
    master.queue.end(job_id)
    await until(lambda: master.coordinator.view(job_id).gathered)
    for worker in ("w1", "w2"):
        await heard(master.end(worker), m.Release)
    assert master.coordinator.view(job_id).state == "done"
    assert master.coordinator.stage_of(job_id, "3") is None


async def test_a_prompt_without_distributed_nodes_is_none_of_ours(master: Master) -> None:
    assert master.coordinator.plan({"prompt": {"1": {"class_type": "KitImage", "inputs": {}}}}, Wishes()) is None
    assert master.coordinator.plan({"prompt": "rubbish"}, Wishes()) is None
    assert master.coordinator.plan({}, Wishes()) is None
    assert master.coordinator.runs() == []


async def test_a_prompt_that_the_host_refuses_leaves_nothing(master: Master) -> None:
    run = master.coordinator.plan({"prompt": prompt(1)}, Wishes())
    assert run is not None
    master.coordinator.drop(run.job_id, "refused")
    assert master.coordinator.runs() == []
    # What is posted afterwards is the first that a worker hears of.
    job_id = master.post()
    assert (await heard(master.end("w1"), m.Lease)).job_id == job_id


async def test_cancel_stops_every_lease(master: Master) -> None:
    job_id = master.post()
    stage = master.coordinator.stage_of(job_id, "3")
    assert stage is not None
    for worker in ("w1", "w2"):
        await heard(master.end(worker), m.Lease)
    master.coordinator.cancel_by_user(job_id)
    for worker in ("w1", "w2"):
        stop = await heard(master.end(worker), m.Stop)
        assert stop.job_id == job_id
    assert master.queue.cancelled == [job_id]
    with pytest.raises(JobCancelled):
        stage.results()


async def test_a_prompt_deleted_from_the_hosts_queue_ends_its_job(master: Master) -> None:
    job_id = master.post()
    await heard(master.end("w1"), m.Lease)
    master.queue.waiting.remove(job_id)
    stop = await heard(master.end("w1"), m.Stop)
    assert stop.job_id == job_id
    assert master.coordinator.view(job_id).state == "cancelled"


async def test_a_lost_workers_item_runs_on_the_other(master: Master) -> None:
    master.post()
    await heard(master.end("w1"), m.Lease)
    await heard(master.end("w2"), m.Lease)
    await master.end("w1").close("gone")
    again = await heard(master.end("w2"), m.Lease)
    assert (again.index, again.attempt) == (1, 2)
    assert again.prompt["1"]["inputs"]["seed"] == 6


async def test_a_failing_item_fails_the_node_with_worker_and_traceback(master: Master) -> None:
    master.registry.patch_settings({"max_attempts": 2})
    job_id = master.post()
    stage = master.coordinator.stage_of(job_id, "3")
    assert stage is not None
    failed = {"kind": "exception", "message": "boom", "exception_type": "ValueError", "traceback": ["in line 1\n"]}
    failed |= {"node_id": "2", "node_type": "KitImage", "retry": True}
    first = await heard(master.end("w1"), m.Lease)
    await heard(master.end("w2"), m.Lease)
    await master.end("w1").send(m.ItemFailed(job_id=job_id, index=first.index, attempt=1, **failed))
    second = await heard(master.end("w2"), m.Lease)
    await master.end("w2").send(m.ItemFailed(job_id=job_id, index=second.index, attempt=second.attempt, **failed))
    await until(lambda: stage.finished)
    with pytest.raises(JobFailed) as caught:
        stage.results()
    for part in ("Worker 2", "ValueError: boom", "in line 1", "KitImage"):
        assert part in caught.value.message


async def test_a_refusing_worker_is_left_out_with_its_reason(master: Master) -> None:
    job_id = master.post()
    lease = await heard(master.end("w1"), m.Lease)
    await heard(master.end("w2"), m.Lease)
    address = {"job_id": job_id, "index": lease.index, "attempt": lease.attempt}
    errors = {"2": {"class_type": "KitImage", "errors": [{"message": "Value not in list", "details": "x.ckpt"}]}}
    await master.end("w1").send(
        m.LeaseRefused(**address, reason="Prompt outputs failed validation", node_errors=errors)
    )
    moved = await heard(master.end("w2"), m.Lease)
    assert moved.index == lease.index
    assert "Value not in list x.ckpt" in master.coordinator.view(job_id).left_out["w1"]


async def test_a_worker_known_to_lack_a_node_is_left_out_from_the_start(master: Master) -> None:
    await master.end("w1").send(m.Capabilities(data=Capabilities(frozenset({"Other"})).to_wire()))
    await until(lambda: master.coordinator.participants.capabilities("w1") is not None)
    job_id = master.post()
    assert master.coordinator.run(job_id).plan.left_out == {"w1": 'lacks node class "KitImage"'}
    lease = await heard(master.end("w2"), m.Lease)
    assert lease.prompt["1"]["inputs"]["seed"] == 6
    await heard(master.end("w1"), m.AskCapabilities)


async def test_nobody_can_run_it(master: Master) -> None:
    for worker in ("w1", "w2"):
        await master.end(worker).send(m.Capabilities(data=Capabilities(frozenset({"Other"})).to_wire()))
    await until(lambda: all(master.coordinator.participants.capabilities(worker) for worker in ("w1", "w2")))
    missing = prompt(1)
    missing["2"]["class_type"] = "NobodyHasThis"
    with pytest.raises(NobodyCanRun) as caught:
        master.coordinator.plan({"prompt": missing}, Wishes())
    assert set(caught.value.details["left_out"]) == {"w1", "w2", "master"}


async def test_only_the_wished_workers_take_part(master: Master) -> None:
    job_id = master.post(wishes=Wishes(worker_ids=("w2",)))
    assert master.coordinator.run(job_id).plan.participants == ("master", "w2")
    with pytest.raises(InvalidInput, match="nobody"):
        master.post(wishes=Wishes(worker_ids=("nobody",)))


async def test_a_burst_of_routes_spreads(master: Master) -> None:
    job_ids = [master.post(seed=seed, load_balance=True) for seed in range(20)]
    runs = [master.coordinator.run(job_id).plan.items[0].planned_for for job_id in job_ids]
    assert {who: runs.count(who) for who in set(runs)} in (
        {"master": 7, "w1": 7, "w2": 6},
        {"master": 6, "w1": 7, "w2": 7},
        {"master": 7, "w1": 6, "w2": 7},
    )


async def test_a_manifest_that_makes_no_sense_is_a_failure_of_the_item(master: Master) -> None:
    job_id = master.post()
    lease = await heard(master.end("w1"), m.Lease)
    await heard(master.end("w2"), m.Lease)
    address = {"job_id": job_id, "index": lease.index, "attempt": lease.attempt}
    await master.end("w1").send(m.ItemFinished(**address, manifest={"hash": "no"}, seconds=1.0))
    again = await heard(master.end("w2"), m.Lease)
    assert again.index == lease.index
    error = master.coordinator.view(job_id).items[lease.index].attempts[0].error
    assert error is not None
    assert error.kind == "transfer"


async def test_work_ahead_of_the_running_prompt_is_bounded(master: Master) -> None:
    master.registry.patch_settings({"queue_ahead": 1})
    job_ids = [master.post(seed=seed) for seed in range(4)]
    await asyncio.sleep(0)
    states = [master.coordinator.view(job_id).state for job_id in job_ids]
    assert states == ["running", "running", "planned", "planned"]
    master.queue.start(job_ids[3])  # the user has moved it to the front
    await until(lambda: master.coordinator.view(job_ids[3]).state == "running")


async def test_a_cancel_while_a_result_is_on_its_way_leaves_no_task(master: Master) -> None:
    master.fetcher.hold.clear()
    job_id = master.post()
    lease = await heard(master.end("w1"), m.Lease)
    await master.end("w1").send(master.finish(lease, 6))
    run = master.coordinator.run(job_id)
    await until(lambda: bool(run.fetching))
    master.coordinator.cancel(job_id, "test")
    await until(lambda: not run.fetching)
    released = await heard(master.end("w1"), m.Release)
    assert released.index == lease.index


async def test_what_nobody_else_is_left_for_comes_to_the_waiting_node(master: Master) -> None:
    job_id = master.post()
    stage = master.coordinator.stage_of(job_id, "3")
    assert stage is not None
    refusals = {"reason": "no such model", "node_errors": {}}
    for worker in ("w1", "w2", "w2"):  # the first one's item goes to the second one
        lease = await heard(master.end(worker), m.Lease)
        address = {"job_id": job_id, "index": lease.index, "attempt": lease.attempt}
        await master.end(worker).send(m.LeaseRefused(**address, **refusals))
    master.queue.start(job_id)
    await asyncio.to_thread(stage.deliver_own, image(5))
    assert not stage.wanted
    await asyncio.to_thread(stage.ask)
    await until(lambda: stage.wanted)
    while (request := stage.take_request()) is not None:
        place, attempt = request
        await asyncio.to_thread(stage.deliver_requested, place, attempt, image(5 + place))
        await asyncio.to_thread(stage.ask)
        await until(lambda: stage.wanted)
    await until(lambda: stage.finished)
    joined = stage.results()["images"]
    assert torch.equal(joined, torch.cat([image(seed)["images"].data for seed in (5, 6, 7)]))
