"""One tile redrawn: what is sampled together, with which noise, and what comes back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes.host_sampling import FakeHostSampling, PictureVae, clip_vae
from flotilla.upscale import one_tile
from flotilla.upscale.clips import clip_length, frame_hint, is_video
from flotilla.upscale.geometry import Box, Size
from flotilla.upscale.one_tile import LATENTS_AT_ONCE, Models, Sampling, redraw
from flotilla.upscale.place import Place
from flotilla.utils.errors import InvalidInput

EDGE = 8
SAMPLING = Sampling(
    seed=11, steps=4, cfg=5.5, sampler_name="euler", scheduler="karras", denoise=0.3, tiled_decode=False
)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> FakeHostSampling:
    """The host's samplers, and conditioning that tells for which place it was made."""
    fake = FakeHostSampling()
    monkeypatch.setitem(sys.modules, "flotilla.host.sampling", fake)  # type: ignore[arg-type]

    @contextmanager
    def cropped_model(model: Any, place: Place) -> Iterator[Any]:
        yield (model, place)

    monkeypatch.setattr(one_tile, "cropped_model", cropped_model)
    monkeypatch.setattr(one_tile, "crop_conditioning", lambda conditioning, place: (conditioning, place))
    monkeypatch.setattr(
        one_tile, "needs_single_crops", lambda conditioning, place: conditioning == "areas" and len(place.crops) > 1
    )
    return fake


def models(vae: Any = None, **changes: Any) -> Models:
    return Models(**{"model": "model", "positive": "yes", "negative": "no", "vae": vae or PictureVae(), **changes})


def place(frames: int = 1, tiles: int = 1, *, parity: bool = False, first_frame: int = 0) -> Place:
    crops = tuple(Box(EDGE * tile, 0, EDGE * (tile + 1), EDGE) for tile in range(tiles))
    canvas = Size(EDGE * tiles, EDGE)
    return Place(canvas, canvas, crops, Size(EDGE, EDGE), first_frame, frames, first_frame + frames, parity, "redraw")


def pictures(count: int) -> np.ndarray:
    """Each of one colour: 10, 11, 12 ..."""
    return np.full((count, EDGE, EDGE, 3), 10, np.uint8) + np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)


def colours(drawn: np.ndarray) -> list[int]:
    return [int(value) for value in drawn[:, 0, 0, 0]]


def test_parity_is_one_batch_with_the_noise_of_a_batch(host: FakeHostSampling) -> None:
    drawn = redraw(models(), SAMPLING, place(5, 3, parity=True), pictures(15))
    assert [call.pictures for call in host.calls] == [15]
    assert "batch_index" not in host.calls[0].latent
    assert colours(drawn) == [10 + 2 * row for row in range(15)]


def test_in_other_modes_every_picture_has_the_noise_of_a_picture_alone(host: FakeHostSampling) -> None:
    drawn = redraw(models(), SAMPLING, place(2 * LATENTS_AT_ONCE + 3), pictures(2 * LATENTS_AT_ONCE + 3))
    assert [call.pictures for call in host.calls] == [LATENTS_AT_ONCE, LATENTS_AT_ONCE, 3]
    assert np.array_equal(drawn, pictures(2 * LATENTS_AT_ONCE + 3))


@pytest.mark.parametrize(("frames", "tiles"), [(1, 1), (5, 3), (2, LATENTS_AT_ONCE + 2), (3, 1)])
def test_pictures_come_back_in_their_order(host: FakeHostSampling, frames: int, tiles: int) -> None:
    given = pictures(frames * tiles)
    for how in (SAMPLING, replace(SAMPLING, sampler_name="euler_ancestral")):
        assert np.array_equal(redraw(models(), how, place(frames, tiles), given), given)
    assert max(call.pictures for call in host.calls) <= LATENTS_AT_ONCE


def test_each_batch_is_told_its_own_tiles_and_frames(host: FakeHostSampling) -> None:
    whole = place(2, LATENTS_AT_ONCE + 1, first_frame=40)
    redraw(models(), SAMPLING, whole, pictures(2 * (LATENTS_AT_ONCE + 1)))
    seen = [call.positive[1] for call in host.calls]
    assert [(part.first_frame, part.frames, part.crops) for part in seen] == [
        (40, 1, whole.crops[:LATENTS_AT_ONCE]),
        (40, 1, whole.crops[LATENTS_AT_ONCE:]),
        (41, 1, whole.crops[:LATENTS_AT_ONCE]),
        (41, 1, whole.crops[LATENTS_AT_ONCE:]),
    ]
    assert all(call.negative == ("no", part) for call, part in zip(host.calls, seen, strict=True))
    assert all(call.model == ("model", part) for call, part in zip(host.calls, seen, strict=True))


