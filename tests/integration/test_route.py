"""Must be true 2, way *route*: one item with the plain seed, on the participant expected to finish first."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from fleetkit.client import Client
from fleetkit.fleets import tensor
from fleetkit.graphs import SEED, image_alone, images
from fleetkit.waiting import eventually

from devtools.fleet import Fleet

BURST = 20


@pytest.mark.parametrize("value", [True, "yes", 1])
def test_mbt2_route_is_one_item_with_the_plain_seed(value: object, fleet: Fleet, master: Client, bare: Client) -> None:
    prompt = images("route", salt=f"route {value}")
    prompt["3"]["inputs"]["load_balance"] = value
    job = master.job(master.run(prompt))
    assert job["items_total"] == 1
    assert [stage["way"] for stage in job["stages"]] == ["route"]
    assert [list(item["values"].values()) for item in job["items"]] == [[SEED]]
    bare.run(image_alone("route", seed=SEED))
    assert tensor(fleet.master, "route")["rows"] == tensor(fleet.extras[0], "route")["rows"]


def test_mbt2_route_avoids_who_is_busy_with_work_of_others(master: Client, w1: Client, fleet: Fleet) -> None:
    """Somebody else's prompt keeps w1 busy; routed jobs go elsewhere, one after the other."""
    master.change_settings(master_delegate_only=True)
    strangers = w1.queue(image_alone_slow("stranger", 30.0))
    eventually(lambda: (master.worker("w1")["queue"] or {}).get("running"), "the master knows that w1 is busy")
    for number in range(3):
        job = master.job(master.run(images(f"avoid-{number}", load_balance=True)))
        assert [item["participant"] for item in job["items"]] == ["w2"], number
    assert w1.queued() == ([strangers], []), "routing must not touch other people's prompts"
    w1.post("/interrupt", {"prompt_id": strangers})


def image_alone_slow(prefix: str, delay_s: float) -> dict[str, dict[str, object]]:
    prompt = image_alone(prefix, seed=1)
    prompt["1"]["inputs"].update(delay_s=delay_s, salt=prefix)
    return prompt


def test_mbt2_burst_of_routes_spreads(fleet: Fleet, master: Client) -> None:
    """20 dispatches at once: nobody has told anything of the others' work yet, and still they are spread evenly."""
    prompts = [images(f"burst-{n}", seed=SEED + n, load_balance=True, delay_s=0.05) for n in range(BURST)]
    with ThreadPoolExecutor(BURST) as pool:
        jobs = list(pool.map(master.queue, prompts))
    for job_id in jobs:
        master.succeeded(job_id)
    who = Counter(item["participant"] for job_id in jobs for item in master.job(job_id)["items"])
    planned = Counter(item["planned_for"] for job_id in jobs for item in master.job(job_id)["items"])
    assert sum(who.values()) == BURST
    assert set(planned) == {"master", "w1", "w2"}
    assert min(planned.values()) >= BURST // 3 - 1, planned
