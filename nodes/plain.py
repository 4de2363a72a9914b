"""Small nodes kept for workflows that use them."""

from __future__ import annotations

import ast
import json
from typing import Any

import torch

from ..host.node_api import io


class DistributedModelName(io.ComfyNode):
    """A model name as text, for a combo whose file the master itself may lack."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DistributedModelName",
            display_name="Distributed Model Name",
            category="utils",
            description="Feeds a model name to a loader. The file has to be on the workers; the master need not have it.",
            is_output_node=True,
            inputs=[io.String.Input("text", default="", tooltip="The name, as the workers spell it.")],
            outputs=[io.AnyType.Output("output", display_name="output")],
        )

    @classmethod
    def execute(cls, text: object) -> io.NodeOutput:
        names = names_in(text)
        return io.NodeOutput(names[0] if len(names) == 1 else names, ui={"text": names})


class DistributedEmptyImage(io.ComfyNode):
    """An image batch without a single frame, float32 [0, height, width, channels]."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DistributedEmptyImage",
            display_name="Distributed Empty Image",
            category="image",
            description="A batch of no images, for branches that must have something connected.",
            inputs=[
                io.Int.Input("height", default=64, min=1, max=4096, step=1, tooltip="Height in pixels."),
                io.Int.Input("width", default=64, min=1, max=4096, step=1, tooltip="Width in pixels."),
                io.Int.Input("channels", default=3, min=1, max=4, step=1, tooltip="Channels, 3 for RGB."),
            ],
            outputs=[io.Image.Output("image", display_name="IMAGE")],
        )

    @classmethod
    def execute(cls, height: int, width: int, channels: int) -> io.NodeOutput:
        return io.NodeOutput(torch.zeros(0, height, width, channels))


class DistributedQueue(io.ComfyNode):
    """Kept so that workflows from early 2026 still open and run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DistributedQueue",
            display_name="Distributed Queue (old)",
            category="utils",
            description="Does nothing any more: use a Distributed Collector with load_balance to run on a free worker.",
            is_output_node=True,
            is_deprecated=True,
            inputs=[],
            outputs=[
                io.String.Output("worker_id", display_name="worker_id"),
                io.String.Output("prompt_id", display_name="prompt_id"),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        note = "This node no longer queues anything. Use a Distributed Collector with load_balance on."
        return io.NodeOutput("", "", ui={"text": [note]})


def names_in(value: Any) -> list[str]:
    """The names in ``value``: one for plain text, several for a list, however deep it is nested.

    Saved outputs of older versions hold ``[["name"]]``, which the host turns into text on its way here. Other objects
    become JSON text.
    """
    if isinstance(value, str) and value.startswith("["):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return [value]
    if isinstance(value, (list, tuple)):
        return [name for part in value for name in names_in(part)]
    return [value if isinstance(value, str) else json.dumps(value, indent=2)]