def test_samplers_that_draw_noise_on_the_way_get_one_picture_at_a_time(host: FakeHostSampling) -> None:
    redraw(models(), replace(SAMPLING, sampler_name="euler_ancestral"), place(3), pictures(3))
    redraw(models(custom_sampler="sampler", custom_sigmas="sigmas"), SAMPLING, place(3), pictures(3))
    assert [call.pictures for call in host.calls] == [1] * 6


@pytest.mark.parametrize("side", ["positive", "negative"])
def test_tiles_with_areas_of_their_own_are_apart(host: FakeHostSampling, side: str) -> None:
    given = pictures(6)
    assert np.array_equal(redraw(models(**{side: "areas"}), SAMPLING, place(3, 2), given), given)
    assert [call.pictures for call in host.calls] == [3, 3]
    assert [call.positive[1].crops for call in host.calls] == [(crop,) for crop in place(3, 2).crops]


def test_the_common_sampler_gets_its_settings(host: FakeHostSampling) -> None:
    redraw(models(custom_sampler="without sigmas"), SAMPLING, place(parity=True), pictures(1))
    settings = SAMPLING.to_json()
    assert settings.pop("tiled_decode") is False
    assert host.calls[0].settings == settings
    assert host.tiled == [False]


def test_a_custom_sampler_gets_its_own(host: FakeHostSampling) -> None:
    given = models(custom_sampler="sampler", custom_sigmas="sigmas")
    redraw(given, replace(SAMPLING, tiled_decode=True), place(2, parity=True), pictures(2))
    assert host.calls[0].settings == {"seed": 11, "cfg": 5.5, "sampler": "sampler", "sigmas": "sigmas"}
    assert host.calls[0].pictures == 2
    assert host.tiled == [True]


def test_colours_are_divided_by_255_and_truncated_again(host: FakeHostSampling) -> None:
    ramp = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    assert np.array_equal(redraw(models(), SAMPLING, place(), ramp), ramp)
    assert np.array_equal(host.encoded[0].numpy(), ramp.astype(np.float32) / 255.0)


def test_what_shoots_over_wraps_round_in_parity_alone(host: FakeHostSampling) -> None:
    host.brighter = 250 / 255
    assert colours(redraw(models(), SAMPLING, place(parity=True), pictures(1))) == [4]
    assert colours(redraw(models(), SAMPLING, place(), pictures(1))) == [255]


def test_floats_stay_floats(host: FakeHostSampling) -> None:
    given = (pictures(3) / np.float32(255)).astype(np.float32)
    kept = given.copy()
    given.flags.writeable = False  # as a mapped blob is
    drawn = redraw(models(), SAMPLING, place(3), given)
    assert drawn.dtype == np.float32
    assert drawn.flags.c_contiguous
    assert np.allclose(drawn, kept + 0.25 / 255, atol=1e-7)
    assert np.array_equal(given, kept)


def test_a_decoder_may_give_a_smaller_picture(host: FakeHostSampling) -> None:
    drawn = redraw(models(PictureVae(loses_px=2)), SAMPLING, place(9), pictures(9))
    assert drawn.shape == (9, EDGE - 2, EDGE, 3)
    assert drawn.flags.c_contiguous


def test_a_clip_is_made_to_fit_and_cut_back(host: FakeHostSampling) -> None:
    drawn = redraw(models(clip_vae()), SAMPLING, place(6), pictures(6))
    assert [call.pictures for call in host.calls] == [9]
    assert "batch_index" not in host.calls[0].latent
    last = host.encoded[0][5]
    assert all(bool((frame == last).all()) for frame in host.encoded[0][6:])
    assert colours(drawn) == [10 + 2 * row for row in range(6)]
    assert host.calls[0].positive[1].frames == 6


