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
from typing import Any

from ..utils.errors import NobodyCanRun
from .items import ItemValues, WorkerPlace, item_prompt, varying_nodes
from .model_side import ModelSide, OutputTypes, model_side, no_types
from .nesting import asks_for_number, distributed_nodes, stage_ids
from .preflight import Capabilities, fit, reasons_of
from .prompt import Prompt, PromptIndex, copy_json, quoted
from .wishes import OnFailure, StageWishes, Way

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


@dataclass(frozen=True, slots=True)
class ItemPlan:
    """One item. ``index`` counts through the job, ``k`` through its stage of ``count`` items; ``stage`` is that
    stage's number.

    With ``by_master_prompt`` the user's own prompt on the master is this item; no other prompt is queued for it.
    ``values`` holds, by node id, what each varying node gives in this item (see `items`). They are those of
    ``planned_for``; in the way *pull* that is all it says, because anybody takes the item. A tile's only value is the
    tile itself, under the id of the stage's node.
    """

    index: int
    node_id: str
    k: int
    count: int
    planned_for: str
    by_master_prompt: bool
    values: Mapping[str, Any]
    stage: int


@dataclass(frozen=True)
class StagePlan:
    """One distributed node of the prompt and its items.

    ``number`` is its place among the job's stages, from 0. ``master_takes_part`` tells whether the master's own prompt
    computes what is above the node. ``on_failure`` says whether the node returns what there is when items are
    missing in the end. ``fingerprint`` is equal for equal counts and values, whoever runs them: it belongs into the
    node's cache key.

    In the way *tiles* items come when the node is reached (`tiles.with_tiles`), until then there are none, and the
    fingerprint does not speak of them. ``side`` is what computing them takes; ``master_takes_part`` tells whether the
    master does. Other ways have no ``side``.
    """

    node_id: str
    class_type: str
    way: Way
    items: tuple[ItemPlan, ...]
    master_takes_part: bool
    fingerprint: str
    number: int
    on_failure: OnFailure
    side: ModelSide | None = None


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
        """The number of items of the first stage that the node feeds; 1 where it feeds none. Stages of tiles do not
        count: to the nodes above them, the whole picture is one item."""
        for stage in self.stages:
            if stage.way != "tiles" and node_id in self.index.upstream([stage.node_id]):
                return len(stage.items)
        return 1


def holds_stage(prompt: object) -> bool:
    """True when the prompt has a node whose work can be spread. Never raises: any JSON value may be asked about."""
    return bool(distributed_nodes(prompt))


def plan_job(
    prompt: object,
    participants: Sequence[Participant],
    options: PlanOptions,
    choose: Choose,
    output_types: OutputTypes = no_types,
) -> JobPlan | None:
    """Plan the job of one prompt.

    Args:
        prompt: in API format, as the client sent it. It is copied, not changed.
        participants: in the order of the configuration, the master first if it is among them.
        options: what the user asked for.
        choose: picks, from some participants' ids, the one expected to finish first (way *route*).
        output_types: what the master's host says of a node class (way *tiles*). Of classes that it does not know,
            everything counts as a part of the model side.

    Returns:
        None when there is nothing to spread: no distributed node, or no worker to take part and no number of items
        asked for. The nodes then pass through. A plan that holds only the master's items is returned when it alone
        has to make a number of items, and when workers were there but lack something, so that ``left_out`` can tell.

    Raises:
        InvalidPrompt: the prompt cannot be planned as it stands.
        NobodyCanRun: every participant lacks something; message and details say who lacks what.
    """
    distributed = distributed_nodes(prompt)
    if not isinstance(prompt, dict) or not distributed:
        return None
    workers = chosen_workers(participants, options)
    if not workers and not any(asks_for_number(node) for node in distributed.values()):
        return None
    snapshot = snapshot_of(prompt)
    index = PromptIndex(snapshot)
    drafts = [StageDraft(index, number, node_id, output_types) for number, node_id in enumerate(stage_ids(index))]
    able = find_able(drafts, participants, options)
    places = {worker.id: (worker.id, position) for position, worker in enumerate(able.workers, start=1)}
    planned: list[StagePlan] = []
    first_index = 0
    for draft in drafts:
        planned.append(draft.plan(first_index, able, places, choose))
        first_index += len(planned[-1].items)
    return JobPlan(
        prompt=snapshot,
        stages=tuple(planned),
        items=tuple(item for stage_plan in planned for item in stage_plan.items),
        left_out=able.left_out,
        participants=able.ids,
    )


