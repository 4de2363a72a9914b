"""Further items on the master: nodes that a waiting collector adds to the running prompt.

    collector ─▶ gather ◀╌ take 0, take 1, …                         up to `ROUND` items
                           └▶ the item's nodes ─▶ hand in
    collector ─▶ gather ◀╌ take 0 ─▶ round ◀╌ take 0.0, take 0.1, …   more: rounds within rounds

A *take* waits until the stage wants one more item of the master, and adds the item's nodes; *hand in* delivers the
result. *Gather* and *round* ask for their takes one by one, lazily, until the stage is finished. No link leads from one
item to another, only one take waits in the host at a time, and nesting stays shallow: the host's cache keys walk all
ancestors, the cost of each of its steps grows with the nodes that wait, and one of its caches recurses into what was
added by what was added.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..graph.expansion import expand_item
from ..host.execution import executing_prompt_id
from ..host.finished import forget_finished
from ..host.node_api import io
from ..runtime import context
from ..runtime.stage import StageRun
from .gathering import (
    ANY_INPUT,
    GATHERED,
    delivered_inputs,
    gathered_outputs,
    joined_outcome,
    listed_outcome,
    listed_values,
    progress_of,
    wait_for_work,
)
from .varying import MAX_SEED

CATEGORY = "flotilla/internal"

ROUND = 32
"""Takes of a gather or a round. Each adds a little to what the host does for every item, each level a little as well."""

_SLOTS = tuple(f"take{slot}" for slot in range(ROUND))
_JOINED_OUTPUTS = range(len(GATHERED))
_LIST_OUTPUTS = range(len(GATHERED), len(GATHERED) + 1)
_ALL_OUTPUTS = range(len(GATHERED) + 1)


def first_round(stage: StageRun) -> io.NodeOutput:
    """The outputs of a collector that is not finished: those of a gather, which is added."""
    return _gather(stage, 0, _JOINED_OUTPUTS if stage.assembly.joined else _LIST_OUTPUTS)


def _gather(stage: StageRun, number: int, outputs: Iterable[int]) -> io.NodeOutput:
    gather_id = f"{stage.expansion_prefix}gather{number}"
    level = 0
    while ROUND ** (level + 1) < stage.count:
        level += 1
    nodes, links = _takes(stage, gather_id, level)
    nodes[gather_id] = _node("FlotillaGather", stage, number=number, **links)
    return io.NodeOutput(*([gather_id, slot] for slot in outputs), expand=nodes)


def _round(stage: StageRun, take_id: str, level: int) -> io.NodeOutput:
    round_id = f"{take_id}.round"
    nodes, links = _takes(stage, take_id, level)
    nodes[round_id] = _node("FlotillaRound", stage, **links)
    return io.NodeOutput([round_id, 0], expand=nodes)


def _takes(stage: StageRun, above: str, level: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Takes, by id, and links to them."""
    ids = {slot: f"{above}.{place}" for place, slot in enumerate(_SLOTS[: stage.count])}
    nodes = {take_id: _node("FlotillaTake", stage, path=take_id, level=level) for take_id in ids.values()}
    return nodes, {slot: [take_id, 0] for slot, take_id in ids.items()}


def _lazy_slots() -> list[io.Input]:
    return [io.Boolean.Input(slot, optional=True, lazy=True) for slot in _SLOTS]


def _next_slot(stage_id: str, takes: Mapping[str, Any]) -> list[str]:
    """The take to run next: none when the stage is finished, or all have run."""
    if _running(stage_id).finished:
        return []
    return next(([slot] for slot in _SLOTS if slot in takes and takes[slot] is None), [])


def _node(class_type: str, stage: StageRun, **inputs: Any) -> dict[str, Any]:
    """A node of our own, whose progress the host shows on the collector."""
    shown = stage.plan.node_id
    return {"class_type": class_type, "inputs": {"stage": shown, **inputs}, "override_display_id": shown}


def _running(stage_id: str) -> StageRun:
    run = context.stage_of(executing_prompt_id(), stage_id)
    if not isinstance(run, StageRun):
        raise RuntimeError("this node runs only in jobs of Flotilla")
    return run


