"""Stages of tiles over random graphs: a worker computes what the master would, and nothing that it need not."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from flotilla.graph.classes import STAGE_CLASSES, TILE_CLASSES
from flotilla.graph.model_side import Blob, Constant, DataValue, ModelSide, model_side
from flotilla.graph.nesting import stage_ids
from flotilla.graph.plan import JobPlan, Participant, PlanOptions, plan_job
from flotilla.graph.preflight import Capabilities
from flotilla.graph.prompt import PromptIndex, is_link
from flotilla.graph.saved_plan import load_plan, save_plan
from flotilla.graph.tiles import with_tiles
from flotilla.graph.values import ValueMap, model_name
from hypothesis import given
from hypothesis import strategies as st

Prompt = dict[str, Any]

TYPES: dict[str, Sequence[object]] = {
    "Load": ("MODEL", "CLIP", "IMAGE"),
    "Encode": ("CONDITIONING", "STRING"),
    "Paint": ("IMAGE", "MASK", "LATENT"),
    "Reroute": ("*", "*", "*"),
    "Names": (["a", "b"], "COMBO", "INT"),
    "DistributedSeed": ("INT",),
    "DistributedPrompts": ("STRING",),
    "DistributedItem": ("INT", "INT"),
    "DistributedCollector": ("IMAGE", "AUDIO"),
}
PLAIN = ["Load", "Encode", "Paint", "Reroute", "Names", "Unheard"]
OWN = ["DistributedSeed", "DistributedPrompts", "DistributedItem", "DistributedValue", "DistributedModelName"]
STAGES = ["DistributedCollector", "UltimateSDUpscaleDistributed", "DistributedUpscale"]
MODEL_INPUTS = ("model", "positive", "negative", "vae", "custom_sigmas", "upscale_model")
BIG = 5_000
GENEROUS_S = 5.0


def _outputs(class_type: str) -> int:
    return len(TYPES.get(class_type, "???"))


@st.composite
def graphs(draw: st.DrawFn) -> Prompt:
    """A prompt without circles, whose last node is an upscale."""
    count = draw(st.integers(2, 14))
    names = draw(st.permutations([str(number) for number in range(count)]))
    prompt: Prompt = {}
    for place, name in enumerate(names):
        outputs = [[one, slot] for one in names[:place] for slot in range(_outputs(prompt[one]["class_type"]))]
        link = st.sampled_from(outputs) if outputs else st.just("none")
        values = link | st.integers(0, 3) | st.just("text")
        inputs = draw(st.dictionaries(st.sampled_from(["x", "y", "z", "worker_id"]), values, max_size=4))
        last = place == count - 1
        kinds = PLAIN + OWN + (STAGES if place else [])
        class_type = draw(st.sampled_from(STAGES[1:] if last else kinds))
        if class_type == "DistributedCollector":
            inputs |= {"images": draw(link), "items": draw(st.sampled_from([0, 0, 2]))}
        elif class_type in TILE_CLASSES:
            roots = draw(st.sets(st.sampled_from(MODEL_INPUTS), min_size=1))
            inputs |= {"image": draw(link)} | {root: draw(link) for root in sorted(roots)}
        elif class_type == "DistributedSeed":
            inputs["seed"] = draw(st.integers(0, 9))
        elif class_type == "DistributedValue":
            inputs |= {"default_value": draw(link | st.just("7")), "worker_values": '{"1": "8", "_type": "INT"}'}
        elif class_type in ("DistributedModelName", "DistributedPrompts"):
            inputs["text"] = draw(link | st.just("name"))
        prompt[name] = {"class_type": class_type, "inputs": inputs}
    order = draw(st.permutations(list(names)))
    return {name: prompt[name] for name in order}


def upscales(prompt: Prompt) -> list[str]:
    return [name for name, node in prompt.items() if node["class_type"] in TILE_CLASSES]


def sides(prompt: Prompt) -> list[ModelSide]:
    return [model_side(PromptIndex(prompt), name, TYPES.get) for name in upscales(prompt)]


class Host:
    """Computes outputs as texts that tell how they were made: equal texts, equal results."""

    def __init__(self, prompt: Prompt, blobs: Mapping[str, str]) -> None:
        self._prompt = prompt
        self._blobs = blobs

    def output(self, node_id: str, slot: int) -> str:
        node = self._prompt[node_id]
        class_type, inputs = node["class_type"], node["inputs"]
        if class_type == "FlotillaInput":
            return self._blobs[inputs["hash"]]
        if class_type == "FlotillaConstant":
            return str(inputs["value"]["__value__"])
        if class_type == "DistributedModelName":
            name = model_name(inputs["text"])
            return self._input(inputs["text"]) if name is None else f"'{name}'"
        if class_type == "DistributedValue" and not is_link(inputs["default_value"]):
            return repr(ValueMap.parse(inputs["worker_values"]).default(inputs["default_value"]))
        hidden = {"worker_id", "worker_values"} if class_type.startswith("Distributed") else set()
        parts = (f"{name}={self._input(inputs[name])}" for name in sorted(inputs) if name not in hidden)
        return f"{class_type}.{slot}({', '.join(parts)})"

    def _input(self, value: Any) -> str:
        if is_link(value):
            return self.output(*value)
        # Data that are written in stand for themselves.
        return value.removeprefix("written ") if str(value).startswith("written ") else repr(value)


def sent(side: ModelSide, master: Host) -> tuple[dict[str, DataValue], dict[str, str]]:
    """The data as the master evaluates them: by key, and the blobs among them by hash."""
    texts = {key: master.output(*source) for key, source in side.data.items()}
    values: dict[str, DataValue] = {}
    for place, (key, text) in enumerate(texts.items()):
        if key in side.choices:
            values[key] = Constant(f"written {text}")
        else:
            values[key] = Constant(text) if place % 2 else Blob(key)
    return values, texts


@given(graphs())
def test_a_worker_computes_what_the_master_would(prompt: Prompt) -> None:
    before = copy.deepcopy(prompt)
    for side in sides(prompt):
        master = Host(prompt, {})
        values, blobs = sent(side, master)
        built = side.prompt(values, "FlotillaTile", {"pixels": "hash"})
        worker = Host(built, blobs)
        root = built[side.stage_id]["inputs"]
        assert {name: root[name] for name in side.roots}.keys() == side.roots.keys()
        for name, link in side.roots.items():
            assert worker._input(root[name]).removeprefix("written ") == master._input(link)
        assert json.loads(json.dumps(built)) == built
        assert PromptIndex(built).upstream([side.stage_id]) == set(built), "nothing that nobody takes"
        PromptIndex(built).topological()
        assert built == side.prompt(values, "FlotillaTile", {"pixels": "hash"})
    assert prompt == before


@given(graphs())
def test_it_ends_where_data_begin(prompt: Prompt) -> None:
    for side in sides(prompt):
        taken = [value for node in side.nodes.values() for value in node["inputs"].values() if is_link(value)]
        taken += side.roots.values()
        for source, slot in taken:
            class_type = prompt[source]["class_type"]
            name = TYPES.get(class_type, "???")[slot]
            is_data = isinstance(name, list) or name in ("IMAGE", "MASK", "LATENT", "AUDIO", "STRING", "INT", "COMBO")
            assert ((source, slot) in side.data.values()) == (is_data or class_type in STAGE_CLASSES)
        models = {source for source, slot in taken if (source, slot) not in side.data.values()}
        assert set(side.nodes) == models, "every node is there for an output that is no data"
        assert set(side.data.values()) == {(source, slot) for source, slot in taken if source not in models} | {
            one for one in side.data.values() if one[0] in models
        }


@given(graphs(), st.sets(st.integers(0, 9)))
def test_what_is_ready_depends_on_what_is_known(prompt: Prompt, numbers: set[int]) -> None:
    for side in sides(prompt):
        values, blobs = sent(side, Host(prompt, {}))
        known = {key: value for place, (key, value) in enumerate(values.items()) if place in numbers}
        built = side.prompt_ready("FlotillaPrepare", {}, known)
        whole = Host(side.prompt(values, "FlotillaTile", {}), blobs)
        if built is None:
            assert side.ready(known) == {}
            continue
        early = Host(built, blobs)
        for name, link in side.ready(known).items():
            taken = built[side.stage_id]["inputs"][name]
            if tuple(link) not in side.data.values():
                assert early._input(taken) == whole._input(link)
        waits = {key for key in side.data if key not in known}
        for name in side.roots:
            assert (name in side.ready(known)) == (not waits & set(side.needed([name])))


@given(graphs())
def test_which_nodes_are_stages(prompt: Prompt) -> None:
    index = PromptIndex(prompt)
    found = set(stage_ids(index))
    order = index.topological()
    assert list(stage_ids(index)) == [node_id for node_id in order if node_id in found]
    for node_id in order:
        if index.class_of(node_id) not in STAGE_CLASSES:
            assert node_id not in found
            continue
        below = index.downstream([node_id]) - {node_id}
        above = index.upstream([node_id]) - {node_id}
        if index.class_of(node_id) in TILE_CLASSES:
            assert (node_id in found) == (not any(index.inputs_of(one).get("items") == 2 for one in below))
        elif index.inputs_of(node_id)["items"]:
            assert node_id in found
        else:
            assert (node_id in found) == (not any(one in found for one in above if one in upscales(prompt)))


def last(candidates: Sequence[str]) -> str:
    return candidates[-1]


def planned(prompt: Prompt, who: list[Participant]) -> JobPlan:
    job = plan_job(prompt, who, PlanOptions(), last, TYPES.get)
    assert job is not None
    return job


@given(graphs(), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=6))
def test_tiles_come_in_any_order_and_leave_the_rest_as_it_is(prompt: Prompt, calls: list[tuple[int, int]]) -> None:
    who = [Participant("m", "M", True), Participant("a", "A", False)]
    first = job = planned(prompt, who)
    waiting = [stage.number for stage in job.stages if stage.way == "tiles"]
    for which, count in calls:
        if waiting:
            job = with_tiles(job, waiting[which % len(waiting)], [{"tile": n} for n in range(count)])
    assert [item.index for item in job.items] == list(range(len(job.items)))
    assert job.items[: len(first.items)] == first.items
    for stage in job.stages:
        assert stage.items == tuple(item for item in job.items if item.stage == stage.number)
        assert [(item.k, item.count) for item in stage.items] == [
            (k, len(stage.items)) for k in range(len(stage.items))
        ]
    again = load_plan(json.loads(json.dumps(save_plan(job))), prompt, who, (), PlanOptions(), TYPES.get)
    assert again == first


def chain() -> Prompt:
    prompt: Prompt = {"0": {"class_type": "Load", "inputs": {}}}
    for place in range(1, BIG):
        inputs = {"x": [str(place - 1), 0], "image": ["0", 2], "n": place}
        prompt[str(place)] = {"class_type": "Load", "inputs": inputs}
    prompt["c"] = {"class_type": STAGES[1], "inputs": {"model": [str(BIG - 1), 0], "positive": ["7", 1]}}
    return prompt


def ladder() -> Prompt:
    """Two rails with a link to both at every rung: a walk that does not remember takes 2^n steps."""
    prompt: Prompt = {"0a": {"class_type": "Load", "inputs": {}}, "0b": {"class_type": "Load", "inputs": {}}}
    for rung in range(1, BIG // 2):
        both = {"x": [f"{rung - 1}a", 0], "y": [f"{rung - 1}b", 0], "image": [f"{rung - 1}a", 2]}
        prompt[f"{rung}a"] = {"class_type": "Load", "inputs": dict(both)}
        prompt[f"{rung}b"] = {"class_type": "Load", "inputs": dict(both)}
    prompt["c"] = {"class_type": STAGES[1], "inputs": {"model": [f"{BIG // 2 - 1}a", 0]}}
    return prompt


def many_stages() -> Prompt:
    prompt: Prompt = {"0": {"class_type": "Load", "inputs": {}}}
    for place in range(1, BIG):
        class_type = STAGES[1] if place % 2 else "DistributedCollector"
        inputs = {"image": [str(place - 1), 0], "images": [str(place - 1), 0], "model": ["0", 0]}
        prompt[str(place)] = {"class_type": class_type, "inputs": inputs}
    return prompt


@pytest.mark.parametrize("make", [chain, ladder, many_stages])
def test_large_prompts_are_planned_quickly(make: Callable[[], Prompt]) -> None:
    prompt = make()
    capabilities = Capabilities(frozenset({"Load"}))
    who = [Participant(f"w{n}", f"w{n}", False, capabilities) for n in range(4)]
    started_s = time.perf_counter()
    job = planned(prompt, who)
    stage = job.stages[-1]
    assert stage.side is not None
    job = with_tiles(job, stage.number, list(range(BIG)))
    built = stage.side.prompt(dict.fromkeys(stage.side.data, Blob("h")), "FlotillaTile", {})
    stage.side.prompt_ready("FlotillaPrepare", {})
    assert time.perf_counter() - started_s < GENEROUS_S
    assert len(built) >= 2
