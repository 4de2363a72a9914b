"""How jobs come to the state machine, and who may join them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fakes.master import OUTPUT_TYPES, prompt
from fakes.tile_stage import NODE, upscale_plan, upscale_prompt
from flotilla.graph.plan import JobPlan, Participant, PlanOptions, plan_job
from flotilla.graph.preflight import Capabilities
from flotilla.jobs import events as ev
from flotilla.runtime.births import join, may_join, planned
from flotilla.runtime.bridge import NodeBridge, NodeCalls
from flotilla.runtime.jobrun import JobRun
from flotilla.runtime.wishes import Wishes
from flotilla.workers.entries import Settings

ABLE = Capabilities(frozenset({"KitImage", "KitModel", "KitEncode"}))


def run_of(plan: JobPlan, wishes: Wishes | None = None, **fields: Any) -> JobRun:
    """A job of this plan whose prompt is the host's."""
    run = JobRun("job", plan, "", {}, 0.0, 0.0, wishes or Wishes(), **fields)
    calls = NodeCalls(delivered=lambda *_: None, abandoned=lambda: None, asks=lambda: None)
    run.stages = {stage.node_id: NodeBridge(plan, stage, calls) for stage in plan.stages}
    return run


def plan_of(posted: dict[str, Any]) -> JobPlan:
    people = [Participant("master", "Master", True), Participant("w1", "One", False)]
    plan = plan_job(posted, people, PlanOptions(), lambda ids: ids[0], OUTPUT_TYPES.get)
    assert plan is not None
    return plan


def test_an_upscale_is_a_group_whose_items_come_later() -> None:
    event = planned(run_of(upscale_plan(upscale_prompt())), Settings(max_attempts=7, stall_factor=4.0))
    assert event == ev.JobPlanned(
        "job", (), ("master", "w1"), max_attempts=7, fallback="master", stall_factor=4.0, late_groups=frozenset({0})
    )


def test_one_whose_tiles_may_be_missing_is_a_partial_group_as_well() -> None:
    event = planned(run_of(upscale_plan(upscale_prompt(on_failure="partial"))), Settings())
    assert event.partial_groups == event.late_groups == frozenset({0})


def test_items_of_a_collector_that_pulls_are_anybody_s_but_the_master_s_own() -> None:
    event = planned(run_of(plan_of(prompt(1, items=3)), attempts_before={2: 5}), Settings())
    assert [(item.pinned, item.pulled, item.held) for item in event.items] == [
        (True, False, False),
        (False, True, False),
        (False, True, False),
    ]
    assert [item.attempts_before for item in event.items] == [0, 0, 5]
    assert event.late_groups == frozenset()


def test_whoever_can_run_the_model_side_may_join() -> None:
    run = run_of(upscale_plan(upscale_prompt()))
    assert may_join(run, "w2", ABLE)
    assert not may_join(run, "w2", Capabilities(frozenset({"KitImage", "KitModel"})))
    assert not may_join(run, "w1", ABLE), "it is in already"


def test_nobody_joins_against_the_wish_of_the_user_or_after_the_end() -> None:
    plan = upscale_plan(upscale_prompt())
    assert not may_join(run_of(plan, Wishes(worker_ids=("w1",))), "w2", ABLE)
    assert may_join(run_of(plan, Wishes(worker_ids=("w1", "w2"))), "w2", ABLE)
    ended, over = run_of(plan, ended_s=1.0), run_of(plan)
    over.stages.clear()
    assert not may_join(ended, "w2", ABLE)
    assert not may_join(over, "w2", ABLE)


@pytest.mark.parametrize(("inputs", "joins"), [({"items": 3}, True), ({}, False), ({"load_balance": True}, False)])
def test_items_that_are_anybody_s_can_be_joined_and_others_not(inputs: dict[str, Any], joins: bool) -> None:
    assert may_join(run_of(plan_of(prompt(1, **inputs))), "w2", ABLE) is joins


def test_joining_changes_the_plan_of_the_job_and_of_its_nodes() -> None:
    run = run_of(upscale_plan(upscale_prompt(), workers=("w1",)))
    before = run.plan
    run.plan = replace(run.plan, left_out={"w2": "it was off", "w3": "it lacks a model"})
    assert join(run, "w2") == ev.ParticipantJoined("job", "w2")
    assert run.plan.participants == ("master", "w1", "w2")
    assert run.plan.left_out == {"w3": "it lacks a model"}
    assert before.participants == ("master", "w1")
    assert run.stages[NODE].job is run.plan
    assert run.stages[NODE].plan is run.plan.stages[0]
