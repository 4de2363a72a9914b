"""A stage as its node sees it."""

from __future__ import annotations

import pytest
from flotilla.graph.plan import Participant, PlanOptions, plan_job
from flotilla.runtime.stage import StageRun

PROMPT = {
    "1": {"class_type": "DistributedSeed", "inputs": {"seed": 5}},
    "2": {"class_type": "KitImage", "inputs": {"seed": ["1", 0]}},
    "3": {"class_type": "DistributedCollector", "inputs": {"images": ["2", 0]}},
}


@pytest.fixture
def stage() -> StageRun:
    plan = plan_job(
        PROMPT,
        [Participant("master", "Master", True), Participant("w1", "One", False)],
        PlanOptions(),
        choose=lambda ids: ids[0],
    )
    assert plan is not None
    return StageRun(
        plan,
        plan.stages[0],
        precision_of=lambda _id: "exact",
        delivered=lambda _index, _attempt: None,
        abandoned=lambda: None,
        node_waits=lambda: None,
    )


def test_a_request_that_is_withdrawn_before_it_is_taken_is_no_end(stage: StageRun) -> None:
    change = stage.next_change()
    stage.request(1, 2)
    assert change.done()
    stage.withdraw(1, 2)
    assert stage.take_request() is None
    assert not stage.finished
    assert not stage.next_change().done()


def test_a_request_is_taken_once(stage: StageRun) -> None:
    stage.request(1, 2)
    assert stage.next_change().done()
    assert stage.take_request() == (1, 2)
    assert stage.take_request() is None


def test_there_are_no_results_before_the_end(stage: StageRun) -> None:
    """Fewer results than there are items must never pass for all of them."""
    with pytest.raises(RuntimeError):
        stage.results()
