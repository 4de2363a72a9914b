"""What travels with a tile's pixels: there and back, and nothing else gets in."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from flotilla.upscale.geometry import Box, Size
from flotilla.upscale.place import Place
from flotilla.utils.errors import InvalidInput

PLACE = Place(
    canvas=Size(2048, 1024),
    source=Size(1000, 512),
    crops=(Box(0, 0, 544, 544), Box(480, 0, 1056, 576)),
    size=Size(544, 544),
    first_frame=8,
    frames=4,
    all_frames=12,
    parity=True,
    stage="half tile",
)


def test_there_and_back() -> None:
    read = Place.from_json(json.loads(json.dumps(PLACE.to_json())))
    assert read == PLACE
    assert isinstance(read.canvas, Size) and isinstance(read.crops[1], Box)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Place)])
def test_every_field_is_needed_and_there_is_no_other(name: str) -> None:
    data = PLACE.to_json()
    del data[name]
    with pytest.raises(InvalidInput, match=name):
        Place.from_json(data)
    with pytest.raises(InvalidInput):
        Place.from_json({**PLACE.to_json(), f"{name}_": 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("canvas", [2048, 1024, 3]),
        ("canvas", [2048.0, 1024]),
        ("canvas", "2048x1024"),
        ("canvas", [0, 1024]),
        ("canvas", [1 << 30, 1024]),
        ("source", [True, 512]),
        ("source", None),
        ("crops", []),
        ("crops", {}),
        ("crops", [[0, 0, 544]]),
        ("crops", [[0, 0, 2049, 5]]),
        ("crops", [[-1, 0, 9, 5]]),
        ("crops", [[9, 0, 9, 5]]),
        ("size", [544, -544]),
        ("first_frame", 9),
        ("first_frame", -1),
        ("first_frame", "0"),
        ("frames", 0),
        ("frames", 4.0),
        ("all_frames", 11),
        ("all_frames", 1 << 40),
        ("parity", 1),
        ("stage", "Redraw"),
        ("stage", ["redraw"]),
    ],
)
def test_anything_else_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match="place of a tile") as caught:
        Place.from_json({**PLACE.to_json(), name: value})
    assert caught.value.cure


def test_what_is_no_object_is_refused() -> None:
    for data in (None, [], "{}", 3):
        with pytest.raises(InvalidInput):
            Place.from_json(data)
