"""What the upscale nodes are to ComfyUI, and how they go through their tiles there: alone, and in a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from servers.on_host import run

SCRIPT = Path(__file__).parent / "host_scripts" / "upscale_nodes.py"
OLD_HOST = "0.16.3"
MODEL_INPUTS = ["model", "positive", "negative", "vae"]
SAMPLING = ["seed", "steps", "cfg", "sampler_name", "scheduler", "denoise"]
TILES = ["tile_width", "tile_height", "padding", "mask_blur", "force_uniform_tiles", "tiled_decode"]
NEW = {
    "mode": "mosaic",
    "seam_fix_mode": "None",
    "seam_fix_denoise": 1.0,
    "seam_fix_width": 64,
    "seam_fix_mask_blur": 8,
    "seam_fix_padding": 16,
    "canvas": "8bit",
    "tile_batch": 1,
    "on_failure": "fail",
    "frame_chunk": 0,
    "seam_fix_own_denoise": False,
}
"""What the node has more than the one that it replaces, with the defaults."""

SAMPLERS = ["custom_sampler", "custom_sigmas"]
MASTER_FIRST = 1


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(None, marks=pytest.mark.integration, id="default"),
        pytest.param(OLD_HOST, marks=pytest.mark.matrix, id=OLD_HOST),
    ],
)
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("upscale_nodes")
    return run(SCRIPT, folder, str(folder), version=request.param)


def test_the_old_inputs_come_first_in_their_order_and_all_that_is_new_may_be_left_out(told: Any) -> None:
    inputs = told["old node"]["inputs"]
    required = ["upscaled_image", *MODEL_INPUTS, *SAMPLING, *TILES]
    assert [name for name, optional in inputs if not optional] == required
    assert [name for name, _ in inputs] == [*required, *NEW, *SAMPLERS]
    assert told["old node"]["defaults"].items() >= NEW.items()


def test_the_node_that_enlarges_first_has_the_same_and_two_more(told: Any) -> None:
    old = [name for name, _ in told["old node"]["inputs"]]
    new = [name for name, _ in told["new node"]["inputs"]]
    assert set(new) - set(old) == {"image", "upscale_by", "upscale_model"}
    assert set(old) - set(new) == {"upscaled_image"}
    assert dict(told["new node"]["inputs"])["upscale_model"] is True


def test_models_are_asked_for_when_they_are_needed(told: Any) -> None:
    assert told["old node"]["lazy"] == [*MODEL_INPUTS, *SAMPLERS]
    assert set(told["new node"]["lazy"]) == {*MODEL_INPUTS, *SAMPLERS, "upscale_model"}
    assert told["lazy"] == ["model", "custom_sampler"], "what is connected and not there yet"


def test_a_prompt_without_the_new_inputs_gets_the_defaults(told: Any) -> None:
    asked = told["asked"]
    assert asked["seed"] == 3
    assert {name: asked[name] for name in NEW} == NEW


# Alone


def test_alone_every_tile_is_computed_in_order(told: Any) -> None:
    assert told["alone"] == {"told": [], "numbers": [2, 2, 10]}


def test_alone_a_tile_that_fails_fails_the_node_or_keeps_the_source(told: Any) -> None:
    assert told["alone, broken"] == {"told": "ValueError: place 1 breaks", "numbers": [2, None, None]}
    assert told["alone, partial"] == {
        "told": ["tile 2 of 3 is missing: ValueError: place 1 breaks"],
        "numbers": [2, None, 2],
    }


def test_alone_nothing_but_failures_is_a_failure(told: Any) -> None:
    assert told["alone, all broken"]["told"] == "ValueError: place 2 breaks"


def test_alone_an_interrupt_is_heard_between_two_tiles_and_is_no_missing_tile(told: Any) -> None:
    assert told["alone, interrupted"] == {"told": "InterruptProcessingException", "numbers": [2, None, None]}


# In a job


def test_in_a_job_it_computes_what_it_is_given_until_the_picture_is_over(told: Any) -> None:
    found = told["in a job"]
    assert (found["told"], found["numbers"]) == (True, [2, 2, 10])
    assert found["delivered"] == [[place, MASTER_FIRST] for place in range(3)]
    assert found["abandoned"] == 0


def test_in_a_job_a_result_tells_what_it_was_made_of(told: Any) -> None:
    first, *others = told["in a job"]["made_of"]
    assert first == told["in a job, made of"]
    assert len({first, *others}) == 3


def test_in_a_job_a_failure_is_told_and_the_node_goes_on(told: Any) -> None:
    found = told["in a job, mended"]
    assert found["failed"] == [[1, MASTER_FIRST, "place 1 breaks"]]
    assert found["given"] == [0, 1, 1, 2]
    assert (found["told"], found["numbers"]) == (True, [2, 6, 14])
    assert found["delivered"] == [[0, 1], [1, 2], [2, 1]]


def test_in_a_job_without_models_a_tile_that_comes_waits_for_them(told: Any) -> None:
    found = told["in a job, without models"]
    assert (found["told"], found["waits"], found["numbers"]) == (False, [0, 1], [None] * 3)
    assert found["abandoned"] == 0


def test_in_a_job_an_interrupt_ends_the_job(told: Any) -> None:
    found = told["in a job, interrupted"]
    assert found["told"].startswith("InterruptProcessingException")
    assert found["abandoned"] == 1


def test_in_a_job_what_ended_it_is_raised(told: Any) -> None:
    assert told["in a job, ended"] == {"told": "JobFailed: no more", "numbers": [None] * 3}


# Between servers


def test_any_number_of_values_is_packed_in_order(told: Any) -> None:
    assert told["pack"] == {
        "nodes": 3,
        "values": [f"value of {100 + number}" for number in range(35)],
        "kinds": ["JSON"],
    }


def test_a_list_that_would_run_the_node_several_times_is_refused(told: Any) -> None:
    assert told["pack of lists"].startswith("InvalidInput: A list leads to")


def test_in_workers_nodes_find_what_the_master_has_sent(told: Any) -> None:
    assert told["in workers"] == {"image": 0.5, "other": 3, "constant": [1, "two"], "prepared": [{}]}
