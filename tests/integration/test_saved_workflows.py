"""Prompts that older versions and older scripts wrote run unchanged (compat.md 1.11)."""

from __future__ import annotations

from typing import Any

import pytest
from fleetkit.client import Client
from fleetkit.fleets import record, tensor
from fleetkit.graphs import SEED, Graph, Prompt, image_alone, of_class, out

from devtools.fleet import Fleet


def rows(bare: Client, fleet: Fleet, count: int = 3) -> list[str]:
    found = []
    for k in range(count):
        bare.run(image_alone("older", seed=SEED + k))
        found += tensor(fleet.extras[0], "older")["rows"]
    return found


def collected(prefix: str, collector: dict[str, Any], seed: dict[str, Any] | None = None) -> Prompt:
    graph = Graph()
    made = graph.image(graph.add("DistributedSeed", seed=SEED, **(seed or {})), salt=prefix)
    graph.hash(graph.add("DistributedCollector", images=made, **collector), prefix)
    return graph.prompt


INJECTED: dict[str, dict[str, Any]] = {
    "without load_balance": {},
    "master's copy": {"multi_job_id": "exec_1_abcdef_3", "is_worker": False, "enabled_worker_ids": '["w1"]'},
    "worker's copy": {
        "load_balance": False,
        "multi_job_id": "exec_1_abcdef_3",
        "is_worker": True,
        "master_url": "http://10.0.0.1:8188",
        "worker_id": "w1",
        "worker_batch_size": 1,
        "delegate_only": True,
        "pass_through": True,
    },
}


@pytest.mark.parametrize("name", INJECTED)
def test_collectors_of_older_prompts(name: str, fleet: Fleet, master: Client, bare: Client) -> None:
    """Inputs that the older orchestrator injected are accepted and mean nothing."""
    injected = INJECTED[name]
    worker_seed = {"is_worker": True, "worker_id": "worker_3"} if injected.get("is_worker") else {}
    prompt = collected("older", injected, worker_seed)
    job = master.run(prompt)
    assert len(master.job(job)["items"]) == 3
    assert tensor(fleet.master, "older")["rows"] == rows(bare, fleet)


def test_value_node_as_the_older_front_end_exports_it(fleet: Fleet, master: Client) -> None:
    """With the rebuilt widgets as extra inputs, and a number as default (compat.md 1.5)."""
    graph = Graph()
    value = graph.add(
        "DistributedValue",
        default_value=7,
        worker_values='{"1":"3","2":"4","_type":"INT","_by_worker_id":{"w1":"3","w2":"4"}}',
        _dv_default=7,
        _dv_worker_1=3,
        _dv_worker_2=4,
        is_worker=False,
        worker_id="",
    )
    graph.hash(graph.collect(graph.image(graph.seed(), batch=value)), "older-value")
    master.run(graph.prompt)
    assert tensor(fleet.master, "older-value")["shape"][0] == 7 + 3 + 4


def test_queue_node_of_early_2026_still_runs(fleet: Fleet, master: Client, bare: Client) -> None:
    prompt = collected("older", {"load_balance": False})
    prompt["queue"] = {"class_type": "DistributedQueue", "inputs": {}}
    entry = master.succeeded(master.run(prompt))
    assert "DistributedCollector" in entry["outputs"]["queue"]["text"][0].replace(" ", "")
    assert tensor(fleet.master, "older")["rows"] == rows(bare, fleet)


def test_dividers_behind_a_collector(fleet: Fleet, master: Client, bare: Client) -> None:
    """As in the bundled video workflows: the parts are cut from the whole batch."""
    graph = Graph()
    made = graph.image(graph.seed(), salt="divided")
    divided = graph.add("ImageBatchDivider", images=graph.collect(made), divide_by=2)
    for slot in (0, 1):
        graph.hash(out(divided, slot), f"part-{slot}")
    master.run(graph.prompt)
    wanted = rows(bare, fleet)
    assert tensor(fleet.master, "part-0")["rows"] == wanted[:2]
    assert tensor(fleet.master, "part-1")["rows"] == wanted[2:]


def test_audio_divider_behind_a_collector(fleet: Fleet, master: Client) -> None:
    graph = Graph()
    audio = graph.add("KitAudio", seed=graph.seed(), seconds=0.1, sample_rate=8_000, channels=2)
    gathered = graph.collect(audio=audio)
    divided = graph.add("AudioBatchDivider", audio=out(gathered, 1), divide_by=7)
    for slot in range(10):
        graph.hash(out(divided, slot), f"audio-{slot}")
    master.run(graph.prompt)
    lengths = [record(fleet.master, f"audio-{slot}")["tensors"]["waveform"]["shape"][-1] for slot in range(10)]
    assert lengths == [343, 343, 343, 343, 343, 343, 342, 0, 0, 0]


def test_empty_image_gives_no_frames(fleet: Fleet, master: Client) -> None:
    graph = Graph()
    graph.hash(graph.add("DistributedEmptyImage", height=8, width=16, channels=3), "no-frames")
    master.run(graph.prompt)
    assert tensor(fleet.master, "no-frames")["shape"] == [0, 8, 16, 3]


def test_all_node_ids_and_sockets_of_compat(master: Client) -> None:
    """What a saved workflow's links and widgets stand on."""
    wanted = {
        "DistributedSeed": (["seed"], ["INT"]),
        "DistributedCollector": (["images", "load_balance", "audio"], ["IMAGE", "AUDIO"]),
        "DistributedValue": (["default_value", "worker_values"], ["*"]),
        "DistributedModelName": (["text"], ["*"]),
        "DistributedEmptyImage": (["height", "width", "channels"], ["IMAGE"]),
        "ImageBatchDivider": (["images", "divide_by"], ["IMAGE"] * 10),
        "AudioBatchDivider": (["audio", "divide_by"], ["AUDIO"] * 10),
    }
    for class_type, (inputs, outputs) in wanted.items():
        info = master.get(f"/object_info/{class_type}")[class_type]
        named = [*info["input"].get("required", {}), *info["input"].get("optional", {})]
        assert named[: len(inputs)] == inputs, class_type
        assert info["output"][: len(outputs)] == outputs, class_type
    prompt = collected("x", {})
    assert of_class(prompt, "DistributedCollector") == "3"
