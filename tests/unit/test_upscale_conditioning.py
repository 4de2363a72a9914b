"""Areas, GLIGEN, reference latents, rows of frames, and whole conditionings as one tile sees them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fakes.conditioning import FakeControl, noise, place
from flotilla.upscale.conditioning import crop_conditioning, needs_single_crops
from flotilla.upscale.conditioning.areas import crop_area
from flotilla.upscale.conditioning.batches import for_frames
from flotilla.upscale.conditioning.latents import crop_latent
from hypothesis import given
from hypothesis import strategies as st

INNER = (96, 64, 192, 160)
"""A crop of the canvas of 256 x 192, whose source has half its sides."""

TEXT = noise(1, 77, 16)


def same(one: Any, other: Any) -> bool:
    """Whether two nestings of dicts and lists, with tensors and objects in them, are equal."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, FakeControl):
        return isinstance(other, FakeControl) and same(vars(one), vars(other))
    return bool(one == other)


# --- areas -------------------------------------------------------------------------------------------------------------


def test_an_area_is_scaled_to_the_canvas_cut_by_the_crop_and_told_from_its_corner() -> None:
    # 8 x 8 cells from (4, 4): pixels 32..96 of the source, 64..192 of the canvas; of the crop the rows 64..160, columns
    # 96..192: all of it.
    assert crop_area((8, 8, 4, 4), place(INNER)) == (12, 12, 0, 0)
    # Rows 80..112 of the canvas, columns 112..304.
    assert crop_area((2, 12, 5, 7), place(INNER)) == (4, 10, 2, 2)


def test_edges_are_rounded_outwards_when_scaled_and_cells_downwards() -> None:
    # 100 px to 256: columns 8..24 become 20.48..61.44, so 20..62: 42 px from 20, which are 5 cells from 2.
    here = place((0, 0, 96, 96), source=(100, 96))
    assert crop_area((12, 2, 0, 1), here) == (12, 5, 0, 2)


def test_in_parity_an_area_is_not_rescaled_to_the_processing_size() -> None:
    crop = (96, 64, 192, 160)
    area = (4, 4, 6, 8)  # canvas rows 96..160, columns 128..192: of the crop 32..96
    assert crop_area(area, place(crop, size=(192, 192))) == (8, 8, 4, 4)
    assert crop_area(area, place(crop, size=(192, 192), parity=False)) == (16, 16, 8, 8)


def test_outside_of_the_crop_there_is_no_area() -> None:
    assert crop_area((2, 2, 0, 0), place(INNER)) is None
    assert crop_area((4, 6, 0, 0), place(INNER)) is None  # ends where the crop begins


def test_an_area_beginning_beyond_the_processing_size_is_outside() -> None:
    # The crop has 96 px, the tile 64: in parity the area's corner stays at 80 px.
    assert crop_area((1, 1, 9, 11), place(INNER, size=(64, 64))) is None
    assert crop_area((1, 1, 9, 11), place(INNER, size=(64, 64), parity=False)) == (2, 2, 6, 6)


def test_a_sliver_keeps_one_cell() -> None:
    assert crop_area((8, 1, 4, 6), place((108, 64, 204, 160))) == (12, 1, 0, 0)  # columns 96..112: 4 px


def test_fractions_become_cells_of_the_source_first() -> None:
    # Source 16 x 12 cells. Half of each from a quarter on: 6 x 8 cells from (3, 4).
    assert crop_area(("percentage", 0.5, 0.5, 0.25, 0.25), place(INNER)) == crop_area((6, 8, 3, 4), place(INNER))
    tiny = crop_area(("percentage", 0.001, 0.001, 0.5, 0.5), place(INNER))
    assert tiny == crop_area((1, 1, 6, 8), place(INNER))


