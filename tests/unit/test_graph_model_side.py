"""What computing a tile takes, and where plain data are cut off from it."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

import pytest
from flotilla.graph.model_side import Blob, Constant, DataValue, ModelSide, model_side, no_types
from flotilla.graph.preflight import Capabilities, fit
from flotilla.graph.prompt import PromptIndex
from flotilla.utils.errors import InvalidPrompt

Prompt = dict[str, dict[str, Any]]


class Chameleon(str):
    """How packs write a type that goes with everything."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, _other: object) -> bool:
        return True

    def __ne__(self, _other: object) -> bool:
        return False


class Endless(tuple[Any, ...]):
    """How packs write outputs without number."""

    __slots__ = ()

    def __getitem__(self, _place: Any) -> Any:
        return "STRING"


TYPES: dict[str, Sequence[object]] = {
    "Checkpoint": ("MODEL", "CLIP", "VAE"),
    "Lora": ("MODEL", "CLIP"),
    "TextEncode": ("CONDITIONING",),
    "ControlNetLoader": ("CONTROL_NET",),
    "ControlNetApply": ("CONDITIONING", "CONDITIONING"),
    "LoadImage": ("IMAGE", "MASK"),
    "ImageResize": ("IMAGE", "INT", "INT"),
    "Reroute": ("*",),
    "AnyReroute": (Chameleon("*"),),
    "Interrogator": ("STRING",),
    "Many": Endless(),
    "IPAdapter": ("MODEL",),
    "KSampler": ("LATENT",),
    "VAEDecode": ("IMAGE",),
    "Names": (["one.safetensors", "two.safetensors"],),
    "NamesV3": ("COMBO",),
    "Either": ("INT,FLOAT",),
    "ImageOrModel": ("IMAGE,MODEL",),
    "Odd": (7,),
    "SamplerSelect": ("SAMPLER",),
    "Scheduler": ("SIGMAS",),
    "DistributedSeed": ("INT",),
    "DistributedItem": ("INT", "INT"),
    "DistributedPrompts": ("STRING",),
    "DistributedValue": ("*",),
    "DistributedModelName": ("*",),
    "DistributedCollector": ("IMAGE", "AUDIO"),
    "DistributedCollectorAny": ("*",),
}


def types_of(class_type: str) -> Sequence[object] | None:
    return TYPES.get(class_type)


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def upscale(**more: Any) -> Prompt:
    """The image maker and the upscale share a checkpoint, as in most workflows."""
    inputs: dict[str, Any] = {
        "upscaled_image": ["8", 0],
        "model": ["1", 0],
        "positive": ["2", 0],
        "negative": ["3", 0],
        "vae": ["1", 2],
        "seed": ["20", 0],
        "steps": 20,
        "multi_job_id": "exec_1",
        "tile_indices": "",
    }
    return {
        "1": node("Checkpoint", ckpt_name="sd.safetensors"),
        "2": node("TextEncode", clip=["1", 1], text="a cat"),
        "3": node("TextEncode", clip=["1", 1], text=""),
        "7": node("KSampler", model=["1", 0], positive=["2", 0], seed=["20", 0]),
        "8": node("VAEDecode", samples=["7", 0], vae=["1", 2]),
        "9": node("UltimateSDUpscaleDistributed", **(inputs | more)),
        "20": node("DistributedSeed", seed=5),
    }


def side_of(prompt: Prompt, types: Any = types_of) -> ModelSide:
    return model_side(PromptIndex(prompt), "9", types)


def test_a_shared_checkpoint_is_run_and_the_image_maker_is_not() -> None:
    prompt = upscale()
    side = side_of(prompt)
    assert side.nodes == {key: prompt[key] for key in ("1", "2", "3")}
    assert side.data == {}
    assert side.roots == {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "vae": ["1", 2]}


def test_the_prompt_of_a_tile() -> None:
    prompt = upscale()
    built = side_of(prompt).prompt({}, "FlotillaTile", {"pixels": "hash", "place": "{}"})
    assert built == {
        "1": prompt["1"],
        "2": prompt["2"],
        "3": prompt["3"],
        "9": node(
            "FlotillaTile",
            pixels="hash",
            place="{}",
            model=["1", 0],
            positive=["2", 0],
            negative=["3", 0],
            vae=["1", 2],
        ),
    }