class FlotillaTake(io.ComfyNode):
    """Waits until the master is to compute one more item, and adds its nodes; above level 0, a whole round of takes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FlotillaTake",
            display_name="Take Item",
            category=CATEGORY,
            is_dev_only=True,
            enable_expand=True,
            inputs=[io.String.Input("stage"), io.String.Input("path"), io.Int.Input("level", min=0, max=MAX_SEED)],
            outputs=[io.Boolean.Output("taken", display_name="taken")],
            hidden=[io.Hidden.prompt],
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> float:
        """Never equal to itself: what it gives depends on the job, not on its inputs."""
        return float("nan")

    @classmethod
    async def execute(cls, stage: str, path: str, level: int) -> io.NodeOutput:
        run = _running(stage)
        forget_finished(run.expansion_prefix)
        if level > 0 and not run.finished:
            return _round(run, path, level - 1)
        while not run.finished:
            await wait_for_work(run)
            request = run.take_request()
            if request is not None:
                return _item(run, *request, running=cls.hidden.prompt or {})
        return io.NodeOutput(False)


def _item(stage: StageRun, place: int, attempt: int, running: dict[str, Any]) -> io.NodeOutput:
    plan = stage.plan.items[place]
    hand_in = f"{stage.expansion_prefix}{place}.{attempt}"
    nodes, delivered = expand_item(stage.job, plan, f"{hand_in}.", running)
    for node_id, node in nodes.items():
        node["override_display_id"] = node_id.removeprefix(f"{hand_in}.")
    nodes[hand_in] = _node("FlotillaHandIn", stage, place=place, attempt=attempt, **delivered)
    return io.NodeOutput([hand_in, 0], expand=nodes)


class FlotillaHandIn(io.ComfyNode):
    """Delivers an item that the master has computed inside the running prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FlotillaHandIn",
            display_name="Hand In Item",
            category=CATEGORY,
            is_dev_only=True,
            is_input_list=True,
            inputs=[
                io.String.Input("stage"),
                io.Int.Input("place", min=0, max=MAX_SEED),
                io.Int.Input("attempt", min=1, max=MAX_SEED),
                *delivered_inputs(),
            ],
            outputs=[io.Boolean.Output("taken", display_name="taken")],
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> float:
        """Never equal to itself: an item that is wanted again is delivered again, even if all else is cached."""
        return float("nan")

    @classmethod
    def execute(cls, stage: list[str], place: list[int], attempt: list[int], **inputs: list[Any]) -> io.NodeOutput:
        run = _running(stage[0])
        run.deliver_requested(place[0], attempt[0], listed_values(inputs))
        run.ask()
        return io.NodeOutput(True)


class FlotillaGather(io.ComfyNode):
    """Has one take after the other run until the stage is finished, and gives the collector's outputs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FlotillaGather",
            display_name="Gather Items",
            category=CATEGORY,
            is_dev_only=True,
            enable_expand=True,
            inputs=[
                io.String.Input("stage"),
                io.Int.Input("number", min=0, max=MAX_SEED),
                *_lazy_slots(),
            ],
            # The list is one value here: the host cannot hand the entries of a list output on from an added node.
            outputs=[*gathered_outputs(), io.AnyType.Output(ANY_INPUT, display_name=ANY_INPUT)],
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> float:
        """Never equal to itself: what it gives depends on the job, not on its inputs."""
        return float("nan")

    @classmethod
    def check_lazy_status(cls, stage: str, number: int, **takes: bool | None) -> list[str]:
        """One take after the other."""
        return _next_slot(stage, takes)

    @classmethod
    async def execute(cls, stage: str, number: int, **_takes: bool | None) -> io.NodeOutput:
        # Async although it waits for nothing: the host runs async nodes first, and the next item depends on this one.
        run = _running(stage)
        forget_finished(run.expansion_prefix)
        progress_of(run)()
        if not run.finished:
            return _gather(run, number + 1, _ALL_OUTPUTS)
        if run.assembly.joined:
            outcome = joined_outcome(run)
            return io.NodeOutput(*outcome.args, None, ui=outcome.ui)
        outcome = listed_outcome(run)
        return io.NodeOutput(*[None] * len(GATHERED), *outcome.args, ui=outcome.ui)


class FlotillaRound(io.ComfyNode):
    """Has some takes run one after the other, within another round."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FlotillaRound",
            display_name="Round of Items",
            category=CATEGORY,
            is_dev_only=True,
            inputs=[io.String.Input("stage"), *_lazy_slots()],
            outputs=[io.Boolean.Output("taken", display_name="taken")],
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> float:
        """Never equal to itself: what it gives depends on the job, not on its inputs."""
        return float("nan")

    @classmethod
    def check_lazy_status(cls, stage: str, **takes: bool | None) -> list[str]:
        """One take after the other."""
        return _next_slot(stage, takes)

    @classmethod
    async def execute(cls, **_inputs: Any) -> io.NodeOutput:
        # Async for the same reason as a gather.
        return io.NodeOutput(True)
