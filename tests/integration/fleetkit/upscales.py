"""Prompts with an upscale, and where to look at what became of its tiles."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from devtools.instances import Instance

from .client import Client
from .fleets import count_of, executions, tensor
from .graphs import MODEL, VAE, Graph, Link, Prompt
from .waiting import eventually

UPSCALE = "UltimateSDUpscaleDistributed"
UPSCALE_MODEL = "DistributedUpscale"
IMAGE_INPUT = {UPSCALE: "upscaled_image", UPSCALE_MODEL: "image"}

SIZE = (208, 136)
"""Of the picture, in pixels: 4 columns and 3 rows of tiles, the last of each narrower."""
TILE = 64
TILES = 12
PADDING = 16
MASK_BLUR = 4
SOURCE_SEED = 5
SEED = 7

MARKED = (1, 0)
"""Column and row of the tile that `marked` paints."""

_alone: dict[str, str] = {}  # by server and inputs

Change = Callable[[Graph, Link], Link]


def source(graph: Graph, prefix: str, *, size: tuple[int, int] = SIZE, batch: int = 1, delay_s: float = 0.0) -> Link:
    """The picture, counted as ``<prefix>-image`` where it is made."""
    made = graph.add(
        "KitImage", seed=SOURCE_SEED, width=size[0], height=size[1], batch=batch, delay_s=delay_s, salt=prefix
    )
    return graph.add("KitCount", image=made, name=f"{prefix}-image")


def marked(graph: Graph, image: Link) -> Link:
    """The picture with one white tile, which the kit's faults can be meant for."""
    x, y = (TILE * place for place in MARKED)
    return graph.add("KitMark", image=image, x=x, y=y, width=TILE, height=TILE)


def scene(graph: Graph, image: Link) -> Link:
    """Plain conditioning; ``image`` is not used."""
    return graph.add("KitConditioning", boats=2, time="day")


def upscale(
    graph: Graph,
    image: Link,
    prefix: str,
    *,
    node: str = UPSCALE,
    positive: Change = scene,
    watch: dict[str, Any] | None = None,
    slow: dict[str, Any] | None = None,
    enlarged: bool = False,
    **inputs: Any,
) -> Link:
    """An upscale of ``image`` on the tiny model.

    Each tile is counted as ``<prefix>-tiles`` by whoever computes it. ``watch`` are more inputs of KitWatchVae, ``slow`` those
    of a KitSlowModel; ``positive`` makes the conditioning, and may use the image; ``enlarged`` connects an upscale model.
    """
    model = graph.add("UNETLoader", unet_name=MODEL, weight_dtype="default")
    if slow is not None:
        model = graph.add("KitSlowModel", model=model, **slow)
    vae = graph.add("VAELoader", vae_name=VAE)
    vae = graph.add("KitWatchVae", vae=vae, name=f"{prefix}-tiles", **(watch or {}))
    conditioning = positive(graph, image)
    given: dict[str, Any] = {
        IMAGE_INPUT[node]: image,
        "model": model,
        "positive": conditioning,
        "negative": graph.add("ConditioningZeroOut", conditioning=conditioning),
        "vae": vae,
        "seed": SEED,
        "steps": 2,
        "cfg": 2.0,
        "sampler_name": "euler",
        "scheduler": "simple",
        "denoise": 0.5,
        "tile_width": TILE,
        "tile_height": TILE,
        "padding": PADDING,
        "mask_blur": MASK_BLUR,
        "force_uniform_tiles": True,
        "tiled_decode": False,
    }
    if enlarged:
        given["upscale_model"] = graph.add("KitUpscaleModel", seed=SEED)
    return graph.add(node, **{**given, **inputs})


def upscaled(
    prefix: str,
    *,
    size: tuple[int, int] = SIZE,
    batch: int = 1,
    image_s: float = 0.0,
    change: Change | None = None,
    **how: Any,
) -> Prompt:
    """A picture that takes ``image_s`` to make, upscaled and recorded. ``change`` changes the picture, ``how``: see `upscale`."""
    graph = Graph()
    image = source(graph, prefix, size=size, batch=batch, delay_s=image_s)
    if change is not None:
        image = change(graph, image)
    graph.hash(upscale(graph, image, prefix, **how), prefix)
    return graph.prompt


def pixels_alone(alone: Client, instance: Instance, **how: Any) -> str:
    """The hash of what a single server makes of an `upscaled` prompt. It does each only once."""
    key = json.dumps([instance.url, how], sort_keys=True)
    if key not in _alone:
        prefix = f"alone-upscale-{len(_alone)}"
        alone.run(upscaled(prefix, **how))
        _alone[key] = str(tensor(instance, prefix)["blake3"])
    return _alone[key]


def tile_runs(instances: Iterable[Instance], prefix: str) -> dict[int, int]:
    """How many times each tile was computed, on all these instances together. Tiles are told apart by their pixels."""
    return dict(executions(instances, f"{prefix}-tiles"))


def image_runs(instances: Iterable[Instance], prefix: str) -> list[int]:
    """How many times the picture was made, by instance."""
    return [count_of(instance, f"{prefix}-image") for instance in instances]


def ended(master: Client, job_id: str) -> dict[str, Any]:
    """The job of a prompt that has ended. The job itself ends a moment later."""
    return eventually(
        lambda: next((job for job in [master.job(job_id)] if job["ended_s"] is not None), None), f"job {job_id} ends"
    )


def workers_of(job: dict[str, Any]) -> set[str]:
    """Who computed the tiles of a job."""
    return {item["participant"] for item in job["items"]}
