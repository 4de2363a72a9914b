"""Nodes that were added to the running prompt, are done, and that nobody looks at any more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import comfy.memory_management
from comfy_execution.progress import NodeState, get_progress_state


def forget_finished(prefix: str) -> None:
    """Has the host forget finished nodes whose ids begin with ``prefix``: their progress, and their outputs.

    Every progress message of the host lists all nodes that have run in the prompt, and its cache keeps all their
    outputs, so that both would grow with each item that is computed inside the prompt. Only for nodes that were added
    to it and whose outputs have been delivered. For the prompt thread, inside a node.
    """
    nodes = get_progress_state().nodes
    done = [key for key, state in nodes.items() if key.startswith(prefix) and state["state"] == NodeState.Finished]
    for key in done:
        nodes.pop(key, None)
    _drop_outputs(done)


def _drop_outputs(node_ids: Iterable[str]) -> None:
    """Takes outputs out of the host's cache, where that is within reach: the one that minds the memory, the default
    since 0.24. Who still waits for one of them holds it already; anybody else would have it computed again."""
    cache: Any = getattr(getattr(comfy.memory_management, "extra_ram_release_callback", None), "__self__", None)
    keys: Any = getattr(cache, "cache_key_set", None)
    if keys is None:
        return
    for node_id in node_ids:
        key = keys.get_data_key(node_id)
        for table in ("cache", "used_generation", "timestamps", "children"):
            getattr(cache, table, {}).pop(key, None)
