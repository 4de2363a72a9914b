"""Several collectors, several clients, several jobs: none gets what belongs to another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from fleetkit.client import Client
from fleetkit.fleets import tensor
from fleetkit.graphs import SEED, Graph, image_alone, images

from devtools.fleet import Fleet

CLIENTS = 6


def rows(bare: Client, fleet: Fleet, seed: int, size_px: int = 32) -> list[str]:
    found = []
    for k in range(3):
        bare.run(image_alone("together", seed=seed + k, size_px=size_px))
        found += tensor(fleet.extras[0], "together")["rows"]
    return found


def test_two_collectors_in_one_prompt(fleet: Fleet, master: Client, bare: Client) -> None:
    """Two stages of one job, each with its own items, seeds and sizes."""
    graph = Graph()
    graph.hash(graph.collect(graph.image(graph.seed(SEED))), "stage-1")
    graph.hash(graph.collect(graph.image(graph.seed(SEED + 50), size_px=48)), "stage-2")
    job = master.job(master.run(graph.prompt))
    assert [stage["count"] for stage in job["stages"]] == [3, 3]
    assert [item["k"] for item in job["items"]] == [0, 1, 2, 0, 1, 2]
    assert tensor(fleet.master, "stage-1")["rows"] == rows(bare, fleet, SEED)
    assert tensor(fleet.master, "stage-2")["rows"] == rows(bare, fleet, SEED + 50, 48)


def test_one_behind_the_other(fleet: Fleet, master: Client) -> None:
    """Within an item of the second collector the first runs undistributed: item k is the single server's seed + k."""
    graph = Graph()
    first = graph.collect(graph.image(graph.seed(SEED)))
    graph.hash(first, "inner")
    graph.hash(graph.collect(graph.add("ImageInvert", image=first)), "outer")
    master.run(graph.prompt)
    inner, outer = tensor(fleet.master, "inner"), tensor(fleet.master, "outer")
    assert inner["shape"][0] == 3
    # The master's own part of the outer one is what its prompt holds there: the whole inner batch.
    assert outer["shape"][0] == 3 + 1 + 1


def test_equal_branches_in_one_prompt(fleet: Fleet, master: Client, bare: Client) -> None:
    """Two collectors of one image: both are filled."""
    graph = Graph()
    image = graph.image(graph.seed(SEED + 7))
    for name in ("equal-1", "equal-2"):
        graph.hash(graph.collect(image), name)
    master.run(graph.prompt)
    wanted = rows(bare, fleet, SEED + 7)
    assert tensor(fleet.master, "equal-1")["rows"] == wanted
    assert tensor(fleet.master, "equal-2")["rows"] == wanted


def test_clients_at_once_each_get_their_own(fleet: Fleet, master: Client, bare: Client) -> None:
    seeds = {f"client-{n}": SEED + 100 * n for n in range(CLIENTS)}

    def run(name: str) -> str:
        return Client(master.url).run(images(name, seed=seeds[name], delay_s=0.05), client_id=name)

    with ThreadPoolExecutor(CLIENTS) as pool:
        jobs = dict(zip(seeds, pool.map(run, seeds), strict=True))
    assert len(set(jobs.values())) == CLIENTS
    for name, seed in seeds.items():
        assert tensor(fleet.master, name)["rows"] == rows(bare, fleet, seed), name


def test_items_of_different_sizes_cannot_be_joined_and_say_so(master: Client) -> None:
    graph = Graph()
    side = graph.add("DistributedValue", default_value="32", worker_values='{"1": "48", "_type": "INT"}')
    image = graph.add("KitImage", seed=graph.seed(), width=side, height=32, batch=1, delay_s=0.0, salt="")
    graph.hash(graph.collect(image), "unequal")
    job = master.queue(graph.prompt)
    message = master.error_of(job)["exception_message"]
    assert "32×48" in message
    assert "32×32" in message


def test_two_jobs_in_a_row_overlap_on_the_workers(fleet: Fleet, master: Client, bare: Client) -> None:
    """The second job's items run on the workers while the first is at work; both are right."""
    jobs = [master.queue(images(f"row-{n}", seed=SEED + 30 * n, delay_s=0.3)) for n in range(3)]
    for number, job in enumerate(jobs):
        master.succeeded(job)
        assert tensor(fleet.master, f"row-{number}")["rows"] == rows(bare, fleet, SEED + 30 * number)