def build_item_prompt(plan: JobPlan, item: ItemPlan) -> Prompt:
    """The pruned, item-specific prompt that a worker queues: a new object each time, equal for equal items.

    That of a tile is made from its stage's `ModelSide`, because it takes data that the plan does not have.
    """
    if plan.stages[item.stage].way == "tiles":
        raise ValueError("a tile's prompt is made by the model side of its stage")
    return item_prompt(plan.index, item.node_id, item.values)


def snapshot_of(prompt: Mapping[str, Any]) -> Prompt:
    """A copy of a prompt that nobody else changes. Raises InvalidPrompt if it nests too deep."""
    return {node_id: copy_json(node, where=f"Node {quoted(str(node_id))}") for node_id, node in prompt.items()}


@dataclass(frozen=True)
class Able:
    """Who can run every stage: the master if it takes part, workers; and of the others, why they cannot."""

    master: Participant | None
    workers: tuple[Participant, ...]
    left_out: Mapping[str, str]

    @property
    def ids(self) -> tuple[str, ...]:
        """All of them, the master first."""
        return ((self.master.id,) if self.master else ()) + tuple(worker.id for worker in self.workers)


class StageDraft:
    """A stage while it is being planned."""

    def __init__(self, index: PromptIndex, number: int, node_id: str, output_types: OutputTypes) -> None:
        self.index = index
        self.number = number
        self.node_id = node_id
        self.class_type = index.class_of(node_id)
        self.wishes = StageWishes.of(index, node_id)
        self.side = model_side(index, node_id, output_types) if self.wishes.way == "tiles" else None
        self.values = ItemValues(index, () if self.side else varying_nodes(index, node_id))

    def probe(self) -> Prompt:
        """The prompt that every participant must be able to run: item 0 with the defaults, which need the most."""
        if self.side is not None:
            return self.side.probe()
        return item_prompt(self.index, self.node_id, self.values.of(0, 1, None))

    def plan(self, first_index: int, able: Able, places: Mapping[str, WorkerPlace], choose: Choose) -> StagePlan:
        """The stage with its items, the first of which is ``first_index`` of the job."""
        runners = self._runners(able.ids, choose)
        count = len(runners)
        # A routed item has the defaults, wherever it goes.
        known = {} if self.wishes.way == "route" else places
        own = able.master.id if able.master else None
        items = tuple(
            ItemPlan(
                index=first_index + k,
                node_id=self.node_id,
                k=k,
                count=count,
                planned_for=runner,
                # The master's prompt runs once and is one item; further ones come to it while its node waits.
                by_master_prompt=runner == own and k == 0,
                values=self.values.of(k, count, known.get(runner)),
                stage=self.number,
            )
            for k, runner in enumerate(runners)
        )
        return stage_plan(self, items, able)

    def _runners(self, able: tuple[str, ...], choose: Choose) -> Sequence[str]:
        """For whom the items are planned, one by one."""
        if self.wishes.way == "tiles":
            return ()
        if self.wishes.way == "pull":
            return [able[k % len(able)] for k in range(self.wishes.items)]
        if self.wishes.way == "one_each":
            return able
        chosen = choose(able)
        if chosen not in able:
            raise ValueError("the chosen participant is not among the offered ones")
        return (chosen,)


def stage_plan(draft: StageDraft, items: tuple[ItemPlan, ...], able: Able) -> StagePlan:
    """The plan of a stage with these items."""
    own = able.master is not None if draft.side is not None else any(item.by_master_prompt for item in items)
    return StagePlan(
        node_id=draft.node_id,
        class_type=draft.class_type,
        way=draft.wishes.way,
        items=items,
        master_takes_part=own,
        fingerprint=_fingerprint(items),
        number=draft.number,
        on_failure=draft.wishes.on_failure,
        side=draft.side,
    )


def chosen_workers(participants: Sequence[Participant], options: PlanOptions) -> list[Participant]:
    """The workers that the user wants, in the order of the configuration."""
    asked = options.worker_ids
    return [one for one in participants if not one.is_master and (asked is None or one.id in asked)]


def find_able(drafts: Sequence[StageDraft], participants: Sequence[Participant], options: PlanOptions) -> Able:
    """Who can run every stage. Raises NobodyCanRun."""
    probes = [draft.probe() for draft in drafts]
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

    workers = tuple(worker for worker in chosen_workers(participants, options) if can_run(worker))
    master = next((one for one in participants if one.is_master), None)
    # A master that was to coordinate only steps in when nobody is left to coordinate.
    if master and not ((options.master_takes_part or not workers) and can_run(master)):
        master = None
    if master is None and not workers:
        raise _nobody(participants, left_out)
    return Able(master, workers, left_out)


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
