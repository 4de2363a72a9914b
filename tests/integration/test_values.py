"""Must be true 2: what differs from item to item: values by worker, numbers, lines of text, model names, seeds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fleetkit.client import Client
from fleetkit.fleets import ONLY_W1, count_of, record, tensor
from fleetkit.graphs import SEED, Graph, Prompt, changed, image_alone, of_class, out

from devtools.fleet import Fleet


def batches(batch: Any, prefix: str, graph: Graph) -> Prompt:
    """Images whose number in each item shows the value of ``batch`` there; each item's seed tells them apart."""
    graph.hash(graph.collect(graph.image(graph.seed(), batch=batch)), prefix)
    return graph.prompt


def sizes(master: Client, fleet: Fleet, bare: Client, prompt: Prompt, prefix: str) -> list[int]:
    """How many images each item delivered, told by their content."""
    master.run(prompt)
    rows = tensor(fleet.master, prefix)["rows"]
    first_of_item = []
    for k in range(3):
        bare.run(image_alone(f"{prefix}-{k}", seed=SEED + k))
        first_of_item.append(tensor(fleet.extras[0], f"{prefix}-{k}")["rows"][0])
    starts = [rows.index(row) for row in first_of_item]
    assert starts == sorted(starts)
    return [end - start for start, end in zip(starts, [*starts[1:], len(rows)], strict=True)]


@pytest.mark.parametrize(
    ("default", "values", "wanted"),
    [
        ("2", {"1": "3", "2": "4", "_type": "INT"}, [2, 3, 4]),
        ("2", {"2": "4.9", "_type": "INT"}, [2, 2, 4]),
        ("1", {"1": "9", "_type": "INT", "_by_worker_id": {"w2": "2", "w1": "5"}}, [1, 5, 2]),
        ("3", {"1": "", "2": "many", "_type": "INT"}, [3, 3, 3]),
    ],
    ids=["by position", "one without", "by id", "unusable"],
)
def test_mbt2_distributed_value(
    default: str, values: dict[str, Any], wanted: list[int], fleet: Fleet, master: Client, bare: Client
) -> None:
    graph = Graph()
    value = graph.add("DistributedValue", default_value=default, worker_values=json.dumps(values))
    assert sizes(master, fleet, bare, batches(value, "value", graph), "value") == wanted


def test_worker_values_as_an_object(fleet: Fleet, master: Client, bare: Client) -> None:
    """Scripts may send the map itself in place of its text."""
    graph = Graph()
    value = graph.add("DistributedValue", default_value="2", worker_values={"1": "3", "_type": "INT"})
    assert sizes(master, fleet, bare, batches(value, "object", graph), "object") == [2, 3, 2]


def test_mbt2_value_stays_with_its_worker_when_another_is_disabled(fleet: Fleet, master: Client) -> None:
    """By id: with w1 gone, w2 is the first worker, and still gets what was meant for w2."""
    master.change_worker("w1", enabled=False)
    graph = Graph()
    values = {"1": "5", "2": "2", "_type": "INT", "_by_worker_id": {"w1": "5", "w2": "2"}}
    value = graph.add("DistributedValue", default_value="1", worker_values=json.dumps(values))
    master.run(batches(value, "stays", graph))
    assert tensor(fleet.master, "stays")["shape"][0] == 1 + 2


def test_mbt2_distributed_item_gives_index_and_count(fleet: Fleet, master: Client, bare: Client) -> None:
    graph = Graph()
    item = graph.add("DistributedItem")
    summed = graph.add("KitImage", seed=item, width=32, height=32, batch=out(item, 1), delay_s=0.0, salt="")
    graph.hash(graph.collect(summed), "item")
    master.run(graph.prompt)
    rows = []
    for k in range(3):
        bare.run(image_alone("item", seed=k, batch=3))
        rows += tensor(fleet.extras[0], "item")["rows"]
    assert tensor(fleet.master, "item")["rows"] == rows


LINES = "a sea\r\n\n  two boats  \nmany boats\n"


def test_mbt2_distributed_prompts_deals_lines(fleet: Fleet, master: Client) -> None:
    """Item k sees line k; empty lines do not count. The line goes into KitImage's salt, which workers' histories show."""
    job = master.job(master.run(prompts_graph(LINES, "lines")))
    assert [next(iter(item["values"].values())) for item in job["items"]] == ["a sea", "two boats", "many boats"]
    for worker, line in zip(fleet.workers, ("two boats", "many boats"), strict=True):
        assert last_inputs(Client(worker.url), job["id"], "DistributedPrompts")["text"] == line


def test_mbt2_distributed_prompts_starts_over(master: Client) -> None:
    job = master.job(master.run(prompts_graph("one\ntwo", "over")))
    assert [next(iter(item["values"].values())) for item in job["items"]] == ["one", "two", "one"]


