"""Must be true 5: Cancel stops exactly this job everywhere, running or queued, at once; other people's prompts go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from fleetkit.client import Client
from fleetkit.fleets import spool_is_empty
from fleetkit.graphs import image_alone, images
from fleetkit.waiting import eventually

from devtools.fleet import Fleet

LONG_S = 60.0
"""Longer than any test waits: what ends earlier was cancelled."""

LIVENESS_S = 2.0
"""The promise is 1 s, which the printed figure is to be compared with; this bound allows for a busy test machine."""

Cancel = Callable[[Client, str], Any]

QUEUED_WAYS: dict[str, Cancel] = {
    "delete from the queue": lambda master, job: master.post("/queue", {"delete": [job]}),
    "host's job route": lambda master, job: master.post(f"/api/jobs/{job}/cancel", {}),
    "our job route": lambda master, job: master.post(f"/distributed/v2/jobs/{job}/cancel", {}),
}

RUNNING_WAYS: dict[str, Cancel] = {
    "interrupt": lambda master, job: master.post("/interrupt", {}),
    "interrupt by id": lambda master, job: master.post("/interrupt", {"prompt_id": job}),
    "host's job route": QUEUED_WAYS["host's job route"],
    "our job route": QUEUED_WAYS["our job route"],
}


def at_work(client: Client) -> bool:
    running, _ = client.queued()
    return bool(running)


def alone(prefix: str, delay_s: float) -> dict[str, Any]:
    """Somebody else's prompt on a worker."""
    prompt = image_alone(prefix, seed=5)
    prompt["1"]["inputs"].update(delay_s=delay_s, salt=prefix)
    return prompt


@pytest.mark.parametrize("way", RUNNING_WAYS)
def test_mbt5_cancel_while_all_run(way: str, master: Client, w1: Client, w2: Client) -> None:
    job = master.queue(images(f"cancel {way}".replace(" ", "-").replace("'", ""), delay_s=LONG_S))
    everybody = (master, w1, w2)
    eventually(lambda: all(at_work(client) for client in everybody), "all three are at work")
    began_s = time.monotonic()
    RUNNING_WAYS[way](master, job)
    idle_after_s: dict[str, float] = {}

    def look() -> bool:
        for client in everybody:
            if client.url not in idle_after_s and client.idle():
                idle_after_s[client.url] = time.monotonic() - began_s
        return len(idle_after_s) == len(everybody)

    eventually(look, "all three are idle", LIVENESS_S)
    print(f"idle after cancel by {way}: {max(idle_after_s.values()):.2f} s")
    assert master.was_interrupted(job)
    eventually(lambda: master.job(job)["state"] == "cancelled", "the job is cancelled")
    assert {item["state"] for item in master.job(job)["items"]} == {"cancelled"}
    for worker in (w1, w2):
        eventually(partial(spool_is_empty, worker), "the worker's spool is empty")


def test_mbt5_cancel_after_results_have_arrived(master: Client, w1: Client, w2: Client) -> None:
    """The workers are done, the master still computes its own item: the finished results go as well."""
    prompt = images("late-cancel")
    prompt["2"]["inputs"]["delay_s"] = ["9", 0]
    prompt["9"] = {
        "class_type": "DistributedValue",
        "inputs": {"default_value": str(LONG_S), "worker_values": '{"1": "0.0", "2": "0.0", "_type": "FLOAT"}'},
    }
    job = master.queue(prompt)
    eventually(lambda: master.job(job)["items_done"] == 2, "both workers' items are done")
    master.post("/interrupt", {"prompt_id": job})
    eventually(master.idle, "the master is idle", LIVENESS_S)
    eventually(lambda: spool_is_empty(w1) and spool_is_empty(w2), "the spools are empty", LIVENESS_S)


@pytest.mark.parametrize("way", QUEUED_WAYS)
def test_mbt5_cancel_a_queued_job_that_is_worked_on_ahead(way: str, master: Client, w1: Client, w2: Client) -> None:
    """The master is busy with another prompt; its next job already runs on the workers."""
    busy = master.queue(alone("busy", LONG_S))
    prefix = "ahead-" + way.replace(" ", "-").replace("'", "")
    job = master.queue(images(prefix, delay_s=LONG_S))
    eventually(lambda: at_work(w1) and at_work(w2), "the workers work ahead")
    began_s = time.monotonic()
    QUEUED_WAYS[way](master, job)
    eventually(lambda: w1.idle() and w2.idle(), "the workers are idle", LIVENESS_S)
    print(f"idle after {way}: {time.monotonic() - began_s:.2f} s")
    assert master.queued() == ([busy], []), "the running prompt is not the cancelled one"
    eventually(lambda: master.job(job)["state"] == "cancelled", "the job is cancelled")
    master.post("/interrupt", {"prompt_id": busy})
    assert master.was_interrupted(busy)


def test_mbt5_other_peoples_prompts_on_a_worker_go_on(fleet: Fleet, master: Client, w1: Client, w2: Client) -> None:
    """One stranger's prompt runs on w1 with our item behind it; another waits behind our running item on w2."""
    running = w1.queue(alone("stranger-running", 3.0))
    eventually(lambda: w1.queued()[0] == [running], "the stranger's prompt runs on w1")
    job = master.queue(images("among-strangers", delay_s=LONG_S))
    eventually(lambda: len(w1.queued()[1]) == 1 and at_work(w2), "our items wait on w1 and run on w2")
    waiting = w2.queue(alone("stranger-waiting", 0.1))
    master.post("/interrupt", {"prompt_id": job})
    eventually(lambda: w1.queued() == ([running], []), "w1 has the stranger's prompt only", LIVENESS_S)
    w2.succeeded(waiting, timeout_s=LIVENESS_S + 5.0)
    w1.succeeded(running)


def test_mbt5_cancel_one_of_two_jobs(master: Client, w1: Client, w2: Client) -> None:
    """The job behind it is untouched and finishes."""
    first = master.queue(images("cancelled", delay_s=LONG_S))
    second = master.queue(images("kept", delay_s=0.2))
    eventually(lambda: at_work(w1) and at_work(w2), "the workers are at work")
    master.post(f"/distributed/v2/jobs/{first}/cancel", {})
    master.succeeded(second)
    assert master.job(second)["state"] == "done"
    assert master.was_interrupted(first)


def test_mbt5_cancelling_twice_and_cancelling_what_is_done(master: Client) -> None:
    job = master.run(images("done-before"))
    answers = [master.post(f"/distributed/v2/jobs/{job}/cancel", {}) for _ in range(2)]
    assert [answer["state"] for answer in answers] == ["done", "done"]
    unknown = master.request("POST", "/distributed/v2/jobs/00000000-0000-4000-8000-000000000000/cancel", {})
    assert unknown.status == 404


def test_mbt5_interrupting_an_item_on_its_worker_by_hand(master: Client, w1: Client, fleet: Fleet) -> None:
    """Somebody presses Cancel on the worker itself: the item is computed elsewhere, the job ends with every item."""
    job = master.queue(images("by-hand", delay_s=1.5))
    eventually(lambda: at_work(w1), "w1 works on its item")
    w1.post("/interrupt", {})
    master.succeeded(job)
    items = master.job(job)["items"]
    assert [item["state"] for item in items] == ["done", "done", "done"]
    assert len(items[1]["attempts"]) == 2
