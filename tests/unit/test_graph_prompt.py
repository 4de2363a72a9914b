"""Prompts as data: shape, links, walks, order."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from flotilla.graph.prompt import (
    MAX_VALUE_DEPTH,
    Link,
    PromptIndex,
    copy_json,
    is_link,
    natural_key,
    quoted,
)
from flotilla.utils.errors import InvalidPrompt


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def diamond() -> dict[str, Any]:
    return {
        "10": node("Save", images=["9", 0]),
        "9": node("Join", a=["2", 0], b=["3", 1], c=["2", 0], plain=[1, 2, 3]),
        "3": node("Blur", image=["1", 0]),
        "2": node("Sharpen", image=["1", 0]),
        "1": node("Load", name="x.png"),
        "12:7.1": node("Alone"),
    }


@pytest.mark.parametrize("value", [["1", 0], ["12:3.4", 9], ["", -1]])
def test_a_link_is_a_text_and_a_whole_number(value: object) -> None:
    assert is_link(value)


@pytest.mark.parametrize(
    "value", [["1"], ["1", 0, 0], [1, 0], ["1", "0"], ["1", True], ["1", 0.0], ("1", 0), "10", None]
)
def test_anything_else_is_a_constant(value: object) -> None:
    assert not is_link(value)


def test_links_and_consumers() -> None:
    index = PromptIndex(diamond())
    assert index.links_of("9") == (Link("a", "2", 0), Link("b", "3", 1), Link("c", "2", 0))
    assert index.consumers("2") == ("9",)
    assert set(index.consumers("1")) == {"2", "3"}
    assert index.consumers("10") == ()


def test_walks_include_their_start() -> None:
    index = PromptIndex(diamond())
    assert index.upstream(["3"]) == {"1", "3"}
    assert index.upstream(["10"]) == {"1", "2", "3", "9", "10"}
    assert index.downstream(["3"]) == {"3", "9", "10"}
    assert index.downstream([]) == set()


def test_by_class_is_in_natural_order() -> None:
    prompt = {name: node("A") for name in ["10", "9", "12:20", "12:3", "b", "a"]} | {"1": node("B")}
    assert PromptIndex(prompt).by_class({"A"}) == ("9", "10", "12:3", "12:20", "a", "b")


def test_natural_keys_tell_all_ids_apart() -> None:
    ids = ["1", "01", "001", "10", "1a", "a1", "a01", "", "²", "1" * 5000]
    assert len({natural_key(one) for one in ids}) == len(ids)
    sorted(ids, key=natural_key)


def test_topological_puts_sources_first_whatever_the_order_of_the_prompt() -> None:
    prompt = diamond()
    expected = ("1", "2", "3", "9", "10", "12:7.1")
    assert PromptIndex(prompt).topological() == expected
    assert PromptIndex(dict(reversed(prompt.items()))).topological() == expected


def test_topological_of_some() -> None:
    assert PromptIndex(diamond()).topological(["10", "3", "1"]) == ("1", "3", "10")


def test_a_circle_is_named() -> None:
    prompt = {
        "1": node("A", x=["3", 0]),
        "2": node("B", x=["1", 0]),
        "3": node("C", x=["2", 0]),
        "4": node("D", x=["3", 0]),
    }
    with pytest.raises(InvalidPrompt, match="circle of 3") as caught:
        PromptIndex(prompt).topological()
    assert caught.value.details["node_id"] in {"1", "2", "3"}


def test_a_node_that_feeds_itself_is_a_circle() -> None:
    with pytest.raises(InvalidPrompt, match=r'circle of 1: node "1" \(A\)'):
        PromptIndex({"1": node("A", x=["1", 0])}).topological()


@pytest.mark.parametrize("walk", ["upstream", "topological"])
def test_a_link_to_nowhere_names_input_node_and_class(walk: str) -> None:
    index = PromptIndex({"5": node("KSampler", model=["99", 0])})
    with pytest.raises(
        InvalidPrompt, match=r'Input "model" of node "5" \(KSampler\) is connected to node "99"'
    ) as caught:
        getattr(index, walk)(["5"])
    assert caught.value.details == {"node_id": "5", "class_type": "KSampler", "input": "model"}


@pytest.mark.parametrize(
    ("prompt", "part"),
    [
        (None, "not an object of nodes"),
        ([], "not an object of nodes"),
        ({1: node("A")}, "must be a text"),
        ({"1": None}, '"1" is not an object'),
        ({"1": {"class_type": "A"}}, r'"1" \(A\)'),
        ({"1": {"class_type": "A", "inputs": []}}, r'"1" \(A\)'),
        ({"1": {"class_type": "A", "inputs": {3: 4}}}, r'"1" \(A\)'),
        ({"1": {"class_type": ["A"], "inputs": {}}}, 'class of node "1"'),
    ],
)
def test_odd_shapes_are_refused_by_name(prompt: Any, part: str) -> None:
    with pytest.raises(InvalidPrompt, match=part):
        PromptIndex(prompt)


def test_a_missing_class_is_left_to_the_host() -> None:
    assert PromptIndex({"1": {"inputs": {}}}).class_of("1") == ""


def test_unknown_ids_are_an_invalid_prompt_not_a_key_error() -> None:
    index = PromptIndex(diamond())
    for ask in (index.links_of, index.consumers, index.class_of, index.inputs_of):
        with pytest.raises(InvalidPrompt, match='no node "77"'):
            ask("77")
    for walk in (index.upstream, index.downstream, index.topological):
        with pytest.raises(InvalidPrompt, match='no node "77"'):
            walk(["77"])


def test_copies_share_nothing_and_keep_the_order() -> None:
    original = {"b": [1, {"c": [2]}], "a": {"z": None, "y": 1.5}}
    copied = copy_json(original, where="Here")
    assert copied == original
    assert list(copied) == ["b", "a"]
    copied["b"][1]["c"].append(3)
    copied["a"]["z"] = 1
    assert original == {"b": [1, {"c": [2]}], "a": {"z": None, "y": 1.5}}


def test_values_nested_beyond_the_cap_are_refused_and_do_not_overflow() -> None:
    deep: list[Any] = []
    for _ in range(sys.getrecursionlimit() * 2):
        deep = [deep]
    with pytest.raises(InvalidPrompt, match=f"Here holds a value .* {MAX_VALUE_DEPTH} levels"):
        copy_json(deep, where="Here")


def test_long_chains_do_not_recurse() -> None:
    length = sys.getrecursionlimit() * 5
    prompt = {"0": node("A")} | {str(n): node("A", x=[str(n - 1), 0]) for n in range(1, length)}
    index = PromptIndex(prompt)
    assert len(index.upstream([str(length - 1)])) == length
    assert len(index.downstream(["0"])) == length
    assert index.topological() == tuple(str(n) for n in range(length))


def test_quotes_are_short_and_on_one_line() -> None:
    assert quoted("a\n\tb") == '"a b"'
    assert len(quoted("x" * 10_000)) < 200
