"""Waiting for a stage's items, and what a collector makes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..graph.wishes import MAX_ITEMS, ON_FAILURE
from ..host.execution import NodeProgress, wait_interruptibly
from ..host.node_api import ExecutionBlocker, io
from ..host.screen import NodeText
from ..runtime.stage import StageRun, list_given
from ..transport.values import AUDIO, IMAGE, JSON, LATENT, MASK, PRIMARY, RANK, Value, json_fault
from ..utils.errors import InvalidInput
from ..utils.log import get_logger

log = get_logger("nodes")

GATHERED = {"images": IMAGE, "audio": AUDIO, "latent": LATENT, "mask": MASK}
"""The inputs of a collector that joins, with their types, in the order of its outputs."""

ANY_INPUT = "value"
"""The input of a collector that takes anything, and the beginning of the names under which its entries travel."""

PROGRESS_STEPS = 100
"""Steps of the progress bar per item."""

MAX_JSON_DEPTH = 64


def empty_audio(sample_rate: int = 44_100) -> dict[str, Any]:
    """What stands for "no audio" in workflows made for this node: one silent stereo sample, [1, 2, 1]."""
    return {"waveform": torch.zeros(1, 2, 1), "sample_rate": sample_rate}


def asking_inputs() -> list[io.Input]:
    """The inputs of a collector that say how many items there are to be, and what missing ones mean."""
    return [
        io.Int.Input(
            "items",
            default=0,
            min=0,
            max=MAX_ITEMS,
            optional=True,
            socketless=True,
            tooltip="How many items to make. Whoever is free takes the next one. 0: one item for each participant.",
        ),
        io.Combo.Input(
            "on_failure",
            options=list(ON_FAILURE),
            default=ON_FAILURE[0],
            optional=True,
            socketless=True,
            tooltip="When items are missing in the end: fail, or go on with what there is (partial).",
        ),
    ]


def load_balance_input() -> io.Input:
    """The switch that asks for a single item."""
    return io.Boolean.Input(
        "load_balance",
        default=False,
        optional=True,
        tooltip="Run once, on the participant that is expected to finish first, instead of once on each.",
    )


def delivered_inputs() -> list[io.Input]:
    """The inputs of a node that hands an item's values over."""
    return [
        io.Image.Input("images", optional=True),
        io.Audio.Input("audio", optional=True),
        io.Latent.Input("latent", optional=True),
        io.Mask.Input("mask", optional=True),
        io.AnyType.Input(ANY_INPUT, optional=True),
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


def listed_values(inputs: Mapping[str, Sequence[Any]]) -> dict[str, Value]:
    """What arrives at a node that is given lists: all entries of a collector that takes anything, else one of each kind.

    Raises InvalidInput for a list where one value belongs, and for what cannot travel.
    """
    if ANY_INPUT in inputs:
        return any_values(inputs[ANY_INPUT])
    if any(len(entries) != 1 for entries in inputs.values()):
        raise list_given()
    return typed_values({name: entries[0] for name, entries in inputs.items()})


def any_values(entries: Sequence[Any]) -> dict[str, Value]:
    """The entries of a list, in order, with the kinds that they are found to be of. Raises InvalidInput."""
    return {f"{ANY_INPUT}.{place}": Value(kind_of(entry, place), entry) for place, entry in enumerate(entries)}


def kind_of(entry: Any, place: int) -> str:
    """As what a value travels. Raises InvalidInput, which calls it value ``place`` + 1, for what cannot."""
    if isinstance(entry, torch.Tensor):
        for kind in (IMAGE, MASK):
            if entry.dim() == RANK[kind]:
                return kind
    elif isinstance(entry, Mapping) and any(isinstance(part, torch.Tensor) for part in entry.values()):
        for kind in (LATENT, AUDIO):
            if isinstance(entry.get(PRIMARY[kind]), torch.Tensor):
                return kind
    elif not json_fault(entry, MAX_JSON_DEPTH):
        return JSON
    raise InvalidInput(
        f"Value {place + 1} is of the type {_type_name(entry)}, which cannot travel between servers.",
        cure="Collect images, masks, latents, audio, numbers, texts, or lists and objects of those last two.",
    )


def _type_name(entry: Any) -> str:
    if isinstance(entry, torch.Tensor):
        return f"tensor of {entry.dim()} dimensions"
    return type(entry).__name__


async def wait_for_work(stage: StageRun) -> None:
    """Waits until the master is to compute one more item, or the wait is over. Raises the host's interrupt."""
    show = progress_of(stage)
    try:
        while not stage.wanted:
            # Every time: what was asked for may have been granted and withdrawn.
            stage.ask()
            change = stage.next_change()
            show()
            await wait_interruptibly(asyncio.wrap_future(change))
    except BaseException:  # the host's interrupt is one
        stage.abandon()
        raise
    show()


def progress_of(stage: StageRun) -> Callable[[], None]:
    """Shows, at each call, how far the stage is: on the collector, which is the node that people see, also where a
    node that was added calls it."""
    bar = NodeProgress(stage.count * PROGRESS_STEPS, stage.plan.node_id)
    return lambda: bar.show(round(stage.progress() * PROGRESS_STEPS))


def joined_outcome(stage: StageRun) -> io.NodeOutput:
    """What a collector that joins gives in the end. Raises what ended the job."""
    return joined(stage.results(), ui=_missing_ui(stage))


def listed_outcome(stage: StageRun) -> io.NodeOutput:
    """What a collector that takes anything gives in the end. Raises what ended the job."""
    return io.NodeOutput(stage.entries(), ui=_missing_ui(stage))


def joined(values: Mapping[str, Any], ui: dict[str, Any] | None = None) -> io.NodeOutput:
    """The outputs of a collector. Audio that is not there is an empty one; what else is not there blocks, and says why."""

    def value(name: str) -> Any:
        if values.get(name) is not None:
            return values[name]
        if name == "audio":
            return empty_audio()
        return ExecutionBlocker(f"Nothing is connected to the collector's input '{name}', so it has no such output.")

    return io.NodeOutput(*(value(name) for name in GATHERED), ui=ui)


def _missing_ui(stage: StageRun) -> dict[str, Any] | None:
    """Says on the node which items are missing; None when none is."""
    note = stage.missing_note()
    if not note:
        return None
    log.warning("a collector goes on without some of its items", node=stage.plan.node_id, note=note)
    NodeText().show(note)
    return {"text": [note]}
