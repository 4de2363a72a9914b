"""The host's vocabulary for nodes (its "V3" schema), for the rooms that define some."""

from __future__ import annotations

import comfy.samplers
from comfy_api.latest import ComfyExtension, io
from comfy_execution.graph import ExecutionBlocker

__all__ = ["ComfyExtension", "ExecutionBlocker", "io", "sampler_names", "scheduler_names"]


def sampler_names() -> list[str]:
    """The names of samplers that the host and its packs offer at this moment."""
    return list(comfy.samplers.KSampler.SAMPLERS)


def scheduler_names() -> list[str]:
    """The same for schedulers."""
    return list(comfy.samplers.KSampler.SCHEDULERS)
