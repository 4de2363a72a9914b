"""Must be true 2: item k equals, bit for bit, what a single server makes of seed + k; results come in item order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fleetkit.client import Client
from fleetkit.fleets import load_saved, record, tensor
from fleetkit.graphs import SEED, Graph, Link, Prompt, image_alone, images, out, sampled, sampled_alone

from devtools.fleet import Fleet
from devtools.instances import Instance

WORKERS = ("w1", "w2")


def enable(master: Client, participants: int) -> None:
    """Enables so many workers that, with the master, there are this many participants."""
    for position, worker_id in enumerate(WORKERS, start=1):
        if position >= participants:
            master.change_worker(worker_id, enabled=False)


def single(bare: Client, instance: Instance, prompt: Prompt, prefix: str) -> dict[str, Any]:
    """The tensor that the single server records for a prompt."""
    bare.run(prompt)
    return tensor(instance, prefix)


@pytest.mark.parametrize("participants", [1, 2, 3])
def test_mbt2_sampled_images_and_latents_equal_single_server(
    participants: int, fleet: Fleet, master: Client, bare: Client, bare_instance: Instance
) -> None:
    enable(master, participants)
    prefix = f"sampled-{participants}"
    seed = SEED + 10 * participants
    job = master.run(sampled(prefix, seed=seed))
    assert master.is_job(job) == (participants > 1)

    wanted: dict[str, list[str]] = {"value": [], "samples": []}
    for k in range(participants):
        bare.run(sampled_alone(f"{prefix}-{k}", seed=seed + k))
        wanted["value"] += tensor(bare_instance, f"{prefix}-{k}")["rows"]
        wanted["samples"] += tensor(bare_instance, f"{prefix}-{k}-latent", "samples")["rows"]
    image, latent = tensor(fleet.master, prefix), tensor(fleet.master, f"{prefix}-latent", "samples")
    assert image["rows"] == wanted["value"]
    assert latent["rows"] == wanted["samples"]
    assert (image["shape"], image["dtype"]) == ([participants, 64, 64, 3], "float32")
    assert (latent["shape"], latent["dtype"]) == ([participants, 16, 8, 8], "float32")
    assert len(set(image["rows"])) == participants, "equal images would make the comparison empty"


def test_mbt2_float32_noise_arrives_with_every_bit(
    fleet: Fleet, master: Client, bare: Client, bare_instance: Instance
) -> None:
    """The noise is made in steps of 2^-24: neither 8 nor 16 bits hold it."""
    master.run(images("noise", size_px=48))
    rows = [
        row
        for k in range(3)
        for row in single(bare, bare_instance, image_alone("noise", seed=SEED + k, size_px=48), "noise")["rows"]
    ]
    assert tensor(fleet.master, "noise")["rows"] == rows


def test_mbt2_two_per_item(fleet: Fleet, master: Client, bare: Client, bare_instance: Instance) -> None:
    master.run(images("pairs", batch=2))
    rows = []
    for k in range(3):
        rows += single(bare, bare_instance, image_alone("pairs", seed=SEED + k, batch=2), "pairs")["rows"]
    gathered = tensor(fleet.master, "pairs")
    assert gathered["rows"] == rows
    assert gathered["shape"] == [6, 32, 32, 3]


def test_mbt2_items_of_different_batch_sizes(
    fleet: Fleet, master: Client, bare: Client, bare_instance: Instance
) -> None:
    """Item 1 delivers three images, the others one: the order of items still holds, and nothing is lost."""
    graph = Graph()
    batch = graph.add("DistributedValue", default_value="1", worker_values='{"1": "3", "_type": "INT"}')
    graph.hash(graph.collect(graph.image(graph.seed(), batch=batch)), "uneven")
    master.run(graph.prompt)
    rows = []
    for k, size in enumerate((1, 3, 1)):
        rows += single(bare, bare_instance, image_alone("uneven", seed=SEED + k, batch=size), "uneven")["rows"]
    assert tensor(fleet.master, "uneven")["rows"] == rows


def kinds(graph: Graph, seed: Any) -> dict[str, Link]:
    """One of each kind that a collector gathers, from one seed."""
    return {
        "images": graph.image(seed),
        "audio": graph.add("KitAudio", seed=seed, seconds=0.25, sample_rate=8_000, channels=2),
        "latent": graph.add("KitLatent", seed=seed, width=64, height=32, batch=2, with_mask=True),
        "mask": graph.add("KitMask", seed=seed, width=24, height=16, batch=1),
    }


SLOTS = {"images": 0, "audio": 1, "latent": 2, "mask": 3}


def test_mbt2_latent_mask_and_audio_at_once(
    fleet: Fleet, master: Client, bare: Client, bare_instance: Instance
) -> None:
    graph = Graph()
    gathered = graph.add("DistributedCollector", **kinds(graph, graph.seed()))
    for name, slot in SLOTS.items():
        graph.hash(out(gathered, slot), f"kinds-{name}")
        graph.save(out(gathered, slot), f"kinds-{name}")
    master.run(graph.prompt)

    alone: dict[str, list[dict[str, Any]]] = {name: [] for name in SLOTS}
    for k in range(3):
        single_graph = Graph()
        for name, link in kinds(single_graph, SEED + k).items():
            single_graph.hash(link, f"kinds-{k}-{name}")
            single_graph.save(link, f"kinds-{k}-{name}")
        bare.run(single_graph.prompt)
        for name in SLOTS:
            alone[name].append(record(bare_instance, f"kinds-{k}-{name}"))

    for name, key in (("images", "value"), ("mask", "value"), ("latent", "samples"), ("latent", "noise_mask")):
        wanted = [row for one in alone[name] for row in one["tensors"][key]["rows"]]
        assert record(fleet.master, f"kinds-{name}")["tensors"][key]["rows"] == wanted, (name, key)
    check_audio(fleet.master, bare_instance)


def check_audio(master: Instance, bare: Instance) -> None:
    """Audio is joined end to end along its samples."""
    joined = load_saved(master, "kinds-audio")
    parts = [load_saved(bare, f"kinds-{k}-audio") for k in range(3)]
    assert joined.values == {"sample_rate": 8_000}
    assert joined.tensors["waveform"].shape == (1, 2, 6_000)
    assert torch.equal(joined.tensors["waveform"], torch.cat([part.tensors["waveform"] for part in parts], dim=-1))


def test_mbt2_item_order_is_not_the_order_of_finishing(
    fleet: Fleet, master: Client, bare: Client, bare_instance: Instance
) -> None:
    """The first worker is the slowest; its item still comes second."""
    graph = Graph()
    slow_first = '{"1": "0.8", "_type": "FLOAT"}'
    delay = graph.add("DistributedValue", default_value="0", worker_values=slow_first)
    graph.hash(graph.collect(graph.image(graph.seed(), delay_s=delay)), "order")
    job = master.run(graph.prompt)
    items = {item["index"]: item for item in master.job(job)["items"]}
    assert items[1]["seconds"] > items[2]["seconds"] + 0.5
    rows = []
    for k in range(3):
        rows += single(bare, bare_instance, image_alone("order", seed=SEED + k), "order")["rows"]
    assert tensor(fleet.master, "order")["rows"] == rows


def test_job_tells_who_did_what(fleet: Fleet, master: Client) -> None:
    job = master.job(master.run(images("who", seed=77)))
    assert job["state"] == "done"
    assert (job["items_total"], job["items_done"]) == (3, 3)
    assert [item["participant"] for item in job["items"]] == ["master", "w1", "w2"]
    assert [list(item["values"].values()) for item in job["items"]] == [[77], [78], [79]]
    assert [item["size_bytes"] is None for item in job["items"]] == [True, False, False]
    assert all(item["seconds"] is not None for item in job["items"])
