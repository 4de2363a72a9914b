"""How jobs come to the state machine: as they were planned, and with whoever comes up later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..graph.plan import ItemPlan, build_item_prompt
from ..graph.preflight import Capabilities, fit
from ..jobs import events as ev
from ..utils.log import get_logger
from ..workers.entries import MASTER_ID, Settings
from .jobrun import JobRun

log = get_logger("births")

OPEN_WAYS = frozenset({"pull", "tiles"})
"""Ways in which anybody may take any item."""


def planned(run: JobRun, settings: Settings) -> ev.JobPlanned:
    """The event that a job exists."""
    plan = run.plan
    ways = {stage.number: stage.way for stage in plan.stages}
    return ev.JobPlanned(
        run.job_id,
        tuple(_spec(item, ways[item.stage] == "pull", run.attempts_before) for item in plan.items),
        tuple(plan.participants),
        dict(plan.left_out),
        max_attempts=settings.max_attempts,
        fallback=MASTER_ID,
        stall_factor=settings.stall_factor,
        partial_groups=frozenset(stage.number for stage in plan.stages if stage.on_failure == "partial"),
        late_groups=frozenset(stage.number for stage in plan.stages if stage.way == "tiles"),
    )


def may_join(run: JobRun, worker_id: str, capabilities: Capabilities) -> bool:
    """Whether a worker that has come up can take items of a job that was planned without it."""
    plan, wanted = run.plan, run.wishes.worker_ids
    if run.ended_s is not None or not run.stages or worker_id in plan.participants:
        return False
    if wanted is not None and worker_id not in wanted:
        return False
    if not all(stage.way in OPEN_WAYS for stage in plan.stages):
        return False
    probes = [
        stage.side.probe() if stage.side is not None else build_item_prompt(plan, stage.items[0])
        for stage in plan.stages
    ]
    return not any(fit(probe, capabilities)[1] for probe in probes)


def join(run: JobRun, worker_id: str) -> ev.ParticipantJoined:
    """Takes the worker into the plan; returns the event that tells of it."""
    log.info("a worker joins a job", job=run.job_id, worker=worker_id)
    left_out = {one: reason for one, reason in run.plan.left_out.items() if one != worker_id}
    run.plan = replace(run.plan, participants=(*run.plan.participants, worker_id), left_out=left_out)
    for stage in run.stages.values():
        stage.grow(run.plan)
    return ev.ParticipantJoined(run.job_id, worker_id)


def _spec(item: ItemPlan, pulled: bool, attempts_before: Mapping[int, int]) -> ev.ItemSpec:
    return ev.ItemSpec(
        item.index,
        item.planned_for,
        pinned=item.by_master_prompt,
        group=item.stage,
        pulled=pulled and not item.by_master_prompt,
        attempts_before=attempts_before.get(item.index, 0),
    )
