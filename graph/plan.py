"""From a prompt and the participants to a plan: which items exist, and what each of them is.

`plan_job` is a pure function; nothing in a plan depends on speed, on chance or on the clock. Who is planned for an
item decides which values it sees, once and for all: an item that has to move to somebody else takes them along.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from ..utils.errors import NobodyCanRun
from .classes import STAGE_CLASSES
from .items import WorkerPlace, item_prompt, item_values, varying_nodes
from .preflight import Capabilities, fit, reasons_of
from .prompt import Prompt, PromptIndex, copy_json, quoted
from .values import is_true

Way = Literal["one_each", "route"]
Choose = Callable[[Sequence[str]], str]


@dataclass(frozen=True)
class Participant:
    """The master or a worker that may take part. ``capabilities`` None means unknown: then nothing is checked.

    ``unavailable`` says why a worker that the user counts on cannot be reached; it is left out with that reason.
    """

    id: str
    name: str
    is_master: bool
    capabilities: Capabilities | None = None
    unavailable: str = ""


@dataclass(frozen=True)
class PlanOptions:
    """``worker_ids`` None means every given worker; ids that nobody has are passed over."""

    master_takes_part: bool = True
    worker_ids: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ItemPlan:
    """One item. ``index`` counts through the job, ``k`` through its stage of ``count`` items.

    With ``by_master_prompt`` the user's own prompt on the master is this item; no other prompt is queued for it.
    ``values`` holds, by node id, what each varying node gives in this item (see `items`).
    """

    index: int
    node_id: str
    k: int
    count: int
    planned_for: str
    by_master_prompt: bool
    values: Mapping[str, Any]


@dataclass(frozen=True)
class StagePlan:
    """One distributed node of the prompt and its items.

    ``master_takes_part`` tells whether the master's own prompt computes what is above the node. ``fingerprint`` is
    equal for equal counts and values, whoever runs them: it belongs into the node's cache key.
    """

    node_id: str
    class_type: str
    way: Way
    items: tuple[ItemPlan, ...]
    master_takes_part: bool
    fingerprint: str


@dataclass(frozen=True)
class JobPlan:
    """A whole job: ``prompt`` is a copy as the user wrote it (leave it unchanged), ``stages`` are in graph order,
    ``items`` by ascending index. ``participants`` may run any item; ``left_out`` says of the others why not."""

    prompt: Prompt
    stages: tuple[StagePlan, ...]
    items: tuple[ItemPlan, ...]
    left_out: Mapping[str, str]
    participants: tuple[str, ...]

    @cached_property
    def index(self) -> PromptIndex:
        """The prompt's links both ways, made once for all items."""
        return PromptIndex(self.prompt)

    def count_at(self, node_id: str) -> int:
        """The number of items of the first stage that the node feeds; 1 where it feeds none."""
        for stage in self.stages:
            if node_id in self.index.upstream([stage.node_id]):
                return len(stage.items)
        return 1


def holds_stage(prompt: object) -> bool:
    """True when the prompt has a node whose work can be spread. Never raises: any JSON value may be asked about."""
    return bool(_stage_ids(prompt))


def plan_job(
    prompt: object, participants: Sequence[Participant], options: PlanOptions, choose: Choose
) -> JobPlan | None:
    """Plan the job of one prompt.

    Args:
        prompt: in API format, as the client sent it. It is copied, not changed.
        participants: in the order of the configuration, the master first if it is among them.
        options: what the user asked for.
        choose: picks, from some participants' ids, the one expected to finish first (way *route*).

    Returns:
        None when there is nothing to spread: no distributed node, or no worker to take part. The nodes then pass
        through. A plan that holds only the master's item is returned when workers were there but lack something, so
        that ``left_out`` can tell.

    Raises:
        InvalidPrompt: the prompt cannot be planned as it stands.
        NobodyCanRun: every participant lacks something; message and details say who lacks what.
    """
    stage_ids = _stage_ids(prompt)
    workers = _workers(participants, options)
    if not isinstance(prompt, dict) or not stage_ids or not workers:
        return None
    snapshot: Prompt = {
        node_id: copy_json(node, where=f"Node {quoted(str(node_id))}") for node_id, node in prompt.items()
    }
    index = PromptIndex(snapshot)
    ordered = [node_id for node_id in index.topological(index.upstream(stage_ids)) if node_id in stage_ids]
    stages = [_Stage(index, node_id) for node_id in ordered]
    master, able_workers, left_out = _able(stages, participants, workers, options)
    able = ([master] if master else []) + able_workers
    if not able:
        raise _nobody(participants, left_out)
    places = {worker.id: (worker.id, position) for position, worker in enumerate(able_workers, start=1)}
    for stage in stages:
        stage.assign([participant.id for participant in able], choose)
    master_id = master.id if master else None
    planned: list[StagePlan] = []
    first_index = 0
    for stage in stages:
        planned.append(stage.plan(first_index, master_id, places))
        first_index += len(planned[-1].items)
    return JobPlan(
        prompt=snapshot,
        stages=tuple(planned),
        items=tuple(item for stage_plan in planned for item in stage_plan.items),
        left_out=left_out,
        participants=tuple(participant.id for participant in able),
    )


