"""The host's cache may answer for a job, and never with what another plan gave."""

from __future__ import annotations

from fleetkit.client import Client
from fleetkit.fleets import count_of, spool_is_empty, tensor
from fleetkit.graphs import Graph, Prompt, image_alone, images
from fleetkit.waiting import eventually

from devtools.fleet import Fleet


def cached_nodes(client: Client, prompt_id: str) -> set[str]:
    """The nodes for which the host's cache answered."""
    messages = client.succeeded(prompt_id)["status"]["messages"]
    return {node for name, data in messages if name == "execution_cached" for node in data["nodes"]}


def test_same_prompt_twice_is_answered_from_the_cache(master: Client, w1: Client, w2: Client) -> None:
    prompt = images("twice", seed=31)
    first = master.run(prompt)
    second = master.run(prompt)
    assert not cached_nodes(master, first)
    assert cached_nodes(master, second) >= {"2", "3", "4"}
    eventually(lambda: master.job(second)["ended_s"] is not None, "the job of the cached run ends")
    eventually(lambda: w1.idle() and w2.idle(), "nobody works on it")
    eventually(lambda: spool_is_empty(w1) and spool_is_empty(w2), "nothing is kept for it")


def test_cached_run_ends_while_its_items_are_at_work_ahead(master: Client, w1: Client, w2: Client) -> None:
    """The workers begin before the master's cache is asked; they are stopped when it answers."""
    prompt = images("ahead-of-cache", seed=32, delay_s=1.0)
    master.run(prompt)
    for worker in (w1, w2):
        worker.post("/free", {"free_memory": True})
    blocker = master.queue(slow("blocker", 1.5))
    again = master.queue(prompt)
    master.succeeded(blocker)
    master.succeeded(again)
    eventually(lambda: w1.idle() and w2.idle(), "the workers are idle", timeout_s=2.0)


def slow(prefix: str, delay_s: float) -> Prompt:
    prompt = image_alone(prefix, seed=3)
    prompt["1"]["inputs"].update(delay_s=delay_s, salt=prefix)
    return prompt


def test_one_more_worker_is_no_cached_answer(fleet: Fleet, master: Client) -> None:
    """Enabling a worker must not return yesterday's shorter batch; disabling it not the longer one."""
    prompt = images("grows", seed=33)
    shapes = []
    for enabled in (False, True, False):
        master.change_worker("w2", enabled=enabled)
        master.run(prompt)
        shapes.append(tensor(fleet.master, "grows")["shape"][0])
    assert shapes == [2, 3, 2]


def test_change_of_precision_is_no_cached_answer(fleet: Fleet, master: Client) -> None:
    prompt = images("rounded", seed=34)
    master.run(prompt)
    exact = tensor(fleet.master, "rounded")["rows"]
    master.change_worker("w1", precision="8bit")
    master.run(prompt)
    rounded = tensor(fleet.master, "rounded")["rows"]
    master.change_worker("w1", precision="exact")
    master.run(prompt)
    assert [before == after for before, after in zip(exact, rounded, strict=True)] == [True, False, True]
    assert tensor(fleet.master, "rounded")["rows"] == exact


def test_master_that_begins_to_coordinate_is_no_cached_answer(fleet: Fleet, master: Client) -> None:
    prompt = images("coordinates", seed=35)
    master.run(prompt)
    master.change_settings(master_delegate_only=True)
    master.run(prompt)
    assert tensor(fleet.master, "coordinates")["shape"][0] == 2


def test_changed_part_downstream_runs_nothing_again(fleet: Fleet, master: Client) -> None:
    """A new node behind the collector: the gathered batch comes from the cache, no item is computed again."""
    graph = Graph()
    counted = graph.add("KitCount", image=graph.image(graph.seed(36)), name="again")
    gathered = graph.collect(counted)
    graph.hash(gathered, "again")
    master.run(graph.prompt)
    graph.hash(gathered, "again-2")
    again = master.run(graph.prompt)
    eventually(lambda: master.job(again)["ended_s"] is not None, "the job ends")
    assert tensor(fleet.master, "again") == tensor(fleet.master, "again-2")
    assert count_of(fleet.master, "again") == 1
