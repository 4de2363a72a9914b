"""The connection drops and the worker lives: it is linked again, goes on, and no item is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fleetkit.client import Client
from fleetkit.fleets import entry_for, spool_is_empty, tensor
from fleetkit.graphs import SEED, image_alone, images
from fleetkit.proxy import Cable
from fleetkit.waiting import eventually

from devtools.fleet import Fleet
from devtools.instances import Instance

BACK_WITHIN_S = 10.0


@pytest.fixture
def far(second: Instance) -> Client:
    """The worker at the other end of the cable."""
    return Client(second.url)


@pytest.fixture
def cable(second: Instance, master: Client, far: Client, settled: None) -> Iterator[Cable]:
    """The master's only way to the worker "far"."""
    with Cable(second.url) as cable:
        master.post("/distributed/v2/workers", entry_for(second, "far", address=cable.url))
        eventually(lambda: master.states()["far"] == "online", "far is linked")
        yield cable
        master.delete("/distributed/v2/workers/far")
    far.post("/queue", {"clear": True})
    far.post("/interrupt", {})
    eventually(far.idle, "far is idle after the test")


def checked(job: str, prefix: str, fleet: Fleet, master: Client, bare: Client) -> dict[str, Any]:
    """The job, which must end with all four items as single servers make them."""
    master.succeeded(job)
    told = master.job(job)
    assert [item["state"] for item in told["items"]] == ["done"] * 4
    rows = []
    for k in range(4):
        bare.run(image_alone(prefix, seed=SEED + k))
        rows += tensor(fleet.extras[0], prefix)["rows"]
    assert tensor(fleet.master, prefix)["rows"] == rows
    return told


def test_cut_while_the_item_is_at_work(fleet: Fleet, master: Client, bare: Client, far: Client, cable: Cable) -> None:
    job = master.queue(images("cut", delay_s=1.5))
    eventually(lambda: far.queued()[0], "far works on its item")
    cable.cut()
    cable.mend()
    checked(job, "cut", fleet, master, bare)
    eventually(lambda: master.states()["far"] == "online", "far is linked again", BACK_WITHIN_S)
    again = master.job(master.run(images("cut-again")))
    assert [item["participant"] for item in again["items"]] == ["master", "w1", "w2", "far"]
    eventually(far.idle, "nothing is left at work")
    eventually(lambda: spool_is_empty(far), "nothing is left in the spool")


def test_cut_for_longer_than_the_job_lasts(
    fleet: Fleet, master: Client, bare: Client, far: Client, cable: Cable
) -> None:
    """The others do its item; when the worker is back, what it has finished meanwhile is dropped."""
    job = master.queue(images("long-cut", delay_s=1.0))
    eventually(lambda: far.queued()[0], "far works on its item")
    cable.cut()
    told = checked(job, "long-cut", fleet, master, bare)
    assert told["items"][3]["participant"] != "far"
    cable.mend()
    eventually(lambda: master.states()["far"] == "online", "far is linked again", BACK_WITHIN_S)
    eventually(far.idle, "nothing is left at work")
    eventually(lambda: spool_is_empty(far), "nothing is left in the spool")


def test_cut_before_the_worker_has_begun(fleet: Fleet, master: Client, bare: Client, far: Client, cable: Cable) -> None:
    """Its item waits there behind somebody else's prompt; it is computed elsewhere, and leaves that queue."""
    stranger = image_alone("in-front", seed=1)
    stranger["1"]["inputs"].update(delay_s=60.0, salt="in-front")
    running = far.queue(stranger)
    eventually(lambda: far.queued()[0] == [running], "the stranger's prompt runs")
    job = master.queue(images("behind", delay_s=1.5))  # who is idle would take over what waits
    eventually(lambda: far.queued()[1], "our item waits behind it")
    cable.cut()
    checked(job, "behind", fleet, master, bare)
    cable.mend()
    eventually(lambda: far.queued() == ([running], []), "our item has left the queue, the stranger's goes on")
    far.post("/interrupt", {"prompt_id": running})
    eventually(far.idle, "far is idle")


def test_cancelled_while_the_cable_is_cut(master: Client, far: Client, cable: Cable) -> None:
    """The worker cannot hear of it at once; it does as soon as it is linked again."""
    job = master.queue(images("cancel-cut", delay_s=60.0))
    eventually(lambda: far.queued()[0], "far works on its item")
    cable.cut()
    master.post("/interrupt", {"prompt_id": job})
    eventually(master.idle, "the master is idle")
    cable.mend()
    eventually(far.idle, "far has stopped", BACK_WITHIN_S)