def test_tiles_of_a_clip_pass_one_by_one(host: FakeHostSampling) -> None:
    for parity in (False, True):
        drawn = redraw(models(clip_vae()), SAMPLING, place(5, 2, parity=parity), pictures(10))
        assert colours(drawn) == [10 + row + row // 2 for row in range(10)]
    assert [call.pictures for call in host.calls] == [5] * 4
    assert [call.positive[1].crops for call in host.calls[:2]] == [(crop,) for crop in place(5, 2).crops]


def test_a_picture_model_with_a_vae_for_clips_gets_single_pictures(host: FakeHostSampling) -> None:
    config = type("QwenImage", (), {})()
    model = SimpleNamespace(model=SimpleNamespace(model_config=config))
    for parity in (False, True):
        redraw(models(clip_vae(), model=model), SAMPLING, place(2, 2, parity=parity), pictures(4))
    assert [call.pictures for call in host.calls] == [1] * 8


def test_too_few_pictures_from_the_vae_are_an_error(host: FakeHostSampling) -> None:
    with pytest.raises(InvalidInput, match="gave 4 pictures back where 5"):
        redraw(models(clip_vae(loses_frames=1)), SAMPLING, place(5), pictures(5))


@pytest.mark.parametrize(
    "pixels",
    [
        pictures(3),
        pictures(2)[..., :1],
        pictures(2)[0],
        pictures(2).astype(np.float64),
        pictures(2).astype(np.int32),
    ],
)
def test_pixels_of_another_place_are_refused(host: FakeHostSampling, pixels: np.ndarray) -> None:
    with pytest.raises(InvalidInput, match="pixels of a tile are"):
        redraw(models(), SAMPLING, place(2), pixels)
    assert host.encoded == []


class Interrupt(BaseException):
    """As the host's."""


@pytest.mark.parametrize("error", [Interrupt("stop"), MemoryError("full")])
def test_what_the_host_raises_passes_unchanged(host: FakeHostSampling, error: BaseException) -> None:
    host.fails = error
    with pytest.raises(type(error)) as caught:
        redraw(models(), SAMPLING, place(), pictures(1))
    assert caught.value is error


def test_settings_travel_as_json() -> None:
    assert Sampling.from_json(SAMPLING.to_json()) == SAMPLING
    assert Sampling.from_json({**SAMPLING.to_json(), "cfg": 5}).cfg == 5.0
    assert Sampling.from_json({**SAMPLING.to_json(), "seed": 2**64 - 1}).seed == 2**64 - 1


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -1},
        {"seed": 2**64},
        {"seed": 1.0},
        {"seed": True},
        {"steps": 0},
        {"steps": "4"},
        {"cfg": float("nan")},
        {"cfg": float("inf")},
        {"denoise": 1.01},
        {"denoise": None},
        {"sampler_name": 3},
        {"tiled_decode": 1},
        {"more": 1},
    ],
)
def test_wrong_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Sampling.from_json({**SAMPLING.to_json(), **change})


@pytest.mark.parametrize("data", [None, [], {}, {"seed": 1}])
def test_what_are_no_settings_is_refused(data: Any) -> None:
    with pytest.raises(InvalidInput, match="just these"):
        Sampling.from_json(data)


@pytest.mark.parametrize(
    ("vae", "expected"),
    [
        (PictureVae(), False),
        (clip_vae(), True),
        (clip_vae(not_video=True), False),
        (object(), False),
    ],
)
def test_which_vaes_are_for_clips(vae: Any, expected: bool) -> None:
    assert is_video(vae) is expected


@pytest.mark.parametrize(("step", "frames", "fitting"), [(4, 1, 1), (4, 2, 5), (4, 81, 81), (8, 81, 81), (8, 82, 89)])
def test_the_length_of_a_clip(step: int, frames: int, fitting: int) -> None:
    assert clip_length(clip_vae(step), frames) == fitting


@pytest.mark.parametrize("vae", [PictureVae(), object(), PictureVae(latent_dim=3), clip_vae(downscale_ratio=(4, 8, 8))])
def test_a_vae_that_tells_no_lengths_takes_any(vae: Any) -> None:
    assert clip_length(vae, 6) == 6
    assert frame_hint(vae, 6) == ""


def test_a_hint_says_what_was_done_and_what_fits() -> None:
    assert frame_hint(clip_vae(), 81) == ""
    assert frame_hint(clip_vae(), 79) == (
        "This video model works on 4n+1 frames; 79 were given. 2 frames were added at the end, as copies of the last, "
        "and removed again. Lengths that fit: 77, 81."
    )
    assert "1 frame was added" in frame_hint(clip_vae(), 80)


def test_a_hint_for_lengths_without_a_rule() -> None:
    vae = PictureVae(
        latent_dim=3,
        downscale_ratio=(lambda frames: max(1, (frames - 5) // 17 * 5 + 2) if frames > 1 else 1, 16, 16),
        upscale_ratio=(lambda latents: max(1, (latents - 2) // 5 * 17 + 5), 16, 16),
    )
    assert clip_length(vae, 2) == 5
    assert frame_hint(vae, 23).startswith(
        "This video model works on certain numbers of frames; 23 were given. 16 frames"
    )
    assert frame_hint(vae, 23).endswith("Lengths that fit: 22, 39.")
