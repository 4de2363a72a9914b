"""Nodes that let an image through and do something on the way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import comfy.model_management
import folder_paths
from comfy_api.latest import io
from comfy_execution.utils import get_executing_context
from PIL import Image

from .aims import NO_INDEX, Rounds, is_meant, name_of_this_instance, speed_of
from .makers import CATEGORY, MAX_DELAY_S
from .pacing import spend, wait_until
from .records import append_line, file_name

if TYPE_CHECKING:
    import torch

MAX_ITEM = 1_000_000

_rounds = Rounds()


def _aim() -> list[io.Input]:
    """For whom a fault is meant; ``index`` is the number of the item, from a Distributed Item."""
    return [
        io.String.Input("only_items", default="", optional=True),
        io.Int.Input("index", default=NO_INDEX, min=NO_INDEX, max=MAX_ITEM, optional=True),
        io.Int.Input("times", default=0, min=0, max=MAX_ITEM, optional=True, tooltip="On each instance; 0: always."),
    ]


class KitSlow(io.ComfyNode):
    """Lets an image through after ``delay_s`` seconds of ``steps`` steps, divided by the instance's speed ("w1=4,w2=1")."""

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
                io.String.Input("speeds", default="", optional=True),
            ],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, delay_s: float, steps: int, speeds: str = "") -> io.NodeOutput:
        spend(delay_s / speed_of(name_of_this_instance(), speeds), steps)
        return io.NodeOutput(image)


class KitSteps(io.ComfyNode):
    """Lets an image through after ``delay_s`` seconds of ``steps`` steps, each with a preview of another colour."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KitSteps",
            display_name="Kit Steps",
            category=CATEGORY,
            inputs=[
                io.Image.Input("image"),
                io.Float.Input("delay_s", default=1.0, min=0.0, max=MAX_DELAY_S, step=0.01),
                io.Int.Input("steps", default=10, min=1, max=10_000),
                io.Int.Input("side_px", default=64, min=8, max=4_096, optional=True),
            ],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, delay_s: float, steps: int, side_px: int = 64) -> io.NodeOutput:
        def picture(share: float) -> tuple[str, Image.Image, int | None]:
            return (
                "JPEG",
                Image.new("RGB", (side_px, side_px), (round(share * 255), 80, 255 - round(share * 255))),
                None,
            )

        spend(delay_s, steps, picture)
        return io.NodeOutput(image)


class KitFail(io.ComfyNode):
    """Raises RuntimeError(``message``), or what torch raises when memory is out.

    On every instance or only on those called ``only_worker`` (names with commas); for every item or only for
    ``only_items``; always or only the first ``times`` times on each instance.
    """

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
                *_aim(),
                io.Boolean.Input("out_of_memory", default=False, optional=True),
            ],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        message: str,
        only_worker: str,
        only_items: str = "",
        index: int = NO_INDEX,
        times: int = 0,
        out_of_memory: bool = False,
    ) -> io.NodeOutput:
        meant = is_meant(name_of_this_instance(), index, only_worker, only_items)
        if meant and not _rounds.is_over(f"fail {message}", times):
            raise comfy.model_management.OOM_EXCEPTION(message) if out_of_memory else RuntimeError(message)
        return io.NodeOutput(image)


class KitStall(io.ComfyNode):
    """Lets an image through, but stands still where it is meant (as KitFail) until ``kit_go_<name>.txt`` is there.

    It reports nothing meanwhile, and Cancel stops it.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KitStall",
            display_name="Kit Stall",
            category=CATEGORY,
            inputs=[
                io.Image.Input("image"),
                io.String.Input("name", default="go"),
                io.String.Input("only_worker", default=""),
                *_aim(),
            ],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        name: str,
        only_worker: str,
        only_items: str = "",
        index: int = NO_INDEX,
        times: int = 0,
    ) -> io.NodeOutput:
        meant = is_meant(name_of_this_instance(), index, only_worker, only_items)
        if meant and not _rounds.is_over(f"stall {name}", times):
            wait_until(output_file("go", name).exists)
        return io.NodeOutput(image)


class KitCount(io.ComfyNode):
    """Lets an image through and adds a line to ``kit_count_<name>.txt``: the prompt's id, and the item's number if given.

    One line per execution.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KitCount",
            display_name="Kit Count",
            category=CATEGORY,
            inputs=[
                io.Image.Input("image"),
                io.String.Input("name", default="count"),
                io.Int.Input("index", default=NO_INDEX, min=NO_INDEX, max=MAX_ITEM, optional=True),
            ],
            outputs=[io.Image.Output(display_name="image")],
            not_idempotent=True,  # two equal counters in one graph are two executions
        )

    @classmethod
    def execute(cls, image: torch.Tensor, name: str, index: int = NO_INDEX) -> io.NodeOutput:
        context = get_executing_context()
        prompt_id = context.prompt_id if context else "-"
        append_line(output_file("count", name), prompt_id if index == NO_INDEX else f"{prompt_id} {index}")
        return io.NodeOutput(image)


def output_file(kind: str, name: str) -> Path:
    """Where the kit writes, or looks for, a file of this kind on this instance."""
    return Path(folder_paths.get_output_directory(), file_name(kind, name, ".txt"))


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
