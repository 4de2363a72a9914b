"""The tiny model that demo and tests use: its files, its pictures, its conditioning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from devtools.tiny_model.build import build
from devtools.tiny_model.conditioning import encode_scene
from devtools.tiny_model.scenes import draw_scene

WEIGHTS = Path(__file__).resolve().parents[2] / "devtools" / "tiny_model" / "weights"
MAX_SHIPPED_BYTES = 5_000_000


def test_the_shipped_weights_stay_small() -> None:
    sizes = [path.stat().st_size for path in WEIGHTS.glob("*.safetensors")]
    assert len(sizes) == 2
    assert sum(sizes) < MAX_SHIPPED_BYTES


def test_two_builds_give_equal_bytes(tmp_path: Path) -> None:
    first, second = build(tmp_path / "a"), build(tmp_path / "b")
    for name in ("diffusion_model", "vae", "checkpoint"):
        assert getattr(first, name).read_bytes() == getattr(second, name).read_bytes()


def test_a_scene_depends_on_its_seed_alone() -> None:
    assert np.array_equal(np.asarray(draw_scene(3)), np.asarray(draw_scene(3)))
    assert not np.array_equal(np.asarray(draw_scene(3)), np.asarray(draw_scene(4)))


def test_the_conditioning_names_time_and_boats() -> None:
    condition, pooled = encode_scene(boats=2, time="dusk")
    vector = np.asarray(pooled).ravel()
    assert np.flatnonzero(vector).tolist() == [1, 4]
    assert np.array_equal(np.asarray(condition).ravel(), vector)


@pytest.mark.parametrize("wrong", [{"boats": 6}, {"boats": -1}, {"time": "noon"}])
def test_what_the_model_never_saw_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        encode_scene(**wrong)  # type: ignore[arg-type]
