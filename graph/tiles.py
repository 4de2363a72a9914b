"""Items that join a plan late: tiles are known only when their node is reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .plan import ItemPlan, JobPlan


def with_tiles(plan: JobPlan, stage_number: int, tiles: Sequence[Any]) -> JobPlan:
    """The plan with one more item for each of ``tiles``, in their order.

    Indices go on after the job's last one, ``k`` goes on within the stage, and all of the stage's items count the new
    ones. Whoever comes next among the participants is planned for an item, which says no more than that: anybody
    takes it.

    Args:
        plan: it is not changed.
        stage_number: of a stage whose items are tiles.
        tiles: JSON values. Each becomes what the stage's node has for value in that item.
    """
    stage = plan.stages[stage_number]
    if stage.way != "tiles":
        raise ValueError("only stages of tiles get items later")
    before, everybody = len(stage.items), plan.participants
    count = before + len(tiles)
    known = {item.index: replace(item, count=count) for item in stage.items}
    new = tuple(
        ItemPlan(
            index=len(plan.items) + place,
            node_id=stage.node_id,
            k=before + place,
            count=count,
            planned_for=everybody[(before + place) % len(everybody)],
            by_master_prompt=False,
            values={stage.node_id: tile},
            stage=stage_number,
        )
        for place, tile in enumerate(tiles)
    )
    changed = replace(stage, items=(*known.values(), *new))
    return replace(
        plan,
        stages=tuple(changed if one.number == stage_number else one for one in plan.stages),
        items=(*(known.get(item.index, item) for item in plan.items), *new),
    )
