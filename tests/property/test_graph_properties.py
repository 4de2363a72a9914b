"""Plans and item prompts over random graphs."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from flotilla.graph.expansion import expand_item
from flotilla.graph.plan import JobPlan, Participant, PlanOptions, build_item_prompt, plan_job
from flotilla.graph.preflight import Capabilities, fit
from flotilla.graph.prompt import PromptIndex, is_link
from flotilla.graph.saved_plan import load_plan, save_plan
from flotilla.graph.values import SEED_SPAN
from flotilla.utils.errors import InvalidPrompt
from hypothesis import given
from hypothesis import strategies as st

Prompt = dict[str, Any]

PLAIN_CLASSES = ["Load", "KSampler", "VAEDecode"]
OWN_CLASSES = ["DistributedSeed", "DistributedValue", "DistributedItem", "DistributedPrompts", "DistributedModelName"]
BIG = 5_000
GENEROUS_S = 5.0

ids = st.one_of(
    st.integers(0, 200).map(str),
    st.tuples(st.integers(0, 20), st.integers(0, 20)).map(lambda pair: f"{pair[0]}:{pair[1]}"),
    st.text(alphabet="ab.:1", min_size=1, max_size=4),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def graphs(draw: st.DrawFn) -> Prompt:
    """A prompt without circles and without loose links: every node takes only from nodes drawn before it."""
    names = draw(st.lists(ids, min_size=2, max_size=14, unique=True))
    prompt: Prompt = {}
    for place, name in enumerate(names):
        linked = st.tuples(st.sampled_from(names[:place]), st.integers(0, 3)).map(list) if place else st.nothing()
        constant = json_values.filter(lambda value: not is_link(value))
        kinds = PLAIN_CLASSES + OWN_CLASSES + (["DistributedCollector"] if place else [])
        class_type = draw(st.sampled_from(kinds)) if place < len(names) - 1 else "DistributedCollector"
        inputs = draw(st.dictionaries(st.sampled_from(["x", "y", "worker_id"]), linked | constant, max_size=3))
        if class_type == "DistributedCollector":
            inputs["images"] = draw(linked)
            inputs["load_balance"] = draw(st.booleans())
            inputs["items"] = draw(st.sampled_from([0, 0, 1, 2, 7]))
            inputs["on_failure"] = draw(st.sampled_from(["fail", "partial"]))
        elif class_type == "DistributedSeed":
            inputs["seed"] = draw(st.integers(0, SEED_SPAN - 1) | linked)
        elif class_type == "DistributedValue":
            inputs["default_value"] = draw(constant | linked)
            inputs["worker_values"] = draw(st.dictionaries(st.sampled_from(["1", "2", "_type"]), constant) | constant)
        elif class_type in ("DistributedPrompts", "DistributedModelName"):
            inputs["text"] = draw(st.text(alphabet="ab\n ", max_size=8) | linked)
        prompt[name] = {"class_type": class_type, "inputs": inputs}
    order = draw(st.permutations(names))
    return {name: prompt[name] for name in order}


people = st.builds(
    lambda master, workers: (
        ([Participant("m", "Master", True)] if master else []) + [Participant(w, f"name {w}", False) for w in workers]
    ),
    st.booleans(),
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=4, unique=True),
)


def last(candidates: Sequence[str]) -> str:
    return candidates[-1]


def planned(prompt: Prompt, participants: list[Participant], master: bool = True) -> JobPlan:
    job = plan_job(prompt, participants, PlanOptions(master_takes_part=master), last)
    assert job is not None
    return job


def links_in(prompt: Prompt) -> list[str]:
    return [value[0] for node in prompt.values() for value in node["inputs"].values() if is_link(value)]


@given(graphs(), people, st.booleans())
def test_item_prompts_are_closed_pruned_repeatable_and_json(
    prompt: Prompt, who: list[Participant], master: bool
) -> None:
    before = copy.deepcopy(prompt)
    job = planned(prompt, who, master)
    for item in job.items:
        built = build_item_prompt(job, item)
        assert set(links_in(built)) <= set(built)
        assert set(built) <= PromptIndex(prompt).upstream([item.node_id])
        assert [one for one, node in built.items() if node["class_type"] == "FlotillaDeliver"] == [item.node_id]
        assert PromptIndex(built).upstream([item.node_id]) == set(built), "nothing is left that delivers to nobody"
        assert PromptIndex(built).topological()
        assert not any("worker_id" in n["inputs"] for n in built.values() if n["class_type"].startswith("Distributed"))
        assert build_item_prompt(job, item) == built
        assert json.loads(json.dumps(built)) == built
    assert prompt == before
    assert job.prompt == before


@given(graphs(), people, st.booleans())
def test_seeds_count_from_the_plain_one(prompt: Prompt, who: list[Participant], master: bool) -> None:
    job = planned(prompt, who, master)
    for item in job.items:
        built = build_item_prompt(job, item)
        for name, node in prompt.items():
            if node["class_type"] != "DistributedSeed" or name not in built:
                continue
            seed = node["inputs"]["seed"]
            if is_link(seed):
                assert built[name]["class_type"] == "FlotillaOffset"
                assert built[name]["inputs"]["offset"] == item.k
            else:
                assert built[name]["inputs"]["seed"] == (seed + item.k) % SEED_SPAN


@given(graphs(), people, st.booleans())
def test_items_are_numbered_without_gaps_and_each_participant_has_its_own(
    prompt: Prompt, who: list[Participant], master: bool
) -> None:
    job = planned(prompt, who, master)
    assert [item.index for item in job.items] == list(range(len(job.items)))
    expected = [one.id for one in who if master or not one.is_master]
    for stage in job.stages:
        assert [item.k for item in stage.items] == list(range(len(stage.items)))
        assert {item.count for item in stage.items} == {len(stage.items)}
        runners = [item.planned_for for item in stage.items]
        wanted = prompt[stage.node_id]["inputs"]["items"]
        assert stage.way == ("pull" if wanted else stage.way)
        if stage.way == "pull":
            assert runners == [expected[k % len(expected)] for k in range(wanted)]
        else:
            assert runners == (expected if stage.way == "one_each" else [expected[-1]])
        assert [item.by_master_prompt for item in stage.items] == [
            one == "m" and k == 0 for k, one in enumerate(runners)
        ]
        assert stage.master_takes_part == any(item.by_master_prompt for item in stage.items)
        assert {item.stage for item in stage.items} == {stage.number}
    assert [stage.number for stage in job.stages] == list(range(len(job.stages)))
    places = {stage.node_id: place for place, stage in enumerate(job.stages)}
    index = PromptIndex(prompt)
    for stage in job.stages:
        above = index.upstream([stage.node_id]) - {stage.node_id}
        assert all(places[other] < places[stage.node_id] for other in above & set(places))


@given(graphs(), people, st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_nodes_in_the_prompt_does_not_matter(
    prompt: Prompt, who: list[Participant], master: bool, random: Any
) -> None:
    names = list(prompt)
    random.shuffle(names)
    shuffled = {
        name: {"inputs": dict(reversed(prompt[name]["inputs"].items())), "class_type": prompt[name]["class_type"]}
        for name in names
    }
    first, second = planned(prompt, who, master), planned(shuffled, who, master)
    assert first == second
    assert [build_item_prompt(first, one) for one in first.items] == [
        build_item_prompt(second, one) for one in second.items
    ]


@given(graphs(), people)
def test_fingerprints_do_not_depend_on_names(prompt: Prompt, who: list[Participant]) -> None:
    renamed = [Participant(one.id, "other", one.is_master) for one in who]
    strangers = [Participant(one.id if one.is_master else f"{one.id}{one.id}", "x", one.is_master) for one in who]
    prints = [[stage.fingerprint for stage in planned(prompt, each).stages] for each in (who, renamed, strangers)]
    assert prints[0] == prints[1] == prints[2]


@given(graphs(), people, people, st.booleans(), st.sets(st.integers(0, 8)))
def test_a_saved_plan_gives_the_same_items_whoever_is_there(
    prompt: Prompt, who: list[Participant], later: list[Participant], master: bool, finished: set[int]
) -> None:
    job = planned(prompt, who)
    saved = json.loads(json.dumps(save_plan(job)))
    assert load_plan(saved, prompt, who, (), PlanOptions()) == job
    again = load_plan(saved, prompt, later, finished, PlanOptions(master_takes_part=master))
    assert [(one.index, one.node_id, one.k, one.values) for one in again.items] == [
        (one.index, one.node_id, one.k, one.values) for one in job.items
    ]
    assert [stage.fingerprint for stage in again.stages] == [stage.fingerprint for stage in job.stages]
    assert {one.planned_for for one in again.items} <= set(again.participants)
    for before, after in zip(job.items, again.items, strict=True):
        assert build_item_prompt(job, before) == build_item_prompt(again, after)
        own = before.by_master_prompt and after.index not in finished and "m" in again.participants
        assert after.by_master_prompt == own
        assert not own or after.planned_for == "m"


@given(graphs(), people)
def test_an_item_inside_the_running_prompt_is_the_items_prompt(prompt: Prompt, who: list[Participant]) -> None:
    """Put together with the running prompt, the added nodes are what a worker would run; nothing of it is replaced."""
    job = planned(prompt, who)
    item = job.items[-1]
    nodes, delivered = expand_item(job, item, "new ", prompt)
    built = build_item_prompt(job, item)
    assert not set(nodes) & set(prompt)

    def same(one: Any, other: Any) -> bool:
        if not (is_link(one) and is_link(other)):
            return bool(one == other)
        return one[1] == other[1] and one[0].removeprefix("new ") == other[0]

    for name, node in nodes.items():
        twin = built[name.removeprefix("new ")]
        assert node["class_type"] == twin["class_type"]
        assert node["inputs"].keys() == twin["inputs"].keys()
        assert all(same(node["inputs"][key], twin["inputs"][key]) for key in twin["inputs"])
    assert all(same(delivered[key], value) for key, value in built[item.node_id]["inputs"].items())
    reached = {link.removeprefix("new ") for link in links_in(nodes)} | {
        v[0].removeprefix("new ") for v in delivered.values() if is_link(v)
    }
    assert reached <= set(built)


@given(graphs(), people)
def test_preflight_finds_nothing_where_everything_is_there(prompt: Prompt, who: list[Participant]) -> None:
    job = planned(prompt, who)
    built = build_item_prompt(job, job.items[-1])
    everything = Capabilities(frozenset(PLAIN_CLASSES))
    assert fit(built, everything) == (built, [])
    needed = {node["class_type"] for node in built.values()} & set(PLAIN_CLASSES)
    for class_type in needed:
        _, missing = fit(built, Capabilities(frozenset(PLAIN_CLASSES) - {class_type}))
        assert {one.class_type for one in missing} == {class_type}


@given(st.dictionaries(st.text(max_size=2), json_values, max_size=4) | json_values, people)
def test_any_json_gives_a_plan_or_none_or_an_invalid_prompt(prompt: Any, who: list[Participant]) -> None:
    for extra in ({}, {"c": {"class_type": "DistributedCollector", "inputs": {"images": ["a", 0]}}}):
        candidate = prompt | extra if isinstance(prompt, dict) else prompt
        try:
            plan_job(candidate, who, PlanOptions(), last)
        except InvalidPrompt as error:
            assert error.message


def chain() -> Prompt:
    prompt: Prompt = {"0": {"class_type": "DistributedSeed", "inputs": {"seed": 1}}}
    for place in range(1, BIG):
        prompt[str(place)] = {"class_type": "Load", "inputs": {"x": [str(place - 1), 0], "n": place}}
    prompt["c"] = {"class_type": "DistributedCollector", "inputs": {"images": [str(BIG - 1), 0]}}
    return prompt


def fan() -> Prompt:
    prompt: Prompt = {"s": {"class_type": "DistributedSeed", "inputs": {"seed": 1}}}
    for place in range(BIG):
        prompt[str(place)] = {"class_type": "Load", "inputs": {"x": ["s", 0], "n": place}}
    prompt["j"] = {"class_type": "Join", "inputs": {f"in{place}": [str(place), 0] for place in range(BIG)}}
    prompt["c"] = {"class_type": "DistributedCollector", "inputs": {"images": ["j", 0]}}
    return prompt


def ladder() -> Prompt:
    """Two rails with a link to both at every rung: a walk that does not remember takes 2^n steps."""
    prompt: Prompt = {
        "0a": {"class_type": "Load", "inputs": {}},
        "0b": {"class_type": "DistributedSeed", "inputs": {"seed": 1}},
    }
    for rung in range(1, BIG // 2):
        both = {"x": [f"{rung - 1}a", 0], "y": [f"{rung - 1}b", 0]}
        prompt[f"{rung}a"] = {"class_type": "Load", "inputs": dict(both)}
        prompt[f"{rung}b"] = {"class_type": "Load", "inputs": dict(both)}
    prompt["c"] = {"class_type": "DistributedCollector", "inputs": {"images": [f"{BIG // 2 - 1}a", 0]}}
    return prompt


@pytest.mark.parametrize("make", [chain, fan, ladder])
def test_large_prompts_are_planned_quickly(make: Any) -> None:
    prompt = make()
    capabilities = Capabilities(frozenset({"Load", "Join"}))
    who = [Participant(f"w{n}", f"w{n}", False, capabilities) for n in range(4)]
    started_s = time.perf_counter()
    job = planned(prompt, who)
    built = build_item_prompt(job, job.items[-1])
    assert time.perf_counter() - started_s < GENEROUS_S
    assert len(built) >= BIG - 2
