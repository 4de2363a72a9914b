"""Pull: ``items = N`` makes N items, whoever is free takes the next one, and the results are those of a single server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from fleetkit.client import Client
from fleetkit.fleets import count_of, executions, record, rows_alone, tensor
from fleetkit.graphs import MODEL, SEED, Graph, Link, Prompt, changed, of_class, pulled
from fleetkit.waiting import eventually
from kit_nodes import content, records

from devtools.fleet import Fleet
from devtools.instances import Instance

MANY = 1_000
MANY_PX = 8
MANY_WITHIN_S = 120.0
MEMORY_BYTES = 300 * 1024 * 1024
"""More than what 1,000 results of 768 bytes may make a process grow by, and far less than 1,000 kept graphs would."""


@pytest.mark.parametrize(("items", "master_pulls"), [(1, True), (2, True), (7, True), (7, False)])
def test_items_are_those_of_a_single_server(
    items: int, master_pulls: bool, fleet: Fleet, master: Client, bare: Client, bare_instance: Instance
) -> None:
    master.change_settings(master_delegate_only=not master_pulls)
    prefix = f"pull-{items}-{int(master_pulls)}"
    job = master.job(master.run(pulled(prefix, items, delay_s=0.1)))
    assert [(stage["way"], stage["count"]) for stage in job["stages"]] == [("pull", items)]
    assert [item["k"] for item in job["items"]] == list(range(items))
    assert tensor(fleet.master, prefix)["rows"] == rows_alone(bare, bare_instance, items)
    runs = executions(fleet.instances, prefix)
    assert runs == dict.fromkeys(range(items), 1)
    if not master_pulls:
        assert count_of(fleet.master, prefix) == 0


def test_no_items_means_one_for_each(fleet: Fleet, master: Client, bare: Client, bare_instance: Instance) -> None:
    job = master.job(master.run(pulled("one-each", 0)))
    assert [stage["way"] for stage in job["stages"]] == ["one_each"]
    assert tensor(fleet.master, "one-each")["rows"] == rows_alone(bare, bare_instance, 3)


def test_items_win_over_load_balance(fleet: Fleet, master: Client) -> None:
    job = master.job(master.run(pulled("both", 4, load_balance=True)))
    assert [(stage["way"], stage["count"]) for stage in job["stages"]] == [("pull", 4)]


@pytest.mark.parametrize("items", [-1, 100_001, "many", ["2", 0]])
def test_numbers_of_items_that_are_none_are_refused(items: Any, master: Client) -> None:
    prompt = pulled("refused", 2)
    prompt = changed(prompt, of_class(prompt, "DistributedCollector"), items=items)
    answer = master.request("POST", "/prompt", {"prompt": prompt})
    assert answer.status == 400
    assert "items" in answer.text


def test_all_three_take_part_and_workers_have_the_next_item_at_hand(
    fleet: Fleet, master: Client, w1: Client, w2: Client
) -> None:
    job = master.queue(pulled("shared", 12, delay_s=0.5))
    for worker in (w1, w2):
        eventually(lambda worker=worker: [len(part) for part in worker.queued()] == [1, 1], "one runs, one waits")
    master.succeeded(job)
    shares = Counter(item["participant"] for item in master.job(job)["items"])
    assert set(shares) == {"master", "w1", "w2"}
    assert min(shares.values()) >= 3


def test_master_repeats_only_what_differs(fleet: Fleet, master: Client) -> None:
    """A node above the varying ones runs once per participant, however many items it computes."""
    graph = Graph()
    fixed = graph.add("KitCount", image=graph.image(5), name="fixed")
    noise = graph.image(graph.seed())
    mixed = graph.add("ImageBlend", image1=fixed, image2=noise, blend_factor=0.5, blend_mode="normal")
    counted = graph.add("KitCount", image=mixed, name="differs", index=graph.add("DistributedItem"))
    slow = graph.add("KitSlow", image=counted, delay_s=0.2, steps=2)
    graph.hash(graph.collect(slow, items=9), "repeats")
    master.run(graph.prompt)
    assert [count_of(instance, "fixed") for instance in (fleet.master, *fleet.workers)] == [1, 1, 1]
    assert executions(fleet.instances, "differs") == dict.fromkeys(range(9), 1)
    assert count_of(fleet.master, "differs") >= 2


def many(prefix: str) -> Any:
    """Images so small that only the engine's own cost counts."""
    graph = Graph()
    graph.hash(graph.collect(graph.image(graph.seed(), size_px=MANY_PX, salt=prefix), items=MANY), prefix)
    return graph.prompt


def memory_bytes(instance: Instance) -> int:
    return int(psutil.Process(instance.pid).memory_info().rss)


