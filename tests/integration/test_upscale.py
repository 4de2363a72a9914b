"""Must be true 2: an upscale's pixels are those of a single server, in every mode and whoever takes part."""

from __future__ import annotations

from typing import Any

import pytest
from fleetkit.client import Client
from fleetkit.fleets import tensor
from fleetkit.graphs import of_class
from fleetkit.upscales import SIZE, TILES, UPSCALE_MODEL, ended, pixels_alone, upscaled, workers_of

from devtools.fleet import Fleet
from devtools.instances import Instance

TILE_S = 0.1
"""Long enough for everybody to get some tiles."""

PARTICIPANTS: dict[str, tuple[bool, list[str]]] = {
    "master and one": (False, ["w1"]),
    "one": (True, ["w1"]),
    "two": (True, ["w1", "w2"]),
    "master and two": (False, ["w1", "w2"]),
}
"""Whether the master only coordinates, and which workers there are."""

MODES = ("mosaic", "linear", "chess", "independent")

WIDE_MODES = ("mosaic", "independent")
"""Where there is always something to do for everybody."""

CASES: dict[str, dict[str, Any]] = {
    "band pass in linear": {"mode": "linear", "seam_fix_mode": "Band Pass", "seam_fix_width": 16},
    "half tiles in mosaic": {"mode": "mosaic", "seam_fix_mode": "Half Tile"},
    "intersections in chess": {"mode": "chess", "seam_fix_mode": "Half Tile + Intersections"},
    "seams with their own denoise": {
        "mode": "mosaic",
        "seam_fix_mode": "Band Pass",
        "seam_fix_own_denoise": True,
        "seam_fix_denoise": 0.8,
    },
    "seams only": {"mode": "none", "seam_fix_mode": "Half Tile"},
    "nothing at all": {"mode": "none"},
    "a batch in linear": {"mode": "linear", "batch": 3, "size": (128, 128)},
    "a batch in mosaic": {"mode": "mosaic", "batch": 3, "size": (128, 128)},
    "frames in chunks": {"mode": "mosaic", "batch": 5, "size": (128, 64), "frame_chunk": 2},
    "groups of tiles in linear": {"mode": "linear", "tile_batch": 3},
    "groups of tiles in mosaic": {"mode": "mosaic", "tile_batch": 3},
    "a float canvas": {"mode": "mosaic", "canvas": "float"},
    "tiles that are not uniform": {"mode": "chess", "force_uniform_tiles": False},
    "a size that does not divide": {"mode": "mosaic", "size": (203, 131)},
    "no padding, no blur": {"mode": "linear", "padding": 0, "mask_blur": 0},
    "much padding, much blur": {"mode": "mosaic", "padding": 64, "mask_blur": 64},
    "one tile": {"mode": "linear", "size": (64, 64)},
    "a plain enlargement": {"node": UPSCALE_MODEL, "size": (104, 68), "upscale_by": 2.0},
}


def _plain(name: str) -> str:
    return "-".join(name.replace(",", "").split())


def run(master: Client, prompt: dict[str, Any], participants: str) -> dict[str, Any]:
    """Runs the prompt with these participants, and returns its job."""
    coordinates, workers = PARTICIPANTS[participants]
    body = {
        "prompt": prompt,
        "client_id": "upscales",
        "delegate_master": coordinates,
        "enabled_worker_ids": workers,
    }
    prompt_id = str(master.post("/distributed/queue", body)["prompt_id"])
    master.succeeded(prompt_id)
    return ended(master, prompt_id)


@pytest.mark.parametrize("participants", PARTICIPANTS)
@pytest.mark.parametrize("mode", MODES)
def test_mbt2_modes(
    mode: str, participants: str, fleet: Fleet, master: Client, alone: Client, alone_instance: Instance
) -> None:
    prefix = f"up-{mode}-{_plain(participants)}"
    job = run(master, upscaled(prefix, mode=mode, watch={"delay_s": TILE_S}), participants)
    coordinates, workers = PARTICIPANTS[participants]
    assert (job["state"], job["items_total"], job["items_done"]) == ("done", TILES, TILES)
    everybody = {*workers, *([] if coordinates else ["master"])}
    assert workers_of(job) <= everybody
    if mode in WIDE_MODES:
        assert workers_of(job) == everybody
    found = tensor(fleet.master, prefix)
    assert found["shape"] == [1, SIZE[1], SIZE[0], 3]
    assert found["blake3"] == pixels_alone(alone, alone_instance, mode=mode)


@pytest.mark.parametrize("name", CASES)
def test_mbt2_more(name: str, fleet: Fleet, master: Client, alone: Client, alone_instance: Instance) -> None:
    prefix = f"up-{_plain(name)}"
    job = run(master, upscaled(prefix, watch={"delay_s": TILE_S / 2}, **CASES[name]), "master and two")
    assert job["state"] == "done"
    assert tensor(fleet.master, prefix)["blake3"] == pixels_alone(alone, alone_instance, **CASES[name])


def test_cases_differ(alone: Client, alone_instance: Instance) -> None:
    """Equal pixels say something: the single server's own pictures are all different."""
    same_picture = [*MODES, *(name for name, how in CASES.items() if not {"size", "batch", "node"} & how.keys())]
    hashes = {name: pixels_alone(alone, alone_instance, **CASES.get(name, {"mode": name})) for name in same_picture}
    assert len(set(hashes.values())) == len(hashes)


def test_the_kits_vae_changes_no_pixel(alone: Client, alone_instance: Instance) -> None:
    """What everything is compared with is what a graph without it makes."""
    prompt = upscaled("unwatched", mode="mosaic")
    watch = of_class(prompt, "KitWatchVae")
    vae = prompt.pop(watch)["inputs"]["vae"]
    for node in prompt.values():
        node["inputs"] = {name: vae if value == [watch, 0] else value for name, value in node["inputs"].items()}
    alone.run(prompt)
    assert tensor(alone_instance, "unwatched")["blake3"] == pixels_alone(alone, alone_instance, mode="mosaic")


def test_mbt2_upscale_model(fleet: Fleet, master: Client, alone: Client, alone_instance: Instance) -> None:
    """Two tiles of the upscale model, then those of the redraw."""
    how: dict[str, Any] = {"node": UPSCALE_MODEL, "size": (640, 96), "upscale_by": 0.5, "enlarged": True}
    job = run(master, upscaled("up-model", **how), "master and two")
    passes = [next(iter(item["values"].values()))["pass"] for item in job["items"]]
    assert passes == ["upscale model"] * 2 + ["redraw"] * 5
    assert tensor(fleet.master, "up-model")["blake3"] == pixels_alone(alone, alone_instance, **how)
