"""Upscales in a plan: which of them are stages, who takes part, and how their tiles come in later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from flotilla.graph.nesting import stage_ids
from flotilla.graph.plan import JobPlan, Participant, PlanOptions, build_item_prompt, holds_stage, plan_job
from flotilla.graph.preflight import Capabilities
from flotilla.graph.prompt import PromptIndex
from flotilla.graph.saved_plan import load_plan, save_plan
from flotilla.graph.tiles import with_tiles
from flotilla.utils.errors import InvalidPrompt, NobodyCanRun

UPSCALE = "UltimateSDUpscaleDistributed"
TYPES = {
    "Checkpoint": ("MODEL", "CLIP", "VAE"),
    "Paint": ("IMAGE",),
    "Ask": ("STRING",),
    "DistributedSeed": ("INT",),
}
CLASSES = frozenset(TYPES) | {"Encode", "Preview"}


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def person(name: str, *lacks: str) -> Participant:
    return Participant(name, name.upper(), name.startswith("m"), Capabilities(CLASSES - set(lacks)))


def workflow(**more: Any) -> dict[str, Any]:
    inputs = {"upscaled_image": ["2", 0], "model": ["1", 0], "positive": ["4", 0], "vae": ["1", 2]}
    return {
        "1": node("Checkpoint", ckpt_name="sd.safetensors", seed=["6", 0]),
        "2": node("Paint", model=["1", 0], seed=["6", 0]),
        "3": node(UPSCALE, **(inputs | more)),
        "4": node("Encode", text=["5", 0], clip=["1", 1]),
        "5": node("Ask", image=["2", 0]),
        "6": node("DistributedSeed", seed=100),
        "9": node("Preview", images=["3", 0]),
    }


def last(candidates: Sequence[str]) -> str:
    return candidates[-1]


def maybe(prompt: Any, people: str | Sequence[Participant] = "m a b", *, master: bool = True) -> JobPlan | None:
    who = [person(name) for name in people.split()] if isinstance(people, str) else people
    return plan_job(prompt, who, PlanOptions(master), last, TYPES.get)


def plan(prompt: Any, people: str | Sequence[Participant] = "m a b", *, master: bool = True) -> JobPlan:
    made = maybe(prompt, people, master=master)
    assert made is not None
    return made


@pytest.mark.parametrize("class_type", [UPSCALE, "DistributedUpscale"])
def test_an_upscale_is_a_stage_without_items_at_first(class_type: str) -> None:
    prompt = workflow() | {"3": node(class_type, **workflow()["3"]["inputs"])}
    assert holds_stage(prompt)
    job = plan(prompt)
    (stage,) = job.stages
    assert (stage.node_id, stage.class_type, stage.way, stage.on_failure) == ("3", class_type, "tiles", "fail")
    assert (stage.items, job.items, stage.number) == ((), (), 0)
    assert stage.master_takes_part
    assert job.participants == ("m", "a", "b")
    assert stage.side is not None
    assert set(stage.side.nodes) == {"1", "4"}
    assert stage.side.data == {"d0": ("6", 0), "d1": ("5", 0)}


def test_without_workers_it_runs_alone() -> None:
    assert maybe(workflow(), "m") is None
    assert maybe(workflow(items=3), "m") is None, "an upscale cannot ask for a number of items"
    both = workflow() | {"7": node("DistributedCollector", images=["2", 0], items=2)}
    assert [stage.node_id for stage in plan(both, "m").stages] == ["3", "7"]


def test_missing_tiles_may_be_a_failure_or_not() -> None:
    assert plan(workflow(on_failure="partial")).stages[0].on_failure == "partial"
    with pytest.raises(InvalidPrompt, match="on failure"):
        plan(workflow(on_failure="never"))


def test_workers_need_what_computes_tiles_and_not_what_makes_the_image() -> None:
    people = [person("m"), person("a", "Paint", "Ask", "Preview"), person("b", "Encode"), person("c", "Checkpoint")]
    job = plan(workflow(), people)
    assert job.participants == ("m", "a")
    assert job.left_out == {"b": 'lacks node class "Encode"', "c": 'lacks node class "Checkpoint"'}


def test_a_missing_model_is_the_reason_and_a_coordinating_master_is_not_asked() -> None:
    short = Capabilities(CLASSES, {"Checkpoint": {"ckpt_name": ("other.safetensors",)}})
    people = [Participant("m", "M", True, short), person("a"), Participant("b", "B", False, short)]
    reason = 'has no "sd.safetensors" for Checkpoint.ckpt_name'
    taking_part, coordinating = plan(workflow(), people), plan(workflow(), people, master=False)
    assert taking_part.left_out == {"b": reason, "m": reason}
    assert coordinating.left_out == {"b": reason}
    assert not taking_part.stages[0].master_takes_part
    assert not coordinating.stages[0].master_takes_part
    with pytest.raises(NobodyCanRun):
        plan(workflow(), [people[0], people[2]])


def test_inputs_that_older_software_wrote_change_nothing() -> None:
    old = workflow(multi_job_id="exec_1", is_worker=False, enabled_worker_ids="[]", worker_id="", tile_indices="")
    assert plan(old).stages == plan(workflow()).stages


def test_the_fingerprint_does_not_tell_who_takes_part() -> None:
    prints = {plan(workflow(), people).stages[0].fingerprint for people in ("m a", "m a b", "a")}
    assert len(prints) == 1


def test_what_is_above_is_computed_once() -> None:
    assert plan(workflow()).count_at("6") == 1
    both = workflow() | {"7": node("DistributedCollector", images=["2", 0], items=4)}
    job = plan(both)
    assert [stage.node_id for stage in job.stages] == ["3", "7"]
    assert job.count_at("6") == 4, "in the items of the collector it is one of four, in the master's own as well"


def test_a_circle_is_refused() -> None:
    with pytest.raises(InvalidPrompt, match="circle"):
        plan(workflow() | {"5": node("Ask", image=["3", 0])})


# Nesting


def stages(prompt: dict[str, Any]) -> list[str]:
    ids = list(stage_ids(PromptIndex(prompt)))
    assert [stage.node_id for stage in plan(prompt).stages] == ids
    return ids


def collector(source: str, **more: Any) -> dict[str, Any]:
    return node("DistributedCollector", images=[source, 0], **more)


@pytest.mark.parametrize("more", [{}, {"load_balance": True}, {"items": 0}])
def test_a_plain_collector_below_an_upscale_passes_through(more: dict[str, Any]) -> None:
    prompt = workflow() | {"7": collector("3", **more), "8": collector("7")}
    assert stages(prompt) == ["3"]
    assert stages(prompt | {"10": collector("2")}) == ["3", "10"], "one beside it does not"


@pytest.mark.parametrize("class_type", ["DistributedCollector", "DistributedCollectorAny"])
def test_below_it_a_collector_with_items_has_it_run_inside_of_each(class_type: str) -> None:
    prompt = workflow() | {"7": node(class_type, images=["3", 0], items=2), "8": collector("3")}
    assert stages(prompt) == ["7", "8"], "it is no stage, so the plain one beside is"
    job = plan(prompt)
    built = build_item_prompt(job, job.items[1])
    assert built["3"] == prompt["3"]
    assert built["6"]["inputs"]["seed"] == 101
    assert "2" in built


def test_items_that_hold_an_upscale_drop_what_older_software_wrote() -> None:
    job = plan(workflow(multi_job_id="exec_1", dynamic_threshold=8) | {"7": collector("3", items=1)})
    assert build_item_prompt(job, job.items[0])["3"] == workflow()["3"]


def test_above_it_a_collector_is_a_stage_of_its_own() -> None:
    prompt = workflow(upscaled_image=["7", 0]) | {"7": collector("2"), "8": collector("3")}
    assert stages(prompt) == ["7", "3"]
    job = plan(prompt)
    assert [len(stage.items) for stage in job.stages] == [3, 0]
    assert job.count_at("6") == 3


def test_upscales_in_a_row_are_stages_in_graph_order() -> None:
    prompt = workflow() | {"10": node("DistributedUpscale", image=["3", 0], model=["1", 0])}
    assert stages(prompt) == ["3", "10"]
    assert stages(prompt | {"11": collector("10", items=1)}) == ["11"]


# Tiles come


def tiled_job() -> JobPlan:
    prompt = workflow(upscaled_image=["7", 0]) | {"7": collector("2"), "8": node(UPSCALE, model=["1", 0])}
    job = plan(prompt)
    assert [(stage.node_id, len(stage.items)) for stage in job.stages] == [("7", 3), ("3", 0), ("8", 0)]
    return job


def test_tiles_go_on_from_the_last_index_and_are_dealt_in_turn() -> None:
    before = tiled_job()
    job = with_tiles(before, 1, [{"tile": 0}, {"tile": 1}])
    job = with_tiles(job, 2, ["x"])
    job = with_tiles(job, 1, [{"tile": 2}, {"tile": 3}])
    assert [(i.index, i.node_id, i.k, i.count, i.planned_for, i.values, i.stage) for i in job.items[3:]] == [
        (3, "3", 0, 4, "m", {"3": {"tile": 0}}, 1),
        (4, "3", 1, 4, "a", {"3": {"tile": 1}}, 1),
        (5, "8", 0, 1, "m", {"8": "x"}, 2),
        (6, "3", 2, 4, "b", {"3": {"tile": 2}}, 1),
        (7, "3", 3, 4, "m", {"3": {"tile": 3}}, 1),
    ]
    assert [item.index for item in job.items] == list(range(8))
    assert job.stages[1].items == tuple(item for item in job.items if item.stage == 1)
    assert job.stages[0] == before.stages[0]
    assert not any(item.by_master_prompt for item in job.items[3:])
    assert [stage.fingerprint for stage in job.stages] == [stage.fingerprint for stage in before.stages]
    assert before == tiled_job()


def test_only_stages_of_tiles_get_items_later() -> None:
    with pytest.raises(ValueError, match="stages of tiles"):
        with_tiles(tiled_job(), 0, ["x"])


def test_the_prompt_of_a_tile_is_not_made_of_the_plan_alone() -> None:
    job = with_tiles(tiled_job(), 1, ["x"])
    with pytest.raises(ValueError, match="model side"):
        build_item_prompt(job, job.items[-1])


# Over restarts


def loaded(saved: Any, prompt: dict[str, Any], people: str = "m a b", *, master: bool = True) -> JobPlan:
    who = [person(name) for name in people.split()]
    return load_plan(json.loads(json.dumps(saved)), prompt, who, (), PlanOptions(master), TYPES.get)


def test_a_saved_plan_holds_no_tiles() -> None:
    before = tiled_job()
    saved = save_plan(with_tiles(before, 1, [{"tile": 0}] * 5))
    assert saved == save_plan(before)
    assert saved["format"] == 1
    assert loaded(saved, before.prompt) == before


def test_the_master_may_have_stopped_taking_part_meanwhile() -> None:
    job = plan(workflow())
    again = loaded(save_plan(job), job.prompt, master=False)
    assert not again.stages[0].master_takes_part
    assert again.participants == ("a", "b")
    assert again.stages[0].side == job.stages[0].side


def test_plans_from_before_there_were_upscales_load_as_they_were() -> None:
    prompt = workflow() | {"7": collector("3")}
    collectors_only = {
        "format": 1,
        "stages": [
            {
                "node_id": "7",
                "class_type": "DistributedCollector",
                "way": "one_each",
                "on_failure": "fail",
                "planned_for": ["m", "a"],
                "by_master_prompt": [0],
                "values": {"6": [100, 101]},
            }
        ],
    }
    again = loaded(collectors_only, prompt)
    assert [(item.node_id, item.values) for item in again.items] == [("7", {"6": 100}), ("7", {"6": 101})]


def test_a_saved_plan_that_counts_tiles_as_something_else_is_refused() -> None:
    job = plan(workflow())
    saved = save_plan(job)
    saved["stages"][0]["way"] = "one_each"
    with pytest.raises(InvalidPrompt, match="asked for something else"):
        loaded(saved, job.prompt)
