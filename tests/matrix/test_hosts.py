"""The main job on each supported ComfyUI but the newest, on which all integration tests run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from fleetkit.client import Client
from fleetkit.fleets import KIT_NODES, spool_is_empty, tensor
from fleetkit.graphs import SEED, Prompt, image_alone, images
from fleetkit.upscales import ended, upscaled, workers_of
from fleetkit.waiting import eventually

from devtools.env import SetupError
from devtools.fleet import Fleet
from devtools.hosts import resolve

HOSTS = ("0.16.3", "0.24.1", "0.26.0")
LONG_S = 60.0
LIVENESS_S = 2.0


@pytest.fixture(scope="module", params=HOSTS)
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """A master and one worker of another ComfyUI."""
    try:
        host = resolve(request.param)
    except SetupError as error:
        pytest.skip(f"ComfyUI {request.param} cannot be installed here: {error}")
    with Fleet(workers=1, host=host, extra_nodes=[KIT_NODES]) as fleet:
        yield fleet


@pytest.fixture
def master(fleet: Fleet) -> Client:
    return Client(fleet.master.url)


@pytest.fixture
def worker(fleet: Fleet) -> Client:
    return Client(fleet.workers[0].url)


def without_collector(prompt: Prompt) -> Prompt:
    """The same nodes and no distributed one."""
    return image_alone("plain", seed=prompt["1"]["inputs"]["seed"])


def test_items_equal_single_runs(fleet: Fleet, master: Client, worker: Client) -> None:
    """Item k is what the server makes of seed + k without the pack's nodes."""
    prompt = images("matrix", size_px=64)
    job = master.run(prompt)
    assert [item["participant"] for item in master.job(job)["items"]] == ["master", "w1"]
    rows = []
    for k in range(2):
        worker.run(image_alone("matrix", seed=SEED + k, size_px=64))
        rows += tensor(fleet.workers[0], "matrix")["rows"]
    assert tensor(fleet.master, "matrix")["rows"] == rows
    assert master.succeeded(job)["prompt"][2] == prompt
    eventually(lambda: spool_is_empty(worker), "the worker's spool is empty")


def has_ended(master: Client, job_id: str) -> bool:
    return master.job(job_id)["ended_s"] is not None


def test_cached_run_ends(master: Client) -> None:
    jobs = [master.run(images("again")) for _ in range(2)]
    for job in jobs:
        eventually(partial(has_ended, master, job), "the job has ended")


def test_cancel_reaches_the_worker(master: Client, worker: Client) -> None:
    job = master.queue(images("cancel", delay_s=LONG_S))
    eventually(lambda: master.queued()[0] and worker.queued()[0], "both are at work")
    master.post("/interrupt", {})
    eventually(lambda: master.idle() and worker.idle(), "both are idle", LIVENESS_S)
    assert master.was_interrupted(job)
    eventually(lambda: master.job(job)["state"] == "cancelled", "the job is cancelled")


def test_deleting_a_queued_job_reaches_the_worker(master: Client, worker: Client) -> None:
    busy = image_alone("busy", seed=1)
    busy["1"]["inputs"].update(delay_s=LONG_S, salt="busy")
    first = master.queue(busy)
    job = master.queue(images("deleted", delay_s=LONG_S))
    eventually(lambda: worker.queued()[0], "the worker works ahead")
    master.post("/queue", {"delete": [job]})
    eventually(worker.idle, "the worker is idle", LIVENESS_S)
    assert master.queued() == ([first], [])
    master.post("/interrupt", {})
    eventually(master.idle, "the master is idle", LIVENESS_S)


def test_an_upscale_is_shared_out_and_equals_that_of_the_master_alone(fleet: Fleet, master: Client) -> None:
    job = ended(master, master.run(upscaled("shared", slow={"delay_s": 0.1})))
    assert job["state"] == "done"
    assert workers_of(job) == {"master", "w1"}
    master.change_worker("w1", enabled=False)
    try:
        master.run(upscaled("alone"))
    finally:
        master.change_worker("w1", enabled=True)
    assert tensor(fleet.master, "shared") == tensor(fleet.master, "alone")


def test_failure_on_the_worker_names_it(master: Client) -> None:
    prompt = images("fails", salt="fails")
    prompt["9"] = {"class_type": "KitFail", "inputs": {"image": ["2", 0], "message": "planted", "only_worker": "w1"}}
    prompt["3"]["inputs"]["images"] = ["9", 0]
    message = master.error_of(master.queue(prompt))["exception_message"]
    assert "planted" in message
    assert "Worker 1" in message


def test_passes_through(fleet: Fleet, master: Client) -> None:
    """A prompt without distributed nodes, and one with them while no worker is enabled."""
    plain = master.run(without_collector(images("plain")))
    assert not master.is_job(plain)
    master.change_worker("w1", enabled=False)
    try:
        alone = master.run(images("alone"))
        assert not master.is_job(alone)
        assert tensor(fleet.master, "alone")["shape"][0] == 1
    finally:
        master.change_worker("w1", enabled=True)
