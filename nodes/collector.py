"""The collector: where the items of a job come together again."""

from __future__ import annotations

from typing import Any

from ..host.execution import executing_node_id, executing_prompt_id
from ..host.node_api import io
from ..runtime import context
from ..runtime.stage import StageRun
from .gathering import GATHERED, gather, gathered_outputs, joined, typed_values


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
                "together here in item order. Without workers it passes its inputs through."
            ),
            inputs=[
                io.Image.Input("images", optional=True, lazy=True, tooltip="The images to gather, any batch size."),
                io.Boolean.Input(
                    "load_balance",
                    default=False,
                    optional=True,
                    tooltip="Run once, on the participant that is expected to finish first, instead of once on each.",
                ),
                io.Audio.Input("audio", optional=True, lazy=True, tooltip="Audio to join end to end, in item order."),
                io.Latent.Input("latent", optional=True, lazy=True, tooltip="Latents to join along the batch."),
                io.Mask.Input("mask", optional=True, lazy=True, tooltip="Masks to join along the batch."),
            ],
            outputs=gathered_outputs(),
            enable_expand=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> str:
        """The plan of the job: with one more participant the host's cache must not answer with the shorter batch."""
        stage = _current_stage()
        return stage.fingerprint if stage is not None else ""

    @classmethod
    def check_lazy_status(cls, **inputs: Any) -> list[str]:
        """The master computes its own item only if it has one: a master that coordinates loads no model."""
        stage = _current_stage()
        if stage is not None and stage.own_place() is None:
            return []
        return [name for name in GATHERED if name in inputs and inputs[name] is None]

    @classmethod
    async def execute(cls, load_balance: bool = False, **inputs: Any) -> io.NodeOutput:
        stage = _current_stage()
        if stage is None:
            return joined(inputs)
        if stage.own_place() is not None:
            stage.deliver_own(typed_values(inputs))
        return await gather(stage)


def _current_stage() -> StageRun | None:
    return context.stage_of(executing_prompt_id(), executing_node_id())
