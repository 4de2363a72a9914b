"""What one item's prompt looks like."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from flotilla.graph.items import ItemValues, item_prompt, varying_nodes
from flotilla.graph.prompt import PromptIndex
from flotilla.utils.errors import InvalidPrompt


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def built(
    prompt: dict[str, Any], k: int = 2, count: int = 3, worker: tuple[str, int] | None = ("w", 1), stage: str = "c"
) -> dict[str, Any]:
    """The prompt of item ``k``; fails when building it changes the user's prompt."""
    before = copy.deepcopy(prompt)
    index = PromptIndex(prompt)
    values = ItemValues(index, varying_nodes(index, stage)).of(k, count, worker)
    result = item_prompt(index, stage, values)
    assert prompt == before
    return result


def txt2img(**seed: Any) -> dict[str, Any]:
    return {
        "s": node("DistributedSeed", **seed),
        "k": node("KSampler", seed=["s", 0], steps=20),
        "c": {"class_type": "DistributedCollector", "inputs": {"images": ["k", 0]}, "_meta": {"title": "Gather"}},
        "p": node("PreviewImage", images=["c", 0]),
        "x": node("Unrelated"),
    }


def test_only_the_stage_and_what_it_needs_remain() -> None:
    prompt = built(txt2img(seed=100))
    assert prompt == {
        "s": node("DistributedSeed", seed=102),
        "k": node("KSampler", seed=["s", 0], steps=20),
        "c": {"class_type": "FlotillaDeliver", "inputs": {"images": ["k", 0]}, "_meta": {"title": "Gather"}},
    }


def test_the_order_of_nodes_is_the_users() -> None:
    assert list(built(txt2img(seed=1))) == ["s", "k", "c"]


def test_item_zero_has_the_plain_seed() -> None:
    assert built(txt2img(seed=100), k=0)["s"]["inputs"] == {"seed": 100}


def test_a_seed_written_as_text_counts_as_a_number() -> None:
    assert built(txt2img(seed="100"))["s"]["inputs"] == {"seed": 102}


def test_a_seed_that_is_no_number_is_left_to_the_host() -> None:
    assert built(txt2img(seed="many"))["s"]["inputs"] == {"seed": "many"}


def test_a_linked_seed_becomes_an_offset_under_the_same_id() -> None:
    prompt = txt2img(seed=["n", 1]) | {"n": node("PrimitiveInt", value=5)}
    result = built(prompt)
    assert result["s"] == node("FlotillaOffset", value=["n", 1], offset=2)
    assert result["k"]["inputs"]["seed"] == ["s", 0]
    assert result["n"] == prompt["n"]


def test_deliver_keeps_links_and_constant_data_and_nothing_that_steers() -> None:
    prompt = {
        "a": node("Load"),
        "b": node("Switch"),
        "c": node(
            "DistributedCollector",
            images=["a", 0],
            audio={"waveform": "constant"},
            mask=None,
            extra=["a", 1],
            load_balance=["b", 0],
            items=4,
            multi_job_id=["b", 0],
            worker_id="w",
        ),
    }
    result = built(prompt)
    assert result["c"]["inputs"] == {"images": ["a", 0], "audio": {"waveform": "constant"}, "extra": ["a", 1]}
    assert "b" not in result


@pytest.mark.parametrize("inputs", [{}, {"load_balance": True}, {"images": None}, {"load_balance": ["a", 0]}])
def test_a_collector_without_anything_to_collect_is_refused_by_name(inputs: dict[str, Any]) -> None:
    with pytest.raises(InvalidPrompt, match=r'Nothing is connected to node "c" \(DistributedCollector\)') as caught:
        built({"a": node("A"), "c": node("DistributedCollector", **inputs)})
    assert caught.value.details == {"node_id": "c", "class_type": "DistributedCollector"}
    assert "images" in caught.value.cure


def with_value(default: Any, values: Any, **more: Any) -> dict[str, Any]:
    return {
        "n": node("Number"),
        "v": node("DistributedValue", default_value=default, worker_values=values, **more),
        "k": node("KSampler", steps=["v", 0]),
        "c": node("DistributedCollector", images=["k", 0]),
    }


MAP = json.dumps({"1": "3", "2": "4", "_type": "INT", "_by_worker_id": {"z": "9"}})


@pytest.mark.parametrize(
    ("worker", "expected"), [(None, 7), (("a", 1), 3), (("b", 2), 4), (("c", 3), 7), (("z", 1), 9), (("z", 3), 9)]
)
def test_distributed_values(worker: tuple[str, int] | None, expected: int) -> None:
    prompt = with_value("7", MAP, _dv_default=7, _dv_worker_1=3, is_worker=True, worker_id="worker_0")
    result = built(prompt, worker=worker)["v"]
    assert result["class_type"] == "DistributedValue"
    assert result["inputs"].pop("worker_values") == '{"_type": "INT"}'
    assert result["inputs"] == {"default_value": expected}


