"""Nodes that only a plan puts into a worker's prompt. People never place them; they show in no menu."""

from __future__ import annotations

from typing import Any

from ..graph.values import line_for, seed_for
from ..host.execution import executing_prompt_id
from ..host.node_api import io
from ..runtime import context
from .gathering import delivered_inputs, listed_values
from .varying import MAX_SEED

CATEGORY = "flotilla/internal"


class FlotillaDeliver(io.ComfyNode):
    """Stands in a worker's prompt where the collector stands in the user's: hands the item's values over."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FlotillaDeliver",
            display_name="Deliver Item",
            category=CATEGORY,
            is_output_node=True,
            is_dev_only=True,
            is_input_list=True,
            inputs=delivered_inputs(),
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> float:
        """Never equal to itself: an item that is wanted again is delivered again, even if all else is cached."""
        return float("nan")

    @classmethod
    def execute(cls, **inputs: list[Any]) -> io.NodeOutput:
        context.deliver(executing_prompt_id(), listed_values(inputs))
        return io.NodeOutput()


class FlotillaOffset(io.ComfyNode):
    """value + offset: a Distributed Seed whose seed comes from another node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FlotillaOffset",
            display_name="Seed of Item",
            category=CATEGORY,
            is_dev_only=True,
            inputs=[io.Int.Input("value", min=0, max=MAX_SEED), io.Int.Input("offset", min=0, max=MAX_SEED)],
            outputs=[io.Int.Output("seed", display_name="seed")],
        )

    @classmethod
    def execute(cls, value: int, offset: int) -> io.NodeOutput:
        return io.NodeOutput(seed_for(value, offset))


class FlotillaPick(io.ComfyNode):
    """Line ``index`` of the text: a Distributed Prompts whose text comes from another node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FlotillaPick",
            display_name="Prompt of Item",
            category=CATEGORY,
            is_dev_only=True,
            inputs=[io.String.Input("text", multiline=True), io.Int.Input("index", min=0, max=MAX_SEED)],
            outputs=[io.String.Output("prompt", display_name="prompt")],
        )

    @classmethod
    def execute(cls, text: str, index: int) -> io.NodeOutput:
        return io.NodeOutput(line_for(text, index))


class FlotillaItem(io.ComfyNode):
    """The numbers that Distributed Item gives in one item."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FlotillaItem",
            display_name="Number of Item",
            category=CATEGORY,
            is_dev_only=True,
            inputs=[io.Int.Input("index", min=0, max=MAX_SEED), io.Int.Input("count", min=1, max=MAX_SEED)],
            outputs=[io.Int.Output("index", display_name="index"), io.Int.Output("count", display_name="count")],
        )

    @classmethod
    def execute(cls, index: int, count: int) -> io.NodeOutput:
        return io.NodeOutput(index, count)
