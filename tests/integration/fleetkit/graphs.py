"""Prompts for tests, in the host's API format: small functions that put nodes together."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

Prompt = dict[str, dict[str, Any]]
Link = list[Any]

MODEL = "flotilla_tiny.safetensors"
VAE = "flotilla_tiny_vae.safetensors"
SEED = 1_000
STEPS = 4


class Graph:
    """A prompt that grows node by node; ids are "1", "2", ... in the order of adding."""

    def __init__(self) -> None:
        self.prompt: Prompt = {}

    def add(self, class_type: str, **inputs: Any) -> Link:
        """Adds a node and returns the link to its first output."""
        node_id = str(len(self.prompt) + 1)
        self.prompt[node_id] = {"class_type": class_type, "inputs": inputs}
        return [node_id, 0]

    def seed(self, seed: int = SEED) -> Link:
        """A Distributed Seed."""
        return self.add("DistributedSeed", seed=seed)

    def image(self, seed: Any, *, batch: Any = 1, size_px: int = 32, delay_s: Any = 0.0, salt: Any = "") -> Link:
        """Noise as an image of ``size_px`` squared."""
        return self.add("KitImage", seed=seed, width=size_px, height=size_px, batch=batch, delay_s=delay_s, salt=salt)

    def collect(self, images: Link | None = None, *, load_balance: bool = False, **more: Any) -> Link:
        """A Distributed Collector."""
        if images is not None:
            more["images"] = images
        return self.add("DistributedCollector", **more, load_balance=load_balance)

    def hash(self, source: Link, prefix: str) -> Link:
        """Records what arrives."""
        return self.add("KitHash", any=source, prefix=prefix)

    def save(self, source: Link, prefix: str) -> Link:
        """Records what arrives with all its bits."""
        return self.add("KitSave", any=source, prefix=prefix)


def out(link: Link, slot: int) -> Link:
    """Another output of the same node."""
    return [link[0], slot]


def images(
    prefix: str,
    *,
    seed: int = SEED,
    batch: int = 1,
    size_px: int = 32,
    delay_s: float = 0.0,
    salt: str = "",
    **how: Any,
) -> Prompt:
    """Noise images, one item each, collected and recorded. ``salt`` makes the prompt a new one for the host's cache."""
    graph = Graph()
    made = graph.image(graph.seed(seed), batch=batch, size_px=size_px, delay_s=delay_s, salt=salt or prefix)
    graph.hash(graph.collect(made, **how), prefix)
    return graph.prompt


def image_alone(prefix: str, *, seed: int, batch: int = 1, size_px: int = 32) -> Prompt:
    """What one item of `images` is on a single server."""
    graph = Graph()
    graph.hash(graph.image(seed, batch=batch, size_px=size_px), prefix)
    return graph.prompt


def pulled(
    prefix: str,
    items: int,
    *,
    seed: int = SEED,
    size_px: int = 32,
    delay_s: float = 0.0,
    speeds: str = "",
    fault: Callable[[Graph, Link, Link], Link] | None = None,
    **how: Any,
) -> Prompt:
    """``items`` noise images, pulled by whoever is free, collected and recorded.

    Each takes ``delay_s`` (at the speeds of KitSlow) and is counted under ``prefix`` when it is made. ``fault`` puts more
    nodes in front of the delay: it is given the graph, the image and the item's number, and returns the image.
    """
    graph = Graph()
    image = graph.image(graph.seed(seed), size_px=size_px, salt=prefix)
    index = graph.add("DistributedItem")
    if fault is not None:
        image = fault(graph, image, index)
    slow = graph.add("KitSlow", image=image, delay_s=delay_s, steps=10, speeds=speeds)
    counted = graph.add("KitCount", image=slow, name=prefix, index=index)
    graph.hash(graph.collect(counted, items=items, **how), prefix)
    return graph.prompt


def images_alone(seeds: list[int], *, size_px: int = 32) -> Prompt:
    """The images of these seeds on a single server, each recorded as ``alone-<seed>``."""
    graph = Graph()
    for seed in seeds:
        graph.hash(graph.image(seed, size_px=size_px), f"alone-{seed}")
    return graph.prompt


def sample(graph: Graph, seed: Any, *, size_px: int = 64, batch: int = 1) -> tuple[Link, Link]:
    """A sampler on the tiny model: links to its latent and to the decoded image."""
    model = graph.add("UNETLoader", unet_name=MODEL, weight_dtype="default")
    positive = graph.add("KitConditioning", boats=2, time="day")
    negative = graph.add("KitConditioning", boats=0, time="any")
    empty = graph.add("EmptySD3LatentImage", width=size_px, height=size_px, batch_size=batch)
    latent = graph.add(
        "KSampler",
        model=model,
        seed=seed,
        steps=STEPS,
        cfg=2.0,
        sampler_name="euler",
        scheduler="simple",
        positive=positive,
        negative=negative,
        latent_image=empty,
        denoise=1.0,
    )
    vae = graph.add("VAELoader", vae_name=VAE)
    return latent, graph.add("VAEDecode", samples=latent, vae=vae)


def sampled(prefix: str, *, seed: int = SEED, size_px: int = 64, batch: int = 1) -> Prompt:
    """Sampled images and their latents, collected and recorded as ``<prefix>`` and ``<prefix>-latent``."""
    graph = Graph()
    latent, image = sample(graph, graph.seed(seed), size_px=size_px, batch=batch)
    gathered = graph.collect(image, latent=latent)
    graph.hash(gathered, prefix)
    graph.hash(out(gathered, 2), f"{prefix}-latent")
    return graph.prompt


def sampled_alone(prefix: str, *, seed: int, size_px: int = 64, batch: int = 1) -> Prompt:
    """What one item of `sampled` is on a single server."""
    graph = Graph()
    latent, image = sample(graph, seed, size_px=size_px, batch=batch)
    graph.hash(image, prefix)
    graph.hash(latent, f"{prefix}-latent")
    return graph.prompt


def changed(prompt: Prompt, node_id: str, **inputs: Any) -> Prompt:
    """A copy of the prompt with other inputs at one node."""
    made = copy.deepcopy(prompt)
    made[node_id]["inputs"].update(inputs)
    return made


def of_class(prompt: Prompt, class_type: str) -> str:
    """The id of the only node of a class."""
    (node_id,) = [node_id for node_id, node in prompt.items() if node["class_type"] == class_type]
    return node_id