def test_what_is_built_shares_nothing_and_changes_nothing() -> None:
    prompt = upscale()
    prompt["1"]["_meta"] = {"title": "Load"}
    before = copy.deepcopy(prompt)
    side = side_of(prompt)
    inputs = {"place": ["kept"]}
    built = side.prompt({}, "FlotillaTile", inputs)
    assert built["1"]["_meta"] == {"title": "Load"}
    built["1"]["_meta"]["title"] = built["9"]["inputs"]["model"][0] = built["9"]["inputs"]["place"][0] = "changed"
    assert prompt == before
    assert side.roots["model"] == ["1", 0]
    assert inputs == {"place": ["kept"]}
    assert side.prompt({}, "FlotillaTile", {})["9"]["inputs"]["model"] == ["1", 0]


def hinted() -> Prompt:
    """A ControlNet whose hint is made of the same image, through nodes that hide their type; an interrogator."""
    return upscale(positive=["5", 0], negative=["5", 1]) | {
        "2": node("TextEncode", clip=["1", 1], text=["10", 0]),
        "4": node("ControlNetLoader", control_net_name="tile.safetensors"),
        "5": node("ControlNetApply", control_net=["4", 0], image=["6", 0], negative=["3", 0], positive=["2", 0]),
        "6": node("Reroute", anything=["11", 0]),
        "10": node("Interrogator", image=["8", 0]),
        "11": node("AnyReroute", anything=["8", 0]),
    }


def test_hints_and_texts_are_cut_off_behind_nodes_without_a_type() -> None:
    prompt = hinted()
    side = side_of(prompt)
    assert set(side.nodes) == {"1", "2", "3", "4", "5", "6", "11"}
    assert side.data == {"d0": ("8", 0), "d1": ("10", 0)}
    built = side.prompt({"d0": Blob("h"), "d1": Constant("a dog")}, "FlotillaTile", {})
    assert built["9.d0"] == node("FlotillaInput", hash="h", name="value")
    assert built["9.d1"] == node("FlotillaConstant", value={"__value__": "a dog"})
    assert built["11"]["inputs"] == {"anything": ["9.d0", 0]}
    assert built["2"]["inputs"] == {"clip": ["1", 1], "text": ["9.d1", 0]}
    assert side.nodes["2"] == prompt["2"], "the side itself stays as it is"
    assert not {"7", "8", "10", "20"} & built.keys()


def test_one_key_for_one_output_however_many_take_it() -> None:
    prompt = hinted()
    prompt["12"] = node("ControlNetApply", control_net=["4", 0], image=["8", 0], positive=["5", 0], negative=["5", 1])
    prompt["9"]["inputs"] |= {"positive": ["12", 0], "negative": ["12", 1]}
    side = side_of(prompt)
    assert sorted(side.data.values()) == [("10", 0), ("8", 0)]
    built = side.prompt(dict.fromkeys(side.data, Blob("h")), "FlotillaTile", {})
    assert [one["class_type"] for one in built.values()].count("FlotillaInput") == 2


def test_keys_follow_from_the_graph_alone() -> None:
    prompt = hinted()
    turned = {
        key: node(one["class_type"], **dict(reversed(one["inputs"].items()))) for key, one in reversed(prompt.items())
    }
    assert side_of(turned).data == side_of(prompt).data
    assert list(side_of(turned).data) == ["d0", "d1"]


def test_several_outputs_of_one_node_are_several_data() -> None:
    prompt = upscale(model=["4", 0]) | {
        "4": node("IPAdapter", image=["5", 0], mask=["5", 1], model=["6", 0], width=["8", 0], height=["8", 0]),
        "5": node("LoadImage", image="face.png"),
        "6": node("Lora", lora_name="x", model=["1", 0], clip=["1", 1], strength=["7", 0]),
        "8": node("ImageResize", image=["5", 0]),
    }
    prompt["4"]["inputs"] |= {"width": ["8", 1], "height": ["8", 2]}
    side = side_of(prompt)
    assert list(side.data.items()) == [
        ("d0", ("8", 2)),
        ("d1", ("5", 0)),
        ("d2", ("5", 1)),
        ("d3", ("7", 0)),
        ("d4", ("8", 1)),
    ]
    assert set(side.nodes) == {"1", "2", "3", "4", "6"}, "no loader of images: workers need not have the file"


@pytest.mark.parametrize("class_type", ["Unheard", "Odd", "ImageOrModel", "Reroute", "AnyReroute"])
def test_what_may_be_a_model_is_walked_through(class_type: str) -> None:
    prompt = upscale(model=["4", 0]) | {"4": node(class_type, x=["1", 0])}
    assert side_of(prompt).data == {}
    assert "4" in side_of(prompt).nodes


