"""A plan that was put away and comes back: the same items and values, with the people of today."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest
from flotilla.graph.plan import JobPlan, Participant, PlanOptions, build_item_prompt, plan_job
from flotilla.graph.preflight import Capabilities
from flotilla.graph.saved_plan import load_plan, save_plan
from flotilla.utils.errors import InvalidPrompt, NobodyCanRun


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


PROMPT: dict[str, Any] = {
    "1": node("DistributedSeed", seed=100),
    "2": node("KSampler", seed=["1", 0], text=["5", 0]),
    "3": node("DistributedCollector", images=["2", 0], items=4, on_failure="partial"),
    "4": node("DistributedCollector", images=["2", 0]),
    "5": node("DistributedValue", default_value="plain", worker_values='{"_by_worker_id": {"a": ["A", 1]}}'),
}


def person(name: str, *lacks: str) -> Participant:
    return Participant(name, name.upper(), name.startswith("m"), Capabilities(frozenset({"KSampler"}) - set(lacks)))


def people(names: str) -> list[Participant]:
    return [person(name) for name in names.split()]


def last(candidates: Sequence[str]) -> str:
    return candidates[-1]


def planned(names: str = "m a b", *, master: bool = True, prompt: Any = PROMPT) -> JobPlan:
    made = plan_job(prompt, people(names), PlanOptions(master), last)
    assert made is not None
    return made


def loaded(
    saved: dict[str, Any],
    who: list[Participant],
    *,
    finished: Collection[int] = (),
    master: bool = True,
    prompt: Any = PROMPT,
) -> JobPlan:
    return load_plan(json.loads(json.dumps(saved)), prompt, who, finished, PlanOptions(master))


def values(plan: JobPlan) -> list[Any]:
    return [item.values for item in plan.items]


def test_with_the_same_people_it_is_the_same_plan() -> None:
    plan = planned()
    again = loaded(save_plan(plan), people("m a b"))
    assert again == plan
    assert [build_item_prompt(again, one) for one in again.items] == [
        build_item_prompt(plan, one) for one in plan.items
    ]


def test_a_route_keeps_its_item_although_nobody_chooses_anew() -> None:
    prompt = {**PROMPT, "4": node("DistributedCollector", images=["2", 0], load_balance=True)}
    plan = planned(prompt=prompt)
    assert loaded(save_plan(plan), people("m a b"), prompt=prompt) == plan


def test_other_people_compute_the_same_items() -> None:
    plan = planned("m a b")
    again = loaded(save_plan(plan), people("m c"))
    assert values(again) == values(plan)
    assert [stage.fingerprint for stage in again.stages] == [stage.fingerprint for stage in plan.stages]
    assert {item.planned_for for item in again.items} <= {"m", "c"}
    assert again.participants == ("m", "c")
    assert [item.index for item in again.items] == list(range(len(plan.items)))


def test_the_masters_items_are_its_own_while_they_are_open() -> None:
    plan = planned()
    own = [item.index for item in plan.items if item.by_master_prompt]
    assert own == [0, 4]
    again = loaded(save_plan(plan), people("m a"), finished={0, 2})
    assert [item.index for item in again.items if item.by_master_prompt] == [4]
    assert [stage.master_takes_part for stage in again.stages] == [False, True]


def test_a_master_that_only_coordinates_now_gives_its_items_to_others() -> None:
    again = loaded(save_plan(planned()), people("m a"), master=False)
    assert not any(item.by_master_prompt for item in again.items)
    assert {item.planned_for for item in again.items} == {"a"}
    assert again.items[0].values == {"1": 100, "5": "plain"}


def test_a_master_that_coordinated_does_not_begin_to_compute_in_its_prompt() -> None:
    again = loaded(save_plan(planned("m a", master=False)), people("m a"))
    assert not any(item.by_master_prompt for item in again.items)
    assert again.participants == ("m", "a")


def test_who_lacks_something_by_now_is_left_out_with_the_reason() -> None:
    again = loaded(save_plan(planned()), [person("m"), person("a", "KSampler"), person("b")])
    assert again.left_out == {"a": 'lacks node class "KSampler"'}
    assert "a" not in {item.planned_for for item in again.items}


def test_nobody_can_run_it_any_more() -> None:
    with pytest.raises(NobodyCanRun):
        loaded(save_plan(planned()), [person("m", "KSampler"), person("a", "KSampler")])


def test_the_master_alone_can_go_on() -> None:
    again = loaded(save_plan(planned()), people("m"), finished={0})
    assert {item.planned_for for item in again.items} == {"m"}
    assert again.participants == ("m",)


def test_nothing_is_shared_with_what_was_given() -> None:
    plan = planned()
    saved, prompt = save_plan(plan), copy.deepcopy(PROMPT)
    again = load_plan(saved, prompt, people("m a b"), (), PlanOptions())
    saved["stages"][1]["values"]["5"][1].append("changed")
    prompt["2"]["inputs"]["text"] = "changed"
    assert again == plan


def _other_class(saved: dict[str, Any]) -> None:
    saved["stages"][0]["class_type"] = "DistributedCollectorAny"


def _no_node(saved: dict[str, Any]) -> None:
    saved["stages"][0]["node_id"] = "77"


def _version(saved: dict[str, Any]) -> None:
    saved["format"] = 99


def _values(saved: dict[str, Any]) -> None:
    saved["stages"][0]["values"]["1"].pop()


def _nodes(saved: dict[str, Any]) -> None:
    saved["stages"][0]["values"]["2"] = saved["stages"][0]["values"].pop("1")


def _way(saved: dict[str, Any]) -> None:
    saved["stages"][0]["way"] = "route"


def _empty(saved: dict[str, Any]) -> None:
    saved["stages"] = []


def _items(saved: dict[str, Any]) -> None:
    saved["stages"][0]["planned_for"] = []


def _shape(saved: dict[str, Any]) -> None:
    saved["stages"] = {"0": saved["stages"][0]}


@pytest.mark.parametrize("spoil", [_other_class, _no_node, _version, _values, _nodes, _way, _empty, _items, _shape])
def test_what_does_not_fit_the_prompt_is_refused_with_a_cure(spoil: Callable[[dict[str, Any]], None]) -> None:
    saved = save_plan(planned())
    spoil(saved)
    with pytest.raises(InvalidPrompt, match="does not fit its prompt") as caught:
        loaded(saved, people("m a b"))
    assert caught.value.cure == "Queue the workflow again."


def test_a_prompt_with_a_circle_is_refused() -> None:
    prompt = copy.deepcopy(PROMPT)
    prompt["2"]["inputs"]["x"] = ["3", 0]
    with pytest.raises(InvalidPrompt, match="circle"):
        loaded(save_plan(planned()), people("m a"), prompt=prompt)
