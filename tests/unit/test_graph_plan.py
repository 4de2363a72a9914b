"""Which items a job has, who is meant for them, who is left out."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pytest
from flotilla.graph.plan import JobPlan, Participant, PlanOptions, build_item_prompt, holds_stage, plan_job
from flotilla.graph.preflight import Capabilities
from flotilla.utils.errors import InvalidPrompt, NobodyCanRun


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def person(name: str, *lacks: str) -> Participant:
    """ "m…" is the master, everybody else a worker; they have every class of `workflow` except those in ``lacks``."""
    classes = frozenset({"Load", "KSampler", "Preview"}) - set(lacks)
    return Participant(name, name.upper(), name.startswith("m"), Capabilities(classes))


def workflow(**collector: Any) -> dict[str, Any]:
    return {
        "1": node("DistributedSeed", seed=100),
        "2": node("KSampler", seed=["1", 0]),
        "3": node("DistributedCollector", images=["2", 0], **collector),
        "4": node("Preview", images=["3", 0]),
    }


def never(_candidates: Sequence[str]) -> str:
    raise AssertionError("nothing to choose")


def plan(
    prompt: Any,
    people: str | Sequence[Participant] = "m a b",
    *,
    master: bool = True,
    ids: tuple[str, ...] | None = None,
    choose: Any = never,
) -> JobPlan:
    participants = [person(name) for name in people.split()] if isinstance(people, str) else people
    result = plan_job(prompt, participants, PlanOptions(master, ids), choose)
    assert result is not None
    return result


def runners(job: JobPlan) -> list[str]:
    return [item.planned_for for item in job.items]


def test_one_each_master_first_then_workers_as_configured() -> None:
    job = plan(workflow(), "m a b")
    (stage,) = job.stages
    assert (stage.node_id, stage.class_type, stage.way) == ("3", "DistributedCollector", "one_each")
    assert stage.master_takes_part
    assert [(i.index, i.k, i.count, i.planned_for, i.by_master_prompt, i.values) for i in stage.items] == [
        (0, 0, 3, "m", True, {"1": 100}),
        (1, 1, 3, "a", False, {"1": 101}),
        (2, 2, 3, "b", False, {"1": 102}),
    ]
    assert job.items == stage.items
    assert job.participants == ("m", "a", "b")
    assert job.left_out == {}


def test_the_master_is_first_wherever_it_is_given() -> None:
    assert runners(plan(workflow(), "a m b")) == ["m", "a", "b"]


def test_a_coordinating_master_has_no_item_and_the_first_worker_the_plain_seed() -> None:
    job = plan(workflow(), master=False)
    assert runners(job) == ["a", "b"]
    assert [item.values["1"] for item in job.items] == [100, 101]
    assert not job.stages[0].master_takes_part
    assert not any(item.by_master_prompt for item in job.items)
    assert job.participants == ("a", "b")


def test_only_the_asked_workers_in_config_order() -> None:
    assert runners(plan(workflow(), "m a b c", ids=("c", "unknown", "a"))) == ["m", "a", "c"]


def test_without_a_master_among_the_participants() -> None:
    assert runners(plan(workflow(), "a b")) == ["a", "b"]


@pytest.mark.parametrize(
    "prompt", [{}, {"1": node("KSampler")}, None, [], "x", {"1": None}, {"1": {"class_type": ["x"]}}]
)
def test_prompts_without_a_stage_are_none_of_our_business(prompt: Any) -> None:
    assert not holds_stage(prompt)
    assert plan_job(prompt, [person("m"), person("a")], PlanOptions(), never) is None


@pytest.mark.parametrize(("people", "ids"), [("m", None), ("", None), ("m a b", ()), ("m a", ("other",))])
def test_without_workers_there_is_no_plan(people: str, ids: tuple[str, ...] | None) -> None:
    assert holds_stage(workflow())
    participants = [person(name) for name in people.split()]
    assert plan_job(workflow(), participants, PlanOptions(worker_ids=ids), never) is None


@pytest.mark.parametrize("switch", [True, 1, "yes", "ON"])
@pytest.mark.parametrize("chosen", ["m", "a", "b"])
def test_route_gives_one_item_with_plain_values_to_the_chosen(switch: Any, chosen: str) -> None:
    offered: list[Sequence[str]] = []

    def choose(candidates: Sequence[str]) -> str:
        offered.append(candidates)
        return chosen

    job = plan(workflow(load_balance=switch), choose=choose)
    assert offered == [("m", "a", "b")]
    (item,) = job.items
    assert (item.planned_for, item.k, item.count, item.values) == (chosen, 0, 1, {"1": 100})
    assert item.by_master_prompt == job.stages[0].master_takes_part == (chosen == "m")
    assert job.stages[0].way == "route"
    assert job.participants == ("m", "a", "b"), "the others may take over"


def test_route_does_not_offer_a_coordinating_master() -> None:
    def choose(candidates: Sequence[str]) -> str:
        assert candidates == ("a", "b")
        return "b"

    assert runners(plan(workflow(load_balance=True), master=False, choose=choose)) == ["b"]


def test_a_choice_outside_the_offer_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="chosen participant"):
        plan(workflow(load_balance=True), choose=lambda _: "stranger")


def valued(**collector: Any) -> dict[str, Any]:
    values = json.dumps({"1": "first", "2": "second", "_by_worker_id": {"b": "for b"}})
    prompt = workflow(**collector)
    prompt["5"] = node("DistributedValue", default_value="plain", worker_values=values)
    prompt["2"]["inputs"]["text"] = ["5", 0]
    return prompt


def test_values_go_to_the_workers_they_are_meant_for() -> None:
    assert [item.values["5"] for item in plan(valued(), "m a b").items] == ["plain", "first", "for b"]
    assert [item.values["5"] for item in plan(valued(), "m b a").items] == ["plain", "for b", "second"]
    assert [item.values["5"] for item in plan(valued(), "m a c", master=False).items] == ["first", "second"]


def test_the_single_item_of_a_route_takes_the_default() -> None:
    job = plan(valued(load_balance=True), choose=lambda _: "b")
    assert job.items[0].values["5"] == "plain"
    assert build_item_prompt(job, job.items[0])["5"]["inputs"]["default_value"] == "plain"


def test_only_nodes_above_the_stage_vary() -> None:
    prompt = workflow() | {"9": node("DistributedSeed", seed=5)}
    assert plan(prompt).items[0].values == {"1": 100}


def test_the_snapshot_is_the_prompt_as_it_was() -> None:
    prompt = workflow(multi_job_id="exec_1")
    original = copy.deepcopy(prompt)
    job = plan(prompt)
    for item in job.items:
        build_item_prompt(job, item)["2"]["inputs"]["seed"] = "changed"
    prompt["2"]["inputs"]["seed"] = "changed"
    assert job.prompt == original


def test_the_prompt_of_an_item() -> None:
    job = plan(workflow(load_balance=False))
    assert build_item_prompt(job, job.items[2]) == {
        "1": node("DistributedSeed", seed=102),
        "2": node("KSampler", seed=["1", 0]),
        "3": node("FlotillaDeliver", images=["2", 0]),
    }


def two_stages() -> dict[str, Any]:
    """The upper stage has the larger id, so that only the graph can tell the order."""
    return {
        "9": node("DistributedCollector", images=["1", 0]),
        "1": node("Load", seed=["2", 0]),
        "2": node("DistributedSeed", seed=5),
        "4": node("DistributedCollector", images=["3", 0], load_balance=False),
        "3": node("KSampler", images=["9", 0], text=["6", 0]),
        "6": node("DistributedItem"),
    }


def test_several_collectors_are_stages_in_graph_order() -> None:
    job = plan(two_stages(), "m a")
    assert [stage.node_id for stage in job.stages] == ["9", "4"]
    assert [(item.index, item.node_id, item.k, item.count) for item in job.items] == [
        (0, "9", 0, 2),
        (1, "9", 1, 2),
        (2, "4", 0, 2),
        (3, "4", 1, 2),
    ]
    assert job.items[1].values == {"2": 6}
    assert job.items[3].values == {"2": 6, "6": {"index": 1, "count": 2}}
    inner = build_item_prompt(job, job.items[3])["9"]
    assert inner == node("DistributedCollector", images=["1", 0])


def test_how_many_items_a_node_is_computed_for() -> None:
    prompt = two_stages() | {"8": node("Preview", images=["4", 0])}
    prompt["4"]["inputs"]["load_balance"] = True
    job = plan(prompt, "m a b", choose=lambda offered: offered[0])
    assert [len(stage.items) for stage in job.stages] == [3, 1]
    assert job.count_at("2") == 3, "it feeds both stages: the first counts"
    assert job.count_at("6") == 1
    assert job.count_at("8") == 1


def test_stages_side_by_side_are_in_natural_order() -> None:
    prompt = {str(n): node("DistributedCollector", images=["0", 0]) for n in (10, 9, 100)} | {"0": node("Load")}
    assert [stage.node_id for stage in plan(prompt).stages] == ["9", "10", "100"]


def test_who_lacks_something_is_left_out_and_the_rest_counts() -> None:
    job = plan(workflow(), [person("m"), person("a", "KSampler"), person("b")])
    assert runners(job) == ["m", "b"]
    assert job.left_out == {"a": 'lacks node class "KSampler"'}
    assert job.participants == ("m", "b")
    assert [item.count for item in job.items] == [2, 2]
    assert plan(valued(), [person("a", "KSampler"), person("c")]).items[0].values["5"] == "first"


def test_what_only_stands_below_the_stage_is_not_asked_for() -> None:
    assert runners(plan(workflow(), [person("m"), person("a", "Preview")])) == ["m", "a"]


def test_unknown_capabilities_are_not_checked() -> None:
    assert runners(plan(workflow(), [person("m"), Participant("a", "A", False)])) == ["m", "a"]


def test_a_missing_model_is_the_reason() -> None:
    prompt = workflow()
    prompt["2"]["inputs"]["ckpt_name"] = ["7", 0]
    prompt["7"] = node("DistributedModelName", text=[["x.safetensors"]])
    lists = {"KSampler": {"ckpt_name": ("y.safetensors",)}}
    people = [person("m"), Participant("a", "A", False, Capabilities(frozenset({"KSampler"}), lists)), person("b")]
    assert plan(prompt, people).left_out == {"a": 'has no "x.safetensors" for KSampler.ckpt_name'}


def test_a_participant_must_be_able_to_run_every_stage() -> None:
    job = plan(two_stages(), [person("m"), person("a", "KSampler"), person("b")])
    assert runners(job) == ["m", "b", "m", "b"]
    assert set(job.left_out) == {"a"}


def test_a_master_that_lacks_something_only_coordinates() -> None:
    job = plan(workflow(), [person("m", "KSampler"), person("a")])
    assert runners(job) == ["a"]
    assert set(job.left_out) == {"m"}
    assert not job.stages[0].master_takes_part
    assert job.items[0].values == {"1": 100}


def test_a_coordinating_master_is_not_asked_what_it_has() -> None:
    assert plan(workflow(), [person("m", "KSampler"), person("a")], master=False).left_out == {}


@pytest.mark.parametrize("takes_part", [True, False])
@pytest.mark.parametrize("route", [True, False])
def test_when_only_the_master_is_left_it_takes_part_visibly(takes_part: bool, route: bool) -> None:
    people = [person("m"), person("a", "KSampler"), person("b", "KSampler")]
    job = plan(workflow(load_balance=route), people, master=takes_part, choose=lambda offered: offered[0])
    (item,) = job.items
    assert (item.planned_for, item.by_master_prompt, item.count) == ("m", True, 1)
    assert job.stages[0].master_takes_part
    assert set(job.left_out) == {"a", "b"}


@pytest.mark.parametrize("takes_part", [True, False])
def test_nobody_can_run_it(takes_part: bool) -> None:
    people = [person("m", "KSampler"), person("a", "KSampler")]
    with pytest.raises(NobodyCanRun, match=r'M lacks node class "KSampler"\.') as caught:
        plan(workflow(), people, master=takes_part)
    assert 'A lacks node class "KSampler".' in caught.value.message
    assert set(caught.value.details["left_out"]) == {"m", "a"}


def test_workers_alone_that_cannot_run_it() -> None:
    with pytest.raises(NobodyCanRun):
        plan(workflow(), [person("a", "KSampler")])


def test_fingerprints_tell_counts_and_values_but_not_people() -> None:
    def print_of(prompt: dict[str, Any], people: str, **more: Any) -> str:
        return plan(prompt, people, **more).stages[0].fingerprint

    base = print_of(workflow(), "m a")
    assert print_of(workflow(), "m z") == base
    assert print_of(workflow(), "a b", master=False) == base, "the same seeds, other hands"
    assert print_of(workflow(), "m a b") != base
    other_seed = workflow()
    other_seed["1"]["inputs"]["seed"] = 101
    assert print_of(other_seed, "m a") != base
    assert print_of(valued(), "m a") != print_of(valued(), "m b")
    routed = {print_of(workflow(load_balance=True), "m a b", choose=lambda _, one=one: one) for one in "mab"}
    assert len(routed) == 1


def test_fingerprints_are_the_same_tomorrow_and_on_other_machines() -> None:
    prompt = {"c": node("DistributedCollector", images=["s10", 0], audio=["s9", 0])}
    prompt |= {"s10": node("DistributedSeed", seed=1), "s9": node("DistributedSeed", seed=2)}
    (stage,) = plan(prompt, "m a").stages
    assert list(stage.items[0].values) == ["s9", "s10"]
    expected = hashlib.sha256(b"[[2, 1], [3, 2]]").hexdigest()
    assert stage.fingerprint == f"2:{expected}"


def test_plans_are_repeatable() -> None:
    assert plan(valued()) == plan(valued())


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"2": node("KSampler", seed=["77", 0])}, r'"seed" of node "2" \(KSampler\) is connected to node "77"'),
        ({"3": node("DistributedCollector")}, r'node "3" \(DistributedCollector\)'),
        ({"2": {"class_type": "KSampler", "inputs": None}}, r'node "2" \(KSampler\)'),
        ({"2": node("KSampler", x=["3", 0])}, "circle of 2"),
        ({"8": "nonsense"}, 'Node "8"'),
    ],
)
def test_prompts_that_cannot_be_planned(change: dict[str, Any], part: str) -> None:
    with pytest.raises(InvalidPrompt, match=part):
        plan(workflow() | change)


def test_a_value_nested_too_deep_is_refused_by_the_name_of_its_node() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(InvalidPrompt, match='Node "2"'):
        plan(workflow() | {"2": node("KSampler", x=deep)})


def test_dangling_links_elsewhere_are_left_to_the_host() -> None:
    assert plan(workflow() | {"8": node("SaveImage", images=["77", 0])}).items