def prompts_graph(text: str, prefix: str) -> Prompt:
    graph = Graph()
    line = graph.add("DistributedPrompts", text=text)
    graph.hash(graph.collect(graph.image(SEED, salt=line)), prefix)
    return graph.prompt


def last_inputs(worker: Client, job_id: str, class_type: str) -> dict[str, Any]:
    """The inputs of a node in the newest prompt that a worker ran for a job."""
    for entry in reversed(worker.get("/history").values()):
        _, _, prompt, extra, *_ = entry["prompt"]
        if extra.get("flotilla", {}).get("job") == job_id:
            return dict(prompt[of_class(prompt, class_type)]["inputs"])
    raise AssertionError(f"{worker} ran nothing for job {job_id}")


def test_mbt2_model_name_that_only_a_worker_has(fleet: Fleet, master: Client) -> None:
    """The master need not have the file; here it then cannot take part, and w2 neither."""
    graph = Graph()
    name = graph.add("DistributedModelName", text=ONLY_W1)
    choice = graph.add("KitCombo", choice=name)
    graph.hash(graph.collect(graph.image(graph.seed(), salt=choice)), "model-name")
    job = master.job(master.run(graph.prompt))
    assert [item["participant"] for item in job["items"]] == ["w1"]
    assert set(job["left_out"]) == {"master", "w2"}
    assert all(ONLY_W1 in reason for reason in job["left_out"].values())
    assert last_inputs(Client(fleet.workers[0].url), job["id"], "KitCombo")["choice"] == ONLY_W1


def test_mbt2_model_name_as_older_outputs_saved_it(fleet: Fleet, master: Client) -> None:
    """Saved as ``widgets_values: [["b"]]``; the front end wraps a list so that it is not taken for a link."""
    graph = Graph()
    name = graph.add("DistributedModelName", text={"__value__": ["b"]})
    choice = graph.add("KitCombo", choice=name)
    graph.hash(choice, "nested-name")
    graph.hash(graph.collect(graph.image(graph.seed(), salt=choice)), "nested")
    job = master.job(master.run(graph.prompt))
    assert len(job["items"]) == 3
    assert record(fleet.master, "nested-name")["values"] == {"value": "b"}


def test_mbt2_coordinating_master_does_not_work(fleet: Fleet, master: Client, bare: Client) -> None:
    """What is above the collector runs on the workers only; the first of them has the plain seed."""
    master.change_settings(master_delegate_only=True)
    graph = Graph()
    counted = graph.add("KitCount", image=graph.image(graph.seed()), name="coordinate")
    graph.hash(graph.collect(counted), "coordinate")
    job = master.job(master.run(graph.prompt))
    assert [item["participant"] for item in job["items"]] == ["w1", "w2"]
    assert [count_of(one, "coordinate") for one in (fleet.master, *fleet.workers)] == [0, 1, 1]
    rows = []
    for k in range(2):
        bare.run(image_alone("coordinate", seed=SEED + k))
        rows += tensor(fleet.extras[0], "coordinate")["rows"]
    assert tensor(fleet.master, "coordinate")["rows"] == rows


def test_mbt2_coordinating_master_takes_part_when_nobody_else_can(fleet: Fleet, master: Client) -> None:
    master.change_settings(master_delegate_only=True)
    for worker_id in ("w1", "w2"):
        master.change_worker(worker_id, enabled=False)
    graph = Graph()
    counted = graph.add("KitCount", image=graph.image(graph.seed()), name="alone")
    graph.hash(graph.collect(counted), "alone")
    master.run(graph.prompt)
    assert count_of(fleet.master, "alone") == 1


def test_seed_that_comes_from_another_node(fleet: Fleet, master: Client, bare: Client) -> None:
    """A linked seed is added to where the worker computes it."""
    graph = Graph()
    source = graph.add("PrimitiveInt", value=SEED)
    graph.hash(graph.collect(graph.image(graph.add("DistributedSeed", seed=source))), "linked")
    master.run(graph.prompt)
    rows = []
    for k in range(3):
        bare.run(image_alone("linked", seed=SEED + k))
        rows += tensor(fleet.extras[0], "linked")["rows"]
    assert tensor(fleet.master, "linked")["rows"] == rows


def test_two_runs_with_another_seed_differ(fleet: Fleet, master: Client) -> None:
    graph = Graph()
    graph.hash(graph.collect(graph.image(graph.seed())), "differ")
    master.run(graph.prompt)
    first = tensor(fleet.master, "differ")["rows"]
    master.run(changed(graph.prompt, of_class(graph.prompt, "DistributedSeed"), seed=SEED + 1))
    assert tensor(fleet.master, "differ")["rows"][:2] == first[1:]
