"""Nodes that only a plan puts into a worker's prompt. People never place them; they show in no menu."""

from __future__ import annotations

from typing import Any

from ..graph.values import line_for, seed_for
from ..host.execution import executing_prompt_id
from ..host.node_api import io
from ..runtime import context
from ..runtime.stage import list_given
from .gathering import delivered_inputs, gather, gathered_outputs, typed_values
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
        if any(len(values) != 1 for values in inputs.values()):
            raise list_given()
        single = {name: values[0] for name, values in inputs.items()}
        context.deliver(executing_prompt_id(), typed_values(single))
        return io.NodeOutput()


class FlotillaTake(io.ComfyNode):
    """Goes on in a collector's place after the master has computed one more item, which is its input."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FlotillaTake",
            display_name="Take Item",
            category=CATEGORY,
            is_dev_only=True,
            enable_expand=True,
            inputs=[
                io.String.Input("stage"),
                io.Int.Input("place", min=0, max=MAX_SEED),
                io.Int.Input("attempt", min=1, max=MAX_SEED),
                *delivered_inputs(),
            ],
            outputs=gathered_outputs(),
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> float:
        """Never equal to itself: what it gives depends on the job, not on its inputs."""
        return float("nan")

    @classmethod
    async def execute(cls, stage: str, place: int, attempt: int, **inputs: Any) -> io.NodeOutput:
        run = context.stage_of(executing_prompt_id(), stage)
        if run is None:
            raise RuntimeError("this node runs only in jobs of Flotilla")
        run.deliver_requested(place, attempt, typed_values(inputs))
        return await gather(run)


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
