"""Progress and previews of remote work show on the collector, to the client that queued the prompt."""

from __future__ import annotations

from fleetkit.background import Listener
from fleetkit.client import Client
from fleetkit.graphs import images, of_class

ITEMS = 3


def test_collectors_progress_rises_also_within_items(master: Client) -> None:
    prompt = images("progress")
    prompt["delay"] = {
        "class_type": "DistributedValue",
        "inputs": {"default_value": "0", "worker_values": '{"1": "2.0", "2": "2.0", "_type": "FLOAT"}'},
    }
    prompt["2"]["inputs"]["delay_s"] = ["delay", 0]
    collector = of_class(prompt, "DistributedCollector")
    with Listener(master) as listener:
        job = master.run(prompt, client_id=listener.client_id)
        seen = [data for data in listener.of("progress", job) if data["node"] == collector]
    (total,) = {data["max"] for data in seen}
    shares = [ITEMS * data["value"] / total for data in seen]
    assert shares == sorted(shares), "progress never goes back"
    assert shares[-1] == ITEMS
    between = [share for share in shares if 1 < share < ITEMS and share % 1]
    assert len(between) >= 3, shares


def test_strangers_do_not_hear_of_the_prompt(master: Client, w1: Client) -> None:
    """Neither another tab at the master nor one at the worker is told of this client's nodes."""
    with Listener(master) as own, Listener(master) as other, Listener(w1) as at_worker:
        job = master.run(images("strangers", delay_s=0.3), client_id=own.client_id)
        assert own.of("executing", job)
        assert not other.of("executing", job)
        assert not [data for name, data in at_worker.messages if name in ("executing", "progress", "executed")]


def test_end_of_the_prompt_is_told_once(master: Client) -> None:
    with Listener(master) as listener:
        job = master.run(images("ending"), client_id=listener.client_id)
        assert len(listener.of("execution_success", job)) == 1
        assert len(listener.of("execution_start", job)) == 1
        assert not listener.of("execution_error", job)
