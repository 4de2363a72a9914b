"""Waiting for a stage's items and joining them: what the collector does, and what stands in for it further on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import torch

from ..graph.expansion import expand_item
from ..host.execution import NodeProgress, executing_node_id, wait_interruptibly
from ..host.node_api import ExecutionBlocker, io
from ..runtime.stage import StageRun
from ..transport.values import Value

GATHERED = {"images": "IMAGE", "audio": "AUDIO", "latent": "LATENT", "mask": "MASK"}
"""The inputs that hold results, with their types, in the order of the outputs."""

PROGRESS_STEPS = 100
"""Steps of the progress bar per item."""


def empty_audio(sample_rate: int = 44_100) -> dict[str, Any]:
    """What stands for "no audio" in workflows made for this node: one silent stereo sample, [1, 2, 1]."""
    return {"waveform": torch.zeros(1, 2, 1), "sample_rate": sample_rate}


def delivered_inputs() -> list[io.Input]:
    """The inputs of a node that hands an item's values over."""
    return [
        io.Image.Input("images", optional=True),
        io.Audio.Input("audio", optional=True),
        io.Latent.Input("latent", optional=True),
        io.Mask.Input("mask", optional=True),
    ]


def gathered_outputs() -> list[io.Output]:
    """The outputs of a node that joins items."""
    return [
        io.Image.Output("images", display_name="images"),
        io.Audio.Output("audio", display_name="audio"),
        io.Latent.Output("latent", display_name="latent"),
        io.Mask.Output("mask", display_name="mask"),
    ]


def typed_values(inputs: Mapping[str, Any]) -> dict[str, Value]:
    """What is connected to a collector, ready to travel."""
    return {name: Value(kind, inputs[name]) for name, kind in GATHERED.items() if inputs.get(name) is not None}


async def gather(stage: StageRun) -> io.NodeOutput:
    """Waits for the items of ``stage``. Returns them joined or, when the master is to compute one more, its nodes and
    behind them a node that goes on waiting (`internal.FlotillaTake`). Raises what ended the job."""
    progress = NodeProgress(stage.count * PROGRESS_STEPS)
    try:
        stage.wait_for_others()
        while not stage.finished:
            # What `next_change` told of may be withdrawn by now: only a request that was taken counts.
            request = stage.take_request()
            if request is not None:
                return _one_more(stage, *request)
            change = stage.next_change()
            progress.show(int(stage.progress() * PROGRESS_STEPS))
            await wait_interruptibly(asyncio.wrap_future(change))
    except BaseException:  # the host's interrupt is one
        stage.abandon()
        raise
    progress.show(stage.count * PROGRESS_STEPS)
    return joined(stage.results())


def joined(values: Mapping[str, Any]) -> io.NodeOutput:
    """The outputs of a collector. Audio that is not there is an empty one; what else is not there blocks, and says why."""

    def value(name: str) -> Any:
        if values.get(name) is not None:
            return values[name]
        if name == "audio":
            return empty_audio()
        return ExecutionBlocker(f"Nothing is connected to the collector's input '{name}', so it has no such output.")

    return io.NodeOutput(*(value(name) for name in GATHERED))


def _one_more(stage: StageRun, place: int, attempt: int) -> io.NodeOutput:
    item = stage.plan.items[place]
    prefix = f"{executing_node_id()}.{place}."
    nodes, delivered = expand_item(stage.job, item, prefix)
    taker = prefix + "take"
    inputs = {"stage": item.node_id, "place": place, "attempt": attempt, **delivered}
    nodes[taker] = {"class_type": "FlotillaTake", "inputs": inputs}
    return io.NodeOutput(*([taker, slot] for slot in range(len(GATHERED))), expand=nodes)
