"""An upscale model run by tiles gives what the host's own node gives, bit for bit; both in a real ComfyUI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from servers.on_host import run

SCRIPT = Path(__file__).parent / "host_scripts" / "model_pass.py"
OLD_HOST = "0.16.3"
CASES = ["one tile", "a wide strip", "a grid of uneven tiles", "a batch"]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(None, marks=pytest.mark.integration, id="default"),
        pytest.param(OLD_HOST, marks=pytest.mark.matrix, id=OLD_HOST),
    ],
)
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("model_pass")
    return run(SCRIPT, folder, str(folder), version=request.param)


@pytest.mark.parametrize("depth", ["", ", 8 bits"])
@pytest.mark.parametrize("case", CASES)
def test_tiles_in_any_order_give_what_the_host_s_node_gives(told: Any, case: str, depth: str) -> None:
    ours, theirs = told[case + depth]
    assert ours == theirs


def test_the_model_is_worth_comparing(told: Any) -> None:
    for least, most, deviation in told["range"]:
        assert (least, most) == (0.0, 1.0)  # something was clamped on either side
        assert deviation > 0.05


def test_out_of_memory_the_tile_is_halved(told: Any) -> None:
    halved = told["halved"]
    assert halved["asked"][:2] == [512, 256]
    assert halved["shape"] == [1, 600, 1024, 3]
    assert halved["off"] < 1e-5


def test_it_fails_where_even_the_smallest_tile_is_too_large(told: Any) -> None:
    assert told["too little"] == {"asked": [512, 256, 128], "error": True}
