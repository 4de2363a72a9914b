"""The host's vocabulary for nodes (its "V3" schema), for the rooms that define some."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_execution.graph import ExecutionBlocker

__all__ = ["ComfyExtension", "ExecutionBlocker", "io"]
