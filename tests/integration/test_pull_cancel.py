"""Must be true 5: cancelling a pull job whose workers have the next items at hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from fleetkit.client import Client
from fleetkit.fleets import executions, spool_is_empty
from fleetkit.graphs import pulled
from fleetkit.waiting import eventually

from devtools.fleet import Fleet

LIVENESS_S = 2.0
"""The promise is 1 s, which the printed figure is to be compared with; this bound allows for a busy test machine."""

WAYS: dict[str, Callable[[Client, str], Any]] = {
    "interrupt by id": lambda master, job: master.post("/interrupt", {"prompt_id": job}),
    "our job route": lambda master, job: master.post(f"/distributed/v2/jobs/{job}/cancel", {}),
}
ITEMS = 40
ITEM_S = 0.7
LATE_S = 3.0
"""By then everything that was under way at the cancel would have arrived."""


def outline(told: dict[str, Any]) -> list[Any]:
    """The states of a job, its items and their attempts."""
    items = [(item["state"], [attempt["state"] for attempt in item["attempts"]]) for item in told["items"]]
    return [told["state"], told["items_done"], told["ended_s"], items]


@pytest.mark.parametrize("master_pulls", [True, False], ids=["pulls", "coordinates"])
@pytest.mark.parametrize("way", WAYS)
def test_mbt5_cancel_with_prefetched_items(
    way: str, master_pulls: bool, fleet: Fleet, master: Client, w1: Client, w2: Client
) -> None:
    master.change_settings(master_delegate_only=not master_pulls)
    prefix = f"cancel-pull-{way.split()[0]}-{int(master_pulls)}"
    job = master.queue(pulled(prefix, ITEMS, delay_s=ITEM_S))
    everybody = (master, w1, w2)

    def full() -> bool:
        return all([len(part) for part in worker.queued()] == [1, 1] for worker in (w1, w2))

    eventually(lambda: master.job(job)["items_done"] >= 4 and full(), "results are here, and more items wait on both")
    began_s = time.monotonic()
    WAYS[way](master, job)
    eventually(lambda: all(client.idle() for client in everybody), "all three are idle", LIVENESS_S)
    print(f"idle after {time.monotonic() - began_s:.2f} s")
    for client in everybody:
        eventually(partial(spool_is_empty, client), f"the spool of {client} is empty", LIVENESS_S)
    assert master.was_interrupted(job)
    eventually(lambda: master.job(job)["state"] == "cancelled", "the job is cancelled", LIVENESS_S)
    assert job in [one["id"] for one in master.get("/distributed/v2/jobs?state=cancelled")["jobs"]]

    runs = executions(fleet.instances, prefix)
    told = master.job(job)
    while time.monotonic() < began_s + LATE_S:
        assert all(client.idle() for client in everybody)
        time.sleep(0.1)
    assert executions(fleet.instances, prefix) == runs, "nothing went on"
    assert outline(master.job(job)) == outline(told), "no later event changes it"
    assert told["items_done"] < ITEMS


def test_mbt5_cancel_one_of_two_pull_jobs(master: Client, w1: Client) -> None:
    """Items of both wait on the workers; only the cancelled one's leave."""
    first = master.queue(pulled("pull-cancelled", ITEMS, delay_s=ITEM_S))
    second = master.queue(pulled("pull-kept", 6, delay_s=0.1))
    eventually(lambda: master.job(first)["items_done"] >= 2, "the first has begun")
    master.post(f"/distributed/v2/jobs/{first}/cancel", {})
    master.succeeded(second)
    assert master.was_interrupted(first)
    assert [master.job(job)["state"] for job in (first, second)] == ["cancelled", "done"]
