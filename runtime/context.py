"""What the prompt that executes now is to Flotilla: a job's own prompt on the master, an item on a worker, or nothing.

Nodes are classes without instances; this module is where they find the running Flotilla.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..graph.plan import JobPlan
from ..transport.values import Value
from .bridge import NodeBridge


@dataclass(frozen=True)
class Context:
    """The look-ups that nodes need, by prompt id. Installed once, by the composition root."""

    stage_of: Callable[[str, str], NodeBridge | None]
    """(prompt id, node id) → the stage that this node is in a job of the master."""
    plan_of: Callable[[str], JobPlan | None]
    """prompt id → the plan of the job that this prompt belongs to on the master."""
    deliver: Callable[[str, Mapping[str, Value]], None]
    """(prompt id, named values): a worker's item is computed. Blocks until the values are in the spool."""
    input_values: Callable[[str, str], dict[str, Value]]
    """(prompt id, hash) → what the master has sent for the job of this prompt. Blocks while it is read."""
    prepared: Callable[[str, Mapping[str, Any]], None]
    """(prompt id, facts as JSON): a job's models are loaded on this worker."""


_installed: Context | None = None


def install(context: Context | None) -> None:
    """Makes ``context`` the one that nodes find; None takes it away."""
    global _installed
    _installed = context


def stage_of(prompt_id: str | None, node_id: str | None) -> NodeBridge | None:
    """The stage of this node in the job of this prompt; None when the prompt is no job of ours."""
    if _installed is None or prompt_id is None or node_id is None:
        return None
    return _installed.stage_of(prompt_id, node_id)


def plan_of(prompt_id: str | None) -> JobPlan | None:
    """The plan of the job of this prompt on the master; None when there is none."""
    if _installed is None or prompt_id is None:
        return None
    return _installed.plan_of(prompt_id)


def deliver(prompt_id: str | None, values: Mapping[str, Value]) -> None:
    """Hands a worker's result over. Raises RuntimeError when the prompt is no item, and SpoolFull."""
    if _installed is None or prompt_id is None:
        raise _stranger()
    _installed.deliver(prompt_id, values)


def input_values(prompt_id: str | None, blob_hash: str) -> dict[str, Value]:
    """The values that a master has sent for the item or preparation of this prompt, in memory of their own.

    Blocks. Raises RuntimeError when the prompt is no work of a master, NotFound when the blob is not here (any more),
    JobCancelled when the master does not want the item any more.
    """
    if _installed is None or prompt_id is None:
        raise _stranger()
    return _installed.input_values(prompt_id, blob_hash)


def prepared(prompt_id: str | None, facts: Mapping[str, Any]) -> None:
    """Tells the master that its job's models are loaded here. Raises RuntimeError when the prompt prepares nothing,
    InvalidInput for facts that are not JSON."""
    if _installed is None or prompt_id is None:
        raise _stranger()
    _installed.prepared(prompt_id, facts)


def _stranger() -> RuntimeError:
    return RuntimeError("this node runs only in prompts that a Flotilla master has sent")
