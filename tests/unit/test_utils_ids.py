"""Ids are canonical lowercase UUIDs, the only form that the host takes as a prompt id."""

from __future__ import annotations

import re

import pytest
from flotilla.utils.ids import is_prompt_id, new_id

GOOD = "0b6f7d5e-8a34-4c1f-9f57-2f6a0c1d9e42"


def test_new_ids_are_canonical_and_never_the_same() -> None:
    made = [new_id() for _ in range(200)]
    assert len(set(made)) == len(made)
    shape = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
    assert all(shape.fullmatch(text) for text in made)
    assert all(is_prompt_id(text) for text in made)


def test_a_canonical_id_is_accepted() -> None:
    assert is_prompt_id(GOOD)


@pytest.mark.parametrize(
    "text",
    [
        GOOD.upper(),
        GOOD.replace("-", ""),
        "{" + GOOD + "}",
        f"urn:uuid:{GOOD}",
        f" {GOOD}",
        f"{GOOD}\n",
        GOOD[:-1],
        GOOD + "0",
        GOOD.replace("0b", "0g"),
        "",
        "../../etc",
        None,
        7,
        GOOD.encode(),
        [GOOD],
    ],
)
def test_anything_else_is_not(text: object) -> None:
    assert not is_prompt_id(text)
