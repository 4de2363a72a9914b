"""Must be true 10: jobs of several clients at once, and several collectors in one prompt, keep apart."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from fleetkit.background import Listener
from fleetkit.client import Client
from fleetkit.fleets import executions, rows_alone, tensor
from fleetkit.graphs import SEED, Graph, of_class, pulled

from devtools.fleet import Fleet
from devtools.instances import Instance

ITEMS = 10
OTHER_SEED = SEED + 500


def test_mbt10_two_pull_jobs_of_two_clients(
    fleet: Fleet, master: Client, bare: Client, bare_instance: Instance
) -> None:
    """Each gets its own results, and hears only of its own prompt."""
    seeds = {"mine": SEED, "yours": OTHER_SEED}
    prompts = {name: pulled(f"two-{name}", ITEMS, seed=seed, delay_s=0.15) for name, seed in seeds.items()}
    with Listener(master) as mine, Listener(master) as yours, ThreadPoolExecutor(2) as pool:
        listeners = {"mine": mine, "yours": yours}
        jobs = {
            name: pool.submit(master.run, prompts[name], client_id=listeners[name].client_id).result for name in seeds
        }
        done = {name: result() for name, result in jobs.items()}
        for name, listener in listeners.items():
            other = done["yours" if name == "mine" else "mine"]
            assert listener.of("progress", done[name])
            for kind in ("progress", "executing", "executed"):
                assert not listener.of(kind, other), (name, kind)
    for name, seed in seeds.items():
        assert tensor(fleet.master, f"two-{name}")["rows"] == rows_alone(bare, bare_instance, ITEMS, seed=seed)
        assert executions(fleet.instances, f"two-{name}") == dict.fromkeys(range(ITEMS), 1)


def test_mbt10_two_pull_collectors_in_one_prompt(
    fleet: Fleet, master: Client, bare: Client, bare_instance: Instance
) -> None:
    """Of different lengths, side by side, and a third that makes one item for each participant."""
    graph = Graph()
    for name, seed, items in (("stage-a", SEED, 7), ("stage-b", OTHER_SEED, 4), ("stage-c", SEED + 900, 0)):
        image = graph.image(graph.seed(seed), delay_s=0.1, salt=name)
        graph.hash(graph.collect(image, items=items), name)
    job = master.job(master.run(graph.prompt))
    assert Counter((stage["way"], stage["count"]) for stage in job["stages"]) == Counter(
        [("pull", 7), ("pull", 4), ("one_each", 3)]
    )
    for name, seed, count in (("stage-a", SEED, 7), ("stage-b", OTHER_SEED, 4), ("stage-c", SEED + 900, 3)):
        assert tensor(fleet.master, name)["rows"] == rows_alone(bare, bare_instance, count, seed=seed), name


def test_mbt10_pull_collector_behind_another(fleet: Fleet, master: Client) -> None:
    """Within an item of the second collector the first runs undistributed, on whoever computes the item."""
    graph = Graph()
    inner = graph.collect(graph.image(graph.seed(SEED)), items=2)
    graph.hash(inner, "pull-inner")
    master.change_settings(master_delegate_only=True)
    graph.hash(graph.collect(graph.add("ImageInvert", image=inner), items=5), "pull-outer")
    master.run(graph.prompt)
    assert tensor(fleet.master, "pull-inner")["shape"][0] == 2
    outer = tensor(fleet.master, "pull-outer")
    assert outer["shape"][0] == 5
    assert len(set(outer["rows"])) == 5


def test_mbt10_one_fails_and_the_other_goes_on(
    fleet: Fleet, master: Client, bare: Client, bare_instance: Instance
) -> None:
    master.change_settings(master_delegate_only=True, max_attempts=1)
    failing = pulled(
        "fails",
        ITEMS,
        delay_s=0.1,
        fault=lambda graph, image, index: graph.add(
            "KitFail", image=image, message="planted", only_worker="", only_items="3", index=index
        ),
    )
    first = master.queue(failing)
    second = master.queue(pulled("goes-on", ITEMS, seed=OTHER_SEED, delay_s=0.1))
    assert "planted" in master.error_of(first)["exception_message"]
    master.succeeded(second)
    assert master.error_of(first)["node_id"] == of_class(failing, "DistributedCollector")
    assert tensor(fleet.master, "goes-on")["rows"] == rows_alone(bare, bare_instance, ITEMS, seed=OTHER_SEED)
