"""Must be true 4 and 8: what runs where in prompts with an upscale: pictures are made once, whatever needs them."""

from __future__ import annotations

from typing import Any

import pytest
from fleetkit.client import Client
from fleetkit.fleets import count_of, record, tensor
from fleetkit.graphs import Graph, Link, Prompt, of_class
from fleetkit.upscales import (
    TILES,
    UPSCALE,
    ended,
    image_runs,
    pixels_alone,
    scene,
    source,
    tile_runs,
    upscale,
    upscaled,
    workers_of,
)

from devtools.fleet import Fleet
from devtools.instances import Instance

SMALL = (128, 64)
SMALL_TILES = 2
ITEMS = 3

IMAGE_S = 4.0
"""More than workers need to load the models."""
FIRST_TILE_WITHIN_S = 2.0
"""The promise is 1 s, which the printed figure is to be compared with; this bound allows for a busy test machine."""

INJECTED = {
    "multi_job_id": "exec_1_abcdef_5",
    "is_worker": False,
    "master_url": "http://10.0.0.1:8188",
    "enabled_worker_ids": '["w1", "w2"]',
    "worker_id": "",
    "tile_indices": "",
    "dynamic_threshold": 8,
}


def tint(graph: Graph, image: Link) -> Link:
    """Conditioning with a hint that is the picture itself."""
    plain = graph.add("KitConditioning", boats=2, time="day")
    return graph.add("KitTint", conditioning=plain, image=image)


def of_another_image(graph: Graph, _image: Link) -> Link:
    """Conditioning with a hint that has nothing to do with the picture."""
    return tint(graph, graph.add("KitImage", seed=9, width=32, height=32, batch=1, delay_s=0.0, salt=""))


def caption(graph: Graph, image: Link) -> Link:
    """Conditioning of a text that somebody makes of the picture."""
    return graph.add("KitScene", text=graph.add("KitDescribe", image=image))


def both(graph: Graph, image: Link) -> Link:
    """Two hints, one of them another picture made of the first, on top of such a text."""
    inverted = graph.add("ImageInvert", image=image)
    one = graph.add("KitTint", conditioning=caption(graph, image), image=image)
    return graph.add("KitTint", conditioning=one, image=inverted)


@pytest.mark.parametrize("coordinates", [False, True], ids=["pulls", "coordinates"])
def test_mbt4_image_is_made_once_and_tiles_begin_at_once(coordinates: bool, fleet: Fleet, master: Client) -> None:
    """Workers load models while the master makes the picture."""
    master.change_settings(master_delegate_only=coordinates)
    prefix = f"up-once-{int(coordinates)}"
    watch = {"delay_s": 0.2}
    job = ended(master, master.run(upscaled(prefix, image_s=IMAGE_S, watch=watch)))
    assert image_runs([fleet.master, *fleet.workers], prefix) == [1, 0, 0]
    assert len(tile_runs(fleet.instances, prefix)) == TILES, "each from the same pixels, however often it was tried"
    made_s = (fleet.master.folder / "output" / f"kit_count_{prefix}-image.txt").stat().st_mtime
    began = [
        attempt["started_s"]
        for item in job["items"]
        for attempt in item["attempts"]
        if attempt["participant"] != "master" and attempt["started_s"] is not None
    ]
    print(f"the first remote tile began {min(began) - made_s:.2f} s after the picture was made")
    assert min(began) - made_s < FIRST_TILE_WITHIN_S


@pytest.mark.parametrize("positive", [tint, caption, both], ids=lambda one: one.__name__)
@pytest.mark.parametrize("coordinates", [False, True], ids=["pulls", "coordinates"])
def test_mbt4_what_is_made_of_the_image_is_made_once(
    coordinates: bool, positive: Any, fleet: Fleet, master: Client, alone: Client, alone_instance: Instance
) -> None:
    """A hint and a text come to workers as data; whoever makes them runs on the master only."""
    master.change_settings(master_delegate_only=coordinates)
    prefix = f"up-{positive.__name__}-{int(coordinates)}"
    how = {"positive": positive, "size": (128, 128), "watch": {"delay_s": 0.2}}
    job = ended(master, master.run(upscaled(prefix, **how)))
    assert image_runs([fleet.master, *fleet.workers], prefix) == [1, 0, 0]
    assert workers_of(job) & {"w1", "w2"}
    alone.run(upscaled(prefix, **how))
    assert tensor(fleet.master, prefix)["blake3"] == tensor(alone_instance, prefix)["blake3"]
    assert tensor(fleet.master, prefix)["blake3"] != pixels_alone(alone, alone_instance, size=(128, 128))


