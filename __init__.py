"""Flotilla: several ComfyUI servers that work as one. ComfyUI loads this folder as a custom-node pack."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .host.node_api import ComfyExtension


async def comfy_entrypoint() -> ComfyExtension:
    """What ComfyUI calls after importing the pack."""
    from .plugin import load

    return load()
