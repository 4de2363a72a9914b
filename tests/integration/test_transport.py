"""Must be true 2 on both transports and with less precision: what arrives is what was promised."""

from __future__ import annotations

import pytest
import torch
from fleetkit.client import Client
from fleetkit.fleets import load_saved, tensor
from fleetkit.graphs import SEED, Graph, image_alone, images, out
from fleetkit.waiting import eventually

from devtools.fleet import Fleet
from devtools.instances import Instance

LARGE_PX = 1_024


@pytest.fixture
def http_master(second: Instance) -> Client:
    """A master that never reads its workers' spool folders."""
    client = Client(second.url)
    eventually(lambda: set(client.states().values()) == {"online"}, "the second master has both workers")
    return client


def noise(fleet: Fleet, bare: Client, prefix: str, **how: int) -> list[str]:
    """The rows that items 0, 1 and 2 have on the single server."""
    rows = []
    for k in range(3):
        bare.run(image_alone(prefix, seed=SEED + k, **how))
        rows += tensor(fleet.extras[0], prefix)["rows"]
    return rows


@pytest.mark.parametrize("size_px", [32, LARGE_PX])
def test_mbt2_same_host(size_px: int, fleet: Fleet, master: Client, bare: Client) -> None:
    eventually(lambda: master.worker("w1")["same_host"] and master.worker("w2")["same_host"], "both are on this host")
    master.run(images(f"mapped-{size_px}", size_px=size_px))
    assert tensor(fleet.master, f"mapped-{size_px}")["rows"] == noise(fleet, bare, "mapped", size_px=size_px)


@pytest.mark.parametrize("size_px", [32, LARGE_PX])
def test_mbt2_http(
    size_px: int, fleet: Fleet, http_master: Client, second: Instance, bare: Client, w1: Client, w2: Client
) -> None:
    assert not http_master.worker("w1")["same_host"]
    assert not http_master.worker("w2")["same_host"]
    job = http_master.job(http_master.run(images(f"fetched-{size_px}", size_px=size_px)))
    assert [item["participant"] for item in job["items"]] == ["master", "w1", "w2"]
    assert tensor(second, f"fetched-{size_px}")["rows"] == noise(fleet, bare, "fetched", size_px=size_px)


def test_mbt2_two_masters_share_the_workers(
    fleet: Fleet, master: Client, http_master: Client, second: Instance, bare: Client
) -> None:
    """Each gets its own items, whatever the other queues at the same time."""
    own = master.queue(images("own", seed=SEED, delay_s=0.2))
    other = http_master.queue(images("other", seed=SEED + 100, delay_s=0.2))
    master.succeeded(own)
    http_master.succeeded(other)
    assert tensor(fleet.master, "own")["rows"] == noise(fleet, bare, "own")
    bare.run(image_alone("other", seed=SEED + 101))
    assert tensor(second, "other")["rows"][1:2] == tensor(fleet.extras[0], "other")["rows"]


def three_kinds(prefix: str, fleet: Fleet, master: Client, bare: Client) -> dict[str, list[torch.Tensor]]:
    """Kind → what arrived, followed by what single servers make of the three seeds (image, latent, mask)."""

    def save_all(graph: Graph, seed: object, name: str, *, collect: bool) -> None:
        image = graph.image(seed)
        latent = graph.add("KitLatent", seed=seed, width=32, height=32, batch=1, with_mask=False)
        mask = graph.add("KitMask", seed=seed, width=16, height=16, batch=1)
        links = {"images": image, "latent": latent, "mask": mask}
        if collect:
            gathered = graph.add("DistributedCollector", **links)
            links = {"images": gathered, "latent": out(gathered, 2), "mask": out(gathered, 3)}
        for kind, link in links.items():
            graph.save(link, f"{name}-{kind}")

    graph = Graph()
    save_all(graph, graph.seed(), prefix, collect=True)
    master.run(graph.prompt)
    found = {kind: [only_tensor(fleet.master, f"{prefix}-{kind}")] for kind in ("images", "latent", "mask")}
    for k in range(3):
        alone = Graph()
        save_all(alone, SEED + k, f"{prefix}-{k}", collect=False)
        bare.run(alone.prompt)
        for kind, tensors in found.items():
            tensors.append(only_tensor(fleet.extras[0], f"{prefix}-{k}-{kind}"))
    return found


def only_tensor(instance: Instance, prefix: str) -> torch.Tensor:
    (found,) = load_saved(instance, prefix).tensors.values()
    return found


def test_half_rounds_only_that_workers_items(fleet: Fleet, master: Client, bare: Client) -> None:
    """As documented: float32 travels as float16, and comes out as float32."""
    master.change_worker("w1", precision="half")
    for kind, (arrived, *exact) in three_kinds("half", fleet, master, bare).items():
        assert arrived.dtype == torch.float32
        assert torch.equal(arrived[0:1], exact[0]), kind
        assert torch.equal(arrived[1:2], exact[1].half().float()), kind
        assert not torch.equal(arrived[1:2], exact[1]), kind
        assert torch.equal(arrived[2:3], exact[2]), kind


def test_8bit_rounds_only_that_workers_pictures(fleet: Fleet, master: Client, bare: Client) -> None:
    """As documented: images and masks travel as whole 255ths; a latent, which is no picture, stays exact."""
    master.change_worker("w2", precision="8bit")
    for kind, (arrived, *exact) in three_kinds("8bit", fleet, master, bare).items():
        assert arrived.dtype == torch.float32
        assert torch.equal(arrived[0:1], exact[0]), kind
        assert torch.equal(arrived[1:2], exact[1]), kind
        wanted = exact[2] if kind == "latent" else (exact[2] * 255.0).round() / 255.0
        assert torch.equal(arrived[2:3], wanted), kind