def compare(prompt: Prompt, prefix: str, fleet: Fleet, master: Client, alone: Client, instance: Instance) -> Any:
    """The job of the prompt, whose result must be what a server without workers makes of it."""
    job = ended(master, master.run(prompt))
    alone.run(prompt)
    assert record(fleet.master, prefix) == record(instance, prefix)
    return job


def test_collector_below_passes(fleet: Fleet, master: Client, alone: Client, alone_instance: Instance) -> None:
    """Tiles are spread, a plain collector below is passed through: one picture comes out."""
    graph = Graph()
    made = upscale(graph, source(graph, "up-below", size=SMALL), "up-below")
    graph.hash(graph.collect(made), "up-below")
    job = compare(graph.prompt, "up-below", fleet, master, alone, alone_instance)
    assert [(stage["class_type"], stage["way"]) for stage in job["stages"]] == [(UPSCALE, "tiles")]
    assert tensor(fleet.master, "up-below")["shape"][0] == 1


def test_collector_below_that_asks_for_items(
    fleet: Fleet, master: Client, alone: Client, alone_instance: Instance
) -> None:
    """Each item is a whole picture with an upscale of its own, which whoever has the item runs alone."""

    def prompt(prefix: str, seed: int | None) -> Prompt:
        graph = Graph()
        number = graph.seed(5) if seed is None else seed
        image = graph.add("KitImage", seed=number, width=64, height=64, batch=1, delay_s=0.0, salt="")
        made = upscale(graph, image, prefix)
        graph.hash(graph.collect(made, items=ITEMS) if seed is None else made, prefix)
        return graph.prompt

    job = ended(master, master.run(prompt("up-items", None)))
    assert [stage["way"] for stage in job["stages"]] == ["pull"]
    assert len(job["items"]) == ITEMS
    rows = []
    for k in range(ITEMS):
        alone.run(prompt("up-item-alone", 5 + k))
        rows += tensor(alone_instance, "up-item-alone")["rows"]
    assert tensor(fleet.master, "up-items")["rows"] == rows


def test_collector_above(fleet: Fleet, master: Client, alone: Client, alone_instance: Instance) -> None:
    """The fleet makes three pictures, and then upscales the three together."""

    def prompt(images: Any) -> Prompt:
        graph = Graph()
        image = images(graph)
        graph.hash(upscale(graph, image, "up-above", mode="linear"), "up-above")
        return graph.prompt

    def one(graph: Graph, seed: Any) -> Link:
        return graph.add("KitImage", seed=seed, width=128, height=64, batch=1, delay_s=0.0, salt="")

    def joined(graph: Graph) -> Link:
        first = graph.add("ImageBatch", image1=one(graph, 5), image2=one(graph, 6))
        return graph.add("ImageBatch", image1=first, image2=one(graph, 7))

    job = ended(master, master.run(prompt(lambda graph: graph.collect(one(graph, graph.seed(5))))))
    assert [stage["way"] for stage in job["stages"]] == ["one_each", "tiles"]
    assert len(job["items"]) == ITEMS + SMALL_TILES
    alone.run(prompt(joined))
    assert tensor(fleet.master, "up-above") == tensor(alone_instance, "up-above")


@pytest.mark.parametrize("coordinates", [False, True], ids=["pulls", "coordinates"])
def test_two_upscales_one_after_the_other(
    coordinates: bool, fleet: Fleet, master: Client, alone: Client, alone_instance: Instance
) -> None:
    master.change_settings(master_delegate_only=coordinates)
    prefix = f"up-chain-{int(coordinates)}"
    graph = Graph()
    first = upscale(graph, source(graph, prefix, size=SMALL), f"{prefix}-a", mode="linear")
    second = upscale(graph, first, f"{prefix}-b", node="DistributedUpscale", upscale_by=2.0)
    graph.hash(second, prefix)
    job = compare(graph.prompt, prefix, fleet, master, alone, alone_instance)
    assert len(job["items"]) == SMALL_TILES + 4 * SMALL_TILES
    assert image_runs([fleet.master, *fleet.workers], prefix) == [1, 0, 0]