def build_item_prompt(plan: JobPlan, item: ItemPlan) -> Prompt:
    """The pruned, item-specific prompt that a worker queues: a new object each time, equal for equal items."""
    return item_prompt(plan.index, item.node_id, item.values)


class _Stage:
    """A stage while it is being planned."""

    def __init__(self, index: PromptIndex, node_id: str) -> None:
        self.index = index
        self.node_id = node_id
        self.class_type = index.class_of(node_id)
        self.varying = varying_nodes(index, node_id)
        route = index.inputs_of(node_id).get(STAGE_CLASSES[self.class_type].route_input)
        self.way: Way = "route" if is_true(route) else "one_each"
        self.runners: list[str] = []

    def probe(self) -> Prompt:
        """The prompt that every participant must be able to run: item 0 with the defaults, which need the most."""
        return item_prompt(self.index, self.node_id, item_values(self.index, self.varying, 0, 1, None))

    def assign(self, able: list[str], choose: Choose) -> None:
        """Decide who runs the items, item by item."""
        self.runners = able
        if self.way == "route":
            chosen = choose(tuple(able))
            if chosen not in able:
                raise ValueError("the chosen participant is not among the offered ones")
            self.runners = [chosen]

    def plan(self, first_index: int, master_id: str | None, places: Mapping[str, WorkerPlace]) -> StagePlan:
        count = len(self.runners)
        items = tuple(
            ItemPlan(
                index=first_index + k,
                node_id=self.node_id,
                k=k,
                count=count,
                planned_for=runner,
                by_master_prompt=runner == master_id,
                values=item_values(
                    self.index, self.varying, k, count, None if self.way == "route" else places.get(runner)
                ),
            )
            for k, runner in enumerate(self.runners)
        )
        return StagePlan(
            node_id=self.node_id,
            class_type=self.class_type,
            way=self.way,
            items=items,
            master_takes_part=master_id in self.runners,
            fingerprint=_fingerprint(items),
        )


def _stage_ids(prompt: object) -> frozenset[str]:
    """Tolerant on purpose: a prompt without distributed nodes is none of our business, however odd it is."""
    if not isinstance(prompt, dict):
        return frozenset()
    return frozenset(
        node_id
        for node_id, node in prompt.items()
        if isinstance(node_id, str)
        and isinstance(node, dict)
        and isinstance(node.get("class_type"), str)
        and node["class_type"] in STAGE_CLASSES
    )


def _workers(participants: Sequence[Participant], options: PlanOptions) -> list[Participant]:
    asked = options.worker_ids
    return [one for one in participants if not one.is_master and (asked is None or one.id in asked)]


def _able(
    stages: Sequence[_Stage], participants: Sequence[Participant], workers: Sequence[Participant], options: PlanOptions
) -> tuple[Participant | None, list[Participant], dict[str, str]]:
    """The master if it takes part, the workers that can run every stage, and why the others cannot."""
    probes = [stage.probe() for stage in stages]
    left_out: dict[str, str] = {}

    def can_run(participant: Participant) -> bool:
        if participant.unavailable:
            left_out[participant.id] = participant.unavailable
            return False
        if participant.capabilities is None:
            return True
        missing = [one for probe in probes for one in fit(probe, participant.capabilities)[1]]
        if missing:
            left_out[participant.id] = reasons_of(missing)
        return not missing

    able_workers = [worker for worker in workers if can_run(worker)]
    master = next((one for one in participants if one.is_master), None)
    # A master that was to coordinate only steps in when nobody is left to coordinate.
    if master and not ((options.master_takes_part or not able_workers) and can_run(master)):
        master = None
    return master, able_workers, left_out


def _nobody(participants: Sequence[Participant], left_out: Mapping[str, str]) -> NobodyCanRun:
    names = {one.id: one.name or one.id for one in participants}
    story = " ".join(f"{names[one]} {reason}." for one, reason in left_out.items())
    return NobodyCanRun(
        f"No participant can run this prompt. {story}",
        cure="Install what is missing on one of them, or choose another model.",
        details={"left_out": dict(left_out), "names": {one: names[one] for one in left_out}},
    )


def _fingerprint(items: Sequence[ItemPlan]) -> str:
    # Every item lists the same nodes in the same order. Ids are left out: renumbering nodes changes no result.
    text = json.dumps([list(item.values.values()) for item in items], sort_keys=True)
    return f"{len(items)}:{hashlib.sha256(text.encode()).hexdigest()}"
