"""What the host's own nodes write into conditionings and models is cropped so that the host uses it as meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from servers.on_host import run

SCRIPT = Path(__file__).parent / "host_scripts" / "conditioning.py"
OLD_HOST = "0.16.3"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(None, marks=pytest.mark.integration, id="default"),
        pytest.param(OLD_HOST, marks=pytest.mark.matrix, id=OLD_HOST),
    ],
)
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run(SCRIPT, tmp_path_factory.mktemp("conditioning"), version=request.param)


def test_controls_of_a_chain_see_the_tiles_of_their_frames(told: Any) -> None:
    said = told["control"]
    assert said["hints"] == [True, True]
    assert said["strengths"] == [0.75, 0.25] and said["range"] == [0.1, 0.9]
    assert said["end of the chain"] and said["models"] == 2
    assert said["original untouched"]


def test_the_fakes_have_no_more_than_the_real_ones(told: Any) -> None:
    assert told["control"]["attributes of the fake"] == []
    assert told["diffsynth"]["attributes of the fake"] == []


def test_the_host_can_work_with_areas_and_masks_of_every_tile(told: Any) -> None:
    assert told["areas"] == []


def test_text_boxes_are_where_they_are_in_the_tile(told: Any) -> None:
    # 24 x 16 px from (56, 40) of the source are 48 x 32 from (112, 80) of the canvas; the crop begins at (96, 64).
    assert told["gligen"] == {"inside": ["position", [[2.0, 2.0, 8.0, 6.0]]], "none": ["position", []]}


def test_reference_latents_have_the_size_of_the_tile(told: Any) -> None:
    assert told["references"] == [[1, 16, 12, 12]] * 2


def test_a_diffsynth_patch_adds_the_hint_of_the_tile(told: Any) -> None:
    said = told["diffsynth"]
    assert all(said[f"{name}, {conditionings}"] for name in ("one", "two") for conditionings in (1, 2))
    assert said["one, encoded again"] == said["two, encoded again"] == 0
    assert said["one, models"] == said["two, models"] == [True]
    assert said["original untouched"]


def test_a_z_image_patch_is_encoded_for_the_tile(told: Any) -> None:
    assert told["z image"] == {"same": True, "size": [96, 96], "shape": [1, 16, 12, 12], "inpaint": [1, 33, 12, 12]}


def test_patches_of_younger_hosts(told: Any) -> None:
    assert told["others"].get("Uni3C", True) is True
    assert told["others"].get("LLLite", [[1, 96, 96, 3], [1, 96, 96], True]) == [[1, 96, 96, 3], [1, 96, 96], True]
