"""Bad networks between a master and its workers: late, slow, silent, lying, out of order. All items arrive, unharmed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fleetkit.client import Client
from fleetkit.faulty import WORKERS, FaultyFleet
from fleetkit.fleets import rows_alone, tensor
from fleetkit.graphs import pulled
from fleetkit.proxy import BLOBS_PATH, Cable
from fleetkit.waiting import eventually

from devtools.instances import Instance

ITEMS = 9
ITEM_S = 0.3
LARGE_PX = 512
LARGE_BYTES = LARGE_PX * LARGE_PX * 3 * 4
ALL_WITHIN_S = 30.0
SILENCE_S = 10.0


@pytest.fixture(autouse=True)
def _coordinates(faulty: FaultyFleet) -> None:
    """Everything comes over the cables."""
    faulty.master.change_settings(master_delegate_only=True)


def check(faulty: FaultyFleet, job: str, prefix: str, rows: list[str]) -> dict[str, Any]:
    faulty.master.succeeded(job, ALL_WITHIN_S)
    assert tensor(faulty.fleet.master, prefix)["rows"] == rows
    told = faulty.master.job(job)
    assert told["state"] == "done"
    return told


FAULTS: dict[str, Callable[[Cable], None]] = {
    "late": lambda cable: cable.delay(0.1, jitter_s=0.1),
    "slow": lambda cable: cable.throttle(LARGE_BYTES * 4),
    "lying": lambda cable: cable.corrupt(LARGE_BYTES // 2, times=2),
    "out of order": lambda cable: cable.hold_next(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_results_are_whole_whatever_the_cables_do(
    fault: str, faulty: FaultyFleet, bare: Client, bare_instance: Instance
) -> None:
    for cable in faulty.cables.values():
        FAULTS[fault](cable)
    prefix = "cables-" + fault.replace(" ", "-")
    job = faulty.master.queue(pulled(prefix, ITEMS, size_px=LARGE_PX, delay_s=ITEM_S))
    told = check(faulty, job, prefix, rows_alone(bare, bare_instance, ITEMS, size_px=LARGE_PX))
    assert {item["participant"] for item in told["items"]} == set(WORKERS), "nobody was given up"
    if fault == "lying":
        assert sum(cable.spoiled for cable in faulty.cables.values()) >= len(WORKERS)


def test_blob_that_breaks_off_goes_on_where_it_stopped(
    faulty: FaultyFleet, bare: Client, bare_instance: Instance
) -> None:
    """The link lives; only the connection that carries the result is reset, in its middle."""
    cable = faulty.cables["w1"]
    for name in ("w2", "w3"):
        faulty.master.change_worker(name, enabled=False)
    cable.throttle(LARGE_BYTES)
    job = faulty.master.queue(pulled("broken-off", 1, size_px=LARGE_PX))
    eventually(lambda: cable.carried_bytes(BLOBS_PATH) > LARGE_BYTES // 2, "half of the blob has come")
    cable.drop(BLOBS_PATH)
    told = check(faulty, job, "broken-off", rows_alone(bare, bare_instance, 1, size_px=LARGE_PX))
    assert [attempt["state"] for attempt in told["items"][0]["attempts"]] == ["done"]
    eventually(lambda: cable.carried_bytes(BLOBS_PATH) < LARGE_BYTES, "the rest alone was fetched again")


def test_half_open_cable_is_given_up_and_its_items_run_elsewhere(
    faulty: FaultyFleet, bare: Client, bare_instance: Instance
) -> None:
    """Neither end hears a goodbye; the others go on, and the worker is back when the cable is."""
    job = faulty.master.queue(pulled("half-open", ITEMS, delay_s=ITEM_S))
    eventually(lambda: faulty.client("w1").queued()[0], "w1 is at work")
    faulty.cables["w1"].swallow()
    check(faulty, job, "half-open", rows_alone(bare, bare_instance, ITEMS))
    eventually(lambda: faulty.master.states()["w1"] != "online", "the silence is noticed", SILENCE_S + 2.0)
    faulty.cables["w1"].mend()
    faulty.await_online()
    again = faulty.master.job(faulty.master.run(pulled("half-open-again", ITEMS, delay_s=ITEM_S)))
    assert "w1" in {item["participant"] for item in again["items"]}