def test_a_linked_default_stays_linked_only_where_it_is_needed() -> None:
    prompt = with_value(["n", 0], MAP)
    kept = built(prompt, worker=("nobody", 9))
    assert kept["v"]["inputs"]["default_value"] == ["n", 0]
    assert "n" in kept
    replaced = built(prompt, worker=("a", 1))
    assert replaced["v"]["inputs"]["default_value"] == 3
    assert "n" not in replaced, "what only fed the default is not computed for nothing"


def test_a_linked_map_leaves_the_default() -> None:
    result = built(with_value("7", ["n", 0]))["v"]["inputs"]
    assert result == {"default_value": "7", "worker_values": ["n", 0]}


def test_a_value_that_looks_like_a_link_is_no_link() -> None:
    result = built(with_value("", {"1": ["missing", 0]}))
    assert result["v"]["inputs"]["default_value"] == {"__value__": ["missing", 0]}


def test_distributed_item() -> None:
    prompt = {"i": node("DistributedItem"), "c": node("DistributedCollector", images=["i", 0])}
    assert built(prompt)["i"] == node("FlotillaItem", index=2, count=3)


def test_distributed_prompts() -> None:
    prompt = {"t": node("DistributedPrompts", text="a\n\nb\n"), "c": node("DistributedCollector", images=["t", 0])}
    assert [built(prompt, k=k)["t"]["inputs"]["text"] for k in range(3)] == ["a", "b", "a"]


def test_linked_prompts_are_picked_when_they_are_known() -> None:
    prompt = {
        "n": node("Text"),
        "t": node("DistributedPrompts", text=["n", 0]),
        "c": node("DistributedCollector", images=["t", 0]),
    }
    assert built(prompt)["t"] == node("FlotillaPick", text=["n", 0], index=2)


def with_model(text: Any) -> dict[str, Any]:
    return {
        "n": node("Text"),
        "m": node("DistributedModelName", text=text),
        "l": node("CheckpointLoaderSimple", ckpt_name=["m", 0]),
        "c": node("DistributedCollector", images=["l", 0]),
    }


@pytest.mark.parametrize(
    "text", ["x.safetensors", ["x.safetensors"], [["x.safetensors"]], {"__value__": ["x.safetensors"]}]
)
def test_a_constant_model_name_is_written_where_it_is_used(text: Any) -> None:
    result = built(with_model(text))
    assert result["l"]["inputs"]["ckpt_name"] == "x.safetensors"
    assert set(result) == {"l", "c"}


def test_names_of_names_are_followed() -> None:
    prompt = with_model(["m2", 0]) | {"m2": node("DistributedModelName", text="x")}
    assert built(prompt)["l"]["inputs"]["ckpt_name"] == "x"


def test_a_linked_model_name_stays() -> None:
    result = built(with_model(["n", 0]))
    assert result["l"]["inputs"]["ckpt_name"] == ["m", 0]
    assert result["m"] == node("DistributedModelName", text=["n", 0])
    assert "n" in result


def test_several_names_stay() -> None:
    prompt = with_model([["a", "b"]])
    assert built(prompt)["m"] == prompt["m"]


def test_inner_collectors_stay_and_lose_what_an_orchestrator_wrote() -> None:
    prompt = {
        "a": node("Load"),
        "inner": node(
            "DistributedCollector", images=["a", 0], load_balance=False, multi_job_id="exec_1", delegate_only=True
        ),
        "c": node("DistributedCollector", images=["inner", 0]),
    }
    assert built(prompt)["inner"] == node("DistributedCollector", images=["a", 0], load_balance=False)


def test_names_of_injected_inputs_are_free_on_other_peoples_nodes() -> None:
    prompt = {
        "a": node("SomebodysNode", worker_id="x", is_worker=True, _dv_default=1),
        "u": node(
            "UltimateSDUpscaleDistributed", image=["a", 0], multi_job_id="exec_1", tile_indices="", dynamic_threshold=8
        ),
        "c": node("DistributedCollector", images=["u", 0]),
    }
    result = built(prompt)
    assert result["a"] == prompt["a"]
    assert result["u"] == node("UltimateSDUpscaleDistributed", image=["a", 0])


def test_nothing_is_shared_with_the_users_prompt_or_between_two_builds() -> None:
    prompt = {"a": node("Load", points={"x": [1, 2]}), "c": node("DistributedCollector", images=["a", 0])}
    first, second = built(prompt), built(prompt)
    assert first == second
    first["a"]["inputs"]["points"]["x"].append(3)
    first["c"]["inputs"]["images"][1] = 5
    assert second["a"]["inputs"]["points"]["x"] == prompt["a"]["inputs"]["points"]["x"] == [1, 2]
    assert second["c"]["inputs"]["images"] == prompt["c"]["inputs"]["images"] == ["a", 0]


def test_item_prompts_and_values_are_json() -> None:
    prompt = with_value("7", {"1": {"a": [1]}}) | {"s": node("DistributedSeed", seed=1)}
    prompt["k"]["inputs"]["seed"] = ["s", 0]
    result = built(prompt)
    assert json.loads(json.dumps(result)) == result
