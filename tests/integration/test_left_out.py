"""Must be true 7: who lacks a node or a model is left out with the reason; if nobody can, the answer comes at once."""

from __future__ import annotations

import time

from fleetkit.client import Client
from fleetkit.fleets import ONLY_W1, tensor
from fleetkit.graphs import SEED, Graph, Prompt, image_alone

from devtools.fleet import Fleet

AT_ONCE_S = 2.0
NOWHERE = "nowhere.safetensors"


def rare(prefix: str) -> Prompt:
    graph = Graph()
    graph.hash(graph.collect(graph.add("KitRare", image=graph.image(graph.seed()))), prefix)
    return graph.prompt


def by_name(name: str, prefix: str) -> Prompt:
    graph = Graph()
    choice = graph.add("KitCombo", choice=graph.add("DistributedModelName", text=name))
    graph.hash(graph.collect(graph.image(graph.seed(), salt=choice)), prefix)
    return graph.prompt


def test_mbt7_worker_without_a_node_class_is_left_out(fleet: Fleet, master: Client, bare: Client) -> None:
    job = master.job(master.run(rare("rare")))
    assert job["left_out"] == {"w2": 'lacks node class "KitRare"'}
    assert [item["participant"] for item in job["items"]] == ["master", "w1"]
    assert [one["id"] for one in job["participants"]] == ["master", "w1"]
    rows = []
    for k in range(2):
        bare.run(image_alone("rare", seed=SEED + k))
        rows += tensor(fleet.extras[0], "rare")["rows"]
    assert tensor(fleet.master, "rare")["rows"] == rows


def test_mbt7_worker_without_a_model_is_left_out(master: Client) -> None:
    job = master.job(master.run(by_name(ONLY_W1, "model")))
    assert job["state"] == "done"
    assert job["left_out"]["w2"] == f'has no "{ONLY_W1}" for KitCombo.choice'


def test_mbt7_nobody_has_it_is_said_at_once(master: Client, w1: Client, w2: Client) -> None:
    before = len(master.get("/distributed/v2/jobs")["jobs"])
    began_s = time.monotonic()
    answer = master.request("POST", "/prompt", {"prompt": by_name(NOWHERE, "nowhere")})
    assert time.monotonic() - began_s < AT_ONCE_S
    assert answer.status == 400
    told = answer.json()
    assert set(told) == {"error", "node_errors"}
    assert set(told["error"]) == {"type", "message", "details", "extra_info"}
    for part in ("Master", "Worker 1", "Worker 2", NOWHERE, "KitCombo.choice"):
        assert part in told["error"]["message"]
    assert set(told["error"]["extra_info"]["left_out"]) == {"master", "w1", "w2"}
    assert master.idle()
    assert w1.idle()
    assert w2.idle()
    assert len(master.get("/distributed/v2/jobs")["jobs"]) == before, "a refused prompt leaves no job"


def test_mbt7_class_that_no_server_has_is_the_hosts_own_error(master: Client) -> None:
    graph = Graph()
    graph.hash(graph.collect(graph.add("NoSuchNode", seed=graph.seed())), "no-such")
    answer = master.request("POST", "/prompt", {"prompt": graph.prompt})
    assert answer.status == 400
    assert "NoSuchNode" in answer.text


def test_mbt7_prompt_that_the_host_refuses_leaves_no_job(master: Client, w1: Client) -> None:
    """Planned first, refused by the host's validation afterwards: nothing was leased."""
    graph = Graph()
    broken = graph.add("KitImage", seed=graph.seed(), width=-5, height=8, batch=1, delay_s=0.0, salt="")
    graph.hash(graph.collect(broken), "broken")
    before = master.get("/distributed/v2/jobs")["total"]
    answer = master.request("POST", "/prompt", {"prompt": graph.prompt})
    assert answer.status == 400
    assert answer.json()["node_errors"]
    assert master.get("/distributed/v2/jobs")["total"] == before
    assert w1.idle()