def test_two_upscales_beside_each_other(fleet: Fleet, master: Client, alone: Client, alone_instance: Instance) -> None:
    """Of the same picture: equal pixels go to different nodes."""
    graph = Graph()
    image = source(graph, "up-beside", size=SMALL)
    left = upscale(graph, image, "up-beside-a", mode="linear")
    right = upscale(graph, image, "up-beside-b", mode="linear", denoise=0.8)
    graph.hash(graph.add("ImageBatch", image1=left, image2=right), "up-beside")
    job = compare(graph.prompt, "up-beside", fleet, master, alone, alone_instance)
    assert len(job["items"]) == 2 * SMALL_TILES
    rows = tensor(fleet.master, "up-beside")["rows"]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("positive", [scene, of_another_image], ids=["plain", "hint"])
@pytest.mark.parametrize("coordinates", [False, True], ids=["pulls", "coordinates"])
def test_list_of_images(
    coordinates: bool, positive: Any, fleet: Fleet, master: Client, alone: Client, alone_instance: Instance
) -> None:
    """The host runs the node for all of them at once."""
    master.change_settings(master_delegate_only=coordinates)
    prefix = f"up-list-{positive.__name__}-{int(coordinates)}"
    graph = Graph()
    images = graph.add("RebatchImages", images=source(graph, prefix, size=SMALL, batch=3), batch_size=1)
    made = upscale(graph, images, prefix, mode="linear", positive=positive, watch={"delay_s": 0.1})
    graph.add("KitHashList", any=made, prefix=prefix)
    job = compare(graph.prompt, prefix, fleet, master, alone, alone_instance)
    assert len(job["items"]) == 3 * SMALL_TILES
    assert len(record(fleet.master, prefix)["tensors"]) == 3


@pytest.mark.parametrize("coordinates", [False, True], ids=["pulls", "coordinates"])
def test_the_same_prompt_again_is_answered_by_the_cache(coordinates: bool, fleet: Fleet, master: Client) -> None:
    master.change_settings(master_delegate_only=coordinates)
    prefix = f"up-again-{int(coordinates)}"
    prompt = upscaled(prefix, size=SMALL, positive=tint)
    ended(master, master.run(prompt))
    runs = tile_runs(fleet.instances, prefix)
    ended(master, master.run(prompt))
    assert tile_runs(fleet.instances, prefix) == runs
    assert image_runs([fleet.master, *fleet.workers], prefix) == [1, 0, 0]


def test_another_seed_computes_again(fleet: Fleet, master: Client, alone: Client, alone_instance: Instance) -> None:
    """The model side stays loaded; only the tiles run."""
    prompt = upscaled("up-other", size=SMALL)
    master.run(prompt)
    prompt[of_class(prompt, UPSCALE)]["inputs"]["seed"] = 8
    master.run(prompt)
    assert tensor(fleet.master, "up-other")["blake3"] == pixels_alone(alone, alone_instance, size=SMALL, seed=8)
    assert count_of(fleet.master, "up-other-image") == 1


def test_mbt8_prompt_of_the_old_node(fleet: Fleet, master: Client, alone: Client, alone_instance: Instance) -> None:
    """Its 17 inputs, and what its orchestrator put into it besides."""
    prompt = upscaled("up-old")
    node = prompt[of_class(prompt, UPSCALE)]
    assert len(node["inputs"]) == 17
    node["inputs"].update(INJECTED)
    job = ended(master, master.run(prompt))
    assert job["items_done"] == TILES
    assert tensor(fleet.master, "up-old")["blake3"] == pixels_alone(alone, alone_instance)


