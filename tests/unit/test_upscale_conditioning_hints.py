"""Pictures in conditionings and models: masks, the hints of ControlNets, the hints of model patches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fakes.conditioning import FakeCompanion, FakeControl, FakeModel, FakePatch, noise, place
from flotilla.upscale.conditioning import crop_conditioning, cropped_model
from flotilla.upscale.conditioning import patches as patches_module
from flotilla.upscale.conditioning.controlnet import crop_control
from flotilla.upscale.conditioning.masks import canvas_region, crop_mask, fitted
from flotilla.upscale.conditioning.regions import crop_hint, scaled
from flotilla.upscale.geometry import Box, Size
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

INNER = (96, 64, 192, 160)
CORNER = (0, 0, 96, 96)


# --- masks -------------------------------------------------------------------------------------------------------------


@given(
    mask=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    canvas=st.tuples(st.integers(8, 70), st.integers(8, 70)),
    corners=st.tuples(*[st.floats(0, 1, exclude_max=True)] * 4),
    seed=st.integers(0, 99),
)
def test_a_region_has_the_bits_of_the_whole_canvas(
    mask: tuple[int, int], canvas: tuple[int, int], corners: tuple[float, ...], seed: int
) -> None:
    xs = sorted(int(corner * canvas[0]) for corner in corners[:2])
    ys = sorted(int(corner * canvas[1]) for corner in corners[2:])
    crop = Box(xs[0], ys[0], xs[1] + 1, ys[1] + 1)
    pixels = noise(mask[1], mask[0], seed=seed)
    whole = Image.fromarray((pixels.numpy() * 255).astype(np.uint8)).resize(canvas, Image.Resampling.BICUBIC)
    region = canvas_region(pixels, Size(*canvas), crop)
    assert np.array_equal(np.asarray(region), np.asarray(whole.crop(crop)))


def test_a_mask_is_cut_at_the_canvas_and_brought_to_the_processing_size() -> None:
    mask = noise(2, 96, 128)
    cropped = crop_mask(mask, place(INNER, size=(128, 128), frames=range(2)))
    assert cropped.shape == (2, 128, 128) and cropped.dtype == torch.float32
    for one, expected in zip(cropped, mask, strict=True):
        picture = Image.fromarray((expected.numpy() * 255).astype(np.uint8))
        picture = picture.resize((256, 192), Image.Resampling.BICUBIC).crop(INNER)
        picture = picture.resize((128, 128), Image.Resampling.LANCZOS)
        assert torch.equal(one, torch.from_numpy(np.asarray(picture).astype(np.float32) / 255))


def test_another_aspect_is_fitted_and_its_edges_repeated() -> None:
    picture = Image.fromarray(np.repeat(np.array([[10], [200]], np.uint8), 4, axis=1))  # 4 wide, 2 high
    rows = np.asarray(fitted(picture, Size(4, 8)))
    assert rows.tolist() == [[10] * 4] * 4 + [[200] * 4] * 4
    assert fitted(picture, Size(4, 9)).size == (4, 9)


def test_masks_of_unusual_shape() -> None:
    plain = crop_mask(noise(1, 96, 128), place(INNER))
    assert torch.equal(crop_mask(noise(1, 96, 128)[0], place(INNER)), plain)
    in_time = noise(1, 3, 48, 64)
    cropped = crop_mask(in_time, place(INNER))
    assert cropped.shape == (1, 3, 96, 96)
    assert torch.equal(cropped[0], crop_mask(in_time[0], place(INNER, frames=range(3))))


def test_several_crops_have_a_mask_each_outside_of_parity() -> None:
    mask = noise(2, 96, 128)
    frames = range(2)
    first, second = (crop_mask(mask, place(crop, frames=frames)) for crop in (CORNER, INNER))
    assert torch.equal(crop_mask(mask, place(CORNER, INNER, frames=frames)), first)
    both = crop_mask(mask, place(CORNER, INNER, frames=frames, parity=False))
    assert torch.equal(both, torch.stack([first[0], second[0], first[1], second[1]]))


# --- hints of ControlNets ----------------------------------------------------------------------------------------------


def test_a_region_is_scaled_outwards() -> None:
    assert scaled(Box(96, 64, 192, 160), Size(256, 192), Size(100, 50)) == (37, 16, 75, 42)


def test_a_hint_is_the_region_at_the_processing_size() -> None:
    hint = noise(1, 3, 50, 100)
    expected = F.interpolate(hint[:, :, 16:42, 37:75], size=(96, 64), mode="nearest-exact")
    assert torch.equal(crop_hint(hint, place(INNER, size=(64, 96))), expected)


def test_hints_go_frame_by_frame_and_tile_by_tile() -> None:
    hint = noise(3, 3, 96, 128)
    alone = {
        (frame, crop): crop_hint(hint[frame : frame + 1], place(crop)) for frame in range(3) for crop in (CORNER, INNER)
    }
    chunk = crop_hint(hint, place(CORNER, INNER, frames=range(1, 3), all_frames=3))
    order = [(1, CORNER), (1, INNER), (2, CORNER), (2, INNER)]
    assert torch.equal(chunk, torch.cat([alone[key] for key in order]))
    assert torch.equal(crop_hint(hint[:1], place(CORNER, INNER, frames=range(3))), torch.cat([*alone.values()][:2]))


def test_fewer_hints_than_frames_take_turns_as_in_the_host() -> None:
    hint = noise(2, 3, 96, 128)
    whole = crop_hint(hint, place(INNER, frames=range(5)))
    assert len(whole) == 2  # the host repeats them
    assert torch.equal(crop_hint(hint, place(INNER, frames=range(3, 5), all_frames=5)), whole[[1, 0]])


def test_a_chain_keeps_its_order_and_the_originals_theirs() -> None:
    first = FakeControl("first", noise(1, 3, 48, 64))
    second = FakeControl("second", noise(1, 3, 96, 128, seed=1), first)
    twin = crop_control(second, place(INNER))
    assert (twin.name, twin.previous_controlnet.name, twin.previous_controlnet.previous_controlnet) == (
        "second",
        "first",
        None,
    )
    assert torch.equal(twin.cond_hint_original, crop_hint(second.cond_hint_original, place(INNER)))
    assert torch.equal(twin.previous_controlnet.cond_hint_original, crop_hint(first.cond_hint_original, place(INNER)))
    assert twin.cond_hint is None and twin.previous_controlnet.cond_hint is None
    assert second.previous_controlnet is first and second.cond_hint is not None
    assert torch.equal(second.cond_hint_original, noise(1, 3, 96, 128, seed=1))


def test_masks_of_inpainting_controls_are_cropped_outside_of_parity() -> None:
    control = FakeControl("inpaint", noise(1, 3, 96, 128))
    mask, one = noise(2, 1, 48, 64), torch.ones(1, 1, 1, 1)
    control.extra_concat_orig = [mask, one]
    assert crop_control(control, place(INNER)).extra_concat_orig == [mask, one]
    cropped = crop_control(control, place(INNER, parity=False)).extra_concat_orig
    assert torch.equal(cropped[0], crop_hint(mask[:1], place(INNER)))  # as many as there are hints
    assert cropped[1] is not None and torch.equal(cropped[1], one)
    assert control.extra_concat_orig == [mask, one]


def test_a_control_without_a_picture_is_only_copied() -> None:
    control = FakeControl("text", None)
    [[_, facts]] = crop_conditioning([[noise(1, 2), {"control": control}]], place(INNER))
    assert facts["control"].name == "text" and facts["control"] is not control


def test_no_control_stays_none() -> None:
    [[_, facts]] = crop_conditioning([[noise(1, 2), {"control": None}]], place(INNER))
    assert facts == {"control": None}


# --- hints of model patches --------------------------------------------------------------------------------------------


def patch_of(image: torch.Tensor, mask: torch.Tensor | None = None) -> FakePatch:
    return FakePatch("model", 0.25, image, 0.5, mask)


def patches_of(model: Any) -> dict[str, list[Any]]:
    return model.model_options["transformer_options"]["patches"]


def test_a_model_without_pictures_is_itself() -> None:
    for model in (FakeModel(), FakeModel({"attn1": [object()]}), object()):
        with cropped_model(model, place(INNER)) as seen:
            assert seen is model


def test_a_patch_is_built_anew_with_its_picture_cropped() -> None:
    image, mask = noise(1, 96, 128, 3), noise(1, 1, 1, 96, 128)
    original = patch_of(image, mask)
    plain = object()
    model = FakeModel({"double_block": [plain, original], "noise_refiner": [original]})
    with cropped_model(model, place(INNER)) as seen:
        assert seen is not model
        patches = patches_of(seen)
        [kept, twin] = patches["double_block"]
        assert kept is plain and patches["noise_refiner"] == [twin] and twin is not original
        assert torch.equal(twin.image, crop_hint(image.movedim(-1, 1), place(INNER)).movedim(1, -1))
        assert torch.equal(twin.mask, crop_hint(mask, place(INNER)))
        assert torch.equal(twin.encoded_image, FakePatch("model", 0.25, twin.image, 0.5, twin.mask).encoded_image)
        assert seen.model_options["sampler_cfg_function"] == "kept"
    assert patches_of(model) == {"double_block": [plain, original], "noise_refiner": [original]}
    assert original.image is image and original.encoded_image.shape == (1, 12, 16)


def test_what_refers_to_a_patch_refers_to_its_twin() -> None:
    original = patch_of(noise(1, 96, 128, 3))
    companion = FakeCompanion(original)
    model = FakeModel({"post_input": [original], "attn1": [companion]})
    with cropped_model(model, place(INNER)) as seen:
        patches = patches_of(seen)
        assert patches["attn1"][0].patch is patches["post_input"][0] is not original
    assert companion.patch is original


@pytest.mark.parametrize("conditionings", [1, 2])
def test_several_hints_meet_the_latents_of_every_conditioning(conditionings: int) -> None:
    image = noise(2, 96, 128, 3)
    here = place(CORNER, INNER, frames=range(2))
    with cropped_model(FakeModel({"double_block": [patch_of(image)]}), here) as seen:
        [twin] = patches_of(seen)["double_block"]
        assert twin.models() == ["model"] and twin.to(torch.device("cpu")) is twin
        batch = torch.zeros(4 * conditionings, 12, 12)
        drawn = twin({"img": batch, "x": batch})["img"]
    alone = [
        0.5 * patch_of(crop_hint(image[frame : frame + 1].movedim(-1, 1), place(crop)).movedim(1, -1)).encoded_image
        for frame in range(2)
        for crop in (CORNER, INNER)
    ]
    assert torch.equal(drawn, torch.cat(alone * conditionings))


class OtherPatch:
    """Holds a picture, but nobody can tell how to build it."""

    def __init__(self, secret: int) -> None:
        self.model_patch = "model"
        self.image = noise(1, 96, 128, 3, seed=secret)


def test_a_patch_that_cannot_be_built_anew_stays_and_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    patches_module._say_left_whole.cache_clear()
    original = OtherPatch(1)
    for _ in range(2):
        with cropped_model(FakeModel({"attn1": [original]}), place(INNER)) as seen:
            assert patches_of(seen)["attn1"] == [original]
    [record] = caplog.records
    assert "OtherPatch" in record.getMessage()
