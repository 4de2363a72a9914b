"""A number of items: who they are planned for, what they see, and what an odd wish leads to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from flotilla.graph.plan import JobPlan, Participant, PlanOptions, build_item_prompt, plan_job
from flotilla.graph.wishes import MAX_ITEMS
from flotilla.utils.errors import InvalidPrompt

MANY = 10_000
GENEROUS_S = 5.0


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def workflow(**collector: Any) -> dict[str, Any]:
    return {
        "1": node("DistributedSeed", seed=100),
        "2": node("KSampler", seed=["1", 0], text=["5", 0], line=["6", 0], number=["7", 1]),
        "3": node("DistributedCollector", images=["2", 0], **collector),
        "5": node(
            "DistributedValue", default_value="plain", worker_values='{"1": "first", "_by_worker_id": {"b": "B"}}'
        ),
        "6": node("DistributedPrompts", text="one\ntwo\n\nthree"),
        "7": node("DistributedItem"),
    }


def first(candidates: Sequence[str]) -> str:
    return candidates[0]


def plan(prompt: dict[str, Any], people: str = "m a b", *, master: bool = True) -> JobPlan:
    participants = [Participant(name, name.upper(), name == "m") for name in people.split()]
    made = plan_job(prompt, participants, PlanOptions(master), first)
    assert made is not None
    return made


def test_items_are_dealt_in_turn_and_item_zero_is_the_masters_prompt() -> None:
    job = plan(workflow(items=5))
    (stage,) = job.stages
    assert (stage.way, stage.number, stage.master_takes_part, stage.on_failure) == ("pull", 0, True, "fail")
    assert [item.planned_for for item in job.items] == ["m", "a", "b", "m", "a"]
    assert [item.by_master_prompt for item in job.items] == [True, False, False, False, False]
    assert {item.count for item in job.items} == {5}
    assert job.participants == ("m", "a", "b")


def test_values_of_an_item_are_those_of_whom_it_is_planned_for() -> None:
    job = plan(workflow(items=4), "m a b")
    assert [item.values["1"] for item in job.items] == [100, 101, 102, 103]
    assert [item.values["5"] for item in job.items] == ["plain", "first", "B", "plain"]
    assert [item.values["6"] for item in job.items] == ["one", "two", "three", "one"]
    assert [item.values["7"] for item in job.items] == [{"index": k, "count": 4} for k in range(4)]
    assert job.count_at("7") == 4


def test_a_coordinating_master_takes_no_item() -> None:
    job = plan(workflow(items=3), master=False)
    assert [item.planned_for for item in job.items] == ["a", "b", "a"]
    assert not any(item.by_master_prompt for item in job.items)
    assert not job.stages[0].master_takes_part
    assert job.participants == ("a", "b")


@pytest.mark.parametrize("master", [True, False])
def test_without_workers_the_master_makes_them_all(master: bool) -> None:
    """Fewer items than asked for must not pass silently."""
    job = plan(workflow(items=3), "m", master=master)
    assert [item.planned_for for item in job.items] == ["m", "m", "m"]
    assert [item.by_master_prompt for item in job.items] == [True, False, False]


def test_a_stage_of_another_way_beside_it_is_planned_too_without_workers() -> None:
    prompt = workflow(items=3) | {"9": node("DistributedCollector", images=["2", 0])}
    job = plan(prompt, "m")
    assert [(stage.node_id, stage.way, len(stage.items), stage.number) for stage in job.stages] == [
        ("3", "pull", 3, 0),
        ("9", "one_each", 1, 1),
    ]
    assert [(item.index, item.stage) for item in job.items] == [(0, 0), (1, 0), (2, 0), (3, 1)]


@pytest.mark.parametrize("items", [0, "0", None, {"__value__": 0}, ""])
def test_no_number_is_one_each(items: Any) -> None:
    assert plan(workflow(items=items)).stages[0].way == "one_each"
    assert plan_job(workflow(items=items), [Participant("m", "M", True)], PlanOptions(), first) is None


@pytest.mark.parametrize("items", [4, "4", 4.0, {"__value__": 4}])
def test_a_number_wins_over_load_balance_however_it_is_written(items: Any) -> None:
    assert len(plan(workflow(items=items, load_balance=True)).items) == 4


@pytest.mark.parametrize("items", [-1, MAX_ITEMS + 1, "many", 2.5, ["1", 0], [4], {"a": 1}, float("nan"), float("inf")])
@pytest.mark.parametrize("people", ["m", "m a"])
def test_a_number_that_is_none_is_refused_with_a_cure(items: Any, people: str) -> None:
    with pytest.raises(InvalidPrompt, match=r'number of items of node "3" \(DistributedCollector\)') as caught:
        plan(workflow(items=items), people)
    assert str(MAX_ITEMS) in caught.value.cure
    assert caught.value.details["input"] == "items"


@pytest.mark.parametrize(("text", "expected"), [(None, "fail"), ("fail", "fail"), ("partial", "partial")])
def test_what_to_do_on_failure(text: Any, expected: str) -> None:
    assert plan(workflow(items=2, on_failure=text)).stages[0].on_failure == expected
    assert plan(workflow(on_failure=text)).stages[0].on_failure == expected


@pytest.mark.parametrize("text", ["", "ignore", 1, True, ["1", 0], ["fail"], {"__value__": ["partial"]}])
def test_another_word_for_it_is_refused_with_a_cure(text: Any) -> None:
    with pytest.raises(InvalidPrompt, match="on failure") as caught:
        plan(workflow(on_failure=text))
    assert '"fail" or "partial"' in caught.value.cure


def test_inputs_that_steer_are_not_part_of_an_item() -> None:
    job = plan(workflow(items=2, on_failure="partial"))
    assert build_item_prompt(job, job.items[1])["3"] == node("FlotillaDeliver", images=["2", 0])


def test_the_collector_for_anything_is_a_stage() -> None:
    prompt = workflow() | {"3": node("DistributedCollectorAny", value=["2", 0], items=3, on_failure="partial")}
    job = plan(prompt)
    assert (job.stages[0].class_type, job.stages[0].way) == ("DistributedCollectorAny", "pull")
    assert build_item_prompt(job, job.items[1])["3"] == node("FlotillaDeliver", value=["2", 0])


def test_fingerprints_tell_numbers_but_not_people() -> None:
    plain = {"1": node("DistributedSeed", seed=100), "3": node("DistributedCollector", images=["1", 0], items=5)}
    assert plan(plain, "m a").stages[0].fingerprint == plan(plain, "b c", master=False).stages[0].fingerprint
    plain["3"]["inputs"]["items"] = 6
    assert plan(plain, "m a").stages[0].fingerprint.startswith("6:")


def test_many_items_are_planned_without_reading_anything_again() -> None:
    """Ten thousand items over a text of ten thousand lines and a map of a thousand workers."""
    prompt = workflow(items=MANY)
    prompt["6"]["inputs"]["text"] = "\n".join(f"a line with some words, number {n}" for n in range(MANY))
    prompt["5"]["inputs"]["worker_values"] = str({str(n): f"value {n}" for n in range(1_000)})
    started_s = time.perf_counter()
    job = plan(prompt)
    assert time.perf_counter() - started_s < GENEROUS_S
    assert job.items[-1].values["6"].endswith(f"number {MANY - 1}")