def test_frames_where_the_master_does_not_know_the_model(
    fleet: Fleet, master: Client, alone: Client, alone_instance: Instance
) -> None:
    """A worker tells whether the frames are a clip or single pictures; there is more than one chunk of them."""
    master.change_settings(master_delegate_only=True)
    how: dict[str, Any] = {"size": (64, 64), "batch": 9}
    job = ended(master, master.run(upscaled("up-frames", **how)))
    assert [next(iter(item["values"].values()))["frames"] for item in job["items"]] == [[0, 8], [8, 9]]
    assert tensor(fleet.master, "up-frames")["blake3"] == pixels_alone(alone, alone_instance, **how)


def test_precision_of_a_worker_means_nothing_for_tiles(
    fleet: Fleet, master: Client, alone: Client, alone_instance: Instance
) -> None:
    master.change_settings(master_delegate_only=True)
    for name in ("w1", "w2"):
        master.change_worker(name, precision="8bit")
    how = {"canvas": "float", "size": SMALL}
    master.run(upscaled("up-precise", **how))
    assert tensor(fleet.master, "up-precise")["blake3"] == pixels_alone(alone, alone_instance, **how)


@pytest.mark.parametrize("coordinates", [False, True], ids=["pulls", "coordinates"])
def test_values_that_vary_are_plain_ones_in_an_upscale(
    coordinates: bool, fleet: Fleet, master: Client, alone: Client, alone_instance: Instance
) -> None:
    """Seed and value of the master, whoever redraws the tile."""
    master.change_settings(master_delegate_only=coordinates)
    prefix = f"up-vary-{int(coordinates)}"
    prompt = upscaled(prefix, size=SMALL)
    value = {"default_value": "2", "worker_values": '{"1": "4", "2": "5", "_type": "INT"}'}
    prompt["value"] = {"class_type": "DistributedValue", "inputs": value}
    prompt["seed"] = {"class_type": "DistributedSeed", "inputs": {"seed": 7}}
    prompt[of_class(prompt, "KitConditioning")]["inputs"]["boats"] = ["value", 0]
    prompt[of_class(prompt, UPSCALE)]["inputs"]["seed"] = ["seed", 0]
    compare(prompt, prefix, fleet, master, alone, alone_instance)
    assert tensor(fleet.master, prefix)["blake3"] == pixels_alone(alone, alone_instance, size=SMALL)


def test_collector_beside(fleet: Fleet, master: Client, alone: Client, alone_instance: Instance) -> None:
    """One prompt, one job, both ways."""
    graph = Graph()
    graph.hash(upscale(graph, source(graph, "up-next", size=SMALL), "up-next"), "up-next")
    graph.hash(graph.collect(graph.image(graph.seed())), "up-next-images")
    job = ended(master, master.run(graph.prompt))
    assert job["state"] == "done"
    assert sorted(stage["way"] for stage in job["stages"]) == ["one_each", "tiles"]
    assert tensor(fleet.master, "up-next-images")["shape"][0] == ITEMS
    assert tensor(fleet.master, "up-next")["blake3"] == pixels_alone(alone, alone_instance, size=SMALL)


def test_two_masters_at_once(
    fleet: Fleet, master: Client, second: Instance, alone: Client, alone_instance: Instance
) -> None:
    """They send the same workers the same pixels; one of them can reach no file of theirs."""
    other = Client(second.url)
    jobs = [(client, client.queue(upscaled("up-both", watch={"delay_s": 0.1}))) for client in (master, other)]
    for client, job in jobs:
        client.succeeded(job)
        assert ended(client, job)["state"] == "done"
        assert workers_of(client.job(job)) & {"w1", "w2"}
    for instance in (fleet.master, second):
        assert tensor(instance, "up-both")["blake3"] == pixels_alone(alone, alone_instance)


def test_worker_needs_nothing_of_what_makes_the_image(
    fleet: Fleet, master: Client, alone: Client, alone_instance: Instance
) -> None:
    """w2 lacks one of these nodes."""
    master.change_settings(master_delegate_only=True)
    above = upscaled("up-rare", size=SMALL, change=lambda graph, image: graph.add("KitRare", image=image))
    job = ended(master, master.run(above))
    assert job["left_out"] == {}
    assert tensor(fleet.master, "up-rare")["blake3"] == pixels_alone(alone, alone_instance, size=SMALL)
