"""The collector: where the items of a job come together again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import torch

from ..host.execution import NodeProgress, executing_node_id, executing_prompt_id, wait_interruptibly
from ..host.node_api import ExecutionBlocker, io
from ..runtime import context
from ..runtime.stage import StageRun
from ..transport.values import Value

GATHERED = {"images": "IMAGE", "audio": "AUDIO", "latent": "LATENT", "mask": "MASK"}
"""The inputs that hold results, with their types, in the order of the outputs."""

PROGRESS_STEPS = 100
"""Steps of the progress bar per item."""


def empty_audio(sample_rate: int = 44_100) -> dict[str, Any]:
    """What stands for "no audio" in workflows made for this node: one silent stereo sample, [1, 2, 1]."""
    return {"waveform": torch.zeros(1, 2, 1), "sample_rate": sample_rate}


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
            outputs=[
                io.Image.Output("images", display_name="images"),
                io.Audio.Output("audio", display_name="audio"),
                io.Latent.Output("latent", display_name="latent"),
                io.Mask.Output("mask", display_name="mask"),
            ],
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
            return _output(inputs)
        if stage.own_place() is not None:
            stage.deliver_own(typed_values(inputs))
        await _wait(stage)
        return _output(stage.results())


def typed_values(inputs: Mapping[str, Any]) -> dict[str, Value]:
    """What is connected to a collector, ready to travel."""
    return {name: Value(kind, inputs[name]) for name, kind in GATHERED.items() if inputs.get(name) is not None}


async def _wait(stage: StageRun) -> None:
    progress = NodeProgress(stage.count * PROGRESS_STEPS)
    try:
        while not stage.finished:
            change = stage.next_change()
            progress.show(int(stage.progress() * PROGRESS_STEPS))
            await wait_interruptibly(asyncio.wrap_future(change))
    except BaseException:  # the host's interrupt is one
        stage.abandon()
        raise
    progress.show(stage.count * PROGRESS_STEPS)


def _current_stage() -> StageRun | None:
    return context.stage_of(executing_prompt_id(), executing_node_id())


def _output(values: Mapping[str, Any]) -> io.NodeOutput:
    def value(name: str) -> Any:
        if values.get(name) is not None:
            return values[name]
        if name == "audio":
            return empty_audio()
        return ExecutionBlocker(f"Nothing is connected to the collector's input '{name}', so it has no such output.")

    return io.NodeOutput(*(value(name) for name in GATHERED))
