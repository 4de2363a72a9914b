"""Must be true 3, and stalls: a fast machine is never held up by a slow one, nor by one that stands still."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from fleetkit.client import Client
from fleetkit.faulty import FaultyFleet
from fleetkit.fleets import executions, rows_alone, tensor
from fleetkit.graphs import Graph, Link, pulled
from fleetkit.waiting import eventually

from devtools.instances import Instance

SPEEDS = {"w1": 4.0, "w2": 1.0, "w3": 1.0}
SLOW_ITEM_S = 3.0
UNEVEN_ITEMS = 24

ABOVE_BOUND = 1.10

STALLED_ITEMS = 9
STALLED_ITEM_S = 0.5
DUPLICATED_WITHIN_S = 15.0


def lower_bound_s(items: int) -> float:
    """The shortest time in which these participants can make so many whole items."""
    ends_s = sorted(SLOW_ITEM_S / speed * number for speed in SPEEDS.values() for number in range(1, items + 1))
    return ends_s[items - 1]


def queue_share(bare: Client, items: int, delay_s: float) -> str:
    """Queues on a plain ComfyUI what one participant has to compute, item by item; the last prompt's id."""
    ids = []
    for number in range(items):
        graph = Graph()
        slow = graph.add("KitSlow", image=graph.image(number), delay_s=delay_s, steps=10)
        graph.hash(slow, "share")
        ids.append(bare.queue(graph.prompt))
    return ids[-1]


def test_mbt3_uneven_machines_finish_together(faulty: FaultyFleet, bare: Client, bare_instance: Instance) -> None:
    """From the request to the end of the prompt, with everything that is not computing.

    A plain ComfyUI computes the fastest one's share beside it: what it needs beyond the delays is the host's own, and on
    a busy test machine that alone may be more than is allowed.
    """
    faulty.master.change_settings(master_delegate_only=True)
    speeds = ",".join(f"{name}={speed}" for name, speed in SPEEDS.items())
    faulty.master.run(pulled("warm-up-uneven", 2 * len(SPEEDS)))
    bound_s = lower_bound_s(UNEVEN_ITEMS)
    fast_item_s = SLOW_ITEM_S / SPEEDS["w1"]
    with ThreadPoolExecutor(1) as pool:
        began_s = time.monotonic()
        last = queue_share(bare, round(bound_s / fast_item_s), fast_item_s)
        plain = pool.submit(lambda: (bare.succeeded(last), time.monotonic() - began_s))
        job = faulty.master.run(pulled("uneven", UNEVEN_ITEMS, delay_s=SLOW_ITEM_S, speeds=speeds))
        took_s = time.monotonic() - began_s
        plain_s = plain.result()[1]
    shares = Counter(item["participant"] for item in faulty.master.job(job)["items"])
    print(
        f"{took_s:.2f} s, {took_s / bound_s:.3f} of the lower bound {bound_s:.2f} s; {dict(shares)}; plain {plain_s:.2f} s"
    )
    assert took_s <= ABOVE_BOUND * max(bound_s, plain_s)
    assert shares["w1"] > 3 * max(shares["w2"], shares["w3"])
    assert tensor(faulty.fleet.master, "uneven")["rows"] == rows_alone(bare, bare_instance, UNEVEN_ITEMS)


def stalling(name: str, only_worker: str) -> object:
    """A fault that makes the first item stand still that a worker gets."""

    def fault(graph: Graph, image: Link, index: Link) -> Link:
        return graph.add("KitStall", image=image, name=name, only_worker=only_worker, index=index, times=1)

    return fault


@pytest.mark.parametrize("master_pulls", [False, True], ids=["coordinates", "pulls"])
def test_stalled_item_runs_elsewhere_and_the_stalled_one_is_stopped(
    master_pulls: bool, faulty: FaultyFleet, bare: Client, bare_instance: Instance
) -> None:
    """w1 goes on to say that it lives; nothing it has been given is lost, also not what waits behind the stalled item."""
    faulty.master.change_settings(master_delegate_only=not master_pulls)
    prefix = f"stalled-{int(master_pulls)}"
    prompt = pulled(prefix, STALLED_ITEMS, delay_s=STALLED_ITEM_S, fault=stalling(prefix, "w1"))
    job = faulty.master.queue(prompt)
    faulty.master.succeeded(job, DUPLICATED_WITHIN_S)
    assert faulty.master.states()["w1"] == "online", "it was never silent"
    told = faulty.master.job(job)
    assert {item["state"] for item in told["items"]} == {"done"}
    assert "w1" not in {item["participant"] for item in told["items"]}
    assert any(attempt["participant"] == "w1" for item in told["items"] for attempt in item["attempts"])
    assert tensor(faulty.fleet.master, prefix)["rows"] == rows_alone(bare, bare_instance, STALLED_ITEMS)
    eventually(faulty.client("w1").idle, "the stalled item is stopped")
    runs = executions(faulty.instances, prefix)
    assert set(runs) == set(range(STALLED_ITEMS))


def test_slow_item_that_comes_late_is_dropped(faulty: FaultyFleet, bare: Client, bare_instance: Instance) -> None:
    """w1 is a hundred times slower than it looked like: others finish its item first, and it is stopped at it."""
    faulty.master.change_settings(master_delegate_only=True)
    prompt = pulled("late", 6, delay_s=0.3, speeds="w1=0.01")
    job = faulty.master.queue(prompt)
    faulty.master.succeeded(job, DUPLICATED_WITHIN_S)
    told = faulty.master.job(job)
    assert "w1" not in {item["participant"] for item in told["items"]}
    eventually(faulty.client("w1").idle, "w1 is stopped at its item")
    assert tensor(faulty.fleet.master, "late")["rows"] == rows_alone(bare, bare_instance, 6)
    assert faulty.master.job(job)["state"] == "done"
