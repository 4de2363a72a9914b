"""Nodes that let an image through and do something on the way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths
from comfy_api.latest import io
from comfy_execution.utils import get_executing_context

from .makers import CATEGORY, MAX_DELAY_S
from .pacing import spend
from .records import append_line, file_name

if TYPE_CHECKING:
    import torch

NAME_VARIABLE = "FLOTILLA_KIT_NAME"


class KitSlow(io.ComfyNode):
    """Lets an image through after ``delay_s`` seconds of ``steps`` reported steps."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KitSlow",
            display_name="Kit Slow",
            category=CATEGORY,
            inputs=[
                io.Image.Input("image"),
                io.Float.Input("delay_s", default=1.0, min=0.0, max=MAX_DELAY_S, step=0.01),
                io.Int.Input("steps", default=10, min=1, max=10_000),
            ],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, delay_s: float, steps: int) -> io.NodeOutput:
        spend(delay_s, steps)
        return io.NodeOutput(image)


class KitFail(io.ComfyNode):
    """Raises RuntimeError(``message``): on every instance, or only on the one that is called ``only_worker``."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KitFail",
            display_name="Kit Fail",
            category=CATEGORY,
            inputs=[
                io.Image.Input("image"),
                io.String.Input("message", default="the kit was asked to fail"),
                io.String.Input("only_worker", default=""),
            ],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, message: str, only_worker: str) -> io.NodeOutput:
        if only_worker in ("", os.environ.get(NAME_VARIABLE)):
            raise RuntimeError(message)
        return io.NodeOutput(image)


class KitCount(io.ComfyNode):
    """Lets an image through and adds the prompt's id as a line to ``kit_count_<name>.txt``: one line per execution."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KitCount",
            display_name="Kit Count",
            category=CATEGORY,
            inputs=[io.Image.Input("image"), io.String.Input("name", default="count")],
            outputs=[io.Image.Output(display_name="image")],
            not_idempotent=True,  # two equal counters in one graph are two executions
        )

    @classmethod
    def execute(cls, image: torch.Tensor, name: str) -> io.NodeOutput:
        context = get_executing_context()
        path = Path(folder_paths.get_output_directory(), file_name("count", name, ".txt"))
        append_line(path, context.prompt_id if context else "-")
        return io.NodeOutput(image)


class KitRare(io.ComfyNode):
    """Lets an image through; there only on instances that ask for it, so that others lack a node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KitRare",
            display_name="Kit Rare",
            category=CATEGORY,
            inputs=[io.Image.Input("image")],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    def execute(cls, image: torch.Tensor) -> io.NodeOutput:
        return io.NodeOutput(image)
