"""Which distributed nodes of a prompt become stages, and in which order.

| node | becomes a stage |
| --- | --- |
| a collector that asks for a number of items | always |
| an upscale above such a collector | no: each item holds it, and it runs there undistributed |
| any other upscale | yes |
| a plain collector (one each, or route) below an upscale that is a stage | no: it passes through |
| any other collector | yes |
"""

from __future__ import annotations

from typing import Any

from .classes import STAGE_CLASSES, TILE_CLASSES
from .prompt import PromptIndex
from .wishes import asks_for_items


def distributed_nodes(prompt: object) -> dict[str, dict[str, Any]]:
    """The nodes of the prompt whose work could be spread, by id.

    Tolerant on purpose: a prompt without such nodes is none of our business, however odd it is.
    """
    if not isinstance(prompt, dict):
        return {}
    return {
        node_id: node
        for node_id, node in prompt.items()
        if isinstance(node_id, str)
        and isinstance(node, dict)
        and isinstance(node.get("class_type"), str)
        and node["class_type"] in STAGE_CLASSES
    }


def asks_for_number(node: dict[str, Any]) -> bool:
    """Whether a distributed node asks for a number of items, which tiles have by themselves. Never raises."""
    return node["class_type"] not in TILE_CLASSES and asks_for_items(node.get("inputs"))


def stage_ids(index: PromptIndex) -> tuple[str, ...]:
    """The nodes that become stages, in graph order.

    Raises:
        InvalidPrompt: above distributed nodes, nodes depend on each other in a circle, or a link leads nowhere.
    """
    found = distributed_nodes(index.prompt)
    order = [node_id for node_id in index.topological(index.upstream(found)) if node_id in found]
    counted = {node_id for node_id in order if asks_for_number(found[node_id])}
    tiled = {node_id for node_id in order if index.class_of(node_id) in TILE_CLASSES}
    tiled -= index.upstream(counted)
    passing = index.downstream(tiled) - tiled - counted
    return tuple(
        node_id
        for node_id in order
        if node_id in tiled or (node_id not in passing and index.class_of(node_id) not in TILE_CLASSES)
    )