@pytest.mark.parametrize(("class_type", "slot"), [("Many", 40), ("Either", 0), ("Interrogator", 0)])
def test_what_can_only_be_data_is_cut(class_type: str, slot: int) -> None:
    prompt = upscale(model=["4", 0]) | {
        "4": node("Lora", model=["1", 0], x=["5", slot]),
        "5": node(class_type, image=["8", 0]),
    }
    assert side_of(prompt).data == {"d0": ("5", slot)}


@pytest.mark.parametrize("slot", [-1, 1, 99])
def test_an_output_that_is_not_there_is_left_to_the_host(slot: int) -> None:
    prompt = upscale(model=["4", 0]) | {"4": node("IPAdapter", x=["5", slot]), "5": node("Interrogator")}
    assert side_of(prompt).data == {}


def test_nothing_is_data_to_whoever_knows_no_types() -> None:
    assert {"7", "8", "10"} <= side_of(hinted(), no_types).nodes.keys()


@pytest.mark.parametrize("value", [None, 2.5, ["a", 1], {"__value__": 1}, True, "text"])
def test_constants_come_over_a_link_and_keep_their_shape(value: Any) -> None:
    prompt = hinted()
    built = side_of(prompt).prompt({"d0": Blob("h"), "d1": Constant(value)}, "FlotillaTile", {})
    assert built["9.d1"]["inputs"] == {"value": {"__value__": value}}


@pytest.mark.parametrize("class_type", ["Names", "NamesV3"])
def test_choices_are_written_in_and_spelt_as_the_worker_has_them(class_type: str) -> None:
    prompt = upscale(model=["4", 0]) | {
        "4": node("Lora", model=["1", 0], lora_name=["5", 0]),
        "5": node(class_type, x=["8", 0]),
    }
    side = side_of(prompt)
    built = side.prompt({"d0": Constant("a/one.safetensors")}, "FlotillaTile", {})
    assert built["4"]["inputs"]["lora_name"] == "a/one.safetensors"
    lists = {"Lora": {"lora_name": ("a\\one.safetensors",)}}
    fitted, missing = fit(built, Capabilities(frozenset({"Lora", "Checkpoint", "TextEncode"}), lists))
    assert fitted["4"]["inputs"]["lora_name"] == "a\\one.safetensors"
    assert missing == []
    several = side.prompt({"d0": Constant(["one", 1])}, "FlotillaTile", {})
    assert several["4"]["inputs"]["lora_name"] == {"__value__": ["one", 1]}


def test_varying_nodes_are_data_and_values_have_their_default() -> None:
    prompt = upscale(model=["4", 0], positive=["5", 0]) | {
        "4": node("Lora", model=["1", 0], lora_name=["6", 0], strength=["11", 0], x=["20", 0]),
        "5": node("TextEncode", clip=["4", 1], text=["12", 0], number=["13", 1]),
        "6": node("DistributedModelName", text=[["style.safetensors"]]),
        "11": node("DistributedValue", default_value="0.5", worker_values='{"1": 7, "_type": "FLOAT"}', _dv_default=1),
        "12": node("DistributedPrompts", text="a\nb"),
        "13": node("DistributedItem"),
    }
    side = side_of(prompt)
    assert sorted(side.data.values()) == [("12", 0), ("13", 1), ("20", 0)]
    assert side.nodes["4"]["inputs"]["lora_name"] == "style.safetensors"
    assert "6" not in side.nodes
    assert side.nodes["11"] == node("DistributedValue", default_value=0.5, worker_values='{"_type": "FLOAT"}')


def test_a_linked_model_name_takes_its_text_from_the_master() -> None:
    prompt = upscale(model=["4", 0]) | {
        "4": node("Lora", model=["1", 0], lora_name=["6", 0]),
        "6": node("DistributedModelName", text=["10", 0]),
        "10": node("Interrogator", image=["8", 0]),
    }
    assert side_of(prompt).data == {"d0": ("10", 0)}
    assert "6" in side_of(prompt).nodes


@pytest.mark.parametrize("class_type", ["DistributedCollector", "DistributedCollectorAny", "DistributedUpscale"])
def test_what_other_stages_give_is_never_made_anew(class_type: str) -> None:
    prompt = upscale(positive=["4", 0]) | {
        "4": node("TextEncode", clip=["1", 1], text=["5", 3]),
        "5": node(class_type, value=["8", 0]),
    }
    assert side_of(prompt).data == {"d0": ("5", 3)}