@pytest.mark.parametrize("workers", [False, True], ids=["master alone", "with workers"])
def test_thousand_items(workers: bool, fleet: Fleet, master: Client, bare: Client, bare_instance: Instance) -> None:
    """Neither ids nor recursion nor memory grow."""
    if not workers:
        for worker in ("w1", "w2"):
            master.change_worker(worker, enabled=False)
    prefix = f"thousand-{int(workers)}"
    before_bytes = memory_bytes(fleet.master)
    job = master.run(many(prefix), timeout_s=MANY_WITHIN_S)
    grown_bytes = memory_bytes(fleet.master) - before_bytes
    told = master.job(job)
    took_s = told["ended_s"] - told["created_s"]
    shares = Counter(item["participant"] for item in told["items"])
    print(f"{MANY} items in {took_s:.1f} s, master grew by {grown_bytes / 1e6:.0f} MB; {dict(shares)}")
    rows = tensor(fleet.master, prefix)["rows"]
    assert rows == [records.tensor_hash(content.image(SEED + k, MANY_PX, MANY_PX, 1)[0]) for k in range(MANY)]
    assert rows[:3] == rows_alone(bare, bare_instance, 3, size_px=MANY_PX)
    assert grown_bytes < MEMORY_BYTES
    assert set(shares) == ({"master", "w1", "w2"} if workers else {"master"})


# Distributed Collector (Any)


MAKERS: dict[str, Callable[[Graph, Any], Link]] = {
    "image": lambda graph, seed: graph.image(seed),
    "mask": lambda graph, seed: graph.add("KitMask", seed=seed, width=8, height=8, batch=1),
    "latent": lambda graph, seed: graph.add("KitLatent", seed=seed, width=32, height=32, batch=1, with_mask=True),
    "audio": lambda graph, seed: graph.add("KitAudio", seed=seed, seconds=0.1, sample_rate=8_000, channels=2),
    "number": lambda graph, seed: seed,
}


def collected(graph: Graph, value: Link, prefix: str, **how: Any) -> Prompt:
    """The graph with a collector that gathers ``value`` as a list, which is recorded."""
    graph.add("KitHashList", any=graph.add("DistributedCollectorAny", value=value, **how), prefix=prefix)
    return graph.prompt


def entries(found: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """What KitHashList wrote, entry by entry: hashes and values by name within the entry."""
    facts = {name: tensor["blake3"] for name, tensor in found["tensors"].items()} | found["values"]
    listed: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, fact in facts.items():
        place, _, rest = name.partition(".")
        listed[int(place)][rest] = fact
    return listed


@pytest.mark.parametrize("kind", MAKERS)
def test_any_kind_is_gathered_as_a_list_in_item_order(
    kind: str, fleet: Fleet, master: Client, bare: Client, bare_instance: Instance
) -> None:
    items = 5
    graph = Graph()
    job = master.job(master.run(collected(graph, MAKERS[kind](graph, graph.seed()), f"any-{kind}", items=items)))
    assert [(stage["way"], stage["count"]) for stage in job["stages"]] == [("pull", items)]
    found = entries(record(fleet.master, f"any-{kind}"), items)
    if kind == "number":
        assert found == [{"": SEED + k} for k in range(items)]
        return
    wanted = []
    for k in range(items):
        alone = Graph()
        alone.add("KitHashList", any=MAKERS[kind](alone, SEED + k), prefix="any-alone")
        bare.run(alone.prompt)
        wanted += entries(record(bare_instance, "any-alone"), 1)
    assert found == wanted


def test_items_of_different_shapes_are_gathered_as_they_are(fleet: Fleet, master: Client) -> None:
    """What cannot be joined to one batch still makes a list."""
    graph = Graph()
    side = graph.add("DistributedValue", default_value="32", worker_values='{"1": "48", "_type": "INT"}')
    image = graph.add("KitImage", seed=graph.seed(), width=side, height=32, batch=1, delay_s=0.0, salt="")
    master.run(collected(graph, image, "any-shapes"))
    tensors = record(fleet.master, "any-shapes")["tensors"]
    assert [tensors[str(k)]["shape"][2] for k in range(3)] == [32, 48, 32]


def test_texts_are_gathered(fleet: Fleet, master: Client) -> None:
    words = ["one", "two", "three", "four", "five"]
    graph = Graph()
    text = graph.add("DistributedPrompts", text="\n".join(words))
    master.run(collected(graph, text, "any-text", items=len(words)))
    assert record(fleet.master, "any-text")["values"] == {str(k): word for k, word in enumerate(words)}


def test_lists_in_front_give_all_their_entries(fleet: Fleet, master: Client) -> None:
    graph = Graph()
    parts = graph.add("RebatchImages", images=graph.image(graph.seed(), batch=2), batch_size=1)
    master.run(collected(graph, parts, "any-lists", items=3))
    tensors = record(fleet.master, "any-lists")["tensors"]
    images = [content.image(SEED + k, 32, 32, 2) for k in range(3)]
    assert [tensors[str(place)]["rows"] for place in range(6)] == [
        [records.tensor_hash(row)] for image in images for row in image
    ]
    assert len(tensors) == 6


def test_kind_that_cannot_travel_is_a_typed_error(master: Client) -> None:
    master.change_settings(master_delegate_only=True)
    graph = Graph()
    model = graph.add("UNETLoader", unet_name=MODEL, weight_dtype="default")
    job = master.queue(collected(graph, model, "any-model", items=2))
    message = master.error_of(job)["exception_message"]
    assert "ModelPatcher" in message


def test_without_workers_it_passes_its_input_through_as_a_list(fleet: Fleet, master: Client) -> None:
    for worker in ("w1", "w2"):
        master.change_worker(worker, enabled=False)
    graph = Graph()
    assert not master.is_job(master.run(collected(graph, graph.image(graph.seed()), "any-alone")))
    assert entries(record(fleet.master, "any-alone"), 1) == [{"": records.tensor_hash(content.image(SEED, 32, 32, 1))}]
