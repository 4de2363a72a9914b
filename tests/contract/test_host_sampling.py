"""What redrawing a tile relies on of ComfyUI: held against its own nodes, with real models (tiny ones)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from servers import on_host

SCRIPTS = Path(__file__).resolve().parent / "host_scripts"
ROUNDING = 1
"""8-bit levels: a batch is computed with other instructions than a single picture, and truncated."""
VISIBLE = 10
CASES = ("one", "batch", "group", "ancestral batch", "odd size", "tiled", "own mode", "floats")

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What `host_scripts/sampling.py` found."""
    return on_host.run(SCRIPTS / "sampling.py", tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What `host_scripts/clips.py` found."""
    return on_host.run(SCRIPTS / "clips.py", tmp_path_factory.mktemp("clips"))


@pytest.mark.parametrize("case", CASES)
def test_a_tile_is_bit_for_bit_what_the_hosts_nodes_make_of_it(pictures: Any, case: str) -> None:
    ours, theirs = pictures["like nodes"][case]
    assert ours == theirs
    assert len({pair[0] for pair in pictures["like nodes"].values()}) == len(CASES) - 1  # "own mode" is like "one"


def test_a_custom_sampler_is_bit_for_bit_the_hosts_node(pictures: Any) -> None:
    ours, theirs = pictures["custom"]
    assert ours == theirs


def test_the_samplers_that_count_as_steady_are(pictures: Any) -> None:
    unsteady = {name for name, levels in pictures["spread"].items() if levels > 0}
    assert unsteady == {"euler_ancestral", "dpmpp_2m_sde"}  # which are there to show that it can be seen
    assert all(pictures["spread"][name] > VISIBLE for name in unsteady)
    assert pictures["unknown"] == []


def test_a_frame_of_a_chunk_is_what_it_is_alone(pictures: Any) -> None:
    assert max(pictures["furthest"].values()) <= ROUNDING
    assert pictures["furthest"]["euler_ancestral"] == pictures["furthest"]["dpmpp_2m_sde"] == 0


def test_the_node_shows_the_steps(pictures: Any) -> None:
    assert pictures["steps"][-1] == [3, 3]


def test_a_clip_is_bit_for_bit_what_the_hosts_nodes_make_of_it(clips: Any) -> None:
    assert clips["is video"]
    assert clips["levels"] > VISIBLE  # weights by chance made a picture, not one colour
    assert clips["whole"]
    assert clips["single"]
    assert clips["both"] == [True, True]


def test_a_clip_of_another_length_is_padded_and_cut(clips: Any) -> None:
    assert clips["lengths"] == [1, 5, 5, 9]
    assert "4n+1 frames; 6 were given" in clips["hint"]
    shape, equals_the_padded = clips["short"]
    assert shape[0] == 3
    assert equals_the_padded
    assert clips["tiled"][0] == 5


def test_the_picture_models_are_the_hosts_with_a_vae_for_clips(clips: Any) -> None:
    assert set(clips["picture models"].values()) == {3}
    assert "QwenImage" in clips["picture models"]
