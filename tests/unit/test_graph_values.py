"""What item k sees."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flotilla.graph.values import (
    CannotCoerce,
    ValueMap,
    coerce,
    is_true,
    line_for,
    lines_of,
    model_name,
    seed_for,
    whole_number,
)

LAST_SEED = 2**64 - 1


@pytest.mark.parametrize(
    ("seed", "k", "expected"),
    [
        (7, 0, 7),
        (7, 3, 10),
        (2**50, 1, 2**50 + 1),  # no clamp at the limit of the older node
        (LAST_SEED, 0, LAST_SEED),
        (LAST_SEED, 1, 0),
        (LAST_SEED - 1, 4, 2),
        (-1, 0, -1),  # the plain seed is never changed: the host judges it
    ],
)
def test_seeds_count_up_and_wrap_at_64_bits(seed: int, k: int, expected: int) -> None:
    assert seed_for(seed, k) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(5, 5), ("12", 12), (5.9, 5), (True, 1), ({"__value__": 4}, 4), ("x", None), (None, None), ([], None)],
)
def test_whole_numbers_are_read_as_the_host_reads_them(value: object, expected: int | None) -> None:
    assert whole_number(value) == expected


@pytest.mark.parametrize("value", [float("inf"), float("nan"), "9" * 5000])
def test_impossible_numbers_are_none(value: object) -> None:
    assert whole_number(value) is None


@pytest.mark.parametrize("value", [True, 1, -2, 0.5, "1", "true", " Yes ", "ON", {"__value__": True}])
def test_ways_to_say_yes(value: object) -> None:
    assert is_true(value)


@pytest.mark.parametrize("value", [False, 0, 0.0, "0", "false", "", "2", None, ["1", 0], [], {}])
def test_everything_else_is_no(value: object) -> None:
    assert not is_true(value)


def test_lines() -> None:
    text = "a cat\r\n\n   \n  a dog \ra bird\x0bwith a tail\n"
    assert lines_of(text) == ["a cat", "a dog", "a bird\x0bwith a tail"]
    assert [line_for("a\nb\n\nc", k) for k in range(5)] == ["a", "b", "c", "a", "b"]
    assert line_for(" \n", 3) == ""
    assert line_for(12, 0) == "12"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x.safetensors", "x.safetensors"),
        (["x"], "x"),
        ([["x"]], "x"),
        ({"__value__": [["x"]]}, "x"),
        (3, "3"),
        (True, "True"),
        (["x", "y"], None),
        ([["x", "y"]], None),
        ([], None),
        ({"a": 1}, None),
        (None, None),
        (["4", 0], None),
    ],
)
def test_model_names(text: object, expected: str | None) -> None:
    assert model_name(text) == expected


@pytest.mark.parametrize(
    ("value", "type_name", "expected"),
    [
        ("3.9", "INT", 3),
        ("-3.9", "INT", -3),
        (7, "INT", 7),
        (True, "INT", 1),
        ("2.5", "FLOAT", 2.5),
        ("text", "STRING", "text"),
        (7, "STRING", "7"),
        ("euler", "COMBO", "euler"),
        ("7", "BOOLEAN", "7"),
        ([1], "WEIRD", [1]),
    ],
)
def test_coercion(value: Any, type_name: str, expected: Any) -> None:
    result = coerce(value, type_name)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize("value", ["", "abc", None, [], "inf", "nan", "1e999", 10**400])
@pytest.mark.parametrize("type_name", ["INT", "FLOAT"])
def test_what_is_no_finite_number_cannot_be_coerced(value: object, type_name: str) -> None:
    with pytest.raises(CannotCoerce):
        coerce(value, type_name)


def own(values: dict[str, Any], worker_id: str = "w", position: int = 1) -> Any:
    found, value = ValueMap.parse(json.dumps(values)).own(worker_id, position)
    return value if found else "(default)"


def test_the_worker_id_comes_before_the_position() -> None:
    values = {"1": "first", "2": "second", "_by_worker_id": {"w": "mine"}}
    assert own(values, "w", 2) == "mine"
    assert own(values, "other", 2) == "second"
    assert own(values, "other", 3) == "(default)"


def test_an_empty_entry_under_the_id_means_the_default_not_the_position() -> None:
    assert own({"1": "somebody else's", "_by_worker_id": {"w": ""}}) == "(default)"


@pytest.mark.parametrize(
    ("type_name", "value", "expected"),
    [
        ("INT", "0", 0),
        ("INT", 0, "(default)"),
        ("INT", "", "(default)"),
        ("INT", None, "(default)"),
        ("INT", False, "(default)"),
        ("INT", [], "(default)"),
        ("INT", "abc", "(default)"),
        ("INT", "3.9", 3),
        ("FLOAT", "0", 0.0),
        ("STRING", "0", "0"),
        ("STRING", " ", " "),
        ("COMBO", "euler", "euler"),
        ("BOOLEAN", "false", "false"),
    ],
)
def test_which_entries_count(type_name: str, value: object, expected: object) -> None:
    assert own({"1": value, "_type": type_name}) == expected
    assert own({"_by_worker_id": {"w": value}, "_type": type_name}) == expected


@pytest.mark.parametrize("worker_values", ["", "{", "[]", "3", None, 5, [], "[" * 100_000])
def test_rubbish_is_an_empty_map(worker_values: object) -> None:
    values = ValueMap.parse(worker_values)
    assert values == ValueMap()
    assert values.own("w", 1) == (False, None)
    assert values.default("x") == "x"


def test_a_real_object_is_accepted_bare_or_wrapped() -> None:
    data = {"1": "5", "_type": "INT"}
    assert ValueMap.parse(data).own("w", 1) == (True, 5)
    assert ValueMap.parse({"__value__": data}).own("w", 1) == (True, 5)


@pytest.mark.parametrize("by_id", [None, [], "x", 3])
def test_a_broken_id_table_is_passed_over(by_id: object) -> None:
    assert own({"1": "first", "_by_worker_id": by_id}) == "first"


def test_an_odd_type_leaves_values_as_they_are() -> None:
    assert own({"1": 5, "_type": 3}) == 5


def test_reserved_keys_are_no_positions() -> None:
    assert ValueMap.parse({"_options": ["a"], "_type": "COMBO", "1": "a"}).by_position == {"1": "a"}


@pytest.mark.parametrize(
    ("default", "type_name", "expected"),
    [("7", "INT", 7), (7, "INT", 7), ("", "INT", ""), ("x", "FLOAT", "x"), (7, "STRING", "7")],
)
def test_defaults_are_coerced_or_left_raw(default: object, type_name: str, expected: object) -> None:
    assert ValueMap(type_name).default(default) == expected


def test_the_type_alone_survives() -> None:
    values = ValueMap.parse({"1": "5", "_type": "INT", "_by_worker_id": {"secret-worker": "5"}})
    assert json.loads(values.only_type()) == {"_type": "INT"}
