"""A plan as plain JSON, and a plan made again from it: the same stages, items and values, whoever is there by now.

The prompt is not part of it; whoever keeps plans keeps the prompt beside them. Tiles are not part of it either: they
are added again when their node is reached.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..utils.errors import InvalidPrompt
from .classes import STAGE_CLASSES
from .model_side import OutputTypes, no_types
from .plan import (
    Able,
    ItemPlan,
    JobPlan,
    Participant,
    PlanOptions,
    StageDraft,
    StagePlan,
    find_able,
    snapshot_of,
    stage_plan,
)
from .prompt import PromptIndex, copy_json, quoted
from .wishes import MAX_ITEMS

FORMAT = 1
"""Goes up when older readers can no longer read what is written."""


def save_plan(plan: JobPlan) -> dict[str, Any]:
    """The plan as JSON. Values are written by node, so that ids of nodes are not repeated for every item."""
    return {"format": FORMAT, "stages": [_save_stage(stage) for stage in plan.stages]}


def _save_stage(stage: StagePlan) -> dict[str, Any]:
    items = () if stage.way == "tiles" else stage.items
    nodes = list(items[0].values) if items else []
    return {
        "node_id": stage.node_id,
        "class_type": stage.class_type,
        "way": stage.way,
        "on_failure": stage.on_failure,
        "planned_for": [item.planned_for for item in items],
        "by_master_prompt": [item.k for item in items if item.by_master_prompt],
        "values": {
            node_id: [copy_json(item.values[node_id], where=f"Node {quoted(node_id)}") for item in items]
            for node_id in nodes
        },
    }


def load_plan(
    saved: Mapping[str, Any],
    prompt: Mapping[str, Any],
    participants: Sequence[Participant],
    finished: Collection[int],
    options: PlanOptions,
    output_types: OutputTypes = no_types,
) -> JobPlan:
    """The plan again, for the participants of now.

    An item that the master's prompt was to compute stays its own if it is open and the master takes part; otherwise it
    is an item like any other. What was planned for somebody who is not there any more is planned for the next one;
    its values stay.

    Args:
        saved: what `save_plan` wrote.
        prompt: the prompt of that plan, as the user wrote it. It is copied, not changed.
        participants: in the order of the configuration, the master first if it is among them.
        finished: indices of items whose results exist already.
        options: what the user asked for.
        output_types: as for `plan_job`.

    Raises:
        InvalidPrompt: the saved plan is not one of this prompt.
        NobodyCanRun: every participant lacks something.
    """
    snapshot = snapshot_of(prompt)
    index = PromptIndex(snapshot)
    if saved.get("format") != FORMAT:
        raise _does_not_fit("it was written by another version")
    rows = _a_list(saved.get("stages"), "stages")
    drafts = [_draft(index, number, row, output_types) for number, row in enumerate(rows)]
    if not drafts:
        raise _does_not_fit("it has no stages")
    able = find_able(drafts, participants, options)
    stages: list[StagePlan] = []
    first_index = 0
    for draft, row in zip(drafts, rows, strict=True):
        stages.append(_load_stage(draft, row, first_index, able, finished))
        first_index += len(stages[-1].items)
    return JobPlan(
        prompt=snapshot,
        stages=tuple(stages),
        items=tuple(item for stage in stages for item in stage.items),
        left_out=able.left_out,
        participants=able.ids,
    )


def _draft(index: PromptIndex, number: int, row: object, output_types: OutputTypes) -> StageDraft:
    """The stage that a row of the saved plan tells of, as far as the prompt says it."""
    node_id = row.get("node_id") if isinstance(row, dict) else None
    if not isinstance(row, dict) or not isinstance(node_id, str) or node_id not in index:
        raise _does_not_fit(f"its stage {number} is no node of the prompt")
    class_type = index.class_of(node_id)
    if class_type not in STAGE_CLASSES or class_type != row.get("class_type"):
        raise _does_not_fit(f"{index.label(node_id)} was of another class")
    index.topological(index.upstream([node_id]))  # a prompt with a circle must not get any further
    draft = StageDraft(index, number, node_id, output_types)
    if (draft.wishes.way, draft.wishes.on_failure) != (row.get("way"), row.get("on_failure")):
        raise _does_not_fit(f"{index.label(node_id)} asked for something else")
    return draft


def _load_stage(
    draft: StageDraft, row: Mapping[str, Any], first_index: int, able: Able, finished: Collection[int]
) -> StagePlan:
    runners = _a_list(row.get("planned_for"), "planned_for")
    if draft.side is not None:
        return stage_plan(draft, (), able)
    columns = row.get("values")
    by_master = set(_a_list(row.get("by_master_prompt"), "by_master_prompt"))
    count = len(runners)
    if not 0 < count <= MAX_ITEMS or not all(isinstance(runner, str) for runner in runners):
        raise _does_not_fit("its items are not planned for anybody")
    template = draft.values.of(0, count, None)
    if not isinstance(columns, dict) or set(columns) != set(template):
        raise _does_not_fit("other nodes vary from item to item")
    values = {
        node_id: _a_list(copy_json(columns[node_id], where=f"Node {quoted(node_id)}"), "values") for node_id in template
    }
    if any(len(column) != count for column in values.values()):
        raise _does_not_fit("values are missing")
    items = tuple(
        ItemPlan(
            index=first_index + k,
            node_id=draft.node_id,
            k=k,
            count=count,
            planned_for=runner if runner in able.ids else able.ids[k % len(able.ids)],
            by_master_prompt=k in by_master and able.master is not None and first_index + k not in finished,
            values={node_id: column[k] for node_id, column in values.items()},
            stage=draft.number,
        )
        for k, runner in enumerate(runners)
    )
    return stage_plan(draft, _with_master(items, able), able)


def _with_master(items: tuple[ItemPlan, ...], able: Able) -> tuple[ItemPlan, ...]:
    """What the master's prompt computes is planned for the master; it may not have the id that it had."""
    if able.master is None:
        return items
    own = able.master.id
    return tuple(replace(item, planned_for=own) if item.by_master_prompt else item for item in items)


def _a_list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise _does_not_fit(f"its {what} are not a list")
    return value


def _does_not_fit(why: str) -> InvalidPrompt:
    return InvalidPrompt(
        f"The saved plan of this job does not fit its prompt: {why}.", cure="Queue the workflow again."
    )
