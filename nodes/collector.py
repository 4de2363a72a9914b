"""The collectors: where the items of a job come together again."""

from __future__ import annotations

from typing import Any

from ..host.execution import executing_node_id, executing_prompt_id
from ..host.node_api import io
from ..runtime import context
from ..runtime.stage import StageRun
from .gathering import (
    ANY_INPUT,
    GATHERED,
    any_values,
    asking_inputs,
    gathered_outputs,
    joined,
    joined_outcome,
    listed_outcome,
    load_balance_input,
    typed_values,
    wait_for_work,
)
from .rounds import first_round


class DistributedCollector(io.ComfyNode):
    """Runs what is upstream of it once per item, spread over all participants, and joins the results in item order."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DistributedCollector",
            display_name="Distributed Collector",
            category="image",
            description=(
                "Everything upstream runs on every participant, each with its own seed (seed + item); the results come "
                "together here in item order. With a number of items, whoever is free takes the next one. Without "
                "workers it passes its inputs through, or makes the items on this computer."
            ),
            inputs=[
                io.Image.Input("images", optional=True, lazy=True, tooltip="The images to gather, any batch size."),
                load_balance_input(),
                io.Audio.Input("audio", optional=True, lazy=True, tooltip="Audio to join end to end, in item order."),
                io.Latent.Input("latent", optional=True, lazy=True, tooltip="Latents to join along the batch."),
                io.Mask.Input("mask", optional=True, lazy=True, tooltip="Masks to join along the batch."),
                *asking_inputs(),
            ],
            outputs=gathered_outputs(),
            enable_expand=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> str:
        """The plan of the job: with one more participant the host's cache must not answer with the shorter batch."""
        return _current_fingerprint()

    @classmethod
    def check_lazy_status(cls, **inputs: Any) -> list[str]:
        """The master computes its own item only if it has one: a master that coordinates loads no model."""
        if _is_coordinated(_current_stage()):
            return []
        return [name for name in GATHERED if name in inputs and inputs[name] is None]

    @classmethod
    async def execute(cls, **inputs: Any) -> io.NodeOutput:
        stage = _current_stage()
        if stage is None:
            return joined(inputs)
        if stage.own_place() is not None:
            stage.deliver_own(typed_values(inputs))
        await wait_for_work(stage)
        return joined_outcome(stage) if stage.finished else first_round(stage)


class DistributedCollectorAny(io.ComfyNode):
    """The same for values of any kind, and of unlike sizes: nothing is joined, they come as a list in item order."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DistributedCollectorAny",
            display_name="Distributed Collector (Any)",
            category="utils",
            description=(
                "Gathers images, masks, latents, audio, numbers, texts or JSON of all items as a list: what follows runs "
                "once for each. Items may differ in size. A list that arrives here is taken apart."
            ),
            inputs=[
                io.AnyType.Input(ANY_INPUT, optional=True, lazy=True, tooltip="What to gather."),
                load_balance_input(),
                *asking_inputs(),
            ],
            outputs=[io.AnyType.Output("values", display_name="values", is_output_list=True)],
            is_input_list=True,
            enable_expand=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> str:
        """As for the Distributed Collector."""
        return _current_fingerprint()

    @classmethod
    def check_lazy_status(cls, **inputs: Any) -> list[str]:
        """As for the Distributed Collector. What is there already need not be told apart: the host does."""
        return [] if _is_coordinated(_current_stage()) else [name for name in (ANY_INPUT,) if name in inputs]

    @classmethod
    async def execute(cls, **inputs: list[Any]) -> io.NodeOutput:
        stage = _current_stage()
        entries = inputs.get(ANY_INPUT, [])
        if stage is None:
            return io.NodeOutput(entries)
        if stage.own_place() is not None:
            stage.deliver_own(any_values(entries))
        await wait_for_work(stage)
        return listed_outcome(stage) if stage.finished else first_round(stage)


def _current_stage() -> StageRun | None:
    stage = context.stage_of(executing_prompt_id(), executing_node_id())
    return stage if isinstance(stage, StageRun) else None


def _current_fingerprint() -> str:
    stage = _current_stage()
    return stage.fingerprint if stage is not None else ""


def _is_coordinated(stage: StageRun | None) -> bool:
    return stage is not None and stage.own_place() is None