def test_areas_with_time_keep_it() -> None:
    assert crop_area((5, 8, 8, 2, 4, 4), place(INNER)) == (5, 12, 12, 2, 0, 0)
    fraction = crop_area(("percentage", 0.5, 1 / 3, 0.5, 0.25, 1 / 3, 0.5), place(INNER))
    # 4 x 8 cells from (4, 8): canvas rows 64..128, columns 128..256; of the tile of 12 x 12 cells 8 x 8 from (0, 4).
    assert fraction == ("percentage", 0.5, 8 / 12, 8 / 12, 0.25, 0.0, 4 / 12)


@given(
    edge=st.integers(1, 15),
    left=st.integers(0, 150),
    width=st.integers(17, 106),
    size=st.sampled_from([64, 96, 128]),
)
def test_neighbouring_areas_leave_no_gap_outside_of_parity(edge: int, left: int, width: int, size: int) -> None:
    here = place((left, 0, left + width, 96), size=(size, 96), parity=False)
    cells: set[int] = set()
    for area in ((12, edge, 0, 0), (12, 16 - edge, 0, edge)):
        cropped = crop_area(area, here)
        if cropped is not None:
            cells.update(range(cropped[3], cropped[3] + cropped[1]))
    assert cells == set(range(size // 8))


def conditioning_with(*areas: tuple[int, ...] | None) -> list[list[Any]]:
    facts = [{} if area is None else {"area": area, "strength": 0.5 + n} for n, area in enumerate(areas)]
    return [[TEXT, {"name": n, **fact}] for n, fact in enumerate(facts)]


OUTSIDE = (2, 2, 0, 0)
INSIDE = (8, 8, 4, 4)


def test_in_parity_an_entry_outside_of_its_area_becomes_global() -> None:
    seen = crop_conditioning(conditioning_with(INSIDE, OUTSIDE), place(INNER))
    assert [facts for _, facts in seen] == [{"name": 0, "area": (12, 12, 0, 0), "strength": 0.5}, {"name": 1}]


def test_otherwise_it_is_left_out() -> None:
    seen = crop_conditioning(conditioning_with(OUTSIDE, None, INSIDE, OUTSIDE), place(INNER, parity=False))
    assert [facts["name"] for _, facts in seen] == [1, 2]
    assert seen[1][1]["strength"] == 2.5


def test_the_first_becomes_global_if_none_would_be_left() -> None:
    seen = crop_conditioning(conditioning_with(OUTSIDE, OUTSIDE), place(INNER, parity=False))
    assert [facts for _, facts in seen] == [{"name": 0}]


def test_an_empty_conditioning_stays_empty() -> None:
    assert crop_conditioning([], place(INNER, parity=False)) == []


# --- GLIGEN ------------------------------------------------------------------------------------------------------------


def gligen(*boxes: tuple[int, int, int, int]) -> list[list[Any]]:
    return [[TEXT, {"gligen": ("position", "model", [(f"text {n}", *box) for n, box in enumerate(boxes)])}]]


def test_boxes_outside_are_dropped_and_the_others_moved() -> None:
    [[_, facts]] = crop_conditioning(gligen((2, 2, 0, 0), (2, 12, 5, 7)), place(INNER))
    assert facts["gligen"] == ("position", "model", [("text 1", 4, 10, 2, 2)])


def test_a_sliver_of_a_box_has_no_width_in_parity_as_in_the_reference() -> None:
    # Columns 96..112 of the canvas: 12 px of the first crop, 4 px of the second.
    [[_, facts]] = crop_conditioning(gligen((8, 1, 4, 6)), place((100, 64, 196, 160)))
    assert facts["gligen"][2] == [("text 0", 12, 1, 0, 0)]
    [[_, facts]] = crop_conditioning(gligen((8, 1, 4, 6)), place((108, 64, 204, 160)))
    assert facts["gligen"][2] == [("text 0", 12, 0, 0, 0)]


def test_gligen_of_another_kind_stays_whole() -> None:
    other = ("empty", "model", None)
    [[_, facts]] = crop_conditioning([[TEXT, {"gligen": other}]], place(INNER))
    assert facts["gligen"] is other


def test_without_a_box_the_entry_goes_without_gligen_outside_of_parity() -> None:
    assert crop_conditioning(gligen((2, 2, 0, 0)), place(INNER))[0][1] == {"gligen": ("position", "model", [])}
    assert crop_conditioning(gligen((2, 2, 0, 0)), place(INNER, parity=False))[0][1] == {}


# --- latents -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(1, 4, 12, 16), (2, 16, 24, 32), (1, 3, 5, 7), (1, 4, 3, 12, 16), (2, 16, 3, 12, 16)]
)
def test_a_reference_latent_is_that_of_the_whole_canvas_cut(shape: tuple[int, ...]) -> None:
    latent = noise(*shape)
    flat = latent.movedim(2, 1).flatten(0, 1) if latent.ndim == 5 else latent
    whole = F.interpolate(flat, size=(192 // 8, 256 // 8), mode="bilinear")
    expected = F.interpolate(whole[:, :, 64 // 8 : 160 // 8, 100 // 8 : 190 // 8], size=(8, 12), mode="bilinear")
    if latent.ndim == 5:
        expected = expected.unflatten(0, (shape[0], shape[2])).movedim(1, 2)
    here = place((100, 64, 190, 160), size=(96, 64), frames=range(shape[0]))
    assert torch.equal(crop_latent(latent, here), expected)


def test_in_parity_a_reference_is_that_of_the_first_crop_else_one_for_each() -> None:
    latent = noise(1, 4, 12, 16)
    crops = (0, 0, 96, 96), INNER
    assert crop_latent(latent, place(*crops)).shape == (1, 4, 12, 12)
    both = crop_latent(latent, place(*crops, parity=False))
    assert torch.equal(both, torch.cat([crop_latent(latent, place(crop)) for crop in crops]))


def test_all_references_are_cropped_and_what_is_no_picture_is_not() -> None:
    sound = noise(1, 8, 30)
    facts = {"reference_latents": [noise(1, 4, 12, 16), sound, noise(1, 4, 24, 32)]}
    [[_, seen]] = crop_conditioning([[TEXT, facts]], place(INNER))
    assert [tuple(latent.shape) for latent in seen["reference_latents"]] == [(1, 4, 12, 12), (1, 8, 30), (1, 4, 12, 12)]
    assert seen["reference_latents"][1] is sound


def test_latents_of_inpainting_models_are_left_whole_in_parity_alone() -> None:
    latent, mask = noise(1, 4, 12, 16), noise(1, 1, 96, 128)
    facts = {"concat_latent_image": latent, "concat_mask": mask}
    [[_, whole]] = crop_conditioning([[TEXT, facts]], place(INNER))
    assert whole["concat_latent_image"] is latent and whole["concat_mask"] is mask
    [[_, seen]] = crop_conditioning([[TEXT, facts]], place(INNER, parity=False))
    assert torch.equal(seen["concat_latent_image"], crop_latent(latent, place(INNER)))
    # The mask has half the canvas's sides: rows 32..80, columns 48..96.
    expected = F.interpolate(mask[:, :, 32:80, 48:96], size=(96, 96), mode="bilinear")
    assert torch.equal(seen["concat_mask"], expected)


# --- frames ------------------------------------------------------------------------------------------------------------


def test_chunks_see_the_rows_of_their_frames() -> None:
    rows = noise(6, 77, 4)
    whole = for_frames(rows, place(INNER, frames=range(6)))
    assert whole is rows
    chunks = [for_frames(rows, place(INNER, frames=range(start, start + 2), all_frames=6)) for start in (0, 2, 4)]
    assert torch.equal(torch.cat(chunks), rows)


def test_fewer_rows_than_frames_take_turns_and_more_are_cut() -> None:
    rows = noise(2, 77, 4)
    chunk = for_frames(rows, place(INNER, frames=range(3, 6), all_frames=6))
    assert torch.equal(chunk, rows[[1, 0, 1]])
    assert torch.equal(for_frames(noise(9, 3), place(INNER, frames=range(2, 4), all_frames=6)), noise(9, 3)[2:4])


def test_rows_that_are_no_frames_stay() -> None:
    latent_frames = noise(4, 3)
    assert for_frames(latent_frames, place(INNER, frames=range(5, 9), all_frames=13)) is latent_frames


def test_a_single_row_serves_all_frames() -> None:
    assert for_frames(TEXT, place(INNER, frames=range(3, 6), all_frames=6)) is TEXT


def test_a_frames_row_is_that_of_each_of_its_tiles() -> None:
    rows = noise(2, 3)
    crops = (0, 0, 96, 96), INNER
    assert torch.equal(for_frames(rows, place(*crops, frames=range(2), parity=False)), rows[[0, 0, 1, 1]])
    assert torch.equal(for_frames(rows, place(*crops, frames=range(2))), rows)


def test_text_pooled_text_and_masks_of_a_chunk() -> None:
    facts = {"pooled_output": noise(4, 8), "attention_mask": noise(4, 77), "mask": noise(4, 96, 128), "other": noise(4)}
    chunk = place(INNER, frames=range(2, 4), all_frames=4)
    [[text, seen]] = crop_conditioning([[noise(4, 77, 8), facts]], chunk)
    assert torch.equal(text, noise(4, 77, 8)[2:])
    assert torch.equal(seen["pooled_output"], facts["pooled_output"][2:])
    assert torch.equal(seen["attention_mask"], facts["attention_mask"][2:])
    whole = crop_conditioning([[noise(4, 77, 8), facts]], place(INNER, frames=range(4)))
    assert torch.equal(seen["mask"], whole[0][1]["mask"][2:])
    assert seen["other"] is facts["other"]


# --- whole conditionings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parity", [True, False])
@pytest.mark.parametrize("crops", [(INNER,), (INNER, (0, 0, 96, 96))])
def test_nothing_given_is_changed(parity: bool, crops: tuple[tuple[int, int, int, int], ...]) -> None:
    control = FakeControl("second", noise(2, 3, 96, 128), FakeControl("first", noise(1, 3, 48, 64)))
    control.extra_concat_orig = [noise(1, 1, 96, 128)]
    full = {
        "control": control,
        "control_apply_to_uncond": True,
        "area": INSIDE,
        "strength": 0.5,
        "mask": noise(2, 96, 128),
        "mask_strength": 0.7,
        "gligen": ("position", "model", [("text", 8, 8, 4, 4)]),
        "reference_latents": [noise(1, 4, 12, 16)],
        "concat_latent_image": noise(1, 4, 12, 16),
        "concat_mask": noise(1, 1, 96, 128),
        "pooled_output": noise(2, 8),
        "unknown": {"deep": [noise(3)]},
    }
    given = [[noise(2, 77, 8), full], *conditioning_with(OUTSIDE, None)]
    before = copy.deepcopy(given)
    here = place(*crops, frames=range(1, 2), all_frames=2, parity=parity)
    seen = crop_conditioning(given, here)
    assert same(given, before)
    assert seen[0][1] is not full
    assert seen[0][1]["unknown"] is full["unknown"] and seen[0][1]["mask_strength"] == 0.7
    # And so the same call gives the same again.
    assert same(crop_conditioning(given, here), seen)


def test_an_entry_without_places_keeps_its_objects() -> None:
    facts = {"pooled_output": noise(1, 8), "model_conds": {}, "start_percent": 0.2}
    [[text, seen]] = crop_conditioning([[TEXT, facts]], place(INNER, parity=False))
    assert text is TEXT and seen == facts and seen is not facts


def test_only_areas_and_gligen_of_several_crops_need_single_ones() -> None:
    several = place(INNER, (0, 0, 96, 96), parity=False)
    assert needs_single_crops(conditioning_with(None, INSIDE), several)
    assert needs_single_crops(gligen((2, 2, 0, 0)), several)
    assert not needs_single_crops([[TEXT, {"mask": noise(1, 8, 8)}]], several)
    assert not needs_single_crops(conditioning_with(INSIDE), place(INNER, parity=False))
    assert not needs_single_crops(conditioning_with(INSIDE), place(INNER, (0, 0, 96, 96)))
