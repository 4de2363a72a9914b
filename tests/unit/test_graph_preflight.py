"""Who can run what."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from flotilla.graph import preflight
from flotilla.graph.preflight import Capabilities, Missing, fit, reasons_of
from flotilla.utils.errors import InvalidInput


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


LOADER = "CheckpointLoaderSimple"
CHOICES = ("sd\\One.safetensors", "two.safetensors", "Two.safetensors", "flux/three.safetensors")


def capabilities(*classes: str, choices: tuple[str, ...] = CHOICES) -> Capabilities:
    return Capabilities(frozenset({LOADER, *classes}), {LOADER: {"ckpt_name": choices}})


def fitted(value: Any) -> tuple[Any, list[Missing]]:
    prompt = {"1": node(LOADER, ckpt_name=value, other="x")}
    before = copy.deepcopy(prompt)
    result, missing = fit(prompt, capabilities())
    assert prompt == before
    assert result["1"]["inputs"]["other"] == "x"
    return result["1"]["inputs"]["ckpt_name"], missing


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("two.safetensors", "two.safetensors"),
        ("Two.safetensors", "Two.safetensors"),
        ("sd/One.safetensors", "sd\\One.safetensors"),
        ("flux\\three.safetensors", "flux/three.safetensors"),
        ("SD/one.safetensors", "sd\\One.safetensors"),
        ("FLUX/Three.safetensors", "flux/three.safetensors"),
        ({"__value__": "sd/One.safetensors"}, "sd\\One.safetensors"),
        ({"__value__": ["sd/One.safetensors", 3]}, {"__value__": ["sd\\One.safetensors", 3]}),
    ],
)
def test_names_are_written_in_the_workers_spelling(value: Any, expected: Any) -> None:
    assert fitted(value) == (expected, [])


@pytest.mark.parametrize("value", [["7", 0], 5, 1.5, True, None, {"a": "b"}, ["bare"]])
def test_what_is_no_text_is_never_touched(value: Any) -> None:
    assert fitted(value) == (value, [])


@pytest.mark.parametrize("value", ["four.safetensors", "", "TWO.safetensors", "one.safetensors"])
def test_absent_and_ambiguous_names_are_missing(value: str) -> None:
    result, missing = fitted(value)
    assert result == value
    assert missing == [Missing("1", LOADER, "ckpt_name", value)]


def test_each_absent_name_of_several_is_missing() -> None:
    _, missing = fitted({"__value__": ["two.safetensors", "no", "nor"]})
    assert [one.value for one in missing] == ["no", "nor"]


def test_classes() -> None:
    prompt = {
        "1": node("Foo"),
        "2": node("Bar"),
        "3": node("DistributedSeed"),
        "4": node("FlotillaDeliver"),
        "5": node(""),
    }
    result, missing = fit(prompt, capabilities("Bar"))
    assert missing == [Missing("1", "Foo")]
    assert result == prompt


def test_an_empty_list_has_nothing() -> None:
    _, missing = fit({"1": node(LOADER, ckpt_name="x")}, capabilities(choices=()))
    assert [one.reason for one in missing] == ['has no "x" for CheckpointLoaderSimple.ckpt_name']


def test_reasons_are_for_people() -> None:
    missing = [Missing("1", "Foo"), Missing("2", "Foo"), Missing("3", LOADER, "ckpt_name", "x.safetensors")]
    assert reasons_of(missing) == 'lacks node class "Foo"; has no "x.safetensors" for CheckpointLoaderSimple.ckpt_name'
    assert reasons_of([Missing(str(n), f"C{n}") for n in range(7)], at_most=2) == (
        'lacks node class "C0"; lacks node class "C1"; and 5 more'
    )


def test_the_wire_form_comes_back_equal_and_holds_each_list_once() -> None:
    long = tuple(f"model-{n}.safetensors" for n in range(1000))
    sent = Capabilities(
        frozenset({"A", "B", "C"}),
        {"A": {"x": long, "y": long}, "B": {"z": tuple(long), "w": ("one",)}, "C": {"e": ()}},
    )
    text = json.dumps(sent.to_wire())
    assert text.count("model-7.safetensors") == 1
    received = Capabilities.from_wire(json.loads(text))
    assert received.classes == sent.classes
    assert {name: dict(inputs) for name, inputs in received.options.items()} == sent.options


def test_keys_of_a_newer_version_are_passed_over() -> None:
    assert Capabilities.from_wire({"classes": ["A"], "news": 1}) == Capabilities(frozenset({"A"}), {})


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"classes": "A"},
        {"classes": [1]},
        {"classes": ["x" * 5000]},
        {"classes": [], "lists": {}},
        {"classes": [], "lists": ["ab"]},
        {"classes": [], "lists": [[1]]},
        {"classes": [], "options": []},
        {"classes": [], "lists": [["a"]], "options": {"A": {"x": 1}}},
        {"classes": [], "lists": [["a"]], "options": {"A": {"x": -1}}},
        {"classes": [], "lists": [["a"]], "options": {"A": {"x": True}}},
        {"classes": [], "lists": [["a"]], "options": {"A": {"x": "0"}}},
        {"classes": [], "lists": [["a"]], "options": {"A": 0}},
        {"classes": [], "lists": [["a"]], "options": {"x" * 5000: {}}},
    ],
)
def test_rubbish_from_the_wire_is_refused(data: object) -> None:
    with pytest.raises(InvalidInput):
        Capabilities.from_wire(data)


@pytest.mark.parametrize(
    ("cap", "data"),
    [
        ("MAX_CLASSES", {"classes": ["a", "b", "c"]}),
        ("MAX_CLASSES", {"classes": [], "options": {"a": {}, "b": {}, "c": {}}}),
        ("MAX_LISTS", {"classes": [], "lists": [[], [], []]}),
        ("MAX_LISTS", {"classes": [], "lists": [[]], "options": {"a": {"x": 0, "y": 0}, "b": {"z": 0}}}),
        ("MAX_CHOICES_IN_ALL", {"classes": [], "lists": [["a", "b"], ["c"]]}),
    ],
)
def test_caps(monkeypatch: pytest.MonkeyPatch, cap: str, data: dict[str, Any]) -> None:
    Capabilities.from_wire(data)
    monkeypatch.setattr(preflight, cap, 2)
    with pytest.raises(InvalidInput, match="over the cap"):
        Capabilities.from_wire(data)