def test_parts_need_only_their_own() -> None:
    prompt = hinted() | {"30": node("UpscaleLoader", model_name="x4.pth")}
    prompt["9"] = node("DistributedUpscale", **prompt["9"]["inputs"], upscale_model=["30", 0])
    side = side_of(prompt)
    assert side.needed() == ("d0", "d1")
    assert side.needed(["upscale_model", "model"]) == ()
    assert set(side.prompt({}, "FlotillaModelTile", {}, ["upscale_model"])) == {"30", "9"}
    built = side.prompt({}, "FlotillaTile", {}, ["model", "vae", "custom_sampler"])
    assert built == {"1": prompt["1"], "9": node("FlotillaTile", model=["1", 0], vae=["1", 2])}


def test_samplers_and_sigmas_belong_to_it() -> None:
    prompt = upscale(custom_sampler=["4", 0], custom_sigmas=["5", 0]) | {
        "4": node("SamplerSelect", sampler_name="euler"),
        "5": node("Scheduler", model=["1", 0]),
    }
    built = side_of(prompt).prompt({}, "FlotillaTile", {})
    assert built["9"]["inputs"]["custom_sigmas"] == ["5", 0]
    assert {"4", "5"} <= built.keys()


def test_inputs_that_are_not_connected_are_no_roots() -> None:
    prompt = upscale(negative=None)
    del prompt["9"]["inputs"]["vae"]
    assert set(side_of(prompt).roots) == {"model", "positive"}


def test_ids_of_inputs_keep_clear_of_those_in_the_prompt() -> None:
    prompt = hinted() | {"9.d0": node("Checkpoint", ckpt_name="other")}
    prompt["9"]["inputs"]["model"] = ["9.d0", 0]
    built = side_of(prompt).prompt({"d0": Blob("h"), "d1": Blob("i")}, "FlotillaTile", {})
    assert built["9.d0"] == prompt["9.d0"]
    assert built["9.d0."]["inputs"]["hash"] == "h"


def test_a_loose_link_is_named() -> None:
    with pytest.raises(InvalidPrompt, match='node "77"'):
        side_of(upscale() | {"2": node("TextEncode", clip=["77", 0])})
    with pytest.raises(InvalidPrompt, match='"model" of node "9"'):
        side_of(upscale(model=["77", 0]))


def test_data_that_are_missing_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(KeyError):
        side_of(hinted()).prompt({"d0": Blob("h")}, "FlotillaTile", {})


def test_everything_is_ready_where_there_are_no_data() -> None:
    side = side_of(upscale())
    assert side.ready() == side.roots
    assert side.prompt_ready("FlotillaPrepare", {"job": "j"}) == side.prompt({}, "FlotillaPrepare", {"job": "j"})


def test_what_can_be_made_before_the_data_are_known() -> None:
    prompt = hinted()
    side = side_of(prompt)
    assert side.ready() == {
        "model": ["1", 0],
        "vae": ["1", 2],
        "ready0": ["1", 1],
        "ready1": ["4", 0],
        "ready2": ["3", 0],
    }
    built = side.prompt_ready("FlotillaPrepare", {})
    assert built is not None
    assert set(built) == {"1", "3", "4", "9"}
    assert built["9"] == node("FlotillaPrepare", **side.ready())


def test_more_is_ready_when_more_is_known() -> None:
    side = side_of(hinted())
    known: dict[str, DataValue] = {"d1": Constant("a dog")}
    ready = side.ready(known)
    assert sorted(ready.values()) == [["1", 0], ["1", 2], ["2", 0], ["3", 0], ["4", 0]]
    built = side.prompt_ready("FlotillaPrepare", {}, known)
    assert built is not None
    assert set(built) == {"1", "2", "3", "4", "9", "9.d1"}
    everything: dict[str, DataValue] = known | {"d0": Blob("h")}
    assert side.ready(everything) == side.roots
    assert side.prompt_ready("X", {}, everything) == side.prompt(everything, "X", {})


def test_nothing_may_be_ready() -> None:
    prompt = {"8": node("LoadImage"), "5": node("IPAdapter", image=["8", 0])}
    prompt["9"] = node("UltimateSDUpscaleDistributed", model=["5", 0])
    assert side_of(prompt).ready() == {}
    assert side_of(prompt).prompt_ready("FlotillaPrepare", {}) is None


def test_a_probe_asks_for_all_of_it_but_the_data() -> None:
    side = side_of(hinted())
    json.dumps(side.probe())
    needed = {"Checkpoint", "TextEncode", "ControlNetLoader", "ControlNetApply", "Reroute", "AnyReroute"}
    assert fit(side.probe(), Capabilities(frozenset(needed)))[1] == []
    for one in needed:
        assert {miss.class_type for miss in fit(side.probe(), Capabilities(frozenset(needed - {one})))[1]} == {one}
