"""Nodes whose value differs from item to item.

On the master, and without a job, they give what item 0 gets. In a worker's prompt the plan has already written the
item's value into them (`graph.plan`), so they need to know nothing of jobs there.
"""

from __future__ import annotations

from typing import Any

from ..graph.plan import JobPlan
from ..graph.values import ValueMap, line_for
from ..host.execution import executing_node_id, executing_prompt_id
from ..host.node_api import io
from ..runtime import context

MAX_SEED = 2**64 - 1
SEED_TOOLTIP = "The seed of item 0. Item 1 gets the next one, and so on."


class DistributedSeed(io.ComfyNode):
    """A seed that is one higher in each item."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DistributedSeed",
            display_name="Distributed Seed",
            category="utils",
            description="Item k of a distributed run gets this seed + k, whichever participant computes it.",
            inputs=[
                io.Int.Input(
                    "seed",
                    default=1_125_899_906_842,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip=SEED_TOOLTIP,
                ),
            ],
            outputs=[io.Int.Output("seed", display_name="seed")],
        )

    @classmethod
    def execute(cls, seed: int) -> io.NodeOutput:
        return io.NodeOutput(seed)


class DistributedValue(io.ComfyNode):
    """A value that may differ from participant to participant."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DistributedValue",
            display_name="Distributed Value",
            category="utils",
            description="One value for the master and, where given, another one for each worker's item.",
            inputs=[
                io.String.Input(
                    "default_value", default="", tooltip="The value of the master, and of workers without one."
                ),
                io.String.Input("worker_values", default="{}", tooltip="JSON: values by worker position and by id."),
            ],
            outputs=[io.AnyType.Output("value", display_name="value")],
        )

    @classmethod
    def execute(cls, default_value: str, worker_values: Any) -> io.NodeOutput:
        return io.NodeOutput(ValueMap.parse(worker_values).default(default_value))


class DistributedItem(io.ComfyNode):
    """Which item of how many this is."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DistributedItem",
            display_name="Distributed Item",
            category="utils",
            description="The number of the item being computed, from 0, and how many items the run has.",
            inputs=[],
            outputs=[io.Int.Output("index", display_name="index"), io.Int.Output("count", display_name="count")],
        )

    @classmethod
    def fingerprint_inputs(cls) -> int:
        return _count()

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(0, _count())


class DistributedPrompts(io.ComfyNode):
    """One line of text per item."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DistributedPrompts",
            display_name="Distributed Prompts",
            category="utils",
            description="Item k gets line k. Empty lines do not count; with more items than lines it starts over.",
            inputs=[io.String.Input("text", default="", multiline=True, tooltip="One prompt per line.")],
            outputs=[io.String.Output("prompt", display_name="prompt")],
        )

    @classmethod
    def execute(cls, text: str) -> io.NodeOutput:
        return io.NodeOutput(line_for(text, 0))


def _count() -> int:
    plan: JobPlan | None = context.plan_of(executing_prompt_id())
    node_id = executing_node_id()
    if plan is None or node_id is None:
        return 1
    return plan.count_at(node_id)
